//! Chooses the version of one plugin that serves next: what lies in the folder if it may and can, else what served.

use std::path::PathBuf;

use bytes::Bytes;
use tracing::warn;

use super::good::{Good, Kept, Record};
use super::look::Seen;
use super::report::{CandidateReport, State};
use super::trust::{Pins, check_signature};
use crate::config::Capability;
use crate::config::Config;
use crate::folder;
use crate::plugin::{
    LoadedPlugin, PluginError, PluginHost, PluginOrigin, PluginSource, Tables, UnusablePlugin, bundled,
};

/// What a choice is made from.
pub(super) struct Choice<'a> {
    pub(super) host: &'a PluginHost,
    pub(super) good: &'a Good,
    pub(super) config: &'a Config,
    pub(super) pins: &'a Pins,
    pub(super) tables: &'a Tables,
    pub(super) now: &'a str,
    pub(super) name: &'a str,
    /// What lies in the folder.
    pub(super) seen: &'a Seen,
    pub(super) record: &'a Record,
    /// What serves now, and what was last found wrong.
    pub(super) entry: Option<&'a Entry>,
    /// The operator asks for this plugin: what was refused before is tried again.
    pub(super) is_forced: bool,
}

/// A plugin that serves.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) loaded: LoadedPlugin,
    /// All that it was loaded with, besides its bytes.
    pub(super) settings: String,
    pub(super) record: Record,
    /// Since which generation this version serves.
    pub(super) generation: u64,
    pub(super) complaint: Option<Complaint>,
    /// What is wrong with the version that serves.
    pub(super) trouble: Option<String>,
}

/// A candidate that does not serve, and all that was looked at to say so.
#[derive(Debug, Clone)]
pub(super) struct Complaint {
    pub(super) fingerprint: String,
    pub(super) report: Box<CandidateReport>,
}

/// What serves next.
#[derive(Debug)]
pub(super) struct Pick {
    pub(super) loaded: LoadedPlugin,
    pub(super) settings: String,
    pub(super) kept: Kept,
    /// The bytes, where they are not kept yet.
    pub(super) bytes: Option<Bytes>,
    pub(super) complaint: Option<Complaint>,
}

/// Something that could serve.
struct Offer {
    kept: Kept,
    bytes: Bytes,
}

