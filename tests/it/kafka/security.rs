//! Who one is and whom one believes: TLS and SASL towards Kafka, by librdkafka's own settings. Only of a program that has them.

use harness::broker::Sender;
use harness::gateway::run;
use harness::kafka::{self, Kafka};
use harness::{Route, Topic, order_of};

use super::{LIMIT, degraded, gateway, plain, post, ready_again};

const SECRET: &str = "gateway-secret";

/// Settings of a client at the door with TLS.
fn settings(kafka: &Kafka, mechanism: &str, password: &str) -> String {
    format!(
        "{{ \"security.protocol\" = \"sasl_ssl\", \"ssl.ca.location\" = {:?}, \"sasl.mechanism\" = {mechanism:?}, \
         \"sasl.username\" = \"gateway\", \"sasl.password\" = {password:?} }}",
        kafka.authority()
    )
}

fn with_replies(kafka: &Kafka) -> Route {
    let route = Route { replies: Some(harness::random::unique("replies")), ..plain("/orders") };
    kafka.create_topic(&route.topic, 2, &[]);
    kafka.create_topic(route.replies.as_ref().unwrap(), 2, &[]);
    route
}

#[test]
fn orders_and_replies_pass_over_tls_with_each_mechanism() {
    let Some(kafka) = kafka::borrow() else { return };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let route = with_replies(&kafka);
        let gateway = gateway(&kafka.secure_address(), &route)
            .set("kafka.properties", &settings(&kafka, mechanism, SECRET))
            .start();
        let id = post(&gateway, "/orders", &order_of("someone"));
        let mut topic = Topic::open(&kafka.address(), &route.topic);
        topic.find(mechanism, LIMIT, |seen| seen.header("ce_subject") == id);
        let services = Sender::new(&kafka.address());
        for kind in ["ConsumerValidated", "OrderDetailsValidated"] {
            services.reply(route.replies.as_ref().unwrap(), &id, kind, &format!("{id}-{kind}"));
        }
        assert_eq!(gateway.settled(&id)["status"], "VALIDATED", "{mechanism}");
        ready_again(&gateway, "kafka");
        let config = gateway.config_file().to_str().unwrap();
        let (code, shown, _) = run(&["config", "--config", config], gateway.folder(), LIMIT);
        assert!(code == 0 && shown.contains("sasl_ssl") && !shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn a_wrong_password_over_tls_is_said_to_be_one() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = with_replies(&kafka);
    let gateway = gateway(&kafka.secure_address(), &route)
        .set("kafka.properties", &settings(&kafka, "SCRAM-SHA-512", "wrong"))
        .announce("not reachable")
        .announce("reading replies")
        .start();
    let said = degraded(&gateway, "kafka", &["uthentication"]);
    assert!(said.contains("correct the user, the password or the mechanism"), "{said}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_not_believed() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = with_replies(&kafka);
    let unknown = settings(&kafka, "PLAIN", SECRET)
        .replace(kafka.authority().to_str().unwrap(), "/etc/ssl/certs/ca-certificates.crt");
    let gateway = gateway(&kafka.secure_address(), &route)
        .set("kafka.properties", &unknown)
        .announce("not reachable")
        .announce("reading replies")
        .start();
    let said = degraded(&gateway, "kafka", &["certificate"]);
    assert!(said.contains("see that the certificates and `security.protocol` fit"), "{said}");
}

/// TLS towards a port that has none.
#[test]
fn tls_at_a_door_without_it_is_said_to_be_the_wrong_one() {
    let Some(kafka) = kafka::borrow() else { return };
    let route = with_replies(&kafka);
    let gateway = gateway(&kafka.address(), &route)
        .set("kafka.properties", "{ \"security.protocol\" = \"ssl\" }")
        .announce("not reachable")
        .announce("reading replies")
        .start();
    let said = degraded(&gateway, "kafka", &["no broker"]);
    assert!(said.contains("security.protocol") || said.contains("SSL"), "{said}");
}
