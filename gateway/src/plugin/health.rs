//! How well a version of a plugin does: over its last orders, how many it failed on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::order::OrderId;

/// How many orders the judgement goes over.
const WINDOW_ORDERS: usize = 256;

/// Batches in a row without a fault that a version must have behind it to be gone back to.
const PROVEN_BATCHES: u64 = 3;

/// When a version counts as broken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    pub(super) fault_share: f64,
    pub(super) orders_min: usize,
}

/// How a version of a plugin does, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// Of its last orders (at most 256), how many it has judged; an order that is judged again counts once.
    pub judged: usize,
    /// Of these, how many it failed on when it was last asked.
    pub faulted: usize,
    /// Calls with a batch in a row without a fault.
    pub clean_batches: u64,
    /// Whether it fails on more than `plugins.rollback_fault_share` of them.
    pub is_broken: bool,
    /// Whether it has judged enough orders to be told broken, is not, and did its last batches without a fault.
    pub is_proven: bool,
}

/// What is known of a version's health.
#[derive(Debug)]
pub(super) struct Record {
    tolerance: Tolerance,
    window: Mutex<VecDeque<(OrderId, bool)>>,
    clean_batches: AtomicU64,
    is_told: AtomicBool,
}

impl Record {
    pub(super) fn new(tolerance: Tolerance) -> Self {
        Self { tolerance, window: Mutex::default(), clean_batches: AtomicU64::new(0), is_told: AtomicBool::new(false) }
    }

    /// Notes the orders of a batch: which judgement of the order it was, and whether the plugin failed on it.
    pub(super) fn note(&self, orders: impl Iterator<Item = (OrderId, u32, bool)>) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_clean = true;
        for (id, attempt, is_fault) in orders {
            is_clean &= !is_fault;
            // Most orders are judged once: for them nothing is searched.
            let may_be_known = is_fault || attempt > 1;
            let known = window.iter_mut().rev().filter(|_| may_be_known).find(|(known, _)| *known == id);
            match known {
                Some((_, last)) => *last = is_fault,
                None => {
                    if window.len() == WINDOW_ORDERS {
                        window.pop_front();
                    }
                    window.push_back((id, is_fault));
                }
            }
        }
        if is_clean {
            self.clean_batches.fetch_add(1, Ordering::Relaxed);
        } else {
            self.clean_batches.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Health {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (judged, faulted) = (window.len(), window.iter().filter(|(_, is_fault)| *is_fault).count());
        drop(window);
        let Tolerance { fault_share, orders_min } = self.tolerance;
        #[expect(clippy::cast_precision_loss, reason = "at most as many as the window has")]
        let is_over = faulted as f64 > fault_share * judged as f64;
        let clean_batches = self.clean_batches.load(Ordering::Relaxed);
        let is_enough = judged >= orders_min;
        let is_proven = is_enough && !is_over && clean_batches >= PROVEN_BATCHES;
        Health { judged, faulted, clean_batches, is_broken: is_enough && is_over, is_proven }
    }

    /// Whether the version is broken and nobody was told yet; from now on somebody was.
    pub(super) fn tell(&self) -> bool {
        self.read().is_broken && !self.is_told.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record::new(Tolerance { fault_share: 0.5, orders_min: 20 })
    }

    fn orders(count: usize, is_fault: bool) -> Vec<(OrderId, u32, bool)> {
        (0..count).map(|_| (OrderId::generate(), 1, is_fault)).collect()
    }

    #[test]
    fn more_than_the_share_of_enough_orders_is_broken() {
        let record = record();
        record.note(orders(9, false).into_iter());
        record.note(orders(10, true).into_iter());
        assert!(!record.read().is_broken, "too few orders");
        record.note(orders(1, false).into_iter());
        assert!(!record.read().is_broken, "half of them is not more than half");
        record.note(orders(1, true).into_iter());
        let health = record.read();
        assert_eq!((health.judged, health.faulted, health.is_broken), (21, 11, true));
        assert!(record.tell());
        assert!(!record.tell(), "it is told once");
    }

    #[test]
    fn retries_of_one_order_are_one() {
        let record = record();
        let bad = orders(1, true);
        for _ in 0..1000 {
            record.note(bad.iter().copied());
        }
        record.note(orders(19, false).into_iter());
        let health = record.read();
        assert_eq!((health.judged, health.faulted, health.is_broken), (20, 1, false));
        record.note([(bad[0].0, 1001, false)].into_iter());
        assert_eq!(record.read().faulted, 0, "what it says at last counts");
    }

    #[test]
    fn old_orders_leave_and_clean_batches_are_counted_in_a_row() {
        let record = record();
        record.note(orders(200, true).into_iter());
        assert!(record.read().is_broken);
        for batch in 1..=4 {
            record.note(orders(64, false).into_iter());
            assert_eq!(record.read().clean_batches, batch);
        }
        assert_eq!((record.read().judged, record.read().faulted), (256, 0));
        assert!(record.read().is_proven);
        record.note(orders(1, true).into_iter());
        assert_eq!((record.read().clean_batches, record.read().is_proven), (0, false));
    }
}
