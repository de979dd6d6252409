//! Tells what kind of file a plugin is and makes of it what the engine compiles, or says precisely why it is none.
//!
//! Everything here works on bytes alone: no engine, no gateway, nothing of the plugin runs.

mod componentize;
mod shape;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::load::UnusablePlugin;
use super::manifest::Manifest;
use shape::{CoreShape, Sections};
pub(super) use shape::{PREVIEW1, Shape};

/// What every plugin of the contract's interfaces exports, of any version 1.x.
pub(super) const EXPORTS: [&str; 2] = ["sluice:plugin/lifecycle", "sluice:plugin/processor"];

/// What it may import, of any version 1.x, besides WASI.
pub(super) const IMPORTS: [&str; 4] =
    ["sluice:plugin/log", "sluice:plugin/lookup", "sluice:plugin/metrics", "sluice:plugin/types"];

/// What a module of the bytes ABI exports.
const BYTES_EXPORTS: [(&str, &str); 3] =
    [("memory", "memory"), ("sluice_alloc", "(i32) -> i32"), ("sluice_process", "(i32, i32) -> i64")];

/// The way a plugin takes into the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// A component, used as it is.
    Component,
    /// A core module of the contract's interfaces, made a component when it is loaded.
    Module,
    /// A core module with the bytes ABI.
    Bytes,
}

impl Lane {
    /// Its name in reports and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Module => "module",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A plugin's file, ready for the compiler.
#[derive(Debug)]
pub(super) struct Prepared<'file> {
    pub(super) lane: Lane,
    /// A component, or a core module in the bytes lane.
    pub(super) wasm: Cow<'file, [u8]>,
    pub(super) shape: Shape,
    pub(super) manifest: Option<Manifest>,
}

/// An interface without its version, where that is one we know.
pub(super) fn interface(name: &str) -> &str {
    match name.split_once('@') {
        Some((interface, version)) if version.starts_with("1.") => interface,
        _ => name,
    }
}

/// Whether an import is part of WASI, which plugins get in a form that denies everything.
pub(super) fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:") || import.starts_with(PREVIEW1)
}

/// Finds the lane of a file and prepares it.
pub(super) fn prepare(file: &[u8]) -> Result<Prepared<'_>, UnusablePlugin> {
    let prepared = unchecked(file)?;
    check(&prepared)?;
    Ok(prepared)
}

/// As [`prepare`], but what it imports and exports at the end has not been looked at.
pub(super) fn unchecked(file: &[u8]) -> Result<Prepared<'_>, UnusablePlugin> {
    let wasm = binary(file)?;
    let sections = Sections::read(&wasm)?;
    let manifest = sections.manifest.as_deref().map(Manifest::parse).transpose().map_err(UnusablePlugin::Manifest)?;
    let Some(core) = sections.core else {
        let shape = shape::of_component(&wasm)?;
        return Ok(Prepared { lane: Lane::Component, wasm, shape, manifest });
    };
    if core.has_metadata || core.speaks_contract() {
        let wasm = componentize::componentize(&wasm, &core)?;
        let shape = shape::of_component(&wasm)?;
        return Ok(Prepared { lane: Lane::Module, wasm: Cow::Owned(wasm), shape, manifest });
    }
    if core.exports.iter().any(|(name, _)| name.starts_with("sluice_")) {
        return Ok(Prepared { lane: Lane::Bytes, wasm, shape: core.shape(), manifest });
    }
    let names = |pairs: Vec<String>| if pairs.is_empty() { "nothing".to_owned() } else { pairs.join(", ") };
    let shape = core.shape();
    Err(UnusablePlugin::NoLane { imports: names(shape.imports), exports: names(shape.exports) })
}

/// WebAssembly in binary, also of text.
fn binary(file: &[u8]) -> Result<Cow<'_, [u8]>, UnusablePlugin> {
    if file.starts_with(b"\0asm") {
        return Ok(Cow::Borrowed(file));
    }
    if file.starts_with(b"\x7fELF") {
        return Err(UnusablePlugin::Compiled);
    }
    let text = std::str::from_utf8(file).ok().map(str::trim_start);
    if text.is_some_and(|text| text.starts_with('(') || text.starts_with(";;")) {
        return wat::parse_bytes(file).map_err(|error| UnusablePlugin::Text(one_line(&error.to_string())));
    }
    let found = match &file[..file.len().min(8)] {
        [] => "nothing".to_owned(),
        first => first.escape_ascii().to_string(),
    };
    Err(UnusablePlugin::NotWasm { found })
}

