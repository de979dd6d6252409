//! Cuts a file of orders into batches, by lines and by bytes.

use std::io::{self, BufRead, Read};

use sha2::{Digest, Sha256};

/// Lines that are posted together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// NDJSON, without empty lines.
    pub(super) body: Vec<u8>,
    /// The number in the file of each line of `body`, from 1.
    pub(super) lines: Vec<u64>,
    /// Lines that fit no batch.
    pub(super) too_long: Vec<u64>,
    /// Where the next batch begins.
    pub(super) next_byte: u64,
    pub(super) next_line: u64,
}

/// The batches of a file. The same file and limits give the same batches, from whichever of their beginnings.
pub(super) struct Batches<R> {
    reader: R,
    lines_max: usize,
    bytes_max: usize,
    next_byte: u64,
    next_line: u64,
    /// Read, but did not fit into the batch before.
    left: Option<(u64, Vec<u8>)>,
}

impl<R: BufRead> Batches<R> {
    /// Batches of a reader that stands at `next_byte`, the beginning of line `next_line`.
    pub(super) fn new(reader: R, (lines_max, bytes_max): (usize, usize), next_byte: u64, next_line: u64) -> Self {
        Self { reader, lines_max, bytes_max, next_byte, next_line, left: None }
    }

    fn batch(&mut self) -> io::Result<Option<Batch>> {
        let mut batch = Batch::default();
        if let Some((number, line)) = self.left.take() {
            batch.take(number, &line);
            self.passed(&mut batch, line.len() as u64);
        }
        while batch.lines.len() + batch.too_long.len() < self.lines_max {
            let mut line = Vec::new();
            // One byte above the limit is enough to know.
            let limit = self.bytes_max as u64 + 1;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut line)? as u64;
            if read == 0 {
                break;
            }
            if read == limit && !line.ends_with(b"\n") {
                let rest = skip_line(&mut self.reader)?;
                batch.too_long.push(self.next_line);
                self.passed(&mut batch, read + rest);
            } else if line.trim_ascii().is_empty() {
                self.passed(&mut batch, read);
            } else if !batch.lines.is_empty() && batch.body.len() + line.len() + 1 > self.bytes_max {
                self.left = Some((self.next_line, line));
                break;
            } else {
                batch.take(self.next_line, &line);
                self.passed(&mut batch, read);
            }
        }
        Ok((batch.next_line > 0).then_some(batch))
    }

    fn passed(&mut self, batch: &mut Batch, bytes: u64) {
        self.next_byte += bytes;
        self.next_line += 1;
        (batch.next_byte, batch.next_line) = (self.next_byte, self.next_line);
    }
}

impl<R: BufRead> Iterator for Batches<R> {
    type Item = io::Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

impl Batch {
    fn take(&mut self, number: u64, line: &[u8]) {
        self.lines.push(number);
        self.body.extend_from_slice(line.trim_ascii());
        self.body.push(b'\n');
    }
}

/// Reads to the end of the line; how many bytes that were.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let length = newline.map_or(buffer.len(), |at| at + 1);
        reader.consume(length);
        skipped += length as u64;
        if newline.is_some() {
            return Ok(skipped);
        }
    }
}

/// 32 hex digits that stand for the content.
pub(super) fn fingerprint(mut reader: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize()[..16])),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
