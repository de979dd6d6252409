//! Reads orders from a file, one per line.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;

use crate::config::HttpConfig;
use crate::order::json::{self, JsonPointer};

/// A line of the file that is an order, or why it is none.
#[derive(Debug)]
pub struct Line {
    /// Counts from 1; lines that are empty count, too.
    pub number: usize,
    pub order: Result<Bytes, String>,
}

/// Lines of a file, or of standard input.
pub struct Lines {
    input: Box<dyn BufRead>,
    name: String,
    number: usize,
    bytes_max: usize,
    depth_max: usize,
}

impl Lines {
    /// Opens a file; `-` is standard input. Orders are held to the limits that a node of this configuration has.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(path: &Path, limits: &HttpConfig) -> anyhow::Result<Self> {
        let input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            Box::new(BufReader::new(File::open(path).with_context(|| format!("open {}", path.display()))?))
        };
        Ok(Self {
            input,
            name: path.display().to_string(),
            number: 0,
            bytes_max: limits.body_bytes_max.0,
            depth_max: limits.json_depth_max,
        })
    }

    /// The next lines that are not empty, at most `count`; none at the end.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn next_batch(&mut self, count: usize) -> anyhow::Result<Vec<Line>> {
        let mut batch = Vec::new();
        while batch.len() < count {
            let mut line = Vec::new();
            self.number += 1;
            if self.input.read_until(b'\n', &mut line).with_context(|| format!("read {}", self.name))? == 0 {
                break;
            }
            let text = line.trim_ascii();
            if !text.is_empty() {
                batch.push(Line { number: self.number, order: self.check(text) });
            }
        }
        Ok(batch)
    }

    fn check(&self, text: &[u8]) -> Result<Bytes, String> {
        if text.len() > self.bytes_max {
            return Err(format!(
                "it has {} bytes, more than the {} of `http.body_bytes_max`",
                text.len(),
                self.bytes_max
            ));
        }
        json::check(text, self.depth_max, &JsonPointer::default()).map_err(|fault| fault.to_string())?;
        Ok(Bytes::copy_from_slice(text))
    }
}
