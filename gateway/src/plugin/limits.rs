//! What a call may use: numbers in, errors out.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::ResourceLimiter;

use super::Candidate;
use super::health::Tolerance;
use super::policy::PatchPaths;
use crate::config::{OnFault, PluginPolicy, PluginsConfig};

/// CPU time granted for each byte of an order, besides that for each order: an order of 1 MiB gets 105 ms more.
const TIME_PER_BYTE: Duration = Duration::from_nanos(100);

/// Most elements of all tables of an instance together.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// What an element of a table takes of the memory granted: a pointer.
const TABLE_ELEMENT_BYTES: usize = 8;

/// How many threads run plugins, and how large a batch may be that they are given.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// Number of plugin threads.
    pub(super) threads: usize,
    orders_max: usize,
    bytes_max: usize,
}

impl BatchLimits {
    pub(super) fn new(config: &PluginsConfig) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: if config.threads == 0 { cores() } else { config.threads },
            orders_max: config.batch_orders_max.max(1),
            bytes_max: config.batch_bytes_max.0,
        }
    }

    /// Threads that one route's batch may have at the same time.
    pub(super) fn threads_per_route(self) -> usize {
        self.threads.saturating_sub(1).max(1)
    }

    /// Cuts a batch by number and bytes; an order above the bytes stands alone.
    pub(super) fn cut(self, batch: Vec<Candidate>) -> Vec<Vec<Candidate>> {
        let mut parts: Vec<Vec<Candidate>> = Vec::new();
        let mut bytes = 0;
        for candidate in batch {
            bytes += candidate.body.len();
            match parts.last_mut() {
                Some(part) if part.len() < self.orders_max && bytes <= self.bytes_max => {
                    part.push(candidate);
                }
                _ => {
                    bytes = candidate.body.len();
                    parts.push(vec![candidate]);
                }
            }
        }
        parts
    }
}

/// The limits that each call of one plugin runs under.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) memory_bytes_max: usize,
    time_per_order: Duration,
    time_per_batch_min: Duration,
    time_per_batch_max: Duration,
    wall_per_batch_max: Duration,
    pub(super) output_bytes_max: usize,
    pub(super) patch_operations_max: usize,
    pub(super) patch_bytes_max: usize,
    pub(super) problems_max: usize,
    pub(super) text_bytes_max: usize,
    pub(super) log_lines_per_order_max: usize,
    pub(super) log_line_bytes_max: usize,
    pub(super) host_calls_per_order_max: usize,
    pub(super) metric_names_max: usize,
    pub(super) metric_calls_per_order_max: usize,
    pub(super) lookups_per_order_max: usize,
    pub(super) lookup_keys_max: usize,
    pub(super) patch_paths: PatchPaths,
    pub(super) on_fault: OnFault,
    pub(super) tolerance: Tolerance,
}

impl Limits {
    /// Those of all plugins, with what the policy says of this one and its manifest of where it may change orders.
    pub(super) fn new(config: &PluginsConfig, policy: &PluginPolicy, manifest: Option<&[String]>) -> Self {
        Self {
            memory_bytes_max: policy.memory_bytes_max.unwrap_or(config.memory_bytes_max).0,
            time_per_order: policy.time_per_order.unwrap_or(config.time_per_order).0,
            time_per_batch_min: config.time_per_batch_min.0,
            time_per_batch_max: config.time_per_batch_max.0.max(config.time_per_batch_min.0),
            wall_per_batch_max: config.wall_per_batch_max.0,
            output_bytes_max: config.output_bytes_max.0,
            patch_operations_max: config.patch_operations_max,
            patch_bytes_max: config.patch_bytes_max.0,
            problems_max: config.problems_max.max(1),
            text_bytes_max: config.text_bytes_max.0,
            log_lines_per_order_max: config.log_lines_per_order_max,
            log_line_bytes_max: config.log_line_bytes_max.0,
            host_calls_per_order_max: config.host_calls_per_order_max,
            metric_names_max: config.metric_names_max,
            metric_calls_per_order_max: config.metric_calls_per_order_max,
            lookups_per_order_max: config.lookups_per_order_max,
            lookup_keys_max: config.lookup_keys_max,
            patch_paths: PatchPaths::new(policy, manifest),
            on_fault: policy.on_fault,
            tolerance: Tolerance { fault_share: config.rollback_fault_share, orders_min: config.rollback_orders_min },
        }
    }

    /// The time for a call with so many orders of so many bytes, counted from now on this thread.
    pub(super) fn budget(&self, orders: usize, bytes: usize) -> Budget {
        let times = |span: Duration, count: usize| span.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        let cpu = times(self.time_per_order, orders).saturating_add(times(TIME_PER_BYTE, bytes));
        let cpu = cpu.clamp(self.time_per_batch_min, self.time_per_batch_max);
        Budget { cpu, cpu_start: thread_cpu_time(), wall: self.wall_per_batch_max, wall_start: Instant::now() }
    }
}

/// The time that is left of a call.
#[derive(Debug)]
pub(super) struct Budget {
    cpu: Duration,
    cpu_start: Duration,
    wall: Duration,
    wall_start: Instant,
}

/// A call took longer than it may.
#[derive(Debug, thiserror::Error)]
pub(super) enum TimeIsUp {
    #[error("it used more than {} ms of CPU time", .0.as_millis())]
    Cpu(Duration),
    #[error("it took longer than {} ms", .0.as_millis())]
    Wall(Duration),
}

impl Budget {
    /// Whether the call may go on. To be asked on the call's own thread.
    pub(super) fn check(&self) -> Result<(), TimeIsUp> {
        if thread_cpu_time().saturating_sub(self.cpu_start) > self.cpu {
            return Err(TimeIsUp::Cpu(self.cpu));
        }
        if self.wall_start.elapsed() > self.wall {
            return Err(TimeIsUp::Wall(self.wall));
        }
        Ok(())
    }
}

/// What the present thread has used of the processor.
pub(super) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Counts the memories and tables of an instance together.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: usize,
    bytes_max: usize,
    elements: usize,
}

/// An instance asked for more memory than it may have.
#[derive(Debug)]
pub(super) enum MemoryIsUp {
    Bytes(usize),
    Elements,
}

impl fmt::Display for MemoryIsUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(max) => write!(f, "it asked for more than {max} bytes of memory"),
            Self::Elements => write!(f, "it asked for more than {TABLE_ELEMENTS_MAX} table elements"),
        }
    }
}

impl std::error::Error for MemoryIsUp {}

impl Memory {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: 0, bytes_max, elements: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self, more: usize) -> wasmtime::Result<()> {
        let bytes = self.bytes.saturating_add(more);
        if bytes > self.bytes_max {
            return Err(wasmtime::Error::new(MemoryIsUp::Bytes(self.bytes_max)));
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.take(desired.saturating_sub(current))?;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        if elements > TABLE_ELEMENTS_MAX {
            return Err(wasmtime::Error::new(MemoryIsUp::Elements));
        }
        self.take(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES))?;
        self.elements = elements;
        Ok(true)
    }
}
