//! An outbox of a fresh database with a clock set by hand, and a relay and a Kafka that do what a test says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harness::postgres::Database;
use sluice::clock::{Clock, Timestamp};
use sluice::config::{ByteSize, DatabaseConfig, Span};
use sluice::dead::{DeadFilter, DeadLetter};
use sluice::entry::{Entry, EntryKind, EntryPlace};
use sluice::order::timeline::Happening;
use sluice::order::{OrderId, OrderStatus, OrderView, Problem, Slot, Source};
use sluice::outbox::{
    DeadResult, Delivered, Deliveries, Expiring, Fates, HeldOrder, Item, Kept, KeyHash, Lost, NewCommand, NewOrder,
    OpenError, Origin, Outbox, Pass, Placed, ReadLimits, Refused, SlotDecided, SlotDeliveries, SlotPass, Step, Strikes,
    TakenReplies, Tenure,
};
use sluice::record::Record;
use sluice::reply::{Place, PoisonReply, Position, Reply};
use sluice::route::{ReplyRules, RouteRules, Rules};

use super::Backend;

/// When every test begins.
pub(super) const START: Timestamp = Timestamp(1_290_000_000_000);
pub(super) const ALL: ReadLimits = ReadLimits { count: 10_000, bytes: 1 << 30 };
pub(super) const TOPIC: &str = "order-replies";
/// A route that expects replies and tells outcomes, and one that does neither.
pub(super) const ORDERS: &str = "/orders";
pub(super) const NOTES: &str = "/notes";
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// Transactions of one partition of the logs, where logs have partitions.
pub(super) const PARTITION_TRANSACTIONS: u64 = 4_096;
/// Longer than any test.
const LEASE: Duration = Duration::from_secs(600);

/// A database and what stands around it.
pub(super) struct World {
    pub(super) outbox: Outbox,
    pub(super) clock: Clock,
    /// Of a SQLite file.
    pub(super) path: PathBuf,
    /// Of a server.
    pub(super) server: Option<Database>,
    folder: tempfile::TempDir,
}

fn rules() -> Rules {
    let replies = ReplyRules {
        topic: TOPIC.to_owned(),
        all_of: vec!["A".to_owned(), "B".to_owned()],
        any_of_rejects: vec!["NotA".to_owned(), "NotB".to_owned()],
        deadline: DEADLINE,
        grace: GRACE,
    };
    HashMap::from([
        (Arc::from(ORDERS), RouteRules { replies: Some(replies), has_outcomes: true }),
        (Arc::from(NOTES), RouteRules { replies: None, has_outcomes: false }),
    ])
}

/// Opens the database of a path, as a node does that starts.
pub(super) async fn open(path: &Path, clock: &Clock) -> Result<Outbox, OpenError> {
    open_url(format!("sqlite://{}", path.display()), clock).await
}

/// The same of a URL.
pub(super) async fn open_url(url: String, clock: &Clock) -> Result<Outbox, OpenError> {
    let config = DatabaseConfig {
        url,
        readers: 2,
        queue_max: 1_024,
        commit_items_max: 512,
        commit_bytes_max: ByteSize(16 << 20),
        cache_bytes: ByteSize(8 << 20),
        connections: 8,
        lanes: 2,
        answer_timeout: Span(Duration::from_secs(30)),
        prepared_statements: !harness::environment::pgbouncer(),
        partition_transactions: PARTITION_TRANSACTIONS,
    };
    Outbox::open(&config, rules(), clock.clone(), Arc::default()).await
}

