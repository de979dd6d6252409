//! Hints that something changed in folders, from the system's own notification.
//!
//! A folder is watched, not its files: `mv` over a file ends a watch on it, a swapped link tells nothing to who watches
//! its target. A folder that is not there yet is waited for at the nearest one above that is.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// What in a folder matters.
#[derive(Debug, Clone)]
pub enum Watched {
    /// Everything in it.
    Folder(PathBuf),
    /// One file, and the links of a mounted volume by which it is swapped: what else lies beside it may change all the time,
    /// as a database does.
    File(PathBuf),
}

impl Watched {
    fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::File(file) => file.parent().unwrap_or(Path::new("")),
        }
    }

    /// Whether something that happened to `path` matters: in the folder, or to a folder above that is waited for.
    fn concerns(&self, path: &Path) -> bool {
        let (folder, path) = (here(self.folder()), here(path));
        if path.parent() != Some(folder) {
            return folder.starts_with(path);
        }
        match self {
            Self::Folder(_) => true,
            Self::File(file) => {
                let is_link = |name: &OsStr| name.as_encoded_bytes().starts_with(b"..");
                path.file_name() == file.file_name() || path.file_name().is_some_and(is_link)
            }
        }
    }
}

/// The same path without a leading `./`.
fn here(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

/// A watch over folders; it ends when dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    folders: Vec<PathBuf>,
    /// What is watched, and which folder that was (device and file number) when it began.
    watched: BTreeMap<PathBuf, Option<(u64, u64)>>,
    is_told: Arc<AtomicBool>,
}

impl Watch {
    /// Calls `hint` when something that matters may have changed; then not again until [`Watch::listen`].
    ///
    /// # Errors
    ///
    /// The system has no watch to give.
    pub fn start(wanted: Vec<Watched>, hint: impl Fn() + Send + 'static) -> Result<Self, String> {
        let folders = wanted.iter().map(|watched| watched.folder().to_owned()).collect();
        let is_told = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&is_told);
        let told_of = move |event: notify::Result<Event>| {
            // Reading is no change. An error may hide one, and so may an event that names nothing.
            let is_change = event.map_or(true, |event| {
                let concerns = |path: &PathBuf| wanted.iter().any(|watched| watched.concerns(path));
                !matches!(event.kind, EventKind::Access(_))
                    && (event.paths.is_empty() || event.paths.iter().any(concerns))
            });
            if is_change && !told.swap(true, Ordering::SeqCst) {
                hint();
            }
        };
        let watcher = notify::recommended_watcher(told_of).map_err(|error| error.to_string())?;
        let mut watch = Self { watcher, folders, watched: BTreeMap::new(), is_told };
        watch.listen();
        Ok(watch)
    }

    /// Asks for the next hint. To be called before looking, so that what changes meanwhile hints again.
    pub fn listen(&mut self) {
        self.is_told.store(false, Ordering::SeqCst);
        let wanted: BTreeMap<PathBuf, _> = self
            .folders
            .iter()
            .filter_map(|folder| nearest(folder))
            .map(|path| (path.clone(), identity(&path)))
            .collect();
        let gone: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, identity)| wanted.get(*path) != Some(*identity))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            // A folder that was removed took its watch along.
            drop(self.watcher.unwatch(&path));
            self.watched.remove(&path);
        }
        for (path, identity) in wanted {
            // Where the system has no watch left, looking from time to time has to do.
            if !self.watched.contains_key(&path) && self.watcher.watch(&path, RecursiveMode::NonRecursive).is_ok() {
                self.watched.insert(path, identity);
            }
        }
    }
}

/// The folder itself, or the nearest one above it that is there.
fn nearest(folder: &Path) -> Option<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let above = || folder.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    above().find(|path| path.is_dir()).map(Path::to_path_buf)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{self, Receiver, TryRecvError};
    use std::time::Duration;

    /// Whether a hint came; it may be one of several.
    fn is_hinted(watch: &mut Watch, hints: &Receiver<()>) -> bool {
        let is_hinted = hints.recv_timeout(Duration::from_secs(10)).is_ok();
        watch.listen();
        while hints.recv_timeout(Duration::from_millis(100)).is_ok() {
            watch.listen();
        }
        is_hinted
    }

    #[test]
    fn every_way_of_changing_a_file_hints() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("plugins.d");
        let (sender, hints) = mpsc::channel();
        let mut watch =
            Watch::start(vec![Watched::Folder(folder.clone())], move || sender.send(()).unwrap_or_default()).unwrap();
        fs::create_dir(&folder).unwrap();
        assert!(is_hinted(&mut watch, &hints), "a folder that came later");
        let file = folder.join("a.wasm");
        fs::write(&file, b"1").unwrap();
        assert!(is_hinted(&mut watch, &hints), "a new file");
        fs::write(&file, b"2").unwrap();
        assert!(is_hinted(&mut watch, &hints), "a file written in place");
        fs::write(above.path().join("b"), b"3").unwrap();
        fs::rename(above.path().join("b"), &file).unwrap();
        assert!(is_hinted(&mut watch, &hints), "a file moved over it");
        fs::remove_file(&file).unwrap();
        assert!(is_hinted(&mut watch, &hints), "a file removed");
        for version in ["..1", "..2"] {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("a.wasm"), version).unwrap();
        }
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/a.wasm", &file).unwrap();
        assert!(is_hinted(&mut watch, &hints), "links into a folder");
        symlink("..2", folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        assert!(is_hinted(&mut watch, &hints), "a swapped link");
        fs::remove_dir_all(&folder).unwrap();
        assert!(is_hinted(&mut watch, &hints), "a folder removed");
        fs::create_dir(&folder).unwrap();
        assert!(is_hinted(&mut watch, &hints), "a folder made again");
        fs::write(&file, b"4").unwrap();
        assert!(is_hinted(&mut watch, &hints), "a file in it");
    }

    #[test]
    fn of_a_file_only_the_file_and_the_links_it_is_swapped_by_matter() {
        for (path, matters) in [
            ("./sluice.toml", true),
            ("./..data", true),
            ("./sluice.db-wal", false),
            ("sluice.db", false),
            ("./sub/sluice.toml", false),
        ] {
            assert_eq!(Watched::File("sluice.toml".into()).concerns(Path::new(path)), matters, "{path}");
        }
        let folder = Watched::Folder("a/plugins.d".into());
        for (path, matters) in [("./a", true), ("a/plugins.d", true), ("a/plugins.d/x", true), ("a/x", false)] {
            assert_eq!(folder.concerns(Path::new(path)), matters, "{path}");
        }
    }

    #[test]
    fn hints_do_not_pile_up() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, hints) = mpsc::channel();
        let _watch =
            Watch::start(vec![Watched::Folder(folder.path().to_owned())], move || sender.send(()).unwrap_or_default())
                .unwrap();
        for number in 0..100 {
            fs::write(folder.path().join(number.to_string()), b"").unwrap();
        }
        hints.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(hints.try_recv(), Err(TryRecvError::Empty));
    }
}
