//! Orders to compare languages on: what they may be made of, good and bad, and how they shrink.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::model::SEGMENTS;

/// JSON text of an order. Smaller means: fewer lines, smaller numbers, plainer values.
pub(super) fn order() -> impl Strategy<Value = String> {
    // Long lists repeat a few lines: a thousand of their own would take long to make and longer to shrink.
    let repeated = |lines: BoxedStrategy<Vec<String>>, counts: &[usize]| {
        (lines, prop::sample::select(counts.to_vec()))
            .prop_map(|(lines, count)| list(lines.into_iter().cycle().take(count).collect()))
    };
    let lines = prop_oneof![
        40 => vec(good_line(), 1..12).prop_map(list),
        20 => vec(line(), 1..8).prop_map(list),
        4 => repeated(vec(line(), 1..40).boxed(), &[1, 20, 60, 100, 101, 160, 500, 501]),
        2 => repeated(vec(large_line(), 1..12).boxed(), &[1, 2, 10, 100, 499, 500]),
        1 => repeated(vec(good_line(), 1..12).boxed(), &[1, 499, 500, 501, 502]),
        3 => no_list().prop_map(|text| text.to_owned()),
    ];
    let member = |name: &'static str, value: BoxedStrategy<String>, weight: u32| {
        prop::option::weighted(f64::from(weight) / 100.0, value)
            .prop_map(move |value| value.map(|value| format!("{}:{value}", string(name, false))))
    };
    let members = (
        member("lines", lines.boxed(), 98),
        member("customerId", prop_oneof![9 => good_customer(), 1 => bad_customer()].boxed(), 98),
        member("totals", anything().boxed(), 10),
        member("segment", anything().boxed(), 10),
        member("note", anything().boxed(), 30),
    );
    let members = members.prop_map(|(a, b, c, d, e)| [a, b, c, d, e].into_iter().flatten().collect::<Vec<_>>());
    (members.prop_shuffle(), 0..4_usize).prop_map(|(members, style)| {
        let (space, newline) = [("", ""), ("", ""), (" ", ""), (" ", "\n\t")][style];
        format!("{{{newline}{}{newline}}}{space}", members.join(&format!("{space},{newline}"))).trim_end().to_owned()
    })
}

fn list(lines: Vec<String>) -> String {
    format!("[{}]", lines.join(","))
}

/// A JSON string, plain or with every character as an escape.
fn string(text: &str, is_escaped: bool) -> String {
    if !is_escaped {
        return serde_json::to_string(text).unwrap();
    }
    let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
    format!("\"{}\"", units.collect::<String>())
}

fn quoted(text: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    (text, prop::bool::weighted(0.2)).prop_map(|(text, is_escaped)| string(&text, is_escaped)).boxed()
}

fn good_customer() -> BoxedStrategy<String> {
    let known = prop::sample::select(SEGMENTS.map(|(customer, _)| customer.to_owned()).to_vec());
    let odd =
        prop::sample::select(vec!["é", "e\u{301}", "\u{feff}", "😀😀", "__proto__", "constructor", "1", " 17850"]);
    let text = prop_oneof![4 => known, 2 => "[ -~]{1,12}", 2 => odd.prop_map(str::to_owned)];
    quoted(text)
}

fn bad_customer() -> BoxedStrategy<String> {
    prop::sample::select(vec!["\"\"", "null", "17850", "true", "[]", "{}", "[\"17850\"]"])
        .prop_map(str::to_owned)
        .boxed()
}

fn no_list() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "[]",
        "null",
        "{}",
        "\"lines\"",
        "1",
        "false",
        "{\"0\":{\"quantity\":1,\"unitPrice\":\"1\"}}",
    ])
}

/// Values that stand where no rule looks.
fn anything() -> impl Strategy<Value = String> {
    let values = [
        "null",
        "0",
        "-0.0",
        "1E+2",
        "0.1000",
        "12345678901234567890",
        "\"\"",
        "\"\\u0000\\/\\\\\\\"\"",
        "[]",
        "{}",
        "[[{}],[1,2]]",
        "{\"net\":\"1.00\"}",
        "{\"a\":{\"quantity\":0}}",
        "\"\u{2028}é😀\"",
    ];
    prop::sample::select(values.to_vec()).prop_map(str::to_owned)
}

/// A line with these members, in this sequence or the other, and perhaps more.
fn with_members(quantity: BoxedStrategy<String>, price: BoxedStrategy<String>) -> BoxedStrategy<String> {
    (quantity, price, prop::option::weighted(0.2, anything()), any::<bool>())
        .prop_map(|(quantity, price, more, is_turned)| {
            let mut members = vec![format!("\"quantity\":{quantity}"), format!("\"unitPrice\":{price}")];
            members.extend(more.map(|more| format!("\"description\":{more}")));
            if is_turned {
                members.reverse();
            }
            format!("{{{}}}", members.join(","))
        })
        .boxed()
}

fn good_line() -> BoxedStrategy<String> {
    with_members(good_quantity(), good_price())
}

