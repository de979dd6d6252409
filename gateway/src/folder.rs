//! Folders on disk that others write into, and one of our own: watched, read within limits, written whole or not at all.
//!
//! # Guarantees
//!
//! - **An event is only a hint**: it says that looking may pay, nothing else. Who needs certainty looks from time to time.
//! - **Reading never waits**, whatever stands at a path: a FIFO, a device, a loop of links, a file of terabytes.
//! - **Writing is atomic**: at every moment, also of a crash, a path has the old bytes or the new ones.

mod read;
mod room;
mod watch;
mod write;

pub use read::{ReadFault, digest, read};
pub use room::free_bytes;
pub use watch::{Watch, Watched};
pub use write::{own, remove, write};
