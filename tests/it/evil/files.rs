//! What lies in the folder of plugins and is none: it is refused, told apart, and what served goes on.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::gateway::run;
use harness::guests::{self, evil::Bytes, evil::Component};
use harness::{Route, TestGateway, wait_until};
use serde_json::Value;

const FRAME: Component = Component { imports: "", alloc: "", configure: "", order: "", more: "" };
/// Name of the plugin whose file is replaced.
const NAME: &str = "dropped";
const LIMIT: Duration = Duration::from_secs(60);
/// Memory of the process may grow by so much over all of them, for what is compiled and the allocator's leftovers.
const GROWTH_MAX: u64 = 64 << 20;

/// Something at the place of a plugin's file.
struct Odd {
    name: &'static str,
    put: Box<dyn Fn(&Path)>,
    /// What the operator reads of it.
    words: &'static str,
}

fn odd(name: &'static str, words: &'static str, put: impl Fn(&Path) + 'static) -> Odd {
    Odd { name, put: Box::new(put), words }
}

/// A file with these bytes.
fn bytes(name: &'static str, words: &'static str, bytes: Vec<u8>) -> Odd {
    odd(name, words, move |path| fs::write(path, &bytes).unwrap())
}

fn wat(name: &'static str, words: &'static str, text: &str) -> Odd {
    bytes(name, words, wat::parse_str(text).unwrap())
}

pub(super) fn names() -> Vec<&'static str> {
    all().iter().map(|odd| odd.name).collect()
}

fn all() -> Vec<Odd> {
    let mut all = is_no_file();
    all.extend(is_no_plugin());
    all.extend(is_of_another_contract());
    all.extend(does_harm_at_once());
    all
}

fn is_no_file() -> Vec<Odd> {
    vec![
        odd("f-directory", "is a folder", |path| fs::create_dir(path).unwrap()),
        odd("f-fifo", "FIFO", |path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        odd("f-loop-of-links", "symbolic links", |path| symlink(path.file_name().unwrap(), path).unwrap()),
        odd("f-device-without-end", "device", |path| symlink("/dev/zero", path).unwrap()),
        odd("f-sparse-file-of-2-gib", "2147483648 bytes", |path| File::create(path).unwrap().set_len(2 << 30).unwrap()),
    ]
}

fn is_no_plugin() -> Vec<Odd> {
    let good = guests::mended();
    let mut wrong_magic = good.clone();
    wrong_magic[1..4].copy_from_slice(b"ASM");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    vec![
        bytes("f-empty", "begins with nothing", Vec::new()),
        bytes("f-cut-in-half", "", good[..good.len() / 2].to_vec()),
        bytes("f-cut-in-its-header", "", good[..6].to_vec()),
        bytes("f-filled-with-zeros", "begins with \\x00", vec![0; good.len()]),
        bytes("f-wrong-magic", "begins with \\x00ASM", wrong_magic),
        bytes("f-overwritten-in-the-middle", "", flipped),
        bytes("f-program-of-the-machine", "", b"\x7fELF\x02\x01\x01\0\0\0\0\0".to_vec()),
        bytes("f-script", "begins with #!/bin/s", b"#!/bin/sh\nexit 1\n".to_vec()),
        bytes("f-text-that-is-cut", "", b"(module (func".to_vec()),
        bytes("f-text-of-a-million-parentheses", "", vec![b'('; 1_000_000]),
        wat("f-module-of-nothing", "", "(module)"),
        wat("f-component-of-nothing", "does not export sluice:plugin/lifecycle", "(component)"),
    ]
}

fn is_of_another_contract() -> Vec<Odd> {
    let version_2 = r#"(component (instance $empty)
        (export "sluice:plugin/lifecycle@2.0.0" (instance $empty))
        (export "sluice:plugin/processor@2.0.0" (instance $empty)))"#;
    let network = r#"(component (import "sluice:plugin/network@1.0.0" (instance)))"#;
    let host_call = Bytes { imports: r#"(import "env" "system" (func (param i32)))"#, ..Bytes::default() };
    let signature = r#"(module (memory (export "memory") 1)
        (func (export "sluice_alloc") (result i32) (i32.const 0))
        (func (export "sluice_process") (param i32 i32) (result i64) (i64.const 0)))"#;
    vec![
        wat("f-world-of-version-2", "sluice:plugin/lifecycle", version_2),
        bytes("f-module-of-version-2", "2.0.0", FRAME.text().replace("@1.1.0", "@2.0.0").into_bytes()),
        wat("f-unknown-import", "sluice:plugin/network@1.0.0", network),
        bytes("f-unknown-import-of-the-bytes-abi", "env", host_call.build()),
        wat("f-function-of-another-type", "sluice_alloc", signature),
    ]
}

