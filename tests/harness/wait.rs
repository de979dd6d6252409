//! Waits for what a test expects.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// Looks until `look` gives what is waited for; its error is what it saw instead.
///
/// # Panics
///
/// When `limit` passes; tells what was seen last.
pub fn wait_until<T, S: Debug>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, S>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > limit => panic!("{what}: not within {limit:?}, last seen: {seen:?}"),
            Err(_) => thread::sleep(PERIOD),
        }
    }
}