impl Choice<'_> {
    /// What serves next, or why nothing can.
    pub(super) fn pick(&self) -> Result<Pick, String> {
        let settings = self.settings();
        let complaint = match self.offer() {
            Ok(None) => None,
            Ok(Some(offer)) => match self.take(&offer, &settings) {
                Ok(loaded) => {
                    let bytes = offer.kept.file.is_some().then_some(offer.bytes);
                    return Ok(Pick { loaded, settings, kept: offer.kept, bytes, complaint: None });
                }
                Err(complaint) => Some(complaint),
            },
            Err(complaint) => Some(complaint),
        };
        let fallback = self.fall_back(&settings);
        let nothing = |reason: String| match &complaint {
            Some(complaint) => format!("plugin `{}`: {}", self.name, complaint.report.reason),
            None => format!("plugin `{}`: {reason}", self.name),
        };
        let (loaded, kept) = fallback.map_err(nothing)?;
        Ok(Pick { loaded, settings, kept, bytes: None, complaint })
    }

    /// What lies in the folder, or is bundled where nothing does and no file served before.
    fn offer(&self) -> Result<Option<Offer>, Complaint> {
        match self.seen {
            Seen::File { path, digest, bytes, signature } => {
                if bytes.is_empty() && *digest != folder::digest(bytes) {
                    // Looked at before; it is changing just now.
                    return self.entry.and_then(|entry| entry.complaint.clone()).map_or(Ok(None), Err);
                }
                let kept = self.kept(digest.clone(), Some(path.clone()), signature.clone());
                Ok(Some(Offer { kept, bytes: bytes.clone() }))
            }
            Seen::Unreadable { path, reason } => {
                let reason = format!("{} {reason}", path.display());
                Err(self.complain(None, State::Refused, "unreadable", reason, Vec::new(), &path.display().to_string()))
            }
            Seen::Missing if self.record.current.as_ref().is_some_and(|kept| kept.file.is_some()) => {
                let reason = format!(
                    "its file is gone; its last good version goes on serving until the file is back or `sluice plugin forget {}`",
                    self.name
                );
                Err(self.complain(None, State::Missing, "missing", reason, Vec::new(), ""))
            }
            Seen::Missing => {
                let found = bundled().into_iter().find(|(bundled, _)| *bundled == self.name);
                Ok(found.map(|(_, bytes)| Offer {
                    kept: self.kept(folder::digest(bytes), None, None),
                    bytes: Bytes::from_static(bytes),
                }))
            }
        }
    }

    fn kept(&self, digest: String, file: Option<PathBuf>, signature: Option<String>) -> Kept {
        let current = self.record.current.as_ref().filter(|kept| kept.digest == digest && kept.file == file);
        let since = current.map_or_else(|| self.now.to_owned(), |kept| kept.since.clone());
        let is_proven = current.is_some_and(|kept| kept.is_proven);
        Kept { digest, file, since, signature, is_proven }
    }

    /// Loads an offer, if it may come.
    fn take(&self, offer: &Offer, settings: &str) -> Result<LoadedPlugin, Complaint> {
        let Kept { digest, file, signature, .. } = &offer.kept;
        let pin = self.pins.check(self.name, digest).map_err(|distrust| distrust.reason);
        let fingerprint = format!("{digest} {settings} {signature:?} {pin:?} {:?}", self.config.plugins.signers);
        let known = self.entry.and_then(|entry| entry.complaint.as_ref());
        if let Some(complaint) = known.filter(|known| known.fingerprint == fingerprint && !self.is_forced) {
            return Err(complaint.clone());
        }
        let complain =
            |state, code, reason, missing| self.complain(Some(digest), state, code, reason, missing, &fingerprint);
        if let Some(withdrawn) = self.record.withdrawn.as_ref().filter(|withdrawn| withdrawn.digest == *digest)
            && !self.is_forced
        {
            let code = if withdrawn.by_operator { "rolled-back" } else { "faults" };
            return Err(complain(State::Withdrawn, code, withdrawn.reason.clone(), Vec::new()));
        }
        if file.is_some() {
            let is_signed = || check_signature(&offer.bytes, signature.as_deref(), &self.config.plugins.signers);
            let trusted = self.pins.check(self.name, digest).and_then(|()| is_signed());
            if let Err(distrust) = trusted {
                return Err(complain(State::Staged, distrust.code, distrust.reason, Vec::new()));
            }
        }
        if let Some(entry) = self.serving(digest, settings) {
            return Ok(entry.loaded.clone());
        }
        match self.load(&offer.kept, offer.bytes.clone()) {
            Ok(loaded) => Ok(loaded),
            Err(PluginError::Unusable { problem, .. }) => {
                if let UnusablePlugin::NotGranted { missing, .. } = &problem {
                    let missing = missing.iter().map(ToString::to_string).collect();
                    return Err(complain(State::Staged, "not-granted", problem.to_string(), missing));
                }
                Err(complain(State::Refused, "unusable", problem.to_string(), Vec::new()))
            }
            Err(error) => Err(complain(State::Refused, "unusable", error.to_string(), Vec::new())),
        }
    }

    /// What served, with the settings of now; at a start what is kept on disk.
    fn fall_back(&self, settings: &str) -> Result<(LoadedPlugin, Kept), String> {
        let pinned = self
            .pins
            .of(self.name)
            .and_then(|pin| self.record.previous.as_ref().filter(|previous| previous.digest == pin));
        if let Some(pinned) = pinned
            && let Ok(loaded) = self.load_kept(pinned)
        {
            return Ok((loaded, Kept { since: self.now.to_owned(), ..pinned.clone() }));
        }
        if let Some(entry) = self.entry
            && let Some(kept) = entry.record.current.clone()
        {
            if entry.settings == settings {
                return Ok((entry.loaded.clone(), kept));
            }
            return self.load_kept(&kept).map(|loaded| (loaded, kept));
        }
        let is_good = |kept: &&Kept| self.record.withdrawn.as_ref().is_none_or(|bad| bad.digest != kept.digest);
        let mut nothing = "there is neither a file nor an earlier version of it".to_owned();
        for kept in [&self.record.current, &self.record.previous].into_iter().flatten().filter(is_good) {
            match self.load_kept(kept) {
                Ok(loaded) => return Ok((loaded, kept.clone())),
                Err(reason) => {
                    warn!(plugin = self.name, "an earlier version of plugin `{}` cannot serve: {reason}", self.name);
                    nothing = reason;
                }
            }
        }
        Err(nothing)
    }

    /// Loads a version that is kept.
    pub(super) fn load_kept(&self, kept: &Kept) -> Result<LoadedPlugin, String> {
        let bytes = match &kept.file {
            None => {
                let own = bundled().into_iter().find(|(bundled, _)| *bundled == self.name);
                let same = own.filter(|(_, bytes)| folder::digest(bytes) == kept.digest);
                same.map(|(_, bytes)| Bytes::from_static(bytes))
                    .ok_or("that bundled version is not part of this program")?
            }
            Some(_) => {
                let bytes = self.good.bytes(self.name, kept, self.config.plugins.file_bytes_max.0)?;
                // Who signed it may have lost our trust since.
                let signed = check_signature(&bytes, kept.signature.as_deref(), &self.config.plugins.signers);
                signed.map_err(|distrust| distrust.reason)?;
                bytes
            }
        };
        self.load(kept, bytes).map_err(|error| error.to_string())
    }

    /// All of the configuration that loading this plugin depends on.
    pub(super) fn settings(&self) -> String {
        let mut tree = toml::Table::try_from(&self.config.plugins).unwrap_or_default();
        for key in ["dir", "poll_interval", "signers", "state_dir"] {
            tree.remove(key);
        }
        for key in ["config", "policy"] {
            if let Some(table) = tree.get_mut(key).and_then(toml::Value::as_table_mut) {
                table.retain(|plugin, _| plugin == self.name);
            }
        }
        let policy = self.config.plugins.policy.get(self.name);
        // To the others it is the same whatever the tables hold.
        let has_tables = policy.is_some_and(|policy| policy.is_granted(Capability::Lookup));
        if has_tables { format!("{tree}\ntables {}", self.tables.number()) } else { tree.to_string() }
    }

    fn serving(&self, digest: &str, settings: &str) -> Option<&Entry> {
        self.entry.filter(|entry| *entry.loaded.info().digest == *digest && entry.settings == settings)
    }

    fn load(&self, kept: &Kept, component: Bytes) -> Result<LoadedPlugin, PluginError> {
        let plugins = &self.config.plugins;
        let table = plugins.config.get(self.name).cloned().unwrap_or_default();
        // Everything in the table came from TOML.
        let config_json = serde_json::to_vec(&table).unwrap_or_default();
        let origin = kept.file.clone().map_or(PluginOrigin::Bundled, PluginOrigin::File);
        let policy = plugins.policy.get(self.name).cloned().unwrap_or_default();
        let tables = self.tables.clone();
        let source = PluginSource { name: self.name.to_owned(), origin, component, config_json, policy, tables };
        self.host.load(plugins, source)
    }

    fn complain(
        &self,
        digest: Option<&str>,
        state: State,
        code: &'static str,
        reason: String,
        missing_grants: Vec<String>,
        fingerprint: &str,
    ) -> Complaint {
        let before = self.entry.and_then(|entry| entry.complaint.as_ref()).map(|complaint| &complaint.report);
        let same = before.filter(|report| report.digest.as_deref() == digest && report.code == code);
        let since = same.map_or_else(|| self.now.to_owned(), |report| report.since.clone());
        let report = CandidateReport { digest: digest.map(str::to_owned), state, code, reason, missing_grants, since };
        Complaint { fingerprint: fingerprint.to_owned(), report: Box::new(report) }
    }
}
