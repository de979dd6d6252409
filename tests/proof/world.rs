//! Nodes, database, broker and services of a run, and the way from its begin to the evidence.
//!
//! The broker and the services belong to the test and outlive every node: librdkafka's mock cluster, the Kafka that
//! `SLUICE_TEST_KAFKA` names, or one of the run's own.

use std::thread;
use std::time::{Duration, Instant};

use harness::broker::Broker;
use harness::environment::{self, Proof};
use harness::proxy::{Proxy, behind_a_proxy};
use harness::random::{Dice, unique};
use harness::services::Services;
use harness::{Builder, Route, TestGateway, Topic, guests, postgres};

use crate::clients::Clients;
use crate::evidence::{Evidence, Sample};
use crate::judge::{DRAIN_MAX, Violation, judge};
use crate::store::{Kind, Store};

/// Partitions of each topic: one at least for each of eight nodes to read.
const PARTITIONS: i32 = 8;
/// States that somebody still works on.
const OPEN: [&str; 3] = ["PENDING", "HELD", "PUBLISHED"];

/// What a run is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) database: Kind,
    pub(crate) nodes: usize,
    pub(crate) seed: u64,
    /// Orders that the clients post, besides repeats.
    pub(crate) posts: u64,
    pub(crate) clients: usize,
    /// Longest pause of a client between two requests.
    pub(crate) pause: Duration,
}

impl Default for Setup {
    /// One node on SQLite.
    fn default() -> Self {
        let pause = Duration::from_millis(10);
        Self { database: Kind::Sqlite, nodes: 1, seed: seed(), posts: 80, clients: 4, pause }
    }
}

impl Setup {
    /// Database and number of nodes as `SLUICE_TEST_PROOF` says, or as the seed decides for this run among others.
    pub(crate) fn chosen(run: u64) -> Self {
        let nodes = match environment::proof() {
            Proof::Sqlite => None,
            Proof::Postgres(nodes) => Some(nodes),
            Proof::Any => [None, Some(1), Some(3)][Dice::new(seed().wrapping_mul(64).wrapping_add(run)).place(3)],
        };
        nodes.and_then(Self::on_postgres).unwrap_or_default()
    }

    /// So many nodes on PostgreSQL; `None` where there is none, or `SLUICE_TEST_PROOF` does not ask for it.
    pub(crate) fn on_postgres(nodes: usize) -> Option<Self> {
        let server = if environment::proof() == Proof::Sqlite { None } else { postgres::server() };
        server.map(|_| Self { database: Kind::Postgres, nodes, ..Self::default() })
    }
}

/// How long leases are: a node that died is replaced after that.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// The seed of this test run.
pub(crate) fn seed() -> u64 {
    environment::seed().unwrap_or_else(|| std::process::id().into())
}

/// What a run is on.
pub(crate) struct Servers {
    /// The PostgreSQL of the nodes; `None` on SQLite.
    pub(crate) postgres: Option<&'static postgres::Server>,
    /// A real Kafka of the run's own, as `host:port`; `None`: the one that all share.
    pub(crate) kafka: Option<String>,
}

/// Everything that runs.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) broker: Broker,
    pub(crate) nodes: Vec<TestGateway>,
    pub(crate) store: Store,
    /// Between each node and the database, where that is one of its own.
    pub(crate) database_proxies: Vec<Proxy>,
    route: Route,
    services: Option<Services>,
}

impl World {
    /// Makes everything and starts nothing: `shape` says what is special about the nodes.
    pub(crate) fn prepare(setup: Setup, shape: impl Fn(Builder) -> Builder) -> Self {
        let server = if setup.database == Kind::Postgres { postgres::server() } else { None };
        Self::prepare_on(setup, Servers { postgres: server, kafka: None }, shape)
    }

    /// The same on servers of the test's own.
    pub(crate) fn prepare_on(setup: Setup, servers: Servers, shape: impl Fn(Builder) -> Builder) -> Self {
        let database = servers.postgres.map(postgres::Server::database);
        let prefix = unique("proof");
        let route = Route {
            topic: format!("{prefix}-orders"),
            replies: Some(format!("{prefix}-replies")),
            outcomes: Some(format!("{prefix}-outcomes")),
            plugins: ["order-rules", "customer-enricher", "marked"].map(str::to_owned).to_vec(),
            // Nothing expires by being disturbed; what does expire has tests of its own.
            deadline: "30m".to_owned(),
            ..Default::default()
        };
        let broker = match &servers.kafka {
            Some(address) => Broker::at(address, &route, PARTITIONS),
            None => Broker::start_with(&route, PARTITIONS),
        };
        let replies = route.replies.as_deref().expect("just set");
        let services = Some(Services::start(broker.address(), &route.topic, replies));
        // A real one wants at least six seconds.
        let session = if broker.is_real() { "6s" } else { "1s" };
        let group = unique("group");
        let (mut nodes, mut database_proxies) = (Vec::new(), Vec::new());
        for _ in 0..setup.nodes {
            let mut builder = TestGateway::with()
                .broker(broker.address())
                .route(route.clone())
                .plugin("marked", guests::marked())
                .text("relay.retry_first", "50ms")
                .text("relay.retry_max", "200ms")
                .text("relay.poll_interval", "100ms")
                .text("kafka.group", &group)
                .text("replies.session_timeout", session)
                .announce("");
            if let Some(database) = &database {
                let (proxy, url) = behind_a_proxy(&database.url());
                database_proxies.push(proxy);
                builder = builder
                    .text("database.url", &url)
                    .text("node.lease", &format!("{}s", LEASE.as_secs()))
                    .text("node.drain", "1s");
            }
            nodes.push(shape(builder).prepare());
        }
        let store = match database {
            Some(database) => Store::Postgres(database),
            None => Store::Sqlite(nodes[0].database_file().to_owned()),
        };
        Self { setup, broker, nodes, store, database_proxies, route, services }
    }