impl World {
    /// A fresh database; `None` where this machine has none of the kind.
    pub(super) async fn open(backend: Backend) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("sluice.db"), Clock::by_hand(START));
        let server = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(harness::postgres::server()?.database()),
        };
        let outbox = match &server {
            None => open(&path, &clock).await,
            Some(database) => open_url(database.url(), &clock).await,
        };
        let world = Self { outbox: outbox.unwrap(), clock, path, server, folder };
        world.take_over().await;
        Some(world)
    }

    /// Another node on the same server.
    pub(super) async fn beside(&self) -> Outbox {
        let server = self.server.as_ref().expect("several nodes share a server, not a file");
        open_url(server.url(), &self.clock).await.unwrap()
    }

    /// The world of the same database on another server, by way of a dump.
    pub(super) async fn moved_to(&self, server: &'static harness::postgres::Server) -> Self {
        let database = self.server.as_ref().expect("a file has no server").moved_to(server);
        let outbox = open_url(database.url(), &self.clock).await.unwrap();
        let (clock, path, folder) = (self.clock.clone(), self.path.clone(), tempfile::tempdir().unwrap());
        let world = Self { outbox, clock, path, server: Some(database), folder };
        world.take_over().await;
        world
    }

    /// Ends the node, does something to its database and starts another node on it.
    pub(super) async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        let Self { outbox, clock, path, server, folder } = self;
        drop(outbox);
        change(&path);
        let begun = std::time::Instant::now();
        let outbox = loop {
            let opened = match &server {
                None => open(&path, &clock).await,
                Some(database) => open_url(database.url(), &clock).await,
            };
            match opened {
                // The lock goes with the writer's thread, a moment after the last handle.
                Err(OpenError::InUse(_)) if begun.elapsed() < Duration::from_secs(10) => {
                    tokio::task::yield_now().await;
                }
                opened => break opened.unwrap(),
            }
        };
        let world = Self { outbox, clock, path, server, folder };
        world.take_over().await;
        world
    }

    /// Takes all slots over, as a node that starts after the one before it has died.
    pub(super) async fn take_over(&self) -> Vec<Tenure> {
        let Some(server) = &self.server else { return self.outbox.take_over("node".to_owned()).await.unwrap() };
        // Its name goes to one that never comes back, and its leases end.
        server.run(
            "UPDATE slots SET owner = 'dead', lease_until = '-infinity'; DELETE FROM begun WHERE node = 'dead';
             UPDATE begun SET node = 'dead'; DELETE FROM nodes",
        );
        let tended = self.outbox.tend(LEASE, Vec::new()).await.unwrap();
        assert_eq!(tended.held.len(), 64);
        self.outbox.tenures().await.unwrap()
    }

    /// Where logs have partitions: the one in use is full from now on.
    pub(super) fn fill_partition(&self) {
        let Some(server) = &self.server else { return };
        // Each block of it that may fail uses a transaction up.
        server.run(&format!(
            "DO $$ BEGIN
                 CREATE TEMP TABLE used (n int);
                 FOR n IN 1..{PARTITION_TRANSACTIONS} LOOP
                     BEGIN INSERT INTO used VALUES (n); EXCEPTION WHEN unique_violation THEN NULL; END;
                 END LOOP;
             END $$"
        ));
    }

    /// Waits until everything that is committed can be read: on a server, until every older transaction has ended, those
    /// of other tests among them.
    pub(super) async fn settle(&self) {
        let Some(server) = &self.server else { return };
        let readable =
            "SELECT coalesce(max(xid), 0) < pg_snapshot_xmin(pg_current_snapshot())::text::bigint FROM outbox";
        harness::wait_until("entries that can be read", Duration::from_secs(30), || {
            let is_readable = server.ask(readable);
            if is_readable.as_deref() == Some("t") { Ok(()) } else { Err(is_readable) }
        });
    }

    pub(super) async fn tenure(&self, slot: Slot) -> Tenure {
        let tenures = self.outbox.tenures().await.unwrap();
        tenures.into_iter().find(|tenure| tenure.slot == slot).unwrap()
    }

    pub(super) fn later(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// What is to expire, as the owner of every slot asks for it.
    pub(super) async fn expiring(&self, asked_at: Timestamp, ends: Vec<Position>, limit: usize) -> Expiring {
        let tenures = self.outbox.tenures().await.unwrap();
        let slots = tenures.iter().map(|tenure| (tenure.slot, tenure.epoch)).collect();
        Expiring { asked_at, topic: TOPIC.to_owned(), ends, slots, limit }
    }

    pub(super) async fn expire(&self, asked_at: Timestamp, ends: Vec<Position>, limit: usize) -> Option<usize> {
        self.outbox.expire(self.expiring(asked_at, ends, limit).await).await.unwrap()
    }

    // --- the operator ---

    /// The oldest dead letters.
    pub(super) async fn dead(&self, limit: usize) -> Vec<DeadLetter> {
        self.outbox.dead(DeadFilter { limit, ..DeadFilter::default() }).await.unwrap()
    }

    pub(super) async fn redrive(&self, letter: i64) -> DeadResult {
        self.outbox.redrive(letter, "ann".to_owned()).await.unwrap()
    }

    pub(super) async fn discard(&self, letter: i64) -> DeadResult {
        self.outbox.discard(letter, "ann".to_owned()).await.unwrap()
    }

    // --- clients ---

    pub(super) async fn accept(&self, key: &str) -> OrderId {
        self.accept_on(ORDERS, key).await
    }

    pub(super) async fn accept_on(&self, route: &str, key: &str) -> OrderId {
        let order = new_order(route, key);
        assert_eq!(self.outbox.accept(order.clone()).await.unwrap(), Kept::New(order.id));
        order.id
    }

    pub(super) async fn command(&self, id: OrderId, kind: EntryKind, body: Option<&str>) -> Kept {
        let route = self.order(id).await.route;
        let payload = body.map(|body| Bytes::copy_from_slice(body.as_bytes()));
        let command = NewCommand { kind, order_id: id, route, payload, order_key: None, idempotency: None };
        self.outbox.command(command).await.unwrap()
    }

    pub(super) async fn order(&self, id: OrderId) -> OrderView {
        self.outbox.order(id).await.unwrap().unwrap()
    }

    pub(super) async fn status(&self, id: OrderId) -> OrderStatus {
        self.order(id).await.status
    }

    /// Status, and the reason while it is held.
    pub(super) async fn state(&self, id: OrderId) -> String {
        let order = self.order(id).await;
        match order.held {
            Some(held) => format!("HELD {}", held.reason),
            None => order.status.to_string(),
        }
    }

    /// The kinds of an order's timeline.
    pub(super) async fn kinds(&self, id: OrderId) -> Vec<String> {
        let timeline = self.outbox.timeline(id).await.unwrap().unwrap();
        timeline.entries.into_iter().map(|entry| entry.kind).collect()
    }

    // --- the relay ---

    /// Entries of all slots above a place.
    pub(super) async fn entries(&self, after: EntryPlace, limits: ReadLimits) -> Vec<Entry> {
        self.settle().await;
        let places: Vec<_> = Slot::all().map(|slot| (slot, after)).collect();
        self.outbox.entries(&places, limits).await.unwrap().entries
    }

    /// Entries that the slot of a key has not decided yet.
    pub(super) async fn undecided(&self) -> Vec<Entry> {
        let cursors: HashMap<Slot, EntryPlace> =
            self.outbox.tenures().await.unwrap().iter().map(|tenure| (tenure.slot, tenure.decide_cursor)).collect();
        let (mut undecided, mut after) = (Vec::new(), EntryPlace::START);
        loop {
            // What was handed over may be less than there is.
            let entries = self.entries(after, ALL).await;
            let Some(last) = entries.last() else { return undecided };
            after = last.place;
            undecided.extend(entries.into_iter().filter(|entry| entry.place > cursors[&entry.slot]));
        }
    }

    /// Decides every undecided entry, each order by `judge`; commands and outcomes go their way.
    pub(super) async fn decide(&self, judge: impl Fn(&Entry) -> Step) {
        for entry in self.undecided().await {
            let step = match entry.kind {
                EntryKind::Order | EntryKind::Redrive => judge(&entry),
                EntryKind::Cancel => Step::Cancel,
                EntryKind::Discard => Step::Discard,
                EntryKind::Revise => Step::Revise(entry.payload.clone().unwrap()),
                EntryKind::Outcome => Step::Outcome(Box::new(record(&entry, "outcome"))),
            };
            let tenure = self.tenure(entry.slot).await;
            let origin = Origin::Entry { kind: entry.kind, place: entry.place };
            let part = self.part(&tenure, entry.place, vec![item(entry.order_id, origin, step)]);
            self.commit(part).await.unwrap();
        }
    }

    /// Lets every undecided order pass.
    pub(super) async fn pass(&self) {
        self.decide(let_pass).await;
    }

    /// Looks at the held orders that are due.
    pub(super) async fn due(&self) -> Vec<HeldOrder> {
        self.outbox.due(vec![("/orders".into(), ALL.count)], ALL.bytes).await.unwrap()
    }

    /// Decides the first held order that is due.
    pub(super) async fn retry(&self, judge: impl Fn(&Entry) -> Step) -> SlotDecided {
        let held = self.due().await.into_iter().next().unwrap();
        self.retry_one(&held, judge(&held.entry)).await.unwrap()
    }

    pub(super) async fn retry_one(&self, held: &HeldOrder, step: Step) -> Result<SlotDecided, Lost> {
        let tenure = self.tenure(held.entry.slot).await;
        let origin = Origin::Held { attempts: held.attempts };
        let part = self.part(&tenure, tenure.decide_cursor, vec![item(held.entry.order_id, origin, step)]);
        self.commit(part).await
    }

    pub(super) fn part(&self, tenure: &Tenure, to: EntryPlace, items: Vec<Item>) -> SlotPass {
        let (slot, epoch, from) = (tenure.slot, tenure.epoch, tenure.decide_cursor);
        SlotPass { slot, epoch, from, to, items, clears_suspicion: false }
    }

    pub(super) async fn commit(&self, part: SlotPass) -> Result<SlotDecided, Lost> {
        self.commit_all(vec![part]).await.remove(0)
    }

    pub(super) async fn commit_all(&self, slots: Vec<SlotPass>) -> Vec<Result<SlotDecided, Lost>> {
        self.outbox.decide(Arc::new(Pass { slots, ran_alone: false, still_open: String::new() })).await.unwrap().slots
    }

    /// A step that holds an order for a minute.
    pub(super) fn hold(&self) -> Step {
        self.hold_after(Strikes::default())
    }

    /// The same, after this.
    pub(super) fn hold_after(&self, strikes: Strikes) -> Step {
        let due_at = self.clock.now().after(Duration::from_secs(60));
        Step::Hold { reason: "retry-later".to_owned(), detail: "busy".to_owned(), due_at, strikes }
    }

    // --- Kafka ---

    /// The records of a slot that are not noted as sent.
    pub(super) async fn unsent(&self, slot: Slot) -> Vec<Record> {
        let after = self.tenure(slot).await.publish_cursor;
        self.outbox.records(slot, after, ALL).await.unwrap()
    }

    /// Notes every record as acknowledged, but those `refuses` names as refused.
    pub(super) async fn publish_but(&self, refuses: impl Fn(&Record) -> bool) {
        for slot in Slot::all() {
            let (tenure, records) = (self.tenure(slot).await, self.unsent(slot).await);
            let Some(last) = records.last().map(|last| last.number) else { continue };
            let items = records.iter().map(|record| delivered(record, refuses(record), false)).collect();
            let part = SlotDeliveries { slot, epoch: tenure.epoch, from: tenure.publish_cursor, to: last, items };
            assert_eq!(self.deliver(part).await, Ok(()));
        }
    }

    pub(super) async fn publish(&self) {
        self.publish_but(|_| false).await;
    }

    pub(super) async fn deliver(&self, part: SlotDeliveries) -> Result<(), Lost> {
        self.outbox.publish(Arc::new(Deliveries { slots: vec![part] })).await.unwrap().remove(0)
    }

    /// An order that is on Kafka and waits for replies.
    pub(super) async fn published(&self, key: &str) -> OrderId {
        let id = self.accept(key).await;
        self.pass().await;
        self.publish().await;
        id
    }

    // --- services ---

    pub(super) async fn reply(&self, id: OrderId, kind: &str) -> Fates {
        self.take(vec![reply(id, kind, self.clock.now())]).await
    }

    pub(super) async fn take(&self, replies: Vec<Reply>) -> Fates {
        self.take_all(replies.into_iter().map(Ok).collect(), Vec::new(), "").await
    }

    pub(super) async fn take_all(
        &self,
        replies: Vec<Result<Reply, PoisonReply>>,
        positions: Vec<Position>,
        incarnation: &str,
    ) -> Fates {
        let taken = TakenReplies { replies, positions, incarnation: incarnation.into() };
        self.outbox.take_replies(Arc::new(taken)).await.unwrap()
    }

    // --- what must always hold ---

    /// The counts kept in step say what the lists say.
    pub(super) async fn keeps_count(&self) {
        // What other nodes commit, and what is committed while the database is asked, is counted a moment later.
        let limit = Duration::from_secs(if self.server.is_some() { 10 } else { 0 });
        harness::wait_until_async("the right counts", limit, async || {
            let mut counted = HashMap::new();
            let filter = sluice::outbox::OrderFilter { limit: usize::MAX, ..Default::default() };
            for order in self.outbox.list(filter).await.unwrap() {
                *counted.entry(order.status).or_insert(0) += 1;
            }
            let count = |status: &OrderStatus| counted.get(status).copied().unwrap_or(0);
            let wrong: Vec<_> =
                self.outbox.counts().into_iter().filter(|(status, shown)| *shown != count(status)).collect();
            let backlog = count(&OrderStatus::Pending) + count(&OrderStatus::Held);
            if wrong.is_empty() && self.outbox.backlog() == backlog { Ok(()) } else { Err((wrong, counted)) }
        })
        .await;
    }
}