/// Sees to it that a plugin imports and exports what it may and must.
pub(super) fn check(prepared: &Prepared<'_>) -> Result<(), UnusablePlugin> {
    if prepared.lane == Lane::Bytes {
        return check_bytes(&prepared.wasm);
    }
    let Shape { imports, exports } = &prepared.shape;
    let is_known = |name: &&String| IMPORTS.contains(&interface(name)) || is_wasi(name);
    let found: Vec<_> = imports.iter().filter(|name| !is_known(name)).cloned().collect();
    if !found.is_empty() {
        return Err(UnusablePlugin::Imports { found });
    }
    match EXPORTS.into_iter().find(|expected| !exports.iter().any(|name| interface(name) == *expected)) {
        Some(missing) => Err(UnusablePlugin::Exports { missing: missing.to_owned(), found: exports.clone() }),
        None => Ok(()),
    }
}

fn check_bytes(wasm: &[u8]) -> Result<(), UnusablePlugin> {
    let Some(core) = Sections::read(wasm)?.core else { return Ok(()) };
    for (name, expected) in BYTES_EXPORTS {
        match core.exports.iter().find(|(own, _)| own == name) {
            Some((_, found)) if found == expected => {}
            Some((_, found)) => {
                let detail = format!("it exports `{name}` as {found}, expected {expected}");
                return Err(UnusablePlugin::BytesAbi(detail));
            }
            None => {
                let exports: Vec<_> = core.exports.iter().map(|(name, _)| name.as_str()).collect();
                let detail = format!("it does not export `{name}` ({expected}); it exports {}", exports.join(", "));
                return Err(UnusablePlugin::BytesAbi(detail));
            }
        }
    }
    if let Some((_, found)) = core.exports.iter().find(|(name, ty)| name == "_initialize" && ty != "() -> ()") {
        return Err(UnusablePlugin::BytesAbi(format!("it exports `_initialize` as {found}, expected () -> ()")));
    }
    for (module, name, found) in &core.imports {
        let expected = match (module.as_str(), name.as_str()) {
            ("sluice", "log") => Some("(i32, i32, i32) -> ()".to_owned()),
            ("env", "abort") => Some("(i32, i32, i32, i32) -> ()".to_owned()),
            (PREVIEW1, name) => super::stub::preview1::signature(name),
            _ => None,
        };
        let Some(expected) = expected else {
            let detail = format!(
                "it imports `{module}.{name}`, which it cannot have; it may import sluice.log, env.abort and the \
                 functions of {PREVIEW1}"
            );
            return Err(UnusablePlugin::BytesAbi(detail));
        };
        if *found != expected {
            let detail = format!("it imports `{module}.{name}` as {found}, expected {expected}");
            return Err(UnusablePlugin::BytesAbi(detail));
        }
    }
    Ok(())
}

/// Refuses what a core module imports of WASI and nobody has.
fn check_preview1(core: &CoreShape) -> Result<(), UnusablePlugin> {
    let is_unknown = |module: &str, name: &str| module == PREVIEW1 && super::stub::preview1::signature(name).is_none();
    let unknown = core.imports.iter().filter(|(module, name, _)| is_unknown(module, name));
    let found: Vec<_> = unknown.map(|(module, name, _)| format!("{module}.{name}")).collect();
    if found.is_empty() { Ok(()) } else { Err(UnusablePlugin::Imports { found }) }
}

/// The message of an error on one line: its first, and where in a text it happened.
fn one_line(error: &str) -> String {
    let message = error.lines().next().unwrap_or_default();
    match error.split_once("<anon>:").and_then(|(_, rest)| rest.lines().next()?.trim().split_once(':')) {
        Some((line, column)) => format!("{message} (line {line}, column {column})"),
        None => message.to_owned(),
    }
}
