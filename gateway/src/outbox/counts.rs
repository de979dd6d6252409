//! Orders by status, kept in step with the commits.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::order::OrderStatus;

/// Orders by status, kept in step with the commits.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicI64; 7]);

impl Counts {
    pub(super) fn set(&self, status: OrderStatus, orders: i64) {
        self.0[status as usize].store(orders, Ordering::Relaxed);
    }

    pub(super) fn of(&self, status: OrderStatus) -> i64 {
        self.0[status as usize].load(Ordering::Relaxed)
    }

    /// Orders accepted, and neither on Kafka nor given up.
    pub(super) fn backlog(&self) -> i64 {
        self.of(OrderStatus::Pending) + self.of(OrderStatus::Held)
    }

    pub(super) fn add(&self, deltas: [i64; 7]) {
        for (count, delta) in self.0.iter().zip(deltas).filter(|(_, delta)| *delta != 0) {
            count.fetch_add(delta, Ordering::Relaxed);
        }
    }
}
