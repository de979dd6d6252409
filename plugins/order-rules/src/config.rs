//! The operator's configuration: which rules hold, and their limits.

use std::collections::BTreeSet;

use serde::Deserialize;
use sluice_plugin::Problem;

use crate::currency;
use crate::money::DECIMALS_MAX;

/// A rule that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rule {
    /// `customerId` is a text that is not empty.
    CustomerId,
    /// `currency` is a code that is accepted.
    Currency,
    /// `lines` is an array of objects, at least one.
    Lines,
    /// Each `quantity` is an integer of at least 1.
    Quantity,
    /// Each `unitPrice` is a decimal text above 0.
    UnitPrice,
}

/// Every key has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The rules that hold; all by default.
    pub(crate) rules: Vec<Rule>,
    /// The currencies accepted; all in use by default.
    pub(crate) currencies: Option<BTreeSet<String>>,
    /// Most decimals of a unit price.
    pub(crate) unit_price_decimals_max: usize,
    /// Whether `/totals/net` is added.
    pub(crate) net: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: vec![Rule::CustomerId, Rule::Currency, Rule::Lines, Rule::Quantity, Rule::UnitPrice],
            currencies: None,
            unit_price_decimals_max: 4,
            net: true,
        }
    }
}

impl Config {
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.rules.contains(&rule)
    }

    pub(crate) fn accepts(&self, code: &str) -> bool {
        match &self.currencies {
            Some(accepted) => accepted.contains(code),
            None => currency::is_code(code),
        }
    }

    /// What `currency` may be, for people.
    pub(crate) fn expected(&self) -> String {
        match &self.currencies {
            Some(accepted) if accepted.len() <= 12 => {
                format!("one of {}", accepted.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
            Some(_) => "an accepted currency".to_owned(),
            None => "an ISO 4217 code such as \"EUR\"".to_owned(),
        }
    }

    /// What is wrong with the configuration itself.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for code in self.currencies.iter().flatten().filter(|code| !currency::is_code(code)) {
            problems.push(
                Problem::new("currency-unknown", "Not an ISO 4217 code")
                    .detail(format_args!("`{code}` is no ISO 4217 code in use"))
                    .at("/currencies"),
            );
        }
        if self.currencies.as_ref().is_some_and(BTreeSet::is_empty) {
            problems.push(Problem::new("currencies-empty", "No currency would be accepted").at("/currencies"));
        }
        if self.unit_price_decimals_max > DECIMALS_MAX {
            problems.push(
                Problem::new("decimals-out-of-range", "Too many decimals")
                    .detail(format_args!("expected 0 to {DECIMALS_MAX}, found {}", self.unit_price_decimals_max))
                    .at("/unit_price_decimals_max"),
            );
        }
        problems
    }
}
