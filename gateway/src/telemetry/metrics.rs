//! Every metric: name, help, labels. Nothing else may name one.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    /// The matched pattern, never the path: `/orders/{id}`.
    pub route: String,
    pub method: &'static str,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginLabels {
    pub plugin: String,
    /// `accept`, `enrich`, `reject`, `retry-later` or `fault`.
    pub verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FaultLabels {
    pub plugin: String,
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CustomLabels {
    pub plugin: String,
    /// The plugin's own name for it, checked and bounded in number.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DroppedLabels {
    pub plugin: String,
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NameLabel {
    pub plugin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginInfoLabels {
    pub plugin: String,
    pub digest: String,
    pub lane: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabel {
    pub table: &'static str,
}

fn latency() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
}

fn plugin_latency() -> Histogram {
    Histogram::new([0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.25])
}

fn reload_latency() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0])
}

/// For values of which nothing is known.
fn any_value() -> Histogram {
    Histogram::new([0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6])
}

macro_rules! metrics {
    ($(#[doc = $help:literal] $field:ident: $kind:ty = $make:expr, $name:literal;)*) => {
        /// The metrics of one node.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            /// All metrics at zero.
            #[must_use]
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("sluice");
                $(let $field: $kind = $make; registry.register($name, $help.trim().trim_end_matches('.'), $field.clone());)*
                Self { registry, $($field,)* }
            }
        }
    };
}

