//! What the environment tells the tests; read here and nowhere else.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

#[expect(clippy::disallowed_methods, reason = "the tests' own switches are no configuration of the gateway")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `SLUICE_BIN`: the program to test instead of the one built here.
#[must_use]
pub fn program() -> Option<PathBuf> {
    variable("SLUICE_BIN").map(PathBuf::from)
}

/// `SLUICE_TEST_KAFKA`: `host:port` of a real Kafka to test against.
#[must_use]
pub fn kafka() -> Option<String> {
    variable("SLUICE_TEST_KAFKA")
}

/// `SLUICE_TEST_KAFKA_FOLDER`: the folder of a real Kafka that `.ci/kafka/start` started; tests that stop and break a broker
/// start another one from its jars.
#[must_use]
pub fn kafka_folder() -> Option<PathBuf> {
    variable("SLUICE_TEST_KAFKA_FOLDER").map(PathBuf::from)
}

/// `SLUICE_TEST_PYTHON`: a Python that has `kafka-python`, a client of Kafka that is not ours.
#[must_use]
pub fn python() -> Option<PathBuf> {
    variable("SLUICE_TEST_PYTHON").map(PathBuf::from)
}

/// `SLUICE_TEST_POSTGRES`: a PostgreSQL, as a URL whose user may create databases, instead of one that is started.
#[must_use]
pub fn postgres() -> Option<String> {
    variable("SLUICE_TEST_POSTGRES")
}

/// `SLUICE_TEST_DATABASE=postgres`: gateways of tests that name no database get one on PostgreSQL.
#[must_use]
pub fn on_postgres() -> bool {
    variable("SLUICE_TEST_DATABASE").is_some_and(|name| name == "postgres")
}

/// `SLUICE_TEST_PGBOUNCER`: a pooler stands in front of the PostgreSQL that is started.
#[must_use]
pub fn pgbouncer() -> bool {
    variable("SLUICE_TEST_PGBOUNCER").is_some()
}

/// `SLUICE_TEST_REQUIRE`: a service that is missing makes tests fail, not be skipped.
#[must_use]
pub fn requires_services() -> bool {
    variable("SLUICE_TEST_REQUIRE").is_some()
}

/// `SLUICE_TEST_ORDERS`: a file of real orders, one JSON object per line.
#[must_use]
pub fn orders() -> Option<PathBuf> {
    variable("SLUICE_TEST_ORDERS").map(PathBuf::from)
}

/// `SLUICE_TEST_LANGUAGES`: a folder with the reference plugin in many languages, `LANGUAGE.wasm` each.
#[must_use]
pub fn languages() -> Option<PathBuf> {
    variable("SLUICE_TEST_LANGUAGES").map(PathBuf::from)
}

/// `SLUICE_TEST_SEED`: the seed of the tests that roll dice.
#[must_use]
pub fn seed() -> Option<u64> {
    variable("SLUICE_TEST_SEED").map(|text| text.parse().expect("SLUICE_TEST_SEED is a number"))
}

/// What the proof runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// One node on SQLite.
    Sqlite,
    /// So many nodes on PostgreSQL.
    Postgres(usize),
    /// What the seed decides, for each crash point anew; where a test is about several nodes, several on PostgreSQL.
    Any,
}

/// `SLUICE_TEST_PROOF`: database and number of nodes of the proof, as in `postgres:3`, or `any`; by default one node on SQLite.
#[must_use]
pub fn proof() -> Proof {
    match variable("SLUICE_TEST_PROOF").as_deref() {
        None | Some("sqlite") => Proof::Sqlite,
        Some("any") => Proof::Any,
        Some(text) => {
            let nodes = text.strip_prefix("postgres:").and_then(|nodes| nodes.parse().ok());
            Proof::Postgres(nodes.expect("SLUICE_TEST_PROOF is `sqlite`, `any`, or `postgres:` and a number of nodes"))
        }
    }
}

/// `SLUICE_TEST_FAULTS`: how many faults a random schedule has.
#[must_use]
pub fn faults() -> Option<u64> {
    variable("SLUICE_TEST_FAULTS").map(|text| text.parse().expect("SLUICE_TEST_FAULTS is a number"))
}

/// `SLUICE_TEST_POSTS`: how many orders a random schedule posts at least.
#[must_use]
pub fn posts() -> Option<u64> {
    variable("SLUICE_TEST_POSTS").map(|text| text.parse().expect("SLUICE_TEST_POSTS is a number"))
}

/// `SLUICE_TEST_ROWS`: how many finished orders the test of retention makes; a million is a real size.
#[must_use]
pub fn rows() -> Option<usize> {
    variable("SLUICE_TEST_ROWS").map(|text| text.parse().expect("SLUICE_TEST_ROWS is a number"))
}

/// `SLUICE_TEST_RELOADS`: how often the test of reloads under load changes a plugin; a thousand shows leaks.
#[must_use]
pub fn reloads() -> Option<usize> {
    variable("SLUICE_TEST_RELOADS").map(|text| text.parse().expect("SLUICE_TEST_RELOADS is a number"))
}

/// `SLUICE_TEST_FUZZ_SECONDS`: how long random files are thrown at the loader of plugins.
#[must_use]
pub fn fuzz_seconds() -> Option<u64> {
    variable("SLUICE_TEST_FUZZ_SECONDS").map(|text| text.parse().expect("SLUICE_TEST_FUZZ_SECONDS is a number"))
}

/// Where programs are found.
#[must_use]
pub fn path() -> String {
    variable("PATH").unwrap_or_default()
}

/// The cargo that runs the tests.
#[must_use]
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Says something that is seen even when the test passes: the test runner catches what `println!` writes, not this.
pub fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody to tell when standard error itself is gone.
    drop(writeln!(stderr, "\n    {text}"));
}
