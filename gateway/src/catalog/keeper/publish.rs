//! Puts what was chosen in place: generation, disk, metrics, report.

use std::time::Instant;

use tracing::{info, warn};

use super::configuration::result;
use super::{Keeper, Picks};
use crate::catalog::choose::{Entry, Pick};
use crate::catalog::good::{Kept, Record};
use crate::catalog::report::{PluginReport, Report, State, Version};
use crate::config::{Config, hot};
use crate::crash::{self, Point};
use crate::lifecycle::Condition;
use crate::plugin::{Generation, PluginInfo};
use crate::telemetry;
use crate::telemetry::metrics::PluginInfoLabels;

impl Keeper {
    /// Puts plugins, and a configuration where it changed, in place.
    pub(super) fn publish(&mut self, config: Option<Config>, picks: Picks, stable_at: Option<Instant>) {
        let is_new = |(name, pick): (&String, &Pick)| {
            let entry = self.entries.get(name);
            entry.is_none_or(|entry| entry.settings != pick.settings || !is_version(entry, pick))
        };
        let is_changed = self.generation == 0
            || picks.iter().any(is_new)
            || config.as_ref().is_some_and(|config| chains(config) != chains(&self.config));
        if is_changed {
            let number = self.generation + 1;
            let loaded = picks.values().map(|pick| pick.loaded.clone()).collect();
            let routes = &config.as_ref().unwrap_or(&self.config).route;
            let chains = routes.iter().map(|route| (route.path.as_str(), route.plugins.as_slice()));
            crash::at(Point::ReloadChosen);
            self.host.publish(Generation::new(number, loaded, chains));
            crash::at(Point::ReloadServing);
            self.generation = number;
        }
        let taken = stable_at.map(|stable_at| stable_at.elapsed());
        if let Some(config) = config {
            self.take_configuration(config);
        }
        let mut before = std::mem::take(&mut self.entries);
        for (name, pick) in picks {
            let old = before.remove(&name);
            let is_adopted = old.as_ref().is_some_and(|old| !is_version(old, &pick));
            let entry = self.entry(&name, old, pick);
            if is_adopted && let Some(taken) = taken {
                let (digest, millis) = (&entry.loaded.info().digest, taken.as_millis());
                info!(plugin = name, %digest, generation = self.generation, millis = u64::try_from(millis).unwrap_or(u64::MAX),
                    "plugin `{name}` serves with {digest}, {millis} ms after its file was stable");
                self.metrics.plugin_reloads.get_or_create(&result("served")).inc();
                self.metrics.plugin_reload_seconds.observe(taken.as_secs_f64());
            }
            self.entries.insert(name, entry);
        }
        for (name, entry) in before {
            info!(plugin = name, "plugin `{name}` is named by no route any more");
            self.metrics.plugin_info.remove(&labels(entry.loaded.info()));
        }
        self.tell();
    }

    fn take_configuration(&mut self, config: Config) {
        let keys = hot::changes(&self.config, &config).hot;
        if config.telemetry.log != self.config.telemetry.log
            && let Err(error) = telemetry::set_log(&config.telemetry.log)
        {
            warn!(error = %telemetry::chain(&error), "the log goes on as it was");
        }
        info!("taken over from the configuration: {}", keys.join(", "));
        self.metrics.config_reloads.get_or_create(&result("served")).inc();
        self.config = config;
    }

