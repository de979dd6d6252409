//! The command line against a running gateway.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::gateway::run;
use harness::orders::REFUSED;
use harness::random::unique;
use harness::{TestGateway, order, order_of, program, shared, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

fn sluice(gateway: &TestGateway, arguments: &[&str], folder: &Path) -> (i32, String, String) {
    let mut all = arguments.to_vec();
    let config = gateway.config_file().to_str().unwrap();
    all.extend(["--config", config]);
    run(&all, folder, LIMIT)
}

#[test]
fn an_order_is_posted_watched_and_shown() {
    let (gateway, folder) = (shared(), tempfile::tempdir().unwrap());
    let data = order().to_string();
    let (code, stdout, stderr) = sluice(&gateway, &["orders", "post", "-d", &data], folder.path());
    assert_eq!(code, 0, "{stderr}");
    let id = serde_json::from_str::<Value>(&stdout).unwrap()["id"].as_str().unwrap().to_owned();
    let (code, stdout, stderr) = sluice(&gateway, &["orders", "watch", &id], folder.path());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.lines().last().is_some_and(|line| line.contains("VALIDATED")), "{stdout}");
    let (code, stdout, stderr) = sluice(&gateway, &["orders", "get", &id], folder.path());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), gateway.order(&id));
    let (code, _, stderr) = sluice(&gateway, &["orders", "get", "not-an-id"], folder.path());
    assert!(code == 1 && !stderr.is_empty(), "{code} {stderr}");
}

#[test]
fn a_file_is_posted_and_what_was_refused_is_told() {
    let (gateway, folder) = (TestGateway::start(), tempfile::tempdir().unwrap());
    let lines = [order().to_string(), "{broken".to_owned(), order_of(REFUSED).to_string(), order().to_string()];
    fs::write(folder.path().join("orders.ndjson"), lines.join("\n")).unwrap();
    let (_, stdout, stderr) = sluice(&gateway, &["orders", "post", "-f", "orders.ndjson"], folder.path());
    let told = format!("{stdout}{stderr}");
    assert!(told.contains('3') && told.to_lowercase().contains("line 2"), "{told}");
    assert!(!told.contains('\u{1b}'), "no colors and no bars where there is no terminal: {told:?}");
    assert_eq!(gateway.database().orders(), 3);
}

/// Killed in the middle and started again, the upload goes on; a line that was sent twice is one order.
#[test]
fn an_upload_that_was_cut_is_resumed() {
    let (gateway, folder) = (TestGateway::start(), tempfile::tempdir().unwrap());
    let lines: Vec<String> = (0..6000).map(|_| order().to_string()).collect();
    fs::write(folder.path().join("orders.ndjson"), lines.join("\n") + "\n").unwrap();
    let config = gateway.config_file().to_str().unwrap();
    let arguments = ["orders", "post", "-f", "orders.ndjson", "--batch-lines", "50", "--config", config];
    let mut first = program::command().args(arguments).current_dir(folder.path()).spawn().unwrap();
    wait_until("a part of the file", LIMIT, || match gateway.database().orders() {
        count if count >= 300 => Ok(()),
        count => Err(count),
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let before = gateway.database().orders();
    assert!(before < 6000, "the upload was over before it could be cut");
    let (code, stdout, stderr) = run(&arguments, folder.path(), LIMIT);
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert_eq!(gateway.database().orders(), 6000);
}

#[test]
fn an_upload_outlives_a_restart_of_the_gateway() {
    let (gateway, folder) = (TestGateway::start(), tempfile::tempdir().unwrap());
    let customer = unique("c");
    let lines: Vec<String> = (0..3000).map(|_| order_of(&customer).to_string()).collect();
    fs::write(folder.path().join("orders.ndjson"), lines.join("\n")).unwrap();
    let config = gateway.config_file().to_str().unwrap();
    let arguments = ["orders", "post", "-f", "orders.ndjson", "--batch-lines", "50", "--config", config];
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| run(&arguments, folder.path(), LIMIT));
        wait_until("a part of the file", LIMIT, || match gateway.database().orders() {
            count if count >= 200 => Ok(()),
            count => Err(count),
        });
        gateway.start_again();
        let (code, stdout, stderr) = upload.join().unwrap();
        assert_eq!(code, 0, "{stdout}\n{stderr}");
    });
    assert_eq!(gateway.database().orders(), 3000);
}

#[test]
fn plugins_are_listed_and_usage_is_2() {
    let (gateway, folder) = (shared(), tempfile::tempdir().unwrap());
    let (code, stdout, stderr) = sluice(&gateway, &["plugin", "list", "-o", "json"], folder.path());
    assert_eq!(code, 0, "{stderr}");
    assert!(serde_json::from_str::<Value>(&stdout).is_ok() && stdout.contains("order-rules"), "{stdout}");
    assert_eq!(run(&["no-such-verb"], folder.path(), LIMIT).0, 2);
    let (code, stdout, _) = run(&["completions", "bash"], folder.path(), LIMIT);
    assert!(code == 0 && stdout.contains("sluice"));
}

#[test]
fn without_a_gateway_the_client_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["orders", "get", "01890a5d-ac96-774b-bcce-b302099a8057", "--url", "http://127.0.0.1:1"];
    let (code, _, stderr) = run(&arguments, folder.path(), LIMIT);
    assert!(code == 1 && stderr.contains("127.0.0.1:1"), "{code} {stderr}");
}
