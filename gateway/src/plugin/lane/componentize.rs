//! Makes a component of a core module that carries our interfaces' types, or has their names.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::shape::{CoreShape, PREVIEW1};
use super::{UnusablePlugin, check_preview1};
use crate::plugin::stub::preview1;

/// The published versions of the contract: number, text, and the world that has all that a plugin may import.
const CONTRACTS: [(&str, &str, &str); 2] = [
    ("1.0.0", include_str!("../../../../plugin-sdk/wit/1.0.0/plugin.wit"), "validator"),
    ("1.1.0", include_str!("../../../../plugin-sdk/wit/1.1.0/plugin.wit"), "enricher"),
];

/// Encodes a core module as a component. Whether that exports anything is another question.
pub(super) fn componentize(wasm: &[u8], core: &CoreShape) -> Result<Vec<u8>, UnusablePlugin> {
    check_preview1(core)?;
    let mut module = wasm.to_vec();
    if !core.has_metadata {
        embed(&mut module, core)?;
    }
    let encode = || {
        let encoder = ComponentEncoder::default()
            .validate(true)
            // A language's own allocator may not be ready before `_initialize`.
            .realloc_via_memory_grow(true)
            .module(&module)?;
        let needs_adapter = core.imports.iter().any(|(module, _, _)| module == PREVIEW1);
        let mut encoder = if needs_adapter { encoder.adapter(PREVIEW1, &preview1::adapter()?)? } else { encoder };
        encoder.encode()
    };
    encode().map_err(|error| UnusablePlugin::Componentize(format!("{error:#}")))
}

/// Adds the contract's types to a module that only has its names.
fn embed(module: &mut Vec<u8>, core: &CoreShape) -> Result<(), UnusablePlugin> {
    let version = core.contract_exports().find_map(|(interface, _)| Some(interface.split_once('@')?.1));
    let found = CONTRACTS.iter().find(|(number, _, _)| version == Some(number));
    let Some((number, text, world)) = found else {
        let known: Vec<_> = CONTRACTS.iter().map(|(number, _, _)| *number).collect();
        return Err(UnusablePlugin::Componentize(format!(
            "it is of version {} of the contract and does not carry its types, which are known for {}",
            version.unwrap_or("none"),
            known.join(" and ")
        )));
    };
    let mut add = || {
        let mut resolve = Resolve::default();
        let package = resolve.push_source("plugin.wit", text)?;
        let world = resolve.select_world(&[package], Some(world))?;
        embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
    };
    add().map_err(|error| UnusablePlugin::Componentize(format!("the contract {number}: {error:#}")))
}
