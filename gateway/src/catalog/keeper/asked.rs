//! What the thread does when it is asked.

use std::time::Instant;

use tracing::{info, warn};

use super::configuration::result;
use super::{Keeper, UNSTABLE_LOOKS_MAX};
use crate::catalog::choose::{Choice, Pick};
use crate::catalog::good::{Record, Withdrawn};
use crate::catalog::look::Seen;
use crate::catalog::trust::LOCK;
use crate::catalog::{Ask, Refusal};
use crate::folder;

impl Keeper {
    /// Does what was asked; whether what it saw was stable.
    pub(super) fn answer(&mut self, ask: Ask, must: bool) -> bool {
        let (done, answer) = match ask {
            Ask::Hint => return self.look(None, must),
            Ask::Withdraw { name, digest, why } => {
                self.withdraw(&name, &digest, why);
                return true;
            }
            Ask::Reload { name, answer } => (self.reload(name.as_deref()), answer),
            Ask::RollBack { name, answer } => {
                let why = "the operator put the version before it back".to_owned();
                (self.roll_back(&name, why, true), answer)
            }
            Ask::Pin { name, digest, answer } => (self.pin(&name, digest), answer),
            Ask::Forget { name, answer } => (self.forget(&name), answer),
        };
        // Whoever asked may have gone.
        drop(answer.send(done));
        true
    }

    fn reload(&mut self, name: Option<&str>) -> Result<(), Refusal> {
        if let Some(name) = name.filter(|name| !self.entries.contains_key(*name)) {
            return Err(Refusal::Unknown(name.to_owned()));
        }
        self.look_until_stable(name);
        Ok(())
    }

    fn look_until_stable(&mut self, forced: Option<&str>) {
        for look in 0..=UNSTABLE_LOOKS_MAX {
            if self.look(forced, look == UNSTABLE_LOOKS_MAX) {
                return;
            }
        }
    }

    /// Puts the previous version in the place of the present one, which does not come back by itself.
    fn roll_back(&mut self, name: &str, why: String, by_operator: bool) -> Result<(), Refusal> {
        let start = Instant::now();
        let entry = self.entries.get(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        let record = entry.record.clone();
        let nothing = || Refusal::State(format!("there is no earlier version of plugin `{name}`"));
        let (current, target) = record.current.zip(record.previous).ok_or_else(nothing)?;
        let now = self.clock.now().to_string();
        let bare = Record::default();
        let choice = Choice {
            host: &self.host,
            good: &self.good,
            config: &self.config,
            pins: &self.pins,
            tables: &self.tables,
            now: &now,
            name,
            seen: &Seen::Missing,
            record: &bare,
            entry: None,
            is_forced: false,
        };
        let loaded = choice.load_kept(&target);
        let loaded = loaded.map_err(|reason| {
            Refusal::State(format!("the earlier version of plugin `{name}` cannot serve: {reason}"))
        })?;
        let settings = choice.settings();
        let kept = crate::catalog::good::Kept { since: now.clone(), ..target };
        let withdrawn = Withdrawn { digest: current.digest.clone(), by_operator, reason: why.clone(), since: now };
        let complaint = entry.complaint.clone();
        info!(plugin = name, from = current.digest, to = kept.digest, "plugin `{name}` is rolled back: {why}");
        let mut picks = self.same();
        picks.insert(name.to_owned(), Pick { loaded, settings, kept, bytes: None, complaint });
        self.publish(None, picks, Some(start));
        if let Some(entry) = self.entries.get_mut(name) {
            entry.record.previous = None;
            entry.record.withdrawn = Some(withdrawn);
            let record = entry.record.clone();
            self.keep(name, &record, None);
        }
        self.metrics.plugin_reloads.get_or_create(&result("rolled-back")).inc();
        // So that what lies in the folder is told as withdrawn.
        self.look_until_stable_again();
        Ok(())
    }

    /// What serves, chosen again.
    fn same(&self) -> super::Picks {
        let pick = |(name, entry): (&String, &crate::catalog::choose::Entry)| {
            let kept = entry.record.current.clone()?;
            let (loaded, settings, complaint) = (entry.loaded.clone(), entry.settings.clone(), entry.complaint.clone());
            Some((name.clone(), Pick { loaded, settings, kept, bytes: None, complaint }))
        };
        self.entries.iter().filter_map(pick).collect()
    }

    /// Looks although nothing changed: what is known of the present files is judged anew.
    fn look_until_stable_again(&mut self) {
        self.settled.files.clear();
        self.look_until_stable(None);
        self.tell();
    }

    /// Takes a version out of service that faults too often.
    fn withdraw(&mut self, name: &str, digest: &str, why: String) {
        let is_serving = self.entries.get(name).is_some_and(|entry| *entry.loaded.info().digest == *digest);
        if !is_serving {
            return;
        }
        warn!(plugin = name, digest, "plugin `{name}` faults too often: {why}");
        if let Err(refusal) = self.roll_back(name, why.clone(), false) {
            warn!(plugin = name, digest, "plugin `{name}` stays, its orders are held: {refusal}");
            if let Some(entry) = self.entries.get_mut(name) {
                entry.trouble = Some(format!("it faults too often ({why}), and {refusal}"));
            }
            self.metrics.plugin_reloads.get_or_create(&result("no-earlier-version")).inc();
            self.tell();
        }
    }

    fn pin(&mut self, name: &str, digest: Option<String>) -> Result<(), Refusal> {
        let entry = self.entries.get(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        let digest = digest.unwrap_or_else(|| entry.loaded.info().digest.to_string());
        let is_digest = digest.strip_prefix("sha256:").is_some_and(|digits| {
            digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        });
        if !is_digest {
            return Err(Refusal::State(format!("`{digest}` is no digest: expected sha256: and 64 hexadecimal digits")));
        }
        let path = self.config.plugins.dir.join(LOCK);
        let text = self.pins.with(name, &digest).map_err(Refusal::State)?;
        let written = std::fs::create_dir_all(&self.config.plugins.dir)
            .and_then(|()| folder::write(&path, text.as_bytes(), 0o644));
        written.map_err(|error| Refusal::State(format!("{} cannot be written: {error}", path.display())))?;
        info!(plugin = name, digest, "plugin `{name}` is pinned to {digest}");
        self.look_until_stable(None);
        Ok(())
    }

    fn forget(&mut self, name: &str) -> Result<(), Refusal> {
        let entry = self.entries.get_mut(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        let is_gone = matches!(self.settled.files.get(name), None | Some(Seen::Missing));
        if !is_gone {
            return Err(Refusal::State(format!("the file of plugin `{name}` is there: remove it first")));
        }
        let record = std::mem::take(&mut entry.record);
        let complaint = entry.complaint.take();
        self.look_until_stable_again();
        let is_done = self.entries.get(name).is_some_and(|entry| entry.record.current.is_some());
        if is_done {
            return Ok(());
        }
        if let Some(entry) = self.entries.get_mut(name) {
            (entry.record, entry.complaint) = (record, complaint);
        }
        self.tell();
        Err(Refusal::State(format!(
            "plugin `{name}` is not bundled, so nothing else could serve: take it out of the routes first"
        )))
    }
}