pub(super) fn new_order(route: &str, key: &str) -> NewOrder {
    let id = OrderId::generate();
    NewOrder {
        id,
        route: route.into(),
        order_key: key.into(),
        slot: Slot::of(route, key),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        body: format!(r#"{{"customerId":"{key}","id":"{id}"}}"#).into(),
        idempotency: None,
    }
}

pub(super) fn with_key(order: NewOrder, key: u8, fingerprint: u8) -> NewOrder {
    NewOrder { idempotency: Some(KeyHash { key: [key; 32], fingerprint: [fingerprint; 32] }), ..order }
}

pub(super) fn item(order_id: OrderId, origin: Origin, step: Step) -> Item {
    Item { order_id, origin, step, runs: Vec::new(), plugins: "rules@sha256:0".to_owned(), by: None }
}

pub(super) fn entry_item(entry: &Entry, step: Step) -> Item {
    item(entry.order_id, Origin::Entry { kind: entry.kind, place: entry.place }, step)
}

pub(super) fn let_pass(entry: &Entry) -> Step {
    Step::Pass { records: vec![record(entry, "order")], patch: None }
}

pub(super) fn enrich(entry: &Entry) -> Step {
    let patch = r#"[{"op":"set","path":"/seen","value":true}]"#;
    Step::Pass { records: vec![record(entry, "order")], patch: Some(patch.to_owned()) }
}

pub(super) fn reject(_: &Entry) -> Step {
    Step::Reject(vec![problem("no")])
}

pub(super) fn die() -> Step {
    Step::Die { reason: "held-too-long", detail: "it never got better".to_owned() }
}

pub(super) fn problem(code: &str) -> Problem {
    Problem { code: code.to_owned(), title: "No".to_owned(), detail: None, pointer: None, source: Source::Plugin }
}

pub(super) fn record(entry: &Entry, kind: &str) -> Record {
    Record {
        slot: entry.slot,
        number: 0,
        order_id: entry.order_id,
        is_outcome: kind == "outcome",
        topic: "orders".to_owned(),
        key: Bytes::copy_from_slice(entry.order_key.as_bytes()),
        headers: vec![("ce_type".to_owned(), Bytes::copy_from_slice(kind.as_bytes()))],
        value: entry.body.clone(),
        timestamp: START,
    }
}

pub(super) fn delivered(record: &Record, is_refused: bool, is_again: bool) -> Delivered {
    let refused = Refused { detail: "too large".to_owned(), plugins: "rules@sha256:0".to_owned() };
    Delivered {
        number: record.number,
        order_id: record.order_id,
        is_outcome: record.is_outcome,
        event_type: "OrderCreated".to_owned(),
        topic: record.topic.clone(),
        is_again,
        result: if is_refused { Err(refused) } else { Ok(Placed { partition: 0, offset: record.number }) },
    }
}

/// A reply with an event id and a place that no other has.
pub(super) fn reply(id: OrderId, kind: &str, at: Timestamp) -> Reply {
    let event_id = Some(harness::random::unique("event"));
    let place = Place { topic: TOPIC.to_owned(), partition: 0, offset: 0 };
    Reply { place, timestamp: at, order_id: id, kind: kind.to_owned(), from: None, event_id, problems: Vec::new() }
}

/// The same without an event id: its place tells it from others.
pub(super) fn reply_at(id: OrderId, kind: &str, at: Timestamp, offset: i64) -> Reply {
    let place = Place { topic: TOPIC.to_owned(), partition: 0, offset };
    Reply { place, event_id: None, ..reply(id, kind, at) }
}

pub(super) fn position(partition: i32, next_offset: i64) -> Position {
    Position { topic: TOPIC.to_owned(), partition, next_offset }
}

/// A key whose slot is another than that of `key`.
pub(super) fn key_elsewhere(key: &str) -> String {
    let slot = Slot::of(ORDERS, key);
    (0..).map(|number| format!("other-{number}")).find(|other| Slot::of(ORDERS, other) != slot).unwrap()
}

/// A key of the same slot as `key`.
pub(super) fn key_beside(key: &str) -> String {
    let slot = Slot::of(ORDERS, key);
    (0..).map(|number| format!("beside-{number}")).find(|other| Slot::of(ORDERS, other) == slot).unwrap()
}

/// Happenings of a plugin that said yes.
pub(super) fn said() -> Vec<Happening> {
    vec![Happening::Plugin { name: "rules".into(), digest: "sha256:0".into(), verdict: "accept", micros: 1 }]
}

/// The step of an order that stands behind another.
pub(super) fn behind(_: &Entry) -> Step {
    Step::Behind
}
