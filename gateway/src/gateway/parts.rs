//! Makes the parts of a node from its configuration, and starts those that carry orders.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::info;

use super::Mode;
use crate::admin::Admin;
use crate::catalog::{self, Catalog, Opened};
use crate::clock::Clock;
use crate::config::Config;
use crate::intake::Intake;
use crate::janitor::Janitor;
use crate::lifecycle::{Condition, Readiness, Tasks};
use crate::outbox::Outbox;
use crate::ownership::Ownership;
use crate::plugin::{self, PluginHost};
use crate::publisher::Publisher;
use crate::relay::{Decider, HandOver, Routes, Sender, Tender};
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
    pub(super) fn new(config: &Config, outbox: &Outbox, clock: &Clock, metrics: &Arc<Metrics>) -> Self {
        let intake = Intake::new(outbox.clone(), config.intake.clone(), Arc::clone(metrics));
        let admin = Admin::new(outbox.clone(), clock.clone());
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
pub(super) async fn plugins(
    config: &Config,
    config_path: &Path,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    readiness: &Arc<Readiness>,
) -> anyhow::Result<(PluginHost, Opened)> {
    let (config, config_path) = (config.clone(), config_path.to_owned());
    let (clock, metrics, readiness) = (clock.clone(), Arc::clone(metrics), Arc::clone(readiness));
    let started = tokio::task::spawn_blocking(move || {
        let host = PluginHost::start(&config.plugins, Arc::clone(&metrics))?
            .compiling(&config.plugins.state_dir, plugin::this_program());
        let parts = catalog::Parts { config, config_path, host: host.clone(), clock, metrics, readiness };
        Ok::<_, anyhow::Error>((host, Catalog::open(parts)?))
    });
    started.await.context("compile plugins")?
}

/// Starts watching the plugins' folder, the configuration and the health of what serves; SIGHUP looks at once.
pub(super) fn watch(opened: Opened, host: PluginHost, outbox: &Outbox, tasks: &Tasks) -> anyhow::Result<Catalog> {
    let catalog = opened.watch(outbox.clone())?;
    let mut hang_up = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let (watching, stop) = (catalog.clone(), tasks.stop_token());
    tasks.spawn("catalog", async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = watching.ended() => return,
                _ = hang_up.recv() => watching.hint(),
                plugin = host.broken_plugin() => {
                    let (info, health) = (plugin.info(), plugin.health());
                    let why = format!("it failed on {} of the last {} orders", health.faulted, health.judged);
                    watching.withdraw(info.name.to_string(), info.digest.to_string(), why);
                }
            }
        }
    });
    Ok(catalog)
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
    /// Takes this node's share of the slots and starts the relay and, where replies are expected, their reader and the
    /// watch.
    pub(super) async fn spawn(self, tasks: &Tasks, readiness: &Arc<Readiness>) -> anyhow::Result<()> {
        let Self { config, outbox, clock, metrics, .. } = &self;
        info!(node.id = outbox.node(), "this node is {}", outbox.node());
        let ownership = Ownership::default();
        let tender = Tender {
            outbox: (*outbox).clone(),
            limits: config.node.clone(),
            ownership: ownership.clone(),
            clock: (*clock).clone(),
            metrics: Arc::clone(metrics),
            readiness: Arc::clone(readiness),
        };
        let pause = tender.begin(config.database.answer_timeout.0).await.context("take slots over")?;

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
        tasks.spawn("sender", sender.run(ownership.clone(), stop, config.shutdown.flush.0));

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
        tasks.spawn("decider", decider.run(ownership.clone(), Arc::clone(readiness), tasks.stop_token()));
        tasks.spawn("tender", tender.run(pause, tasks.stop_token()));
        self.spawn_replies(tasks, readiness, ownership)
    }

    fn spawn_replies(&self, tasks: &Tasks, readiness: &Arc<Readiness>, ownership: Ownership) -> anyhow::Result<()> {
        let Self { config, outbox, metrics, .. } = self;
        let mut topics: Vec<String> =
            config.route.iter().filter_map(|route| Some(route.replies.as_ref()?.topic.clone())).collect();
        topics.sort_unstable();
        topics.dedup();
        if topics.is_empty() {
            return Ok(());
        }
        let replies = Arc::new(Replies {
            outbox: (*outbox).clone(),
            subscriber: Subscriber::connect(
                &config.kafka,
                &config.replies,
                &config.kafka.brokers,
                &topics,
                Arc::clone(metrics),
            )?,
            ownership,
            topics,
            limits: config.replies.clone(),
            incarnation: if self.mode == Mode::Dev { outbox.node().into() } else { "".into() },
            metrics: Arc::clone(metrics),
            readiness: Arc::clone(readiness),
        });
        readiness.set("replies", Condition::Ready);
        tasks.spawn("reply-reader", Arc::clone(&replies).read(tasks.stop_token()));
        tasks.spawn("deadline-watch", replies.watch(tasks.stop_token()));
        Ok(())
    }
}
