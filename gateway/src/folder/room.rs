//! How much room there is.

use std::io;
use std::path::Path;

/// Bytes that this user may still write below a folder.
///
/// # Errors
///
/// The system does not say.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let told = rustix::fs::statvfs(folder)?;
    Ok(told.f_bavail.saturating_mul(told.f_frsize))
}
