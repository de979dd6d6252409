//! Publishes: records go to the producer in the order of their slots, delivery reports become PUBLISHED.
//!
//! Many records are in flight; what is acknowledged without a gap is committed, one commit for many. After any failure
//! of Kafka's the producer is replaced, and every slot sends again from its first record that is not committed
//! (PROTOCOL P1 to P3): the same records with the same ids, so repeats are harmless.
//!
//! A slot that is lost, or whose commit failed, is loaded afresh by itself. What the producer still has of it goes out
//! all the same (O6), in the order of the log and before what is sent again, so nothing overtakes; its reports say of
//! these very records that Kafka has them, whoever had them sent.

use std::collections::{BTreeMap, HashMap};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::HandOver;
use super::lane::{Fate, Lane, SLOT_BYTES_MAX};
use super::standing::Standing;
use super::stops::Stops;
use crate::config::RelayConfig;
use crate::crash::{self, Point};
use crate::lifecycle::{Condition, Readiness};
use crate::order::Slot;
use crate::outbox::{Deliveries, Lost, Outbox, OutboxError, Placed, ReadLimits, SlotDeliveries, Tenure};
use crate::ownership::{Half, Moves, Ownership};
use crate::pace::Pace;
use crate::publisher::{Delivery, DeliveryFault, Publisher, SendError};
use crate::record::Record;
use crate::retry::backoff;
use crate::telemetry::chain;

