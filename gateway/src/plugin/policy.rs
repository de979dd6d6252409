//! What the operator lets a plugin do: grants against imports, and the places of orders it may change.

use super::lane::interface;
use crate::config::{Capability, PluginPolicy};
use crate::order::json::JsonPointer;
use crate::order::patch::PatchOp;

impl PluginPolicy {
    /// What is needed for these imports and not granted; each once. Imports that no plugin can have need nothing.
    #[must_use]
    pub fn missing_grants(&self, imports: &[String]) -> Vec<Capability> {
        let mut missing: Vec<Capability> = imports
            .iter()
            .filter_map(|import| capability(import))
            .filter(|capability| !self.is_granted(*capability))
            .collect();
        missing.sort_unstable_by_key(|capability| capability.as_str());
        missing.dedup();
        missing
    }

    /// Whether the plugin may call this. `log` every plugin may.
    #[must_use]
    pub fn is_granted(&self, capability: Capability) -> bool {
        capability == Capability::Log || self.grants.contains(&capability)
    }
}

/// What an import is of, if it is of the gateway's own functions.
fn capability(import: &str) -> Option<Capability> {
    match interface(import) {
        "sluice:plugin/log" => Some(Capability::Log),
        "sluice:plugin/metrics" => Some(Capability::Metrics),
        "sluice:plugin/lookup" => Some(Capability::Lookup),
        _ => None,
    }
}

/// Where a plugin may change orders.
#[derive(Debug, Clone)]
pub(super) struct PatchPaths(Option<Vec<JsonPointer>>);

impl PatchPaths {
    /// The operator's word counts before the author's; with neither, anywhere.
    pub(super) fn new(policy: &PluginPolicy, manifest: Option<&[String]>) -> Self {
        let paths = policy.patch.as_deref().or(manifest);
        // Both are checked where they come from. One that is no pointer all the same allows nothing.
        Self(paths.map(|paths| paths.iter().filter_map(|path| path.parse().ok()).collect()))
    }

    /// Whether an operation stays inside: at an allowed place, or below one. Above it, it would change more than that.
    pub(super) fn check(&self, op: &PatchOp) -> Result<(), String> {
        let Some(allowed) = &self.0 else { return Ok(()) };
        let (word, pointer) = match op {
            PatchOp::Set { pointer, .. } => ("sets", pointer),
            PatchOp::Remove { pointer } => ("removes", pointer),
        };
        let place: Option<JsonPointer> = pointer.parse().ok();
        let is_inside =
            place.is_some_and(|place| allowed.iter().any(|allowed| place.tokens().starts_with(allowed.tokens())));
        if is_inside {
            return Ok(());
        }
        let places = if allowed.is_empty() {
            "nowhere".to_owned()
        } else {
            let places: Vec<_> = allowed.iter().map(|path| format!("`{path}`")).collect();
            format!("only at or below {}", places.join(", "))
        };
        Err(format!("its patch {word} `{}`; it may change orders {places}", pointer.escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn what_is_imported_and_not_granted_is_named_once() {
        let imports = texts(&[
            "sluice:plugin/types@1.1.0",
            "sluice:plugin/metrics@1.1.0",
            "sluice:plugin/lookup@1.1.0",
            "sluice:plugin/log@1.0.0",
            "sluice:plugin/lookup@1.2.0",
            "wasi:clocks/wall-clock@0.2.0",
        ]);
        let nothing = PluginPolicy::default();
        assert_eq!(nothing.missing_grants(&imports), [Capability::Lookup, Capability::Metrics]);
        let some = PluginPolicy { grants: vec![Capability::Lookup], ..nothing };
        assert_eq!(some.missing_grants(&imports), [Capability::Metrics]);
        assert_eq!(some.missing_grants(&imports[..1]), []);
    }

    #[test]
    fn a_place_is_allowed_with_all_below_and_nothing_above() {
        let policy = PluginPolicy { patch: Some(texts(&["/totals", "/a~1b/c"])), ..PluginPolicy::default() };
        let manifest = texts(&["/lines"]);
        let paths = PatchPaths::new(&policy, Some(&manifest));
        let set = |pointer: &str| paths.check(&PatchOp::set(pointer.to_owned(), b"{}").unwrap());
        for inside in ["/totals", "/totals/net", "/totals/-", "/a~1b/c", "/a~1b/c/d"] {
            assert_eq!(set(inside), Ok(()), "{inside}");
        }
        for outside in ["/totals2", "/lines", "/a~1b", "/a/b/c", "/Totals", "/totals~0"] {
            assert!(set(outside).is_err(), "{outside}");
        }
        let error = paths.check(&PatchOp::remove("/lines/0".to_owned()).unwrap()).unwrap_err();
        assert_eq!(error, "its patch removes `/lines/0`; it may change orders only at or below `/totals`, `/a~1b/c`");
    }

    #[test]
    fn the_operator_is_heard_before_the_author() {
        let policy = |patch: Option<&[&str]>| PluginPolicy { patch: patch.map(texts), ..PluginPolicy::default() };
        let op = PatchOp::remove("/lines".to_owned()).unwrap();
        let manifest = texts(&["/lines"]);
        assert_eq!(PatchPaths::new(&policy(None), None).check(&op), Ok(()));
        assert_eq!(PatchPaths::new(&policy(None), Some(&manifest)).check(&op), Ok(()));
        assert_eq!(PatchPaths::new(&policy(Some(&[""])), Some(&texts(&["/x"]))).check(&op), Ok(()));
        let error = PatchPaths::new(&policy(Some(&[])), Some(&manifest)).check(&op).unwrap_err();
        assert_eq!(error, "its patch removes `/lines`; it may change orders nowhere");
    }
}
