//! S20: what a second node costs per order, and what becomes of one that is killed: duplicates, order per key, take-over.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use sluice::config::{Config, Span};
use sqlx::{Executor, Row};

use super::downstream::{self, Seen};
use super::drain::PLUGIN;
use super::node::{Node, shared};
use super::report::{self, Ratios, median};
use super::services::{Kafka, Postgres, block_on, topic_of};
use super::{load, orders, server};

/// Orders per second in all, whatever the number of nodes.
const RATE: u32 = 600;
const WINDOW: Duration = Duration::from_secs(6);
/// Connections in all at capacity.
const FULL: usize = 128;
const LEASE: Duration = Duration::from_secs(3);
const KILLS: usize = 5;
/// Keys of the orders while nodes are killed; each is one client that posts one order after the other.
const KEYS: usize = 16;
/// Of each client, between two orders.
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn run() -> anyhow::Result<()> {
    report::title("S20: one node and two on one PostgreSQL, real Kafka, order-rules");
    let (Some(kafka), Some(postgres)) = (Kafka::find("S20"), Postgres::start("S20")?) else { return Ok(()) };
    let folder = tempfile::tempdir_in(".")?;
    let (mut ratios, mut at_capacity) = (Ratios::default(), Ratios::default());
    for round in 0..=report::rounds(report::ROUNDS)? {
        let probe = report::probe(folder.path())?;
        let mut costs = Vec::new();
        for count in [1, 2] {
            let name = format!("nodes_{round}_{count}");
            let config = world(&kafka, &postgres, &name)?;
            costs.push(cost(&postgres, &config, &folder.path().join(&name), count)?);
            block_on(kafka.forget(&config))??;
            block_on(postgres.run("postgres", &format!("DROP DATABASE {name} WITH (FORCE)")))??;
        }
        if round > 0 {
            let [one, two] = &costs[..] else { anyhow::bail!("two arms") };
            println!("round {round}: {probe}; one node: {}; two: {}", one.said(), two.said());
            ratios.add(two.slow.all() / one.slow.all());
            at_capacity.add(two.full.all() / one.full.all());
        }
    }
    ratios.print(&format!("S20 CPU per order of nodes and PostgreSQL at {RATE} orders/s, two nodes / one"), "<= 1.03");
    at_capacity.print("S20 the same at as many orders as they take", "<= 1.03");
    kills(&kafka, &postgres, folder.path())
}

fn world(kafka: &Kafka, postgres: &Postgres, database: &str) -> anyhow::Result<Config> {
    block_on(postgres.create(database))??;
    let mut config = server::config(Path::new("."))?;
    config.database.url = postgres.url(database);
    config.route[0].plugins = vec![PLUGIN.to_owned()];
    // No replies: PUBLISHED is the end.
    config.route[0].replies = None;
    config.route[0].outcomes = None;
    block_on(kafka.adapt(&mut config))??;
    Ok(config)
}

/// Microseconds of CPU per order.
#[derive(Clone, Copy)]
struct Cost {
    nodes: f64,
    database: f64,
}

impl Cost {
    fn all(self) -> f64 {
        self.nodes + self.database
    }
}

/// What some nodes cost together, at the rate and at capacity.
struct Costs {
    slow: Cost,
    full: Cost,
    /// Orders per second that they took at capacity.
    taken: f64,
}

impl Costs {
    fn said(&self) -> String {
        let of = |cost: Cost| format!("{:.0} us CPU per order and {:.0} us of PostgreSQL", cost.nodes, cost.database);
        format!("{} at {RATE}/s, {} at {:.0}/s", of(self.slow), of(self.full), self.taken)
    }
}

