//! `sluice doctor`: each of its checks fails once here, says whose fault it is and what to do; and all is well where all is well.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use harness::broker::Sender;
use harness::gateway::{Builder, run};
use harness::kafka;
use harness::random::unique;
use harness::{Route, TestGateway};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// What the doctor says of a configuration: exit code and findings.
fn examined(gateway: &TestGateway, arguments: &[&str]) -> (i32, Vec<Value>) {
    let mut all = vec!["doctor", "-o", "json", "--config", "gateway.toml"];
    all.extend(arguments);
    let (code, stdout, stderr) = run(&all, gateway.folder(), LIMIT);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    assert_eq!(report["ok"], code == 0, "{report}");
    (code, report["findings"].as_array().unwrap().clone())
}

/// The finding of a check about a subject.
fn finding(findings: &[Value], check: &str, subject: &str) -> Value {
    let found = findings.iter().find(|finding| finding["check"] == check && finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("nothing about {check} {subject} in {findings:#?}")).clone()
}

/// The finding, which is bad, with all that belongs to it.
fn bad(findings: &[Value], check: &str, subject: &str, state: &str, fault: &str) -> String {
    let found = finding(findings, check, subject);
    assert_eq!((&found["state"], &found["fault"]), (&state.into(), &fault.into()), "{found}");
    assert!(found["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{found}");
    format!("{} {}", found["said"].as_str().unwrap(), found["advice"].as_str().unwrap())
}

/// A gateway that is configured and not started; its broker is nowhere, unless told otherwise.
fn configured() -> Builder {
    TestGateway::with().dev()
}

#[test]
fn a_laptop_is_well() {
    let gateway = configured().prepare();
    let (code, findings) = examined(&gateway, &[]);
    assert_eq!(code, 0, "{findings:#?}");
    let is_well =
        |finding: &&Value| finding["state"] == "ok" || finding["state"] == "skipped" || finding["check"] == "disk";
    assert!(findings.iter().all(|finding| is_well(&finding)), "{findings:#?}");
    for check in ["database", "broker", "disk", "plugins"] {
        assert!(findings.iter().any(|finding| finding["check"] == check), "{check}: {findings:#?}");
    }
    // For people too.
    let (code, stdout, _) = run(&["doctor", "--config", "gateway.toml"], gateway.folder(), LIMIT);
    assert!(code == 0 && stdout.ends_with("warning(s)\n") && stdout.contains("order-rules"), "{stdout}");
}

#[test]
fn a_database_that_cannot_be_used_is_said_to_be_one() {
    let gateway = configured().prepare();
    let database = gateway.folder().join("sluice.db");
    let subject = format!("sqlite://{}", database.display());
    fs::write(&database, "this is no database, and long enough to be looked at as one".repeat(20)).unwrap();
    let (code, findings) = examined(&gateway, &[]);
    let said = bad(&findings, "database", &subject, "failed", "database");
    assert!(code == 1 && said.contains("not a database"), "{said}");

    fs::remove_file(&database).unwrap();
    let newer = rusqlite::Connection::open(&database).unwrap();
    newer.pragma_update(None, "user_version", 4711).unwrap();
    drop(newer);
    let (_, findings) = examined(&gateway, &[]);
    let said = bad(&findings, "database", &subject, "failed", "configuration");
    assert!(said.contains("4711") && said.contains("newer program"), "{said}");

    let nowhere = configured().text("database.url", "sqlite:///not/there/sluice.db").prepare();
    let (_, findings) = examined(&nowhere, &[]);
    let said = bad(&findings, "database", "sqlite:///not/there/sluice.db", "failed", "machine");
    assert!(said.contains("make the folder"), "{said}");
}

/// The doctor looks while a node runs, and disturbs nothing.
#[test]
fn a_running_node_is_seen_and_left_alone() {
    let gateway = configured().start();
    let id = gateway.post_order(&harness::order()).id;
    assert_eq!(gateway.settled(&id)["status"], "VALIDATED");
    let (code, findings) = examined(&gateway, &[]);
    let database = findings.iter().find(|finding| finding["check"] == "database").unwrap();
    assert!(code == 0 && database["said"].as_str().unwrap().contains("in use by a running node"), "{findings:#?}");
    assert_eq!(gateway.settled(&gateway.post_order(&harness::order()).id)["status"], "VALIDATED");
}

#[test]
fn a_broker_that_cannot_be_had_is_told_apart_from_one_that_is_none() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, findings) = examined(&configured().text("kafka.brokers", &nobody).prepare(), &[]);
    let said = bad(&findings, "broker", &nobody, "failed", "network");
    assert!(code == 1 && said.contains("Connection refused"), "{said}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 512];
            drop(socket.read(&mut request));
            drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        }
    });
    let (_, findings) = examined(&configured().text("kafka.brokers", &web).prepare(), &[]);
    let said = bad(&findings, "broker", &web, "failed", "configuration");
    assert!(said.contains("does not speak Kafka"), "{said}");

    let wrong = configured().text("kafka.brokers", &nobody).set("kafka.producer", "{ \"no.such.setting\" = \"1\" }");
    let (_, findings) = examined(&wrong.prepare(), &[]);
    let said = bad(&findings, "broker", "kafka", "failed", "configuration");
    assert!(said.contains("no.such.setting"), "{said}");
}

