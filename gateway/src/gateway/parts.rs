//! Makes the parts of a node from its configuration, and starts those that carry orders.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::info;
use uuid::Uuid;

use super::Mode;
use crate::admin::{Admin, PluginSummary};
use crate::clock::Clock;
use crate::config::Config;
use crate::intake::Intake;
use crate::janitor::Janitor;
use crate::lifecycle::{Condition, Readiness, Tasks};
use crate::outbox::Outbox;
use crate::plugin::{Generation, PluginError, PluginHost, PluginOrigin, PluginSource, bundled};
use crate::publisher::Publisher;
use crate::relay::{Decider, HandOver, Routes, Sender};
use crate::replies::Replies;
use crate::route::{ReplyRules, RouteRules, Rules};
use crate::status::Status;
use crate::subscriber::Subscriber;
use crate::telemetry::Metrics;

/// What the listeners talk to.
pub(super) struct Flows {
    pub(super) intake: Intake,
    pub(super) status: Status,
    pub(super) admin: Admin,
}

impl Flows {
    pub(super) fn new(
        config: &Config,
        outbox: &Outbox,
        plugins: &PluginHost,
        clock: &Clock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let intake = Intake::new(outbox.clone(), config.intake.clone(), Arc::clone(metrics));
        let summaries = plugins.generation().plugins().into_iter().map(|plugin| PluginSummary {
            routes: config
                .route
                .iter()
                .filter(|route| route.plugins.iter().any(|name| **name == *plugin.name))
                .map(|route| route.path.clone())
                .collect(),
            name: plugin.name,
            digest: plugin.digest,
            origin: match plugin.origin {
                PluginOrigin::Bundled => "bundled".to_owned(),
                PluginOrigin::File(path) => path.display().to_string(),
            },
            bytes: plugin.bytes,
        });
        let admin = Admin::new(outbox.clone(), summaries.collect(), clock.clone());
        Self { intake, status: Status::new(outbox.clone()), admin }
    }
}

/// What the configuration means for the orders of each route.
pub(super) fn rules(config: &Config) -> Rules {
    let rules = config.route.iter().map(|route| {
        let replies = route.replies.as_ref().map(|replies| ReplyRules {
            topic: replies.topic.clone(),
            all_of: replies.all_of.clone(),
            any_of_rejects: replies.any_of_rejects.clone(),
            deadline: replies.deadline.0,
            grace: config.replies.grace.0,
        });
        (Arc::from(route.path.as_str()), RouteRules { replies, has_outcomes: route.outcomes.is_some() })
    });
    rules.collect()
}

/// Reads and compiles every plugin that a route names; a file takes the place of the bundled one of its name.
pub(super) async fn plugins(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<PluginHost> {
    let mut names: Vec<&str> = config.route.iter().flat_map(|route| &route.plugins).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let sources = names.into_iter().map(|name| source(config, name)).collect::<anyhow::Result<Vec<_>>>()?;
    let (limits, routes) = (config.plugins.clone(), config.route.clone());
    let started = tokio::task::spawn_blocking(move || {
        let host = PluginHost::start(&limits, metrics)?;
        let loaded = host.load_all(&limits, sources)?;
        let chains = routes.iter().map(|route| (route.path.as_str(), route.plugins.as_slice()));
        host.publish(Generation::new(1, loaded, chains));
        Ok::<_, PluginError>(host)
    });
    Ok(started.await.context("compile plugins")??)
}

fn source(config: &Config, name: &str) -> anyhow::Result<PluginSource> {
    let table = config.plugins.config.get(name).cloned().unwrap_or_default();
    let config_json = serde_json::to_vec(&table).with_context(|| format!("plugins.config.{name} as JSON"))?;
    let file = config.plugins.dir.join(format!("{name}.wasm"));
    let (origin, component) = if file.exists() {
        let size = std::fs::metadata(&file).with_context(|| format!("read plugin {}", file.display()))?.len();
        anyhow::ensure!(
            size <= config.plugins.file_bytes_max.0 as u64,
            "plugin {} has {size} bytes, plugins.file_bytes_max is {}",
            file.display(),
            config.plugins.file_bytes_max
        );
        let bytes = std::fs::read(&file).with_context(|| format!("read plugin {}", file.display()))?;
        (PluginOrigin::File(file), Bytes::from(bytes))
    } else {
        let found = bundled().into_iter().find(|(bundled, _)| *bundled == name);
        let (_, bytes) = found
            .with_context(|| format!("no plugin `{name}`: it is not bundled, and {} does not exist", file.display()))?;
        (PluginOrigin::Bundled, Bytes::from_static(bytes))
    };
    Ok(PluginSource { name: name.to_owned(), origin, component, config_json })
}

/// Starts what keeps the database in order: retention, and the watch over the writer.
pub(super) fn spawn_upkeep(config: &Config, outbox: &Outbox, clock: &Clock, metrics: &Arc<Metrics>, tasks: &Tasks) {
    let (written, stop) = (outbox.clone(), tasks.stop_token());
    // Ends early, and so ends the node, when nothing can be written any more.
    tasks.spawn("outbox-writer", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = written.writer_ended() => {}
        }
    });
    let janitor = Janitor {
        outbox: outbox.clone(),
        limits: config.retention.clone(),
        clock: clock.clone(),
        metrics: Arc::clone(metrics),
    };
    tasks.spawn("janitor", janitor.run(tasks.stop_token()));
}

