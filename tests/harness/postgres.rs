//! A real PostgreSQL for tests: one server per test process, one database per test.
//!
//! `SLUICE_TEST_POSTGRES=postgres://…` names a server that may create databases; else one is started out of
//! `/usr/lib/postgresql`, in a folder of its own, and ends with the process, however that ends. With
//! `SLUICE_TEST_PGBOUNCER=1` a transaction-pooling PgBouncer stands in front of it. A machine without PostgreSQL skips
//! these tests and says so; where CI says so (`SLUICE_TEST_REQUIRE=1`) it fails.

mod outage;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row, ValueRef};

use crate::environment;

/// Longest a server may take to start.
const LIMIT: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    /// `postgres://USER@HOST:PORT`, for the operator of the tests; no database.
    admin: String,
    /// The same as gateways are told; through a pooler if one is wanted.
    public: String,
    parameters: String,
    /// The server first, where it is our own, then the pooler. Holds the pipes by which the helpers see that this process is
    /// gone.
    running: Mutex<Vec<Running>>,
    folder: PathBuf,
}

/// A database of a test's own; dropped with this.
pub struct Database {
    server: &'static Server,
    name: String,
}

/// A program in the background that ends when this does, or this process.
pub struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The helper sees the end of its input, stops the program and clears its folder.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// The server of this process; `None` on a machine without PostgreSQL, which is said aloud once.
#[must_use]
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::find).as_ref()
}

/// The programs of the newest PostgreSQL that is installed.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let number =
        |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(|path| number(path))?;
    Some(newest.join("bin")).filter(|bin| bin.join("initdb").exists())
}

impl Server {
    fn find() -> Option<Self> {
        if let Some(url) = environment::postgres() {
            let (base, parameters) = url.split_once('?').unwrap_or((&url, ""));
            let (scheme, rest) = base.split_once("://").expect("SLUICE_TEST_POSTGRES is a URL");
            let base = format!("{scheme}://{}", rest.split_once('/').map_or(rest, |(authority, _)| authority));
            return Some(Self {
                admin: base.clone(),
                public: base,
                parameters: parameters.to_owned(),
                running: Mutex::default(),
                folder: PathBuf::new(),
            });
        }
        let Some(programs) = programs() else {
            assert!(!environment::requires_services(), "there is no PostgreSQL: install the package `postgresql`");
            environment::say("SKIPPED: tests against PostgreSQL, since the package `postgresql` is not installed");
            return None;
        };
        Some(Self::start(&programs, &["fsync=off", "max_connections=500"]))
    }

    /// Starts a server with settings of its own.
    #[must_use]
    pub fn start(programs: &Path, settings: &[&str]) -> Self {
        Self::start_with(programs, settings, |_| {})
    }

    /// The same; `prepare` may change what is in its data folder before it starts.
    #[must_use]
    pub fn start_with(programs: &Path, settings: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = private_folder("sluice-postgres-");
        let data = folder.join("data");
        let made = as_postgres(programs.join("initdb"))
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"])
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        // Who has to show a password is asked for it; whoever the tests are otherwise is let in.
        let access =
            "host all stranger 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n";
        std::fs::write(data.join("pg_hba.conf"), access).expect("its settings can be written");
        prepare(&data);
        let port = free_port();
        let mut command =
            vec![programs.join("postgres").display().to_string(), "-D".into(), data.display().to_string()];
        let own = [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", folder.display()),
            "shared_buffers=64MB".to_owned(),
            "max_wal_size=256MB".to_owned(),
        ];
        for setting in own.into_iter().chain(settings.iter().map(|setting| (*setting).to_owned())) {
            command.extend(["-c".to_owned(), setting]);
        }
        let mut running = vec![run(&command, &folder, "QUIT")];
        let admin = format!("postgres://postgres@127.0.0.1:{port}");
        wait_until_it_answers(&format!("{admin}/postgres"), &folder);
        let mut public = admin.clone();
        if environment::pgbouncer() {
            let (pooler, address) = start_pgbouncer(port);
            running.push(pooler);
            public = format!("postgres://postgres@{address}");
        }
        Self { admin, public, parameters: String::new(), running: Mutex::new(running), folder }
    }

    /// A database that nobody else uses.
    #[must_use]
    pub fn database(&'static self) -> Database {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let name = format!("sluice_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.run(&format!("CREATE DATABASE {name}"));
        Database { server: self, name }
    }

