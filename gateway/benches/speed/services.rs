//! PostgreSQL and Apache Kafka for the scenarios that need them: started here or named by the environment, else missed aloud.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sluice::config::{Config, RouteConfig};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

/// `host:port` of an Apache Kafka that the scenarios may use; `.ci/kafka/start FOLDER PORT` starts one.
const KAFKA: &str = "SLUICE_BENCH_KAFKA";
/// Folder with `initdb` and its like, if not the newest of Debian's.
const POSTGRES: &str = "SLUICE_BENCH_POSTGRES";
const LIMIT: Duration = Duration::from_secs(30);
/// Partitions of the topics made here.
pub(crate) const PARTITIONS: i32 = 6;

/// A number that the environment may set.
pub(crate) fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var_os(name) {
        None => Ok(default),
        Some(text) => text.to_string_lossy().replace('_', "").parse().with_context(|| format!("{name} is no number")),
    }
}

/// Says that something is not measured, and what it takes.
pub(crate) fn skipped(scenario: &str, needs: &str) {
    println!("SKIPPED {scenario}: it needs {needs}");
}

/// A server of this process's own, with a log of every plan where a database asks for it. Ends when dropped.
pub(crate) struct Postgres {
    pub(crate) folder: PathBuf,
    programs: PathBuf,
    port: u16,
    child: Child,
}

impl Postgres {
    /// Starts one; `None`, said aloud, where there is no PostgreSQL.
    pub(crate) fn start(scenario: &str) -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else {
            skipped(scenario, &format!("PostgreSQL: the package `postgresql`, or {POSTGRES}=FOLDER with its programs"));
            return Ok(None);
        };
        let folder = tempfile::Builder::new().prefix("sluice-bench-").tempdir()?.keep();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
        if is_root() {
            let is_done = Command::new("chown").arg("postgres:").arg(&folder).status()?.success();
            ensure!(is_done, "there is no user postgres");
        }
        let data = folder.join("data");
        let made = as_postgres(&programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(&data)
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut server = vec![programs.join("postgres").display().to_string(), "-D".into(), data.display().to_string()];
        for setting in [
            &format!("port={port}"),
            "listen_addresses=127.0.0.1",
            &format!("unix_socket_directories={}", folder.display()),
            "shared_buffers=1GB",
            "max_wal_size=8GB",
            "max_connections=300",
            "session_preload_libraries=auto_explain",
            "log_line_prefix=",
        ] {
            server.extend(["-c".to_owned(), setting.to_owned()]);
        }
        // It ends with this process, however that ends: its end closes the shell's input.
        let script = r#"
            folder=$1; shift
            "$@" > "$folder/log" 2>&1 < /dev/null &
            pid=$!
            trap '' INT TERM HUP
            cat > /dev/null
            kill -INT "$pid"; wait "$pid"
            cd / && rm -rf "$folder"
        "#;
        let mut shell = as_postgres(Path::new("/bin/sh"));
        shell.args(["-c", script, "sh"]).arg(&folder).args(server).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = shell.spawn().context("start PostgreSQL")?;
        let server = Self { folder, programs, port, child };
        let begun = Instant::now();
        while let Err(error) = block_on(PgConnection::connect(&server.url("postgres")))? {
            ensure!(begun.elapsed() < LIMIT, "PostgreSQL does not answer: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Some(server))
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A new, empty database.
    pub(crate) async fn create(&self, database: &str) -> anyhow::Result<()> {
        self.run("postgres", &format!("CREATE DATABASE {database}")).await
    }

    pub(crate) async fn connect(&self, database: &str) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.url(database)).await?)
    }

    /// Runs statements, all in one message.
    pub(crate) async fn run(&self, database: &str, sql: &str) -> anyhow::Result<()> {
        let mut connection = self.connect(database).await?;
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await?;
        connection.close().await?;
        Ok(())
    }

    /// CPU time of the server and all of its processes, those that have ended too.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        Ok(cpu_of_family(text.lines().next().unwrap_or_default().parse()?))
    }

    /// A program of PostgreSQL's, told where the server is.
    pub(crate) fn program(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p"]).arg(self.port.to_string()).arg(database);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may be gone already.
        drop(self.child.wait());
    }
}

