//! What a test wants of its gateway, and the configuration file that comes of it.

use std::fs::{self, DirBuilder};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock};

use super::{TestGateway, ports};
use crate::broker::create_topic;
use crate::environment;
use crate::http::Client;
use crate::log::Log;
use crate::program;
use crate::random::unique;
use crate::services::Services;

/// A route; the default is the program's own default route.
#[derive(Debug, Clone)]
pub struct Route {
    pub path: String,
    pub topic: String,
    /// Where there are any, they take the place of the one record for `topic`.
    pub records: Vec<RouteRecord>,
    pub key: String,
    pub plugins: Vec<String>,
    pub outcomes: Option<String>,
    /// Without it the route expects no replies.
    pub replies: Option<String>,
    pub deadline: String,
}

/// One of several records of an order.
#[derive(Debug, Clone, Default)]
pub struct RouteRecord {
    pub name: String,
    pub topic: String,
    /// Its other keys, as TOML writes them.
    pub more: String,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            path: "/orders".to_owned(),
            topic: "orders".to_owned(),
            records: Vec::new(),
            key: "/customerId".to_owned(),
            plugins: vec!["order-rules".to_owned(), "customer-enricher".to_owned()],
            outcomes: Some("order-outcomes".to_owned()),
            replies: Some("order-replies".to_owned()),
            deadline: "30s".to_owned(),
        }
    }
}

impl Route {
    pub(crate) fn to_toml(&self, prefix: &str) -> String {
        let mut text = format!("[[route]]\npath = {:?}\n", self.path);
        if self.records.is_empty() {
            text += &format!("topic = {:?}\n", format!("{prefix}{}", self.topic));
        }
        text += &format!("key = {:?}\nplugins = {:?}\n", self.key, self.plugins);
        if let Some(outcomes) = &self.outcomes {
            text += &format!("outcomes = {:?}\n", format!("{prefix}{outcomes}"));
        }
        if let Some(replies) = &self.replies {
            text += &format!("[route.replies]\ntopic = {:?}\n", format!("{prefix}{replies}"));
            text += "all_of = [\"ConsumerValidated\", \"OrderDetailsValidated\"]\n";
            text += "any_of_rejects = [\"ConsumerRejected\", \"OrderDetailsRejected\"]\n";
            text += &format!("deadline = {:?}\n", self.deadline);
        }
        for record in &self.records {
            let topic = format!("{prefix}{}", record.topic);
            text += &format!("[[route.records]]\nname = {:?}\ntopic = {topic:?}\n{}\n", record.name, record.more);
        }
        text
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = &String> {
        let one = Some(&self.topic).filter(|_| self.records.is_empty());
        let several = self.records.iter().map(|record| &record.topic);
        [one, self.outcomes.as_ref(), self.replies.as_ref()].into_iter().flatten().chain(several)
    }
}

/// A gateway to be: `sluice dev` with the default route, unless told otherwise.
#[derive(Debug, Default)]
pub struct Builder {
    keys: Vec<(String, String)>,
    routes: Vec<Route>,
    plugins: Vec<(String, Vec<u8>)>,
    announced: Vec<String>,
    broker: Option<String>,
    is_dev: bool,
}

impl Builder {
    /// Sets a configuration key to a value as TOML writes it: `.set("relay.hold_max", "\"2s\"")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets a configuration key to a text, such as a duration or a size.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        self.set(key, &format!("{value:?}"))
    }

    /// Adds a route; without any there is the default one.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Puts a plugin file into the plugins' folder.
    #[must_use]
    pub fn plugin(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.plugins.push((name.to_owned(), bytes));
        self
    }

    /// WARN and ERROR lines with this text are expected.
    #[must_use]
    pub fn announce(mut self, text: &str) -> Self {
        self.announced.push(text.to_owned());
        self
    }

    /// Runs `sluice run` with a broker of the test's own. Its topics carry `prefix`, and nobody answers for the
    /// services but the test.
    #[must_use]
    pub fn broker(mut self, address: &str) -> Self {
        self.broker = Some(address.to_owned());
        self
    }

    /// Runs `sluice dev` also where a real broker is given: for what only `dev` has.
    #[must_use]
    pub fn dev(mut self) -> Self {
        self.is_dev = true;
        self
    }

    /// Writes the files, starts the program and waits until it is ready.
    #[must_use]
    pub fn start(self) -> TestGateway {
        let gateway = self.prepare();
        gateway.launch();
        gateway.wait_for("/readyz");
        gateway
    }

    /// The same, but only waits until it lives: for a gateway that is not to become ready.
    #[must_use]
    pub fn start_unready(self) -> TestGateway {
        let gateway = self.prepare();
        gateway.launch();
        gateway.wait_for("/livez");
        gateway
    }

