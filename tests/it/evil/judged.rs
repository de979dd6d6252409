//! Hostile plugins that are loaded and judge orders, all in one gateway, each on a route of its own.

use std::time::Duration;

use harness::random::unique;
use harness::{Route, TestGateway, order, wait_until};
use serde_json::Value;

use super::{Evil, Expect, judged};

/// Innocent orders before the evil one, and behind it, on the same route.
const BESIDE: usize = 6;
/// The same in the rounds in which the memory of the process is watched.
const BESIDE_AGAIN: usize = 1;
/// Rounds before it is watched, in which caches and the allocator get their fill, and while.
const WARM_UP_ROUNDS: usize = 20;
const ROUNDS: usize = 16;
/// What one round shows goes up and down by up to 20 MB: it is the median of so many that is compared.
const LOOKS: usize = 5;
/// What it may grow by in them, for the database's cache and the broker in memory.
const GROWTH_MAX: u64 = 32 << 20;
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
        for (key, value) in evil.policy {
            builder = builder.set(&format!("plugins.policy.{}.{key}", evil.name), value);
        }
    }
    builder.start()
}

/// The orders of one round of one evil plugin.
struct Posted {
    evil: String,
    beside: Vec<String>,
}

/// Posts one evil order between innocent ones, so many on each side.
fn post(gateway: &TestGateway, evil: &Evil, beside: usize) -> Posted {
    let innocent = || format!(r#"{{"customerId":"{}"}}"#, unique("c"));
    let mut lines: Vec<String> = (0..2 * beside).map(|_| innocent()).collect();
    lines.insert(beside, evil.order(&unique("c")));
    let answer = gateway.post_with(
        &format!("/{}", evil.name),
        &[("content-type", "application/x-ndjson")],
        (lines.join("\n") + "\n").as_bytes(),
    );
    assert_eq!(answer.status, 207, "{}", answer.text());
    let mut ids = ids(&answer.lines());
    Posted { evil: ids.remove(beside), beside: ids }
}

fn ids(results: &[Value]) -> Vec<String> {
    results.iter().map(|result| result["order"]["id"].as_str().unwrap().to_owned()).collect()
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
fn granted(evil: &Evil) -> Duration {
    let per_order = if evil.policy.iter().any(|(key, _)| *key == "time_per_order") { 250 } else { 10 };
    let mut granted = Duration::ZERO;
    let mut orders = 2 * BESIDE + 1;
    loop {
        granted += Duration::from_millis(u64::try_from(per_order * orders).unwrap().clamp(20, 250));
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
        let elsewhere = ids(&gateway.post_batch(&[order().to_string(), order().to_string()], &[]));
        let posted = post(&gateway, evil, BESIDE);
        for id in elsewhere {
            went_through(&gateway, &format!("/orders/{id}"), "VALIDATED");
        }
        for id in &posted.beside {
            went_through(&gateway, &format!("/{}/{id}", evil.name), "PUBLISHED");
        }
        let order = evil_order(&gateway, evil, &posted);
        used.push(gateway.cpu_time("plugin-") - before);
        wrong.extend(complaints(&gateway, evil, &order, 1.0));
    }
    for (used, evil) in used.iter().zip(&evils) {
        // The innocent orders, the host's own work in a build without optimization, and the clock's grain.
        let max = granted(evil) * 3 / 2;
        if *used > max {
            wrong.push(format!("{} used {used:?} of CPU time, more than {max:?}", evil.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Again and again, to see what stays behind.
    let mut resident = Vec::new();
    let mut last = Vec::new();
    for _ in 0..WARM_UP_ROUNDS + ROUNDS {
        let posted: Vec<_> = evils.iter().map(|evil| (evil, post(&gateway, evil, BESIDE_AGAIN))).collect();
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
    floods_are_bounded(&gateway, rounds);
    let typical = |end: usize| {
        let mut looks = resident[end - LOOKS..end].to_vec();
        looks.sort_unstable();
        looks[LOOKS / 2]
    };
    let grown = typical(WARM_UP_ROUNDS + ROUNDS).saturating_sub(typical(WARM_UP_ROUNDS));
    assert!(grown <= GROWTH_MAX, "the process grew by {grown} bytes in {ROUNDS} rounds: {resident:?}");
    harness::environment::say(&format!(
        "{} evil plugins: most CPU {:?}, memory grew by {} KiB in {ROUNDS} rounds",
        evils.len(),
        used.iter().max(),
        grown >> 10,
    ));
    assert_eq!(gateway.admin().get("/livez").status, 200);
}

/// However much a plugin says, the operator gets what fits the limits.
fn floods_are_bounded(gateway: &TestGateway, rounds: usize) {
    let orders = (2 * BESIDE + 1) + (rounds - 1) * (2 * BESIDE_AGAIN + 1);
    for name in ["c-log-flood", "b-log-flood"] {
        let of_it = format!("\"plugin.name\":\"{name}\"");
        let is_line = |line: &&str| line.contains("\"level\":\"INFO\"") && line.contains(&of_it);
        let lines = gateway.log().text().lines().filter(is_line).count();
        assert!((1..=20 * orders).contains(&lines), "{name} wrote {lines} lines");
    }
    let metrics = gateway.admin().get("/metrics").text();
    let names = metrics.lines().filter(|line| line.starts_with("sluice_plugin_custom_total{plugin=\"c-metric-flood\""));
    assert_eq!(names.count(), 50, "names of metrics of one plugin");
    assert!(gateway.metric("sluice_plugin_custom_dropped_total", "c-metric-flood") > 0.0);
}
