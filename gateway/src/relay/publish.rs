//! Publishes: records go to the producer in the order of their slots, delivery reports become PUBLISHED.
//!
//! Many records are in flight; what is acknowledged without a gap is committed, one commit for many. After any failure
//! the producer is replaced, and every slot sends again from its first record that is not committed (PROTOCOL P1 to
//! P3): the same records with the same ids, so repeats are harmless.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::HandOver;
use super::lane::{Fate, Lane, SLOT_BYTES_MAX};
use crate::config::RelayConfig;
use crate::lifecycle::{Condition, Readiness};
use crate::order::Slot;
use crate::outbox::{Deliveries, Lost, Outbox, OutboxError, Placed, ReadLimits, SlotDeliveries, Tenure};
use crate::publisher::{Delivery, DeliveryFault, Publisher, SendError};
use crate::record::Record;
use crate::retry::backoff;
use crate::telemetry::chain;

/// Records read from a slot's log at once.
const READ_RECORDS_MAX: usize = 512;
/// Acknowledged records in one commit.
const COMMIT_RECORDS_MAX: usize = 4_096;
/// How long a slot stops whose topic Kafka refuses, and how long after a producer failed; doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

type Commit = Pin<Box<dyn Future<Output = Result<Vec<Result<(), Lost>>, OutboxError>> + Send>>;

/// The publishing half of the relay.
pub struct Sender {
    outbox: Outbox,
    publisher: Publisher,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    limits: RelayConfig,
    hand_over: HandOver,
    readiness: Arc<Readiness>,
    lanes: BTreeMap<Slot, Lane>,
    in_flight: usize,
    in_flight_bytes: usize,
    commit: Option<(Arc<Deliveries>, Commit)>,
    broken: Option<String>,
    failures: u32,
    paused_until: Option<Instant>,
}

impl Sender {
    /// Nothing is sent before [`Sender::run`].
    pub fn new(
        outbox: Outbox,
        publisher: Publisher,
        deliveries: mpsc::UnboundedReceiver<Delivery>,
        limits: RelayConfig,
        hand_over: HandOver,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self {
            outbox,
            publisher,
            deliveries,
            limits,
            hand_over,
            readiness,
            lanes: BTreeMap::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            commit: None,
            broken: None,
            failures: 0,
            paused_until: None,
        }
    }

    /// Sends and commits until `stop`; then flushes what is in flight, within `flush_max`, and commits that.
    pub async fn run(mut self, tenures: Vec<Tenure>, stop: CancellationToken, flush_max: Duration) {
        self.load(tenures);
        self.load_forgotten().await;
        while !stop.is_cancelled() {
            let hand_over = self.hand_over.clone();
            // Registered before the hand-over is taken, so that nothing given in between is missed.
            let mut committed = pin!(hand_over.committed());
            committed.as_mut().enable();
            self.take_handed_over();
            if self.publisher.is_careful() && self.is_drained() && self.broken.is_none() {
                // Whoever was at fault is found and past: back to many records in flight.
                self.broken = Some("nothing is suspicious any more".to_owned());
                self.mend().await;
            }
            if self.may_send() {
                self.send_ready().await;
            }
            self.start_commit();
            // Every arm may be dropped: a delivery is taken only when received, the commit goes on in its place.
            tokio::select! {
                () = stop.cancelled() => {}
                () = committed => {}
                Some(delivery) = self.deliveries.recv() => self.note(delivery),
                result = finished(&mut self.commit) => self.committed(result).await,
                () = tokio::time::sleep(self.limits.poll_interval.0) => self.look().await,
            }
            while let Ok(delivery) = self.deliveries.try_recv() {
                self.note(delivery);
            }
            self.mend().await;
        }
        self.finish(flush_max).await;
    }

    /// Forgets everything of an earlier tenure (PROTOCOL O5).
    fn load(&mut self, tenures: Vec<Tenure>) {
        let before = std::mem::take(&mut self.lanes);
        (self.in_flight, self.in_flight_bytes) = (0, 0);
        for tenure in tenures {
            let lane = Lane::new(&tenure, before.get(&tenure.slot));
            self.lanes.insert(tenure.slot, lane);
        }
    }

    async fn load_forgotten(&mut self) {
        match self.outbox.forgotten().await {
            Ok(records) => {
                for record in records {
                    if let Some(lane) = self.lanes.get_mut(&record.slot) {
                        lane.again.push_back(record);
                    }
                }
            }
            Err(error) => {
                self.broken = Some(format!("records that are to go out again could not be read: {}", chain(&error)));
            }
        }
    }

