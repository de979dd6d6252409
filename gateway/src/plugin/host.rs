//! What belongs to one instance of a plugin: its budgets, and the functions that it may call.

use std::sync::Arc;

use tracing::{debug, error, info, warn};

use super::limits::{Budget, Limits, Memory, TimeIsUp};
use super::stub::Stub;

/// What the contract says, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/1.1.0",
        world: "validator",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub(super) use bindings::sluice::plugin::log::Level;

/// What belongs to one instance.
pub(super) struct Host {
    plugin: Arc<str>,
    memory: Memory,
    budget: Budget,
    lines_left: usize,
    lines_dropped: usize,
    line_bytes_max: usize,
    output_bytes_max: usize,
    /// What WASI is to the plugin.
    pub(super) stub: Stub,
}

impl Host {
    /// For a call of a plugin with so many orders of so many bytes; its time runs from now on, on this thread.
    pub(super) fn new(plugin: &Arc<str>, limits: &Limits, orders: usize, bytes: usize) -> Self {
        Self {
            plugin: Arc::clone(plugin),
            memory: Memory::new(limits.memory_bytes_max),
            budget: limits.budget(orders, bytes),
            lines_left: limits.log_lines_per_order_max.saturating_mul(orders),
            lines_dropped: 0,
            line_bytes_max: limits.log_line_bytes_max,
            output_bytes_max: limits.output_bytes_max,
            stub: Stub::default(),
        }
    }

    /// What counts the instance's memory.
    pub(super) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Most bytes that one call of a host function may hand over.
    pub(super) fn output_bytes_max(&self) -> usize {
        self.output_bytes_max
    }

    /// Whether the call may go on. To be asked on the call's own thread.
    pub(super) fn check_time(&self) -> Result<(), TimeIsUp> {
        self.budget.check()
    }

    /// Writes a line of the plugin to the log, as long as it has lines left.
    pub(super) fn log(&mut self, level: Level, message: &str) {
        if self.lines_left == 0 {
            self.lines_dropped += 1;
            return;
        }
        self.lines_left -= 1;
        let line = printable(message, self.line_bytes_max);
        let plugin = &*self.plugin;
        match level {
            Level::Debug => debug!(plugin.name = plugin, "{line}"),
            Level::Info => info!(plugin.name = plugin, "{line}"),
            Level::Warn => warn!(plugin.name = plugin, "{line}"),
            Level::Error => error!(plugin.name = plugin, "{line}"),
        }
    }

    /// Says how much of the log was dropped.
    pub(super) fn finish_log(&self) {
        if self.lines_dropped > 0 {
            warn!(plugin.name = &*self.plugin, dropped = self.lines_dropped, "the plugin logs too much");
        }
    }
}

impl bindings::sluice::plugin::types::Host for Host {}

impl bindings::sluice::plugin::log::Host for Host {
    fn write(&mut self, level: Level, message: String) {
        self.log(level, &message);
    }
}

/// A line without control characters, cut where it is long.
pub(super) fn printable(message: &str, bytes_max: usize) -> String {
    let cut = message.floor_char_boundary(bytes_max);
    let mut line = String::with_capacity(cut);
    for character in message[..cut].chars() {
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
    if cut < message.len() {
        line.push('…');
    }
    line
}
