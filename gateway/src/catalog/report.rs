//! How the catalog stands, for the operator.

use std::sync::Arc;

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Counts the generations of this process, from 1.
    pub generation: u64,
    pub plugins: Vec<PluginReport>,
    /// What is wrong with the configuration file as it is now; nothing of it is in force.
    pub configuration_problems: Vec<String>,
    /// Keys that were changed in the file and need a restart.
    pub restart_keys: Vec<String>,
}

/// One plugin that a route names.
#[derive(Debug, Clone)]
pub struct PluginReport {
    pub name: String,
    pub serving: Version,
    pub lane: &'static str,
    /// What it imports.
    pub capabilities: Arc<[String]>,
    /// What it may import.
    pub grants: Vec<String>,
    pub bytes: usize,
    /// Since which generation this version serves.
    pub generation: u64,
    /// Routes whose chain has it.
    pub routes: Vec<String>,
    /// What lies in the folder and does not serve.
    pub candidate: Option<CandidateReport>,
    /// The version that a roll back would put in place.
    pub previous: Option<Version>,
    /// The digest that `plugins.lock` names.
    pub pin: Option<String>,
    /// What is wrong with the version that serves.
    pub trouble: Option<String>,
}

/// A version of a plugin that served or serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// `bundled`, or the path of the file.
    pub origin: String,
    /// When it began to serve.
    pub since: String,
}

/// What lies in the folder and does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateReport {
    /// Absent where nothing could be read.
    pub digest: Option<String>,
    pub state: State,
    /// What is wrong, for programs: `not-granted`, `not-pinned`, `not-signed`, `bad-signature`, `unknown-key`, `unusable`,
    /// `unreadable`, `missing`, `rolled-back`, `faults`.
    pub code: &'static str,
    /// What is wrong, for people.
    pub reason: String,
    /// Imports that are not granted.
    pub missing_grants: Vec<String>,
    pub since: String,
}

/// Why a candidate does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits for the operator's word: a grant, a pin, a signature.
    Staged,
    /// It cannot be used.
    Refused,
    /// It served and was taken out.
    Withdrawn,
    /// The file is gone.
    Missing,
}

impl State {
    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
            Self::Missing => "missing",
        }
    }
}

impl Report {
    /// What the operator should know of, one line each; nothing if all is well.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let plugins = self.plugins.iter().filter_map(|plugin| {
            let candidate = plugin.candidate.as_ref()?;
            let (name, state, code) = (&plugin.name, candidate.state.as_str(), candidate.code);
            Some(format!("plugin `{name}`: {state} ({code}): {}", candidate.reason))
        });
        let troubles = self
            .plugins
            .iter()
            .filter_map(|plugin| plugin.trouble.as_ref().map(|trouble| format!("plugin `{}`: {trouble}", plugin.name)));
        plugins.chain(troubles).collect()
    }
}
