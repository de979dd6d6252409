//! Named places at which a test may end, freeze or fail this process. Without the feature `crash-points` they are nothing.
//!
//! A place is armed by the environment: `SLUICE_CRASH_POINT=NAME:HIT:ACTION`, as in `sent:3:kill`. `kill` ends the process
//! as `kill -9` does, `freeze` stops it until somebody lets it go on, `fail` makes what stands there fail. `SLUICE_CRASH_CLOCK`
//! names a file with milliseconds by which this process's clock is wrong.

/// Where a process may end, in the order of an order's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The body of a request is read, nothing is written.
    BodyRead,
    /// An order's rows are written and not committed.
    AcceptWritten,
    /// A transaction, whichever, is committed, and nobody was told.
    Committed,
    /// The order is on disk, its `202` is not written.
    Accepted,
    /// Entries are committed; `fail`: their wake-up is lost, and what was handed over with it.
    WakeLost,
    /// The decider was woken and has not looked yet.
    Woken,
    /// Entries are read, no plugin has run.
    EntriesRead,
    /// A plugin's instance is made and is about to run.
    InPlugin,
    /// The plugins are done, nothing is decided.
    Judged,
    /// Decisions and records are written and not committed.
    DecideWritten,
    /// Decisions and records are on disk, the sender does not know of them.
    Decided,
    /// A record is about to go to the producer.
    BeforeSend,
    /// The producer has a record, and nothing was heard of it.
    Sent,
    /// Kafka has a record, the cursor has not moved.
    Delivered,
    /// The publish cursor is written and not committed.
    PublishWritten,
    /// The publish cursor has moved.
    Published,
    /// Replies are read, nothing is stored.
    RepliesRead,
    /// Replies are written and not committed.
    RepliesWritten,
    /// Replies are stored, their offsets are not committed.
    RepliesStored,
    /// Plugins or configuration are chosen, the old ones serve.
    ReloadChosen,
    /// The new generation serves, the disk does not know of it.
    ReloadServing,
    /// An operator's redrive or discard is on disk, its answer is not written.
    Redriven,
    /// An operator's redrive or discard is written and not committed.
    RedriveWritten,
    /// Old rows are removed and that is not committed.
    RetainWritten,
    /// A step of retention is done.
    Retained,
    /// Slots are taken in the database, and nobody in the process knows.
    SlotsTaken,
    /// A migration is written and not committed.
    MigrationWritten,
    /// A migration is committed, and another may follow.
    Migrated,
}

impl Point {
    /// Every place.
    pub const ALL: [Self; 28] = [
        Self::BodyRead,
        Self::AcceptWritten,
        Self::Committed,
        Self::Accepted,
        Self::WakeLost,
        Self::Woken,
        Self::EntriesRead,
        Self::InPlugin,
        Self::Judged,
        Self::DecideWritten,
        Self::Decided,
        Self::BeforeSend,
        Self::Sent,
        Self::Delivered,
        Self::PublishWritten,
        Self::Published,
        Self::RepliesRead,
        Self::RepliesWritten,
        Self::RepliesStored,
        Self::ReloadChosen,
        Self::ReloadServing,
        Self::Redriven,
        Self::RedriveWritten,
        Self::RetainWritten,
        Self::Retained,
        Self::SlotsTaken,
        Self::MigrationWritten,
        Self::Migrated,
    ];

    /// The name by which it is armed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BodyRead => "body-read",
            Self::AcceptWritten => "accept-written",
            Self::Committed => "committed",
            Self::Accepted => "accepted",
            Self::WakeLost => "wake-lost",
            Self::Woken => "woken",
            Self::EntriesRead => "entries-read",
            Self::InPlugin => "in-plugin",
            Self::Judged => "judged",
            Self::DecideWritten => "decide-written",
            Self::Decided => "decided",
            Self::BeforeSend => "before-send",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::PublishWritten => "publish-written",
            Self::Published => "published",
            Self::RepliesRead => "replies-read",
            Self::RepliesWritten => "replies-written",
            Self::RepliesStored => "replies-stored",
            Self::ReloadChosen => "reload-chosen",
            Self::ReloadServing => "reload-serving",
            Self::Redriven => "redriven",
            Self::RedriveWritten => "redrive-written",
            Self::RetainWritten => "retain-written",
            Self::Retained => "retained",
            Self::SlotsTaken => "slots-taken",
            Self::MigrationWritten => "migration-written",
            Self::Migrated => "migrated",
        }
    }
}

