//! A gateway for a test: the real program on free ports in a folder of its own, killed and checked at the end.

mod builder;
mod ports;

use std::fs::OpenOptions;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use builder::{Builder, Route, RouteRecord, shared};

use crate::database::Database;
use crate::http::Client;
use crate::log::Log;
use crate::program;
use crate::services::Services;
use crate::wait::wait_until;

/// Longest from the start to readiness; plugins are compiled in it, on a busy machine too.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest from SIGTERM to the end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What the log may say after a kill.
const TRACE_OF_A_KILL: &str = "the process died";

/// A gateway. On drop it is killed, and the test fails if the log has a WARN or ERROR that nobody announced.
pub struct TestGateway {
    folder: tempfile::TempDir,
    config: PathBuf,
    database_file: PathBuf,
    verb: &'static str,
    http: SocketAddr,
    admin: SocketAddr,
    broker: Option<String>,
    prefix: String,
    announced: Mutex<Vec<String>>,
    log: Log,
    log_checked: AtomicU64,
    /// Length of the log at the present start.
    launched_at: AtomicU64,
    process: Mutex<Option<Process>>,
    /// Variables for the next start alone.
    next_start: Mutex<Vec<(String, String)>>,
    /// Variables for every start.
    environment: Mutex<Vec<(String, String)>>,
    services: Option<Services>,
    public_client: Client,
    admin_client: Client,
    /// Dropped last: the process is gone by then.
    server: Option<crate::postgres::Database>,
}

impl Deref for TestGateway {
    type Target = Client;

    /// Whatever is asked of a gateway is asked of its public listener.
    fn deref(&self) -> &Client {
        &self.public_client
    }
}

impl TestGateway {
    /// A gateway with everything at its default; the builder says what differs.
    #[must_use]
    pub fn with() -> Builder {
        Builder::default()
    }

    /// The same, started at once.
    #[must_use]
    pub fn start() -> Self {
        Self::with().start()
    }

    /// The operator's listener.
    #[must_use]
    pub fn admin(&self) -> &Client {
        &self.admin_client
    }

    /// Address of the public listener.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Address of the operator's listener.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Address of the broker that the gateway uses now; that of `sluice dev` changes with each start.
    #[must_use]
    pub fn broker_address(&self) -> String {
        if let Some(address) = &self.broker {
            return address.clone();
        }
        wait_until("the address of the development broker in the output", Duration::from_secs(10), || {
            self.log
                .address_on_line("Broker", self.launched_at.load(Ordering::Relaxed))
                .ok_or_else(|| self.log.tail(20))
        })
    }