fn cost(postgres: &Postgres, config: &Config, folder: &Path, count: usize) -> anyhow::Result<Costs> {
    let start = |number: usize| Node::start(config, &folder.join(number.to_string()));
    let nodes: Vec<Node> = (0..count).map(start).collect::<anyhow::Result<_>>()?;
    shared(&nodes.iter().collect::<Vec<_>>())?;
    let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
    at_rate(&addresses, Duration::from_secs(1))?;
    let cpu = || anyhow::Ok((nodes.iter().map(Node::cpu).sum::<Duration>(), postgres.cpu()?));
    let of = |before: (Duration, Duration), orders: u64| {
        nodes[0].drained()?;
        let (nodes, database) = cpu()?;
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / orders as f64;
        anyhow::Ok(Cost { nodes: each(nodes - before.0), database: each(database - before.1) })
    };
    nodes[0].drained()?;
    let before = cpu()?;
    let posted = at_rate(&addresses, WINDOW)?;
    let slow = of(before, u64::from(posted))?;
    let before = cpu()?;
    let (orders, taken) = at_capacity(&addresses)?;
    let full = of(before, orders)?;
    nodes.into_iter().try_for_each(Node::stop)?;
    Ok(Costs { slow, full, taken })
}

/// Posts over many connections to each node, as fast as they answer; returns how many, and their rate.
fn at_capacity(addresses: &[SocketAddr]) -> anyhow::Result<(u64, f64)> {
    let connections = FULL / addresses.len();
    let clients: Vec<_> = addresses
        .iter()
        .map(|address| {
            let address = *address;
            std::thread::spawn(move || load::run(address, connections, WINDOW))
        })
        .collect();
    let (mut orders, mut rate) = (0, 0.0);
    for client in clients {
        let done = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        orders += done.accepted;
        rate += done.rate();
    }
    Ok((orders, rate))
}

/// Posts at the rate over some connections to each node in turn; returns how many.
fn at_rate(addresses: &[SocketAddr], span: Duration) -> anyhow::Result<u32> {
    const CONNECTIONS: u32 = 8;
    let begun = Instant::now();
    let count = u32::try_from(span.as_millis())? * RATE / 1000;
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|own| {
            let address = addresses[own as usize % addresses.len()];
            std::thread::spawn(move || {
                let mut client = Client::connect(address)?;
                for number in (own..count).step_by(CONNECTIONS as usize) {
                    let due = begun + Duration::from_secs(1) * number / RATE;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    client.post(&orders::request(usize::try_from(number)?))?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
    }
    Ok(count)
}

/// A connection that is kept.
struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(socket))
    }

    fn post(&mut self, request: &[u8]) -> anyhow::Result<()> {
        load::one(&mut self.0, request)
    }
}

