//! A small disk, to be filled up.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment;

/// A file system of its own over a folder.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Makes one of such a size, as `6m`. `None`, said loudly, where the machine does not let us: that takes root.
    ///
    /// # Panics
    ///
    /// When there is no folder for it.
    #[must_use]
    pub fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        if !mount.is_ok_and(|done| done.status.success()) {
            environment::say("SKIPPED: tests of full disks, since no small disk can be mounted here");
            return None;
        }
        // Servers run as somebody else.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its rights can be set");
        Some(Self { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes until nothing more fits.
    ///
    /// # Panics
    ///
    /// When it takes no files.
    pub fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("the disk takes files");
        for size in [64 << 10, 512] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Makes room again.
    ///
    /// # Panics
    ///
    /// When it was not filled.
    pub fn clear(&self) {
        fs::remove_file(self.ballast()).expect("the ballast can be thrown off");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.path()).output());
    }
}