/// What carries orders from the outbox to Kafka and replies back.
pub(super) struct Carrying<'a> {
    pub(super) config: &'a Config,
    pub(super) mode: Mode,
    pub(super) outbox: &'a Outbox,
    pub(super) plugins: PluginHost,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
}

impl Carrying<'_> {
    /// Takes the slots over and starts the relay and, where replies are expected, their reader and the watch.
    pub(super) async fn spawn(self, tasks: &Tasks, readiness: &Arc<Readiness>) -> anyhow::Result<()> {
        let Self { config, outbox, clock, metrics, .. } = &self;
        let owner = Uuid::now_v7().to_string();
        let tenures = outbox.take_over(owner.clone()).await.context("take the slots over")?;
        info!(node.id = owner, "owner of {} slots", tenures.len());

        let (deliveries, delivered) = mpsc::unbounded_channel();
        let publisher = Publisher::connect(&config.kafka, &config.kafka.brokers, deliveries, Arc::clone(metrics))?;
        let hand_over = HandOver::default();
        let sender = Sender::new(
            (*outbox).clone(),
            publisher,
            delivered,
            config.relay.clone(),
            hand_over.clone(),
            Arc::clone(readiness),
        );
        let stop = tasks.stop_token();
        tasks.spawn("sender", sender.run(tenures.clone(), stop, config.shutdown.flush.0));

        let by_path = config.route.iter().map(|route| (Arc::from(route.path.as_str()), route.clone()));
        let routes: Routes = Arc::new(by_path.collect());
        let plugins = self.plugins.clone();
        let decider = Decider::new(
            (*outbox).clone(),
            plugins,
            routes,
            config.relay.clone(),
            (*clock).clone(),
            Arc::clone(metrics),
            hand_over,
        );
        readiness.set("relay", Condition::Ready);
        tasks.spawn("decider", decider.run(tenures, Arc::clone(readiness), tasks.stop_token()));
        self.spawn_replies(tasks, readiness, &owner)
    }

    fn spawn_replies(&self, tasks: &Tasks, readiness: &Arc<Readiness>, start: &str) -> anyhow::Result<()> {
        let Self { config, outbox, clock, metrics, .. } = self;
        let mut topics: Vec<String> =
            config.route.iter().filter_map(|route| Some(route.replies.as_ref()?.topic.clone())).collect();
        topics.sort_unstable();
        topics.dedup();
        if topics.is_empty() {
            return Ok(());
        }
        let replies = Arc::new(Replies {
            outbox: (*outbox).clone(),
            subscriber: Subscriber::connect(&config.kafka, &config.kafka.brokers, &topics, Arc::clone(metrics))?,
            topics,
            limits: config.replies.clone(),
            incarnation: if self.mode == Mode::Dev { start.into() } else { "".into() },
            clock: (*clock).clone(),
            metrics: Arc::clone(metrics),
            readiness: Arc::clone(readiness),
        });
        readiness.set("replies", Condition::Ready);
        tasks.spawn("reply-reader", Arc::clone(&replies).read(tasks.stop_token()));
        tasks.spawn("deadline-watch", replies.watch(tasks.stop_token()));
        Ok(())
    }
}