fn does_harm_at_once() -> Vec<Odd> {
    let of = |name, words, component: Component| bytes(name, words, component.build());
    let more = |name, words, more| of(name, words, Component { more, ..FRAME });
    let memory = FRAME.text().replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 65536)");
    vec![
        more("f-endless-loop-at-start", "CPU time", "(func $spin (loop $l (br $l))) (start $spin)"),
        more("f-trap-at-start", "unreachable", "(func $trap unreachable) (start $trap)"),
        more("f-deep-recursion-at-start", "call stack exhausted", "(func $deep (call $deep)) (start $deep)"),
        more("f-table-of-a-million", "table", "(table 1000000 funcref)"),
        of(
            "f-endless-loop-while-configured",
            "CPU time",
            Component { configure: "(loop $forever (br $forever))", ..FRAME },
        ),
        of("f-endless-loop-in-alloc", "CPU time", Component { alloc: "(loop $forever (br $forever))", ..FRAME }),
        of(
            "f-memory-bomb-while-configured",
            "bytes of memory",
            Component { configure: "(loop $l (drop (memory.grow (i32.const 16))) (br $l))", ..FRAME },
        ),
        bytes("f-memory-of-4-gib", "memory", guests::component(&memory)),
        of("f-garbage-pointer-from-alloc", "", Component { alloc: "(return (i32.const 0x7ffffff0))", ..FRAME }),
    ]
}

fn route() -> Route {
    Route {
        path: format!("/{NAME}"),
        plugins: vec![NAME.to_owned()],
        outcomes: None,
        replies: None,
        ..Route::default()
    }
}

/// Removes whatever stands there.
fn clear(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if meta.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// How the plugin stands, after the gateway looked.
fn report(gateway: &TestGateway) -> Value {
    let answer = gateway.admin().post_with("/plugins/reload", &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let plugins = answer.json()["plugins"].as_array().unwrap().clone();
    plugins.into_iter().find(|plugin| plugin["name"] == NAME).unwrap()
}

/// What is wrong about how the gateway took one of them.
fn complaints(gateway: &TestGateway, odd: &Odd, good: &Value) -> Vec<String> {
    let refused = || gateway.metric("sluice_plugin_reloads_total", "result=\"refused\"");
    let before = refused();
    let path = gateway.folder().join(format!("plugins.d/{NAME}.wasm"));
    clear(&path);
    (odd.put)(&path);
    let seen = report(gateway);
    let candidate = &seen["candidate"];
    let reason = candidate["reason"].as_str().unwrap_or_default();

    let order = gateway.post_with(
        &format!("/{NAME}"),
        &[("content-type", "application/json")],
        harness::order().to_string().as_bytes(),
    );
    let id = order.accepted().id;
    let path = format!("/{NAME}/{id}");
    let published = wait_until(&format!("{path} is published"), LIMIT, || {
        let order = gateway.get(&path).json();
        if order["status"] == "PUBLISHED" { Ok(order) } else { Err(order) }
    });
    let timeline = gateway.get(&format!("{path}/timeline")).text();

    let insides = ["wasm backtrace", ".rs:", "panicked", "/registry/"];
    let checks = [
        ("is refused", candidate["state"] == "refused"),
        ("says why", !reason.is_empty() && reason.contains(odd.words)),
        ("is short about it", reason.len() < 1_000 && !insides.iter().any(|inside| reason.contains(inside))),
        ("does not serve", seen["digest"] == good["digest"]),
        ("is counted", refused() > before),
        ("stands on /readyz", gateway.admin().get("/readyz").text().contains(NAME)),
        ("leaves the gateway ready", gateway.admin().get("/readyz").status == 200),
        ("leaves orders alone", published["held"].is_null() && !timeline.contains("\"held\"")),
        ("is not who judged", timeline.contains(good["digest"].as_str().unwrap())),
    ];
    let failed = checks.into_iter().filter(|(_, is_so)| !is_so);
    failed.map(|(what, _)| format!("{} should: `{what}`, but: {seen}", odd.name)).collect()
}

#[test]
fn each_is_refused_while_what_served_goes_on() {
    let gateway = TestGateway::with()
        .plugin(NAME, guests::mended())
        .route(route())
        .announce("plugin")
        .text("plugins.poll_interval", "1h")
        .start();
    let good = report(&gateway);
    assert!(good["candidate"].is_null(), "{good}");
    let file = gateway.folder().join(format!("plugins.d/{NAME}.wasm"));
    let resident = gateway.resident_bytes();
    let wrong: Vec<String> = all().iter().flat_map(|odd| complaints(&gateway, odd, &good)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let grown = gateway.resident_bytes().saturating_sub(resident);
    assert!(grown <= GROWTH_MAX, "the process grew by {grown} bytes");

    // A good one behind all of them is taken.
    clear(&file);
    fs::write(&file, guests::marked()).unwrap();
    let seen = report(&gateway);
    assert!(seen["candidate"].is_null() && seen["digest"] != good["digest"], "{seen}");
}

/// Those that could make a start wait for ever, or take all memory.
#[test]
fn a_first_start_with_one_of_them_ends_and_names_it() {
    let risky =
        ["f-fifo", "f-device-without-end", "f-sparse-file-of-2-gib", "f-loop-of-links", "f-endless-loop-at-start"];
    for odd in all().iter().filter(|odd| risky.contains(&odd.name)) {
        let gateway = TestGateway::with().plugin(NAME, guests::mended()).route(route()).prepare();
        let path = gateway.folder().join(format!("plugins.d/{NAME}.wasm"));
        clear(&path);
        (odd.put)(&path);
        let config = gateway.config_file().to_str().unwrap();
        let (code, stdout, stderr) = run(&["dev", "--config", config], gateway.folder(), LIMIT);
        let name = odd.name;
        assert!([1, 78].contains(&code), "{name}: exit code {code}\n{stdout}\n{stderr}");
        assert!(format!("{stdout}{stderr}").contains(NAME), "{name}: does not name the plugin:\n{stdout}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{name}: {stderr}");
    }
}