    async fn reload(&mut self) -> bool {
        match self.outbox.tenures().await {
            Ok(tenures) => {
                self.load(tenures);
                self.load_forgotten().await;
                true
            }
            Err(error) => {
                warn!(error = %chain(&error), "failed to load the slots");
                false
            }
        }
    }

    fn take_handed_over(&mut self) {
        let waiting = self.hand_over.take();
        for (slot, last) in waiting.last {
            if let Some(lane) = self.lanes.get_mut(&slot) {
                lane.last = lane.last.max(last);
            }
        }
        for record in waiting.records {
            if let Some(lane) = self.lanes.get_mut(&record.slot) {
                lane.offer(record);
            }
        }
    }

    /// Polls the log: a hand-over only spares reads.
    async fn look(&mut self) {
        match self.outbox.log_ends().await {
            Ok(ends) => {
                for (slot, last) in ends {
                    if let Some(lane) = self.lanes.get_mut(&slot) {
                        lane.last = lane.last.max(last);
                    }
                }
            }
            Err(error) => warn!(error = %chain(&error), "failed to look for records"),
        }
    }

    fn may_send(&self) -> bool {
        self.broken.is_none() && self.paused_until.is_none_or(|until| until <= Instant::now())
    }

    /// Whether everything in the log is acknowledged.
    fn is_drained(&self) -> bool {
        self.in_flight == 0 && self.lanes.values().all(Lane::is_drained)
    }

    fn has_room(&self) -> bool {
        self.in_flight < self.limits.in_flight_records_max && self.in_flight_bytes < self.limits.in_flight_bytes_max.0
    }

    /// Sends what each slot has next, slot by slot, as far as there is room.
    async fn send_ready(&mut self) {
        let slots: Vec<Slot> = self.lanes.keys().copied().collect();
        for slot in slots {
            while self.has_room() && self.broken.is_none() {
                match self.next_record(slot).await {
                    Some((record, is_again)) => {
                        if !self.send(record, is_again) {
                            return;
                        }
                    }
                    None => break,
                }
            }
        }
    }

    async fn next_record(&mut self, slot: Slot) -> Option<(Record, bool)> {
        let lane = self.lanes.get_mut(&slot)?;
        if lane.is_stopped() {
            return None;
        }
        if lane.must_read() {
            let limits = ReadLimits { count: READ_RECORDS_MAX, bytes: SLOT_BYTES_MAX };
            match self.outbox.records(slot, lane.next - 1, limits).await {
                Ok(records) => lane.fill(records),
                Err(error) => warn!(error = %chain(&error), "failed to read records"),
            }
        }
        lane.take_next()
    }

    /// Hands one record to the producer; returns whether it takes more.
    fn send(&mut self, record: Record, is_again: bool) -> bool {
        let fate = match self.publisher.send(&record) {
            Ok(()) => Fate::InFlight,
            Err(SendError::Refused(reason)) => Fate::Refused(reason),
            Err(failure) => {
                match failure {
                    SendError::Stopped(reason) => self.stopped(record.slot, &record.topic, reason),
                    SendError::Broken(reason) => self.broken = Some(reason),
                    // A delivery report makes room.
                    SendError::Full | SendError::Refused(_) => {}
                }
                if let Some(lane) = self.lanes.get_mut(&record.slot) {
                    lane.put_back(record, is_again);
                }
                return false;
            }
        };
        self.in_flight += 1;
        self.in_flight_bytes += record.value.len();
        if let Some(lane) = self.lanes.get_mut(&record.slot) {
            lane.sent(record, is_again, fate);
        }
        true
    }

    /// Takes a delivery report in. What an earlier producer reports says nothing any more.
    fn note(&mut self, delivery: Delivery) {
        if delivery.generation != self.publisher.generation() {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&delivery.slot) else { return };
        let Some(sent) = lane.in_flight(delivery.number) else { return };
        match delivery.result {
            Ok(placed) => {
                sent.fate = Fate::Placed(Placed { partition: placed.partition, offset: placed.offset });
                lane.stops = 0;
            }
            Err(DeliveryFault::Refused(reason)) => {
                error!(order.id = %sent.order_id, kafka.topic = sent.topic, "Kafka refused the record of order {} for good: {reason}", sent.order_id);
                sent.fate = Fate::Refused(reason.clone());
                self.broken = Some(reason);
            }
            Err(DeliveryFault::Stopped(reason)) => {
                let topic = sent.topic.clone();
                self.stopped(delivery.slot, &topic, reason);
            }
            Err(DeliveryFault::Broken(reason)) => self.broken = Some(reason),
        }
    }

