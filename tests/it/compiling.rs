//! Plugins are compiled in a process of their own, within limits, and what comes out is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use harness::{TestGateway, guests, order, program};
use sluice::config::{ByteSize, Config, PluginPolicy, PluginsConfig, Span};
use sluice::plugin::{LoadedPlugin, PluginError, PluginHost, PluginOrigin, PluginSource, Tables};

/// A folder of the gateway's own.
fn state() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

fn limits() -> PluginsConfig {
    Config::from_bytes(None).unwrap().plugins
}

/// Loads a plugin in this process, which has the program compile it.
fn load(limits: &PluginsConfig, state_dir: &Path, file: Vec<u8>) -> Result<LoadedPlugin, PluginError> {
    let host =
        PluginHost::start(limits, Arc::default()).unwrap().compiling(state_dir, Some(program::path().to_owned()));
    let origin = PluginOrigin::File("odd.wasm".into());
    let source = PluginSource {
        name: "odd".to_owned(),
        origin,
        component: file.into(),
        config_json: b"{}".to_vec(),
        policy: PluginPolicy::default(),
        tables: Tables::default(),
    };
    host.load(limits, source)
}

/// A module that is small as a file and takes the compiler long: one function of many calls and branches.
fn tedious(calls: usize) -> Vec<u8> {
    let step =
        "(local.set $x (i64.add (local.get $x) (i64.mul (call $f (local.get $x) (local.get $y)) (local.get $y))))
        (if (i64.eqz (local.get $x)) (then (local.set $y (call $f (local.get $y) (local.get $x)))))\n";
    let text = format!(
        "(module (memory (export \"memory\") 1)
        (func (export \"sluice_alloc\") (param i32) (result i32) (i32.const 64))
        (func (export \"sluice_process\") (param i32 i32) (result i64) (i64.const 0))
        (func $f (param $x i64) (param $y i64) (result i64)\n{} (local.get $x)))",
        step.repeat(calls)
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn a_gateway_compiles_apart_and_keeps_what_comes_out() {
    let state = state();
    let gateway = TestGateway::with().text("plugins.state_dir", state.path().to_str().unwrap()).start();
    assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
    let kept: Vec<_> = fs::read_dir(state.path().join("compiled")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    for file in kept {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // That it was done apart is told by the log: there is no warning that it was not, or the gateway would say so here.
}

#[test]
fn another_process_compiles_what_this_one_runs() {
    let state = state();
    let first = load(&limits(), state.path(), guests::marked()).unwrap();
    assert!(!first.info().is_cached);
    assert!(load(&limits(), state.path(), guests::marked()).unwrap().info().is_cached);
    let error = load(&limits(), state.path(), b"(module)".to_vec()).unwrap_err().to_string();
    assert!(error.starts_with("plugin `odd` is a core module of no lane"), "{error}");
}

#[test]
fn compiling_ends_at_the_limit_of_time() {
    let state = state();
    let limits = PluginsConfig { compile_time_max: Span(std::time::Duration::from_millis(200)), ..limits() };
    let error = load(&limits, state.path(), tedious(30_000)).unwrap_err().to_string();
    assert!(error.contains("it takes longer than the 0.2 s of `plugins.compile_time_max`"), "{error}");
}

#[test]
fn compiling_ends_at_the_limit_of_memory() {
    let state = state();
    let limits = PluginsConfig { compile_memory_max: ByteSize(300 << 20), ..limits() };
    let error = load(&limits, state.path(), tedious(30_000)).unwrap_err().to_string();
    assert!(error.contains("it needs more memory than the 314572800 bytes of `plugins.compile_memory_max`"), "{error}");
}

#[test]
fn a_compiler_of_another_engine_says_so() {
    let mut command = program::command();
    command.args(["compile-plugin", "--memory-bytes", "4294967296", "--seconds", "10", "--engine", "1"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "other engine\n");
}
