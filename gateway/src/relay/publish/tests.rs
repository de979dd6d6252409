//! The sender on a broker in memory, while slots come and go.

use super::*;
use crate::dev::DevBroker;
use crate::order::{OrderId, OrderStatus};
use crate::relay::tests::World;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::KindLabel;

const PATIENCE: Duration = Duration::from_secs(30);

/// A database with a decider that lets everything pass, a broker, and a sender on it.
struct Bench {
    world: World,
    broker: DevBroker,
    metrics: Arc<Metrics>,
}

impl Bench {
    async fn new() -> Self {
        let mut world = World::new().await;
        let broker = DevBroker::start(&world.config.route, 1).unwrap();
        broker.adapt(&mut world.config.kafka);
        Self { world, broker, metrics: Arc::default() }
    }

    fn sender(&self) -> Sender {
        let (deliveries, delivered) = mpsc::unbounded_channel();
        let kafka = &self.world.config.kafka;
        let publisher = Publisher::connect(kafka, &kafka.brokers, deliveries, Arc::clone(&self.metrics)).unwrap();
        let limits = self.world.config.relay.clone();
        Sender::new(self.world.outbox.clone(), publisher, delivered, limits, HandOver::default(), Arc::default())
    }

    /// Accepts an order and has it decided.
    async fn decide(&self, key: &str) -> OrderId {
        let id = self.world.accept(key).await;
        let mut decider = self.world.decider(&[]).await;
        while decider.pass().await.unwrap() > 0 {}
        id
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let met = async {
            while !is_so().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, met).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    async fn published(&self, id: OrderId) {
        self.until("published", async || self.world.status(id).await != OrderStatus::Pending).await;
    }
}

fn owning(held: &[(Slot, i64)]) -> Ownership {
    let ownership = Ownership::default();
    ownership.hold(held, None);
    ownership
}

/// Runs the sender for as long as a test looks on.
async fn while_sending(sender: Sender, ownership: &Ownership, test: impl Future<Output = ()>) {
    let run = sender.run(ownership.clone(), CancellationToken::new(), Duration::ZERO);
    tokio::select! {
        () = run => panic!("the sender ended"),
        () = test => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_to_be_given_back_is_finished_first_and_begins_nothing_new() {
    let bench = Bench::new().await;
    let slot = Slot::of("/orders", "k");
    let mut held = bench.world.epochs().await;
    held.retain(|(own, _)| *own == slot);
    let ownership = owning(&held);
    bench.broker.set_reachable(false).unwrap();
    let first = bench.decide("k").await;
    while_sending(bench.sender(), &ownership, async {
        bench.until("in flight", async || bench.metrics.kafka_in_flight.get() == 1).await;
        ownership.give_back(1, Instant::now() + PATIENCE);
        ownership.let_go(Half::Decider, slot);
        let second = bench.decide("k").await;
        bench.broker.set_reachable(true).unwrap();
        bench.until("given back", async || !ownership.ready().is_empty()).await;
        assert_eq!(bench.world.status(first).await, OrderStatus::Published);
        assert_eq!(bench.world.status(second).await, OrderStatus::Pending);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_records_are_not_acknowledged_in_time_is_given_back_all_the_same() {
    let bench = Bench::new().await;
    let slot = Slot::of("/orders", "k");
    let ownership = owning(&bench.world.epochs().await);
    bench.broker.set_reachable(false).unwrap();
    let id = bench.decide("k").await;
    while_sending(bench.sender(), &ownership, async {
        bench.until("in flight", async || bench.metrics.kafka_in_flight.get() == 1).await;
        let all = usize::from(crate::order::SLOTS);
        ownership.give_back(all, Instant::now());
        Slot::all().for_each(|slot| ownership.let_go(Half::Decider, slot));
        bench.until("given back", async || ownership.ready().iter().any(|(own, _)| *own == slot)).await;

        // Another node had it for a while; then it is ours again and sent from where it stands.
        bench.world.outbox.take_over("another".to_owned()).await.unwrap();
        bench.world.outbox.take_over("node".to_owned()).await.unwrap();
        ownership.hold(&bench.world.epochs().await, None);
        bench.broker.set_reachable(true).unwrap();
        bench.published(id).await;
    })
    .await;
}

/// What is loaded afresh then has the epoch that the database names.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_sender_moves_no_cursor_and_keeps_its_producer() {
    let bench = Bench::new().await;
    let ownership = owning(&bench.world.epochs().await);
    bench.broker.set_reachable(false).unwrap();
    let id = bench.decide("k").await;
    while_sending(bench.sender(), &ownership, async {
        bench.until("in flight", async || bench.metrics.kafka_in_flight.get() == 1).await;
        bench.world.outbox.take_over("another".to_owned()).await.unwrap();
        bench.broker.set_reachable(true).unwrap();
        bench.published(id).await;
        let acknowledged = bench.metrics.kafka_deliveries.get_or_create(&KindLabel { kind: "acknowledged" }).get();
        assert_eq!(acknowledged, 2, "the first report counted for nothing");
        assert_eq!(bench.metrics.kafka_producers_replaced.get(), 0);
    })
    .await;
}

/// It may have had records that it never reports.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_failed_for_good_is_replaced_also_where_it_reports_nothing() {
    let bench = Bench::new().await;
    let ownership = owning(&bench.world.epochs().await);
    bench.broker.refuse_a_producer();
    while_sending(bench.sender(), &ownership, async {
        bench.until("replaced", async || bench.metrics.kafka_producers_replaced.get() == 1).await;
        bench.published(bench.decide("k").await).await;
    })
    .await;
}

/// A full disk that takes no delivery report would otherwise make a flood of repeats.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refuses_to_note_is_loaded_again_after_a_pause_that_doubles() {
    let bench = Bench::new().await;
    let ownership = owning(&bench.world.epochs().await);
    let mut sender = bench.sender();
    for attempt in 0..4 {
        let refused: Commit = Box::pin(async { Err(OutboxError::DiskFull) });
        sender.commit = Some((Arc::new(Deliveries { slots: Vec::new() }), refused));
        let result = finished(&mut sender.commit).await;
        let begun = Instant::now();
        sender.committed(result);
        // Up to half of it is left to chance.
        assert!(sender.load_at.unwrap() >= begun + PAUSE.0 * 2_u32.pow(attempt) / 2);
    }
    sender.follow(&ownership).await;
    assert!(sender.lanes.is_empty(), "nothing is loaded before");
    sender.load_at = Some(Instant::now());
    sender.follow(&ownership).await;
    assert_eq!((sender.lanes.len(), sender.load_at), (64, None));
}
