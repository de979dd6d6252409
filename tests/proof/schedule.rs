//! Random schedules: a seed decides what is posted and what is done to the nodes meanwhile, and the judge looks at what is left.
//!
//! `SLUICE_TEST_SEED` repeats a run, `SLUICE_TEST_FAULTS` makes it longer, `SLUICE_TEST_POSTS` makes it post at least so many
//! orders. The run counts the faults that hit something in flight, and fails when they are too few: it would have shown
//! nothing. Where `SLUICE_TEST_KAFKA_FOLDER` names a real Kafka the run has one like it for itself, which is frozen and killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use harness::disk::SmallDisk;
use harness::environment::{self, Proof, say};
use harness::kafka::{self, Kafka};
use harness::postgres;
use harness::proxy::Proxy;
use harness::random::Dice;
use rustix::process::{Pid, Signal, kill_process};

use crate::clients::Clients;
use crate::evidence::Sample;
use crate::store::Kind;
use crate::world::{LEASE, Servers, Setup, World};

/// Faults of a short run.
const FAULTS: u64 = 24;
/// Of so many faults at least half must hit something in flight.
const HITS_OF: u64 = 2;
/// Size of the disk that is filled up: what a run writes beside a real Kafka, which takes seconds to start, must fit in.
const DISK: &str = "512m";
/// Longest that a clock is wrong; a held order whose retry was set by it comes so much later.
const CLOCK_MAX_MS: u64 = 20_000;

/// What can be done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// `kill -9`, and a start.
    Kill,
    /// Two `kill -9`, the second soon after the start.
    KillTwice,
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// The same past the lease: others carry on, and then it wakes up.
    Zombie,
    /// The broker is away for a while; a real one is frozen.
    BrokerAway,
    /// A real broker is killed, and started again with its data.
    BrokerCrash,
    /// Connections of clients break.
    CutClients,
    /// A node's clock is wrong for a while.
    WrongClock,
    /// The disk has no room for a while.
    FullDisk,
    /// Connections of a node to the database break.
    CutDatabase,
    /// A node, or all of them, cannot reach the database for a while.
    DatabaseAway,
    /// The database crashes as a whole and recovers.
    DatabaseCrash,
}

/// A run with all that can be done to it.
struct Theater<'a> {
    world: &'a World,
    clients: &'a Clients,
    proxies: &'a [Proxy],
    disk: Option<&'a SmallDisk>,
    /// A real Kafka of the run's own.
    kafka: Option<MutexGuard<'static, Kafka>>,
    samples: Vec<Sample>,
    played: BTreeMap<Fault, (u64, u64)>,
}

impl Theater<'_> {
    fn faults(&self) -> Vec<Fault> {
        let mut faults =
            vec![Fault::Kill, Fault::Kill, Fault::KillTwice, Fault::Freeze, Fault::CutClients, Fault::WrongClock];
        if self.kafka.is_some() {
            faults.extend([Fault::BrokerAway, Fault::BrokerCrash]);
        } else if !self.world.broker.is_real() {
            faults.push(Fault::BrokerAway);
        }
        if self.disk.is_some() {
            faults.push(Fault::FullDisk);
        }
        if self.world.setup.database == Kind::Postgres {
            faults.extend([Fault::Zombie, Fault::CutDatabase, Fault::DatabaseAway, Fault::DatabaseCrash]);
        }
        faults
    }

    /// Plays one fault and notes whether it hit something.
    fn play(&mut self, fault: Fault, dice: &mut Dice) {
        let node = dice.place(self.world.nodes.len());
        let lost = self.unanswered();
        let mut in_flight = self.world.store.in_flight();
        match fault {
            Fault::Kill => self.kill(node),
            Fault::KillTwice => {
                self.world.nodes[node].start_and_leave();
                thread::sleep(Duration::from_millis(dice.below(400)));
                self.kill(node);
            }
            Fault::Freeze => {
                self.world.nodes[node].signal(Signal::STOP);
                self.rest(dice, 1500);
                self.world.nodes[node].signal(Signal::CONT);
            }
            Fault::Zombie => {
                self.world.nodes[node].signal(Signal::STOP);
                thread::sleep(LEASE.mul_f64(1.3));
                self.world.nodes[node].signal(Signal::CONT);
            }
            Fault::CutDatabase => {
                self.world.database_proxies[node].cut();
            }
            Fault::DatabaseAway => {
                let proxies = &self.world.database_proxies;
                let cut = if dice.below(2) == 0 { &proxies[..] } else { &proxies[node..=node] };
                cut.iter().for_each(|proxy| proxy.close(true));
                self.rest(dice, 2 * u64::try_from(LEASE.as_millis()).expect("seconds"));
                cut.iter().for_each(|proxy| proxy.close(false));
            }
            Fault::DatabaseCrash => self.crash_database(),
            Fault::BrokerAway => {
                self.reach_broker(false);
                self.rest(dice, 3000);
                in_flight += self.world.store.in_flight();
                self.reach_broker(true);
            }
            Fault::BrokerCrash => {
                self.kafka.as_ref().expect("there is one").kill9();
                self.rest(dice, 1000);
                in_flight += self.world.store.in_flight();
                self.kafka.as_mut().expect("there is one").start_again();
            }
            Fault::CutClients => {
                self.proxies[node].close(true);
                self.rest(dice, 300);
                self.proxies[node].close(false);
            }
            Fault::WrongClock => {
                let millis = dice.below(CLOCK_MAX_MS);
                let sign = if dice.below(2) == 0 { "-" } else { "" };
                write_clock(&clock_file(self.world, node), &format!("{sign}{millis}"));
                self.rest(dice, 1000);
                in_flight += self.world.store.in_flight();
                write_clock(&clock_file(self.world, node), "0");
            }
            Fault::FullDisk => {
                let disk = self.disk.expect("there is one");
                disk.fill();
                self.rest(dice, 1000);
                disk.clear();
            }
        }
        let has_hit = self.unanswered() > lost || in_flight > 0;
        let (times, hits) = self.played.entry(fault).or_default();
        (*times, *hits) = (*times + 1, *hits + u64::from(has_hit));
        self.samples.extend(self.world.sample());
    }

    /// Kills one of its processes: it ends all the others and recovers from its log.
    fn crash_database(&self) {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let pid = self.world.store.read(sql).first().and_then(|row| row["pid"].as_i64());
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // It may have ended by itself: then nothing crashes.
        let is_killed = pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok());
        if !is_killed {
            say("proof: the database had nobody to kill");
        }
    }

    fn reach_broker(&self, is_reachable: bool) {
        match &self.kafka {
            Some(kafka) if is_reachable => kafka.thaw(),
            Some(kafka) => kafka.freeze(),
            None => {
                self.world.broker.set_reachable(is_reachable);
            }
        }
    }

    fn unanswered(&self) -> u64 {
        self.clients.lost.load(Ordering::SeqCst) + self.clients.refused.load(Ordering::SeqCst)
    }

    fn kill(&self, node: usize) {
        self.world.nodes[node].start_again();
    }

    fn rest(&self, dice: &mut Dice, millis_max: u64) {
        thread::sleep(Duration::from_millis(50 + dice.below(millis_max)));
    }
}

