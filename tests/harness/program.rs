//! Finds the program `sluice`, building it first, once per test run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::environment;

/// The path of the program. The first call builds it with the profile and target folder of this test.
///
/// # Panics
///
/// When it cannot be built.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| environment::program().unwrap_or_else(build))
}

/// `target/PROFILE/deps/it-HASH` lies two folders below `target/PROFILE/sluice`.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps");
    let target = profile.parent().expect("a profile's folder lies in a target folder");
    let name = profile.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let name = if name == "debug" { "dev" } else { name };

    // All members, although only one is built: so cargo resolves the same features as for the tests and compiles
    // no dependency twice. Cargo itself lets one builder at a time into the target folder.
    let features: &[&str] = if cfg!(feature = "kafka-tls") { &["--features", "sluice-tests/kafka-tls"] } else { &[] };
    let output = Command::new(environment::cargo())
        .args(["build", "--workspace", "--bin", "sluice", "--profile", name])
        .args(features)
        .arg("--target-dir")
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo could not build sluice:\n{}", String::from_utf8_lossy(&output.stderr));
    profile.join("sluice")
}

/// The program, ready for arguments. Nothing of the tests' environment configures it.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLUICE_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}