    /// Runs statements as the operator, outside of every test's database.
    pub fn run(&self, sql: &str) {
        run_at(&self.url_of(&self.admin, "postgres"), sql);
    }

    /// Where a database of this server is, as the user that the tests are.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_of(&self.public, database)
    }

    fn url_of(&self, base: &str, database: &str) -> String {
        let mark = if self.parameters.is_empty() { "" } else { "?" };
        format!("{base}/{database}{mark}{}", self.parameters)
    }
}

impl Database {
    /// The same database on another server, by way of a dump.
    #[must_use]
    pub fn moved_to(&self, server: &'static Server) -> Self {
        let programs = programs().expect("PostgreSQL is installed");
        let moved = server.database();
        let mut dump = Command::new(programs.join("pg_dump"));
        let mut dump = dump
            .arg(self.server.url_of(&self.server.admin, &self.name))
            .stdout(Stdio::piped())
            .spawn()
            .expect("pg_dump runs");
        let dumped = dump.stdout.take().expect("its output is a pipe");
        let mut restore = Command::new(programs.join("psql"));
        let restore = restore
            .args(["-q", "-v", "ON_ERROR_STOP=1"])
            .arg(server.url_of(&server.admin, &moved.name))
            .stdin(dumped)
            .stdout(Stdio::null());
        assert!(restore.status().expect("psql runs").success());
        assert!(dump.wait().expect("pg_dump ends").success());
        moved
    }

    /// What a gateway is told.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements in it, past every pooler.
    pub fn run(&self, sql: &str) {
        run_at(&self.server.url_of(&self.server.admin, &self.name), sql);
    }

    /// The first column of the first row, as text; `None` without a row or where it is NULL.
    #[must_use]
    pub fn ask(&self, sql: &str) -> Option<String> {
        self.rows(sql).into_iter().next()?.into_iter().next()?
    }

    /// All rows, each column as text.
    #[must_use]
    pub fn rows(&self, sql: &str) -> Rows {
        self.session().rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// A session of its own, for transactions that stay open; past every pooler.
    #[must_use]
    pub fn session(&self) -> Session {
        Session::connect(self.server.url_of(&self.server.admin, &self.name))
    }
}

/// Rows, each column as text.
pub type Rows = Vec<Vec<Option<String>>>;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// One session, on a thread of its own, so that it can be used from wherever a test is.
pub struct Session {
    questions: mpsc::Sender<(String, mpsc::Sender<Result<Rows, String>>)>,
}

impl Session {
    fn connect(url: String) -> Self {
        let (questions, asked) = mpsc::channel::<(String, mpsc::Sender<Result<Rows, String>>)>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let mut connected = runtime.block_on(PgConnection::connect(&url)).map_err(|error| error.to_string());
            for (sql, answer) in asked {
                let rows = connected.as_mut().map_err(|error| error.clone()).and_then(|connection| {
                    let rows = runtime.block_on(sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection));
                    rows.map(|rows| rows.iter().map(texts).collect()).map_err(|error| error.to_string())
                });
                // Whoever asked may have gone.
                drop(answer.send(rows));
            }
        });
        Self { questions }
    }

    /// Runs statements and returns the rows of all of them.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn rows(&self, sql: &str) -> Result<Rows, String> {
        self.begin(sql).recv().map_err(|_| "the session has ended".to_owned())?
    }

    /// The same without waiting for it.
    #[must_use]
    pub fn begin(&self, sql: &str) -> mpsc::Receiver<Result<Rows, String>> {
        let (answer, answers) = mpsc::channel();
        drop(self.questions.send((sql.to_owned(), answer)));
        answers
    }

    /// Runs statements that must work.
    pub fn run(&self, sql: &str) {
        self.rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

fn texts(row: &sqlx::postgres::PgRow) -> Vec<Option<String>> {
    let text = |column: usize| {
        let value = row.try_get_raw(column).expect("a column");
        if value.is_null() { None } else { value.as_str().ok().map(str::to_owned) }
    };
    (0..row.len()).map(text).collect()
}

impl Drop for Database {
    fn drop(&mut self) {
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            self.server.run(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }));
        // A test that failed may have left its server down; a second panic would take the other tests along.
        if let Err(panic) = dropped
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

fn run_at(url: &str, sql: &str) {
    let (url, sql) = (url.to_owned(), sql.to_owned());
    off_runtime(move || async move {
        let mut connection = PgConnection::connect(&url).await.expect("the server answers");
        connection.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        drop(connection.close().await);
    });
}

/// Runs something asynchronous on a runtime of its own, from wherever the caller is.
fn off_runtime<T: Send + 'static, F: Future<Output = T>>(work: impl FnOnce() -> F + Send + 'static) -> T {
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work())
    });
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn wait_until_it_answers(url: &str, folder: &Path) {
    crate::wait_until("PostgreSQL", LIMIT, || {
        let url = url.to_owned();
        off_runtime(move || async move {
            // PgBouncer refuses what it does not know.
            let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| error.to_string())?;
            let mut connection = options.extra_float_digits(None).connect().await.map_err(|error| error.to_string())?;
            connection.ping().await.map_err(|error| error.to_string())
        })
        .map_err(|error| format!("{error}: {}", folder.display()))
    });
}

