//! Numbers that plugins report for the operator, bounded in names and calls.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::Limits;
use crate::telemetry::metrics::{CustomLabels, DroppedLabels, Metrics};

/// Most bytes of a name.
const NAME_BYTES_MAX: usize = 64;

/// What one call of a plugin reported. It counts only if the call succeeds: a batch that is judged again in parts must not
/// count twice.
#[derive(Debug)]
pub(super) struct Reported {
    calls_left: usize,
    counts: HashMap<String, u64>,
    values: Vec<(String, f64)>,
    /// How many were dropped, by reason.
    dropped: [(&'static str, u64); 3],
}

const BAD_NAMES: usize = 0;
const BAD_VALUES: usize = 1;
const TOO_MANY_CALLS: usize = 2;

impl Reported {
    pub(super) fn new(calls_max: usize) -> Self {
        let dropped = [("name", 0), ("value", 0), ("calls", 0)];
        Self { calls_left: calls_max, counts: HashMap::new(), values: Vec::new(), dropped }
    }

    pub(super) fn count(&mut self, name: String, by: u32) {
        if self.takes(&name) {
            let count = self.counts.entry(name).or_default();
            *count = count.saturating_add(u64::from(by));
        }
    }

    pub(super) fn observe(&mut self, name: String, value: f64) {
        if !value.is_finite() {
            self.dropped[BAD_VALUES].1 += 1;
        } else if self.takes(&name) {
            self.values.push((name, value));
        }
    }

    fn takes(&mut self, name: &str) -> bool {
        let reason = if self.calls_left == 0 {
            TOO_MANY_CALLS
        } else if !is_name(name) {
            BAD_NAMES
        } else {
            self.calls_left -= 1;
            return true;
        };
        self.dropped[reason].1 += 1;
        false
    }
}

fn is_name(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_char)
}

/// The names that each plugin has, over all its versions. Shared by its clones.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(Arc<Mutex<HashMap<Arc<str>, HashSet<String>>>>);

impl Names {
    /// Adds what a call reported to the metrics, for names that the plugin has or may still have.
    pub(super) fn add(&self, reported: Reported, plugin: &Arc<str>, limits: &Limits, metrics: &Metrics) {
        let Reported { counts, values, dropped, .. } = reported;
        let mut dropped: Vec<_> = dropped.into_iter().filter(|(_, count)| *count > 0).collect();
        if !counts.is_empty() || !values.is_empty() {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let own = all.entry(Arc::clone(plugin)).or_default();
            let mut too_many_names = 0;
            let mut labels = |name: String| {
                if !own.contains(&name) {
                    if own.len() >= limits.metric_names_max {
                        too_many_names += 1;
                        return None;
                    }
                    own.insert(name.clone());
                }
                Some(CustomLabels { plugin: plugin.to_string(), name })
            };
            // In a sequence of its own, so that the same names are kept wherever there are too many.
            let mut counts: Vec<_> = counts.into_iter().collect();
            counts.sort_unstable();
            for (name, by) in counts {
                if let Some(labels) = labels(name) {
                    metrics.plugin_custom.get_or_create(&labels).inc_by(by);
                }
            }
            for (name, value) in values {
                if let Some(labels) = labels(name) {
                    metrics.plugin_custom_observations.get_or_create(&labels).observe(value);
                }
            }
            if too_many_names > 0 {
                dropped.push(("names", too_many_names));
            }
        }
        for (reason, count) in dropped {
            let labels = DroppedLabels { plugin: plugin.to_string(), reason };
            metrics.plugin_custom_dropped.get_or_create(&labels).inc_by(count);
        }
    }
}
