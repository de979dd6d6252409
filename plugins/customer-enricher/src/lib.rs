//! Adds what is known about an order's customer, from a table in the configuration.
//!
//! Orders of unknown customers, or without a customer, pass as they are: judging them is another plugin's work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_plugin::{Order, Patch, Plugin, Problem, Verdict};

/// The operator's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The known customers by `customerId`.
    pub customers: BTreeMap<String, Customer>,
}

/// What an order learns about its customer: the value of `/customer`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    pub name: String,
    pub segment: String,
}

/// The plugin.
#[derive(Debug)]
pub struct CustomerEnricher {
    customers: BTreeMap<String, Customer>,
}

/// The one member that is read.
#[derive(Deserialize)]
struct Ordered<'order> {
    #[serde(borrow, default, rename = "customerId")]
    customer_id: Option<&'order serde_json::value::RawValue>,
}

impl Plugin for CustomerEnricher {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        for (id, customer) in &config.customers {
            for (member, text) in [("name", &customer.name), ("segment", &customer.segment)] {
                if text.trim().is_empty() {
                    let pointer = format!("/customers/{}/{member}", id.replace('~', "~0").replace('/', "~1"));
                    problems.push(Problem::new("empty-text", "Must not be empty").at(pointer));
                }
            }
        }
        if problems.is_empty() { Ok(Self { customers: config.customers }) } else { Err(problems) }
    }

    fn judge(&self, order: &Order) -> Verdict {
        let Ok(Ordered { customer_id: Some(id) }) = order.read() else { return Verdict::Accept };
        let Ok(id) = serde_json::from_str::<std::borrow::Cow<'_, str>>(id.get()) else { return Verdict::Accept };
        match self.customers.get(id.as_ref()) {
            Some(customer) => Patch::new().set("/customer", customer).into(),
            None => Verdict::Accept,
        }
    }
}

sluice_plugin::export!(CustomerEnricher);

#[cfg(test)]
mod tests {
    use sluice_plugin::testing::Harness;

    use super::*;

    const TABLE: &str = r#"{"customers":{"17850":{"name":"Maria \"Mia\" Rossi","segment":"trade"},
        "a/b":{"name":"Ada","segment":"retail"}}}"#;

    #[test]
    fn a_known_customer_is_added() {
        let plugin = Harness::<CustomerEnricher>::new(TABLE).unwrap();
        let expected =
            Patch::new().set("/customer", &serde_json::json!({"name": "Maria \"Mia\" Rossi", "segment": "trade"}));
        for body in [
            r#"{"customerId":"17850"}"#,
            r#"{"customerId":"\u00317850","x":1e999}"#,
            r#"{"customer":7,"customerId":"17850"}"#,
        ] {
            assert_eq!(plugin.judge(body), Verdict::Enrich(expected.clone()), "{body}");
        }
    }

    #[test]
    fn all_others_pass_as_they_are() {
        let plugin = Harness::<CustomerEnricher>::new(TABLE).unwrap();
        for body in [
            "{}",
            r#"{"customerId":"1785"}"#,
            r#"{"customerId":17850}"#,
            r#"{"customerId":null}"#,
            r#"{"customerId":["17850"]}"#,
        ] {
            assert_eq!(plugin.judge(body), Verdict::Accept, "{body}");
        }
        assert_eq!(Harness::<CustomerEnricher>::new("{}").unwrap().judge(r#"{"customerId":"17850"}"#), Verdict::Accept);
    }

    #[test]
    fn a_bad_table_is_refused() {
        for (config, word) in [
            (r#"{"customer":{}}"#, "unknown field `customer`"),
            (r#"{"customers":{"1":{"name":"A"}}}"#, "missing field `segment`"),
            ("[]", "expected a JSON object"),
        ] {
            let problems = Harness::<CustomerEnricher>::new(config).unwrap_err();
            assert!(problems[0].detail.as_ref().unwrap().contains(word), "{config}: {problems:?}");
        }
        let problems =
            Harness::<CustomerEnricher>::new(r#"{"customers":{"a/b":{"name":" ","segment":""}}}"#).unwrap_err();
        let pointers: Vec<_> = problems.iter().map(|problem| problem.pointer.as_deref().unwrap()).collect();
        assert_eq!(pointers, ["/customers/a~1b/name", "/customers/a~1b/segment"]);
    }
}
