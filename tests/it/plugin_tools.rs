//! The tools for authors of plugins, as an author uses them: the real program, on projects that need no toolchain.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::environment::{self, say};
use harness::gateway::run;
use harness::program;
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
