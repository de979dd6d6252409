use super::kafka;
use crate::config::load::assemble;

/// What is said of a file with this text.
fn said(text: &str) -> String {
    assemble(Some(("t", text)), []).map_or_else(|errors| errors.to_string(), |_| "nothing".to_owned())
}

#[test]
fn what_cannot_work_is_said_with_its_key() {
    for (text, expected) in [
        ("[admin]\nlisten = \"127.0.0.1:8080\"", "admin.listen: `127.0.0.1:8080` is taken by http.listen"),
        ("[database]\nurl = \"postgres://\"", "database.url: names no host"),
        ("[database]\nurl = \"postgres://me:secret@/x\"", "database.url: names no host"),
        ("[database]\nurl = \"postgres://me@db\"", "database.url: names no database"),
        ("[database]\nurl = \"postgres://me@db/?sslmode=require\"", "database.url: names no database"),
        ("[database]\nconnections = 3", "database.connections: must be at least 4"),
        ("[database]\nlanes = 3", "database.lanes: must be at most 2"),
        ("[database]\nanswer_timeout = \"0s\"", "database.answer_timeout: must be longer than nothing"),
        ("[database]\npartition_transactions = 1", "database.partition_transactions: must be at least 1024"),
        ("[database]\nurl = \"mysql://db/x\"", "database.url: `mysql://` is not known"),
        ("[database]\nurl = \"sluice.db\"", "database.url: expected `sqlite://PATH`"),
        ("[database]\nurl = \"sqlite://:memory:\"", "database.url: a database in memory"),
        ("[database]\nreaders = 0", "database.readers: must be at least 1"),
        ("[http]\nheader_timeout = \"0s\"", "http.header_timeout: must be longer than nothing"),
        ("[http]\nheartbeat = \"30s\"", "http.heartbeat: `30s` is not below http.write_stall_timeout"),
        ("[http]\nbatch_bytes_max = \"512KiB\"", "http.body_bytes_max: `1MiB` is above http.batch_bytes_max"),
        ("[kafka]\nmessage_bytes_max = \"1MiB\"", "kafka.message_bytes_max: is too small for the largest legal order"),
        ("[plugins]\nbatch_bytes_max = \"1MiB\"", "plugins.batch_bytes_max: is too small for the largest legal order"),
        ("[plugins]\noutput_bytes_max = \"64KiB\"", "plugins.output_bytes_max: is too small"),
        ("[relay]\nretry_first = \"2m\"", "relay.retry_first: `2m` is above relay.retry_max (`1m`)"),
        ("[retention]\nidempotency = \"60d\"", "retention.idempotency: `60d` is above retention.orders"),
        ("[dev]\nrepublish_bytes_max = \"5MiB\"", "dev.republish_bytes_max: must be below 5MiB"),
        ("[telemetry]\nlog = \"inof\"", "telemetry.log: `inof` is no level"),
        ("[kafka]\nbrokers = \"localhost:port\"", "kafka.brokers: `localhost:port` is no broker"),
        ("[kafka]\nbrokers = \"a:1,,b:2\"", "kafka.brokers: `` is no broker"),
        ("[kafka.producer]\nacks = 1", "kafka.producer.acks: is set by Sluice: an acknowledged record must survive"),
        ("[kafka.consumer]\ngroup.id = \"x\"", "kafka.consumer.group.id: is set by Sluice: it is `kafka.group`"),
        ("[kafka.properties]\nsasl.mechanism = \"GSSAPI\"", "kafka.properties.sasl.mechanism: `gssapi` is not served"),
        (
            "[kafka.properties]\nsecurity.protocol = \"sasl_plaintext\"",
            "kafka.properties.sasl.mechanism: with SASL a mechanism must be named",
        ),
        ("[plugins.config.order-rulez]\na = 1", "plugins.config.order-rulez: there is no plugin `order-rulez`"),
        ("route = []", "route: there is no route"),
    ] {
        let said = said(text);
        assert!(said.starts_with(expected) && !said.contains('\n'), "{text}\n{said}\nexpected {expected}");
    }
}

#[test]
fn routes_are_looked_at_one_by_one_and_together() {
    let route = |path: &str, more: &str| format!("[[route]]\npath = \"{path}\"\ntopic = \"t\"\n{more}\n");
    let replies = |more: &str| format!("[route.replies]\ntopic = \"r\"\ndeadline = \"1s\"\n{more}");
    for (text, expected) in [
        (route("orders", ""), "route[0].path: `orders` is no path"),
        (route("/orders/", ""), "route[0].path: `/orders/` is no path"),
        (route("/a/../b", ""), "route[0].path: `/a/../b` is no path"),
        (route("/a b", ""), "route[0].path: `/a b` is no path"),
        (route("/openapi.json", ""), "route[0].path: `/openapi.json` is taken"),
        (route("/a", "") + &route("/a", ""), "route[1].path: `/a` is the path of route[0] too"),
        (route("/a", "") + &route("/a/b", ""), "route[1].path: `/a/b` lies below `/a`"),
        (route("/a", "key = \"customerId\""), "route[0].key: `customerId` is no JSON Pointer"),
        (route("/a", "key = \"/a~2\""), "route[0].key: `/a~2` is no JSON Pointer"),
        (route("/a", "plugins = [\"order-rule\"]"), "route[0].plugins: there is no plugin `order-rule`"),
        (route("/a", "plugins = [\"../x\"]"), "route[0].plugins: `../x` is no plugin name"),
        (route("/a", "plugins = [\"order-rules\", \"order-rules\"]"), "route[0].plugins: `order-rules` is named twice"),
        (route("/a", "outcomes = \"t\""), "route[0].outcomes: `t` is route[0].topic too"),
        (route("/a", "outcomes = \"..\""), "route[0].outcomes: `..` is no topic"),
        (
            route("/a", "outcomes = \"r\"") + &replies("all_of = [\"Y\"]"),
            "route[0].replies.topic: `r` is route[0].outcomes",
        ),
        (route("/a", "") + &replies("all_of = []"), "route[0].replies.all_of: must name at least one type"),
        (
            route("/a", "") + &replies("all_of = [\"Y\"]\nany_of_rejects = [\"Y\"]"),
            "route[0].replies.any_of_rejects: `Y` is named twice",
        ),
    ] {
        let said = said(&text);
        assert!(said.starts_with(expected) && !said.contains('\n'), "{text}\n{said}\nexpected {expected}");
    }
    assert_eq!(said(&(route("/a", "") + &route("/ab", "") + &route("/b.c/d", ""))), "nothing");
}

