//! S16: from a POST to the final event on its stream, through a whole gateway, a real Kafka and a service that answers at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::drain::PLUGIN;
use super::follow::{Window, follow};
use super::lag::Direct;
use super::node::Node;
use super::report::{self, Ratios, percentile};
use super::services::{self, Kafka, Postgres, block_on};
use super::{downstream, orders, server};

/// Orders per second, whatever becomes of those before.
const RATE: (&str, u64) = ("SLUICE_BENCH_RATE", 1_000);
const WINDOW: Duration = Duration::from_secs(5);
/// Between two looks at disk and broker.
const LOOK: Duration = Duration::from_millis(20);
/// Lingers on the way: of the gateway's producer, and one for the service's.
const LINGERS_MS: f64 = 2.0;
/// What a relay and a client that both look once a second wait on average, together.
const POLLED_MS: f64 = 1000.0;

pub(crate) fn run() -> anyhow::Result<()> {
    let rate = u32::try_from(services::number(RATE.0, RATE.1)?)?;
    report::title(&format!(
        "S16: POST to the final event on its stream at {rate} orders/s; PostgreSQL, real Kafka, order-rules, a service that answers at once"
    ));
    let (Some(kafka), Some(postgres)) = (Kafka::find("S16"), Postgres::start("S16")?) else { return Ok(()) };
    let folder = tempfile::tempdir_in(".")?;
    let mut config = server::config(Path::new("."))?;
    block_on(postgres.create("path"))??;
    config.database.url = postgres.url("path");
    config.route[0].plugins = vec![PLUGIN.to_owned()];
    block_on(kafka.adapt(&mut config))??;
    let node = Node::start(&config, &folder.path().join("node"))?;
    let service = downstream::echo(&kafka, &config.route[0])?;
    let side = format!("{}-side", services::topic_of(&config.route[0]));
    block_on(kafka.create(&side, &[]))??;
    let direct = Arc::new(Direct::connect(&kafka, "0")?);
    let (mut ends, mut accepts) = (Ratios::default(), Ratios::default());
    let mut floors = Ratios::default();
    for round in 0..=report::rounds(report::ROUNDS)? {
        let probe = report::probe(folder.path())?;
        let (cpu, database) = (node.cpu(), postgres.cpu()?);
        let looking = Looking::start(&direct, &side, folder.path())?;
        let Window { mut accepted, mut ended, generator, .. } = follow(node.address, node.address, rate, WINDOW)?;
        let (sync, trip) = looking.stop()?;
        let per_order = |spent: Duration| spent.as_secs_f64() * 1e6 / ended.len() as f64;
        let (cpu, database) = (per_order(node.cpu() - cpu), per_order(postgres.cpu()? - database));
        let [accept, end] = [&mut accepted, &mut ended].map(|own| percentile(own, 0.5));
        let physical = sync + LINGERS_MS + 2.0 * trip;
        println!(
            "round {round}: {probe}; 202 p50 {accept:.2} p99 {:.2} ms, final event p50 {end:.2} p99 {:.2} ms; meanwhile fdatasync {sync:.2} ms, broker's round trip {trip:.2} ms; {cpu:.0} us CPU per order, PostgreSQL {database:.0} us, generator {generator:.2} cores",
            percentile(&mut accepted, 0.99),
            percentile(&mut ended, 0.99),
        );
        if round > 0 {
            ends.add(end / physical);
            accepts.add(accept / sync);
            floors.add(POLLED_MS / end);
        }
    }
    ends.print("S16 p50, POST to the final event / (fdatasync + 2 lingers + 2 round trips to the broker)", "<= 1.5");
    accepts.print("S16 p50, POST to the 202 / fdatasync", "none");
    floors.print("S16 p50, relay and client that poll each second, by construction / ours", ">= 100");
    let answered = service.stop()?;
    println!("nothing lost: every order had its final event; the service answered {answered} records");
    node.stop()?;
    block_on(kafka.forget(&config))?
}

/// Looks at the disk and at the broker while something else goes on.
struct Looking {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<anyhow::Result<(f64, f64)>>,
}

impl Looking {
    fn start(direct: &Arc<Direct>, topic: &str, folder: &Path) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, direct, topic, folder) =
            (Arc::clone(&stop), Arc::clone(direct), topic.to_owned(), folder.to_owned());
        let thread = std::thread::spawn(move || {
            let mut disk = report::Disk::open(&folder)?;
            let (mut syncs, mut sent) = (Vec::new(), 0);
            while !stopped.load(Ordering::Relaxed) {
                direct.send(&topic, orders::body(sent).as_bytes(), Instant::now())?;
                sent += 1;
                syncs.push(disk.sync_ms()?);
                std::thread::sleep(LOOK);
            }
            Ok((percentile(&mut syncs, 0.5), percentile(&mut direct.taken(sent)?, 0.5)))
        });
        Ok(Self { stop, thread })
    }

    /// Median milliseconds of a sync and of a round trip.
    fn stop(self) -> anyhow::Result<(f64, f64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?
    }
}