    /// The entry of a plugin after a choice; keeps on disk what changed and tells of what is wrong for the first time.
    fn entry(&mut self, name: &str, old: Option<Entry>, pick: Pick) -> Entry {
        let Pick { loaded, settings, kept, bytes, complaint } = pick;
        let known = match &old {
            Some(old) => old.record.clone(),
            None => self.good.read(name),
        };
        let is_version = known.current.as_ref().is_some_and(|current| current.digest == kept.digest);
        let previous = if is_version { known.previous.clone() } else { earlier(&known, old.as_ref(), &kept.digest) };
        let withdrawn = known.withdrawn.clone().filter(|_| complaint.is_some());
        let is_bad = |digest: &String| withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.digest == *digest);
        let previous = previous.filter(|previous| !is_bad(&previous.digest));
        let record = Record { current: Some(kept), previous, withdrawn };
        if record != known {
            self.keep(name, &record, bytes.as_ref().filter(|_| !is_version));
        }
        let info = loaded.info();
        if let Some(old) = old.as_ref().filter(|old| old.loaded.info().digest != info.digest) {
            self.metrics.plugin_info.remove(&labels(old.loaded.info()));
        }
        self.metrics.plugin_info.get_or_create(&labels(info)).set(1);
        let generation = old
            .as_ref()
            .filter(|old| old.loaded.info().digest == info.digest)
            .map_or(self.generation, |old| old.generation);
        let trouble =
            old.as_ref().filter(|old| old.loaded.info().digest == info.digest).and_then(|old| old.trouble.clone());
        if let Some(complaint) = &complaint {
            let old = old.as_ref().and_then(|old| old.complaint.as_ref()).map(|old| &old.report);
            let is_told = old.is_some_and(|old| {
                // Without a digest the reason alone tells one from the other.
                let is_same = old.digest.is_some() || old.reason == complaint.report.reason;
                old.digest == complaint.report.digest && old.code == complaint.report.code && is_same
            });
            if !is_told {
                let (state, code) = (complaint.report.state.as_str(), complaint.report.code);
                let (digest, reason) = (complaint.report.digest.as_deref().unwrap_or("-"), &complaint.report.reason);
                if complaint.report.state != State::Withdrawn {
                    warn!(
                        plugin = name,
                        digest, code, "what lies in the folder for plugin `{name}` is {state}: {reason}"
                    );
                }
                self.metrics.plugin_reloads.get_or_create(&result(state)).inc();
            }
        }
        Entry { loaded, settings, record, generation, complaint, trouble }
    }

    /// Keeps a record on disk. Where that fails the node goes on, and says so.
    pub(super) fn keep(&mut self, name: &str, record: &Record, bytes: Option<&bytes::Bytes>) {
        let versions = [&record.current, &record.previous];
        let is_needed = record.withdrawn.is_some() || versions.into_iter().flatten().any(|kept| kept.file.is_some());
        let kept = if is_needed { self.good.keep(name, record, bytes) } else { self.good.forget(name) };
        self.disk_problem = kept.err().map(|error| {
            warn!(plugin = name, %error, "the last good version of plugin `{name}` is not kept on disk: {error}");
            format!("the last good version of plugin `{name}` is not kept on disk: {error}")
        });
    }

    /// Notes on disk which versions have proven themselves since.
    pub(super) fn note_proven(&mut self) {
        let is_news = |entry: &Entry| {
            let is_known = entry.record.current.as_ref().is_none_or(|kept| kept.is_proven);
            !is_known && entry.loaded.health().is_proven
        };
        let names = self.entries.iter().filter(|(_, entry)| is_news(entry)).map(|(name, _)| name.clone());
        for name in names.collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            if let Some(current) = &mut entry.record.current {
                current.is_proven = true;
            }
            let record = entry.record.clone();
            self.keep(&name, &record, None);
        }
    }

    /// Tells how things stand: report, readiness, metrics.
    pub(super) fn tell(&self) {
        let report = self.make_report();
        let mut plugins = report.complaints();
        plugins.extend(self.disk_problem.clone());
        let condition = |lines: Vec<String>| {
            if lines.is_empty() { Condition::Ready } else { Condition::Degraded(lines.join("; ")) }
        };
        self.readiness.set("plugins", condition(plugins));
        let mut configuration = self.config_problems.clone();
        if !self.restart_keys.is_empty() {
            configuration.push(format!("these keys need a restart: {}", self.restart_keys.join(", ")));
        }
        self.readiness.set("configuration", condition(configuration));
        self.metrics.plugin_generation.set(i64::try_from(self.generation).unwrap_or(i64::MAX));
        self.report.store(report.into());
    }

    fn make_report(&self) -> Report {
        let plugins = self.entries.iter().map(|(name, entry)| {
            let info = entry.loaded.info();
            let version =
                |kept: &Kept| Version { digest: kept.digest.clone(), origin: kept.origin(), since: kept.since.clone() };
            let routes = self.config.route.iter().filter(|route| route.plugins.contains(name));
            let policy = self.config.plugins.policy.get(name);
            let grants = policy.into_iter().flat_map(|policy| &policy.grants);
            let serving = entry.record.current.as_ref().map(version);
            PluginReport {
                name: name.clone(),
                serving: serving.unwrap_or_else(|| Version {
                    digest: info.digest.to_string(),
                    origin: info.origin.to_string(),
                    since: String::new(),
                }),
                lane: info.lane.as_str(),
                capabilities: std::sync::Arc::clone(&info.capabilities),
                grants: grants.map(ToString::to_string).collect(),
                bytes: info.bytes,
                generation: entry.generation,
                routes: routes.map(|route| route.path.clone()).collect(),
                candidate: entry.complaint.as_ref().map(|complaint| (*complaint.report).clone()),
                previous: entry.record.previous.as_ref().map(version),
                pin: self.pins.of(name).map(str::to_owned),
                trouble: entry.trouble.clone(),
            }
        });
        Report {
            generation: self.generation,
            plugins: plugins.collect(),
            configuration_problems: self.config_problems.clone(),
            restart_keys: self.restart_keys.clone(),
        }
    }
}

/// The version to go back to from a new one: the one that served until now if it is proven, else the one before it.
fn earlier(known: &Record, old: Option<&Entry>, new: &str) -> Option<Kept> {
    let is_proven = |kept: &Kept| kept.is_proven || old.is_some_and(|old| old.loaded.health().is_proven);
    let current = known.current.clone().map(|kept| Kept { is_proven: is_proven(&kept), ..kept });
    let before = known.previous.clone().filter(|before| before.is_proven && before.digest != new);
    match (current, before) {
        (Some(current), Some(before)) if !current.is_proven => Some(before),
        (current, before) => current.or(before),
    }
}

fn is_version(entry: &Entry, pick: &Pick) -> bool {
    entry.loaded.info().digest == pick.loaded.info().digest
}

fn labels(info: &PluginInfo) -> PluginInfoLabels {
    PluginInfoLabels { plugin: info.name.to_string(), digest: info.digest.to_string(), lane: info.lane.as_str() }
}

fn chains(config: &Config) -> Vec<(&str, &[String])> {
    config.route.iter().map(|route| (route.path.as_str(), route.plugins.as_slice())).collect()
}
