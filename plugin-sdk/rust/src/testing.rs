//! Runs a plugin natively, so that its rules can be tested without WebAssembly and without a gateway.
//!
//! Limits on time, memory and output do not hold here.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::lookup::LookupError;
use crate::{Order, Plugin, Problem, Verdict, configured};

/// A configured plugin that judges orders given as JSON.
#[derive(Debug)]
pub struct Harness<P> {
    plugin: P,
    gateway: RefCell<Gateway>,
}

/// What stands for the gateway: its tables, and what was reported to it.
#[derive(Debug, Default)]
struct Gateway {
    tables: HashMap<String, HashMap<String, Box<RawValue>>>,
    counts: HashMap<String, u64>,
    values: HashMap<String, Vec<f64>>,
}

thread_local! {
    /// That of the harness which runs on this thread now.
    static GATEWAY: RefCell<Gateway> = RefCell::default();
}

/// Runs something with this gateway in its place.
fn with_gateway<T>(own: &mut Gateway, run: impl FnOnce() -> T) -> T {
    GATEWAY.with_borrow_mut(|present| std::mem::swap(present, own));
    let done = run();
    GATEWAY.with_borrow_mut(|present| std::mem::swap(present, own));
    done
}

#[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "the gateway itself counts"))]
pub(crate) fn count(name: &str, by: u32) {
    GATEWAY.with_borrow_mut(|gateway| *gateway.counts.entry(name.to_owned()).or_default() += u64::from(by));
}

#[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "the gateway itself observes"))]
pub(crate) fn observe(name: &str, value: f64) {
    if value.is_finite() {
        GATEWAY.with_borrow_mut(|gateway| gateway.values.entry(name.to_owned()).or_default().push(value));
    }
}

#[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "the gateway itself looks up"))]
pub(crate) fn look_up(table: &str, key: &str) -> Result<Option<Vec<u8>>, LookupError> {
    GATEWAY.with_borrow(|gateway| {
        let table = gateway.tables.get(table).ok_or(LookupError::UnknownTable)?;
        Ok(table.get(key).map(|value| value.get().as_bytes().to_vec()))
    })
}

impl<P: Plugin> Harness<P> {
    /// Makes the plugin from its configuration, a JSON text.
    ///
    /// # Errors
    ///
    /// The problems with which the gateway would refuse the plugin.
    pub fn new(config: &str) -> Result<Self, Vec<Problem>> {
        Self::with_tables(config, &[])
    }

    /// As [`Harness::new`], with lookup tables: name, and a JSON object of values by key.
    ///
    /// # Errors
    ///
    /// As [`Harness::new`].
    ///
    /// # Panics
    ///
    /// A table is no JSON object.
    pub fn with_tables(config: &str, tables: &[(&str, &str)]) -> Result<Self, Vec<Problem>> {
        let table = |(name, json): &(&str, &str)| {
            let table = serde_json::from_str(json).unwrap_or_else(|error| panic!("table `{name}`: {error}"));
            ((*name).to_owned(), table)
        };
        let mut gateway = Gateway { tables: tables.iter().map(table).collect(), ..Gateway::default() };
        let plugin = with_gateway(&mut gateway, || configured(config.as_bytes()))?;
        Ok(Self { plugin, gateway: RefCell::new(gateway) })
    }

    /// What was added to a counter so far.
    #[must_use]
    pub fn counted(&self, name: &str) -> u64 {
        self.gateway.borrow().counts.get(name).copied().unwrap_or(0)
    }

    /// The values noted so far under a name.
    #[must_use]
    pub fn observed(&self, name: &str) -> Vec<f64> {
        self.gateway.borrow().values.get(name).cloned().unwrap_or_default()
    }

    /// Judges an order given as JSON.
    #[must_use]
    pub fn judge(&self, body: &str) -> Verdict {
        self.judge_order(&order(body))
    }

    /// Judges an order with all that is known about it.
    #[must_use]
    pub fn judge_order(&self, order: &Order) -> Verdict {
        with_gateway(&mut self.gateway.borrow_mut(), || self.plugin.judge(order))
    }
}

/// An order of the route `/orders` with this body and an invented identity.
#[must_use]
pub fn order(body: &str) -> Order {
    Order {
        id: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
        route: "/orders".to_owned(),
        kind: "OrderCreated".to_owned(),
        received: "2010-12-01T08:26:00.000Z".to_owned(),
        attempt: 1,
        attrs: Vec::new(),
        body: body.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lookup, metrics};

    struct Segments;

    impl Plugin for Segments {
        type Config = HashMap<String, String>;

        fn configure(_: Self::Config) -> Result<Self, Vec<Problem>> {
            metrics::count("configured", 1);
            Ok(Self)
        }

        fn judge(&self, order: &Order) -> Verdict {
            metrics::count("orders", 2);
            metrics::observe("bytes", 1.5);
            metrics::observe("bytes", f64::NAN);
            let customer: String = order.get("/customerId").unwrap_or_default();
            assert_eq!(lookup::get("nowhere", &customer), Err(LookupError::UnknownTable));
            let found = lookup::get_many("segments", &[&customer, "x"]).unwrap();
            match found[0].as_deref() {
                Some(b"\"wholesale\"") => Verdict::Accept,
                _ => Problem::new("unknown", "Nobody knows this customer").into(),
            }
        }
    }

    #[test]
    fn tables_are_read_and_numbers_are_kept_for_each_harness() {
        let tables = [("segments", r#"{"17850":"wholesale"}"#)];
        let plugin = Harness::<Segments>::with_tables("{}", &tables).unwrap();
        let other = Harness::<Segments>::with_tables("{}", &[("segments", "{}")]).unwrap();
        assert_eq!(plugin.judge(r#"{"customerId":"17850"}"#), Verdict::Accept);
        assert_ne!(plugin.judge(r#"{"customerId":"1"}"#), Verdict::Accept);
        assert_ne!(other.judge(r#"{"customerId":"17850"}"#), Verdict::Accept);
        assert_eq!((plugin.counted("configured"), plugin.counted("orders"), other.counted("orders")), (1, 4, 2));
        assert_eq!(plugin.observed("bytes"), [1.5, 1.5]);
    }
}