    /// The same with every node running and the database watched.
    pub(crate) fn start(setup: Setup, shape: impl Fn(Builder) -> Builder) -> Self {
        let world = Self::prepare(setup, shape);
        for node in &world.nodes {
            node.start_again();
        }
        world.store.watch();
        world
    }

    /// Clients for the whole run.
    pub(crate) fn clients(&self) -> Clients {
        let addresses = self.nodes.iter().map(TestGateway::http_address).collect();
        Clients::new(addresses, self.setup.posts, self.setup.pause)
    }

    /// Runs all clients to their end, `disturb` beside them.
    pub(crate) fn run(&self, clients: &Clients, disturb: impl FnOnce(&mut Dice)) {
        let mut dice = Dice::new(self.setup.seed);
        clients.disturb(true);
        thread::scope(|scope| {
            let posting: Vec<_> = (0..self.setup.clients)
                .map(|_| {
                    let dice = dice.fork();
                    scope.spawn(move || clients.run(dice))
                })
                .collect();
            let watcher = dice.fork();
            scope.spawn(move || clients.watch(watcher));
            // Ends everybody, also where this thread panics.
            let mut end = Ends { clients, is_done: false };
            disturb(&mut dice);
            clients.disturb(false);
            for client in posting {
                client.join().expect("a client does not panic");
            }
            end.is_done = true;
        });
    }

    /// Where the services answer.
    pub(crate) fn replies_topic(&self) -> String {
        self.route.replies.clone().expect("it has replies")
    }

    /// Waits until everything has come to its end; `None` when that does not come.
    pub(crate) fn drain(&self) -> Option<Duration> {
        let start = Instant::now();
        loop {
            if self.open_orders() == Some(0) {
                return Some(start.elapsed());
            }
            if start.elapsed() > DRAIN_MAX {
                return None;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Orders that are neither final nor dead; `None` if nobody can say.
    fn open_orders(&self) -> Option<usize> {
        let mut open = 0;
        for status in OPEN {
            let answer = self.nodes[0].admin().ask("GET", &format!("/orders?status={status}&limit=500"), &[], None);
            let page = answer.ok().filter(|answer| answer.status == 200)?.json();
            let orders = page["orders"].as_array()?;
            open += orders.iter().filter(|order| order["held"]["reason"] != "dead").count();
        }
        // What is final may still have an outcome to tell: an entry first, then a record.
        Some(open + usize::try_from(self.store.in_flight()).ok()?)
    }

    /// What the nodes use now.
    pub(crate) fn sample(&self) -> Vec<Sample> {
        let running = self.nodes.iter().enumerate().filter(|(_, node)| node.is_running());
        running
            .map(|(node, gateway)| Sample {
                node,
                resident_bytes: gateway.resident_bytes(),
                open_files: gateway.open_files(),
                threads: gateway.threads(),
            })
            .collect()
    }

    /// Drains, gathers all there is, and returns it.
    pub(crate) fn evidence(&self, clients: &Clients) -> Evidence {
        let mut evidence = Evidence { log_is_whole: true, drained_in: self.drain(), ..Evidence::default() };
        evidence.samples = self.sample();
        evidence.unready = self.unready();
        evidence.calls = clients.history.calls();
        for (number, node) in self.nodes.iter().enumerate() {
            for (order, version) in versions_at(node) {
                evidence.looks.push((order, number, version));
            }
        }
        evidence.read_database(&self.store);
        let read = |name: &str| Topic::open(self.broker.address(), name).read_to_end().to_vec();
        evidence.orders_topic = read(&self.route.topic);
        evidence.outcomes_topic = read(self.route.outcomes.as_deref().expect("it has outcomes"));
        evidence
    }

    fn unready(&self) -> Vec<String> {
        let answers = self.nodes.iter().map(|node| node.admin().ask("GET", "/readyz", &[], None));
        answers
            .filter_map(|answer| match answer {
                Ok(answer) if answer.status == 200 => None,
                Ok(answer) => Some(answer.text()),
                Err(error) => Some(error.to_string()),
            })
            .collect()
    }

    /// Judges a run; the log of the nodes goes with what is wrong.
    pub(crate) fn expect_innocence(&self, evidence: &Evidence) {
        let violations = judge(evidence);
        let listed: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(violations.is_empty(), "seed {}: {} violations:\n{}", self.setup.seed, listed.len(), listed.join("\n"));
        assert!(self.store.is_sound(), "the database is not sound");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Before the broker goes.
        drop(self.services.take());
    }
}

/// Ends the clients when dropped; where they are not done, at once.
struct Ends<'a> {
    clients: &'a Clients,
    is_done: bool,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.clients.disturb(false);
        self.clients.stop_watching();
        if !self.is_done {
            self.clients.give_up();
        }
    }
}

/// Versions of all orders as a node shows them.
fn versions_at(node: &TestGateway) -> Vec<(String, u64)> {
    let (mut versions, mut next) = (Vec::new(), String::new());
    loop {
        let page = node.admin().get(&format!("/orders?limit=500{next}")).json();
        for order in page["orders"].as_array().expect("a page has orders") {
            let version = order["version"].as_u64().expect("an order has a version");
            versions.push((order["id"].as_str().expect("an order has an id").to_owned(), version));
        }
        match page["next"].as_str() {
            Some(cursor) => next = format!("&after={cursor}"),
            None => return versions,
        }
    }
}
