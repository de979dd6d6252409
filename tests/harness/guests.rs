//! Hostile and odd plugins, written as WebAssembly text: no compiler for guests is needed to build them.

pub mod evil;

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A plugin that accepts every order, but for those with a member `mark`:
///
/// | mark | what happens |
/// |---|---|
/// | `trap` | runs into `unreachable` |
/// | `loop` | never returns |
/// | `memory` | takes memory until it gets none, then traps |
/// | `stack` | calls itself without end |
/// | `retry` | asks to be asked again, twice; the third attempt accepts |
/// | `wait` | asks to be asked again, always |
/// | `garbage` | answers with a sequence number that nobody asked about |
///
/// # Panics
///
/// When the text does not fit the contract in `plugin-sdk/wit`.
#[must_use]
pub fn marked() -> Vec<u8> {
    component(include_str!("guests/marked.wat"))
}

/// The same plugin after its author mended it: it accepts every order.
///
/// # Panics
///
/// As [`marked`].
#[must_use]
pub fn mended() -> Vec<u8> {
    let text = include_str!("guests/marked.wat");
    let found = "(return (i32.load8_u offset=8 (local.get $at)))";
    assert!(text.contains(found), "the plugin of marks looks for marks otherwise");
    component(&text.replace(found, "(return (i32.const 0))"))
}

/// The same plugin as another file: a version that behaves the same and has a digest of its own.
#[must_use]
pub fn version(mut plugin: Vec<u8>, number: u32) -> Vec<u8> {
    // A custom section: id, size, name, content.
    plugin.extend([0, 12, 7]);
    plugin.extend(b"version");
    plugin.extend(number.to_le_bytes());
    plugin
}

/// The plugin of marks, built for 1.1.0 with an import that has to be granted: it could count.
///
/// # Panics
///
/// As [`marked`].
#[must_use]
pub fn counting() -> Vec<u8> {
    let text = include_str!("guests/marked.wat").replace("@1.0.0", "@1.1.0");
    let import = "(module (import \"sluice:plugin/metrics@1.1.0\" \"count\" (func $count (param i32 i32 i32)))";
    component(&text.replacen("(module", import, 1))
}

/// Encodes the text of a core module as a component of the world `validator`, or of `enricher` where it speaks of 1.1.
///
/// # Panics
///
/// When the text does not fit the contract in `plugin-sdk/wit`.
#[must_use]
pub fn component(text: &str) -> Vec<u8> {
    let (version, world) = if text.contains("@1.1.0") { ("1.1.0", "enricher") } else { ("1.0.0", "validator") };
    let mut module = wat::parse_str(text).expect("the text is WebAssembly");
    let mut resolve = Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-sdk/wit").join(version);
    let (package, _) = resolve.push_dir(&contract).expect("the contract is there");
    let world = resolve.select_world(&[package], Some(world)).expect("the contract has this world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata");
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .expect("the module fits the contract")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_fit_the_contract() {
        assert!(marked().starts_with(b"\0asm"));
        assert_ne!(marked(), mended());
        assert_ne!(version(counting(), 1), version(marked(), 1));
    }
}
