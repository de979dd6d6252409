//! Dice with a seed, so that a failed run can be repeated: `SplitMix64`.

/// A stream of numbers that its seed determines.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to `limit - 1`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// A place among so many.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn place(&mut self, count: usize) -> usize {
        assert!(count > 0, "there is nothing to choose from");
        usize::try_from(self.below(count as u64)).expect("less than a count")
    }

    /// A stream of its own, for a thread.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.roll())
    }
}

/// A word no other call returns: for keys and names that must not collide, also not between two test runs.
#[must_use]
pub fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = std::fs::metadata("/proc/self").and_then(|meta| meta.modified()).ok();
    let start = start.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:x}-{:x}-{count}", start.as_millis(), std::process::id())
}
