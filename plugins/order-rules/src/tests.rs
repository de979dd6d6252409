//! The rules on whole orders.

use proptest::prelude::*;
use sluice_plugin::testing::Harness;

use super::*;

fn rules() -> Harness<OrderRules> {
    Harness::new("{}").unwrap()
}

fn net(verdict: &Verdict) -> String {
    assert_eq!(verdict.pointers(), Vec::<&str>::new(), "{verdict:?}");
    let Verdict::Enrich(Patch { ops }) = verdict else { panic!("{verdict:?}") };
    let [sluice_plugin::PatchOp::Set { pointer, value }] = ops.as_slice() else { panic!("{ops:?}") };
    assert_eq!(pointer, "/totals/net");
    serde_json::from_slice(value).unwrap()
}

/// A good order with one of its members (`"name":value`) in place of the own one, or without it.
fn order_with(name: &str, value: Option<&str>) -> String {
    let good = [
        ("customerId", r#""17850""#),
        ("currency", r#""GBP""#),
        (
            "lines",
            r#"[{"stockCode":"1","quantity":6,"unitPrice":"2.55"},{"stockCode":"1","quantity":2,"unitPrice":"0.1"}]"#,
        ),
    ];
    let mut members: Vec<_> = good.into_iter().filter(|(own, _)| *own != name).collect();
    members.extend(value.map(|value| (name, value)));
    let texts: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", texts.join(","))
}

fn line_with(name: &str, value: Option<&str>) -> String {
    let mut members = vec![(name, value)];
    members
        .extend([("quantity", Some("1")), ("unitPrice", Some(r#""1""#))].into_iter().filter(|(own, _)| *own != name));
    let texts: Vec<_> = members.iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", (*value)?))).collect();
    order_with("lines", Some(&format!("[{{{}}}]", texts.join(","))))
}

#[test]
fn a_good_order_gets_its_net_total() {
    assert_eq!(net(&rules().judge(&order_with("x", None))), "15.50");
    assert_eq!(net(&rules().judge(&order_with("totals", Some("{}")))), "15.50");
    assert_eq!(net(&rules().judge(&order_with("totals", Some(r#"{"net":"7","tax":1}"#)))), "15.50");
    assert_eq!(
        net(&rules().judge(&line_with("quantity", Some("99999999999999999999999")))),
        "99999999999999999999999.00"
    );
    assert_eq!(net(&rules().judge(&line_with("unitPrice", Some(r#""0.125""#)))), "0.125");
    assert_eq!(net(&rules().judge(&line_with("unitPrice", Some(r#""\u0031\u002e5""#)))), "1.50");
}

#[test]
fn totals_that_are_null_become_an_object() {
    let verdict = rules().judge(&order_with("totals", Some("null")));
    assert_eq!(verdict, Patch::new().set("/totals", &serde_json::json!({"net": "15.50"})).into());
}

#[test]
fn each_bad_member_is_named_by_its_pointer() {
    let rules = rules();
    let judge = |body: &str, pointer: &str| {
        let verdict = rules.judge(body);
        assert_eq!(verdict.pointers(), [pointer], "{body}: {verdict:?}");
    };
    for value in
        [None, Some("null"), Some(r#""""#), Some(r#"" \t""#), Some("\" \""), Some("17850"), Some("[]"), Some("{}")]
    {
        judge(&order_with("customerId", value), "/customerId");
    }
    for value in
        [None, Some("null"), Some(r#""""#), Some(r#""gbp""#), Some(r#""ZZZ""#), Some("826"), Some(r#"["GBP"]"#)]
    {
        judge(&order_with("currency", value), "/currency");
    }
    for value in
        [None, Some("null"), Some("[]"), Some("{}"), Some(r#""[]""#), Some("1"), Some("1.5"), Some("true"), Some("-1")]
    {
        judge(&order_with("lines", value), "/lines");
    }
    for line in ["null", "1", "-1.5", "true", r#""x""#, "[]", "[[{}]]"] {
        let lines = format!(r#"[{{"quantity":1,"unitPrice":"1"}},{line}]"#);
        judge(&order_with("lines", Some(&lines)), "/lines/1");
    }
    for value in
        [None, Some("null"), Some("0"), Some("-1"), Some("1.0"), Some("1e2"), Some(r#""6""#), Some("true"), Some("[1]")]
    {
        judge(&line_with("quantity", value), "/lines/0/quantity");
    }
    for value in [
        None,
        Some("null"),
        Some("1"),
        Some("2.55"),
        Some(r#""0""#),
        Some(r#""-1""#),
        Some(r#""+1""#),
        Some(r#"".5""#),
        Some(r#""5.""#),
        Some(r#""1e2""#),
        Some(r#""1.23456""#),
        Some(r#""""#),
        Some("true"),
        Some(r#"{"amount":"1"}"#),
    ] {
        judge(&line_with("unitPrice", value), "/lines/0/unitPrice");
    }
    for value in ["1", "[]", r#""x""#, "false"] {
        judge(&order_with("totals", Some(value)), "/totals");
    }
}

#[test]
fn all_findings_come_at_once_and_in_order() {
    let verdict = rules().judge(r#"{"lines":[{"quantity":0},7,{"unitPrice":"0.0","quantity":1}],"totals":1}"#);
    let expected = [
        "/customerId",
        "/currency",
        "/lines/0/quantity",
        "/lines/0/unitPrice",
        "/lines/1",
        "/lines/2/unitPrice",
        "/totals",
    ];
    assert_eq!(verdict.pointers(), expected);
}

#[test]
fn a_finding_quotes_what_it_found() {
    let long = format!("\"é{}\"", "9".repeat(20_000));
    for (price, end) in [(long.as_str(), "found \"é99999999999999999999999999999999999999…"), ("7", "found 7")] {
        let verdict = rules().judge(&line_with("unitPrice", Some(price)));
        let Verdict::Reject(problems) = &verdict else { panic!("{verdict:?}") };
        assert!(problems[0].detail.as_ref().unwrap().ends_with(end), "{problems:?}");
    }
}

#[test]
fn many_findings_are_cut() {
    let lines = format!("[{}]", vec!["{}"; 5000].join(","));
    assert_eq!(rules().judge(&order_with("lines", Some(&lines))).pointers().len(), PROBLEMS_MAX);
}

#[test]
fn what_is_no_order_is_refused() {
    for body in ["[]", "1", "null", "{", "", "{\"lines\":[}", r#"["1","GBP",[{"quantity":1,"unitPrice":"1"}],{}]"#] {
        assert_eq!(rules().judge(body).pointers(), [""], "{body}");
    }
}

#[test]
fn rules_and_limits_come_from_the_configuration() {
    let judge = |config: &str, body: &str| Harness::<OrderRules>::new(config).unwrap().judge(body);
    assert_eq!(judge(r#"{"currencies":["EUR","USD"]}"#, &order_with("x", None)).pointers(), ["/currency"]);
    assert_eq!(net(&judge(r#"{"rules":["quantity"]}"#, r#"{"lines":[{"quantity":2,"unitPrice":"2"}]}"#)), "4.00");
    assert_eq!(judge(r#"{"rules":[]}"#, r#"{"lines":[{"quantity":2}]}"#), Verdict::Accept);
    assert_eq!(judge(r#"{"net":false}"#, &order_with("totals", Some("1"))), Verdict::Accept);
    let fine = line_with("unitPrice", Some(r#""0.000000001""#));
    assert_eq!(net(&judge(r#"{"unit_price_decimals_max":9}"#, &fine)), "0.000000001");
    assert_eq!(judge(r#"{"unit_price_decimals_max":0}"#, &order_with("x", None)).pointers().len(), 2);
}

#[test]
fn a_bad_configuration_is_refused() {
    for (config, word) in [
        ("{", "EOF"),
        ("[]", "expected a JSON object"),
        (r#"{"rule":[]}"#, "unknown field `rule`"),
        (r#"{"rules":["quantities"]}"#, "unknown variant `quantities`"),
        (r#"{"currencies":["eur"]}"#, "`eur` is no ISO 4217 code"),
        (r#"{"unit_price_decimals_max":10}"#, "expected 0 to 9, found 10"),
    ] {
        let problems = Harness::<OrderRules>::new(config).unwrap_err();
        assert!(problems[0].detail.as_ref().unwrap().contains(word), "{config}: {problems:?}");
    }
    assert_eq!(Harness::<OrderRules>::new(r#"{"currencies":[]}"#).unwrap_err()[0].code, "currencies-empty");
}

proptest! {
    #[test]
    fn any_text_gets_a_verdict(body in ".*") {
        prop_assert!(matches!(rules().judge(&body), Verdict::Reject(_)));
    }

    #[test]
    fn any_members_get_a_verdict(value in "(null|-?[0-9]{1,3}(\\.[0-9])?|\"[ -!#-\\[\\]-~]{0,5}\"|\\[\\]|\\{\\})", which in 0usize..6) {
        let body = match which {
            0 => order_with("customerId", Some(&value)),
            1 => order_with("currency", Some(&value)),
            2 => order_with("lines", Some(&value)),
            3 => line_with("quantity", Some(&value)),
            4 => line_with("unitPrice", Some(&value)),
            _ => order_with("totals", Some(&value)),
        };
        let verdict = rules().judge(&body);
        let is_expected = matches!(verdict, Verdict::Enrich(_) | Verdict::Reject(_));
        prop_assert!(is_expected, "{body}: {verdict:?}");
    }
}
