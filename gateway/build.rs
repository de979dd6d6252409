//! Builds the bundled plugins from their sources and makes components of them, to be embedded in the gateway.
//!
//! The inner cargo has a target folder of its own: in the outer one both would wait for the same lock. It also gets
//! none of the outer build's flags and wrappers, so that clippy, docs and coverage leave the plugins alone.

#[path = "build/languages.rs"]
mod languages;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use wit_component::{ComponentEncoder, DecodedWasm};

const TARGET: &str = "wasm32-unknown-unknown";

/// Memory a plugin begins with. Enough for most batches: an instance that never asks for more costs two system calls less.
const MEMORY_BYTES: usize = 4 << 20;

/// The plugins that the gateway brings along: packages in `plugins/`.
const PLUGINS: [&str; 2] = ["order-rules", "customer-enricher"];

/// What every plugin exports.
const EXPORTS: [&str; 2] = ["sluice:plugin/lifecycle@1.1.0", "sluice:plugin/processor@1.1.0"];

/// Variables of the outer build that must not reach the inner one.
const OUTER_ONLY: [&str; 14] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_ENCODED_RUSTDOCFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "LLVM_PROFILE_FILE",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET",
    "PROFILE",
    "OPT_LEVEL",
];

fn main() {
    let workspace = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    for path in ["plugins", "plugin-sdk", "Cargo.lock", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/languages.rs");

    let out = PathBuf::from(variable("OUT_DIR"));
    let embedded = workspace.canonicalize().map_err(|error| error.to_string());
    let embedded = embedded.and_then(|workspace| languages::embed(&workspace, &out));
    if let Err(problem) = embedded.and_then(|()| ensure_target()).and_then(|()| build(&workspace, &out)) {
        for line in problem.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

/// Sees to it that this compiler can build for WebAssembly.
fn ensure_target() -> Result<(), String> {
    if has_target()? {
        return Ok(());
    }
    let command = format!("rustup target add {TARGET}");
    let done = Command::new("rustup").args(["target", "add", TARGET]).output();
    let told = match done {
        Ok(output) if output.status.success() && has_target()? => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("rustup: {error}"),
    };
    Err(format!(
        "the bundled plugins need the standard library for {TARGET}, which this compiler does not have\n\
         install it with `{command}`, or with your distribution's package for that target\n{told}"
    ))
}

fn has_target() -> Result<bool, String> {
    let rustc = variable("RUSTC");
    let output = Command::new(&rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|error| format!("{}: {error}", rustc.display()))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let is_std = |name: OsString| name.to_string_lossy().starts_with("libstd-");
    Ok(fs::read_dir(folder).is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| is_std(file.file_name())))))
}

fn build(workspace: &Path, out: &Path) -> Result<(), String> {
    // OUT_DIR is `<target>/<profile>/build/<package>/out`.
    let target_dir = out.ancestors().nth(4).unwrap_or(out).join("plugins");
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(workspace).args(["build", "--locked", "--profile", "plugin", "--target", TARGET, "--target-dir"]);
    cargo.arg(&target_dir);
    for plugin in PLUGINS {
        cargo.args(["--package", plugin]);
    }
    cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", format!("-Clink-arg=--initial-memory={MEMORY_BYTES}"));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let of_cargo =
            text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_CFG_") || text.starts_with("CARGO_PROFILE_");
        if of_cargo || text.starts_with("CARGO_FEATURE_") || OUTER_ONLY.contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the bundled plugins do not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    for plugin in PLUGINS {
        let core = target_dir.join(TARGET).join("plugin").join(format!("{}.wasm", plugin.replace('-', "_")));
        let component = fs::read(&core)
            .map_err(|error| error.to_string())
            .and_then(|core| componentize(&core))
            .map_err(|problem| format!("no component can be made of {}: {problem}", core.display()))?;
        let file = out.join(format!("{plugin}.wasm"));
        fs::write(&file, component).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Makes a component of a core module; a module without the contract's exports is an error, not an empty component.
fn componentize(core: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || ComponentEncoder::default().validate(true).module(core)?.encode();
    let component = encode().map_err(|error| format!("{error:#}"))?;
    let decoded = wit_component::decode(&component).map_err(|error| format!("{error:#}"))?;
    let DecodedWasm::Component(resolve, world) = &decoded else { return Err("it is no component".to_owned()) };
    let exported: Vec<_> = resolve.worlds[*world].exports.keys().map(|key| resolve.name_world_key(key)).collect();
    match EXPORTS.iter().find(|expected| !exported.iter().any(|name| name == *expected)) {
        None => Ok(component),
        Some(missing) => Err(format!("it does not export {missing}, only {exported:?}")),
    }
}
