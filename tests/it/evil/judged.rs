//! Hostile plugins that are loaded and judge orders, all in one gateway, each on a route of its own.

use std::time::Duration;

use harness::random::unique;
use harness::{Route, TestGateway, order, wait_until};
use serde_json::Value;

use super::{Evil, Expect, judged};

/// Innocent orders before the evil one, and behind it, on the same route.
const BESIDE: usize = 6;
/// Rounds before and while the memory of the process is watched.
const WARM_UP_ROUNDS: usize = 2;
const ROUNDS: usize = 4;
/// What it may grow by in them, for the database's cache and the broker in memory.
const GROWTH_MAX: u64 = 24 << 20;
/// Longest for one evil order with all its neighbors, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(60);

fn route(evil: &Evil) -> Route {
    Route {
        path: format!("/{}", evil.name),
        plugins: vec![evil.name.to_owned()],
        outcomes: None,
        replies: None,
        ..Route::default()
    }
}

/// All of them in one gateway, and the default route for those who have nothing to do with them.
fn gateway(evils: &[Evil]) -> TestGateway {
    let mut builder = TestGateway::with()
        .route(Route::default())
        .announce("plugin")
        // A pass waits for each, however busy the machine is: nothing is `HELD` for the time that another takes.
        .text("relay.patience", "30s")
        // Little that grows for reasons of its own.
        .text("database.cache_bytes", "1MiB")
        .set("dev.partitions", "1")
        // Each evil order is judged once, so that everything can be counted.
        .text("relay.retry_first", "1h")
        .text("relay.retry_max", "1h");
    for evil in evils {
        builder = builder.plugin(evil.name, evil.guest.build()).route(route(evil));
    }
    builder.start()
}

/// The orders of one round of one evil plugin.
struct Posted {
    evil: String,
    /// On its own route.
    beside: Vec<String>,
    /// On the default route.
    elsewhere: Vec<String>,
}