metrics! {
    /// Requests answered on the public listener.
    http_requests: Family<HttpLabels, Counter> = Family::default(), "http_requests";
    /// Time from the request's head to its answer.
    http_request_seconds: Histogram = latency(), "http_request_seconds";
    /// Requests being answered on the public listener, long polls among them.
    http_open: Gauge = Gauge::default(), "http_requests_open";
    /// Connections open on the public listener.
    http_connections: Gauge = Gauge::default(), "http_connections";
    /// Connections closed by a limit, by which: `connections`, `first-byte`, `header`, `body`, `write-stall`.
    http_closed: Family<KindLabel, Counter> = Family::default(), "http_connections_closed";
    /// Status streams open.
    http_streams: Gauge = Gauge::default(), "http_streams";
    /// Orders taken in, by result: `accepted`, `replayed`, `key-reused`, `refused`.
    intake_orders: Family<KindLabel, Counter> = Family::default(), "intake_orders";
    /// Orders accepted and not yet on Kafka, rejected or cancelled.
    outbox_backlog: Gauge = Gauge::default(), "outbox_backlog_orders";
    /// Age of the oldest entry that is not yet decided.
    outbox_oldest_seconds: Seconds = Seconds::default(), "outbox_oldest_entry_seconds";
    /// How long a transaction that holds the reading of entries back has been open; 0 where there is none.
    outbox_stuck_seconds: Seconds = Seconds::default(), "outbox_stuck_read_seconds";
    /// Transactions committed.
    outbox_commits: Counter = Counter::default(), "outbox_commits";
    /// Commits that waited for the disk.
    outbox_syncs: Counter = Counter::default(), "outbox_syncs";
    /// Statements run by the writer.
    outbox_statements: Counter = Counter::default(), "outbox_statements";
    /// Time of a commit, with its statements.
    outbox_commit_seconds: Histogram = latency(), "outbox_commit_seconds";
    /// Transactions that failed as a whole and were tried item by item.
    outbox_commit_failures: Counter = Counter::default(), "outbox_commit_failures";
    /// Slots that this node carries.
    node_slots: Gauge = Gauge::default(), "node_slots";
    /// Nodes that live, this one included.
    nodes_live: Gauge = Gauge::default(), "nodes_live";
    /// When the leases were last renewed, as a Unix time: their age is the time since.
    node_lease_renewed: Seconds = Seconds::default(), "node_lease_renewed_timestamp_seconds";
    /// Orders in the status HELD.
    orders_held: Gauge = Gauge::default(), "orders_held";
    /// Dead letters, by kind: `order`, `record`, `reply`.
    dead_letters: Family<KindLabel, Gauge> = Family::default(), "dead_letters";
    /// Entries decided, by decision: `pass`, `reject`, `hold`, `behind`, `command`, `outcome`.
    relay_decided: Family<KindLabel, Counter> = Family::default(), "relay_decided";
    /// Passes abandoned because the database or the epoch was lost.
    relay_abandoned: Counter = Counter::default(), "relay_passes_abandoned";
    /// Calls of a plugin's chain link, by verdict, counted per order.
    plugin_orders: Family<PluginLabels, Counter> = Family::default(), "plugin_orders";
    /// Faults of a plugin, by kind: `trap`, `time`, `memory`, `output`, `contract`, `reported`.
    plugin_faults: Family<FaultLabels, Counter> = Family::default(), "plugin_faults";
    /// Wall time of one call with a batch.
    plugin_call_seconds: Family<NameLabel, Histogram> = Family::new_with_constructor(plugin_latency), "plugin_call_seconds";
    /// Counts the generations of plugins; it rises with each change of what judges orders.
    plugin_generation: Gauge = Gauge::default(), "plugin_generation";
    /// What came of changes in the plugins' folder: `served`, `staged`, `refused`, `withdrawn`, `missing`, `rolled-back`, `no-earlier-version`.
    plugin_reloads: Family<ResultLabel, Counter> = Family::default(), "plugin_reloads";
    /// From the moment a plugin's file is stable until it judges orders.
    plugin_reload_seconds: Histogram = reload_latency(), "plugin_reload_seconds";
    /// The versions of plugins that serve.
    plugin_info: Family<PluginInfoLabels, Gauge> = Family::default(), "plugin_info";
    /// What came of changes of the configuration file: `served`, `refused`, `needs-restart`.
    config_reloads: Family<ResultLabel, Counter> = Family::default(), "config_reloads";
    /// What plugins count, by plugin and the plugin's own name for it.
    plugin_custom: Family<CustomLabels, Counter> = Family::default(), "plugin_custom";
    /// Values that plugins note, by plugin and the plugin's own name for them.
    plugin_custom_observations: Family<CustomLabels, Histogram> = Family::new_with_constructor(any_value), "plugin_custom_observations";
    /// What plugins reported and was dropped, by reason: `name` (is none), `names` (too many), `value` (is none), `calls` (too many).
    plugin_custom_dropped: Family<DroppedLabels, Counter> = Family::default(), "plugin_custom_dropped";
    /// Records handed to the producer and not yet acknowledged.
    kafka_in_flight: Gauge = Gauge::default(), "kafka_records_in_flight";
    /// Delivery reports, by result: `acknowledged`, `refused`, `stopped`, `fatal`.
    kafka_deliveries: Family<KindLabel, Counter> = Family::default(), "kafka_deliveries";
    /// Producers that failed for good and were replaced.
    kafka_producers_replaced: Counter = Counter::default(), "kafka_producers_replaced";
    /// Errors met while reading replies; each is tried again.
    kafka_subscriber_errors: Counter = Counter::default(), "kafka_subscriber_errors";
    /// How often the group told this node which reply partitions to read, changed or not: each time a member came or went.
    kafka_subscriber_rebalances: Counter = Counter::default(), "kafka_subscriber_rebalances";
    /// Replies taken in, by fate: `counted`, `early`, `late`, `repeated`, `unasked`, `parked`, `poison`.
    replies: Family<KindLabel, Counter> = Family::default(), "kafka_replies";
    /// Orders that expired.
    orders_expired: Counter = Counter::default(), "orders_expired";
    /// Rows removed by retention, by table.
    retention_rows: Family<TableLabel, Counter> = Family::default(), "retention_rows";
    /// Tasks that ended early and were started again.
    task_restarts: Counter = Counter::default(), "task_restarts";
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The text that a scrape gets.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}
