//! Who moved the cursors (I8), what neighbors felt (I9), what it cost (I10), whether it came to its end (I11).

use std::collections::BTreeMap;
use std::time::Duration;

use super::Case;
use crate::evidence::{CursorMove, plain};

/// Longest that a poisonous order may delay an innocent one.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(10);
/// Most memory of a node of the tests, which are built without optimisation.
pub(crate) const RESIDENT_BYTES_MAX: u64 = 1536 << 20;
/// Most open files and sockets of a node.
pub(crate) const OPEN_FILES_MAX: usize = 600;
/// Most threads of a node.
pub(crate) const THREADS_MAX: usize = 120;
/// Longest that everything may take to come to its end once nothing is disturbed any more.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(120);

type Found = Vec<(u8, String, String)>;

pub(super) fn judge(case: &mut Case<'_>) {
    let mut found = Vec::new();
    cursors_move_on(case, &mut found);
    for neighbor in &case.evidence.neighbors {
        if neighbor.settled_in > DELAY_MAX {
            let what = format!("it took {:?} beside a poisonous order of another key", neighbor.settled_in);
            found.push((9, plain(&neighbor.order), what));
        }
    }
    for sample in &case.evidence.samples {
        let is_within = sample.resident_bytes <= RESIDENT_BYTES_MAX
            && sample.open_files <= OPEN_FILES_MAX
            && sample.threads <= THREADS_MAX;
        if !is_within {
            found.push((10, String::new(), format!("beyond the limits: {sample:?}")));
        }
    }
    comes_to_its_end(case, &mut found);
    for (invariant, order, what) in found {
        case.report(invariant, &order, what);
    }
}

/// Each move begins where the last one ended, under an epoch that never falls, by whoever owns the slot.
fn cursors_move_on(case: &Case<'_>, found: &mut Found) {
    let mut last: BTreeMap<(&str, i64), &CursorMove> = BTreeMap::new();
    let mut epochs: BTreeMap<i64, i64> = BTreeMap::new();
    for step in &case.evidence.moves {
        let name = format!("{} cursor of slot {} from {} to {}", step.cursor, step.slot, step.from, step.to);
        if let Some(before) = last.insert((&step.cursor, step.slot), step)
            && before.to != step.from
        {
            found.push((8, String::new(), format!("{name}: it stood at {}", before.to)));
        }
        let epoch = epochs.entry(step.slot).or_insert(step.epoch);
        if step.epoch < *epoch {
            found.push((8, String::new(), format!("{name}: under epoch {}, after epoch {epoch}", step.epoch)));
        }
        *epoch = step.epoch.max(*epoch);
        if !step.writer.is_empty() && step.writer != step.owner {
            found.push((8, String::new(), format!("{name}: by {}, and {} is its owner", step.writer, step.owner)));
        }
    }
}

fn comes_to_its_end(case: &Case<'_>, found: &mut Found) {
    for order in case.evidence.orders.iter().filter(|order| !order.is_final && !order.is_dead) {
        found.push((11, order.id.clone(), format!("it is still {} at version {}", order.status, order.version)));
    }
    match case.evidence.drained_in {
        Some(took) if took <= DRAIN_MAX => {}
        took => found.push((11, String::new(), format!("not at an end within {DRAIN_MAX:?}: {took:?}"))),
    }
    for reason in &case.evidence.unready {
        found.push((11, String::new(), format!("not ready: {reason}")));
    }
}
