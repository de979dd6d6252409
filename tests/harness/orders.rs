//! Orders to post.

use serde_json::{Value, json};

use crate::random::unique;

/// States that nothing follows on the default route.
pub const FINAL: [&str; 4] = ["VALIDATED", "REJECTED", "EXPIRED", "CANCELLED"];

/// The sample services refuse this customer.
pub const REFUSED: &str = "refuse-me";
/// The sample services never answer for this customer.
pub const IGNORED: &str = "ignore-me";

/// What a `202` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub id: String,
}

/// A good order of a customer of its own, so that nothing stands before it under its key. Its net total is `15.50`.
#[must_use]
pub fn order() -> Value {
    order_of(&unique("c"))
}

/// A good order of a given customer.
#[must_use]
pub fn order_of(customer: &str) -> Value {
    json!({
        "customerId": customer,
        "currency": "GBP",
        "lines": [
            {"stockCode": "85123A", "description": "T-LIGHT HOLDER", "quantity": 6, "unitPrice": "2.55"},
            {"stockCode": "71053", "description": "LANTERN", "quantity": 2, "unitPrice": "0.1"},
        ],
    })
}

/// A good order with a member `mark`, at which a hostile plugin can take aim.
#[must_use]
pub fn marked(mark: &str) -> Value {
    let mut order = order();
    order["mark"] = mark.into();
    order
}
