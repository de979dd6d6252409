//! The rules of `plugin-sdk/order-check.md` once more: what has to become of an order, in integers of 128 bits.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use sluice::order::patch::{self, PatchOp};

/// Customers that have a segment: with all that makes a JSON string hard to write.
pub(super) const SEGMENTS: [(&str, &str); 6] = [
    ("17850", "wholesale"),
    ("12748", "\"quoted\\\" \u{1}\u{8}\t\n\u{c}\r\u{1f}\u{7f}/"),
    ("é", "Größe – \u{2028}\u{2029}"),
    ("😀", "𝄞😀\u{10ffff}\u{fffd}"),
    ("\"\\", ""),
    ("\u{0}", "\u{0}"),
];

const PROBLEMS_MAX: usize = 100;
const LINES_MAX: usize = 500;
const QUANTITY_MAX: u32 = 100_000;

/// What a plugin made of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Enrich {
        /// Pointers and the bytes of values.
        patch: Vec<(String, String)>,
        headers: Vec<(String, String)>,
        /// The order as it is then.
        body: String,
    },
    Reject(Vec<Finding>),
    /// Anything that no language may say here.
    Else(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) code: String,
    pub(super) title: String,
    pub(super) detail: Option<String>,
    pub(super) pointer: Option<String>,
}

/// A line that breaks no rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) quantity: u32,
    /// In ten-thousandths.
    pub(super) price: u64,
}

/// The sum as it has to be.
pub(super) fn net(lines: &[Line]) -> String {
    let sum: u128 = lines.iter().map(|line| u128::from(line.quantity) * u128::from(line.price)).sum();
    let (whole, fraction) = (sum / 10_000, sum % 10_000);
    match (fraction % 100, fraction % 10) {
        (0, _) => format!("{whole}.{:02}", fraction / 100),
        (_, 0) => format!("{whole}.{:03}", fraction / 10),
        _ => format!("{whole}.{fraction:04}"),
    }
}

/// Judges an order, with a sum made by `net`.
pub(super) fn judge(order: &str, net: fn(&[Line]) -> String) -> Answer {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(order).unwrap();
    let mut findings = Vec::new();
    let mut find = |code: &str, title: &str, pointer: String| {
        findings.push(Finding { code: code.to_owned(), title: title.to_owned(), detail: None, pointer: Some(pointer) });
    };
    let customer = text(members.get("customerId")).filter(|customer| !customer.is_empty());
    if customer.is_none() {
        find("customer-id-missing", "The customer id is missing", "/customerId".to_owned());
    }
    let raw: Option<Vec<&RawValue>> = members.get("lines").and_then(|raw| serde_json::from_str(raw.get()).ok());
    let raw = raw.filter(|lines| (1..=LINES_MAX).contains(&lines.len()));
    if raw.is_none() {
        find("lines-invalid", "The lines are not 1 to 500", "/lines".to_owned());
    }
    let mut lines = Vec::new();
    for (at, line) in raw.unwrap_or_default().into_iter().enumerate() {
        let Ok(line) = serde_json::from_str::<BTreeMap<String, &RawValue>>(line.get()) else {
            find("line-invalid", "The line is not an object", format!("/lines/{at}"));
            continue;
        };
        let quantity = line.get("quantity").and_then(|raw| quantity(raw.get()));
        if quantity.is_none() {
            find("quantity-invalid", "The quantity is not 1 to 100000", format!("/lines/{at}/quantity"));
        }
        let price = text(line.get("unitPrice")).and_then(|text| price(&text));
        if price.is_none() {
            let title = "The unit price is not a decimal above zero";
            find("unit-price-invalid", title, format!("/lines/{at}/unitPrice"));
        }
        if let (Some(quantity), Some(price)) = (quantity, price) {
            lines.push(Line { quantity, price });
        }
    }
    let Some(customer) = customer.filter(|_| findings.is_empty()) else {
        findings.truncate(PROBLEMS_MAX);
        return Answer::Reject(findings);
    };
    enrich(order, &customer, &lines, net(&lines))
}

