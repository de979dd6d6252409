//! Reads what the program wrote: lines for people on standard output, JSON log lines on standard error.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The output of a program, over all its starts.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// All there is so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.path).unwrap_or_default()).into_owned()
    }

    /// Bytes so far: a place to look from later.
    #[must_use]
    pub fn len(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last lines, for a failed test.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Lines from a byte on that a person should look at (WARN, ERROR, a panic), but those that contain one of
    /// `announced`.
    #[must_use]
    pub fn complaints(&self, from: u64, announced: &[String]) -> Vec<String> {
        let text = self.text();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
        let rest = text.get(from..).unwrap_or(&text);
        rest.lines()
            .filter(|line| is_complaint(line) && !announced.iter().any(|known| line.contains(known)))
            .map(str::to_owned)
            .collect()
    }

    /// The first `host:port` on a line for people that begins with `word`, after the first `from` bytes.
    #[must_use]
    pub fn address_on_line(&self, word: &str, from: u64) -> Option<String> {
        let text = self.text();
        let rest = text.get(usize::try_from(from).ok()?..)?;
        let mut lines = rest.lines().filter(|line| line.trim_start().starts_with(word));
        lines.find_map(|line| {
            line.split(|c: char| c.is_whitespace() || c == ',')
                .find(|part| part.parse::<std::net::SocketAddr>().is_ok())
                .map(str::to_owned)
        })
    }
}

fn is_complaint(line: &str) -> bool {
    match serde_json::from_str::<Value>(line) {
        Ok(line) => matches!(line["level"].as_str(), Some("WARN" | "ERROR")),
        Err(_) => line.contains("panicked at"),
    }
}