/// Records read from a slot's log at once.
const READ_RECORDS_MAX: usize = 512;
/// Acknowledged records in one commit.
const COMMIT_RECORDS_MAX: usize = 4_096;
/// How long a topic is left alone that Kafka refuses, and how long everything after a producer failed or the database did;
/// doubles up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Between two looks at how Kafka stands.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

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
    stops: Stops,
    in_flight: usize,
    in_flight_bytes: usize,
    commit: Option<(Arc<Deliveries>, Commit)>,
    commit_begun: Instant,
    pace: Pace,
    broken: Option<String>,
    failures: u32,
    paused_until: Option<Instant>,
    /// The database failed so many times: slots are not loaded before.
    load_failures: u32,
    load_at: Option<Instant>,
    standing: Standing,
    looked_at: Option<Instant>,
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
        let pace = Pace::new(limits.rest_max.0);
        Self {
            outbox,
            publisher,
            deliveries,
            limits,
            hand_over,
            readiness,
            lanes: BTreeMap::new(),
            stops: Stops::default(),
            in_flight: 0,
            in_flight_bytes: 0,
            commit: None,
            commit_begun: Instant::now(),
            pace,
            broken: None,
            failures: 0,
            paused_until: None,
            load_failures: 0,
            load_at: None,
            standing: Standing::new(),
            looked_at: None,
        }
    }

    /// Sends and commits what is owned until `stop`; then flushes what is in flight, within `flush_max`, and commits that.
    pub async fn run(mut self, ownership: Ownership, stop: CancellationToken, flush_max: Duration) {
        let mut changes = ownership.watch();
        while !stop.is_cancelled() {
            self.follow(&ownership).await;
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
            if self.may_send() && ownership.lives() {
                self.send_ready().await;
            }
            let rest = self.pace.left(Instant::now());
            if rest.is_none() {
                self.start_commit();
            }
            let load = self.load_at.map(|at| at.saturating_duration_since(Instant::now()));
            // Every arm may be dropped: a delivery is taken only when received, the commit goes on in its place.
            tokio::select! {
                () = stop.cancelled() => {}
                () = committed => {}
                () = changes.changed() => {}
                Some(delivery) = self.deliveries.recv() => self.note(delivery),
                result = finished(&mut self.commit) => self.committed(result),
                () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => {}
                () = tokio::time::sleep(load.unwrap_or_default()), if load.is_some() => {}
                () = tokio::time::sleep(self.limits.poll_interval.0) => self.look().await,
            }
            while let Ok(delivery) = self.deliveries.try_recv() {
                self.note(delivery);
            }
            self.mend().await;
            self.tell();
        }
        self.finish(flush_max).await;
        ownership.end(Half::Sender);
    }

    /// Loads the slots that were gained, forgets those that were lost, and lets go of those that are to be given back
    /// once nothing of them is in flight, or their time is up.
    async fn follow(&mut self, ownership: &Ownership) {
        let carried = self.lanes.iter().map(|(slot, lane)| (*slot, lane.epoch));
        let Moves { gained, lost, leaving } = ownership.moves(Half::Sender, carried);
        for slot in lost {
            self.forget(slot);
            self.stops.leave(slot);
        }
        self.lanes.values_mut().for_each(|lane| lane.is_leaving = false);
        for (slot, until) in leaving {
            let is_committing =
                self.commit.as_ref().is_some_and(|(parts, _)| parts.slots.iter().any(|part| part.slot == slot));
            let lane = self.lanes.get_mut(&slot).filter(|lane| is_committing || lane.in_hand().0 > 0);
            match lane {
                Some(lane) if Instant::now() < until => lane.is_leaving = true,
                _ => {
                    self.forget(slot);
                    self.stops.leave(slot);
                    ownership.let_go(Half::Sender, slot);
                }
            }
        }
        let is_time = self.load_at.is_none_or(|at| at <= Instant::now());
        if !gained.is_empty() && is_time && self.broken.is_none() {
            match self.load(gained, ownership).await {
                Ok(()) => self.load_at = None,
                Err(error) => {
                    error.warn("failed to load slots");
                    self.load_later();
                }
            }
        } else if is_time {
            self.load_at = None;
        }
    }

    /// Waits longer after each failure of the database: what is loaded is sent again.
    fn load_later(&mut self) {
        let pause = backoff(PAUSE.0, PAUSE.1, self.load_failures, fastrand::f64());
        self.load_at = Some(Instant::now() + pause);
        self.load_failures += 1;
    }

    /// Reads these slots as they are stored; nothing of an earlier tenure is used (PROTOCOL O5).
    async fn load(&mut self, gained: Vec<(Slot, i64)>, ownership: &Ownership) -> Result<(), OutboxError> {
        let tenures: HashMap<Slot, Tenure> =
            self.outbox.tenures().await?.into_iter().map(|tenure| (tenure.slot, tenure)).collect();
        let forgotten = self.outbox.forgotten().await?;
        for (slot, epoch) in &gained {
            self.forget(*slot);
            match tenures.get(slot) {
                Some(tenure) => drop(self.lanes.insert(*slot, Lane::new(tenure))),
                None => ownership.disown(*slot, *epoch),
            }
        }
        for record in forgotten {
            if gained.iter().any(|(slot, _)| *slot == record.slot)
                && let Some(lane) = self.lanes.get_mut(&record.slot)
            {
                lane.again.push_back(record);
            }
        }
        Ok(())
    }

    /// Forgets everything about a slot. What the producer has of it stays there.
    fn forget(&mut self, slot: Slot) {
        self.stops.forget_probe(slot);
        if let Some(lane) = self.lanes.remove(&slot) {
            let (records, bytes) = lane.in_hand();
            self.in_flight -= records;
            self.in_flight_bytes -= bytes;
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
            Err(error) => error.warn("failed to look for records"),
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
        let lane = self.lanes.get_mut(&slot).filter(|lane| !lane.is_leaving)?;
        if lane.must_read() {
            let limits = ReadLimits { count: READ_RECORDS_MAX, bytes: SLOT_BYTES_MAX };
            match self.outbox.records(slot, lane.next - 1, limits).await {
                Ok(records) => lane.fill(records),
                Err(error) => error.warn("failed to read records"),
            }
        }
        let (topic, number) = lane.peek()?;
        if !self.stops.may_send(topic, slot, number) {
            return None;
        }
        lane.take_next()
    }

    /// Hands one record to the producer; returns whether it takes more.
    fn send(&mut self, record: Record, is_again: bool) -> bool {
        let sent = if crash::fails(Point::BeforeSend) {
            Err(SendError::Broken("a test made it fail".to_owned()))
        } else {
            self.publisher.send(&record)
        };
        let fate = match sent {
            Ok(()) => {
                crash::at(Point::Sent);
                Fate::InFlight
            }
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
        if self.publisher.open_records() <= 1 {
            self.standing.sets_out();
        }
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
            // The report is lost: the record is on Kafka all the same.
            Ok(_) if crash::fails(Point::Delivered) => self.broken = Some("a test made it fail".to_owned()),
            Ok(placed) => {
                sent.fate = Fate::Placed(Placed { partition: placed.partition, offset: placed.offset });
                self.standing.acknowledged();
                if self.stops.pass(&sent.topic) {
                    info!(kafka.topic = sent.topic, "Kafka takes records for topic `{}` again", sent.topic);
                }
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

    /// Kafka refuses the topic of a slot's next record: whatever is next for that topic waits, and the producer is done
    /// for.
    fn stopped(&mut self, slot: Slot, topic: &str, reason: String) {
        if self.stops.refuse(topic, slot, reason.clone(), PAUSE) {
            warn!(kafka.topic = topic, "Kafka takes no records for topic `{topic}`: {reason}");
        }
        self.broken = Some(reason);
    }

    fn note_cluster_fault(&mut self) {
        if let Some(refusal) = self.publisher.cluster_fault()
            && self.standing.refused(refusal.clone())
        {
            warn!("Kafka takes nothing from this gateway: {refusal}");
        }
    }

    /// Tells how Kafka stands, now and then.
    fn tell(&mut self) {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_PERIOD) {
            return;
        }
        self.looked_at = Some(Instant::now());
        self.note_cluster_fault();
        if self.may_send() {
            // Not every record that it had is reported, and there may be none to send.
            self.broken = self.publisher.failure();
        }
        let open = self.publisher.open_records();
        self.readiness.set("kafka", self.standing.condition(self.publisher.link(), open));
        let topics = self.stops.report().map_or(Condition::Ready, Condition::Degraded);
        self.readiness.set("kafka-topics", topics);
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
            self.commit_begun = Instant::now();
            self.commit = Some((deliveries, Box::pin(async move { outbox.publish(given).await })));
        }
    }

    fn committed(&mut self, result: Result<Vec<Result<(), Lost>>, OutboxError>) {
        let Some((deliveries, _)) = self.commit.take() else { return };
        let items: usize = deliveries.slots.iter().map(|part| part.items.len()).sum();
        self.pace.worked(self.commit_begun.elapsed(), items >= COMMIT_RECORDS_MAX, Instant::now());
        let mut lost: Vec<&SlotDeliveries> = Vec::new();
        match result {
            Ok(slots) => {
                crash::at(Point::Published);
                let parts = deliveries.slots.iter().zip(slots);
                lost.extend(parts.filter(|(_, result)| result.is_err()).map(|(part, _)| part));
                if !lost.is_empty() {
                    info!("{} slots were lost: what is still ours of them is loaded afresh", lost.len());
                }
                (self.failures, self.load_failures) = (0, 0);
            }
            // Its answer may be lost only: never tried again from memory (PROTOCOL D2).
            Err(error) => {
                error.warn("failed to commit delivery reports");
                self.load_later();
                lost.extend(&deliveries.slots);
            }
        }
        for part in lost {
            if self.lanes.get(&part.slot).is_some_and(|lane| lane.epoch == part.epoch) {
                self.forget(part.slot);
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
            self.committed(result);
            self.start_commit();
        }
        let reason = self.broken.clone().unwrap_or_default();
        self.note_cluster_fault();
        // It blocks while the old producer ends.
        if let Err(error) = tokio::task::block_in_place(|| self.publisher.rebuild()) {
            error!(error = %chain(&error), "failed to make a new producer");
        } else {
            // What the old one had is not coming any more: all are loaded afresh.
            let slots: Vec<Slot> = self.lanes.keys().copied().collect();
            slots.into_iter().for_each(|slot| self.forget(slot));
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
            self.committed(result);
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

#[cfg(test)]
mod tests;
