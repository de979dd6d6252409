//! S23: what a refusal costs beside an acceptance, and what is accepted under three times the load.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sluice::config::{Config, Span};
use sluice::dev::DevBroker;

use super::drain::PLUGIN;
use super::load::{self, Manners, RETRY_AFTER};
use super::report::{self, Ratios};
use super::server::Server;

const SPAN: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 128;
/// Backlog at which the small gateway refuses: what it carries in a fraction of a second.
const BACKLOG: u64 = 2_000;
/// How long one load goes on for the goodput, so that those who were told to wait come again.
const LONG: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);
const BROKER_FILE: &str = "broker";

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S23: overload; orders go through order-rules to a broker in another process");
    let folder = tempfile::tempdir_in(".")?;
    let config = sluice::config::load::assemble(None, [])?;
    let broker = DevBroker::start(&config.route, config.dev.partitions)?;
    let start = |arm: &str| {
        let own = folder.path().join(arm);
        std::fs::create_dir(&own)?;
        std::fs::write(own.join(BROKER_FILE), broker.bootstrap_servers())?;
        Server::start(arm, &own)
    };
    let (mut carrying, mut full, mut small) =
        (start("gateway-carrying")?, start("gateway-full")?, start("gateway-small")?);
    let (mut costs, mut goodputs) = (Ratios::default(), Ratios::default());
    for round in 1..=report::ROUNDS {
        let probe = report::probe(folder.path())?;
        let before = carrying.usage()?;
        let accepted = load::run(carrying.address, CONNECTIONS, SPAN)?.accepted;
        let after = drained(&mut carrying)?;
        ensure!(
            after.orders - before.orders == accepted,
            "{accepted} answers 202, {} orders kept",
            after.orders - before.orders
        );
        let acceptance = (after.cpu - before.cpu).as_secs_f64() * 1e6 / accepted as f64;

        let before = full.usage()?;
        let refused = load::run_with(full.address, CONNECTIONS, SPAN, Manners::Rude)?.accepted;
        let after = full.usage()?;
        ensure!(after.orders == 0, "a full gateway keeps nothing");
        let refusal = (after.cpu - before.cpu).as_secs_f64() * 1e6 / refused as f64;

        let once = load::run_with(small.address, CONNECTIONS, LONG, Manners::Patient)?;
        drained(&mut small)?;
        let thrice = load::run_with(small.address, 3 * CONNECTIONS, LONG, Manners::Patient)?;
        drained(&mut small)?;
        println!(
            "round {round}: {probe}; acceptance {acceptance:.1} us CPU, refusal {refusal:.1} us; accepted {:.0}/s with {CONNECTIONS} clients, {:.0}/s with three times as many",
            once.rate(),
            thrice.rate()
        );
        costs.add(refusal / acceptance);
        goodputs.add(thrice.rate() / once.rate());
    }
    costs.print("S23 server CPU, a refusal / an acceptance carried to Kafka", "<= 0.2");
    goodputs.print("S23 accepted, three times the clients / once", ">= 0.95");
    Ok(())
}

/// The configuration of an arm: the broker that was started for it, and the backlog that makes it refuse.
pub(crate) fn config(mut config: Config, folder: &Path, arm: &str) -> anyhow::Result<Config> {
    config.kafka.brokers = std::fs::read_to_string(folder.join(BROKER_FILE)).context("the address of the broker")?;
    config.route[0].plugins = vec![PLUGIN.to_owned()];
    config.intake.retry_after = Span(RETRY_AFTER);
    match arm {
        "gateway-full" => config.intake.backlog_max = 0,
        "gateway-small" => config.intake.backlog_max = BACKLOG,
        _ => {}
    }
    Ok(config)
}

/// Waits until a gateway does nothing any more, and tells what it used.
fn drained(server: &mut Server) -> anyhow::Result<super::server::Usage> {
    let begun = Instant::now();
    let mut usage = server.usage()?;
    loop {
        std::thread::sleep(Duration::from_millis(250));
        let now = server.usage()?;
        if now.commits == usage.commits {
            return Ok(now);
        }
        usage = now;
        ensure!(begun.elapsed() < PATIENCE, "the backlog does not drain");
    }
}
