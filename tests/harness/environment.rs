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
