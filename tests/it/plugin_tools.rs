//! The tools for authors of plugins, as an author uses them: the real program, on projects that need no toolchain.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::environment::{self, say};
use harness::gateway::run;
use harness::{Client, Route, TestGateway, program, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `sluice plugin …` in a folder.
fn plugin(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut all = vec!["plugin"];
    all.extend(arguments);
    run(&all, folder, LIMIT)
}

/// The same; it must succeed.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = plugin(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}\n{stdout}\n{stderr}");
    stdout
}

/// Lines of JSON.
fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_new_project_has_what_it_needs_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let told = done(folder.path(), &["new", "--lang", "wat", "tiny"]);
    for next in ["sluice plugin test tiny", "sluice plugin build tiny", "sluice dev --plugin tiny"] {
        assert!(told.contains(next), "{told}");
    }
    for file in ["plugin.toml", "plugin.wat", "vectors.ndjson"] {
        assert!(folder.path().join("tiny").join(file).is_file(), "{file}");
    }
    let manifest = fs::read_to_string(folder.path().join("tiny/plugin.toml")).unwrap();
    assert!(manifest.contains("name = \"tiny\"") && !manifest.contains("{{"), "{manifest}");
    done(folder.path(), &["new", "--lang", "typescript", "--world", "enricher", "--in", "deep", "typed"]);
    for file in ["sdk/wit/plugin.wit", "sdk/README.md", "plugin.ts"] {
        assert!(folder.path().join("deep/typed").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_new_project_takes_no_other_ones_place() {
    let folder = tempfile::tempdir().unwrap();
    done(folder.path(), &["new", "--lang", "wat", "tiny"]);
    for (arguments, exit, told) in [
        (["new", "--lang", "wat", "tiny"], 1, "not an empty folder"),
        (["new", "--lang", "wat", "../tiny"], 1, "is no name for a plugin"),
        (["new", "--lang", "cobol", "other"], 2, "possible values"),
    ] {
        let (code, _, stderr) = plugin(folder.path(), &arguments);
        assert!(code == exit && stderr.contains(told), "{code} {stderr}");
    }
}

#[test]
fn a_folder_without_a_project_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["build", "test", "check"] {
        let (code, _, stderr) = plugin(folder.path(), &[command]);
        assert!(code == 1 && stderr.contains("plugin.toml"), "{command}: {code} {stderr}");
    }
}

#[test]
fn real_orders_are_judged_without_a_gateway() {
    let Some(path) = environment::orders() else {
        say("SKIPPED: real_orders_are_judged_without_a_gateway needs SLUICE_TEST_ORDERS");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let stdout = done(folder.path(), &["run", "-f", path.to_str().unwrap(), "order-rules", "-o", "json"]);
    let judged = objects(&stdout);
    assert_eq!(judged.len(), 1275);
    for (order, text) in judged.iter().zip(fs::read_to_string(path).unwrap().lines()) {
        let posted: Value = serde_json::from_str(text).unwrap();
        match order["verdict"].as_str().unwrap() {
            "enrich" => {
                assert!(order["order"]["totals"]["net"].is_string(), "{order}");
                assert_eq!(order["order"]["lines"], posted["lines"]);
            }
            "reject" => assert!(order["problems"].as_array().is_some_and(|problems| !problems.is_empty()), "{order}"),
            other => panic!("{other}: {order}"),
        }
    }
}

#[test]
fn a_chain_judges_what_comes_in_on_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let good = harness::order_of("17850").to_string();
    let input = format!("{good}\n\n{}\n{{broken\n", good.replace("\"quantity\":6", "\"quantity\":0"));
    let ask = |output: &str| {
        let mut child = program::command()
            .args(["plugin", "run", "-f", "-", "order-rules", "customer-enricher", "-o", output])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "a line that is no order is told by the exit code");
        String::from_utf8(output.stdout).unwrap()
    };
    let judged = objects(&ask("json"));
    assert_eq!((judged.len(), &judged[0]["line"], &judged[1]["line"]), (3, &1.into(), &3.into()));
    assert_eq!(judged[0]["verdict"], "enrich");
    assert_eq!(judged[0]["order"]["customer"]["name"], "Harbour Lane Gifts");
    let plugins: Vec<&str> =
        judged[0]["plugins"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(plugins, ["order-rules", "customer-enricher"]);
    assert_eq!((&judged[1]["verdict"], judged[1]["plugins"].as_array().unwrap().len()), (&"reject".into(), 1));
    assert_eq!(judged[1]["problems"][0]["pointer"], "/lines/0/quantity");
    assert!(judged[2]["error"].is_string(), "{}", judged[2]);

    let table = ask("table");
    for part in [
        "+ /customer: ",
        "line 3  reject",
        "/lines/0/quantity",
        "line 4  NO ORDER",
        "3 orders: 1 enrich, 1 no order, 1 reject",
    ] {
        assert!(table.contains(part), "{part}:\n{table}");
    }
}

#[test]
fn a_plugin_is_configured_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("orders.ndjson"), harness::order().to_string()).unwrap();
    fs::write(folder.path().join("euro.json"), r#"{"rules":["currency"],"currencies":["EUR"]}"#).unwrap();
    let stdout = done(
        folder.path(),
        &["run", "-f", "orders.ndjson", "order-rules", "--plugin-config", "euro.json", "-o", "json"],
    );
    assert_eq!(objects(&stdout)[0]["problems"][0]["pointer"], "/currency");
    fs::write(folder.path().join("euro.json"), "[]").unwrap();
    let (code, _, stderr) =
        plugin(folder.path(), &["run", "-f", "orders.ndjson", "order-rules", "--plugin-config", "euro.json"]);
    assert!(code == 1 && stderr.contains("no JSON object"), "{code} {stderr}");
}

