//! What there is to see: files of plugins, their signatures, the pins, the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::trust::{LOCK, LOCK_BYTES_MAX, Pins, SIGNATURE_BYTES_MAX};
use crate::config::Config;
use crate::folder::{self, ReadFault};
use crate::plugin::TableStamps;

/// Largest configuration file.
const CONFIG_BYTES_MAX: usize = 16 << 20;

/// Everything that was seen in one look.
#[derive(Debug, Clone, Default)]
pub(super) struct Sight {
    /// By plugin name.
    pub(super) files: BTreeMap<String, Seen>,
    pub(super) lock: Seen,
    pub(super) config: Seen,
    /// Files of lookup tables.
    pub(super) tables: TableStamps,
}

/// What stands at a path.
#[derive(Debug, Clone, Default)]
pub(super) enum Seen {
    #[default]
    Missing,
    /// It is there and cannot be read.
    Unreadable {
        path: PathBuf,
        reason: String,
    },
    File {
        path: PathBuf,
        digest: String,
        bytes: Bytes,
        signature: Option<String>,
    },
}

/// The same thing at the same place.
impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Missing, Self::Missing) => true,
            (Self::Unreadable { path, reason }, Self::Unreadable { path: other_path, reason: other }) => {
                path == other_path && reason == other
            }
            (
                Self::File { path, digest, signature, .. },
                Self::File { path: other_path, digest: other, signature: other_signature, .. },
            ) => path == other_path && digest == other && signature == other_signature,
            _ => false,
        }
    }
}

impl Seen {
    fn at(path: PathBuf, bytes_max: usize) -> Self {
        match folder::read(&path, bytes_max) {
            Ok(bytes) => Self::File { digest: folder::digest(&bytes), path, bytes: bytes.into(), signature: None },
            Err(ReadFault::Missing) => Self::Missing,
            Err(fault) => Self::Unreadable { path, reason: fault.to_string() },
        }
    }

    fn without_bytes(&self) -> Self {
        match self.clone() {
            Self::File { path, digest, signature, .. } => Self::File { path, digest, bytes: Bytes::new(), signature },
            other => other,
        }
    }
}

impl Sight {
    /// Looks at the files of these plugins, and at what stands around them.
    pub(super) fn look(config: &Config, config_path: &Path, names: &[String]) -> Self {
        let (dir, bytes_max) = (&config.plugins.dir, config.plugins.file_bytes_max.0);
        let files = names.iter().map(|name| (name.clone(), plugin(dir, name, bytes_max))).collect();
        Self {
            files,
            lock: Seen::at(dir.join(LOCK), LOCK_BYTES_MAX),
            config: Seen::at(config_path.to_owned(), CONFIG_BYTES_MAX),
            tables: TableStamps::of(&config.plugins),
        }
    }

    /// The same without the bytes of plugins, to compare with later.
    pub(super) fn without_bytes(self) -> Self {
        let files = self.files.iter().map(|(name, seen)| (name.clone(), seen.without_bytes())).collect();
        Self { files, ..self }
    }

    /// Whether two looks saw the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.files == other.files
            && self.lock == other.lock
            && self.config == other.config
            && self.tables == other.tables
    }

    /// What both looks saw; where they differ, what was settled before. And whether they differed at all.
    pub(super) fn settle(self, again: Self, before: &Self) -> (Self, bool) {
        let mut is_stable = true;
        let mut settle = |first: &Seen, again: Seen, before: &Seen| {
            if *first == again {
                return again;
            }
            is_stable = false;
            before.clone()
        };
        let lock = settle(&self.lock, again.lock, &before.lock);
        let config = settle(&self.config, again.config, &before.config);
        let files = again.files.into_iter().map(|(name, seen)| {
            let first = self.files.get(&name).cloned().unwrap_or_default();
            let before = before.files.get(&name).cloned().unwrap_or_default();
            let seen = settle(&first, seen, &before);
            (name, seen)
        });
        let files = files.collect();
        let tables = if self.tables == again.tables {
            again.tables
        } else {
            is_stable = false;
            before.tables.clone()
        };
        (Self { files, lock, config, tables }, is_stable)
    }

    /// Whether there is any file of a plugin.
    pub(super) fn has_files(&self) -> bool {
        self.files.values().any(|seen| !matches!(seen, Seen::Missing))
    }

    pub(super) fn pins(&self) -> Pins {
        match &self.lock {
            Seen::Missing => Pins::Open,
            Seen::Unreadable { reason, .. } => Pins::Broken(reason.clone()),
            Seen::File { bytes, .. } => Pins::parse(bytes),
        }
    }
}

/// The file of a plugin: `NAME.wasm`, else `NAME.wat`.
fn plugin(dir: &Path, name: &str, bytes_max: usize) -> Seen {
    let seen = match Seen::at(dir.join(format!("{name}.wasm")), bytes_max) {
        Seen::Missing => Seen::at(dir.join(format!("{name}.wat")), bytes_max),
        seen => seen,
    };
    match seen {
        Seen::File { path, digest, bytes, .. } => {
            let mut beside = path.clone().into_os_string();
            beside.push(".minisig");
            // What cannot be read signs nothing.
            let signature = folder::read(Path::new(&beside), SIGNATURE_BYTES_MAX).ok();
            let signature = signature.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            Seen::File { path, digest, bytes, signature }
        }
        seen => seen,
    }
}
