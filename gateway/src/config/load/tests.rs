use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::config::Span;

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn said(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match assemble(Some(("sluice.toml", file)), variables(environment)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

#[test]
fn defaults_alone_are_a_configuration() {
    let config = assemble(None, []).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.route[0].replies.as_ref().map(|replies| replies.all_of.len()), Some(2));
}

#[test]
fn every_key_stands_in_the_default_file_with_a_comment() {
    let config = assemble(None, []).unwrap();
    let effective = Value::try_from(&config).unwrap();
    assert_eq!(
        keys("", effective.as_table().unwrap()),
        keys("", &DEFAULTS.parse::<Table>().unwrap()),
        "what is compiled in and what can be set differ"
    );
    let mut above = "";
    for (number, line) in DEFAULTS.lines().enumerate() {
        let is_key = line.contains(" = ") && !line.starts_with('#');
        let is_sample = line.starts_with("name = ") || line.starts_with("segment = ");
        if is_key && !is_sample {
            assert!(above.starts_with('#'), "line {} has no comment: {line}", number + 1);
        }
        above = line;
    }
}

fn keys(prefix: &str, table: &Table) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in table {
        let path = format!("{prefix}.{key}");
        match value {
            Value::Table(inner) => found.extend(keys(&path, inner)),
            Value::Array(items) => found.extend(items.iter().filter_map(Value::as_table).flat_map(|t| keys(&path, t))),
            _ => {}
        }
        found.insert(path);
    }
    found
}

#[test]
fn environment_goes_over_file_and_file_over_defaults() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\nwait_max = \"5s\"\n";
    let environment = variables(&[("SLUICE__HTTP__LISTEN", "0.0.0.0:2"), ("OTHER", "x"), ("SLUICE_HTTP", "x")]);
    let config = assemble(Some(("t", file)), environment).unwrap();
    assert_eq!(config.http.listen.to_string(), "0.0.0.0:2");
    assert_eq!(config.http.wait_max, Span::parse("5s").unwrap());
    assert_eq!(config.http.json_depth_max, 64);
}

#[test]
fn variables_are_read_as_toml_where_they_are_and_as_text_where_that_is_meant() {
    let config = assemble(
        None,
        variables(&[
            ("SLUICE__HTTP__JSON_DEPTH_MAX", "32"),
            ("SLUICE__HTTP__BODY_BYTES_MAX", "512KiB"),
            ("SLUICE__KAFKA__GROUP", "5"),
            ("SLUICE__PLUGINS__DIR", "/a = b"),
            ("SLUICE__KAFKA__PROPERTIES__SASL_PASSWORD", "12"),
            ("SLUICE__KAFKA__PRODUCER", "{ linger.ms = 5 }"),
            ("SLUICE__PLUGINS__CONFIG__ORDER_RULES__STRICT", "true"),
            ("SLUICE__ROUTE", "[{ path = \"/a\", topic = \"b\" }]"),
        ]),
    )
    .unwrap();
    assert_eq!((config.http.json_depth_max, config.http.body_bytes_max.0), (32, 512 << 10));
    assert_eq!((config.kafka.group.as_str(), config.plugins.dir), ("5", PathBuf::from("/a = b")));
    assert_eq!(config.kafka.properties["sasl.password"], "12");
    assert_eq!(config.kafka.producer["linger.ms"], "5");
    assert_eq!(config.plugins.config["order-rules"]["strict"], Value::Boolean(true));
    assert_eq!((config.route.len(), config.route[0].path.as_str()), (1, "/a"));
}

#[test]
fn tables_merge_and_routes_replace() {
    let file = r#"
        [plugins.config.customer-enricher.customers."1"]
        name = "One"
        segment = "retail"
        [kafka.producer]
        linger.ms = 5
        "compression.type" = "zstd"
        [[route]]
        path = "/refunds"
        topic = "refunds"
    "#;
    let config = assemble(Some(("t", file)), []).unwrap();
    let customers = config.plugins.config["customer-enricher"]["customers"].as_table().unwrap();
    assert!(customers.contains_key("1") && customers.contains_key("17850"));
    assert_eq!(config.kafka.producer["linger.ms"], "5");
    assert_eq!(config.kafka.producer["compression.type"], "zstd");
    let route = &config.route[0];
    assert_eq!((config.route.len(), route.key.as_str(), route.event_type.as_str()), (1, "", "OrderCreated"));
    assert!(route.replies.is_none() && route.outcomes.is_none());
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let file = "[http]\nlisten = \"here\"\nbody_timeout = \"5 weeks\"\nheader_bytes_max = \"32KB\"\njson_dept_max = 3\n\
                [htpp]\n[database]\nurl = \"redis://x\"\nreaders = -1\nbrokers = \"a\"\n\
                [[route]]\ntopik = \"x\"\npath = \"orders\"\n[route.replies]\ntopic = 5\nall_off = []\n";
    let said = said(file, &[("SLUICE__HTTP__LISTENN", "1"), ("SLUICE__TELEMETRY__FORMAT", "xml"), ("SLUICE__X", "1")]);
    let expected = [
        "database.readers: invalid value: integer `-1`, expected a whole number from 0 on (sluice.toml:9)",
        "database.brokers: unknown key; there is `kafka.brokers` (sluice.toml:10)",
        "htpp: unknown section; did you mean `http`? (sluice.toml:6)",
        "http.body_timeout: `5 weeks` is no duration: expected a number and a unit, such as 250ms, 30s, 5m or 24h (sluice.toml:3)",
        "http.header_bytes_max: `32KB` is no size: expected a number of bytes or one with KiB, MiB or GiB (sluice.toml:4)",
        "http.json_dept_max: unknown key; did you mean `json_depth_max`? (sluice.toml:5)",
        "http.listen: `here` is no address: expected an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080 (sluice.toml:2)",
        "route[0].topic: missing (sluice.toml:11)",
        "route[0].topik: unknown key; did you mean `topic`? (sluice.toml:12)",
        "route[0].replies.all_of: missing (sluice.toml:14)",
        "route[0].replies.deadline: missing (sluice.toml:14)",
        "route[0].replies.all_off: unknown key; did you mean `all_of`? (sluice.toml:16)",
        "route[0].replies.topic: invalid type: integer `5`, expected a string (sluice.toml:15)",
        "http.listenn: unknown key; did you mean `listen`? (SLUICE__HTTP__LISTENN)",
        "telemetry.format: unknown variant `xml`, expected `text` or `json` (SLUICE__TELEMETRY__FORMAT)",
        "x: names no key: expected SLUICE__SECTION__KEY (SLUICE__X)",
        "database.url: `redis://` is not known: expected `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE` (sluice.toml:8)",
        "route[0].path: `orders` is no path: expected `/` and segments of letters, digits, `.`, `_`, `~`, `-`, such as /orders (sluice.toml:13)",
    ];
    let (said, expected): (BTreeSet<&str>, BTreeSet<&str>) =
        (said.iter().map(String::as_str).collect(), expected.into_iter().collect());
    assert_eq!(said, expected);
}