/// A project whose plugin refuses large orders, with its plugin built.
fn built() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    done(folder.path(), &["new", "--lang", "wat", "tiny"]);
    let told = done(folder.path(), &["build", "tiny"]);
    assert!(told.contains("tiny/tiny.wasm") && told.contains("bytes lane"), "{told}");
    folder
}

#[test]
fn a_built_plugin_says_what_it_is() {
    let folder = built();
    let told = done(folder.path(), &["check", "tiny/tiny.wasm", "-o", "json"]);
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&report["usable"], &report["lane"], &report["world"]),
        (&true.into(), &"bytes".into(), &"bytes".into())
    );
    assert_eq!((&report["manifest"]["name"], &report["capabilities"][0]), (&"tiny".into(), &"log".into()));
    let size = fs::metadata(folder.path().join("tiny/tiny.wasm")).unwrap().len();
    assert_eq!((report["bytes"].as_u64(), report["limits"]["patchOperationsMax"].as_u64()), (Some(size), Some(64)));
    let table = done(folder.path(), &["check", "tiny"]);
    for part in ["tiny 0.1.0, wat", "sluice_process", "at most 32MiB", "usable    yes"] {
        assert!(table.contains(part), "{part}:\n{table}");
    }
}

#[test]
fn what_no_node_can_use_is_told_with_what_was_found() {
    let folder = built();
    let cases = [
        ("text.wasm", b"this is no plugin".to_vec(), "this is"),
        ("empty.wat", b"(module)".to_vec(), "no lane"),
        (
            "import.wat",
            b"(module (import \"env\" \"now\" (func)) (memory (export \"memory\") 1)
            (func (export \"sluice_alloc\") (param i32) (result i32) unreachable)
            (func (export \"sluice_process\") (param i32 i32) (result i64) unreachable))"
                .to_vec(),
            "env",
        ),
    ];
    for (name, bytes, told) in cases {
        fs::write(folder.path().join(name), bytes).unwrap();
        let (code, stdout, stderr) = plugin(folder.path(), &["check", name, "-o", "json"]);
        assert_eq!(code, 1, "{name}: {stdout} {stderr}");
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(report["usable"], false);
        assert!(report["problems"].to_string().contains(told), "{name}: {}", report["problems"]);
    }
    let wat = folder.path().join("tiny/plugin.wat");
    fs::write(&wat, fs::read_to_string(&wat).unwrap().replace("sluice_process", "process")).unwrap();
    let (code, _, stderr) = plugin(folder.path(), &["build", "tiny"]);
    assert!(code == 1 && stderr.contains("sluice_process"), "{code} {stderr}");
    fs::write(&wat, "(module (broken").unwrap();
    let (code, _, stderr) = plugin(folder.path(), &["build", "tiny"]);
    assert!(code == 1 && stderr.contains("no WebAssembly"), "{code} {stderr}");
}

#[test]
fn vectors_that_miss_are_told_with_what_differs() {
    let folder = built();
    let told = done(folder.path(), &["test", "tiny"]);
    assert!(told.contains(" 0 failed"), "{told}");
    let vectors = [
        r#"{"name":"refused for nothing","order":{"a":1},"expect":{"verdict":"reject"}}"#.to_owned(),
        r#"{"name":"changed by nobody","order":{"a":1},"expect":{"verdict":"accept","order":{"a":1.0,"b":2}}}"#
            .to_owned(),
        format!(
            r#"{{"name":"another problem","order":{{"a":"{}"}},"expect":{{"verdict":"reject","problems":[{{"code":"too-small","pointer":"/a"}}]}}}}"#,
            "x".repeat(10_001)
        ),
        r#"{"name":"as expected","order":{"a":1},"expect":{"verdict":"accept","order":{ "a" : 1 }}}"#.to_owned(),
    ];
    fs::write(folder.path().join("tiny/vectors.ndjson"), vectors.join("\n")).unwrap();
    let (code, stdout, _) = plugin(folder.path(), &["test", "tiny"]);
    assert_eq!(code, 1, "{stdout}");
    for part in [
        "FAILED line 1: refused for nothing\n  expected reject, found accept",
        "~ /a: 1.0 -> 1",
        "- /b: 2",
        "too-small at /a",
        "order-too-large",
        "4 vectors in WebAssembly: 1 passed, 3 failed",
    ] {
        assert!(stdout.contains(part), "{part}:\n{stdout}");
    }
    fs::write(folder.path().join("tiny/vectors.ndjson"), r#"{"name":"a","order":{},"expect":{"verdcit":"accept"}}"#)
        .unwrap();
    let (code, _, stderr) = plugin(folder.path(), &["test", "tiny"]);
    assert!(code == 1 && stderr.contains("line 1") && stderr.contains("verdcit"), "{code} {stderr}");
}

/// Three answers by the length of the question: the configuration alone, one order, two orders.
const COUNTING: &str = r#"(module (memory (export "memory") 4)
  DATA
  (func (export "sluice_alloc") (param i32) (result i32) (i32.const 65536))
  (func (export "sluice_process") (param i32) (param $length i32) (result i64)
    (if (i32.lt_u (local.get $length) (i32.const 60)) (then (return (i64.const NONE))))
    (if (i32.lt_u (local.get $length) (i32.const 330)) (then (return (i64.const ONE))))
    (i64.const TWO)))"#;

#[test]
fn a_plugin_that_answers_otherwise_in_a_batch_is_found() {
    let folder = built();
    let accept = r#"{"seq":0,"verdict":"accept"}"#;
    let reject = r#"{"seq":1,"verdict":"reject","problems":[{"code":"second","title":"Second"}]}"#;
    let answers = [String::new(), accept.to_owned(), format!("{accept},{reject}")];
    let (mut text, mut data) = (COUNTING.to_owned(), String::new());
    for (place, (name, outcomes)) in (1_usize..).zip(["NONE", "ONE", "TWO"].iter().zip(answers)) {
        let answer = format!("{{\"outcomes\":[{outcomes}]}}");
        let escaped = answer.replace('"', "\\22");
        data += &format!("(data (i32.const {}) \"{escaped}\")", place * 1024);
        text = text.replace(name, &(((place * 1024) << 32) | answer.len()).to_string());
    }
    fs::write(folder.path().join("tiny/plugin.wat"), text.replace("DATA", &data)).unwrap();
    let vector = |name: &str| format!("{{\"name\":\"{name}\",\"order\":{{}},\"expect\":{{\"verdict\":\"accept\"}}}}\n");
    fs::write(folder.path().join("tiny/vectors.ndjson"), vector("alone")).unwrap();
    assert!(done(folder.path(), &["test", "tiny"]).contains("1 passed"));
    fs::write(folder.path().join("tiny/vectors.ndjson"), vector("first") + &vector("second")).unwrap();
    let (code, stdout, _) = plugin(folder.path(), &["test", "tiny"]);
    let told = "FAILED line 2: second\n  alone it gives accept, in a batch with the others reject: second (Second)";
    assert!(code == 1 && stdout.contains(told), "{code} {stdout}");
}

#[test]
fn costs_are_measured_and_instructions_are_the_same_each_time() {
    let folder = built();
    let measured = || -> Value {
        serde_json::from_str(&done(folder.path(), &["bench", "tiny", "--calls", "10", "-o", "json"])).unwrap()
    };
    let (first, second) = (measured(), measured());
    for cost in ["compileMs", "instantiateMicros", "aloneMicros", "inBatchMicros", "memoryBytes", "answerBytesInBatch"]
    {
        assert!(first[cost].as_f64().is_some_and(|cost| cost > 0.0), "{cost}: {first}");
    }
    assert!(first["instructionsAlone"].as_u64() > Some(100), "{first}");
    for cost in ["instructionsAlone", "instructionsInBatch", "memoryBytes", "answerBytesInBatch"] {
        assert_eq!(first[cost], second[cost], "{cost}");
    }
    assert!(done(folder.path(), &["bench", "tiny", "--calls", "10"]).contains("at most 64MiB"));
}

#[test]
fn what_is_saved_serves_once_it_passes_its_vectors() {
    let folder = built();
    let mut route = Route::default();
    route.plugins.push("tiny".to_owned());
    let plugin = fs::read(folder.path().join("tiny/tiny.wasm")).unwrap();
    let gateway = TestGateway::with().dev().route(route).plugin("tiny", plugin).start();
    let into = gateway.folder().join("plugins.d");
    let told = folder.path().join("told");
    let child = program::command()
        .args(["plugin", "watch", "tiny", "--into", into.to_str().unwrap()])
        .args(["--url", &format!("http://{}", gateway.admin_address())])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(fs::File::create(&told).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _watch = Ended(child);
    let wait_for = |text: &str, times: usize| {
        wait_until(text, LIMIT, || {
            let told = fs::read_to_string(&told).unwrap();
            if told.matches(text).count() >= times { Ok(()) } else { Err(told) }
        });
    };
    let status = || gateway.settled(&gateway.post_order(&harness::order()).id)["status"].clone();
    wait_for("tiny serves, sha256:", 1);
    wait_for("waiting for the next save", 1);
    assert_eq!(status(), "VALIDATED");

    let wat = folder.path().join("tiny/plugin.wat");
    let text = fs::read_to_string(&wat).unwrap();
    let strict =
        text.replace("(global $order_bytes_max i32 (i32.const 10000))", "(global $order_bytes_max i32 (i32.const 20))");
    assert_ne!(text, strict);
    fs::write(&wat, strict).unwrap();
    wait_for("what served goes on serving", 1);
    assert_eq!(status(), "VALIDATED");

    let vector = r#"{"name":"small ones only","order":{"a":"12345678901234567890"},"expect":{"verdict":"reject"}}"#;
    fs::write(folder.path().join("tiny/vectors.ndjson"), vector).unwrap();
    wait_for("tiny serves, sha256:", 2);
    assert_eq!(status(), "REJECTED");

    fs::write(&wat, "(module (broken").unwrap();
    wait_for("no WebAssembly", 1);
    wait_for("waiting for the next save", 4);
    assert_eq!(status(), "REJECTED");
}

/// The commands in the README's section about plugins of one's own, in their sequence.
fn commands_of_the_readme() -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Your own plugin\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Runs a line with a shell that finds the program.
fn shell(line: &str, gateway: &TestGateway) -> Command {
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", program::path().parent().unwrap().display(), environment::path());
    shell
        .args(["-c", line])
        .current_dir(gateway.folder())
        .env("PATH", path)
        .env("SLUICE__HTTP__LISTEN", gateway.http_address().to_string())
        .env("SLUICE__ADMIN__LISTEN", gateway.admin_address().to_string())
        .stdin(Stdio::null());
    shell
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_commands_of_the_readme_lead_to_a_live_verdict() {
    let commands = commands_of_the_readme();
    assert!((4..=5).contains(&commands.len()), "{commands:?}");
    let gateway = TestGateway::with().dev().prepare();
    let mut node = None;
    let mut last = String::new();
    for line in &commands {
        if line.starts_with("sluice dev") {
            let child = shell(&format!("exec {line} > dev.log 2>&1"), &gateway).spawn().unwrap();
            node = Some(Ended(child));
            let admin = Client::new(gateway.admin_address());
            wait_until("readiness", LIMIT, || match admin.ask("GET", "/readyz", &[], None) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            });
            continue;
        }
        let output = shell(line, &gateway).output().unwrap();
        last = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{line}\n{last}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(node.is_some(), "none of them starts a gateway: {commands:?}");
    let order: Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&order["status"], &order["problems"][0]["code"]), (&"REJECTED".into(), &"order-too-large".into()));
}
