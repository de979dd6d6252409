//! Waits for what a test expects, and ends what runs beside it.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(10);

/// As [`wait_until`], for a look that has to be waited for itself.
///
/// # Panics
///
/// When `limit` passes; tells what was seen last.
pub async fn wait_until_async<T, S: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if start.elapsed() > limit => panic!("{what}: not within {limit:?}, last seen: {seen:?}"),
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}

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

/// Raises a flag when dropped, so that whoever goes on until then ends also when the test fails.
#[derive(Debug)]
pub struct RaisedOnDrop<'a>(pub &'a AtomicBool);

impl Drop for RaisedOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
