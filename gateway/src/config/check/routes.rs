//! Routes: paths, topics, keys, plugins and the replies that make a verdict.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::nearest;
use crate::config::{Config, Problem, RecordConfig, RouteConfig, RouteReplies};

/// Plugins that are part of the program.
pub const BUNDLED_PLUGINS: [&str; 2] = ["order-rules", "customer-enricher"];

/// Paths of the public listener that are no routes.
const RESERVED_PATHS: [&str; 2] = ["/openapi.json", "/asyncapi.json"];

/// Kafka's limit.
const TOPIC_BYTES_MAX: usize = 249;

const PLUGIN_NAME_BYTES_MAX: usize = 64;

/// An order's records are decided in one commit, each with as much of the order as it wants.
const RECORDS_MAX: usize = 16;
const RECORD_NAME_BYTES_MAX: usize = 64;

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    if config.route.is_empty() {
        problems.push(Problem::new("route", "there is no route: nothing could be posted"));
    }
    for (at, route) in config.route.iter().enumerate() {
        let key = |name: &str| format!("route[{at}].{name}");
        let mut report = |name: &str, reason: Option<String>| {
            problems.extend(reason.map(|reason| Problem::new(key(name), reason)));
        };
        report("path", path(&route.path));
        report("topic", route.topic.as_deref().and_then(topic));
        report("key", pointer(&route.key));
        report("outcomes", route.outcomes.as_deref().and_then(topic));
        report("type", event_type(&route.event_type));
        for (name, reason) in records(route) {
            report(&name, Some(reason));
        }
        if let Some(expected) = &route.replies {
            report("replies.topic", topic(&expected.topic));
            for (name, reason) in replies(expected) {
                report(name, Some(reason));
            }
        }
    }
    paths(config, problems);
    topics(config, problems);
    plugins(config, problems);
}

fn path(path: &str) -> Option<String> {
    let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-');
    let is_segment =
        |segment: &str| !segment.is_empty() && !matches!(segment, "." | "..") && segment.chars().all(is_char);
    if RESERVED_PATHS.contains(&path) {
        return Some(format!("`{path}` is taken by Sluice itself"));
    }
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(is_segment) => None,
        _ => Some(format!(
            "`{path}` is no path: expected `/` and segments of letters, digits, `.`, `_`, `~`, `-`, such as /orders"
        )),
    }
}

fn topic(topic: &str) -> Option<String> {
    let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_topic =
        (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && topic.chars().all(is_char) && !matches!(topic, "." | "..");
    (!is_topic)
        .then(|| format!("`{topic}` is no topic: Kafka takes 1 to {TOPIC_BYTES_MAX} letters, digits, `.`, `_`, `-`"))
}

/// RFC 6901; the empty pointer means that each order is its own key.
pub(super) fn pointer(pointer: &str) -> Option<String> {
    let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    let is_pointer = pointer.is_empty() || (pointer.starts_with('/') && escapes);
    (!is_pointer).then(|| format!("`{pointer}` is no JSON Pointer: expected one such as /customerId or /customer/id"))
}

fn event_type(event_type: &str) -> Option<String> {
    let is_type = !event_type.is_empty() && !event_type.contains(char::is_control);
    (!is_type).then(|| "must be a text without control characters".to_owned())
}

/// What is wrong with the records of a route, by key.
fn records(route: &RouteConfig) -> Vec<(String, String)> {
    let mut found = Vec::new();
    match (&route.topic, route.records.len()) {
        (None, 0) => found.push(("records".to_owned(), "names no record: name some, or a `topic` for one".to_owned())),
        (Some(_), 1..) => {
            let reason = "a route has either one record (`topic`) or several (`records`), not both";
            found.push(("topic".to_owned(), reason.to_owned()));
        }
        (_, RECORDS_MAX..) if route.records.len() > RECORDS_MAX => {
            found.push((
                "records".to_owned(),
                format!("has {} records: must be at most {RECORDS_MAX}", route.records.len()),
            ));
        }
        _ => {}
    }
    for (at, record) in route.records.iter().enumerate() {
        let mut report = |key: &str, reason: Option<String>| {
            found.extend(reason.map(|reason| (format!("records[{at}].{key}"), reason)));
        };
        let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let (name, before) = (&record.name, &route.records[..at]);
        if name.is_empty() || name.len() > RECORD_NAME_BYTES_MAX || !name.chars().all(is_char) {
            let expected = format!("expected 1 to {RECORD_NAME_BYTES_MAX} letters, digits, `.`, `_`, `-`");
            report("name", Some(format!("`{name}` is no name of a record: {expected}")));
        } else if let Some(other) = before.iter().position(|other| other.name == *name) {
            report("name", Some(format!("`{name}` is the name of records[{other}] too")));
        }
        report("topic", topic(&record.topic));
        report("type", record.event_type.as_deref().and_then(event_type));
        let kind = |of: &'_ RecordConfig| of.event_type.clone().unwrap_or_else(|| route.event_type.clone());
        let is_same = |other: &RecordConfig| other.topic == record.topic && kind(other) == kind(record);
        if let Some(other) = before.iter().position(is_same) {
            let reason = format!("has topic and type of records[{other}]: nobody could tell the two apart");
            report("topic", Some(reason));
        }
    }
    found
}

fn replies(replies: &RouteReplies) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if replies.all_of.is_empty() {
        found
            .push(("replies.all_of", "must name at least one type: without it no order could be VALIDATED".to_owned()));
    }
    let mut seen = BTreeSet::new();
    for (name, kinds) in [("replies.all_of", &replies.all_of), ("replies.any_of_rejects", &replies.any_of_rejects)] {
        for kind in kinds {
            if kind.is_empty() {
                found.push((name, "has an empty type".to_owned()));
            } else if !seen.insert(kind) {
                found.push((name, format!("`{kind}` is named twice: a reply says either yes or no")));
            }
        }
    }
    if replies.deadline.0 == Duration::ZERO {
        found.push(("replies.deadline", "must be longer than nothing".to_owned()));
    }
    found
}