/// Starts a PgBouncer in front of the server of a port; it hands out sessions for one transaction each.
fn start_pgbouncer(port: u16) -> (Running, String) {
    let (folder, own) = (private_folder("sluice-pgbouncer-"), free_port());
    let settings = format!(
        "[databases]\n* = host=127.0.0.1 port={port} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own}\nauth_type = any\npool_mode = transaction\n\
         max_client_conn = 2000\ndefault_pool_size = 16\nunix_socket_dir = \nlogfile = {}\n",
        folder.join("log").display()
    );
    let path = folder.join("pgbouncer.ini");
    std::fs::write(&path, settings).expect("its settings can be written");
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
    let program = program.expect("SLUICE_TEST_PGBOUNCER needs the package `pgbouncer`");
    let running = run(&[program.to_owned(), path.display().to_string()], &folder, "INT");
    let address = format!("127.0.0.1:{own}");
    wait_until_it_answers(&format!("postgres://postgres@{address}/postgres"), &folder);
    (running, address)
}

/// Runs a program until this process ends or lets go of it; its folder goes with it. Meanwhile it does what it is told, a
/// word a line: `stop` and `start`.
fn run(command: &[String], folder: &Path, signal: &str) -> Running {
    let script = r#"
        folder=$1; signal=$2; shift 2
        launch() { "$@" >> "$folder/output" 2>&1 < /dev/null & pid=$!; }
        launch "$@"
        trap '' INT TERM HUP
        while read -r word; do
            case $word in
                stop) kill -"$signal" "$pid"; wait "$pid" ;;
                start) launch "$@" ;;
            esac
        done
        kill -"$signal" "$pid" 2> /dev/null
        wait "$pid"
        cd / && rm -rf "$folder"
    "#;
    let mut shell = as_postgres("/bin/sh".into());
    let child = shell
        .args(["-c", script, "sh"])
        .arg(folder)
        .arg(signal)
        .args(command)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell runs");
    Running { child }
}

/// A command as the user `postgres` where this process is root, whom the server refuses.
fn as_postgres(program: PathBuf) -> Command {
    if !rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program).current_dir("/");
    command
}

/// A new folder of the user that servers run as.
fn private_folder(prefix: &str) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("a folder").keep();
    if rustix::process::getuid().is_root() {
        let chown = Command::new("chown").arg("postgres:").arg(&folder).status();
        assert!(chown.is_ok_and(|status| status.success()), "there is no user postgres");
    }
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("its rights can be set");
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// A certificate authority and a certificate for 127.0.0.1 and localhost in a folder, made by `openssl`: `ca.pem`,
/// `server.pem`, `server.key`.
pub fn make_certificates(folder: &Path) {
    let extensions = folder.join("extensions");
    let mut file = std::fs::File::create(&extensions).expect("a file");
    file.write_all(b"subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n")
        .expect("written");
    let script = r#"
        set -e
        cd "$1"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority \
            -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem
        chmod 600 server.key
    "#;
    let made = Command::new("/bin/sh").args(["-c", script, "sh"]).arg(folder).output().expect("openssl runs");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    if rustix::process::getuid().is_root() {
        for name in ["server.key", "server.pem", "ca.pem"] {
            drop(Command::new("chown").arg("postgres:").arg(folder.join(name)).status());
        }
    }
}
