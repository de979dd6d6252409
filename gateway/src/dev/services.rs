//! Two sample services that answer orders like real ones: over Kafka, only over Kafka.
//!
//! Each reads the orders topics of the routes from their beginning, answers every order once with the kind of reply that
//! the route asks of it, after a random delay. They refuse the customer `refuse-me` (the first service does) and never
//! answer for the customer `ignore-me`, so that every final state can be seen.
//!
//! They import nothing of the gateway's flow: they stand for other people's code.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{DevError, FETCH_WAIT_MS, Quiet};
use crate::config::RouteConfig;
use crate::lifecycle::Tasks;

/// Customer whom the first service refuses.
const REFUSED_CUSTOMER: &str = "refuse-me";
/// Customer for whom nobody answers.
const IGNORED_CUSTOMER: &str = "ignore-me";
/// Record ids remembered so that a repeated record is answered once; the oldest are forgotten.
const ANSWERED_MAX: usize = 100_000;
/// Longest wait for a record, so that due answers and the stop are seen.
const POLL_MAX: Duration = Duration::from_millis(20);
/// How long the broker may take to say which partitions a topic has.
const METADATA_LIMIT: Duration = Duration::from_secs(10);

/// Reads orders and answers them.
pub(super) struct Service {
    name: String,
    desks: Vec<Desk>,
}

/// What a service does for one route.
struct Desk {
    orders: String,
    /// CloudEvents type of the records that are orders.
    order_kind: String,
    replies: String,
    yes: String,
    /// Absent: this service never refuses on this route.
    no: Option<String>,
}

impl Service {
    /// One service for each kind of reply that routes ask for, by its place in `all_of`.
    pub(super) fn of_routes(routes: &[RouteConfig]) -> Vec<Self> {
        let most = routes.iter().filter_map(|route| route.replies.as_ref()).map(|replies| replies.all_of.len()).max();
        let desks = |place: usize| routes.iter().filter_map(move |route| Desk::of_route(route, place)).collect();
        (0..most.unwrap_or(0)).map(|place| Self { name: name(place), desks: desks(place) }).collect()
    }

    /// Runs it on a thread of its own until the tasks stop.
    pub(super) fn start(self, brokers: &str, answer_within: Duration, tasks: &Tasks) -> Result<(), DevError> {
        let service = self.name.clone();
        let failed = |source| DevError::Service { service: service.clone(), source };
        let consumer = consumer(&self.name, brokers).map_err(failed)?;
        let producer = producer(&self.name, brokers).map_err(failed)?;
        let stop = tasks.stop_token();
        let at_work = AtWork {
            service: self,
            consumer,
            producer,
            answer_within,
            answered: Answered::default(),
            due: BinaryHeap::new(),
        };
        tasks.spawn("sample-service", async move {
            if let Err(error) = tokio::task::spawn_blocking(move || at_work.run(&stop)).await {
                warn!("a sample service ended: {error}");
            }
        });
        Ok(())
    }
}

fn name(place: usize) -> String {
    match place {
        0 => "consumer-service".to_owned(),
        1 => "order-service".to_owned(),
        more => format!("sample-service-{}", more + 1),
    }
}

impl Desk {
    fn of_route(route: &RouteConfig, place: usize) -> Option<Self> {
        let replies = route.replies.as_ref()?;
        // One record per service, as far as there are so many.
        let own = route.records.get(place).or(route.records.last());
        let topic = own.map(|own| &own.topic).or(route.topic.as_ref())?;
        let kind = own.and_then(|own| own.event_type.as_ref()).unwrap_or(&route.event_type);
        Some(Self {
            orders: topic.clone(),
            order_kind: kind.clone(),
            replies: replies.topic.clone(),
            yes: replies.all_of.get(place)?.clone(),
            no: replies.any_of_rejects.get(place).filter(|_| place == 0).cloned(),
        })
    }
}

fn consumer(name: &str, brokers: &str) -> KafkaResult<BaseConsumer<Quiet>> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("client.id", name)
        // Required by librdkafka; nothing is committed and no group is joined.
        .set("group.id", name)
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", FETCH_WAIT_MS);
    BaseConsumer::from_config_and_context(&settings, Quiet)
}

fn producer(name: &str, brokers: &str) -> KafkaResult<ThreadedProducer<Quiet>> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", brokers)
        .set("client.id", name)
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1");
    ThreadedProducer::from_config_and_context(&settings, Quiet)
}

/// A service with its connections.
struct AtWork {
    service: Service,
    consumer: BaseConsumer<Quiet>,
    producer: ThreadedProducer<Quiet>,
    answer_within: Duration,
    answered: Answered,
    due: BinaryHeap<Reverse<Due>>,
}

/// When an answer is to be sent; the earliest comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    answer: Answer,
}

/// A reply as it will be sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    topic: String,
    kind: String,
    order_id: String,
    key: Vec<u8>,
    traceparent: Option<String>,
    body: String,
}

