//! FEED: from a commit to a listener at another node than the one that orders were posted to.

use std::path::Path;
use std::time::Duration;

use super::drain::PLUGIN;
use super::follow::{Window, follow};
use super::node::{self, Node};
use super::report::{self, Ratios, percentile};
use super::services::{Kafka, Postgres, block_on};
use super::{downstream, server};

/// Orders per second.
const RATES: [(&str, u32); 2] = [("idle", 10), ("under load", 500)];
const WINDOW: Duration = Duration::from_secs(6);

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("FEED: posted to one node, followed at another; PostgreSQL, real Kafka, order-rules");
    let (Some(kafka), Some(postgres)) = (Kafka::find("FEED"), Postgres::start("FEED")?) else { return Ok(()) };
    let folder = tempfile::tempdir_in(".")?;
    let mut config = server::config(Path::new("."))?;
    block_on(postgres.create("feed"))??;
    config.database.url = postgres.url("feed");
    config.route[0].plugins = vec![PLUGIN.to_owned()];
    block_on(kafka.adapt(&mut config))??;
    let [posts, streams] = ["posts", "streams"].map(|name| Node::start(&config, &folder.path().join(name)));
    let (posts, streams) = (posts?, streams?);
    node::shared(&[&posts, &streams])?;
    let service = downstream::echo(&kafka, &config.route[0])?;
    let mut worst = RATES.map(|_| Ratios::default());
    for round in 0..=report::rounds(report::ROUNDS)? {
        for ((name, rate), worst) in RATES.iter().zip(&mut worst) {
            let Window { mut heard, generator, .. } = follow(posts.address, streams.address, *rate, WINDOW)?;
            let (middle, last) = (percentile(&mut heard, 0.5), percentile(&mut heard, 0.99));
            println!(
                "round {round}, {name}: {} events, p50 {middle:.1} p99 {last:.1} ms; generator {generator:.2} cores",
                heard.len()
            );
            if round > 0 {
                worst.add(last);
            }
        }
    }
    for ((name, rate), worst) in RATES.iter().zip(&worst) {
        worst.print(
            &format!("FEED p99 milliseconds, commit to listener at another node, {name} ({rate} orders/s)"),
            "<= 200",
        );
    }
    service.stop()?;
    posts.stop()?;
    streams.stop()?;
    block_on(kafka.forget(&config))?
}