#[test]
fn a_mistake_is_told_once_and_not_again_by_what_rests_on_it() {
    let file = "[kafka]\nmessage_bytes_max = \"8MB\"\n[http]\nbody_bytes_max = \"6MiB\"\n\
                [plugins]\nbatch_bytes_max = \"8MiB\"\n";
    let said = said(file, &[]);
    assert!(said.len() == 1 && said[0].starts_with("kafka.message_bytes_max: `8MB` is no size"), "{said:?}");
}

#[test]
fn what_is_no_toml_is_told_with_line_and_column() {
    let said = said("[http]\nlisten = = 5\n", &[]);
    assert!(!said.is_empty() && said[0].starts_with("this is not TOML:"), "{said:?}");
    assert!(said.concat().contains("(column 10) (sluice.toml:2)"), "{said:?}");
}

#[test]
fn sections_and_routes_of_the_wrong_kind_are_told() {
    assert_eq!(said("http = 5\n", &[]), ["http: expected a table `[http]`, found integer (sluice.toml:1)"]);
    assert_eq!(said("route = 5\n", &[]), ["route: expected a list `[[route]]`, found integer (sluice.toml:1)"]);
    assert_eq!(said("route = [5]\n", &[])[0], "route[0]: expected a table, found integer (sluice.toml:1)");
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let errors = Config::load(Some(&folder.path().join("none.toml"))).unwrap_err().to_string();
    assert!(errors.starts_with("cannot read the configuration"), "{errors}");
}

#[test]
fn what_is_in_force_reads_back_as_itself() {
    let config = assemble(None, []).unwrap();
    let text = toml::to_string(&config).unwrap();
    let again = assemble(Some(("t", &text)), []).unwrap();
    assert_eq!(toml::to_string(&again).unwrap(), text);
}

#[test]
fn the_readme_names_only_keys_that_there_are() {
    let readme = include_str!("../../../../README.md");
    let (_, table) = readme.split_once("| key | default | |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let tree: Table = DEFAULTS.parse().unwrap();
    let mut known = 0;
    for row in table.lines().filter(|row| row.starts_with("| `") && !row.starts_with("| `[")) {
        let key = row.split('`').nth(1).unwrap().trim_end_matches(".NAME");
        let (section, name) = key.split_once('.').unwrap();
        assert!(tree[section].get(name).is_some(), "{key}");
        known += 1;
    }
    assert!(known > 8, "the table was found");
}

proptest! {
    #[test]
    fn whatever_is_written_is_answered(file in ".{0,80}", name in "[A-Z_.-]{0,24}", value in ".{0,24}") {
        let variable = (format!("{ENVIRONMENT_PREFIX}{name}"), value.clone());
        let section = (format!("{ENVIRONMENT_PREFIX}HTTP__{name}"), value);
        drop(assemble(Some(("t", &file)), [variable, section]).map_err(|errors| errors.to_string()));
    }
}

#[test]
fn the_plugins_of_every_route_stand_behind_its_own() {
    let text = "[plugins]\nevery_route = [\"order-rules\"]\n[[route]]\npath = \"/a\"\ntopic = \"a\"\n\
                plugins = [\"customer-enricher\"]\n[[route]]\npath = \"/b\"\ntopic = \"b\"\nplugins = [\"order-rules\"]\n";
    let config = assemble(Some(("a.toml", text)), []).unwrap();
    assert_eq!(config.route[0].plugins, ["customer-enricher", "order-rules"]);
    assert_eq!(config.route[1].plugins, ["order-rules"]);
}
