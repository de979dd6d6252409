//! A real Apache Kafka of the tests' own: to be stopped, killed, frozen and forbidden what others rely on.

mod acl;
mod cluster;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::environment;
use crate::wait::wait_until;

pub use acl::Operation;
pub use cluster::Cluster;

/// Longest a broker may take for one thing.
const LIMIT: Duration = Duration::from_secs(60);
/// Ports that it listens on, one behind the other.
const PORTS: u16 = 4;

/// A broker of its own process. One for all tests, borrowed by one at a time.
pub struct Kafka {
    folder: PathBuf,
    port: u16,
    /// Kills the broker when the test process ends, by whatever.
    leash: Option<(Child, ChildStdin)>,
}

/// Borrows the broker, running; it is started by the first call. `None`, said loudly, where the environment names no Kafka
/// to take the jars from.
#[must_use]
pub fn borrow() -> Option<MutexGuard<'static, Kafka>> {
    static KAFKA: OnceLock<Option<Mutex<Kafka>>> = OnceLock::new();
    let kafka = KAFKA.get_or_init(|| {
        let found = environment::kafka_folder();
        if found.is_none() {
            environment::say("SKIPPED: tests that break a real Kafka need SLUICE_TEST_KAFKA_FOLDER");
        }
        found
            .map(|folder| Mutex::new(Kafka::start(&folder, "kafka", &["log.flush.interval.messages=1".to_owned()], "")))
    });
    let mut kafka = kafka.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
    kafka.mend();
    Some(kafka)
}

