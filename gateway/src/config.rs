//! The configuration: what it consists of. How it is put together is in `load`, what it must hold in `check`.

pub mod check;
pub mod hot;
pub mod load;
pub mod problem;
mod redact;
pub mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use problem::{ConfigErrors, Origin, Problem};
pub use units::{ByteSize, Span};

use crate::order::projection::Projection;

/// Every key, with the defaults of `config/gateway.toml`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: HttpConfig,
    pub admin: AdminConfig,
    pub database: DatabaseConfig,
    pub node: NodeConfig,
    pub intake: IntakeConfig,
    pub relay: RelayConfig,
    pub plugins: PluginsConfig,
    pub kafka: KafkaConfig,
    pub replies: RepliesConfig,
    pub retention: RetentionConfig,
    pub shutdown: ShutdownConfig,
    pub telemetry: TelemetryConfig,
    pub dev: DevConfig,
    pub route: Vec<RouteConfig>,
}

/// The public listener and its limits.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    #[serde(deserialize_with = "units::address")]
    pub listen: SocketAddr,
    pub connections_max: usize,
    pub first_byte_timeout: Span,
    pub header_timeout: Span,
    pub header_bytes_max: ByteSize,
    pub body_timeout: Span,
    pub body_bytes_max: ByteSize,
    pub write_stall_timeout: Span,
    pub keep_alive_timeout: Span,
    pub json_depth_max: usize,
    pub order_key_bytes_max: usize,
    pub idempotency_key_bytes_max: usize,
    pub batch_lines_max: usize,
    pub batch_bytes_max: ByteSize,
    pub wait_max: Span,
    pub heartbeat: Span,
    pub stream_retry: Span,
    pub stream_orders_max: usize,
    pub list_limit_default: usize,
    pub list_limit_max: usize,
}

/// The operator's listener.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    #[serde(deserialize_with = "units::address")]
    pub listen: SocketAddr,
}

/// Where orders are kept.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite://PATH` or `postgres://…`; a password in it is never shown.
    pub url: String,
    pub readers: usize,
    pub queue_max: usize,
    pub commit_items_max: usize,
    pub commit_bytes_max: ByteSize,
    pub cache_bytes: ByteSize,
    pub connections: u32,
    pub lanes: usize,
    pub answer_timeout: Span,
    pub prepared_statements: bool,
    pub partition_transactions: u64,
}

/// How this node shares the work with others.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    pub lease: Span,
    pub drain: Span,
}

/// How many orders may wait.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeConfig {
    pub backlog_max: u64,
    pub retry_after: Span,
}

/// Deciding and publishing.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    pub poll_interval: Span,
    pub pass_entries_max: usize,
    pub pass_bytes_max: ByteSize,
    pub in_flight_records_max: usize,
    pub in_flight_bytes_max: ByteSize,
    pub patience: Span,
    pub rest_max: Span,
    pub retry_first: Span,
    pub retry_max: Span,
    pub hold_max: Span,
}

/// Plugins and the limits each runs under.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PluginsConfig {
    pub dir: PathBuf,
    /// Plugins that every route asks, behind its own; loading has put them there.
    pub every_route: Vec<String>,
    pub state_dir: PathBuf,
    pub poll_interval: Span,
    /// minisign public keys; where there is one, a file without a right signature is not served.
    pub signers: Vec<String>,
    pub threads: usize,
    pub batch_orders_max: usize,
    pub batch_bytes_max: ByteSize,
    pub memory_bytes_max: ByteSize,
    pub file_bytes_max: ByteSize,
    pub compile_time_max: Span,
    pub compile_memory_max: ByteSize,
    pub cache_bytes_max: ByteSize,
    pub time_per_order: Span,
    pub time_per_batch_min: Span,
    pub time_per_batch_max: Span,
    pub wall_per_batch_max: Span,
    pub output_bytes_max: ByteSize,
    pub patch_operations_max: usize,
    pub patch_bytes_max: ByteSize,
    pub problems_max: usize,
    pub text_bytes_max: ByteSize,
    pub log_lines_per_order_max: usize,
    pub log_line_bytes_max: ByteSize,
    pub host_calls_per_order_max: usize,
    pub metric_names_max: usize,
    pub metric_calls_per_order_max: usize,
    pub lookups_per_order_max: usize,
    pub lookup_keys_max: usize,
    pub tables_bytes_max: ByteSize,
    pub nice: u32,
    pub poison_faults: u32,
    pub rollback_fault_share: f64,
    pub rollback_orders_min: usize,
    /// What each plugin gets at its start, by plugin name.
    pub config: BTreeMap<String, toml::Table>,
    /// Lookup tables: JSON files by name.
    pub tables: BTreeMap<String, PathBuf>,
    /// What a plugin may do, by plugin name.
    pub policy: BTreeMap<String, PluginPolicy>,
}