fn enrich(order: &str, customer: &str, lines: &[Line], net: String) -> Answer {
    let units: u64 = lines.iter().map(|line| u64::from(line.quantity)).sum();
    let totals = format!(r#"{{"net":"{net}","units":{units},"lines":{}}}"#, lines.len());
    let mut patch = vec![("/totals".to_owned(), totals)];
    if let Some((_, segment)) = SEGMENTS.iter().find(|(known, _)| *known == customer) {
        patch.push(("/segment".to_owned(), quoted(segment)));
    }
    let operation = |(pointer, value): &(String, String)| PatchOp::set(pointer.clone(), value.as_bytes()).unwrap();
    let operations: Vec<PatchOp> = patch.iter().map(operation).collect();
    let body = patch::apply(order.as_bytes(), &operations).unwrap();
    let body = String::from_utf8(body.into()).unwrap();
    Answer::Enrich { patch, headers: vec![("order-net".to_owned(), net)], body }
}

fn text(raw: Option<&&RawValue>) -> Option<String> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// A number that is integral and in range, read from its digits.
fn quantity(raw: &str) -> Option<u32> {
    if !raw.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = digits.len() - significant.len();
    let shift = exponent.parse::<i64>().ok()? + i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() || significant.len() > 6 || !(0..=5).contains(&shift) {
        return None;
    }
    let value = significant.parse::<u64>().ok()? * 10_u64.pow(u32::try_from(shift).ok()?);
    u32::try_from(value).ok().filter(|value| *value <= QUANTITY_MAX)
}

/// A price in ten-thousandths.
fn price(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let is_digits =
        |text: &str, max: usize| (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole, 7) || fraction.is_some_and(|fraction| !is_digits(fraction, 4)) {
        return None;
    }
    let padded = format!("{whole}{:0<4}", fraction.unwrap_or_default());
    padded.parse().ok().filter(|price| *price > 0)
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\u{1f}' => quoted += &format!("\\u{:04x}", u32::from(character)),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// The configuration with the segments.
pub(super) fn config() -> String {
    let members: Vec<String> =
        SEGMENTS.iter().map(|(customer, segment)| format!("{}:{}", quoted(customer), quoted(segment))).collect();
    format!(r#"{{"segments":{{{}}}}}"#, members.join(","))
}

#[test]
fn the_model_knows_the_examples_of_the_specification() {
    let of = |lines: &str| match judge(&format!(r#"{{"customerId":"1","lines":{lines}}}"#), net) {
        Answer::Enrich { headers, .. } => headers[0].1.clone(),
        Answer::Reject(findings) => findings.into_iter().map(|finding| finding.pointer.unwrap() + " ").collect(),
        Answer::Else(text) => text,
    };
    let line = |quantity: &str, price: &str| format!(r#"[{{"quantity":{quantity},"unitPrice":"{price}"}}]"#);
    for (quantity, price, expected) in [
        ("2", "7.75", "15.50"),
        ("2.0", "7.75", "15.50"),
        ("20e-1", "7.75", "15.50"),
        ("0.2E+1", "7.75", "15.50"),
        ("1", "0.125", "0.125"),
        ("1", "3.3333", "3.3333"),
        ("100000", "9999999.9999", "999999999990.00"),
        ("1e5", "0000000.0001", "10.00"),
        ("100001", "1", "/lines/0/quantity "),
        ("1.5", "1", "/lines/0/quantity "),
        ("0", "0", "/lines/0/quantity /lines/0/unitPrice "),
        ("-0", "+1", "/lines/0/quantity /lines/0/unitPrice "),
        ("1e-1", "12345678", "/lines/0/quantity /lines/0/unitPrice "),
        ("\"1\"", ".5", "/lines/0/quantity /lines/0/unitPrice "),
        ("1", "1.", "/lines/0/unitPrice "),
        ("1", "1.23456", "/lines/0/unitPrice "),
    ] {
        assert_eq!(of(&line(quantity, price)), expected, "{quantity} {price}");
    }
    assert_eq!(of("[]"), "/lines ");
    assert_eq!(of("[1,{}]"), "/lines/0 /lines/1/quantity /lines/1/unitPrice ");
    let order = r#"{"segment":0,"customerId":"\u00e9","lines":[{"quantity":1,"unitPrice":"1"}]}"#;
    let Answer::Enrich { body, .. } = judge(order, net) else { panic!("{order}") };
    let end = r#""lines":[{"quantity":1,"unitPrice":"1"}],"totals":{"net":"1.00","units":1,"lines":1}}"#;
    assert_eq!(body, format!("{{\"segment\":\"Größe – \u{2028}\u{2029}\",\"customerId\":\"\\u00e9\",{end}"));
}
