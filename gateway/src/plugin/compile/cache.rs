//! Compiled plugins in a folder of the gateway's own. What is damaged, or could be somebody else's, is not used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::Compiled;

/// Bytes of the checksum at the begin of each file.
const CHECKSUM_BYTES: usize = 32;

/// Begin of the names of files that are being written.
const PARTIAL: &str = ".partial-";

/// When a file that was being written belongs to a process that is gone.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(3600);

/// A folder with a file for each content and engine: a SHA-256, then what it is of.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    /// Counts the files written.
    written: AtomicU64,
}

impl Cache {
    /// Opens the folder `compiled` below the gateway's own; both are made where they are missing.
    ///
    /// # Errors
    ///
    /// Why it is not used, and what to do.
    pub(super) fn open(state_dir: &Path) -> Result<Self, String> {
        own(state_dir)?;
        let folder = state_dir.join("compiled");
        own(&folder)?;
        Ok(Self { folder, written: AtomicU64::new(0) })
    }

    /// What was kept under a name. A damaged file is taken away.
    pub(super) fn read(&self, name: &str) -> Option<Compiled> {
        let path = self.folder.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "a compiled plugin cannot be read, it is compiled anew");
                return None;
            }
        };
        let intact = bytes.split_at_checked(CHECKSUM_BYTES).filter(|(sum, rest)| Sha256::digest(rest)[..] == **sum);
        let Some(compiled) = intact.and_then(|(_, rest)| Compiled::decode(rest)) else {
            warn!(path = %path.display(), "a compiled plugin is damaged, it is compiled anew");
            self.remove(name);
            return None;
        };
        // The oldest go first when room is needed.
        #[expect(clippy::disallowed_methods, reason = "the age of a file is told by the system's clock")]
        let touched = File::options().write(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            debug!(%error, "the age of a compiled plugin stays as it is");
        }
        Some(compiled)
    }

    /// Keeps something, whole or not at all, and makes room for it.
    pub(super) fn write(&self, name: &str, compiled: &Compiled, bytes_max: usize) {
        let body = compiled.encode();
        if body.len() > bytes_max {
            debug!(bytes = body.len(), "a compiled plugin is too large to be kept");
            return;
        }
        if let Err(error) = self.try_write(name, &body) {
            warn!(path = %self.folder.display(), %error, "a compiled plugin is not kept, the next start compiles it anew");
        }
        self.shrink(bytes_max);
    }

    pub(super) fn remove(&self, name: &str) {
        // Gone is what it should be.
        fs::remove_file(self.folder.join(name)).unwrap_or_default();
    }

    fn try_write(&self, name: &str, body: &[u8]) -> io::Result<()> {
        let count = self.written.fetch_add(1, Ordering::Relaxed);
        let partial =
            self.folder.join(format!("{PARTIAL}{}-{count}-{}", std::process::id(), &name[..name.len().min(16)]));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
            file.write_all(&Sha256::digest(body))?;
            file.write_all(body)?;
            file.sync_all()?;
            fs::rename(&partial, self.folder.join(name))?;
            File::open(&self.folder)?.sync_all()
        };
        let done = write();
        if done.is_err() {
            fs::remove_file(&partial).unwrap_or_default();
        }
        done
    }

    /// Takes away the files that were used least recently, until the rest has at most so many bytes.
    fn shrink(&self, bytes_max: usize) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let Ok(facts) = entry.metadata() else { continue };
            let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let is_partial = entry.file_name().to_string_lossy().starts_with(PARTIAL);
            let age = modified.elapsed().unwrap_or_default();
            match is_partial {
                true if age > PARTIAL_AGE_MAX => fs::remove_file(entry.path()).unwrap_or_default(),
                true => {}
                false => files.push((modified, facts.len(), entry.path())),
            }
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        for (_, size, path) in files {
            if bytes <= bytes_max {
                break;
            }
            fs::remove_file(path).unwrap_or_default();
            bytes -= size;
        }
    }
}

/// Makes a folder for this user alone, or sees to it that it is one.
fn own(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| format!("the folder {shown} cannot be made: {error}"))?;
    let facts = fs::metadata(folder).map_err(|error| format!("the folder {shown} cannot be looked at: {error}"))?;
    let user = rustix::process::geteuid().as_raw();
    if facts.uid() != user {
        return Err(format!(
            "the folder {shown} belongs to user {}, not to {user}, who runs the gateway: machine code is run from it; \
             choose another `plugins.state_dir`",
            facts.uid()
        ));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(format!(
            "others may enter the folder {shown} (mode {:03o}), and machine code is run from it: `chmod 700 {shown}`, \
             after a look at what is in it",
            facts.mode() & 0o777
        ));
    }
    Ok(())
}
