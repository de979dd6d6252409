//! Plugins and configuration that change while the gateway runs, in every way that files change.

mod configuration;
mod soak;
mod trust;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{Builder, Route, TestGateway, guests, order, wait_until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// The plugin that changes.
const NAME: &str = "marked";

/// A gateway whose one route asks the plugin of marks.
fn with_marked() -> Builder {
    let route = Route { plugins: vec![NAME.to_owned()], ..Route::default() };
    TestGateway::with().plugin(NAME, version(1)).route(route).announce("plugin `marked`")
}

fn version(number: u32) -> Vec<u8> {
    guests::version(guests::marked(), number)
}

fn digest(bytes: &[u8]) -> String {
    sluice::folder::digest(bytes)
}

fn folder(gateway: &TestGateway) -> PathBuf {
    gateway.folder().join("plugins.d")
}

fn file(gateway: &TestGateway) -> PathBuf {
    folder(gateway).join("marked.wasm")
}

/// What the operator sees of a plugin.
fn plugin(gateway: &TestGateway, name: &str) -> Value {
    let report = gateway.admin().get("/plugins").json();
    let plugins = report["plugins"].as_array().unwrap();
    plugins.iter().find(|plugin| plugin["name"] == name).cloned().unwrap_or_default()
}

/// Waits until a version serves, and checks that an order that is posted now is judged by it.
fn serves(gateway: &TestGateway, bytes: &[u8], how: &str) {
    let expected = digest(bytes);
    wait_until(how, LIMIT, || {
        let plugin = plugin(gateway, NAME);
        if plugin["digest"] == *expected { Ok(()) } else { Err(plugin) }
    });
    judges(gateway, &expected, how);
}

fn judges(gateway: &TestGateway, expected: &str, how: &str) {
    let id = gateway.post_order(&order()).id;
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED", "{how}");
    let timeline = gateway.timeline(&id);
    let run = timeline.iter().find(|entry| entry["kind"] == "plugin" && entry["name"] == NAME);
    assert_eq!(run.unwrap_or_else(|| panic!("{how}: {timeline:?}"))["digest"], *expected, "{how}");
}

/// Waits until the candidate is told with this code, everywhere; what served goes on.
fn refuses(gateway: &TestGateway, serving: &[u8], code: &str, how: &str) -> Value {
    let serving = digest(serving);
    let candidate = wait_until(how, LIMIT, || {
        let plugin = plugin(gateway, NAME);
        if plugin["candidate"]["code"] == code { Ok(plugin["candidate"].clone()) } else { Err(plugin) }
    });
    assert_eq!(plugin(gateway, NAME)["digest"], *serving, "{how}");
    let ready = gateway.admin().get("/readyz");
    assert_eq!(ready.status, 200, "{how}");
    let part =
        ready.json()["parts"].as_array().unwrap().iter().find(|part| part["part"] == "plugins").cloned().unwrap();
    assert_eq!(part["condition"], "degraded", "{how}");
    assert!(part["detail"].as_str().unwrap().contains(code), "{how}: {part}");
    judges(gateway, &serving, how);
    candidate
}

/// Puts a file in place as `mv` does.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}

#[test]
fn a_file_that_changes_in_any_way_judges_the_orders_posted_after() {
    let gateway = with_marked().start();
    let path = file(&gateway);
    serves(&gateway, &version(1), "at the start");

    replace(&path, &version(2));
    serves(&gateway, &version(2), "moved over");
    let record = harness::Topic::open(&gateway.broker_address(), &gateway.topic("orders"));
    let expected = format!("marked@{}", digest(&version(2)));
    let mut record = record;
    record.find("a record that names the version", LIMIT, |seen| seen.header("sluice-plugins") == expected);

    fs::write(&path, version(3)).unwrap();
    serves(&gateway, &version(3), "copied over in place");

    fs::rename(&path, path.with_extension("wasm~")).unwrap();
    fs::write(&path, version(4)).unwrap();
    serves(&gateway, &version(4), "saved by an editor that moves the old file away");

    let bytes = version(5);
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut growing = File::create(&path).unwrap();
    growing.write_all(first).unwrap();
    growing.sync_all().unwrap();
    refuses(&gateway, &version(4), "unusable", "half-written");
    OpenOptions::new().append(true).open(&path).unwrap().write_all(rest).unwrap();
    serves(&gateway, &bytes, "the rest of it");
    assert!(plugin(&gateway, NAME)["candidate"].is_null());

    fs::remove_file(&path).unwrap();
    refuses(&gateway, &bytes, "missing", "removed");
    gateway.start_again();
    refuses(&gateway, &bytes, "missing", "removed, after a restart");
    replace(&path, &version(6));
    serves(&gateway, &version(6), "back again");

    assert!(gateway.metric("sluice_plugin_reloads_total", "served") >= 1.0);
    assert!(gateway.metric("sluice_plugin_generation", "") >= 2.0);
    assert!(gateway.metric("sluice_plugin_reload_seconds_count", "") >= 1.0);
    let info = |bytes: &[u8]| gateway.metric("sluice_plugin_info", &digest(bytes));
    assert!((info(&version(6)) - 1.0).abs() < f64::EPSILON && info(&bytes).abs() < f64::EPSILON);
}

#[test]
fn nothing_that_can_stand_in_the_folder_hurts_what_serves_and_the_last_good_version_survives_a_restart() {
    let gateway = with_marked().start();
    let path = file(&gateway);
    replace(&path, &version(2));
    serves(&gateway, &version(2), "a good version");
    let clear = || {
        if fs::remove_file(&path).is_err() {
            fs::remove_dir_all(&path).unwrap();
        }
    };
    let bytes = version(3);
    let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
    let texts: [&[u8]; 4] = [b"", &vec![0; bytes.len()], &bytes[..400], b"this is no plugin"];
    for text in texts {
        write(text);
        let what = format!("{} bytes that are no plugin", text.len());
        wait_until(&what, LIMIT, || {
            let candidate = plugin(&gateway, NAME)["candidate"].clone();
            let is_told = candidate["code"] == "unusable" && candidate["digest"] == *digest(text);
            if is_told { Ok(()) } else { Err(candidate) }
        });
    }
    let bad: [(&str, &dyn Fn()); 4] = [
        ("2147483648 bytes", &|| File::create(&path).unwrap().set_len(2 << 30).unwrap()),
        ("a folder", &|| fs::create_dir(&path).unwrap()),
        ("a FIFO", &|| assert!(Command::new("mkfifo").arg(&path).status().unwrap().success())),
        ("cannot be read", &|| symlink("marked.wasm", &path).unwrap()),
    ];
    for (reason, make) in bad {
        clear();
        make();
        wait_until(reason, LIMIT, || {
            let candidate = plugin(&gateway, NAME)["candidate"].clone();
            let is_told = candidate["code"] == "unreadable" && candidate["reason"].to_string().contains(reason);
            if is_told { Ok(()) } else { Err(candidate) }
        });
    }
    refuses(&gateway, &version(2), "unreadable", "after all of them");
    assert!(gateway.metric("sluice_plugin_reloads_total", "refused") >= 8.0);
    gateway.start_again();
    refuses(&gateway, &version(2), "unreadable", "after a restart on a broken folder");
    fs::remove_dir_all(folder(&gateway)).unwrap();
    gateway.start_again();
    refuses(&gateway, &version(2), "missing", "after a restart without the folder");
    gateway.kill9();
    let kept = gateway.folder().join("sluice.plugins/good");
    for entry in fs::read_dir(kept).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|name| name == "wasm") {
            fs::write(path, version(9)).unwrap();
        }
    }
    let config = gateway.config_file().to_str().unwrap();
    let (code, _, stderr) = harness::gateway::run(&["dev", "--config", config], gateway.folder(), LIMIT);
    assert_eq!(code, 1, "a version that was changed on disk serves: {stderr}");
    assert!(stderr.contains("marked") && stderr.contains("was changed"), "{stderr}");
}