fn programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(POSTGRES) {
        return Some(PathBuf::from(named));
    }
    let version =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
    let all = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = all.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(version)?;
    Some(newest.join("bin")).filter(|bin| bin.join("initdb").exists())
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A command as the user `postgres` where this process is root, whom the server refuses.
fn as_postgres(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
    command
}

/// CPU time of a process, of those it has started, and of those of them that have ended.
pub(crate) fn cpu_of_family(pid: u32) -> Duration {
    let mut family = vec![pid];
    let mut ticks = 0;
    let stats: Vec<(u32, u32, u64)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let own = path.file_name()?.to_str()?.parse().ok()?;
            let text = std::fs::read_to_string(path.join("stat")).ok()?;
            let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
            // From the third field on: parent is 1; own user and system time, and that of ended children, 11 to 14.
            let times = fields.get(11..15)?.iter().filter_map(|time| time.parse::<u64>().ok()).sum();
            Some((own, fields.get(1)?.parse().ok()?, times))
        })
        .collect();
    while let Some(pid) = family.pop() {
        ticks += stats.iter().filter(|(own, ..)| *own == pid).map(|(.., times)| times).sum::<u64>();
        family.extend(stats.iter().filter(|(_, parent, _)| *parent == pid).map(|(own, ..)| own));
    }
    // The kernel's unit for these is a hundredth of a second.
    Duration::from_millis(ticks * 10)
}

/// A broker that somebody else has started.
#[derive(Clone)]
pub(crate) struct Kafka {
    pub(crate) address: String,
}

impl Kafka {
    /// The one that the environment names; `None`, said aloud, where it names none.
    pub(crate) fn find(scenario: &str) -> Option<Self> {
        let address = std::env::var_os(KAFKA).map(|address| address.to_string_lossy().into_owned());
        if address.is_none() {
            skipped(scenario, &format!("a real Kafka: {KAFKA}=HOST:PORT (`.ci/kafka/start FOLDER PORT` starts one)"));
        }
        Some(Self { address: address? })
    }

    /// Makes the topics of a configuration, under new names, and points the configuration at them and at the broker.
    pub(crate) async fn adapt(&self, config: &mut Config) -> anyhow::Result<()> {
        let suffix = format!("{:08x}", fastrand::u32(..));
        config.kafka.brokers.clone_from(&self.address);
        config.kafka.group = format!("bench-{suffix}");
        let mut names = Vec::new();
        for route in &mut config.route {
            let topics =
                [route.topic.as_mut(), route.outcomes.as_mut(), route.replies.as_mut().map(|own| &mut own.topic)];
            for topic in topics.into_iter().flatten() {
                *topic = format!("bench-{topic}-{suffix}");
                names.push(topic.clone());
            }
        }
        for name in &names {
            self.create(name, &[]).await?;
        }
        Ok(())
    }

    pub(crate) async fn create(&self, topic: &str, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        for (key, value) in settings {
            new = new.set(key, value);
        }
        let results = self.admin()?.create_topics([&new], &AdminOptions::new().operation_timeout(Some(LIMIT))).await?;
        for result in results {
            result.map_err(|(topic, error)| anyhow::anyhow!("{topic} was not created: {error}"))?;
        }
        Ok(())
    }

    /// Deletes the topics of a configuration, with their records.
    pub(crate) async fn forget(&self, config: &Config) -> anyhow::Result<()> {
        let topics = config.route.iter().flat_map(|route| {
            [route.topic.as_ref(), route.outcomes.as_ref(), route.replies.as_ref().map(|own| &own.topic)]
        });
        let topics: Vec<&str> = topics.flatten().map(String::as_str).collect();
        self.admin()?.delete_topics(&topics, &AdminOptions::new()).await?;
        Ok(())
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        Ok(ClientConfig::new().set("bootstrap.servers", &self.address).create()?)
    }
}

/// Topic of the orders of a route that sends one record for each.
pub(crate) fn topic_of(route: &RouteConfig) -> &str {
    route.topic.as_deref().unwrap_or_default()
}

/// Records that a topic has had, asked over a connection that is there.
pub(crate) fn count_records(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<u64> {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
    let mut records = 0;
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        records += consumer.fetch_watermarks(topic, partition.id(), LIMIT)?.1.unsigned_abs();
    }
    Ok(records)
}

/// Runs something asynchronous from where nothing else is.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
