//! The composition root: configuration → parts → tasks → drain. The only file that knows all others.

mod parts;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Config;
use crate::dev::DevBroker;
use crate::http::PublicState;
use crate::http::admin::AdminState;
use crate::http::listener::{Limits, Listener};
use crate::lifecycle::{Condition, Readiness, Tasks};
use crate::outbox::Outbox;
use crate::telemetry::Metrics;
use crate::{cli, dev};

use parts::{Carrying, Flows};

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything in one process, with a broker in memory and sample services.
    Dev,
    /// The gateway alone, on a broker that is there.
    Run,
}

/// Runs with a configuration, which was read from `path`, until SIGTERM or SIGINT, or until a part fails.
///
/// # Errors
///
/// A part could not be started, or broke.
pub async fn run(config: Config, path: &Path, mode: Mode) -> anyhow::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let node = Gateway::start(config, path, mode).await?;
    node.announce(mode)?;
    let failed = tokio::select! {
        _ = interrupted.recv() => false,
        _ = terminated.recv() => false,
        () = node.failed.cancelled() => true,
    };
    info!("shutting down");
    tokio::select! {
        () = node.stop() => {}
        // A second signal cuts short.
        _ = interrupted.recv() => warn!("cut short: what was in flight goes on at the next start"),
        _ = terminated.recv() => warn!("cut short: what was in flight goes on at the next start"),
    }
    anyhow::ensure!(!failed, "a part of the gateway failed; the log says which");
    Ok(())
}

/// A running node.
pub struct Gateway {
    /// Where orders come in.
    pub address: SocketAddr,
    /// Where the operator looks.
    pub admin_address: SocketAddr,
    /// Where the broker is.
    pub brokers: String,
    /// Cancelled when a part ended that should not have.
    pub failed: CancellationToken,
    config: Config,
    readiness: Arc<Readiness>,
    listening: Tasks,
    administration: Tasks,
    carrying: Tasks,
    services: Tasks,
    // Dropped last: everything above talks to it.
    _broker: Option<DevBroker>,
}

impl Gateway {
    /// Opens, compiles, connects and listens; returns once requests are served.
    ///
    /// # Errors
    ///
    /// What could not be opened, compiled, connected or bound, and what to do about it.
    pub async fn start(mut config: Config, path: &Path, mode: Mode) -> anyhow::Result<Self> {
        let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new()));
        let readiness = Arc::new(Readiness::default());
        readiness.set("start", Condition::Waiting("parts are starting".to_owned()));
        let failed = CancellationToken::new();
        let [listening, administration, carrying, services] = [(); 4].map(|()| Tasks::new(failed.clone()));

        // Bound first: a port in use should not cost a compilation.
        let http = Listener::bind(config.http.listen, Limits::of(&config.http))
            .await
            .with_context(|| format!("listen on http.listen = {}", config.http.listen))?;
        let admin = Listener::bind(config.admin.listen, Limits::of(&config.http))
            .await
            .with_context(|| format!("listen on admin.listen = {}", config.admin.listen))?;
        let (address, admin_address) = (http.local_addr()?, admin.local_addr()?);

        let (plugins, opened) = parts::plugins(&config, path, &clock, &metrics, &readiness).await?;
        let rules = parts::rules(&config);
        let outbox = Outbox::open(&config.database, rules, clock.clone(), Arc::clone(&metrics)).await?;
        let broker = match mode {
            Mode::Dev => Some(dev::start(&config, &services)?),
            Mode::Run => None,
        };
        if let Some(broker) = &broker {
            broker.adapt(&mut config.kafka);
            let forgotten = outbox.forget_broker(config.dev.republish_bytes_max.0).await?;
            if forgotten > 0 {
                info!("the development broker starts empty: {forgotten} unanswered orders go out again");
            }
        }
        let flows = Flows::new(&config, &outbox, &clock, &metrics);
        let host = plugins.clone();
        let carry = Carrying { config: &config, mode, outbox: &outbox, plugins, clock: &clock, metrics: &metrics };
        carry.spawn(&carrying, &readiness).await?;
        let catalog = parts::watch(opened, host, &outbox, &carrying)?;
        parts::spawn_upkeep(&config, &outbox, &clock, &metrics, &carrying);

        let routes: Arc<[_]> = config.route.clone().into();
        let limits = Arc::new(config.http.clone());
        let public = PublicState {
            intake: flows.intake,
            status: flows.status.clone(),
            routes: Arc::clone(&routes),
            http: Arc::clone(&limits),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            stop: listening.stop_token(),
        };
        let router = crate::http::public_router(public).context("make the routes")?;
        let serving = http.serve(router, listening.clone(), Arc::clone(&metrics), listening.stop_token());
        listening.spawn("http", serving);
        let state = AdminState {
            admin: flows.admin,
            catalog,
            status: flows.status,
            metrics: Arc::clone(&metrics),
            readiness: Arc::clone(&readiness),
            routes,
            http: limits,
            address: admin_address,
            public_address: address,
            stop: administration.stop_token(),
        };
        let router = crate::http::admin::router(state);
        // Its connections are not counted among the public ones.
        let aside = Arc::new(Metrics::new());
        let serving = admin.serve(router, administration.clone(), aside, administration.stop_token());
        administration.spawn("admin", serving);

        readiness.set("start", Condition::Ready);
        let brokers = config.kafka.brokers.clone();
        Ok(Self {
            address,
            admin_address,
            brokers,
            failed,
            config,
            readiness,
            listening,
            administration,
            carrying,
            services,
            _broker: broker,
        })
    }

    /// Says where everything is.
    fn announce(&self, mode: Mode) -> anyhow::Result<()> {
        let (http, admin) = (self.address, self.admin_address);
        info!(%http, %admin, brokers = self.brokers, "serving orders on {http}");
        if mode == Mode::Dev {
            let text = cli::dev::banner(http, admin, &self.brokers, &self.config.database.url);
            let mut out = std::io::stdout();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())?;
        }
        Ok(())
    }

    /// Stops accepting, finishes what is in flight, flushes, ends; each phase within its limit.
    pub async fn stop(&self) {
        let limits = &self.config.shutdown;
        self.readiness.set("start", Condition::Waiting("shutting down".to_owned()));
        self.listening.stop("requests", limits.requests.0).await;
        self.carrying.stop("relay", limits.relay.0 + limits.flush.0).await;
        self.services.stop("sample services", Duration::from_secs(1)).await;
        self.administration.stop("administration", Duration::from_secs(1)).await;
    }
}
