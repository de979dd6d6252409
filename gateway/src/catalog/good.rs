//! The last good versions on disk: `good/NAME.json` says which, `good/NAME.DIGEST.wasm` are their bytes.
//!
//! Bytes are written before the document that names them, and taken away after it: a crash leaves the old state or the
//! new one.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::folder;

/// Most bytes of the document.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Everything that is kept of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) current: Option<Kept>,
    pub(super) previous: Option<Kept>,
    pub(super) withdrawn: Option<Withdrawn>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) digest: String,
    /// Its file; absent for a bundled one, whose bytes are in the program.
    pub(super) file: Option<PathBuf>,
    /// When it began to serve.
    pub(super) since: String,
    /// The text beside it, checked again at each start.
    pub(super) signature: Option<String>,
    /// Whether it has judged enough orders without failing on too many: what a version that fails is replaced with.
    #[serde(default)]
    pub(super) is_proven: bool,
}

/// A version that must not come back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Withdrawn {
    pub(super) digest: String,
    /// By the operator, or for its faults.
    pub(super) by_operator: bool,
    pub(super) reason: String,
    pub(super) since: String,
}

impl Kept {
    pub(super) fn origin(&self) -> String {
        self.file.as_ref().map_or_else(|| "bundled".to_owned(), |file| file.display().to_string())
    }
}

/// The folder.
#[derive(Debug)]
pub(super) struct Good {
    folder: PathBuf,
}

impl Good {
    /// Makes sure that the folder is ours.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        folder::own(state_dir)?;
        let folder = state_dir.join("good");
        folder::own(&folder)?;
        Ok(Self { folder })
    }

    /// What is kept of a plugin; nothing where nothing is, or what is there is broken.
    pub(super) fn read(&self, name: &str) -> Record {
        let path = self.document(name);
        let bytes = match folder::read(&path, DOCUMENT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(folder::ReadFault::Missing) => return Record::default(),
            Err(fault) => {
                warn!(plugin = name, "the last good version of plugin `{name}` is lost: {} {fault}", path.display());
                return Record::default();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            warn!(plugin = name, "the last good version of plugin `{name}` is lost: {}: {error}", path.display());
            Record::default()
        })
    }

    /// The bytes of a version, if they are still what they were.
    pub(super) fn bytes(&self, name: &str, kept: &Kept, bytes_max: usize) -> Result<Bytes, String> {
        let path = self.file(name, &kept.digest);
        let bytes = folder::read(&path, bytes_max).map_err(|fault| format!("{} {fault}", path.display()))?;
        let found = folder::digest(&bytes);
        if found == kept.digest {
            Ok(bytes.into())
        } else {
            Err(format!("{} was changed: it has the digest {found}", path.display()))
        }
    }

    /// Keeps a record, with the bytes of its current version where they are new.
    pub(super) fn keep(&self, name: &str, record: &Record, bytes: Option<&Bytes>) -> io::Result<()> {
        if let (Some(current), Some(bytes)) = (&record.current, bytes) {
            folder::write(&self.file(name, &current.digest), bytes, 0o600)?;
        }
        let document = serde_json::to_vec_pretty(record)?;
        folder::write(&self.document(name), &document, 0o600)?;
        self.sweep(name, record)
    }

    /// Takes away everything of a plugin.
    pub(super) fn forget(&self, name: &str) -> io::Result<()> {
        folder::remove(&self.document(name))?;
        self.sweep(name, &Record::default())
    }

    /// Takes away the bytes of versions that the record does not name.
    fn sweep(&self, name: &str, record: &Record) -> io::Result<()> {
        let named: Vec<PathBuf> = [&record.current, &record.previous]
            .into_iter()
            .flatten()
            .map(|kept| self.file(name, &kept.digest))
            .collect();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            // No name of a plugin has a dot.
            let is_ours = file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".wasm"));
            if is_ours && !named.contains(&path) {
                folder::remove(&path)?;
            }
        }
        Ok(())
    }

    fn document(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    fn file(&self, name: &str, digest: &str) -> PathBuf {
        self.folder.join(format!("{name}.{}.wasm", digest.trim_start_matches("sha256:")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: &[u8]) -> Kept {
        let file = Some(PathBuf::from("plugins.d/a.wasm"));
        Kept { digest: folder::digest(bytes), file, since: String::new(), signature: None, is_proven: false }
    }

    #[test]
    fn two_versions_are_kept_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let good = Good::open(&folder.path().join("state")).unwrap();
        let [one, two, three] = [b"one", b"two", b"333"].map(|bytes| (kept(bytes), Bytes::from_static(bytes)));
        let record = |current: &Kept, previous: Option<&Kept>| Record {
            current: Some(current.clone()),
            previous: previous.cloned(),
            withdrawn: None,
        };
        good.keep("a", &record(&one.0, None), Some(&one.1)).unwrap();
        good.keep("a-b", &record(&one.0, None), Some(&one.1)).unwrap();
        good.keep("a", &record(&two.0, Some(&one.0)), Some(&two.1)).unwrap();
        good.keep("a", &record(&three.0, Some(&two.0)), Some(&three.1)).unwrap();
        assert_eq!(good.read("a"), record(&three.0, Some(&two.0)));
        assert_eq!(good.bytes("a", &three.0, 10).unwrap(), three.1);
        assert_eq!(good.bytes("a", &two.0, 10).unwrap(), two.1);
        assert!(good.bytes("a", &one.0, 10).is_err(), "the third is forgotten");
        assert_eq!(good.bytes("a-b", &one.0, 10).unwrap(), one.1, "the other plugin's is not");
        std::fs::write(good.file("a", &three.0.digest), b"334").unwrap();
        assert!(good.bytes("a", &three.0, 10).unwrap_err().contains("was changed"));
        good.forget("a").unwrap();
        assert_eq!(good.read("a"), Record::default());
        assert!(good.bytes("a", &two.0, 10).is_err());
    }
}
