//! The configuration as an operator meets it: mistakes, precedence, secrets.

use std::fs;
use std::time::Duration;

use harness::gateway::{run, run_with};
use harness::{TestGateway, order};

const LIMIT: Duration = Duration::from_secs(60);
/// `EX_CONFIG` of sysexits.h.
const CONFIGURATION: i32 = 78;

fn in_folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gateway.toml"), text).unwrap();
    folder
}

const FIVE_MISTAKES: &str = r#"
relay.hold_max = "soon"
http.listne = "127.0.0.1:8080"
plugins.threads = 0
database.url = "mysql://nowhere"

[[route]]
path = "/orders"
topic = "orders"
key = "customerId"
plugins = []
"#;

#[test]
fn five_mistakes_are_told_at_once() {
    let folder = in_folder(FIVE_MISTAKES);
    for verb in ["validate", "dev", "run"] {
        let (code, _, stderr) = run(&[verb, "--config", "gateway.toml"], folder.path(), LIMIT);
        assert_eq!(code, CONFIGURATION, "{verb}: {stderr}");
        for key in ["relay.hold_max: ", "http.listne: ", "plugins.threads: ", "database.url: ", "route[0].key: "] {
            assert!(stderr.contains(key), "{verb} does not tell of {key}\n{stderr}");
        }
        assert!(stderr.contains("listen"), "{verb} suggests nothing for `listne`\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn what_is_no_toml_or_not_there_is_told() {
    let folder = in_folder("[http\nlisten = 5");
    let (code, _, stderr) = run(&["validate", "--config", "gateway.toml"], folder.path(), LIMIT);
    assert!(code == CONFIGURATION && stderr.contains("gateway.toml"), "{code} {stderr}");
    let (code, _, stderr) = run(&["validate", "--config", "absent.toml"], folder.path(), LIMIT);
    assert!([1, CONFIGURATION].contains(&code) && stderr.contains("absent.toml"), "{code} {stderr}");
}

#[test]
fn run_without_a_broker_says_so() {
    let folder = in_folder("");
    let (code, _, stderr) = run(&["run", "--config", "gateway.toml"], folder.path(), LIMIT);
    assert!(code == CONFIGURATION && stderr.contains("kafka.brokers"), "{code} {stderr}");
}

#[test]
fn a_plugin_that_is_nowhere_refuses_the_start() {
    let folder = in_folder("[[route]]\npath = \"/orders\"\ntopic = \"orders\"\nplugins = [\"no-such-plugin\"]\n");
    let (code, _, stderr) = run(&["dev", "--config", "gateway.toml"], folder.path(), LIMIT);
    assert!([1, CONFIGURATION].contains(&code) && stderr.contains("no-such-plugin"), "{code} {stderr}");
}

#[test]
fn secrets_are_not_shown() {
    let folder = in_folder("[kafka.properties]\n\"sasl.username\" = \"someone\"\n\"sasl.password\" = \"hunter2\"\n");
    let (code, stdout, stderr) = run(&["config", "--config", "gateway.toml"], folder.path(), LIMIT);
    assert_eq!(code, 0, "{stderr}");
    assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{stdout}");
    assert!(stdout.contains("sasl.password"), "the key itself is shown: {stdout}");
}

/// What `config` prints is a configuration: with it the same is printed again.
#[test]
fn the_effective_configuration_is_one() {
    let folder = in_folder("");
    let (code, first, stderr) = run(&["config", "--config", "gateway.toml"], folder.path(), LIMIT);
    assert_eq!(code, 0, "{stderr}");
    fs::write(folder.path().join("again.toml"), &first).unwrap();
    let (code, second, stderr) = run(&["config", "--config", "again.toml"], folder.path(), LIMIT);
    assert_eq!((code, &second), (0, &first), "{stderr}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let folder = in_folder("intake.backlog_max = 7\nrelay.hold_max = \"7h\"\n");
    let environment = [("SLUICE__RELAY__HOLD_MAX", "8h"), ("SLUICE__HTTP__LISTEN", "127.0.0.1:1234")];
    let (code, stdout, stderr) = run_with(&["config", "--config", "gateway.toml"], &environment, folder.path(), LIMIT);
    assert_eq!(code, 0, "{stderr}");
    for line in ["backlog_max = 7", "hold_max = \"8h\"", "listen = \"127.0.0.1:1234\"", "retry_after = \"2s\""] {
        assert!(stdout.lines().any(|known| known == line), "no `{line}` in\n{stdout}");
    }
    let wrong = [("SLUICE__RELAY__HOLD_MX", "8h")];
    let (code, _, stderr) = run_with(&["validate"], &wrong, folder.path(), LIMIT);
    assert!(code == CONFIGURATION && stderr.contains("SLUICE__RELAY__HOLD_MX"), "{code} {stderr}");
}

#[test]
fn a_table_that_cannot_be_read_is_a_problem_of_its_key() {
    let folder = in_folder("plugins.tables.customers = \"customers.json\"\n");
    let validate = || run(&["validate", "--config", "gateway.toml"], folder.path(), LIMIT);
    let (code, _, stderr) = validate();
    assert!(code == CONFIGURATION && stderr.contains("plugins.tables.customers: customers.json"), "{code} {stderr}");
    std::fs::write(folder.path().join("customers.json"), r#"{"1":{},"1":{}}"#).unwrap();
    let (code, _, stderr) = validate();
    assert!(code == CONFIGURATION && stderr.contains("plugins.tables.customers"), "{code} {stderr}");
    std::fs::write(folder.path().join("customers.json"), r#"{"1":{}}"#).unwrap();
    assert_eq!(validate().0, 0);
}

#[test]
fn a_taken_port_is_told_and_ends_the_start() {
    let first = TestGateway::start();
    let (code, stdout, stderr) =
        run(&["dev", "--config", first.config_file().to_str().unwrap()], first.folder(), LIMIT);
    assert_eq!(code, 1, "{stdout}\n{stderr}");
    assert_eq!(first.settled(&first.post_order(&order()).id)["status"], "VALIDATED", "the first one is not harmed");
}