    /// Writes the files, but starts nothing: for a start that is to fail, and for other verbs of the program.
    #[must_use]
    pub fn prepare(self) -> TestGateway {
        let real = if self.is_dev || self.broker.is_some() { None } else { environment::kafka() };
        let routes = if self.routes.is_empty() { vec![Route::default()] } else { self.routes };
        let prefix = match &real {
            Some(_) => unique("t") + ".",
            None => String::new(),
        };
        let services = real.as_ref().map(|address| {
            for topic in routes.iter().flat_map(Route::topics) {
                create_topic(address, &format!("{prefix}{topic}"), 4);
            }
            let replies = routes[0].replies.as_deref().unwrap_or("order-replies");
            let (orders, replies) = (format!("{prefix}{}", routes[0].topic), format!("{prefix}{replies}"));
            if routes[0].replies.is_none() {
                create_topic(address, &replies, 1);
            }
            Services::start(address, &orders, &replies)
        });
        let broker = self.broker.or(real);
        let verb = if broker.is_some() { "run" } else { "dev" };

        let folder = tempfile::Builder::new().prefix("sluice-test-").tempdir().expect("a folder");
        let (http, admin) = (ports::free(), ports::free());
        let mut keys = vec![
            ("http.listen".to_owned(), format!("\"{http}\"")),
            ("admin.listen".to_owned(), format!("\"{admin}\"")),
            ("database.url".to_owned(), format!("\"sqlite://{}\"", folder.path().join("sluice.db").display())),
            ("plugins.dir".to_owned(), format!("{:?}", folder.path().join("plugins.d"))),
            ("plugins.state_dir".to_owned(), format!("{:?}", state_dir(folder.path()))),
            ("telemetry.format".to_owned(), "\"json\"".to_owned()),
            ("dev.answer_within".to_owned(), "\"50ms\"".to_owned()),
        ];
        if let Some(broker) = &broker {
            keys.push(("kafka.brokers".to_owned(), format!("{broker:?}")));
            keys.push(("kafka.group".to_owned(), format!("{:?}", unique("sluice"))));
        }
        let server = if environment::on_postgres() { crate::postgres::server() } else { None };
        let database = server.map(crate::postgres::Server::database);
        let mut announced = self.announced;
        if let Some(database) = &database {
            // The server of the tests may lose what it likes at a crash of the machine, and gateways say so.
            announced.push("runs with fsync = off".to_owned());
            keys.retain(|(known, _)| known != "database.url");
            keys.push(("database.url".to_owned(), format!("{:?}", database.url())));
            keys.push(("database.prepared_statements".to_owned(), (!environment::pgbouncer()).to_string()));
        }
        for (key, value) in self.keys {
            keys.retain(|(known, _)| *known != key);
            keys.push((key, value));
        }
        let url = keys.iter().find(|(key, _)| key == "database.url").map_or("", |(_, url)| url.trim_matches('"'));
        let database_file = PathBuf::from(url.trim_start_matches("sqlite://"));
        let mut text: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        text.extend(routes.iter().map(|route| route.to_toml(&prefix)));
        let config = folder.path().join("gateway.toml");
        fs::write(&config, text).expect("the folder takes files");
        write_plugins(&folder.path().join("plugins.d"), &self.plugins);

        TestGateway {
            log: Log::new(&folder.path().join("output")),
            log_checked: AtomicU64::new(0),
            launched_at: AtomicU64::new(0),
            folder,
            config,
            database_file,
            verb,
            http,
            admin,
            broker,
            prefix,
            announced: Mutex::new(announced),
            process: Mutex::new(None),
            next_start: Mutex::default(),
            environment: Mutex::default(),
            services,
            public_client: Client::new(http),
            admin_client: Client::new(admin),
            server: database,
        }
    }
}

/// A folder of the gateway's own, but for the compiled plugins: all gateways of the tests share them.
fn state_dir(folder: &Path) -> PathBuf {
    let own = |folder: &Path| DirBuilder::new().recursive(true).mode(0o700).create(folder).expect("a folder");
    let shared = program::path().with_file_name("compiled-plugins");
    own(&shared);
    let state = folder.join("sluice.plugins");
    own(&state);
    symlink(shared, state.join("compiled")).expect("a link");
    state
}

fn write_plugins(folder: &Path, plugins: &[(String, Vec<u8>)]) {
    if plugins.is_empty() {
        return;
    }
    fs::create_dir(folder).expect("the folder takes folders");
    for (name, bytes) in plugins {
        fs::write(folder.join(format!("{name}.wasm")), bytes).expect("the folder takes files");
    }
}

/// The gateway that all tests share which need nothing special: it is started once.
pub struct Shared(&'static TestGateway);

/// Borrows the shared gateway. Nothing in it may be killed or filled up.
#[must_use]
pub fn shared() -> Shared {
    static GATEWAY: OnceLock<TestGateway> = OnceLock::new();
    Shared(GATEWAY.get_or_init(TestGateway::start))
}

impl Deref for Shared {
    type Target = TestGateway;

    fn deref(&self) -> &TestGateway {
        self.0
    }
}

impl Drop for Shared {
    /// The shared gateway itself is never dropped, so each test looks at its log.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.check_log();
        }
    }
}
