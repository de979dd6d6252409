//! What a configuration must hold beyond its types: each key by itself, and the keys among each other.
//!
//! # Not here
//!
//! Routes are in `check::routes`, limits that must fit each other in `check::limits`, what plugins may do in
//! `check::policies`, the broker and its client in `check::kafka`.

pub mod kafka;
mod limits;
mod policies;
mod routes;

use tracing_subscriber::EnvFilter;

use super::{Config, ConfigErrors, Problem};

pub use routes::BUNDLED_PLUGINS;

/// Everything that is wrong with the configuration; nothing if it can be run with.
#[must_use]
pub fn validate(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    addresses(config, &mut problems);
    database(config, &mut problems);
    kafka::check(config, &mut problems);
    telemetry(config, &mut problems);
    limits::check(config, &mut problems);
    routes::check(config, &mut problems);
    policies::check(config, &mut problems);
    problems
}

impl Config {
    /// What `sluice run` needs beyond what every configuration must hold.
    ///
    /// # Errors
    ///
    /// No broker is named.
    pub fn check_for_run(&self) -> Result<(), ConfigErrors> {
        if !self.kafka.brokers.is_empty() {
            return Ok(());
        }
        let reason = "`sluice run` needs a broker: set it to HOST:PORT, for example with \
                      SLUICE__KAFKA__BROKERS=localhost:9092 (`sluice dev` brings its own)";
        Err(ConfigErrors { problems: vec![Problem::new("kafka.brokers", reason)] })
    }
}

/// `; did you mean …?` for the nearest of the known words, or nothing if none is near.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let scored = known.map(|known| (strsim::jaro_winkler(word, known), known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, known)) if score > 0.75 => format!("; did you mean `{known}`?"),
        _ => String::new(),
    }
}

fn addresses(config: &Config, problems: &mut Vec<Problem>) {
    let (public, admin) = (config.http.listen, config.admin.listen);
    let overlap = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
    // Port 0 is any free port, a different one for each.
    if public.port() == admin.port() && public.port() != 0 && overlap {
        let reason = format!("`{admin}` is taken by http.listen (`{public}`): the two need ports of their own");
        problems.push(Problem::new("admin.listen", reason).with(&["http.listen"]));
    }
}

fn database(config: &Config, problems: &mut Vec<Problem>) {
    const EXPECTED: &str = "expected `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
    let url = config.database.url.as_str();
    let reason = match url.split_once("://") {
        Some(("sqlite", "")) => "names no file: expected `sqlite://PATH`".to_owned(),
        Some(("sqlite", path)) if path.contains(":memory:") => {
            "a database in memory would lose what was promised: expected `sqlite://PATH`".to_owned()
        }
        Some(("sqlite", _)) => return,
        Some(("postgres" | "postgresql", rest)) => match names_server(rest) {
            Ok(()) => return,
            Err(missing) => format!("{missing}: expected `postgres://USER:PASSWORD@HOST:PORT/DATABASE`"),
        },
        Some((scheme, _)) => format!("`{scheme}://` is not known: {EXPECTED}"),
        None => EXPECTED.to_owned(),
    };
    problems.push(Problem::new("database.url", reason));
}

/// Whether what stands behind `postgres://` names a server and a database, there or among its parameters.
fn names_server(rest: &str) -> Result<(), &'static str> {
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let has = |names: &[&str]| {
        parameters.split('&').filter_map(|parameter| parameter.split_once('=')).any(|(name, _)| names.contains(&name))
    };
    let (authority, database) = path.rsplit_once('/').unwrap_or((path, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if (host.is_empty() || host.starts_with(':')) && !has(&["host", "hostaddr"]) {
        return Err("names no host");
    }
    if database.is_empty() && !has(&["dbname"]) {
        return Err("names no database");
    }
    Ok(())
}

fn telemetry(config: &Config, problems: &mut Vec<Problem>) {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let log = config.telemetry.log.as_str();
    let expected = "expected a level (error, warn, info, debug, trace, off) or directives such as \
                    `info,sluice::relay=debug`";
    // A bare word would pass as the name of a target and silence everything else.
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    let bare = log.split(',').map(str::trim).find(|part| !part.contains(['=', '[']) && !is_level(part));
    if let Some(word) = bare {
        let hint = nearest(word, LEVELS.into_iter());
        problems.push(Problem::new("telemetry.log", format!("`{word}` is no level: {expected}{hint}")));
    } else if let Err(error) = EnvFilter::try_new(log) {
        problems.push(Problem::new("telemetry.log", format!("{error}: {expected}")));
    }
}

#[cfg(test)]
mod tests;
