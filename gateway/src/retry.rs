//! Backoff with jitter. Pure: the chance is handed in.

use std::time::Duration;

/// How long to wait after `attempts` tries: doubling from `first` up to `max`, of which up to half is left to `chance`
/// (0 to 1), so that what failed together does not come back together.
#[must_use]
pub fn backoff(first: Duration, max: Duration, attempts: u32, chance: f64) -> Duration {
    let full = first.saturating_mul(2u32.saturating_pow(attempts.min(30))).min(max);
    full.mul_f64(1.0 - 0.5 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_limit() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<_> = (0..8).map(|attempts| backoff(first, max, attempts, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(first, max, u32::MAX, 1.0), Duration::from_secs(30));
    }
}
