//! What Kafka refuses: whose fault it is stands on `/readyz`, orders wait, and once it is mended they go out.

use std::io::{Read, Write};
use std::net::TcpListener;

use harness::gateway::Builder;
use harness::kafka::{self, Operation};
use harness::random::unique;
use harness::{Route, TestGateway, Topic, order_of};

use super::{degraded, gateway, plain, post, published, ready_again};

/// Settings of a client that says who it is.
fn sasl(user: &str, password: &str) -> String {
    format!(
        "{{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \"sasl.username\" = {user:?}, \
         \"sasl.password\" = {password:?} }}"
    )
}

fn quiet(builder: Builder) -> TestGateway {
    builder.announce("Kafka takes no records for topic").announce("failed for good").announce("not reachable").start()
}

#[test]
fn an_unknown_topic_stops_its_own_orders_until_it_is_there() {
    let Some(kafka) = kafka::borrow() else { return };
    let (missing, there) = (plain("/missing"), plain("/there"));
    kafka.create_topic(&there.topic, 4, &[]);
    let gateway = quiet(gateway(&kafka.address(), &there).route(missing.clone()));
    let waiting = post(&gateway, "/missing", &order_of("the one"));
    let said = degraded(&gateway, "kafka-topics", &[&missing.topic]);
    assert!(said.contains("create the topic, or correct its name in the configuration"), "{said}");
    assert_eq!(gateway.get(&format!("/missing/{waiting}")).json()["status"], "PENDING");

    // One order stands in one of 64 slots; of twenty keys at least one is in another.
    let others: Vec<String> = (0..20).map(|i| post(&gateway, "/there", &order_of(&format!("customer {i}")))).collect();
    harness::wait_until("orders of the other topic published", super::LIMIT, || {
        let done = others.iter().filter(|id| gateway.get(&format!("/there/{id}")).json()["status"] == "PUBLISHED");
        let done = done.count();
        if done >= 10 { Ok(()) } else { Err(done) }
    });

    kafka.create_topic(&missing.topic, 1, &[]);
    published(&gateway, "/missing", &waiting);
    for id in &others {
        published(&gateway, "/there", id);
    }
    ready_again(&gateway, "kafka-topics");
}

/// The topic may be looked at, but not written to.
#[test]
fn a_topic_that_forbids_writing_stops_until_it_allows_it() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = plain("/orders");
    kafka.create_topic(&route.topic, 4, &[]);
    kafka.allow("gateway", Operation::All, &route.topic);
    kafka.deny("gateway", Operation::Write, &route.topic);
    let settings = sasl("gateway", "gateway-secret");
    let gateway = quiet(gateway(&kafka.sasl_address(), &route).set("kafka.properties", &settings));
    let ids: Vec<String> =
        (0..30).map(|i| post(&gateway, "/orders", &order_of(&format!("customer {}", i % 3)))).collect();
    let said = degraded(&gateway, "kafka-topics", &[&route.topic]);
    assert!(said.contains("Topic authorization failed") && said.contains("let the gateway's user WRITE"), "{said}");
    assert!(ids.iter().all(|id| gateway.order(id)["status"] == "PENDING"));

    kafka.forget_rights(&route.topic);
    for id in &ids {
        published(&gateway, "/orders", id);
    }
    ready_again(&gateway, "kafka-topics");
    let mut topic = Topic::open(&kafka.address(), &route.topic);
    let records = topic.read_to_end();
    for key in ["customer 0", "customer 1", "customer 2"] {
        let came: Vec<&str> =
            records.iter().filter(|seen| seen.key == key.as_bytes()).map(|seen| seen.header("ce_subject")).collect();
        let sent: Vec<&str> = ids
            .iter()
            .enumerate()
            .filter(|(i, _)| key.ends_with(&(i % 3).to_string()))
            .map(|(_, id)| id.as_str())
            .collect();
        assert_eq!(came, sent, "{key}");
    }
}

#[test]
fn a_wrong_password_is_said_to_be_one() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = plain("/orders");
    kafka.create_topic(&route.topic, 1, &[]);
    let settings = sasl("gateway", "not-the-secret");
    let gateway = quiet(gateway(&kafka.sasl_address(), &route).set("kafka.properties", &settings));
    let id = post(&gateway, "/orders", &order_of("someone"));
    let said = degraded(&gateway, "kafka", &["uthentication"]);
    assert!(said.contains("correct the user, the password or the mechanism"), "{said}");
    assert!(!said.contains("not-the-secret"), "{said}");
    assert_eq!(gateway.order(&id)["status"], "PENDING");
    let log = gateway.log().text();
    assert!(!log.contains("not-the-secret"), "the password is in the log");
}

/// Needs no broker: something else listens there.
#[test]
fn a_port_that_is_not_kafka_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut request = [0; 512];
            drop(socket.read(&mut request));
            drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        }
    });
    let route = Route { topic: unique("orders"), ..plain("/orders") };
    let gateway = gateway(&address, &route).announce("not reachable").start();
    let id = post(&gateway, "/orders", &order_of("someone"));
    let said = degraded(&gateway, "kafka", &["no broker"]);
    assert!(said.contains(&address), "{said}");
    assert_eq!(gateway.order(&id)["status"], "PENDING");
}

/// A program without the feature says so before it does anything; it never goes on without what was asked for.
#[cfg(not(feature = "kafka-tls"))]
#[test]
fn a_program_without_tls_refuses_to_go_without_it() {
    let gateway = gateway("localhost:1", &plain("/orders"))
        .set("kafka.properties", "{ \"security.protocol\" = \"ssl\" }")
        .prepare();
    let (code, _, said) = harness::gateway::run(&["run", "--config", "gateway.toml"], gateway.folder(), super::LIMIT);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("kafka.properties.security.protocol: this program was built without TLS"), "{said}");
    assert!(said.contains("--features kafka-tls"), "{said}");
}
