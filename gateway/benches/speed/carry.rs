//! The relay alone, in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice::clock::Clock;
use sluice::config::Config;
use sluice::lifecycle::{Readiness, Tasks};
use sluice::order::Slot;
use sluice::outbox::Outbox;
use sluice::ownership::Ownership;
use sluice::plugin::PluginHost;
use sluice::publisher::{Delivery, Publisher};
use sluice::relay::{Decider, HandOver, Sender};
use sluice::telemetry::Metrics;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

/// Time for a producer to connect, which is not measured.
pub(crate) const CONNECTING: Duration = Duration::from_secs(1);

/// When Kafka had a record.
pub(crate) struct Acknowledged {
    pub(crate) slot: Slot,
    pub(crate) number: i64,
    pub(crate) at: Instant,
}

/// A relay that is connected and does not run yet.
pub(crate) struct Relay {
    decider: Decider,
    sender: Sender,
    ownership: Ownership,
    readiness: Arc<Readiness>,
    watched: Option<Watched>,
}

/// Delivery reports that are looked at on their way to the sender.
struct Watched {
    reported: UnboundedReceiver<Delivery>,
    passed_on: UnboundedSender<Delivery>,
    watch: UnboundedSender<Acknowledged>,
}

impl Watched {
    async fn run(mut self, stop: CancellationToken) {
        while let Some(delivery) = self.reported.recv().await {
            let (slot, number) = (delivery.slot, delivery.number);
            if delivery.result.is_ok() {
                // Who does not look any more misses nothing.
                drop(self.watch.send(Acknowledged { slot, number, at: Instant::now() }));
            }
            if self.passed_on.send(delivery).is_err() {
                break;
            }
        }
        stop.cancelled().await;
    }
}

impl Relay {
    pub(crate) async fn connect(
        config: &Config,
        outbox: &Outbox,
        plugins: PluginHost,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        Self::connect_watched(config, outbox, plugins, clock, metrics, None).await
    }

    /// The same; what is acknowledged is told.
    pub(crate) async fn connect_watched(
        config: &Config,
        outbox: &Outbox,
        plugins: PluginHost,
        clock: Clock,
        metrics: &Arc<Metrics>,
        watch: Option<UnboundedSender<Acknowledged>>,
    ) -> anyhow::Result<Self> {
        let ownership = Ownership::default();
        ownership.hold(&outbox.tend(config.node.lease.0, Vec::new()).await?.held, None);
        let (mut deliveries, delivered) = mpsc::unbounded_channel();
        let mut watched = None;
        if let Some(watch) = watch {
            let (own, reported) = mpsc::unbounded_channel();
            watched = Some(Watched { reported, passed_on: std::mem::replace(&mut deliveries, own), watch });
        }
        let publisher = Publisher::connect(&config.kafka, &config.kafka.brokers, deliveries, Arc::clone(metrics))?;
        tokio::time::sleep(CONNECTING).await;
        let (hand_over, readiness) = (HandOver::default(), Arc::new(Readiness::default()));
        let by_path: HashMap<Arc<str>, _> =
            config.route.iter().map(|route| (Arc::from(route.path.as_str()), route.clone())).collect();
        let relay = config.relay.clone();
        let sender =
            Sender::new(outbox.clone(), publisher, delivered, relay.clone(), hand_over.clone(), readiness.clone());
        let decider =
            Decider::new(outbox.clone(), plugins, Arc::new(by_path), relay, clock, Arc::clone(metrics), hand_over);
        Ok(Self { decider, sender, ownership, readiness, watched })
    }

    /// Lets it run, until the tasks are stopped.
    pub(crate) fn run(self) -> Tasks {
        let tasks = Tasks::new(CancellationToken::new());
        self.run_in(&tasks);
        tasks
    }

    /// Lets it run among other tasks.
    pub(crate) fn run_in(self, tasks: &Tasks) {
        let Self { decider, sender, ownership, readiness, watched } = self;
        if let Some(watched) = watched {
            tasks.spawn("watch", watched.run(tasks.stop_token()));
        }
        tasks.spawn("sender", sender.run(ownership.clone(), tasks.stop_token(), Duration::from_secs(5)));
        tasks.spawn("decider", decider.run(ownership, readiness, tasks.stop_token()));
    }
}
