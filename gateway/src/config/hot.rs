//! Which keys a running node takes over, and which need a restart: the one table that decides.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{Config, Problem};

/// Keys, or tables with all their keys, that are taken over while the node runs.
pub const HOT: [&str; 31] = [
    "plugins.cache_bytes_max",
    "plugins.compile_memory_max",
    "plugins.compile_time_max",
    "plugins.config",
    "plugins.every_route",
    "plugins.file_bytes_max",
    "plugins.host_calls_per_order_max",
    "plugins.log_line_bytes_max",
    "plugins.log_lines_per_order_max",
    "plugins.lookup_keys_max",
    "plugins.lookups_per_order_max",
    "plugins.memory_bytes_max",
    "plugins.metric_calls_per_order_max",
    "plugins.metric_names_max",
    "plugins.output_bytes_max",
    "plugins.patch_bytes_max",
    "plugins.patch_operations_max",
    "plugins.policy",
    "plugins.problems_max",
    "plugins.rollback_fault_share",
    "plugins.rollback_orders_min",
    "plugins.signers",
    "plugins.tables",
    "plugins.tables_bytes_max",
    "plugins.text_bytes_max",
    "plugins.time_per_batch_max",
    "plugins.time_per_batch_min",
    "plugins.time_per_order",
    "plugins.wall_per_batch_max",
    "route[].plugins",
    "telemetry.log",
];

/// All others.
pub const RESTART: [&str; 27] = [
    "admin",
    "database",
    "dev",
    "http",
    "intake",
    "kafka",
    "node",
    "plugins.batch_bytes_max",
    "plugins.batch_orders_max",
    "plugins.dir",
    "plugins.nice",
    "plugins.poison_faults",
    "plugins.poll_interval",
    "plugins.state_dir",
    "plugins.threads",
    "relay",
    "replies",
    "retention",
    "route[].key",
    "route[].outcomes",
    "route[].path",
    "route[].records",
    "route[].replies",
    "route[].topic",
    "route[].type",
    "shutdown",
    "telemetry.format",
];

/// What differs between two configurations, by key; routes go by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub hot: Vec<String>,
    pub restart: Vec<String>,
}

/// What changes from one configuration to the other.
#[must_use]
pub fn changes(from: &Config, to: &Config) -> Changes {
    let (from, to) = (keys(from), keys(to));
    let mut names: Vec<&String> = from.keys().chain(to.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let mut changes = Changes::default();
    for name in names.into_iter().filter(|name| from.get(*name) != to.get(*name)) {
        let list = if is_hot(name) { &mut changes.hot } else { &mut changes.restart };
        list.push(name.clone());
    }
    changes
}

/// What a node that runs with `running` can run with after a change to `wanted`: the hot keys are taken over.
///
/// # Errors
///
/// The two together make no configuration, such as a limit that only fits one that needs a restart.
pub fn take_over(running: &Config, wanted: &Config) -> Result<Config, Vec<Problem>> {
    let mut taken = running.clone();
    for route in &mut taken.route {
        if let Some(wanted) = wanted.route.iter().find(|wanted| wanted.path == route.path) {
            route.plugins.clone_from(&wanted.plugins);
        }
    }
    taken.telemetry.log.clone_from(&wanted.telemetry.log);
    taken.plugins = wanted.plugins.clone();
    let (cold, plugins) = (&running.plugins, &mut taken.plugins);
    plugins.dir.clone_from(&cold.dir);
    plugins.state_dir.clone_from(&cold.state_dir);
    plugins.nice = cold.nice;
    plugins.poison_faults = cold.poison_faults;
    plugins.poll_interval = cold.poll_interval;
    plugins.threads = cold.threads;
    plugins.batch_orders_max = cold.batch_orders_max;
    plugins.batch_bytes_max = cold.batch_bytes_max;
    let problems = super::check::validate(&taken);
    if problems.is_empty() { Ok(taken) } else { Err(problems) }
}

fn is_hot(key: &str) -> bool {
    HOT.iter().any(|hot| covers(hot, key))
}

/// Whether an entry of the table is the key, or a table that it lies in.
fn covers(entry: &str, key: &str) -> bool {
    let general = match (key.find('['), key.find(']')) {
        (Some(begin), Some(end)) => format!("{}[]{}", &key[..begin], &key[end + 1..]),
        _ => key.to_owned(),
    };
    general.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Every key with its value; lists are values, but for routes.
fn keys(config: &Config) -> BTreeMap<String, Value> {
    let mut keys = BTreeMap::new();
    // Everything in a configuration came from TOML.
    let tree = Table::try_from(config).unwrap_or_default();
    for (section, value) in tree {
        match value {
            Value::Array(routes) => {
                for route in routes {
                    let path = route.get("path").and_then(Value::as_str).unwrap_or_default().to_owned();
                    flatten(&format!("{section}[{path}]"), route, &mut keys);
                }
            }
            value => flatten(&section, value, &mut keys),
        }
    }
    keys
}

fn flatten(prefix: &str, value: Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                flatten(&format!("{prefix}.{key}"), value, keys);
            }
        }
        value => {
            keys.insert(prefix.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::assemble;

    fn config(text: &str) -> Config {
        assemble(Some(("t", text)), []).unwrap()
    }

    #[test]
    fn every_key_is_either_hot_or_needs_a_restart() {
        for key in keys(&config("")).keys() {
            let entries: Vec<&str> = HOT.iter().chain(&RESTART).copied().filter(|entry| covers(entry, key)).collect();
            assert_eq!(entries.len(), 1, "`{key}` is covered by {entries:?}: give it one place in config/hot.rs");
        }
        for entry in HOT.iter().chain(&RESTART) {
            let mut known = keys(&config("")).into_keys();
            let is_empty =
                ["plugins.config", "plugins.policy", "plugins.tables", "kafka", "route[].records"].contains(entry);
            assert!(is_empty || known.any(|key| covers(entry, &key)), "there is no key `{entry}`");
        }
    }

    #[test]
    fn hot_keys_are_taken_over_and_others_are_named() {
        let running = config("");
        let wanted = config(
            "plugins.time_per_order = \"20ms\"\nplugins.threads = 5\ntelemetry.log = \"debug\"\nhttp.wait_max = \"5s\"
             [plugins.config.order-rules]\nnet = false\n[[route]]\npath = \"/orders\"\ntopic = \"others\"\nplugins = []",
        );
        let found = changes(&running, &wanted);
        for key in
            ["plugins.time_per_order", "telemetry.log", "plugins.config.order-rules.net", "route[/orders].plugins"]
        {
            assert!(found.hot.iter().any(|hot| hot == key), "{key} in {found:?}");
        }
        for key in ["plugins.threads", "http.wait_max", "route[/orders].topic"] {
            assert!(found.restart.iter().any(|cold| cold == key), "{key} in {found:?}");
        }
        let taken = take_over(&running, &wanted).unwrap();
        let left = changes(&taken, &wanted);
        assert!(left.hot.is_empty(), "{left:?}");
        assert_eq!(left.restart, found.restart);
        assert_eq!(changes(&running, &taken).hot, found.hot);
    }

    #[test]
    fn what_fits_only_after_a_restart_is_refused_while_the_node_runs() {
        let wanted = config(
            "plugins.memory_bytes_max = \"4MiB\"\nplugins.batch_bytes_max = \"1MiB\"\nhttp.body_bytes_max = \"64KiB\"",
        );
        let problems = take_over(&config(""), &wanted).unwrap_err();
        assert_eq!(problems[0].key, "plugins.memory_bytes_max");
    }
}
