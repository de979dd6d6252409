//! Kills the process at random moments under load, again and again, and then looks whether anything was lost.
//!
//! The broker, the two services and the clients belong to the test and outlive every kill; the gateway is `sluice run`
//! on one database. Clients behave: a request whose answer was lost is sent again with the same `Idempotency-Key`.
//! The test counts the kills that hit a request in flight and those that left a record unacknowledged, and fails when
//! either is below [`KILLS_MIN`], since then it would have shown nothing. `SLUICE_TEST_SEED` repeats a run's dice.

mod client;
mod verdict;

use std::thread;
use std::time::{Duration, Instant};

use harness::environment::{self, say};
use harness::random::{Dice, unique};
use harness::services::Services;
use harness::{Broker, Route, TestGateway, Topic, guests, wait_until};

use client::Load;

/// Kills of each of the two kinds that must have happened.
const KILLS_MIN: u32 = 30;
/// Longest for all the kills.
const KILLS_LIMIT: Duration = Duration::from_secs(210);
/// Longest for what is left to settle after the last kill.
const DRAIN_LIMIT: Duration = Duration::from_secs(180);
/// Order keys of all orders.
const KEYS: u64 = 16;
/// Those of them with orders that are held; were it all, what stands behind held orders would soon be everything.
const KEYS_HELD: u64 = 4;
const CLIENTS: u64 = 8;

#[test]
fn kills_at_random_moments_lose_and_repeat_nothing() {
    let seed = environment::seed().unwrap_or_else(|| std::process::id().into());
    say(&format!("crash test: SLUICE_TEST_SEED={seed}"));
    let mut dice = Dice::new(seed);

    let (broker, prefix) = (Broker::start(), unique("crash"));
    let route = Route {
        topic: format!("{prefix}-orders"),
        replies: Some(format!("{prefix}-replies")),
        outcomes: Some(format!("{prefix}-outcomes")),
        plugins: ["order-rules", "customer-enricher", "marked"].map(str::to_owned).to_vec(),
        // Downtime must not expire anything here; what expires has tests of its own.
        deadline: "30m".to_owned(),
        ..Default::default()
    };
    let (orders, replies) = (route.topic.clone(), route.replies.clone().expect("just set"));
    for topic in [&orders, &replies, route.outcomes.as_ref().expect("just set")] {
        broker.create_topic(topic, 4);
    }
    let services = Services::start(broker.address(), &orders, &replies);
    let mut topic = Topic::open(broker.address(), &orders);
    let gateway = TestGateway::with()
        .broker(broker.address())
        .route(route)
        .plugin("marked", guests::marked())
        .text("relay.retry_first", "50ms")
        .text("relay.retry_max", "200ms")
        .text("replies.session_timeout", "6s")
        .set("kafka.consumer", "{ \"heartbeat.interval.ms\" = \"1000\" }")
        // On a quick machine a record is acknowledged within a few milliseconds of its decision, and hardly a kill would
        // come between.
        .set("kafka.producer", "{ \"linger.ms\" = \"60\" }")
        .announce("")
        .start();

    let load = Load::new(gateway.http_address(), KEYS, KEYS_HELD);
    let (in_flight, unacknowledged, kills) = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let dice = dice.fork();
            let load = &load;
            scope.spawn(move || load.run(dice));
        }
        // Ends the clients also where this thread panics.
        let _end = load.ends_on_drop();
        kill_again_and_again(&gateway, &load, &mut topic, &mut dice)
    });
    say(&format!(
        "crash test: {kills} kills, {in_flight} hit a request in flight, {unacknowledged} left a record unacknowledged"
    ));
    assert!(in_flight >= KILLS_MIN && unacknowledged >= KILLS_MIN, "{in_flight} and {unacknowledged} of {kills} kills");

    // After the last start no more is killed: the clients have an answer to everything they sent.
    let posted = load.into_posted();
    wait_until("the end of all orders", DRAIN_LIMIT, || {
        topic.read_to_end();
        let open = ["PENDING", "HELD", "PUBLISHED"].map(|status| {
            let page = gateway.admin().get(&format!("/orders?status={status}&limit=500")).json();
            page["orders"].as_array().map_or(0, Vec::len)
        });
        if open == [0; 3] { Ok(()) } else { Err(open) }
    });
    verdict::each_request_made_one_order(&gateway, &posted);
    verdict::each_order_is_final(&gateway, &posted);
    verdict::topic_is_right(topic.read_to_end(), &posted);
    assert!(gateway.database().is_sound());
    drop(services);
}

/// Kills that hit a request in flight, kills that left a record unacknowledged, and all.
///
/// The topic is read as it grows: the broker in memory keeps the last 5 MiB of a partition only.
fn kill_again_and_again(gateway: &TestGateway, load: &Load, topic: &mut Topic, dice: &mut Dice) -> (u32, u32, u32) {
    let start = Instant::now();
    let (mut in_flight, mut unacknowledged, mut kills) = (0, 0, 0);
    while (in_flight < KILLS_MIN || unacknowledged < KILLS_MIN) && start.elapsed() < KILLS_LIMIT {
        load.resume();
        // Mostly short lives; now and then one that is long enough for replies to flow in.
        let life = if dice.below(8) == 0 { 1500 + dice.below(3000) } else { 40 + dice.below(300) };
        thread::sleep(Duration::from_millis(life));
        load.pause();
        gateway.kill9();
        let lost = load.wait_until_idle();
        kills += 1;
        in_flight += u32::from(lost > 0);
        unacknowledged += u32::from(gateway.database_copy().unacknowledged_records() > 0);
        topic.read_to_end();
        gateway.start_again();
    }
    load.resume();
    load.ask_to_end();
    (in_flight, unacknowledged, kills)
}