impl Kafka {
    /// Starts one with settings of its own, as a member of a cluster where that is named.
    fn start(original: &Path, name: &str, settings: &[String], cluster: &str) -> Self {
        let folder = crate::program::path().with_file_name(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the target folder takes folders");
        let libs = fs::canonicalize(original.join("libs")).expect("the other broker's jars");
        let port = free_ports();
        let output = Command::new(script())
            .arg(&folder)
            .arg(port.to_string())
            .arg("auto.create.topics.enable=false")
            .args(settings.iter().map(|setting| setting.replace("@PORT@", &port.to_string())))
            .env("SLUICE_KAFKA_LIBS", libs)
            .env("SLUICE_KAFKA_CLUSTER", cluster)
            .env("SLUICE_KAFKA_JAVA", "-Xmx320m -XX:TieredStopAtLevel=1")
            .output()
            .expect("the script runs");
        assert!(output.status.success(), "Kafka did not start: {}", String::from_utf8_lossy(&output.stderr));
        let mut kafka = Self { folder, port, leash: None };
        kafka.tie();
        kafka
    }

    /// Runs again after a test that did not clean up behind itself.
    fn mend(&mut self) {
        if self.is_running() {
            self.thaw();
        } else {
            self.start_again();
        }
    }

    /// `host:port` of the door that asks nobody who they are.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` of the door with TLS and SASL.
    #[must_use]
    pub fn secure_address(&self) -> String {
        format!("localhost:{}", self.port + 2)
    }

    /// `host:port` of the door with SASL alone.
    #[must_use]
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.port + 3)
    }

    /// The certificate of the authority that the broker's is signed by.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A file of the broker's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Stops the process where it stands, as a machine does that swaps: connections stay, nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill9(&self) {
        let pid = self.pid();
        self.signal(Signal::KILL);
        wait_until("the end of the broker", LIMIT, || match test_kill_process(pid) {
            Ok(()) if !is_zombie(pid) => Err("it still runs"),
            _ => Ok(()),
        });
    }

    /// Starts it again with its data, and waits until it answers.
    pub fn start_again(&mut self) {
        self.untie();
        let output = Command::new(script())
            .arg("--again")
            .arg(&self.folder)
            .env("SLUICE_KAFKA_JAVA", "-Xmx320m -XX:TieredStopAtLevel=1")
            .output()
            .expect("the script runs");
        assert!(output.status.success(), "Kafka did not start: {}", String::from_utf8_lossy(&output.stderr));
        self.tie();
        self.answers();
    }

    /// Creates a topic, with settings of its own.
    pub fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin = self.admin();
        let results = block_on(admin.create_topics([&topic], &AdminOptions::new().operation_timeout(Some(LIMIT))));
        for result in results.expect("Kafka answers") {
            result.unwrap_or_else(|(topic, error)| panic!("Kafka did not create {topic}: {error}"));
        }
    }

    /// Deletes a topic with all its records.
    pub fn delete_topic(&self, name: &str) {
        let admin = self.admin();
        let results = block_on(admin.delete_topics(&[name], &AdminOptions::new().operation_timeout(Some(LIMIT))));
        for result in results.expect("Kafka answers") {
            result.unwrap_or_else(|(topic, error)| panic!("Kafka did not delete {topic}: {error}"));
        }
    }

    /// Sets one setting of a topic; all others are at their defaults afterwards.
    pub fn set_on_topic(&self, name: &str, key: &str, value: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let admin = self.admin();
        let results = block_on(admin.alter_configs([&change], &AdminOptions::new().request_timeout(Some(LIMIT))));
        for result in results.expect("Kafka answers") {
            result.unwrap_or_else(|(topic, error)| panic!("Kafka did not change {topic:?}: {error}"));
        }
    }

    /// Lets a user do one thing to a topic. Where one is let, all others are forbidden it.
    pub fn allow(&self, user: &str, operation: Operation, topic: &str) {
        acl::create(&self.address(), user, operation, topic, acl::ALLOW);
    }

    /// Forbids a user one thing to a topic, whatever else lets it.
    pub fn deny(&self, user: &str, operation: Operation, topic: &str) {
        acl::create(&self.address(), user, operation, topic, acl::DENY);
    }

    /// Forgets everything that was allowed or forbidden on a topic.
    pub fn forget_rights(&self, topic: &str) {
        acl::delete(&self.address(), topic);
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().expect("an admin client")
    }

    /// Waits until it knows itself as the leader of something: that the port is open is too early.
    fn answers(&self) {
        let admin = self.admin();
        wait_until("an answer of the broker", LIMIT, || {
            let metadata =
                admin.inner().fetch_metadata(None, Duration::from_secs(5)).map_err(|error| error.to_string())?;
            if metadata.brokers().is_empty() { Err("no broker".to_owned()) } else { Ok(()) }
        });
    }

    fn pid(&self) -> Pid {
        let text = fs::read_to_string(self.folder.join("pid")).expect("a broker has a process id");
        text.trim().parse().ok().and_then(Pid::from_raw).expect("a process id")
    }

    fn is_running(&self) -> bool {
        let pid = self.pid();
        test_kill_process(pid).is_ok() && !is_zombie(pid)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the broker takes signals");
    }

    fn tie(&mut self) {
        let mut guard = Command::new("sh")
            .args(["-c", "read -r word; [ \"$word\" = done ] || { kill -9 \"$0\"; rm -rf \"$1\"; }"])
            .arg(self.pid().as_raw_nonzero().to_string())
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let leash = guard.stdin.take().expect("piped");
        self.leash = Some((guard, leash));
    }

    fn untie(&mut self) {
        if let Some((mut guard, _leash)) = self.leash.take() {
            drop(guard.kill());
            drop(guard.wait());
        }
    }
}

/// The script is detached from us, but what it started may be handed to us as children.
fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/kafka/start")
}

/// The first of some ports that are free one behind the other, away from those that gateways take; others at each call.
fn free_ports() -> u16 {
    static STEP: AtomicU16 = AtomicU16::new(0);
    let begin = 28_100 + u16::try_from(std::process::id() % 100).unwrap_or_default() * 10;
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let step = STEP.fetch_add(1, Ordering::Relaxed);
        assert!(step < 400, "there are no four free ports");
        let first = begin + step * PORTS;
        if (first..first + PORTS).all(is_free) {
            return first;
        }
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
