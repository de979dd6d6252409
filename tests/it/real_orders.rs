//! Real orders with their real faults: each ends as rules written a second time, here, say it must.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use harness::environment::{self, say};
use harness::{FINAL, TestGateway, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);
/// Lines of one batch.
const BATCH: usize = 100;

/// What must become of an order.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    status: &'static str,
    /// JSON Pointers of the problems.
    pointers: BTreeSet<String>,
    /// `/totals/net` of a valid one.
    net: Option<String>,
}

/// The rules as the contract has them, without a look at the plugin that implements them.
fn expected(order: &Value) -> Expected {
    let mut pointers = BTreeSet::new();
    if order["customerId"].as_str().is_none_or(str::is_empty) {
        pointers.insert("/customerId".to_owned());
    }
    if !["GBP", "EUR", "USD"].contains(&order["currency"].as_str().unwrap_or_default()) {
        pointers.insert("/currency".to_owned());
    }
    let lines = order["lines"].as_array().filter(|lines| !lines.is_empty());
    if lines.is_none() {
        pointers.insert("/lines".to_owned());
    }
    // In ten-thousandths: the rules allow four decimals.
    let mut net: i128 = 0;
    for (index, line) in lines.into_iter().flatten().enumerate() {
        let quantity = line["quantity"].as_i64().filter(|quantity| *quantity >= 1);
        let price = line["unitPrice"].as_str().and_then(ten_thousandths).filter(|price| *price > 0);
        if quantity.is_none() {
            pointers.insert(format!("/lines/{index}/quantity"));
        }
        if price.is_none() {
            pointers.insert(format!("/lines/{index}/unitPrice"));
        }
        net += i128::from(quantity.unwrap_or(0)) * price.unwrap_or(0);
    }
    let is_valid = pointers.is_empty();
    Expected { status: if is_valid { "VALIDATED" } else { "REJECTED" }, pointers, net: is_valid.then(|| decimal(net)) }
}

/// `12.5` as 125000; nothing for what is no decimal number with at most four decimals.
fn ten_thousandths(text: &str) -> Option<i128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 4 {
        return None;
    }
    format!("{whole}{part:0<4}").parse().ok()
}

/// 125000 as `12.50`; more than two decimals only where needed.
fn decimal(value: i128) -> String {
    let part = format!("{:04}", value % 10_000);
    let part = part.trim_end_matches('0');
    format!("{}.{part:0<2}", value / 10_000)
}

#[test]
fn decimals_are_read_and_written_exactly() {
    let cases =
        [("12.5", 125_000, "12.50"), ("0.0625", 625, "0.0625"), ("3", 30_000, "3.00"), ("0.125", 1250, "0.125")];
    for (text, value, printed) in cases {
        assert_eq!((ten_thousandths(text), decimal(value).as_str()), (Some(value), printed));
    }
    for bad in ["", ".", "1.", ".5", "-1", "1e3", "0.00001", "1,5"] {
        assert_eq!(ten_thousandths(bad), None, "{bad}");
    }
}

fn real_orders(test: &str) -> Option<Vec<String>> {
    let Some(path) = environment::orders() else {
        say(&format!("SKIPPED: {test} needs SLUICE_TEST_ORDERS, a file with one real order per line"));
        return None;
    };
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 1275, "{} is another file", path.display());
    Some(lines)
}

/// Posts in batches; after the batch `kill_at` the gateway is killed and started again, and that batch sent again.
fn post_all(gateway: &TestGateway, lines: &[String], kill_at: Option<usize>) -> Vec<String> {
    let mut ids = Vec::new();
    for (number, batch) in lines.chunks(BATCH).enumerate() {
        let key = format!("real-orders-{number}");
        let mut results = gateway.post_batch(batch, &[("idempotency-key", &key)]);
        if kill_at == Some(number) {
            gateway.start_again();
            let again = gateway.post_batch(batch, &[("idempotency-key", &key)]);
            assert_eq!(again, results, "the same batch after a kill");
            results = again;
        }
        for result in results {
            assert_eq!(result["status"], 202, "{result}");
            ids.push(result["order"]["id"].as_str().unwrap().to_owned());
        }
    }
    ids
}

fn check_all(gateway: &TestGateway, lines: &[String], ids: &[String]) {
    wait_until("final states of all", LIMIT, || {
        let open = ["PENDING", "HELD", "PUBLISHED"].map(|status| {
            let page = gateway.admin().get(&format!("/orders?status={status}&limit=1")).json();
            page["orders"].as_array().map_or(0, Vec::len)
        });
        if open == [0; 3] { Ok(()) } else { Err(open) }
    });
    let (mut statuses, mut codes) = (BTreeMap::new(), BTreeMap::new());
    for (line, id) in lines.iter().zip(ids) {
        let posted: Value = serde_json::from_str(line).unwrap();
        let order = gateway.order(id);
        let problems = order["problems"].as_array().unwrap();
        let status = FINAL.into_iter().find(|status| order["status"] == *status);
        let found = Expected {
            status: status.unwrap_or_else(|| panic!("not final: {order}")),
            pointers: problems.iter().map(|problem| problem["pointer"].as_str().unwrap_or("none").to_owned()).collect(),
            net: order["order"]["totals"]["net"].as_str().map(str::to_owned),
        };
        assert_eq!(found, expected(&posted), "invoice {}", posted["invoiceNo"]);
        for (name, value) in posted.as_object().unwrap() {
            assert_eq!(&order["order"][name], value, "member {name} of {id}");
        }
        *statuses.entry(found.status).or_insert(0) += 1;
        for problem in problems {
            *codes.entry(problem["code"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    say(&format!("{} real orders: {statuses:?}, problems: {codes:?}", ids.len()));
    assert_eq!(gateway.database().orders(), ids.len() as u64, "orders were made twice");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), lines.len());
}

#[test]
fn each_ends_as_the_rules_say() {
    let Some(lines) = real_orders("each_ends_as_the_rules_say") else { return };
    let gateway = TestGateway::start();
    let ids = post_all(&gateway, &lines, None);
    check_all(&gateway, &lines, &ids);
}

#[test]
fn each_ends_as_the_rules_say_over_a_kill_in_the_middle() {
    let Some(lines) = real_orders("each_ends_as_the_rules_say_over_a_kill_in_the_middle") else { return };
    let gateway = TestGateway::start();
    let ids = post_all(&gateway, &lines, Some(6));
    check_all(&gateway, &lines, &ids);
}
