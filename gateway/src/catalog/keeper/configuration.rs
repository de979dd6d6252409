//! The configuration file of a running node: read again, and what of it can be taken over.

use tracing::warn;

use super::Keeper;
use crate::catalog::look::{Seen, Sight};
use crate::config::{Config, hot};

impl Keeper {
    /// What the node should run with from now on, if the file says something else than before.
    pub(super) fn read_configuration(&mut self, sight: &Sight) -> Option<Config> {
        let is_new = sight.config != self.settled.config || sight.tables != self.settled.tables;
        if !is_new && self.config_problems.is_empty() {
            return None;
        }
        let path = &self.config_path;
        let read = match &sight.config {
            Seen::File { bytes, .. } => Config::from_bytes(Some((path, bytes))),
            // It never was there: the defaults and the environment alone.
            Seen::Missing if matches!(self.settled.config, Seen::Missing) => Config::from_bytes(None),
            Seen::Missing => {
                self.complain_of_configuration(vec![format!("{} is gone", path.display())]);
                return None;
            }
            Seen::Unreadable { reason, .. } => {
                self.complain_of_configuration(vec![format!("{} {reason}", path.display())]);
                return None;
            }
        };
        let lines = |problems: &[crate::config::Problem]| problems.iter().map(ToString::to_string).collect();
        let wanted = match read {
            Ok(wanted) => wanted,
            Err(errors) => {
                self.complain_of_configuration(lines(&errors.problems));
                return None;
            }
        };
        let changes = hot::changes(&self.config, &wanted);
        match hot::take_over(&self.config, &wanted) {
            Ok(taken) => {
                match self.tables.refresh(&taken.plugins) {
                    Ok(tables) => self.tables = tables,
                    Err(errors) => {
                        self.complain_of_configuration(errors.iter().map(ToString::to_string).collect());
                        return None;
                    }
                }
                self.note_restart_keys(changes.restart);
                self.config_problems.clear();
                (!changes.hot.is_empty()).then_some(taken)
            }
            Err(problems) => {
                let mut problems: Vec<String> = lines(&problems);
                if !changes.restart.is_empty() {
                    problems.push(format!("these keys need a restart: {}", changes.restart.join(", ")));
                }
                self.complain_of_configuration(problems);
                None
            }
        }
    }

    /// Notes that nothing of the file is taken over, and why.
    pub(super) fn complain_of_configuration(&mut self, problems: Vec<String>) {
        if problems != self.config_problems {
            let said = problems.join("; ");
            warn!("the configuration is left as it is, the file has {} problem(s): {said}", problems.len());
            self.metrics.config_reloads.get_or_create(&result("refused")).inc();
        }
        self.config_problems = problems;
    }

    fn note_restart_keys(&mut self, keys: Vec<String>) {
        if !keys.is_empty() && keys != self.restart_keys {
            warn!("these keys of the configuration were changed and need a restart: {}", keys.join(", "));
            self.metrics.config_reloads.get_or_create(&result("needs-restart")).inc();
        }
        self.restart_keys = keys;
    }
}

pub(super) fn result(result: &'static str) -> crate::telemetry::metrics::ResultLabel {
    crate::telemetry::metrics::ResultLabel { result }
}