/// Ends or freezes the process where the test asked for it.
#[inline]
pub fn at(point: Point) {
    // Where nothing can fail, `fail` is nothing.
    fails(point);
}

/// The same, and says whether what stands here is to fail.
#[inline]
#[cfg(not(feature = "crash-points"))]
pub fn fails(_point: Point) -> bool {
    false
}

#[cfg(feature = "crash-points")]
pub use armed::{arm, fails};

#[cfg(feature = "crash-points")]
mod armed {
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;
    use crate::clock;

    /// Between two looks at the file that sets the clock wrong.
    const CLOCK_LOOK: Duration = Duration::from_millis(5);
    /// The system stops every thread of a process within this, on a busy machine too.
    const STOPPED_WITHIN: Duration = Duration::from_millis(500);

    static ARMED: OnceLock<Armed> = OnceLock::new();

    /// What is to happen, and where.
    #[derive(Debug)]
    struct Armed {
        point: Point,
        /// Counted from 1.
        hit: u64,
        action: Action,
        hits: AtomicU64,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Kill,
        Freeze,
        Fail,
    }

    /// Arms a place, and lets a file set the clock wrong. Called once, at the start of the process.
    ///
    /// # Errors
    ///
    /// The text is none of `NAME:HIT:ACTION`.
    pub fn arm(text: Option<&str>, clock_file: Option<PathBuf>) -> Result<(), String> {
        if let Some(text) = text {
            let armed = parse(text).ok_or_else(|| format!("`{text}` is no crash point: expected NAME:HIT:ACTION"))?;
            // A second call changes nothing.
            drop(ARMED.set(armed));
        }
        if let Some(file) = clock_file {
            let look = move || {
                loop {
                    let text = std::fs::read_to_string(&file).unwrap_or_default();
                    clock::set_wrong_by(text.trim().parse().unwrap_or(0));
                    std::thread::sleep(CLOCK_LOOK);
                }
            };
            let spawned = std::thread::Builder::new().name("wrong-clock".to_owned()).spawn(look);
            spawned.map_err(|error| format!("no thread for the clock: {error}"))?;
        }
        Ok(())
    }

    fn parse(text: &str) -> Option<Armed> {
        let mut parts = text.split(':');
        let (name, hit, action) = (parts.next()?, parts.next()?, parts.next()?);
        let point = Point::ALL.into_iter().find(|point| point.name() == name)?;
        let action = match action {
            "kill" => Action::Kill,
            "freeze" => Action::Freeze,
            "fail" => Action::Fail,
            _ => return None,
        };
        let hit = hit.parse().ok().filter(|hit| *hit > 0 && parts.next().is_none())?;
        Some(Armed { point, hit, action, hits: AtomicU64::new(0) })
    }

    /// Ends or freezes the process where the test asked for it; says whether what stands here is to fail.
    pub fn fails(point: Point) -> bool {
        let Some(armed) = ARMED.get().filter(|armed| armed.point == point) else { return false };
        if armed.hits.fetch_add(1, Ordering::Relaxed) + 1 != armed.hit {
            return false;
        }
        // For whoever reads the output; where it is closed nobody does.
        drop(writeln!(std::io::stderr(), "crash point {}: {:?}", point.name(), armed.action));
        match armed.action {
            Action::Kill => loop {
                send(Signal::KILL);
                std::thread::park();
            },
            Action::Freeze => {
                send(Signal::STOP);
                // Another thread may be the one to be told; this one goes no further until all are stopped.
                std::thread::sleep(STOPPED_WITHIN);
                false
            }
            Action::Fail => true,
        }
    }

    fn send(signal: Signal) {
        if kill_process(getpid(), signal).is_err() {
            std::process::abort();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_text_names_place_hit_and_action() {
            let armed = parse("sent:3:kill").unwrap();
            assert_eq!((armed.point, armed.hit, armed.action), (Point::Sent, 3, Action::Kill));
            for bad in
                ["", "sent", "sent:3", "sent:0:kill", "sent:x:kill", "sent:3:stop", "nowhere:1:kill", "sent:3:kill:1"]
            {
                assert!(parse(bad).is_none(), "{bad}");
            }
        }

        #[test]
        fn names_are_told_apart() {
            let names: std::collections::BTreeSet<_> = Point::ALL.into_iter().map(Point::name).collect();
            assert_eq!(names.len(), Point::ALL.len());
        }
    }
}