/// No path is another's, or lies where another's orders lie (`/orders/…`).
fn paths(config: &Config, problems: &mut Vec<Problem>) {
    for (at, route) in config.route.iter().enumerate() {
        for (other_at, other) in config.route.iter().enumerate().filter(|(other_at, _)| *other_at != at) {
            let related = format!("route[{other_at}].path");
            let reason = match route.path.strip_prefix(other.path.as_str()) {
                Some("") if other_at < at => format!("`{}` is the path of route[{other_at}] too", route.path),
                Some(rest) if rest.starts_with('/') => {
                    format!("`{}` lies below `{}`, where that route's orders are read", route.path, other.path)
                }
                _ => continue,
            };
            problems.push(Problem::new(format!("route[{at}].path"), reason).with(&[&related]));
        }
    }
}

/// What goes out never comes in as a reply, and orders and outcomes do not mix.
fn topics(config: &Config, problems: &mut Vec<Problem>) {
    let routes = || config.route.iter().enumerate();
    let orders: Vec<_> = routes()
        .flat_map(|(at, route)| {
            let own = route.topic.iter().map(move |topic| (format!("route[{at}].topic"), topic));
            let several = route.records.iter().enumerate();
            own.chain(
                several.map(move |(place, record)| (format!("route[{at}].records[{place}].topic"), &record.topic)),
            )
        })
        .collect();
    let outcomes: Vec<_> =
        routes().filter_map(|(at, route)| Some((format!("route[{at}].outcomes"), route.outcomes.as_ref()?))).collect();
    let replies: Vec<_> = routes()
        .filter_map(|(at, route)| Some((format!("route[{at}].replies.topic"), &route.replies.as_ref()?.topic)))
        .collect();
    let mut apart = |group: &[(String, &String)], others: &[(String, &String)], why: &str| {
        for (key, topic) in group {
            if let Some((other, _)) = others.iter().find(|(_, other)| other == topic) {
                let reason = format!("`{topic}` is {other} too: {why}");
                problems.push(Problem::new(key.clone(), reason).with(&[other]));
            }
        }
    };
    apart(&outcomes, &orders, "orders and outcomes need topics of their own");
    apart(&replies, &orders, "Sluice would read its own records as replies");
    apart(&replies, &outcomes, "Sluice would read its own records as replies");
}

fn plugins(config: &Config, problems: &mut Vec<Problem>) {
    signers(config, problems);
    let missing = |name: &str| {
        let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > PLUGIN_NAME_BYTES_MAX || !name.chars().all(is_char) {
            return Some(format!("`{name}` is no plugin name: expected letters, digits, `-`, `_`"));
        }
        let file = config.plugins.dir.join(format!("{name}.wasm"));
        let is_there = BUNDLED_PLUGINS.contains(&name)
            || file.is_file()
            || file.with_extension("wat").is_file()
            // The last good version serves where the folder does not.
            || config.plugins.state_dir.join(format!("good/{name}.json")).is_file();
        let hint = nearest(name, BUNDLED_PLUGINS.into_iter());
        (!is_there)
            .then(|| format!("there is no plugin `{name}`: it is not bundled, and {} is no file{hint}", file.display()))
    };
    for (at, route) in config.route.iter().enumerate() {
        for (place, name) in route.plugins.iter().enumerate() {
            let key = format!("route[{at}].plugins");
            if let Some(reason) = missing(name) {
                problems.push(Problem::new(key, reason).with(&["plugins.dir"]));
            } else if route.plugins[..place].contains(name) {
                problems.push(Problem::new(key, format!("`{name}` is named twice")));
            }
        }
    }
    let configured = config.plugins.config.keys().map(|name| ("config", name));
    for (table, name) in configured.chain(config.plugins.policy.keys().map(|name| ("policy", name))) {
        if let Some(reason) = missing(name) {
            problems.push(Problem::new(format!("plugins.{table}.{name}"), reason).with(&["plugins.dir"]));
        }
    }
}

/// A minisign public key: `Ed`, eight bytes that name it, the 32 of the key.
fn signers(config: &Config, problems: &mut Vec<Problem>) {
    for key in &config.plugins.signers {
        let is_key = STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 42 && bytes.starts_with(b"Ed"));
        if !is_key {
            let reason = format!("`{key}` is no minisign public key: expected the second line of `minisign.pub`");
            problems.push(Problem::new("plugins.signers", reason));
        }
    }
}