#[test]
fn no_room_on_the_disk_is_said_with_what_follows() {
    // A file system of the kernel's own: nothing can be written there, by nobody.
    let gateway = configured().text("plugins.state_dir", "/proc/sluice.plugins").prepare();
    let (code, findings) = examined(&gateway, &[]);
    let said = bad(&findings, "disk", "plugins.state_dir", "failed", "machine");
    assert!(code == 1 && said.contains("cannot be written"), "{said}");
}

#[test]
fn plugins_that_cannot_serve_are_named() {
    let route = Route { plugins: vec!["order-rules".to_owned(), "broken".to_owned()], ..Route::default() };
    let gateway = configured().plugin("broken", b"\0asm and then nothing".to_vec()).route(route).prepare();
    let state = gateway.folder().join("sluice.plugins");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, findings) = examined(&gateway, &[]);
    assert_eq!(code, 1);
    let said = bad(&findings, "plugins", "broken", "failed", "plugin");
    assert!(said.contains("sluice plugin check broken"), "{said}");
    let said = bad(&findings, "plugins", "plugins.state_dir", "failed", "machine");
    assert!(said.contains("chmod 700"), "{said}");
    assert_eq!(finding(&findings, "plugins", "order-rules")["state"], "ok");
}

/// At a real broker: topics in every wrong way, its clock, and a user who may not.
#[test]
fn topics_and_the_clock_of_a_real_broker_are_judged() {
    let Some(kafka) = kafka::borrow() else { return };
    let (orders, outcomes, replies) = (unique("orders"), unique("outcomes"), unique("replies"));
    kafka.create_topic(&orders, 1, &[("max.message.bytes", "1000000"), ("cleanup.policy", "compact")]);
    kafka.create_topic(&replies, 1, &[]);
    let route = Route {
        topic: orders.clone(),
        outcomes: Some(outcomes.clone()),
        replies: Some(replies.clone()),
        ..Route::default()
    };
    let gateway = TestGateway::with().broker(&kafka.address()).route(route.clone()).prepare();
    let (code, findings) = examined(&gateway, &["--write"]);
    assert_eq!(code, 1);
    assert_eq!(finding(&findings, "broker", &kafka.address())["state"], "ok");
    let said = bad(&findings, "topics", &outcomes, "failed", "kafka");
    assert!(said.contains("not there") && said.contains(&format!("--create --topic {outcomes}")), "{said}");
    let of = |topic: &str| -> String {
        let about = findings.iter().filter(|finding| finding["subject"] == topic).map(Value::to_string);
        about.collect::<Vec<_>>().join("\n")
    };
    for word in ["1000000 bytes", "compacted", "one replica"] {
        assert!(of(&orders).contains(word), "{word}: {}", of(&orders));
    }
    assert!(of(&replies).contains("message.timestamp.type=LogAppendTime"), "{}", of(&replies));
    // Broker and tests share one machine, and so one clock.
    assert_eq!(finding(&findings, "clocks", "the broker's clock")["state"], "ok", "{findings:#?}");

    // A stamp from the future: written with the sender's time, then declared to be the broker's.
    let future = sluice::clock::Clock::system().now().after(Duration::from_secs(3_600));
    Sender::new(&kafka.address()).send_at(&replies, "k", future.0);
    kafka.set_on_topic(&replies, "message.timestamp.type", "LogAppendTime");
    harness::wait_until("the broker's new setting", LIMIT, || {
        let (_, findings) = examined(&gateway, &[]);
        let is_ahead = findings.iter().any(|finding| {
            finding["check"] == "clocks"
                && finding["state"] == "failed"
                && finding["said"].to_string().contains("ahead of ours")
        });
        if is_ahead { Ok(()) } else { Err(findings) }
    });

    // Somebody else's topic.
    kafka.allow("another", kafka::Operation::All, &orders);
    let settings = "{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \"sasl.username\" = \"nobody\", \
                    \"sasl.password\" = \"nobody-secret\" }";
    let stranger =
        TestGateway::with().broker(&kafka.sasl_address()).route(route).set("kafka.properties", settings).prepare();
    let (_, findings) = examined(&stranger, &[]);
    let said = bad(&findings, "topics", &orders, "failed", "kafka");
    assert!(said.contains("refuses to tell"), "{said}");
    let wrong = settings.replace("nobody-secret", "wrong");
    let refused = TestGateway::with().broker(&kafka.sasl_address()).set("kafka.properties", &wrong).prepare();
    let (_, findings) = examined(&refused, &[]);
    let said = bad(&findings, "broker", &kafka.sasl_address(), "failed", "configuration");
    assert!(said.contains("correct the user, the password"), "{said}");
    kafka.forget_rights(&orders);
}
