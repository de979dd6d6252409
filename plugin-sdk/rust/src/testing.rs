//! Runs a plugin natively, so that its rules can be tested without WebAssembly and without a gateway.
//!
//! Limits on time, memory and output do not hold here.

use crate::{Order, Plugin, Problem, Verdict, configured};

/// A configured plugin that judges orders given as JSON.
#[derive(Debug)]
pub struct Harness<P> {
    plugin: P,
}

impl<P: Plugin> Harness<P> {
    /// Makes the plugin from its configuration, a JSON text.
    ///
    /// # Errors
    ///
    /// The problems with which the gateway would refuse the plugin.
    pub fn new(config: &str) -> Result<Self, Vec<Problem>> {
        configured(config.as_bytes()).map(|plugin| Self { plugin })
    }

    /// Judges an order given as JSON.
    #[must_use]
    pub fn judge(&self, body: &str) -> Verdict {
        self.judge_order(&order(body))
    }

    /// Judges an order with all that is known about it.
    #[must_use]
    pub fn judge_order(&self, order: &Order) -> Verdict {
        self.plugin.judge(order)
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
