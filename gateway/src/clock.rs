//! The only place that knows what time it is.
//!
//! Everything that depends on time takes a [`Clock`], so that tests own the time. Where several nodes share a database, each
//! node's clock follows that of the database, so that all of them mean the same by a deadline.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in milliseconds since the Unix epoch, shown as RFC 3339 UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `span` after this one; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `span` before this one; saturates at the beginning of time.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Why a text is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a moment: expected RFC 3339, such as 2026-01-31T12:00:00Z")]
pub struct InvalidTimestamp;

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        text.parse::<jiff::Timestamp>().map(|moment| Self(moment.as_millisecond())).map_err(|_| InvalidTimestamp)
    }
}

/// Tells the time: the system's, that of a database that it follows, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    by_hand: Option<Arc<AtomicI64>>,
    /// Milliseconds by which the clock that is followed is ahead of the system's.
    ahead_by: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    #[must_use]
    pub fn by_hand(start: Timestamp) -> Self {
        Self { by_hand: Some(Arc::new(AtomicI64::new(start.0))), ..Self::default() }
    }

    /// Moves a clock set by hand; the system's clock stays as it is.
    pub fn advance(&self, span: Duration) {
        if let Some(hand) = &self.by_hand {
            hand.fetch_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.by_hand {
            Some(hand) => Timestamp(hand.load(Ordering::SeqCst)),
            None => Timestamp(system().saturating_add(self.ahead_by.load(Ordering::Relaxed))),
        }
    }

    /// Follows another clock, which told `theirs` somewhere within the last `took`; returns the moment to go by. All clones
    /// of this clock follow; one set by hand follows nobody.
    pub fn follow(&self, theirs: Timestamp, took: Duration) -> Timestamp {
        if self.by_hand.is_some() {
            return self.now();
        }
        self.compare(theirs, took, system());
        theirs
    }

    /// What is possible by this answer stays; else the other clock told its time just now, so that ours is never ahead.
    fn compare(&self, theirs: Timestamp, took: Duration, system: i64) {
        let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let least = theirs.0.saturating_sub(system);
        // Each of the three is told in whole milliseconds.
        if !(least..=least.saturating_add(took).saturating_add(2)).contains(&self.ahead_by.load(Ordering::Relaxed)) {
            self.ahead_by.store(least, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn system() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    #[cfg(feature = "crash-points")]
    let now = now.saturating_add(WRONG_BY.load(Ordering::Relaxed));
    now
}

/// Milliseconds by which a test has set this process's clock wrong.
#[cfg(feature = "crash-points")]
static WRONG_BY: AtomicI64 = AtomicI64::new(0);

/// Sets the system's clock wrong, as this process sees it.
#[cfg(feature = "crash-points")]
pub fn set_wrong_by(millis: i64) {
    WRONG_BY.store(millis, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_rfc_3339_with_milliseconds() {
        assert_eq!(Timestamp(1_290_000_000_007).to_string(), "2010-11-17T13:20:00.007Z");
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!("2010-11-17T13:20:00.007Z".parse(), Ok(Timestamp(1_290_000_000_007)));
        assert_eq!("2010-11-17T14:20:00+01:00".parse(), Ok(Timestamp(1_290_000_000_000)));
        assert_eq!("yesterday".parse::<Timestamp>(), Err(InvalidTimestamp));
    }

    #[test]
    fn a_clock_set_by_hand_moves_only_by_hand() {
        let clock = Clock::by_hand(Timestamp(5));
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Timestamp(12));
        assert_eq!(clock.follow(Timestamp(1_000_000), Duration::ZERO), Timestamp(12));
        assert_eq!(clock.now(), Timestamp(12));
    }

    #[test]
    fn a_clock_follows_another_and_is_not_moved_by_answers_that_take_long() {
        let ahead_by = |clock: &Clock| clock.ahead_by.load(Ordering::Relaxed);
        let (clock, hour) = (Clock::system(), 3_600_000);
        let copy = clock.clone();
        clock.compare(Timestamp(hour), Duration::from_millis(4), 0);
        assert_eq!(ahead_by(&copy), hour, "they are one clock");
        // It was told half a second ago: that is no news.
        clock.compare(Timestamp(hour + 500), Duration::from_millis(500), 1_000);
        assert_eq!(ahead_by(&clock), hour);
        // The system's clock was set right meanwhile.
        clock.compare(Timestamp(hour + 2_000), Duration::from_millis(4), hour + 2_000);
        assert_eq!(ahead_by(&clock), 0);
        let told = Timestamp(7);
        assert_eq!(clock.follow(told, Duration::ZERO), told);
    }
}
