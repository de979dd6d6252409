//! Reads a plain file within a limit, and nothing that is no plain file.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// Why a path gave no bytes.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    #[error("is not there")]
    Missing,
    #[error("is {found}, expected a plain file")]
    NotAFile { found: &'static str },
    #[error("has {bytes} bytes, more than {bytes_max}")]
    TooLarge { bytes: u64, bytes_max: u64 },
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The bytes of a plain file, at most so many. Links are followed.
///
/// What a path names is looked at on the opened file, so that nothing is swapped in between; and it is opened without
/// waiting, since a FIFO would wait for its writer.
///
/// # Errors
///
/// There is nothing, no plain file, or too much.
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, ReadFault> {
    // Bits of one word, whatever its sign.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => ReadFault::Missing,
        // A socket refuses to be opened at all.
        _ if is_special(path) => ReadFault::NotAFile { found: "a socket or device" },
        _ => error.into(),
    })?;
    let about = file.metadata()?;
    let (kind, bytes_max) = (about.file_type(), bytes_max as u64);
    if !kind.is_file() {
        let found = match kind {
            kind if kind.is_dir() => "a folder",
            kind if kind.is_fifo() => "a FIFO",
            _ => "a socket or device",
        };
        return Err(ReadFault::NotAFile { found });
    }
    if about.len() > bytes_max {
        return Err(ReadFault::TooLarge { bytes: about.len(), bytes_max });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
    // It may grow meanwhile.
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        bytes if bytes > bytes_max => Err(ReadFault::TooLarge { bytes, bytes_max }),
        _ => Ok(bytes),
    }
}

fn is_special(path: &Path) -> bool {
    let kind = std::fs::metadata(path).map(|about| about.file_type());
    kind.is_ok_and(|kind| kind.is_socket() || kind.is_char_device() || kind.is_block_device())
}

/// SHA-256 as `sha256:` and hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing into a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_plain_file_within_the_limit_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("plain"), b"bytes").unwrap();
        symlink("plain", path("link")).unwrap();
        symlink("loop", path("loop")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let status = std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap();
        assert!(status.success());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        File::create(path("sparse")).unwrap().set_len(2 << 30).unwrap();

        assert_eq!(read(&path("plain"), 5).unwrap(), b"bytes");
        assert_eq!(read(&path("link"), 5).unwrap(), b"bytes");
        assert!(matches!(read(&path("plain"), 4), Err(ReadFault::TooLarge { bytes: 5, bytes_max: 4 })));
        assert!(matches!(read(&path("nothing"), 5), Err(ReadFault::Missing)));
        assert!(matches!(read(&path("loop"), 5), Err(ReadFault::Io(_))));
        assert!(matches!(read(&path("folder"), 5), Err(ReadFault::NotAFile { found: "a folder" })));
        assert!(matches!(read(&path("fifo"), 5), Err(ReadFault::NotAFile { found: "a FIFO" })));
        assert!(matches!(read(&path("socket"), 5), Err(ReadFault::NotAFile { .. })));
        assert!(matches!(read(&path("sparse"), 1 << 20), Err(ReadFault::TooLarge { .. })));
    }

    #[test]
    fn a_digest_is_that_of_the_standard() {
        let expected = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(b""), expected);
    }
}