    /// Full name of a topic that the configuration calls `name`.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What the program wrote.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The gateway's folder: configuration, database, plugins.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config
    }

    /// The file of the gateway's database, where it has one.
    #[must_use]
    pub fn database_file(&self) -> &Path {
        &self.database_file
    }

    /// The gateway's database, read-only.
    #[must_use]
    pub fn database(&self) -> Database {
        self.server.as_ref().map_or_else(|| Database::open(&self.database_file), Database::on)
    }

    /// A copy of the database as a killed process left it: looking at it recovers nothing for the next start.
    #[must_use]
    pub fn database_copy(&self) -> Database {
        self.server.as_ref().map_or_else(|| Database::copy_of(&self.database_file), Database::on)
    }

    /// The value of a series on `/metrics`, summed over its labels that contain `labels`; 0 where it is missing.
    #[must_use]
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.admin().get("/metrics").text();
        let lines = text.lines().filter(|line| !line.starts_with('#') && line.contains(labels));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    /// Sets a variable of the environment for the next start alone.
    pub fn set_for_next_start(&self, name: &str, value: &str) {
        let mut next = self.next_start.lock().expect("no test thread panicked here");
        next.push((name.to_owned(), value.to_owned()));
    }

    /// Sets a variable of the environment for every start from now on.
    pub fn set_for_every_start(&self, name: &str, value: &str) {
        let mut environment = self.environment.lock().expect("no test thread panicked here");
        environment.push((name.to_owned(), value.to_owned()));
    }

    /// Kills the process as `kill -9` does, and waits until it is gone.
    pub fn kill9(&self) {
        if let Some(mut process) = self.take() {
            process.kill();
        }
        let mut announced = self.announced.lock().expect("no test thread panicked here");
        if !announced.iter().any(|known| known == TRACE_OF_A_KILL) {
            announced.push(TRACE_OF_A_KILL.to_owned());
        }
    }

    /// Asks the process to end; it must do so with exit code 0. Returns how long that took.
    pub fn terminate(&self) -> Duration {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended(STOP_LIMIT);
        assert!(status.success(), "ended with {status} after SIGTERM:\n{}", self.log.tail(40));
        start.elapsed()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock().expect("no test thread panicked here");
        let process = process.as_ref().expect("the gateway runs");
        let pid = i32::try_from(process.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the gateway takes signals");
    }

    /// Memory that the process has in use, in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let process = self.process.lock().expect("no test thread panicked here");
        let id = process.as_ref().expect("the gateway runs").child.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells of its processes");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") * 1024
    }

    /// Files and sockets that the process has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process_id())).expect("the process runs").count()
    }

    /// Threads that the process has.
    #[must_use]
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.process_id())).expect("the process runs").count()
    }

    /// Waits for the end of the process.
    pub fn ended(&self, limit: Duration) -> ExitStatus {
        let mut process = self.take().expect("the gateway runs");
        wait_until("the end of the process", limit, || {
            process.child.try_wait().expect("a child can be waited for").ok_or("it still runs")
        })
    }

    /// Starts the program again on the same folder and ports, and waits until it is ready.
    pub fn start_again(&self) {
        self.start_and_leave();
        self.wait_until_ready();
    }

    /// The same, but waits for nothing: for a start that may not come to its end.
    pub fn start_and_leave(&self) {
        self.kill9();
        self.launch();
    }

    /// Waits until the process that was started is ready.
    pub fn wait_until_ready(&self) {
        self.wait_for("/readyz");
    }

    /// Whether the process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let mut process = self.process.lock().expect("no test thread panicked here");
        process.as_mut().is_some_and(|process| matches!(process.child.try_wait(), Ok(None)))
    }

    /// CPU time that the process's threads of a name's beginning have used so far.
    ///
    /// # Panics
    ///
    /// When the process does not run.
    #[must_use]
    pub fn cpu_time(&self, thread: &str) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process_id())).expect("the process runs");
        let ticks = tasks.filter_map(|task| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // `ID (NAME) STATE …`: behind the name, user time is the 12th word and the system's the 13th.
            let (head, rest) = stat.rsplit_once(") ")?;
            let is_it = head.split_once('(')?.1.starts_with(thread);
            let words: Vec<u64> = rest.split(' ').skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
            is_it.then(|| words.iter().sum::<u64>())
        });
        // The kernel tells these times in hundredths of a second, on every machine.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    fn process_id(&self) -> u32 {
        let process = self.process.lock().expect("no test thread panicked here");
        process.as_ref().expect("the gateway runs").child.id()
    }

    /// Fails on WARN and ERROR lines that nobody announced, since the last call.
    pub fn check_log(&self) {
        let end = self.log.len();
        let announced = self.announced.lock().expect("no test thread panicked here");
        let complaints = self.log.complaints(self.log_checked.swap(end, Ordering::Relaxed), &announced);
        assert!(complaints.is_empty(), "the log has what nobody announced:\n{}", complaints.join("\n"));
    }

    fn take(&self) -> Option<Process> {
        self.process.lock().expect("no test thread panicked here").take()
    }

    fn launch(&self) {
        self.launched_at.store(self.log.len(), Ordering::Relaxed);
        let output = OpenOptions::new().create(true).append(true).open(self.folder.path().join("output"));
        let output = output.expect("the folder takes files");
        let next = std::mem::take(&mut *self.next_start.lock().expect("no test thread panicked here"));
        let always = self.environment.lock().expect("no test thread panicked here").clone();
        let child = program::command()
            .envs(always.into_iter().chain(next))
            .arg(self.verb)
            .arg("--config")
            .arg(&self.config)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the program starts");
        *self.process.lock().expect("no test thread panicked here") = Some(Process::new(child));
    }

    fn wait_for(&self, path: &str) {
        wait_until(path, START_LIMIT, || {
            assert!(self.is_running(), "the program ended at its start:\n{}", self.log.tail(40));
            match self.admin().ask("GET", path, &[], None) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        });
    }
}

impl Drop for TestGateway {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failed test")]
    fn drop(&mut self) {
        self.kill9();
        drop(self.services.take());
        if std::thread::panicking() {
            eprintln!("--- output of the gateway, last lines\n{}\n---", self.log.tail(60));
        } else {
            self.check_log();
        }
    }
}

/// A running program that does not outlive the tests, also where they are killed themselves.
struct Process {
    child: Child,
    guard: Child,
    /// Closed when the test process ends, by whatever; then the guard kills the program.
    leash: Option<ChildStdin>,
}

impl Process {
    fn new(child: Child) -> Self {
        let mut guard = Command::new("sh")
            .args(["-c", "read -r word; [ \"$word\" = done ] || kill -9 \"$0\""])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        let leash = guard.stdin.take();
        Self { child, guard, leash }
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        drop(self.guard.kill());
        drop(self.leash.take());
        drop(self.guard.wait());
    }
}

/// Runs the program with arguments to its end, and returns exit code, standard output and standard error.
///
/// # Panics
///
/// When it does not end within `limit`.
#[must_use]
pub fn run(arguments: &[&str], folder: &Path, limit: Duration) -> (i32, String, String) {
    run_with(arguments, &[], folder, limit)
}

/// The same with variables of the environment.
///
/// # Panics
///
/// As [`run`].
#[must_use]
pub fn run_with(
    arguments: &[&str],
    environment: &[(&str, &str)],
    folder: &Path,
    limit: Duration,
) -> (i32, String, String) {
    let mut child = program::command()
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipes = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let mut process = Process::new(child);
    let (stdout, stderr) = std::thread::scope(|scope| {
        let stdout = scope.spawn(|| read_all(&mut pipes.0));
        let stderr = scope.spawn(|| read_all(&mut pipes.1));
        let start = Instant::now();
        while matches!(process.child.try_wait(), Ok(None)) {
            if start.elapsed() > limit {
                process.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        (stdout.join().expect("a reader"), stderr.join().expect("a reader"))
    });
    let status = process.child.wait().expect("a child can be waited for");
    let code = status.code().unwrap_or_else(|| panic!("{arguments:?} ended with {status}:\n{stdout}\n{stderr}"));
    (code, stdout, stderr)
}

fn read_all(pipe: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).expect("a pipe can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
