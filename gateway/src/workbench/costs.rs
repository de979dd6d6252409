//! What a plugin costs, from many calls: medians of times, and the largest of what has a limit.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use bytes::Bytes;
use serde::Serialize;

use super::desk::candidate;
use crate::config::PluginsConfig;
use crate::plugin::{Candidate, Cost, Gauge, PluginSource};

/// Orders of the large batch.
pub const BATCH: usize = 64;

/// Compilations that are timed.
const COMPILATIONS: usize = 3;

/// A plugin's costs. Times are CPU time, but that of compiling, which uses all cores.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Costs {
    /// Different orders that it was asked about.
    pub orders: usize,
    /// Orders on which it failed; they are left out.
    pub failed: usize,
    pub compile_ms: f64,
    /// Making an instance and dropping it.
    pub instantiate_micros: f64,
    /// One order in an instance of its own.
    pub alone_micros: f64,
    /// Each order of a batch, in an instance for the batch.
    pub in_batch_micros: f64,
    /// Each further order in a batch: without the instance and its configuration.
    pub warm_micros: f64,
    /// Executed for an order alone, and for each order of a batch.
    pub instructions_alone: u64,
    pub instructions_in_batch: u64,
    /// Of one instance that judged a batch.
    pub memory_bytes: usize,
    pub answer_bytes_in_batch: usize,
    pub patch_bytes: usize,
    pub patch_operations: usize,
    pub log_lines: usize,
}

/// Measures a plugin with these orders, by so many calls of each kind.
///
/// # Errors
///
/// It cannot be used, or fails on every order.
pub fn measure(limits: &PluginsConfig, source: PluginSource, orders: &[Bytes], calls: usize) -> anyhow::Result<Costs> {
    let gauge = Gauge::new(limits, source)?;
    let failed = |text: String| anyhow!("the plugin fails: {text}");
    let (mut good, mut alone, mut first_failure) = (Vec::new(), Vec::new(), None);
    for (number, order) in orders.iter().enumerate() {
        let order = candidate(number, 1, order.clone());
        match gauge.cost(std::slice::from_ref(&order)) {
            Ok(cost) => {
                good.push(order);
                alone.push(cost);
            }
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    if let Some(failure) = first_failure.filter(|_| good.is_empty()) {
        return Err(failed(failure));
    }
    ensure!(!good.is_empty(), "there is no order to measure with");
    let batch: Vec<Candidate> = good.iter().cycle().take(BATCH).cloned().collect();
    let together = gauge.cost(&batch).map_err(failed)?;

    let repeated = |count: usize, run: &dyn Fn(usize) -> Result<Duration, String>| {
        let times = (0..count).map(run).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        Ok::<_, anyhow::Error>(median(times))
    };
    let compile = repeated(COMPILATIONS, &|_| gauge.compile())?;
    let instantiate = repeated(calls, &|_| gauge.instantiate())?;
    let one = repeated(calls, &|call| gauge.time(std::slice::from_ref(&good[call % good.len()])))?;
    let many = repeated(calls.div_ceil(8), &|_| gauge.time(&batch))?;
    // The same orders, each time as many as the batch: what is compared differs in nothing but the number.
    let half = repeated(calls.div_ceil(8), &|_| gauge.time(&batch[..BATCH / 2]))?;
    let each = |cost: &Cost, part: fn(&crate::plugin::Patch) -> usize| cost.patches.iter().map(part).max().unwrap_or(0);
    let all = || alone.iter().chain([&together]);
    let largest = |part: fn(&crate::plugin::Patch) -> usize| all().map(|cost| each(cost, part)).max().unwrap_or(0);
    let count = u64::try_from(alone.len()).unwrap_or(1);
    Ok(Costs {
        orders: good.len(),
        failed: orders.len() - good.len(),
        compile_ms: rounded(micros(compile) / 1000.0),
        instantiate_micros: micros(instantiate),
        alone_micros: micros(one),
        in_batch_micros: rounded(micros(many) / BATCH as f64),
        warm_micros: rounded((micros(many) - micros(half)).max(0.0) / (BATCH / 2) as f64),
        instructions_alone: alone.iter().map(|cost| cost.instructions).sum::<u64>() / count,
        instructions_in_batch: together.instructions / BATCH as u64,
        memory_bytes: all().map(|cost| cost.memory_bytes).max().unwrap_or(0),
        answer_bytes_in_batch: together.patches.iter().map(|patch| patch.answer_bytes).sum(),
        patch_bytes: largest(|patch| patch.bytes),
        patch_operations: largest(|patch| patch.operations),
        log_lines: alone.iter().map(|cost| cost.log_lines).max().unwrap_or(0),
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e6)
}

/// Three decimals are nanoseconds.
fn rounded(micros: f64) -> f64 {
    (micros * 1000.0).round() / 1000.0
}
