//! The side of a plugin that faces the gateway: generated bindings and the way from and to this crate's types.

use std::cell::OnceCell;

use crate::lookup::LookupError;
use crate::{Level, Order, PatchOp, Plugin, Problem, Verdict, configured};

/// What the contract says, as generated.
#[expect(unsafe_code, reason = "generated code of the canonical ABI")]
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/1.1.0",
        world: "enricher",
        export_macro_name: "export_plugin",
        pub_export_macro: true,
        default_bindings_module: "sluice_plugin::guest::bindings",
    });
}

use bindings::sluice::plugin::{log as wit_log, lookup as wit_lookup, metrics as wit_metrics, types};

pub use bindings::exports::sluice::plugin::lifecycle::Guest as Lifecycle;
pub use bindings::exports::sluice::plugin::processor::Guest as Processor;
pub use types::{Event, Outcome, Problem as WitProblem};

/// Where an instance keeps its plugin.
pub struct Slot<P>(OnceCell<P>);

impl<P: Plugin> Slot<P> {
    /// Without a plugin yet.
    pub const fn empty() -> Self {
        Self(OnceCell::new())
    }

    /// Makes the plugin; the gateway does so once.
    pub fn configure(&self, config: &[u8]) -> Result<(), Vec<WitProblem>> {
        // A panic ends in a trap, which cannot say why.
        std::panic::set_hook(Box::new(|panic| write_log(Level::Error, &panic.to_string())));
        match configured(config) {
            Ok(plugin) => {
                self.0.set(plugin).unwrap_or_else(|_| panic!("configured twice"));
                Ok(())
            }
            Err(problems) => Err(problems.into_iter().map(Into::into).collect()),
        }
    }

    /// Judges a batch, one order after the other.
    pub fn process(&self, batch: Vec<Event>) -> Vec<Outcome> {
        let plugin = self.0.get().expect("the gateway configures before it asks");
        let judge = |event: Event| Outcome { seq: event.seq, verdict: verdict(plugin.judge(&order(event))) };
        batch.into_iter().map(judge).collect()
    }
}

pub(crate) fn write_log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => wit_log::Level::Debug,
        Level::Info => wit_log::Level::Info,
        Level::Warn => wit_log::Level::Warn,
        Level::Error => wit_log::Level::Error,
    };
    wit_log::write(level, message);
}

pub(crate) fn count(name: &str, by: u32) {
    wit_metrics::count(name, by);
}

pub(crate) fn observe(name: &str, value: f64) {
    wit_metrics::observe(name, value);
}

pub(crate) fn look_up(table: &str, key: &str) -> Result<Option<Vec<u8>>, LookupError> {
    wit_lookup::get(table, key).map_err(Into::into)
}

pub(crate) fn look_up_many(table: &str, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, LookupError> {
    let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
    wit_lookup::get_many(table, &keys).map_err(Into::into)
}

impl From<wit_lookup::LookupError> for LookupError {
    fn from(error: wit_lookup::LookupError) -> Self {
        match error {
            wit_lookup::LookupError::UnknownTable => Self::UnknownTable,
            wit_lookup::LookupError::TooMany => Self::TooMany,
        }
    }
}

fn order(event: Event) -> Order {
    Order {
        id: event.id,
        route: event.route,
        kind: event.kind,
        received: event.received,
        attempt: event.attempt,
        attrs: event.attrs,
        body: event.body,
    }
}

fn verdict(verdict: Verdict) -> Result<types::Verdict, types::Fault> {
    Ok(match verdict {
        Verdict::Accept => types::Verdict::Accept,
        Verdict::Enrich(patch) => types::Verdict::Enrich(patch.ops.into_iter().map(Into::into).collect()),
        Verdict::Reject(problems) => types::Verdict::Reject(problems.into_iter().map(Into::into).collect()),
        Verdict::RetryLater { after, reason } => {
            let after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
            types::Verdict::RetryLater(types::Retry { after_ms, reason })
        }
        Verdict::Fault(fault) => {
            return Err(types::Fault { code: fault.code, detail: fault.detail, retryable: fault.retryable });
        }
    })
}

impl From<PatchOp> for types::PatchOp {
    fn from(op: PatchOp) -> Self {
        match op {
            PatchOp::Set { pointer, value } => Self::Set((pointer, value)),
            PatchOp::Remove { pointer } => Self::Remove(pointer),
            PatchOp::Header { name, value } => Self::Header((name, value)),
        }
    }
}

impl From<Problem> for types::Problem {
    fn from(problem: Problem) -> Self {
        let Problem { code, title, detail, pointer } = problem;
        Self { code: code.into_owned(), title: title.into_owned(), detail, pointer }
    }
}
