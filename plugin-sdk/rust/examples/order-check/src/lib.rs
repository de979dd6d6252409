//! Checks orders and works out their totals: the same plugin as in the other languages, with arithmetic of its own.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_plugin::{Order, Patch, Plugin, Problem, Verdict};

const LINES_MAX: usize = 500;
const QUANTITY_MAX: u64 = 100_000;
const PROBLEMS_MAX: usize = 100;

/// The operator's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderCheck {
    /// Segments by customer id.
    #[serde(default)]
    segments: HashMap<String, String>,
}

/// What is added up over the lines.
#[derive(Debug, Default)]
struct Totals {
    /// In ten-thousandths: at most 500 lines of 100000 pieces below 10^7, which fits.
    net: u64,
    units: u64,
}

impl Plugin for OrderCheck {
    type Config = Self;

    fn configure(config: Self) -> Result<Self, Vec<Problem>> {
        Ok(config)
    }

    fn judge(&self, order: &Order) -> Verdict {
        let mut problems = Vec::new();
        let customer = order.get::<String>("/customerId").filter(|customer| !customer.is_empty());
        if customer.is_none() {
            problems.push(Problem::new("customer-id-missing", "The customer id is missing").at("/customerId"));
        }
        let lines = order.raw("/lines").and_then(|lines| serde_json::from_str::<Vec<&RawValue>>(lines.get()).ok());
        let lines = lines.filter(|lines| (1..=LINES_MAX).contains(&lines.len())).unwrap_or_else(|| {
            problems.push(Problem::new("lines-invalid", "The lines are not 1 to 500").at("/lines"));
            Vec::new()
        });
        let mut totals = Totals::default();
        for (at, line) in lines.iter().enumerate() {
            totals.add(line, at, &mut problems);
        }
        match customer {
            Some(customer) if problems.is_empty() => self.enrich(&customer, &totals, lines.len()),
            _ => {
                problems.truncate(PROBLEMS_MAX);
                Verdict::Reject(problems)
            }
        }
    }
}

impl OrderCheck {
    fn enrich(&self, customer: &str, totals: &Totals, lines: usize) -> Verdict {
        let net = decimal(totals.net);
        let json = |text: String| RawValue::from_string(text).expect("it is JSON");
        let text = format!(r#"{{"net":"{net}","units":{},"lines":{lines}}}"#, totals.units);
        let mut patch = Patch::new().set("/totals", &json(text));
        if let Some(segment) = self.segments.get(customer) {
            patch = patch.set("/segment", &json(quoted(segment)));
        }
        patch.header("order-net", net).into()
    }
}

impl Totals {
    fn add(&mut self, line: &RawValue, at: usize, problems: &mut Vec<Problem>) {
        let Ok(line) = serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(line.get()) else {
            problems.push(Problem::new("line-invalid", "The line is not an object").at(format!("/lines/{at}")));
            return;
        };
        let quantity = line.get("quantity").and_then(|text| quantity(text.get()));
        if quantity.is_none() {
            let problem = Problem::new("quantity-invalid", "The quantity is not 1 to 100000");
            problems.push(problem.at(format!("/lines/{at}/quantity")));
        }
        let price = line.get("unitPrice").and_then(|text| serde_json::from_str::<String>(text.get()).ok());
        let price = price.and_then(|text| price_of(&text));
        if price.is_none() {
            let problem = Problem::new("unit-price-invalid", "The unit price is not a decimal above zero");
            problems.push(problem.at(format!("/lines/{at}/unitPrice")));
        }
        if let (Some(quantity), Some(price)) = (quantity, price) {
            self.units += quantity;
            self.net += quantity * price;
        }
    }
}

/// The integral value of a JSON number, from 1 to the most.
fn quantity(text: &str) -> Option<u64> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    // One that no machine can hold is as good as the largest: of a number with so few digits it makes none of ours.
    let most = if exponent.starts_with('-') { -1_000_000_000 } else { 1_000_000_000 };
    let exponent: i64 = exponent.parse().unwrap_or(most);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - significant.len()).ok()?;
    let exponent = exponent.saturating_sub(i64::try_from(fraction.len()).ok()?).saturating_add(zeros);
    let significant = significant.trim_start_matches('0');
    // 100000 has six digits.
    if significant.is_empty() || significant.len() > 6 || !(0..=5).contains(&exponent) {
        return None;
    }
    let value = significant.parse::<u64>().ok()? * 10_u64.pow(u32::try_from(exponent).ok()?);
    (1..=QUANTITY_MAX).contains(&value).then_some(value)
}

/// A price in ten-thousandths.
fn price_of(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if (1..=4).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=7).contains(&whole.len()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let price: u64 = format!("{whole}{fraction:0<4}").parse().ok()?;
    (price > 0).then_some(price)
}

/// Ten-thousandths as a decimal with two places, and a third or fourth where it is needed.
fn decimal(value: u64) -> String {
    let text = format!("{}.{:04}", value / 10_000, value % 10_000);
    let short = text.trim_end_matches('0');
    let places = short.len() - short.find('.').unwrap_or(0) - 1;
    format!("{short}{}", "0".repeat(2_usize.saturating_sub(places)))
}

/// A JSON string with as few escapes as can be.
fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

sluice_plugin::export!(OrderCheck);

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_plugin::testing::Harness;

    #[test]
    fn numbers_are_the_same_however_they_are_written() {
        for (text, expected) in [
            ("2", Some(2)),
            ("2.0", Some(2)),
            ("2e0", Some(2)),
            ("0.2E+1", Some(2)),
            ("20e-1", Some(2)),
            ("1e5", Some(100_000)),
            ("100001", None),
            ("1.5", None),
            ("0", None),
            ("-1", None),
            ("1e99999999999999999999", None),
            ("\"2\"", None),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }

    #[test]
    fn decimals_have_two_to_four_places() {
        let shown = [155_000, 1_250, 33_333, 1, 10_000].map(decimal);
        assert_eq!(shown, ["15.50", "0.125", "3.3333", "0.0001", "1.00"]);
        assert_eq!(
            ["2.55", "1234567.0001", "0", ".5", "1.", "12345678", "1.00001"].map(price_of)[..3],
            [Some(25_500), Some(12_345_670_001), None]
        );
    }

    #[test]
    fn all_findings_are_told() {
        let plugin = Harness::<OrderCheck>::new("{}").unwrap();
        let verdict = plugin.judge(r#"{"lines":[{"quantity":0,"unitPrice":"1"},7]}"#);
        assert_eq!(verdict.pointers(), ["/customerId", "/lines/0/quantity", "/lines/1"]);
        assert_eq!(quoted("a\"\\\n\u{1f}é"), "\"a\\\"\\\\\\u000a\\u001fé\"");
    }
}