/// What the operator lets one plugin do; every key may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PluginPolicy {
    /// Granted besides `log`, which every plugin has.
    pub grants: Vec<Capability>,
    pub on_fault: OnFault,
    /// JSON Pointers, with all below them; over what the plugin's manifest says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Vec<String>>,
    /// Over `plugins.memory_bytes_max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes_max: Option<ByteSize>,
    /// Over `plugins.time_per_order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_per_order: Option<Span>,
}

/// What a plugin may call in the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    Log,
    Metrics,
    Lookup,
}

impl Capability {
    /// The word in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Metrics => "metrics",
            Self::Lookup => "lookup",
        }
    }
}

impl std::fmt::Display for Capability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of an order that a plugin failed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFault {
    /// It is held and judged again.
    #[default]
    Hold,
    /// It is refused for good.
    Reject,
    /// It goes on without what the plugin would have done, and its record says so.
    SkipAndMark,
}

/// The broker and what librdkafka is told.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port,…`; empty only for `sluice dev`.
    pub brokers: String,
    pub group: String,
    pub message_bytes_max: ByteSize,
    /// librdkafka's own settings, for producer and consumer.
    pub properties: BTreeMap<String, String>,
    pub producer: BTreeMap<String, String>,
    pub consumer: BTreeMap<String, String>,
}

/// Taking replies in.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RepliesConfig {
    pub grace: Span,
    pub batch_max: usize,
    pub rest_max: Span,
    pub watch_interval: Span,
    /// Name of this node among the members of the group; empty: another one at every start.
    pub member: String,
    pub session_timeout: Span,
}

/// How long finished things are kept.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    pub orders: Span,
    pub entries: Span,
    pub idempotency: Span,
    pub parked_replies: Span,
    pub step_rows_max: usize,
    pub interval: Span,
}

/// How long each phase of a shutdown may take.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownConfig {
    pub requests: Span,
    pub relay: Span,
    pub flush: Span,
}

/// Logs.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A level, or `tracing` directives such as `info,sluice::relay=debug`.
    pub log: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// What only `sluice dev` uses.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DevConfig {
    pub partitions: i32,
    pub answer_within: Span,
    pub republish_bytes_max: ByteSize,
}

/// A kind of order: where it comes in and where it goes.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    pub path: String,
    /// Topic of the order's one record; absent where `records` lists several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// JSON Pointer (RFC 6901) to the order key.
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub plugins: Vec<String>,
    /// CloudEvents `type` of the order's records.
    #[serde(default = "default_event_type", rename = "type")]
    pub event_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replies: Option<RouteReplies>,
    /// The records of an order, where it has several; they go out in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordConfig>,
}

impl RouteConfig {
    /// The topics of the order's records.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topic.iter().chain(self.records.iter().map(|record| &record.topic)).map(String::as_str)
    }
}

/// One of several records of an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecordConfig {
    /// Tells it from the others of the order, also in its `ce_id`.
    pub name: String,
    pub topic: String,
    /// CloudEvents `type`; absent: that of the route.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Which members of the order it has; absent: the whole order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Projection>,
}

/// Which replies make the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteReplies {
    pub topic: String,
    pub all_of: Vec<String>,
    #[serde(default)]
    pub any_of_rejects: Vec<String>,
    pub deadline: Span,
}

fn default_event_type() -> String {
    "OrderCreated".to_owned()
}
