//! Rests between transactions of one kind, so that what comes meanwhile shares the next one.
//!
//! A transaction costs the same round trips for one order as for a hundred. Who begins the next one at once, whatever
//! little there is, spends a machine on a few hundred orders a second, and then every order waits for the machine.

use std::time::{Duration, Instant};

/// How many times as long as the work the rest is: whoever has little to do works a third of the time.
const TIMES: u32 = 2;

/// After a piece of work: twice as long as it took, at most so long. Who has been idle for longer goes on at once.
#[derive(Debug)]
pub struct Pace {
    max: Duration,
    until: Option<Instant>,
}

impl Pace {
    /// Nothing has been done yet. With zero it never rests.
    #[must_use]
    pub fn new(max: Duration) -> Self {
        Self { max, until: None }
    }

    /// Something was done until `now`; where it was as much as fits there is more to do, and no rest.
    pub fn worked(&mut self, took: Duration, is_full: bool, now: Instant) {
        self.until = (!is_full).then(|| now + (took * TIMES).min(self.max));
    }

    /// How much of the rest is left at `now`.
    #[must_use]
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
    }

    /// Waits for the end of the rest.
    pub async fn rest(&self) {
        if let Some(left) = self.left(Instant::now()) {
            tokio::time::sleep(left).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_twice_the_work_up_to_a_limit_and_none_where_there_is_more() {
        let (begun, ms) = (Instant::now(), Duration::from_millis);
        let mut pace = Pace::new(ms(20));
        assert_eq!(pace.left(begun), None);
        pace.worked(ms(2), false, begun);
        assert_eq!((pace.left(begun), pace.left(begun + ms(4))), (Some(ms(4)), None));
        pace.worked(ms(30), false, begun);
        assert_eq!(pace.left(begun + ms(1)), Some(ms(19)));
        pace.worked(ms(30), true, begun);
        assert_eq!(pace.left(begun), None);
        let mut restless = Pace::new(Duration::ZERO);
        restless.worked(ms(30), false, begun);
        assert_eq!(restless.left(begun), None);
    }
}