#[test]
fn a_mounted_volume_swaps_its_link_and_a_folder_may_come_later() {
    let route = Route { plugins: vec!["customer-enricher".to_owned()], ..Route::default() };
    let gateway = TestGateway::with().route(route).announce("plugin `customer-enricher`").start();
    let origin = || plugin(&gateway, "customer-enricher")["origin"].as_str().unwrap_or_default().to_owned();
    assert_eq!(origin(), "bundled");
    let folder = folder(&gateway);
    let make = |name: &str, number: u32| {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("customer-enricher.wasm"), version(number)).unwrap();
    };
    let waits_for = |number: u32| {
        wait_until("the swapped version", LIMIT, || {
            let plugin = plugin(&gateway, "customer-enricher");
            if plugin["digest"] == *digest(&version(number)) { Ok(()) } else { Err(plugin) }
        });
        assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
    };
    make("..2026_1", 1);
    symlink("..2026_1", folder.join("..data")).unwrap();
    symlink("..data/customer-enricher.wasm", folder.join("customer-enricher.wasm")).unwrap();
    waits_for(1);
    for number in 2..5 {
        make(&format!("..2026_{number}"), number);
        symlink(format!("..2026_{number}"), folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        fs::remove_dir_all(folder.join(format!("..2026_{}", number - 1))).unwrap();
        waits_for(number);
    }
    fs::remove_file(folder.join("customer-enricher.wasm")).unwrap();
    wait_until("the file is missed", LIMIT, || {
        let plugin = plugin(&gateway, "customer-enricher");
        if plugin["candidate"]["code"] == "missing" { Ok(()) } else { Err(plugin) }
    });
    assert_eq!(gateway.admin().command("/plugins/customer-enricher/forget").status, 200);
    assert_eq!(origin(), "bundled");
}

