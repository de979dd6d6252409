//! Puts the configuration together: the defaults in the program, over them a file, over that the environment.
//!
//! # Guarantees
//!
//! - Everything that is wrong is found in one go: a value that cannot be is reported, and its default stands in for it
//!   while the rest is looked at.
//! - Nothing else in the program reads the environment.

mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;
use toml::{Table, Value};

use self::tree::{flat, is_below, line_and_column, locate, merge, value_of};
use super::check::{nearest, validate};
use super::{Config, ConfigErrors, Origin, Problem};

/// The defaults, as the file with the comments.
pub const DEFAULTS: &str = include_str!("../../../config/gateway.toml");

/// The file that is read when none is named, if it is there.
pub const FILE_DEFAULT: &str = "sluice.toml";

const ENVIRONMENT_PREFIX: &str = "SLUICE__";

/// Tables whose keys are not ours.
const FREE_TABLES: [(&str, &str); 6] = [
    ("plugins", "config"),
    ("plugins", "tables"),
    ("plugins", "policy"),
    ("kafka", "properties"),
    ("kafka", "producer"),
    ("kafka", "consumer"),
];

/// A route's list of records with every key that one can have; the route of the defaults has none.
const ROUTE_RECORDS: &str =
    "records = [{ name = \"name\", topic = \"topic\", type = \"OrderCreated\", fields = [\"/member\"] }]";

/// Keys without which a route means nothing.
const ROUTE_REQUIRED: [&str; 2] = ["path", "topic"];
const ROUTE_RECORD_REQUIRED: [&str; 2] = ["name", "topic"];
const ROUTE_REPLIES_REQUIRED: [&str; 3] = ["topic", "all_of", "deadline"];

impl Config {
    /// Loads and checks the configuration: the file at `path`, else `sluice.toml` if it is there, and the environment.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        let path = path.or_else(|| Some(Path::new(FILE_DEFAULT)).filter(|path| path.exists()));
        let Some(path) = path else { return assemble(None, environment()) };
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => assemble(Some((&name, &text)), environment()),
            Err(error) => {
                let problem = Problem::new("", format!("cannot read the configuration {name}: {error}"));
                Err(ConfigErrors { problems: vec![problem] })
            }
        }
    }

    /// The same from the bytes of a file that was read already, or without a file.
    ///
    /// # Errors
    ///
    /// All that is wrong with it.
    pub fn from_bytes(file: Option<(&Path, &[u8])>) -> Result<Self, ConfigErrors> {
        let Some((path, bytes)) = file else { return assemble(None, environment()) };
        let name = path.display().to_string();
        match std::str::from_utf8(bytes) {
            Ok(text) => assemble(Some((&name, text)), environment()),
            Err(error) => {
                let problem = Problem::new("", format!("cannot read the configuration {name}: {error}"));
                Err(ConfigErrors { problems: vec![problem] })
            }
        }
    }
}

/// What the command line sets, as variables of the environment; it stands over these, each time a configuration is read.
static COMMAND_LINE: OnceLock<Vec<(String, String)>> = OnceLock::new();

/// Makes the plugins judge behind those of every route, in this process.
pub fn add_plugins(names: &[String]) {
    let list = Value::Array(names.iter().map(|name| Value::String(name.clone())).collect());
    // Said once, at the start.
    drop(COMMAND_LINE.set(vec![("SLUICE__PLUGINS__EVERY_ROUTE".to_owned(), list.to_string())]));
}

fn environment() -> impl Iterator<Item = (String, String)> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    variables.chain(COMMAND_LINE.get().into_iter().flatten().cloned())
}

/// Whether the person at the terminal asked for no colors (`NO_COLOR`, see no-color.org).
#[must_use]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// What a test sets for [`crate::crash`]: the place, and the file that sets the clock wrong.
#[cfg(feature = "crash-points")]
#[must_use]
pub fn crash_point() -> (Option<String>, Option<std::path::PathBuf>) {
    let point = std::env::var_os("SLUICE_CRASH_POINT").map(|text| text.to_string_lossy().into_owned());
    (point, std::env::var_os("SLUICE_CRASH_CLOCK").map(Into::into))
}