    /// Kafka refuses the topic of a slot's next record: the slot waits, and its producer is done for.
    fn stopped(&mut self, slot: Slot, topic: &str, reason: String) {
        warn!(kafka.topic = topic, slot = slot.0, "Kafka takes no records for topic `{topic}`: {reason}");
        self.readiness.set("kafka-topics", Condition::Degraded(format!("topic `{topic}`: {reason}")));
        if let Some(lane) = self.lanes.get_mut(&slot) {
            let pause = backoff(PAUSE.0, PAUSE.1, lane.stops, fastrand::f64());
            lane.stop_for(pause);
        }
        self.broken = Some(reason);
    }

    /// Starts to commit what is acknowledged without a gap, unless a commit is under way.
    fn start_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let mut left = COMMIT_RECORDS_MAX;
        let mut parts = Vec::new();
        for (slot, lane) in &mut self.lanes {
            let from = lane.cursor;
            let (items, bytes) = lane.take_acknowledged(left);
            left -= items.len();
            self.in_flight -= items.len();
            self.in_flight_bytes -= bytes;
            if !items.is_empty() {
                parts.push(SlotDeliveries { slot: *slot, epoch: lane.epoch, from, to: lane.cursor, items });
            }
        }
        if !parts.is_empty() {
            let deliveries = Arc::new(Deliveries { slots: parts });
            let (outbox, given) = (self.outbox.clone(), Arc::clone(&deliveries));
            self.commit = Some((deliveries, Box::pin(async move { outbox.publish(given).await })));
        }
    }

    async fn committed(&mut self, result: Result<Vec<Result<(), Lost>>, OutboxError>) {
        self.commit = None;
        match result {
            Ok(slots) if slots.iter().all(Result::is_ok) => {
                self.failures = 0;
                if self.lanes.values().all(|lane| lane.stops == 0) {
                    self.readiness.set("kafka-topics", Condition::Ready);
                }
            }
            Ok(_) => {
                info!("slots were lost: loading them afresh");
                self.broken = Some("slots were lost".to_owned());
            }
            // Its answer may be lost only: never tried again from memory (PROTOCOL D2).
            Err(error) => {
                warn!(error = %chain(&error), "failed to commit delivery reports");
                self.broken = Some("delivery reports could not be committed".to_owned());
            }
        }
    }

    /// After any failure: commits what is known, replaces the producer and starts from what the database says.
    async fn mend(&mut self) {
        if self.broken.is_none() {
            return;
        }
        self.start_commit();
        while self.commit.is_some() {
            let result = finished(&mut self.commit).await;
            self.committed(result).await;
            self.start_commit();
        }
        let reason = self.broken.clone().unwrap_or_default();
        // It blocks while the old producer ends.
        if let Err(error) = tokio::task::block_in_place(|| self.publisher.rebuild()) {
            error!(error = %chain(&error), "failed to make a new producer");
        } else if self.reload().await {
            info!("sending with a new producer: {reason}");
            self.broken = None;
        }
        let pause = backoff(PAUSE.0, PAUSE.1, self.failures, fastrand::f64());
        self.failures += 1;
        self.paused_until = (self.failures > 1).then(|| Instant::now() + pause);
        if self.broken.is_some() {
            tokio::time::sleep(pause).await;
        }
    }

    async fn finish(&mut self, flush_max: Duration) {
        let end = Instant::now() + flush_max;
        self.publisher.flush(flush_max).await;
        while let Ok(delivery) = self.deliveries.try_recv() {
            self.note(delivery);
        }
        self.start_commit();
        while self.commit.is_some() && Instant::now() < end {
            let result = finished(&mut self.commit).await;
            self.committed(result).await;
            self.start_commit();
        }
        if self.in_flight > 0 {
            warn!(
                records = self.in_flight,
                "{} records were not acknowledged: they go out again at the next start", self.in_flight
            );
        }
    }
}

/// Resolves when the commit under way, if there is one, has its result. Cancel-safe: the commit stays in its place.
async fn finished(commit: &mut Option<(Arc<Deliveries>, Commit)>) -> Result<Vec<Result<(), Lost>>, OutboxError> {
    match commit {
        Some((_, commit)) => commit.await,
        None => std::future::pending().await,
    }
}