#[test]
fn the_operator_rolls_back_and_the_version_stays_away_until_the_file_changes() {
    let gateway = with_marked().start();
    let path = file(&gateway);
    let nothing = gateway.admin().command("/plugins/marked/rollback").problem(409);
    assert!(nothing["detail"].as_str().unwrap().contains("no earlier version"), "{nothing}");
    assert_eq!(gateway.admin().command("/plugins/nobody/rollback").status, 404);
    replace(&path, &version(2));
    serves(&gateway, &version(2), "the new version");
    let url = format!("http://{}", gateway.admin_address());
    let sluice = |arguments: &[&str]| {
        let (code, stdout, stderr) =
            harness::gateway::run(&[arguments, &["--url", &url]].concat(), gateway.folder(), LIMIT);
        assert_eq!(code, 0, "{stdout}{stderr}");
        stdout
    };
    assert!(sluice(&["plugin", "rollback", "marked"]).contains(&digest(&version(1))));
    refuses(&gateway, &version(1), "rolled-back", "rolled back");
    let listed = sluice(&["plugin", "list"]);
    assert!(listed.contains("serving") && listed.contains("withdrawn (rolled-back)"), "{listed}");
    gateway.start_again();
    refuses(&gateway, &version(1), "rolled-back", "rolled back, after a restart");
    sluice(&["plugin", "reload", "marked"]);
    serves(&gateway, &version(2), "the operator tries it again");
    sluice(&["plugin", "rollback", "marked"]);
    replace(&path, &version(3));
    serves(&gateway, &version(3), "another file");
    replace(&path, &version(2));
    serves(&gateway, &version(2), "the one that was withdrawn, put there anew");
}

#[test]
fn a_version_that_fails_too_often_gives_way_to_the_last_proven_one_and_its_orders_go_on() {
    let good = guests::mended();
    let route = Route { plugins: vec![NAME.to_owned()], ..Route::default() };
    // Held orders would wait far longer than this test does.
    let builder = TestGateway::with().plugin(NAME, good.clone()).route(route).announce("plugin `marked`");
    let gateway = builder.text("relay.retry_first", "10m").text("relay.retry_max", "20m").start();
    serves(&gateway, &good, "the good version");
    for _ in 0..25 {
        assert_eq!(gateway.settled(&gateway.post_order(&order()).id)["status"], "VALIDATED");
    }
    replace(&file(&gateway), &version(3));
    serves(&gateway, &version(3), "a version that has judged one order");
    replace(&file(&gateway), &version(2));
    serves(&gateway, &version(2), "the version that traps");
    let ids: Vec<String> = (0..30).map(|_| gateway.post_order(&harness::orders::marked("trap")).id).collect();
    let withdrawn = refuses(&gateway, &good, "faults", "it fails too often");
    assert_eq!((&withdrawn["state"], &withdrawn["digest"]), (&"withdrawn".into(), &digest(&version(2)).into()));
    for id in &ids {
        assert_eq!(gateway.settled(id)["status"], "VALIDATED");
    }
    gateway.start_again();
    refuses(&gateway, &good, "faults", "it stays away after a restart");
}

#[test]
fn a_version_that_asks_for_more_waits_until_that_is_granted() {
    let gateway = with_marked().announce("configuration").start();
    serves(&gateway, &version(1), "before");
    replace(&file(&gateway), &guests::counting());
    let waiting = refuses(&gateway, &version(1), "not-granted", "it wants to count");
    assert_eq!((&waiting["state"], &waiting["missingGrants"]), (&"staged".into(), &serde_json::json!(["metrics"])));
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    let granted = format!("plugins.policy.marked.grants = [\"metrics\"]\n{text}");
    replace(gateway.config_file(), granted.as_bytes());
    serves(&gateway, &guests::counting(), "granted");
    assert!(plugin(&gateway, NAME)["candidate"].is_null());
}