/// Kills one of two nodes under load, again and again; then reads the whole topic.
fn kills(kafka: &Kafka, postgres: &Postgres, folder: &Path) -> anyhow::Result<()> {
    let mut config = world(kafka, postgres, "killed")?;
    (config.node.lease, config.node.drain) = (Span(LEASE), Span(LEASE / 2));
    let topic = downstream::gather(kafka, topic_of(&config.route[0]))?;
    let keeper = Node::start(&config, &folder.join("keeper"))?;
    let name = owner(postgres)?;
    let addresses = Arc::new(Mutex::new(vec![keeper.address]));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..KEYS)
        .map(|key| {
            let (addresses, over) = (Arc::clone(&addresses), Arc::clone(&over));
            std::thread::spawn(move || one_after_the_other(key, &addresses, &over))
        })
        .collect();
    let mut taken = Vec::new();
    for number in 1..=KILLS {
        let victim = Node::start(&config, &folder.join(format!("victim-{number}")))?;
        shared(&[&keeper, &victim])?;
        lock(&addresses).push(victim.address);
        std::thread::sleep(Duration::from_secs(2));
        let begun = Instant::now();
        victim.kill()?;
        lock(&addresses).truncate(1);
        while others_slots(postgres, &name)? > 0 {
            ensure!(begun.elapsed() < 20 * LEASE, "the slots of the node that was killed are not taken over");
            std::thread::sleep(Duration::from_millis(5));
        }
        taken.push(begun.elapsed().as_secs_f64() / LEASE.as_secs_f64());
        println!("kill {number}: everything taken over after {:.2} leases", taken[number - 1]);
    }
    over.store(true, Ordering::Relaxed);
    let mut accepted = Vec::new();
    for client in clients {
        accepted.push(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    keeper.drained()?;
    let worst = taken.iter().copied().fold(f64::MIN, f64::max);
    println!("S20 take-over / lease: {:.2} (worst {worst:.2}), goal <= 1.2", median(&taken));
    judge(&topic.stop()?, &accepted)?;
    keeper.stop()?;
    block_on(kafka.forget(&config))?
}

fn lock(addresses: &Mutex<Vec<SocketAddr>>) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one that has all slots.
fn owner(postgres: &Postgres) -> anyhow::Result<String> {
    block_on(async {
        let mut session = postgres.connect("killed").await?;
        Ok(session.fetch_one("SELECT DISTINCT owner FROM slots").await?.try_get(0)?)
    })?
}

/// How many slots others have.
fn others_slots(postgres: &Postgres, name: &str) -> anyhow::Result<i64> {
    block_on(async {
        let mut session = postgres.connect("killed").await?;
        let count = sqlx::query("SELECT count(*) FROM slots WHERE owner <> $1").bind(name);
        Ok(session.fetch_one(count).await?.try_get(0)?)
    })?
}

/// Posts orders of one key, each after the `202` of the one before, to the nodes in turn; returns which were accepted.
fn one_after_the_other(key: usize, addresses: &Mutex<Vec<SocketAddr>>, over: &AtomicBool) -> anyhow::Result<Vec<u64>> {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut accepted = Vec::new();
    for number in 1_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let address = {
            let all = lock(addresses);
            all[usize::try_from(number)? % all.len()]
        };
        let request = orders::request_of(&orders::body_of(&format!("key-{key}"), &number.to_string()));
        let posted = match clients.remove(&address) {
            Some(client) => Ok(client),
            None => Client::connect(address),
        };
        // A node that was killed may have kept it or not: then nothing is said about it.
        if let Ok(mut client) = posted
            && client.post(&request).is_ok()
        {
            accepted.push(number);
            clients.insert(address, client);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(accepted)
}

/// Nothing lost, nothing overtaken; how many came twice.
fn judge(records: &[Seen], accepted: &[Vec<u64>]) -> anyhow::Result<()> {
    let mut ids = HashSet::new();
    let mut firsts: HashMap<&[u8], Vec<u64>> = HashMap::new();
    for record in records {
        if ids.insert(record.id.as_str()) {
            let order: Value = serde_json::from_slice(&record.value)?;
            let number = order["invoiceNo"].as_str().and_then(|text| text.parse().ok()).context("an order's number")?;
            firsts.entry(&record.key).or_default().push(number);
        }
    }
    let mut overtaken = 0;
    for (key, accepted) in accepted.iter().enumerate() {
        let own = firsts.remove(format!("key-{key}").as_bytes()).unwrap_or_default();
        let known: HashSet<u64> = accepted.iter().copied().collect();
        let published: Vec<u64> = own.into_iter().filter(|number| known.contains(number)).collect();
        ensure!(
            published.len() == accepted.len(),
            "of key {key} {} are accepted, {} on Kafka",
            accepted.len(),
            published.len()
        );
        overtaken += published.windows(2).filter(|pair| pair[0] > pair[1]).count();
    }
    let twice = records.len() - ids.len();
    println!(
        "S20 records of which a repeat came: {twice} of {} ({:.0} per million, {:.1} per kill), goal <= one checkpoint window per kill; overtaken within a key: {overtaken}, goal 0; nothing lost of {} accepted",
        ids.len(),
        twice as f64 * 1e6 / ids.len() as f64,
        twice as f64 / KILLS as f64,
        accepted.iter().map(Vec::len).sum::<usize>()
    );
    Ok(())
}