/// Posts one evil order between innocent ones, and innocent ones on another route.
fn post(gateway: &TestGateway, evil: &Evil) -> Posted {
    let innocent = || format!(r#"{{"customerId":"{}"}}"#, unique("c"));
    let mut lines: Vec<String> = (0..2 * BESIDE).map(|_| innocent()).collect();
    lines.insert(BESIDE, evil.order(&unique("c")));
    let elsewhere = gateway.post_batch(&[order().to_string(), order().to_string()], &[]);
    let answer = gateway.post_with(
        &format!("/{}", evil.name),
        &[("content-type", "application/x-ndjson")],
        (lines.join("\n") + "\n").as_bytes(),
    );
    assert_eq!(answer.status, 207, "{}", answer.text());
    let ids = |results: Vec<Value>| -> Vec<String> {
        results.iter().map(|result| result["order"]["id"].as_str().unwrap().to_owned()).collect()
    };
    let mut beside = ids(answer.lines());
    Posted { evil: beside.remove(BESIDE), beside, elsewhere: ids(elsewhere) }
}

/// The order as its client sees it, once it is in one of some states.
fn order_in(gateway: &TestGateway, path: &str, states: &[&str]) -> Value {
    wait_until(&format!("{path} in {states:?}"), LIMIT, || {
        let order = gateway.get(path).json();
        if states.iter().any(|state| order["status"] == *state) { Ok(order) } else { Err(order) }
    })
}

/// Waits until an innocent order went through, and sees to it that it never was held.
fn went_through(gateway: &TestGateway, path: &str, state: &str) {
    order_in(gateway, path, &[state]);
    let timeline = gateway.get(&format!("{path}/timeline")).json();
    let entries = timeline["entries"].as_array().unwrap();
    assert!(entries.iter().all(|entry| entry["kind"] != "held"), "an innocent order was held: {timeline}");
}

fn settle(gateway: &TestGateway, evil: &Evil, posted: &Posted) -> Value {
    for id in &posted.elsewhere {
        went_through(gateway, &format!("/orders/{id}"), "VALIDATED");
    }
    for id in &posted.beside {
        went_through(gateway, &format!("/{}/{id}", evil.name), "PUBLISHED");
    }
    evil_order(gateway, evil, posted)
}

/// The evil order, once it is known what becomes of it.
fn evil_order(gateway: &TestGateway, evil: &Evil, posted: &Posted) -> Value {
    order_in(gateway, &format!("/{}/{}", evil.name, posted.evil), &["HELD", "PUBLISHED", "REJECTED"])
}

/// Faults that were counted for a plugin: of one kind, and in all.
fn faults(gateway: &TestGateway, evil: &Evil, kind: &str) -> (f64, f64) {
    let of = |labels: &str| gateway.metric("sluice_plugin_faults_total", labels);
    let plugin = format!("plugin=\"{}\"", evil.name);
    (of(&format!("{plugin},kind=\"{kind}\"")), of(&plugin))
}

/// What is wrong with the status and the metric, `rounds` rounds after the start.
fn complaints(gateway: &TestGateway, evil: &Evil, order: &Value, rounds: f64) -> Vec<String> {
    let name = evil.name;
    let detail = order["held"]["detail"].as_str().unwrap_or_default();
    let is_held = |reason: &str| order["status"] == "HELD" && order["held"]["reason"] == reason;
    let mut checks = match evil.expect {
        Expect::Fault(kind, words) => vec![
            ("is held for a fault", is_held("fault") && order["held"]["nextAttemptAt"].is_string()),
            ("names plugin and kind", detail.starts_with(&format!("plugin `{name}` failed ({kind}): "))),
            ("says what happened", detail.contains(words)),
            ("counts one fault of this kind a round, and no other", faults(gateway, evil, kind) == (rounds, rounds)),
        ],
        Expect::Waits(words) => {
            vec![("waits because it was asked to", is_held("retry-later")), ("says so", detail.contains(words))]
        }
        Expect::Rejected(problems) => vec![
            ("is rejected", order["status"] == "REJECTED"),
            ("shows so many problems", order["problems"].as_array().map(Vec::len) == Some(problems)),
        ],
        Expect::Passes(words) => vec![
            ("goes through", order["status"] == "PUBLISHED"),
            ("has in it", order["order"].to_string().contains(words)),
        ],
    };
    if !matches!(evil.expect, Expect::Fault(..)) {
        checks.push(("is no fault", faults(gateway, evil, "").1 == 0.0));
    }
    // A client reads this: no insides of the gateway, and nothing that goes on for pages.
    let insides = ["wasm backtrace", "0x", ".rs", "src/", "wasm-function", "panicked"];
    checks.push(("shows no insides", !insides.iter().any(|inside| detail.contains(inside))));
    checks.push(("is short", order["held"].to_string().len() < 1_000 && order["problems"].to_string().len() < 20_000));
    let failed = checks.into_iter().filter(|(_, is_so)| !is_so);
    let shown: String = order.to_string().chars().take(1_000).collect();
    failed.map(|(what, _)| format!("{name} should: `{what}`, but: {shown}")).collect()
}

/// CPU time that may be used for one evil order among innocent ones, from the limits as shipped: a call that fails is
/// made again in halves, so each length on the way down to one takes its whole time at most.
fn granted() -> Duration {
    let mut granted = Duration::ZERO;
    let mut orders = 2 * BESIDE + 1;
    loop {
        granted += Duration::from_millis(u64::try_from(10 * orders).unwrap().clamp(20, 250));
        if orders == 1 {
            return granted;
        }
        orders = orders.div_ceil(2);
    }
}

#[test]
fn each_hurts_its_own_orders_and_nothing_else() {
    let evils = judged();
    let gateway = gateway(&evils);
    let (mut wrong, mut used) = (Vec::new(), Vec::new());
    for evil in &evils {
        let before = gateway.cpu_time("plugin-");
        let posted = post(&gateway, evil);
        let order = settle(&gateway, evil, &posted);
        used.push((gateway.cpu_time("plugin-") - before, evil.name));
        wrong.extend(complaints(&gateway, evil, &order, 1.0));
    }
    // The innocent orders, the host's own work in a build without optimization, and the clock's grain.
    let max = granted() * 3 / 2;
    let over = used.iter().filter(|(used, _)| *used > max);
    wrong.extend(over.map(|(used, name)| format!("{name} used {used:?} of CPU time, more than {max:?}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Again and again, to see what stays behind.
    let mut resident = Vec::new();
    let mut last = Vec::new();
    for _ in 0..WARM_UP_ROUNDS + ROUNDS {
        let posted: Vec<_> = evils.iter().map(|evil| (evil, post(&gateway, evil))).collect();
        last = posted.iter().map(|(evil, posted)| evil_order(&gateway, evil, posted)).collect();
        resident.push(gateway.resident_bytes());
    }
    let rounds = 1 + WARM_UP_ROUNDS + ROUNDS;
    for (evil, order) in evils.iter().zip(&last) {
        wrong.extend(complaints(&gateway, evil, order, f64::from(u32::try_from(rounds).unwrap())));
    }
    assert!(wrong.is_empty(), "after {rounds} rounds: {}", wrong.join("\n"));
    let held =
        evils.iter().filter(|evil| matches!(evil.expect, Expect::Fault(..) | Expect::Waits(..))).count() * rounds;
    wait_until("no order is held but the evil ones", LIMIT, || {
        let seen = gateway.metric("sluice_orders_held", "");
        if seen == f64::from(u32::try_from(held).unwrap()) { Ok(()) } else { Err(format!("{seen} of {held}")) }
    });
    let grown = resident[WARM_UP_ROUNDS + ROUNDS - 1].saturating_sub(resident[WARM_UP_ROUNDS - 1]);
    assert!(grown <= GROWTH_MAX, "the process grew by {grown} bytes in {ROUNDS} rounds: {resident:?}");
    harness::environment::say(&format!(
        "{} evil plugins: most CPU {:?} of {max:?} granted, memory grew by {} KiB in {ROUNDS} rounds",
        evils.len(),
        used.iter().max(),
        grown >> 10,
    ));
    assert_eq!(gateway.admin().get("/livez").status, 200);
}
