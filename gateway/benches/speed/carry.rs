//! The relay on a development broker, in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice::clock::Clock;
use sluice::config::Config;
use sluice::lifecycle::{Readiness, Tasks};
use sluice::outbox::Outbox;
use sluice::plugin::PluginHost;
use sluice::publisher::Publisher;
use sluice::relay::{Decider, HandOver, Sender};
use sluice::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Time for a producer to connect, which is not measured.
pub(crate) const CONNECTING: Duration = Duration::from_secs(1);

/// A relay that is connected and does not run yet.
pub(crate) struct Relay {
    decider: Decider,
    sender: Sender,
    tenures: Vec<sluice::outbox::Tenure>,
    readiness: Arc<Readiness>,
}

impl Relay {
    pub(crate) async fn connect(
        config: &Config,
        outbox: &Outbox,
        plugins: PluginHost,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let tenures = outbox.take_over("bench".to_owned()).await?;
        let (deliveries, delivered) = mpsc::unbounded_channel();
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
        Ok(Self { decider, sender, tenures, readiness })
    }

    /// Lets it run, until the tasks are stopped.
    pub(crate) fn run(self) -> Tasks {
        let tasks = Tasks::new(CancellationToken::new());
        let Self { decider, sender, tenures, readiness } = self;
        tasks.spawn("sender", sender.run(tenures.clone(), tasks.stop_token(), Duration::from_secs(5)));
        tasks.spawn("decider", decider.run(tenures, readiness, tasks.stop_token()));
        tasks
    }
}
