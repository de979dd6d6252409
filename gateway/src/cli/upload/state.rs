//! How far an upload got, noted in a small file so that it can go on after an interruption.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::source::{Batch, fingerprint};

/// How far it got, and what must be the same for it to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    /// Of the whole file; empty for standard input.
    fingerprint: String,
    route: String,
    /// Tells one upload of the same file from another; empty unless that is wanted.
    salt: String,
    batch_lines: usize,
    batch_bytes: usize,
    pub(super) next_byte: u64,
    pub(super) next_line: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
}

impl State {
    /// The beginning of an upload; with a salt if it is to make new orders whatever was posted before.
    pub(super) fn new(fingerprint: String, route: &str, (lines, bytes): (usize, usize), is_salted: bool) -> Self {
        Self {
            fingerprint,
            route: route.to_owned(),
            salt: if is_salted { format!("{:016x}", fastrand::u64(..)) } else { String::new() },
            batch_lines: lines,
            batch_bytes: bytes,
            next_byte: 0,
            next_line: 1,
            accepted: 0,
            refused: 0,
        }
    }

    /// The state noted at `path`, if there is one; itself otherwise. A salted state goes on only with a salted one, and
    /// begins anew over any other.
    pub(super) fn or_noted(self, path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let is_salted = !self.salt.is_empty();
        let shown = path.display();
        let noted: Self = serde_json::from_str(&text)
            .with_context(|| format!("{shown} notes no upload: remove it, or name another with --resume"))?;
        if is_salted && (noted.salt.is_empty() || noted.fingerprint != self.fingerprint || noted.route != self.route) {
            return Ok(self);
        }
        if noted.fingerprint != self.fingerprint {
            anyhow::bail!(
                "the file has changed since its upload was interrupted at line {}: put the old content back, or post \
                 the rest from a file of its own; with --again all of it becomes new orders (noted in {shown})",
                noted.next_line
            );
        }
        if noted.route != self.route {
            anyhow::bail!("the interrupted upload noted in {shown} went to {}, not to {}", noted.route, self.route);
        }
        Ok(noted)
    }

    /// Writes it whole or not at all.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let write = || {
            let mut file = fs::File::create(&name)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            fs::rename(&name, path)
        };
        write()
            .with_context(|| format!("cannot note the progress in {}; name another file with --resume", path.display()))
    }

    /// Removes what was noted; nothing to remove is fine.
    pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Lines and bytes of a batch, as the upload began with.
    pub(super) fn limits(&self) -> (usize, usize) {
        (self.batch_lines, self.batch_bytes)
    }

    /// The same for the same batch of the same file, whenever it is sent.
    pub(super) fn batch_key(&self, batch: &Batch) -> String {
        let content = if self.fingerprint.is_empty() {
            // What comes in by standard input is known batch by batch.
            fingerprint(batch.body.as_slice()).unwrap_or_default()
        } else {
            self.fingerprint.clone()
        };
        let salt = if self.salt.is_empty() { String::new() } else { format!("-{}", self.salt) };
        format!("file-{content}{salt}-{}x{}-{}", self.batch_lines, self.batch_bytes, batch.lines[0])
    }

    /// For people.
    pub(super) fn counts(&self) -> String {
        format!("{} lines: {} accepted, {} refused", self.accepted + self.refused, self.accepted, self.refused)
    }
}
