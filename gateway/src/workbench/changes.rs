//! Waits until a project's files are others than before, and have come to rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::folder::{Watch, Watched};

/// Files that look the same twice at this distance have been written whole.
const REST: Duration = Duration::from_millis(100);

/// Looked at so often although nothing hints at a change: some file systems never do.
const LOOK: Duration = Duration::from_secs(2);

/// Folders that tools make.
const MADE: [&str; 5] = ["node_modules", "target", "__pycache__", "zig-out", "packages"];

/// A watch over a project's folder.
pub struct Changes {
    folder: PathBuf,
    watch: Option<Watch>,
    hints: Receiver<()>,
    seen: [u8; 32],
}

impl Changes {
    /// Begins to watch; what is there now is no change.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let (hint, hints) = mpsc::channel();
        let mut folders = vec![folder.to_owned()];
        files(folder, &mut folders);
        // Where there is no watch to be had, looking has to do.
        let watched = folders.into_iter().map(Watched::Folder).collect();
        let watch = Watch::start(watched, move || hint.send(()).unwrap_or_default()).ok();
        Self { folder: folder.to_owned(), watch, hints, seen: fingerprint(folder) }
    }

    /// Blocks until something has changed since the last call and stands still.
    pub fn wait(&mut self) {
        loop {
            if let Some(watch) = &mut self.watch {
                watch.listen();
            }
            let mut now = fingerprint(&self.folder);
            if now != self.seen {
                loop {
                    std::thread::sleep(REST);
                    let again = fingerprint(&self.folder);
                    if again == now {
                        break;
                    }
                    now = again;
                }
                self.seen = now;
                return;
            }
            if self.watch.is_none() {
                std::thread::sleep(LOOK);
            } else {
                // A hint or none: it is looked anyway.
                self.hints.recv_timeout(LOOK).unwrap_or_default();
            }
        }
    }
}

/// Names and contents of the project's files, but for what is built of them.
fn fingerprint(folder: &Path) -> [u8; 32] {
    let mut hash = Sha256::new();
    for path in files(folder, &mut Vec::new()) {
        hash.update(path.as_os_str().as_encoded_bytes());
        // A file that is gone again counts as an empty one.
        hash.update(Sha256::digest(fs::read(&path).unwrap_or_default()));
    }
    hash.finalize().into()
}

/// The project's own files, sorted; `folders` gets the folders below.
fn files(folder: &Path, folders: &mut Vec<PathBuf>) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(kind) = entry.file_type() else { continue };
            if name.starts_with('.') {
                continue;
            }
            if kind.is_dir() && !MADE.contains(&name.as_str()) {
                folders.push(path.clone());
                open.push(path);
            } else if kind.is_file() && !name.ends_with(".wasm") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_of_a_project_is_no_change_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("plugin.wat", "(module)");
        let before = fingerprint(folder.path());
        for made in ["tiny.wasm", "target/a", "node_modules/b/c", ".git/d", ".plugin.wat.swp"] {
            write(made, "made");
        }
        assert_eq!(fingerprint(folder.path()), before);
        write("sdk/more.wat", "");
        assert_ne!(fingerprint(folder.path()), before);
    }

    #[test]
    fn a_save_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let mut changes = Changes::of(folder.path());
        fs::write(folder.path().join("plugin.wat"), "(module)").unwrap();
        changes.wait();
        fs::write(folder.path().join("plugin.wat"), "(module )").unwrap();
        changes.wait();
    }
}
