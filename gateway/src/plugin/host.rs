//! What belongs to one instance of a plugin: its budgets, and the functions that it may call.

use tracing::{debug, error, info, warn};
use wasmtime::component::{HasSelf, Linker};

use super::FaultKind;
use super::limits::{Budget, Memory, TimeIsUp};
use super::load::LoadedPlugin;
use super::reported::Reported;
use super::stub::Stub;
use crate::config::{Capability, PluginPolicy};

/// What the contract says, as generated.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../plugin-sdk/wit/1.1.0",
        world: "enricher",
        ownership: Borrowing { duplicate_if_necessary: false },
        imports: { default: trappable },
    });
}

pub(super) use bindings::sluice::plugin::log::Level;
use bindings::sluice::plugin::lookup::LookupError;
use bindings::sluice::plugin::{log, lookup, metrics, types};

/// What belongs to one instance.
pub(super) struct Host {
    plugin: LoadedPlugin,
    memory: Memory,
    budget: Budget,
    calls_left: usize,
    lines_left: usize,
    lines_dropped: usize,
    lookups_left: usize,
    /// Of what it looks up, as of what it answers.
    lookup_bytes_left: usize,
    reported: Reported,
    /// What WASI is to the plugin.
    pub(super) stub: Stub,
}

/// A host function ended the call.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Ended {
    pub(super) kind: FaultKind,
    pub(super) detail: String,
}

impl Host {
    /// For a call of a plugin with so many orders of so many bytes; its time runs from now on, on this thread.
    pub(super) fn new(plugin: &LoadedPlugin, orders: usize, bytes: usize) -> Self {
        let limits = plugin.limits();
        Self {
            memory: Memory::new(limits.memory_bytes_max),
            budget: limits.budget(orders, bytes),
            calls_left: limits.host_calls_per_order_max.saturating_mul(orders),
            lines_left: limits.log_lines_per_order_max.saturating_mul(orders),
            lines_dropped: 0,
            lookups_left: limits.lookups_per_order_max.saturating_mul(orders),
            lookup_bytes_left: limits.output_bytes_max,
            reported: Reported::new(limits.metric_calls_per_order_max.saturating_mul(orders)),
            stub: Stub::default(),
            plugin: plugin.clone(),
        }
    }

    /// The memory that the instance has taken: it never gives any back.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// How many lines it may still write to the log, and how many it wrote beyond.
    pub(super) fn lines(&self) -> (usize, usize) {
        (self.lines_left, self.lines_dropped)
    }

    /// What counts the instance's memory.
    pub(super) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Most bytes that one call of a host function may hand over.
    pub(super) fn output_bytes_max(&self) -> usize {
        self.plugin.limits().output_bytes_max
    }

    /// Whether the call may go on. To be asked on the call's own thread.
    pub(super) fn check_time(&self) -> Result<(), TimeIsUp> {
        self.budget.check()
    }

    /// Counts a call of a host function.
    pub(super) fn called(&mut self) -> wasmtime::Result<()> {
        if let Some(left) = self.calls_left.checked_sub(1) {
            self.calls_left = left;
            return Ok(());
        }
        let max = self.plugin.limits().host_calls_per_order_max;
        let detail = format!("it called the gateway more than {max} times per order");
        Err(wasmtime::Error::new(Ended { kind: FaultKind::Contract, detail }))
    }

    /// Writes a line of the plugin to the log, as long as it has lines left.
    pub(super) fn log(&mut self, level: Level, message: &str) -> wasmtime::Result<()> {
        self.called()?;
        if self.lines_left == 0 {
            self.lines_dropped += 1;
            return Ok(());
        }
        self.lines_left -= 1;
        let line = printable(message, self.plugin.limits().log_line_bytes_max);
        let plugin = &*self.plugin.info().name;
        match level {
            Level::Debug => debug!(plugin.name = plugin, "{line}"),
            Level::Info => info!(plugin.name = plugin, "{line}"),
            Level::Warn => warn!(plugin.name = plugin, "{line}"),
            Level::Error => error!(plugin.name = plugin, "{line}"),
        }
        Ok(())
    }

    /// Says how much of the log was dropped.
    pub(super) fn finish_log(&self) {
        if self.lines_dropped > 0 {
            let plugin = &*self.plugin.info().name;
            warn!(plugin.name = plugin, dropped = self.lines_dropped, "the plugin logs too much");
        }
    }

    /// What it reported; for a call that succeeded.
    pub(super) fn into_reported(self) -> Reported {
        self.reported
    }

    fn look_up(&mut self, table: &str, key: &str) -> wasmtime::Result<Result<Option<Vec<u8>>, LookupError>> {
        let Some(found) = self.plugin.tables().get(table, key) else { return Ok(Err(LookupError::UnknownTable)) };
        let Some(left) = self.lookups_left.checked_sub(1) else { return Ok(Err(LookupError::TooMany)) };
        let bytes = found.map_or(0, <[u8]>::len);
        let Some(bytes_left) = self.lookup_bytes_left.checked_sub(bytes) else {
            let max = self.output_bytes_max();
            let detail = format!("it looked up more than {max} bytes");
            return Err(wasmtime::Error::new(Ended { kind: FaultKind::Output, detail }));
        };
        let value = found.map(<[u8]>::to_vec);
        (self.lookups_left, self.lookup_bytes_left) = (left, bytes_left);
        Ok(Ok(value))
    }
}

/// Links what a plugin may call: what its policy does not grant is not there to be linked.
pub(super) fn link(linker: &mut Linker<Host>, policy: &PluginPolicy) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasSelf<_>>(linker, |host: &mut Host| host)?;
    log::add_to_linker::<_, HasSelf<_>>(linker, |host: &mut Host| host)?;
    if policy.is_granted(Capability::Metrics) {
        metrics::add_to_linker::<_, HasSelf<_>>(linker, |host: &mut Host| host)?;
    }
    if policy.is_granted(Capability::Lookup) {
        lookup::add_to_linker::<_, HasSelf<_>>(linker, |host: &mut Host| host)?;
    }
    Ok(())
}

impl types::Host for Host {}

impl log::Host for Host {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.log(level, &message)
    }
}

impl metrics::Host for Host {
    fn count(&mut self, name: String, by: u32) -> wasmtime::Result<()> {
        self.called()?;
        self.reported.count(name, by);
        Ok(())
    }

    fn observe(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.called()?;
        self.reported.observe(name, value);
        Ok(())
    }
}

impl lookup::Host for Host {
    fn get(&mut self, table: String, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, LookupError>> {
        self.called()?;
        self.look_up(&table, &key)
    }

    fn get_many(
        &mut self,
        table: String,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<Vec<u8>>>, LookupError>> {
        self.called()?;
        if keys.len() > self.plugin.limits().lookup_keys_max {
            return Ok(Err(LookupError::TooMany));
        }
        keys.iter().map(|key| self.look_up(&table, key)).collect()
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