fn clock_file(world: &World, node: usize) -> PathBuf {
    world.nodes[node].folder().join("clock")
}

/// Put in place whole: whoever reads it meanwhile sees the old or the new.
fn write_clock(file: &Path, millis: &str) {
    let part = file.with_extension("part");
    fs::write(&part, millis).expect("the folder takes files");
    fs::rename(part, file).expect("the folder takes files");
}

#[test]
fn random_faults_lose_double_reorder_and_stick_nothing() {
    play(Setup { posts: environment::posts().unwrap_or(400), ..Setup::default() });
}

#[test]
fn random_faults_among_three_nodes_lose_double_reorder_and_stick_nothing() {
    let nodes = if let Proof::Postgres(nodes) = environment::proof() { nodes } else { 3 };
    let Some(setup) = Setup::on_postgres(nodes) else { return };
    play(Setup { posts: environment::posts().unwrap_or(400), ..setup });
}

/// Plays the faults of the setup's seed.
fn play(setup: Setup) {
    let faults = environment::faults().unwrap_or(FAULTS);
    say(&format!("proof: random schedule, SLUICE_TEST_SEED={}", setup.seed));
    let disk = if setup.database == Kind::Sqlite { SmallDisk::mount(DISK) } else { None };
    let file = disk.as_ref().map(|disk| format!("sqlite://{}", disk.path().join("sluice.db").display()));
    // One of its own, since it crashes; never stopped before the process ends.
    let server = (setup.database == Kind::Postgres).then(|| {
        let programs = postgres::programs().expect("there is a server");
        &*Box::leak(Box::new(postgres::Server::start(&programs, &["max_connections=300"])))
    });
    let kafka = environment::kafka_folder().and_then(|_| kafka::borrow());
    let servers = Servers { postgres: server, kafka: kafka.as_ref().map(|kafka| kafka.address()) };
    let world = World::prepare_on(setup, servers, |builder| match &file {
        Some(url) => builder.text("database.url", url),
        None => builder,
    });
    for (number, node) in world.nodes.iter().enumerate() {
        let clock = clock_file(&world, number);
        write_clock(&clock, "0");
        node.set_for_every_start("SLUICE_CRASH_CLOCK", &clock.display().to_string());
        node.start_again();
    }
    world.store.watch();
    let proxies: Vec<Proxy> = world.nodes.iter().map(|node| Proxy::start(node.http_address())).collect();
    let clients = Clients::new(proxies.iter().map(Proxy::address).collect(), setup.posts, setup.pause);
    let mut theater = Theater {
        world: &world,
        clients: &clients,
        proxies: &proxies,
        disk: disk.as_ref(),
        kafka,
        samples: Vec::new(),
        played: BTreeMap::new(),
    };
    world.run(&clients, |dice| {
        for _ in 0..faults {
            theater.rest(dice, 900);
            let faults = theater.faults();
            theater.play(faults[dice.place(faults.len())], dice);
        }
    });
    let Theater { samples, played, .. } = theater;
    let mut evidence = world.evidence(&clients);
    evidence.samples.extend(samples);
    let hits: u64 = played.values().map(|(_, hits)| hits).sum();
    let (lost, refused) = (clients.lost.load(Ordering::SeqCst), clients.refused.load(Ordering::SeqCst));
    let told: Vec<String> = played.iter().map(|(fault, (times, hits))| format!("{fault:?} {hits}/{times}")).collect();
    say(&format!(
        "proof: seed {}: {} orders, {} records, {faults} faults, {hits} hit something in flight ({}), {lost} answers lost, {refused} told 503, drained in {:?}",
        setup.seed,
        evidence.orders.len(),
        evidence.orders_topic.len(),
        told.join(", "),
        evidence.drained_in,
    ));
    world.expect_innocence(&evidence);
    assert!(hits * HITS_OF >= faults, "only {hits} of {faults} faults hit something: {told:?}");
}