fn line() -> BoxedStrategy<String> {
    let part = |good: BoxedStrategy<String>, bad: BoxedStrategy<String>| prop_oneof![3 => good, 1 => bad].boxed();
    let lacks = (any::<bool>(), good_quantity(), good_price()).prop_map(|(is_price, quantity, price)| {
        if is_price { format!("{{\"unitPrice\":{price}}}") } else { format!("{{\"quantity\":{quantity}}}") }
    });
    let no_object = prop::sample::select(vec!["null", "1", "\"line\"", "[]", "[1,\"1\"]", "true", "{}"]);
    prop_oneof![
        16 => with_members(part(good_quantity(), bad_quantity()), part(good_price(), bad_price())),
        1 => lacks,
        1 => no_object.prop_map(str::to_owned),
    ]
    .boxed()
}

/// Lines that sum up to more than a double holds exactly.
fn large_line() -> BoxedStrategy<String> {
    let price = 90_000_000_000_u64..100_000_000_000;
    (90_000..=100_000_u32, price)
        .prop_map(|(quantity, price)| {
            format!("{{\"quantity\":{quantity},\"unitPrice\":\"{}.{:04}\"}}", price / 10_000, price % 10_000)
        })
        .boxed()
}

/// The same number in its many forms. None has more digits than a double holds.
fn good_quantity() -> BoxedStrategy<String> {
    let number = prop_oneof![6 => 1..100_u32, 2 => 1..=100_000_u32, 1 => Just(100_000_u32)];
    (number, prop_oneof![8 => Just(0_u8), 4 => 1..7_u8])
        .prop_map(|(number, form)| match form {
            1 => format!("{number}.0"),
            2 => format!("{number}e0"),
            3 => format!("{number}0E-1"),
            4 => format!("{}.{}e+1", number / 10, number % 10),
            5 => format!("{number}.000e00"),
            6 => format!("0.{number:06}e6"),
            _ => number.to_string(),
        })
        .boxed()
}

fn bad_quantity() -> BoxedStrategy<String> {
    let values = [
        "0",
        "-1",
        "-0",
        "0.0",
        "0e5",
        "100001",
        "100000.5",
        "1.5",
        "0.5",
        "1e-1",
        "1e6",
        "1e300",
        "1e-300",
        "4294967297",
        "18446744073709551617",
        "9007199254740993",
        "-100000",
        "1.0000001",
        "null",
        "true",
        "\"2\"",
        "\"\"",
        "[]",
        "[2]",
        "{}",
    ];
    prop::sample::select(values.to_vec()).prop_map(str::to_owned).boxed()
}

fn good_price() -> BoxedStrategy<String> {
    let price = prop_oneof![
        6 => (0..=4_usize, 1..100_000_u64),
        1 => (0..=4_usize, 1..100_000_000_000_u64),
        1 => (Just(4_usize), Just(99_999_999_999_u64)),
    ];
    (price, 0..3_usize, prop::bool::weighted(0.1))
        .prop_map(|((places, ten_thousandths), zeros, is_escaped)| {
            let (whole, fraction) = (ten_thousandths / 10_000, ten_thousandths % 10_000);
            let fraction = &format!("{fraction:04}")[..places];
            let point = if places == 0 { "" } else { "." };
            let mut whole = whole.to_string();
            if whole.len() + zeros <= 7 {
                whole = "0".repeat(zeros) + &whole;
            }
            let text = format!("{whole}{point}{fraction}");
            // Cut to zero it would break the rule.
            let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
            string(if is_zero { "0.0001" } else { &text }, is_escaped)
        })
        .boxed()
}

fn bad_price() -> BoxedStrategy<String> {
    let values = [
        "\"0\"",
        "\"0.0000\"",
        "\"0000000\"",
        "\"12345678\"",
        "\"1.\"",
        "\".5\"",
        "\"1.23456\"",
        "\"+1\"",
        "\"-1\"",
        "\"1e2\"",
        "\" 1\"",
        "\"1 \"",
        "\"1\\n\"",
        "\"1,5\"",
        "\"１\"",
        "\"١\"",
        "\"1\\u0000\"",
        "\"0x1\"",
        "\"1_0\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"\"",
        "\"1.2.3\"",
        "1",
        "1.5",
        "null",
        "true",
        "[]",
        "[\"1\"]",
        "{}",
    ];
    prop::sample::select(values.to_vec()).prop_map(str::to_owned).boxed()
}

/// All of the generator's orders come through the gateway's door: JSON, an object, numbers that a double holds.
#[test]
fn what_is_generated_is_json() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = order();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..500 {
        let order = strategy.new_tree(&mut runner).unwrap().current();
        let parsed: serde_json::Value = serde_json::from_str(&order).unwrap_or_else(|error| panic!("{error}: {order}"));
        assert!(parsed.is_object(), "{order}");
        match super::model::judge(&order, super::net) {
            super::Answer::Enrich { .. } => good += 1,
            _ => bad += 1,
        }
    }
    assert!(good > 100 && bad > 100, "{good} good orders, {bad} bad ones");
}
