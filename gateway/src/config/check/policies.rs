//! What plugins may do: grants, places, limits of their own, and the tables they may read.

use std::time::Duration;

use super::routes::pointer;
use crate::config::{Config, PluginPolicy, Problem};

/// What 32 bits can address.
const MEMORY_BYTES_MAX: usize = 4 << 30;

/// Most names of lookup tables.
const TABLE_NAME_BYTES_MAX: usize = 64;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let plugins = &config.plugins;
    for (name, policy) in &plugins.policy {
        for (key, reason) in policy_problems(policy, config) {
            let problem = Problem::new(format!("plugins.policy.{name}.{key}"), reason);
            problems.push(problem);
        }
    }
    for name in plugins.tables.keys() {
        let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX || !name.chars().all(is_char) {
            let reason = format!("`{}` is no name: expected letters, digits, `-`, `_`, `.`", name.escape_debug());
            problems.push(Problem::new(format!("plugins.tables.{name}"), reason));
        }
    }
    if plugins.nice > 19 {
        problems.push(Problem::new("plugins.nice", "must be at most 19"));
    }
    if plugins.poison_faults == 0 {
        problems.push(Problem::new("plugins.poison_faults", "must be at least 1"));
    }
    if !(plugins.rollback_fault_share > 0.0 && plugins.rollback_fault_share <= 1.0) {
        let reason = "must be above 0 and at most 1: it is a share of the orders judged";
        problems.push(Problem::new("plugins.rollback_fault_share", reason));
    }
}

fn policy_problems(policy: &PluginPolicy, config: &Config) -> Vec<(&'static str, String)> {
    let plugins = &config.plugins;
    let mut found = Vec::new();
    for path in policy.patch.iter().flatten() {
        found.extend(pointer(path).map(|reason| ("patch", reason)));
    }
    if let Some(bytes) = policy.memory_bytes_max {
        let least = plugins.batch_bytes_max.0.saturating_mul(4).max(2 << 20);
        if bytes.0 > MEMORY_BYTES_MAX {
            let reason = format!("must be at most {MEMORY_BYTES_MAX} bytes: a plugin cannot address more");
            found.push(("memory_bytes_max", reason));
        } else if bytes.0 < least {
            let reason = format!(
                "must be at least {least} bytes, four times plugins.batch_bytes_max: a plugin reads and writes what \
                 it is given"
            );
            found.push(("memory_bytes_max", reason));
        }
    }
    if let Some(time) = policy.time_per_order {
        if time.0 == Duration::ZERO {
            found.push(("time_per_order", "must be longer than nothing".to_owned()));
        } else if time > plugins.time_per_batch_max {
            let reason = format!(
                "`{time}` is above plugins.time_per_batch_max (`{}`): not even one order would get its time",
                plugins.time_per_batch_max
            );
            found.push(("time_per_order", reason));
        }
    }
    found
}