impl AtWork {
    fn run(mut self, stop: &CancellationToken) {
        while let Err(error) = self.assign() {
            debug!("{} cannot read its topics yet: {error}", self.service.name);
            if stop.is_cancelled() {
                return;
            }
            std::thread::sleep(POLL_MAX);
        }
        while !stop.is_cancelled() {
            let wait = match self.due.peek() {
                Some(Reverse(next)) => next.at.saturating_duration_since(Instant::now()).min(POLL_MAX),
                None => POLL_MAX,
            };
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    let order = Order::of_message(&message);
                    drop(message);
                    self.consider(&order);
                }
                Some(Err(error)) => debug!("{}: {error}", self.service.name),
                None => {}
            }
            self.send_due();
        }
    }

    /// Takes every partition of the topics, from its beginning.
    fn assign(&self) -> KafkaResult<()> {
        let mut partitions = TopicPartitionList::new();
        let mut topics: Vec<_> = self.service.desks.iter().map(|desk| desk.orders.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), METADATA_LIMIT)?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
            }
        }
        self.consumer.assign(&partitions)
    }

    fn consider(&mut self, order: &Order) {
        if order.is_ignored() || !self.answered.is_new(&order.record_id) {
            return;
        }
        for desk in &self.service.desks {
            if desk.orders == order.topic && desk.order_kind == order.kind {
                let at = Instant::now() + self.answer_within.mul_f64(fastrand::f64());
                self.due.push(Reverse(Due { at, answer: answer(desk, order) }));
            }
        }
    }

    fn send_due(&mut self) {
        while let Some(Reverse(next)) = self.due.peek()
            && next.at <= Instant::now()
        {
            match self.send(&next.answer) {
                // Later, when the queue has room.
                Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => return,
                Err(error) => warn!("{} cannot answer: {error}", self.service.name),
                Ok(()) => {}
            }
            self.due.pop();
        }
    }

    fn send(&self, answer: &Answer) -> KafkaResult<()> {
        let source = format!("/services/{}", self.service.name);
        // The same for a repeated record, so that the gateway can tell a repeated answer.
        let id = format!("{}/{}", answer.order_id, answer.kind);
        let mut headers = OwnedHeaders::new();
        for (key, value) in [
            ("content-type", "application/json"),
            ("ce_specversion", "1.0"),
            ("ce_id", &id),
            ("ce_source", &source),
            ("ce_type", &answer.kind),
            ("ce_subject", &answer.order_id),
        ] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        if let Some(traceparent) = &answer.traceparent {
            headers = headers.insert(Header { key: "traceparent", value: Some(traceparent) });
        }
        let record = BaseRecord::to(&answer.topic).key(&answer.key).payload(&answer.body).headers(headers);
        self.producer.send(record).map_err(|(error, _)| error)
    }
}

/// What a service sees of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Order {
    topic: String,
    record_id: String,
    kind: String,
    order_id: String,
    key: Vec<u8>,
    customer: String,
    traceparent: Option<String>,
}

impl Order {
    fn of_message(message: &BorrowedMessage<'_>) -> Self {
        let header = |name: &str| {
            let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let value = headers.find(|header| header.key == name)?.value?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let body: Value = serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default();
        let key = message.key().unwrap_or_default();
        let customer = match body.get("customerId").and_then(Value::as_str) {
            Some(customer) => customer.to_owned(),
            None => String::from_utf8_lossy(key).into_owned(),
        };
        Self {
            topic: message.topic().to_owned(),
            record_id: header("ce_id").unwrap_or_default(),
            kind: header("ce_type").unwrap_or_default(),
            order_id: header("ce_subject").unwrap_or_default(),
            key: key.to_vec(),
            customer,
            traceparent: header("traceparent"),
        }
    }

    /// Not an order, or one that nobody answers.
    fn is_ignored(&self) -> bool {
        self.order_id.is_empty() || self.record_id.is_empty() || self.customer == IGNORED_CUSTOMER
    }
}

fn answer(desk: &Desk, order: &Order) -> Answer {
    let refusal = desk.no.as_ref().filter(|_| order.customer == REFUSED_CUSTOMER);
    let body = match refusal {
        None => json!({ "orderId": order.order_id }),
        Some(_) => json!({
            "orderId": order.order_id,
            "problems": [{
                "code": "customer-refused",
                "title": "The customer may not order",
                "detail": "The sample service refuses this customer, so that a refusal can be seen.",
                "pointer": "/customerId",
            }],
        }),
    };
    Answer {
        topic: desk.replies.clone(),
        kind: refusal.unwrap_or(&desk.yes).clone(),
        order_id: order.order_id.clone(),
        key: order.key.clone(),
        traceparent: order.traceparent.clone(),
        body: body.to_string(),
    }
}

/// The record ids answered last.
#[derive(Default)]
struct Answered {
    known: HashSet<String>,
    in_order: VecDeque<String>,
}

impl Answered {
    fn is_new(&mut self, record_id: &str) -> bool {
        if !self.known.insert(record_id.to_owned()) {
            return false;
        }
        self.in_order.push_back(record_id.to_owned());
        if self.in_order.len() > ANSWERED_MAX
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}
