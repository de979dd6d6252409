//! Judges orders: who orders, in which currency, how much of what, at which price; and adds their exact net total.
//!
//! Each finding is one problem with the JSON Pointer of the member at fault. Money is exact: decimal strings in,
//! decimal strings out, never a float.

mod config;
mod currency;
mod money;
mod shape;

use std::borrow::Cow;

use serde_json::value::RawValue;
use sluice_plugin::{Order, Patch, Plugin, Problem, Verdict};

use config::{Config, Rule};
use money::{Net, Price, Quantity};
use shape::{Body, Line, Lines};

/// Most problems of one order: the first ones. The gateway shows no more either.
const PROBLEMS_MAX: usize = 100;

/// Most characters of a value that a problem quotes.
const QUOTE_CHARS_MAX: usize = 40;

/// The plugin.
#[derive(Debug)]
pub struct OrderRules {
    config: Config,
}

impl Plugin for OrderRules {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Vec<Problem>> {
        let problems = config.problems();
        if problems.is_empty() { Ok(Self { config }) } else { Err(problems) }
    }

    fn judge(&self, order: &Order) -> Verdict {
        let unreadable = Problem::new("order-unreadable", "Not an order").at("");
        // Derived types would take an array of their members as well.
        if !order.body.trim_ascii_start().starts_with(b"{") {
            return unreadable.detail("expected a JSON object").into();
        }
        let body: Body<'_> = match order.read() {
            Ok(body) => body,
            Err(error) => return unreadable.detail(error).into(),
        };
        let mut problems = Vec::new();
        if self.config.has(Rule::CustomerId) && text(body.customer_id).is_none_or(|id| id.trim().is_empty()) {
            problems.push(
                Problem::new("customer-id-missing", "Customer id missing")
                    .detail(format_args!("expected a text that is not empty, found {}", quote(body.customer_id)))
                    .at("/customerId"),
            );
        }
        if self.config.has(Rule::Currency) && !text(body.currency).is_some_and(|code| self.config.accepts(&code)) {
            problems.push(
                Problem::new("currency-unknown", "Currency unknown or not accepted")
                    .detail(format_args!("expected {}, found {}", self.config.expected(), quote(body.currency)))
                    .at("/currency"),
            );
        }
        let net = self.judge_lines(&body.lines, &mut problems);
        let totals = body.totals.map(RawValue::get);
        let is_object = totals.is_none_or(|totals| totals.starts_with('{') || totals == "null");
        if self.config.net && !is_object {
            problems.push(
                Problem::new("totals-invalid", "Totals are no object")
                    .detail(format_args!("expected an object to add the net total to, found {}", quote(body.totals)))
                    .at("/totals"),
            );
        }
        if !problems.is_empty() {
            problems.truncate(PROBLEMS_MAX);
            return Verdict::Reject(problems);
        }
        match net {
            Some(net) if totals == Some("null") => {
                Patch::new().set("/totals", &std::collections::BTreeMap::from([("net", net.to_string())])).into()
            }
            Some(net) => Patch::new().set("/totals/net", &net.to_string()).into(),
            None => Verdict::Accept,
        }
    }
}

impl OrderRules {
    /// Judges the lines and adds them up; no sum where one of them cannot be read, or none is asked for.
    fn judge_lines(&self, lines: &Lines<'_>, problems: &mut Vec<Problem>) -> Option<Net> {
        let lines = match lines {
            Lines::Array(lines) if !lines.is_empty() => lines,
            Lines::Array(_) | Lines::Absent | Lines::Other => {
                if self.config.has(Rule::Lines) {
                    let found = match lines {
                        Lines::Array(_) => "none",
                        Lines::Absent => "nothing",
                        Lines::Other => "something else",
                    };
                    problems.push(
                        Problem::new("lines-missing", "No order lines")
                            .detail(format_args!("expected an array of at least one line, found {found}"))
                            .at("/lines"),
                    );
                }
                return None;
            }
        };
        let mut net = self.config.net.then(Net::default);
        for (index, line) in lines.iter().enumerate() {
            if problems.len() >= PROBLEMS_MAX {
                return None;
            }
            let Line::Object { quantity, unit_price } = line else {
                if self.config.has(Rule::Lines) {
                    problems
                        .push(Problem::new("line-invalid", "Order line is no object").at(format!("/lines/{index}")));
                }
                net = None;
                continue;
            };
            let amount = quantity.and_then(|raw| Quantity::read(raw.get()));
            if amount.is_none() && self.config.has(Rule::Quantity) {
                problems.push(
                    Problem::new("quantity-invalid", "Quantity is no whole number of at least 1")
                        .detail(format_args!("expected an integer of at least 1, found {}", quote(*quantity)))
                        .at(format!("/lines/{index}/quantity")),
                );
            }
            let decimals_max = self.config.unit_price_decimals_max;
            let price_text = text(*unit_price);
            let price = price_text.as_deref().and_then(|text| Price::read(text, decimals_max));
            if price.is_none() && self.config.has(Rule::UnitPrice) {
                problems.push(
                    Problem::new("unit-price-invalid", "Unit price is no positive decimal text")
                        .detail(format_args!(
                            "expected a decimal text above 0 with at most {decimals_max} decimals, such as \"2.55\", found {}",
                            quote(*unit_price)
                        ))
                        .at(format!("/lines/{index}/unitPrice")),
                );
            }
            match (&mut net, amount, price) {
                (Some(net), Some(amount), Some(price)) => net.add(amount, price),
                _ => net = None,
            }
        }
        net
    }
}

/// The text of a member that is a JSON string; borrowed where it has no escapes.
fn text(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = raw?.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok() } else { Some(Cow::Borrowed(inner)) }
}

/// The JSON of a member for people, cut where it is long.
fn quote(raw: Option<&RawValue>) -> Cow<'_, str> {
    let Some(json) = raw.map(RawValue::get) else { return Cow::Borrowed("nothing") };
    match json.char_indices().nth(QUOTE_CHARS_MAX) {
        None => Cow::Borrowed(json),
        Some((cut, _)) => Cow::Owned(format!("{}…", &json[..cut])),
    }
}

sluice_plugin::export!(OrderRules);

#[cfg(test)]
mod tests;
