//! What is wrong with a configuration, and where that was set.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`, or `route[0].key`.
    pub key: String,
    /// What is wrong and what is expected.
    pub reason: String,
    /// Other keys that the reason speaks of.
    pub related: Vec<String>,
    /// Where the key was set; absent where that is not known or the default is meant.
    pub origin: Option<Origin>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, with the line, counted from 1.
    File { name: String, line: usize },
    /// A variable of the environment.
    Environment(String),
}

/// Everything that is wrong with a configuration; one line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigErrors {
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl Problem {
    /// A problem of one key, set nobody knows where.
    pub fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: reason.into(), related: Vec::new(), origin: None }
    }

    /// The same, for a reason that speaks of other keys too.
    #[must_use]
    pub fn with(mut self, related: &[&str]) -> Self {
        self.related = related.iter().map(|key| (*key).to_owned()).collect();
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.reason)?;
        } else {
            write!(f, "{}: {}", self.key, self.reason)?;
        }
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment(name) => f.write_str(name),
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