/// The same as [`Config::load`], from a named text and a given environment.
///
/// # Errors
///
/// All that is wrong with it.
pub fn assemble(
    file: Option<(&str, &str)>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigErrors> {
    let mut draft = Draft::new();
    if let Some((name, text)) = file {
        draft.take_file(name, text)?;
    }
    let ours = environment.into_iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX));
    for (name, value) in ours.collect::<BTreeMap<_, _>>() {
        draft.take_variable(&name, &value);
    }
    draft.finish()
}

/// Puts the plugins of every route behind those that a route names itself.
fn with_every_route(mut config: Config) -> Config {
    for route in &mut config.route {
        let more = config.plugins.every_route.iter().filter(|name| !route.plugins.contains(name));
        let more: Vec<String> = more.cloned().collect();
        route.plugins.extend(more);
    }
    config
}

/// A configuration in the making; `tree` always makes a [`Config`].
struct Draft {
    tree: Table,
    /// Where keys were set, by their dotted path.
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Draft {
    fn new() -> Self {
        // A test holds the file in the program to this.
        let tree = DEFAULTS.parse().unwrap_or_default();
        Self { tree, origins: BTreeMap::new(), problems: Vec::new() }
    }

    fn take_file(&mut self, name: &str, text: &str) -> Result<(), ConfigErrors> {
        let located = |error: &toml::de::Error| {
            let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
            let mut problem =
                Problem::new("", format!("this is not TOML: {} (column {column})", error.message().trim()));
            problem.origin = Some(Origin::File { name: name.to_owned(), line });
            ConfigErrors { problems: vec![problem] }
        };
        let table: Table = toml::from_str(text).map_err(|error| located(&error))?;
        let lines = toml::de::DeTable::parse(text).map_err(|error| located(&error))?;
        let mut place = |path: String, at: usize| {
            let line = line_and_column(text, at).0;
            self.origins.insert(path, Origin::File { name: name.to_owned(), line });
        };
        locate("", lines.get_ref(), &mut place);

        for (section, value) in table {
            if section == "route" {
                self.take_routes(value);
            } else if let Some(known) = self.section(&section) {
                let Value::Table(keys) = value else {
                    self.problem(&section, format!("expected a table `[{section}]`, found {}", value.type_str()));
                    continue;
                };
                for (key, value) in keys {
                    self.take_key(&section, &key, value, &known);
                }
            } else {
                let known = self.tree.keys().map(String::as_str).collect::<Vec<_>>();
                let hint = nearest(&section, known.iter().copied());
                self.problem(&section, format!("unknown section{hint}"));
            }
        }
        Ok(())
    }

    fn take_variable(&mut self, name: &str, text: &str) {
        let path = name[ENVIRONMENT_PREFIX.len()..].to_ascii_lowercase();
        let segments: Vec<&str> = path.split("__").collect();
        let dotted = segments.join(".");
        // Set last, so it is where whatever is wrong below it comes from.
        self.origins.retain(|key, _| !is_below(key, &dotted));
        self.origins.insert(dotted.clone(), Origin::Environment(name.to_owned()));
        let value = value_of(text);
        match segments.as_slice() {
            ["route"] => self.take_routes(value),
            [section] => {
                self.problem(section, "names no key: expected SLUICE__SECTION__KEY");
            }
            [section, rest @ ..] => {
                let Some(known) = self.section(section) else {
                    let sections = self.tree.keys().map(String::as_str).collect::<Vec<_>>();
                    let hint = nearest(section, sections.iter().copied());
                    self.problem(&dotted, format!("unknown section{hint}"));
                    return;
                };
                match rest {
                    [key] if FREE_TABLES.contains(&(*section, *key)) => self.take_key(section, key, value, &known),
                    [key] => {
                        // What reads as TOML may still be meant as text: `5` as a group, `true` as a topic.
                        let as_text = Value::String(text.to_owned());
                        let value =
                            if self.fits(section, key, &value).is_err() && self.fits(section, key, &as_text).is_ok() {
                                as_text
                            } else {
                                value
                            };
                        self.take_key(section, key, value, &known);
                    }
                    [table, path @ ..] if FREE_TABLES.contains(&(*section, *table)) => {
                        let path = self.free_path(section, table, path);
                        let value = path
                            .iter()
                            .rev()
                            .fold(value, |value, name| Value::Table(Table::from_iter([(name.clone(), value)])));
                        self.take_key(section, table, value, &known);
                    }
                    _ => self.problem(&dotted, "unknown key"),
                }
            }
            [] => {}
        }
    }

    /// The names that a variable can only spell with `_`: `sasl_password` for `sasl.password`, `order_rules` for
    /// `order-rules`.
    fn free_path(&self, section: &str, table: &str, path: &[&str]) -> Vec<String> {
        let mut path: Vec<String> = path.iter().map(|&name| name.to_owned()).collect();
        if section == "kafka" {
            return vec![path.join("_").replace('_', ".")];
        }
        let known = self.tree.get(section).and_then(|section| section.get(table));
        let dashed = path[0].replace('_', "-");
        if known.is_some_and(|known| known.get(&path[0]).is_none() && known.get(&dashed).is_some()) {
            path[0] = dashed;
        }
        path
    }

    fn take_key(&mut self, section: &str, key: &str, value: Value, known: &Table) {
        let dotted = format!("{section}.{key}");
        if !known.contains_key(key) {
            let here = nearest(key, known.keys().map(String::as_str));
            let hint = if here.is_empty() { self.elsewhere(key) } else { here };
            self.problem(&dotted, format!("unknown key{hint}"));
            return;
        }
        let value = match value {
            Value::Table(table) if FREE_TABLES.contains(&(section, key)) => {
                let mut whole = known.get(key).and_then(Value::as_table).cloned().unwrap_or_default();
                // `linger.ms = 5` is a table in a table for TOML and one name for librdkafka.
                merge(&mut whole, if section == "kafka" { flat(table) } else { table });
                Value::Table(whole)
            }
            other => other,
        };
        match self.fits(section, key, &value) {
            Ok(()) => {
                if let Some(table) = self.tree.get_mut(section).and_then(Value::as_table_mut) {
                    table.insert(key.to_owned(), value);
                }
            }
            Err(reason) => self.problem(&dotted, reason),
        }
    }

    /// Takes a list of routes in place of the one there is.
    fn take_routes(&mut self, value: Value) {
        let Value::Array(items) = value else {
            return self.problem("route", format!("expected a list `[[route]]`, found {}", value.type_str()));
        };
        let Some(sample) = self.sample_route() else { return };
        let mut routes = Vec::new();
        for (at, item) in items.into_iter().enumerate() {
            let name = format!("route[{at}]");
            let Value::Table(item) = item else {
                self.problem(&name, format!("expected a table, found {}", item.type_str()));
                continue;
            };
            let fits = |candidate: Table| {
                let mut tree: Table = DEFAULTS.parse().unwrap_or_default();
                tree.insert("route".to_owned(), Value::Array(vec![Value::Table(candidate)]));
                reason(tree)
            };
            // Its records have topics of their own.
            let required = if item.contains_key("records") { &ROUTE_REQUIRED[..1] } else { &ROUTE_REQUIRED[..] };
            routes.push(Value::Table(self.take_route(&name, item, &sample, required, &fits)));
        }
        self.tree.insert("route".to_owned(), Value::Array(routes));
    }

    /// What of `given` can stand, with the sample's value for what cannot.
    fn take_route(
        &mut self,
        name: &str,
        given: Table,
        sample: &Table,
        required: &[&str],
        fits: &dyn Fn(Table) -> Result<(), String>,
    ) -> Table {
        let mut taken = Table::new();
        for key in required.iter().filter(|key| !given.contains_key(**key)) {
            self.problem(&format!("{name}.{key}"), "missing");
            taken.insert((*key).to_owned(), sample[*key].clone());
        }
        for (key, value) in given {
            let dotted = format!("{name}.{key}");
            let Some(usual) = sample.get(&key) else {
                let hint = nearest(&key, sample.keys().map(String::as_str));
                self.problem(&dotted, format!("unknown key{hint}"));
                continue;
            };
            let value = match (value, usual) {
                (Value::Table(inner), Value::Table(usual)) => {
                    let fits = |inner: Table| {
                        let mut candidate = sample.clone();
                        candidate.insert(key.clone(), Value::Table(inner));
                        fits(candidate)
                    };
                    Value::Table(self.take_route(&dotted, inner, usual, &ROUTE_REPLIES_REQUIRED, &fits))
                }
                (Value::Array(items), Value::Array(usual)) if usual.first().is_some_and(Value::is_table) => {
                    self.take_list(&dotted, items, sample, &key, fits)
                }
                (value, _) => value,
            };
            let mut candidate = sample.clone();
            candidate.insert(key.clone(), value.clone());
            match fits(candidate) {
                Ok(()) => taken.insert(key, value),
                Err(reason) => {
                    self.problem(&dotted, reason);
                    taken.insert(key.clone(), sample[&key].clone())
                }
            };
        }
        taken
    }

    /// The same for a list of tables, of which the sample has one.
    fn take_list(
        &mut self,
        name: &str,
        items: Vec<Value>,
        sample: &Table,
        key: &str,
        fits: &dyn Fn(Table) -> Result<(), String>,
    ) -> Value {
        let usual = sample[key].as_array().and_then(|usual| usual.first()?.as_table()).cloned().unwrap_or_default();
        let fits = |inner: Table| {
            let mut candidate = sample.clone();
            candidate.insert(key.to_owned(), Value::Array(vec![Value::Table(inner)]));
            fits(candidate)
        };
        let mut taken = Vec::new();
        for (at, item) in items.into_iter().enumerate() {
            let name = format!("{name}[{at}]");
            match item {
                Value::Table(item) => {
                    taken.push(Value::Table(self.take_route(&name, item, &usual, &ROUTE_RECORD_REQUIRED, &fits)));
                }
                other => self.problem(&name, format!("expected a table, found {}", other.type_str())),
            }
        }
        Value::Array(taken)
    }

    /// Whether the tree stays a configuration with `value` in that place; if not, why.
    fn fits(&self, section: &str, key: &str, value: &Value) -> Result<(), String> {
        let mut tree = self.tree.clone();
        match tree.get_mut(section).and_then(Value::as_table_mut) {
            Some(table) if table.contains_key(key) => table.insert(key.to_owned(), value.clone()),
            _ => return Ok(()),
        };
        reason(tree)
    }

    fn finish(mut self) -> Result<Config, ConfigErrors> {
        let config = match Config::deserialize(Value::Table(self.tree.clone())) {
            Ok(config) => with_every_route(config),
            Err(error) => {
                self.problem("", error.message().to_owned());
                return Err(ConfigErrors { problems: self.problems });
            }
        };
        let bad: BTreeSet<String> = self.problems.iter().map(|problem| problem.key.clone()).collect();
        for mut problem in validate(&config) {
            let keys = std::iter::once(&problem.key).chain(&problem.related);
            if keys.clone().any(|key| bad.iter().any(|bad| is_below(key, bad) || is_below(bad, key))) {
                continue;
            }
            problem.origin = keys.into_iter().find_map(|key| self.origin(key));
            self.problems.push(problem);
        }
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigErrors { problems: self.problems }) }
    }

    fn section(&self, name: &str) -> Option<Table> {
        self.tree.get(name)?.as_table().cloned()
    }

    /// The route of the defaults, which has every key a route can have.
    fn sample_route(&self) -> Option<Table> {
        let tree: Table = DEFAULTS.parse().ok()?;
        let mut sample = tree.get("route")?.get(0)?.as_table().cloned()?;
        sample.extend(ROUTE_RECORDS.parse::<Table>().ok()?);
        Some(sample)
    }

    /// The section that has the key.
    fn elsewhere(&self, key: &str) -> String {
        let home = self.tree.iter().find(|(_, table)| table.as_table().is_some_and(|table| table.contains_key(key)));
        home.map_or_else(String::new, |(section, _)| format!("; there is `{section}.{key}`"))
    }

    fn problem(&mut self, key: &str, reason: impl Into<String>) {
        let mut problem = Problem::new(key, reason);
        problem.origin = self.origin(key);
        self.problems.push(problem);
    }

    /// Where the key, or else the nearest table around it, was set.
    fn origin(&self, key: &str) -> Option<Origin> {
        let ends = std::iter::once(key.len()).chain(key.rmatch_indices(['.', '[']).map(|(at, _)| at));
        ends.into_iter().find_map(|end| self.origins.get(&key[..end])).cloned()
    }
}

/// Why the tree makes no configuration.
fn reason(tree: Table) -> Result<(), String> {
    let read = Config::deserialize(Value::Table(tree)).map(drop);
    // The library names the types of Rust; an operator need not know them.
    let said = |error: toml::de::Error| {
        let message = error.message().trim().replace("expected usize", "expected a whole number from 0 on");
        message
            .replace("expected u64", "expected a whole number from 0 on")
            .replace("expected i32", "expected a whole number")
    };
    read.map_err(said)
}

#[cfg(test)]
mod tests;
