//! Whether there is room where a node writes, and whether it may write there.

use std::path::{Path, PathBuf};

use super::{Fault, Finding, State};
use crate::config::Config;
use crate::folder;
use crate::outbox;

const CHECK: &str = "disk";

/// Below this a busy node fills the rest within minutes.
const SCARCE_BYTES: u64 = 1 << 30;
/// Below this the log of the database may not find room for its next checkpoint.
const NONE_BYTES: u64 = 128 << 20;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut places = vec![("plugins.state_dir", config.plugins.state_dir.clone())];
    if let Some(file) = outbox::file_of(&config.database.url) {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        places.insert(0, ("database.url", folder.to_owned()));
    }
    places.into_iter().map(|(key, folder)| judge(key, &folder, &look(&folder))).collect()
}

/// The room below a folder: free bytes, and why nothing can be written there.
struct Room {
    free: std::io::Result<u64>,
    refusal: Option<std::io::Error>,
}

fn look(folder: &Path) -> Room {
    // A folder that the node makes at its start: what counts is where it will lie.
    let there = existing(folder);
    Room { free: folder::free_bytes(&there), refusal: tempfile::tempfile_in(&there).err() }
}

fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|folder| folder.is_dir());
    found.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn judge(key: &str, folder: &Path, room: &Room) -> Finding {
    let (shown, at) = (folder.display(), (CHECK, key));
    if let Some(error) = &room.refusal {
        let advice = format!("let this user write to {shown}, or name another place in {key}");
        return Finding::bad(at, State::Failed, format!("{shown} cannot be written: {error}"), Fault::Machine, advice);
    }
    let free = match &room.free {
        Ok(free) => *free,
        Err(error) => {
            let said = format!("how much room {shown} has cannot be told: {error}");
            return Finding::bad(at, State::Warning, said, Fault::Machine, "look with `df`");
        }
    };
    let said = format!("{shown} has {} MiB free", free >> 20);
    let state = match free {
        ..NONE_BYTES => State::Failed,
        NONE_BYTES..SCARCE_BYTES => State::Warning,
        SCARCE_BYTES.. => return Finding::ok(CHECK, key, said),
    };
    let advice = format!("make room, or name another place in {key}; with the disk full orders are answered 503");
    Finding::bad(at, state, said, Fault::Machine, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_is_left() {
        for (free, state) in [(0, State::Failed), (200 << 20, State::Warning), (5 << 30, State::Ok)] {
            let found = judge("database.url", Path::new("/data"), &Room { free: Ok(free), refusal: None });
            assert_eq!(found.state, state, "{found:?}");
            assert_eq!(found.advice.is_some(), state != State::Ok);
        }
        let refusal = Some(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
        let found = judge("database.url", Path::new("/data"), &Room { free: Ok(5 << 30), refusal });
        assert!(found.state == State::Failed && found.said.contains("cannot be written"), "{found:?}");
    }

    #[test]
    fn a_folder_to_be_made_is_judged_by_where_it_will_lie() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(existing(&folder.path().join("a/b")), folder.path());
        assert_eq!(existing(Path::new("not-there")), Path::new("."));
    }
}