#[test]
fn the_records_of_a_route_are_looked_at_one_by_one_and_together() {
    let route = |more: &str| format!("[[route]]\npath = \"/a\"\n{more}\n");
    let record = |name: &str, topic: &str, more: &str| {
        format!("[[route.records]]\nname = \"{name}\"\ntopic = \"{topic}\"\n{more}\n")
    };
    let replies = "[route.replies]\ntopic = \"b\"\nall_of = [\"Y\"]\ndeadline = \"1s\"\n";
    for (text, expected) in [
        (route(""), "route[0].topic: missing"),
        (route("records = []"), "route[0].records: names no record"),
        (route("topic = \"t\"") + &record("x", "a", ""), "route[0].topic: a route has either one record"),
        (route("") + &record("a/b", "a", ""), "route[0].records[0].name: `a/b` is no name of a record"),
        (route("") + &record("", "a", ""), "route[0].records[0].name: `` is no name of a record"),
        (
            route("") + &record("x", "a", "") + &record("x", "b", ""),
            "route[0].records[1].name: `x` is the name of records[0]",
        ),
        (route("") + &record("x", "a b", ""), "route[0].records[0].topic: `a b` is no topic"),
        (route("") + &record("x", "a", "type = \"\""), "route[0].records[0].type: must be a text"),
        (
            route("") + &record("x", "a", "") + &record("y", "a", "type = \"OrderCreated\""),
            "route[0].records[1].topic: has topic and type of records[0]",
        ),
        (route("") + &record("x", "a", "fields = []"), "route[0].records[0].fields: names no member"),
        (route("") + &record("x", "a", "fields = [\"b\"]"), "route[0].records[0].fields: `b` is not a JSON Pointer"),
        (route("") + &record("x", "a", "fields = 5"), "route[0].records[0].fields: expected a list of JSON Pointers"),
        (route("") + &record("x", "a", "topics = 5"), "route[0].records[0].topics: unknown key; did you mean `topic`?"),
        (route("") + "[[route.records]]\ntopic = \"a\"", "route[0].records[0].name: missing"),
        (route("records = [5]"), "route[0].records[0]: expected a table, found integer"),
        (route("outcomes = \"b\"") + &record("x", "b", ""), "route[0].outcomes: `b` is route[0].records[0].topic too"),
        (
            route("") + replies + &record("x", "a", "") + &record("y", "b", ""),
            "route[0].replies.topic: `b` is route[0].records[1].topic too",
        ),
        (
            route("") + &(0..17).map(|at| record(&at.to_string(), &format!("t{at}"), "")).collect::<String>(),
            "route[0].records: has 17 records: must be at most 16",
        ),
    ] {
        let said = said(&text);
        assert!(said.starts_with(expected), "{text}\n{said}\nexpected {expected}");
    }
    let mistakes = said(&(route("") + &record("x", "a b", "fields = [\"c\"]") + &record("x", "", "tipe = \"T\"")));
    assert_eq!(mistakes.lines().count(), 5, "all at once: {mistakes}");
    let two = record("x", "a", "fields = [\"/b\"]") + &record("y", "a", "type = \"T\"\nfields = { c = \"/d/0\" }");
    assert_eq!(said(&(route("") + &two)), "nothing");
}

#[test]
fn run_needs_a_broker_and_dev_does_not() {
    let without = assemble(None, []).unwrap();
    assert!(without.check_for_run().unwrap_err().to_string().starts_with("kafka.brokers: `sluice run` needs a broker"));
    for brokers in ["localhost:9092", "a:1, b:2", "[::1]:9092", "kafka"] {
        let with = assemble(Some(("t", &format!("[kafka]\nbrokers = \"{brokers}\""))), []).unwrap();
        assert!(with.check_for_run().is_ok(), "{brokers}");
    }
}

/// What a program without TLS cannot do is said at once, with what to do; one that has it takes the same settings.
#[test]
fn tls_towards_kafka_is_refused_where_the_program_has_none() {
    for setting in [
        "security.protocol = \"SSL\"",
        "ssl.ca.location = \"/etc/ca.pem\"",
        "sasl.mechanism = \"SCRAM-SHA-512\"",
        "enable.ssl.certificate.verification = false",
    ] {
        let said = said(&format!("[kafka.properties]\n{setting}"));
        if kafka::HAS_TLS {
            assert_eq!(said, "nothing", "{setting}");
        } else {
            assert!(
                said.contains("built without TLS towards Kafka") && said.contains("--features kafka-tls"),
                "{said}"
            );
        }
    }
    let plain = "[kafka.properties]\nsecurity.protocol = \"sasl_plaintext\"\nsasl.mechanism = \"PLAIN\"";
    assert_eq!(said(plain), "nothing");
}
