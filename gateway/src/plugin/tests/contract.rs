//! What may change in the contract between 1.0.0 and later 1.x: nothing that a plugin built for an earlier one would notice.

use wit_parser::{Resolve, WorldId};

const PUBLISHED: &str = include_str!("../../../../plugin-sdk/wit/1.0.0/plugin.wit");
const CURRENT: &str = include_str!("../../../../plugin-sdk/wit/1.1.0/plugin.wit");

/// The text of 1.0.0 as it was published.
const PUBLISHED_DIGEST: &str = "sha256:e5a4513cfbf95a3af02a6962df25e9fa3ec603dc63c6dcf680055833216beb9f";

/// Whether plugins built for a world of the earlier text can be run by who has the same world of the later one.
fn is_compatible(earlier: &str, later: &str, world: &str) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let mut of = |text: &str| -> WorldId {
        let package = resolve.push_str("plugin.wit", text).unwrap();
        resolve.select_world(&[package], Some(world)).unwrap()
    };
    let (earlier, later) = (of(earlier), of(later));
    wit_component::semver_check(resolve, earlier, later).map_err(|error| format!("{error:#}"))
}

#[test]
fn the_published_contract_is_never_edited() {
    assert_eq!(*super::super::load::digest(PUBLISHED.as_bytes()), *PUBLISHED_DIGEST);
}

#[test]
fn plugins_built_for_the_published_contract_fit_the_current_one() {
    for world in ["validator", "enricher"] {
        is_compatible(PUBLISHED, CURRENT, world).unwrap();
    }
}

#[test]
fn a_change_that_breaks_plugins_is_caught() {
    for (found, changed) in [
        ("attempt: u32,", "attempt: u32,\n    priority: u32,"),
        ("    /// The order may pass as it is.\n    accept,", "    perhaps,\n    accept,"),
        ("enum level { debug, info, warn, error }", "enum level { debug, info, warn, error, fatal }"),
        ("configure: func(config: list<u8>)", "configure: func(config: string)"),
    ] {
        assert!(CURRENT.contains(found), "{found}");
        assert!(is_compatible(PUBLISHED, &CURRENT.replace(found, changed), "validator").is_err(), "{changed}");
    }
}
