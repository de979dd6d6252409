//! Reads what a WebAssembly file imports, exports and carries along, without compiling it.

use std::fmt::Write;

use wasmparser::types::{EntityType, TypesRef};
use wasmparser::{BinaryReaderError, Encoding, Parser, Payload, Validator, WasmFeatures};

use super::{Lane, UnusablePlugin};
use crate::plugin::manifest;

/// The module that preview 1 of WASI is imported from.
pub(in crate::plugin) const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Names on the outside of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::plugin) struct Shape {
    pub(in crate::plugin) imports: Vec<String>,
    pub(in crate::plugin) exports: Vec<String>,
}

impl Shape {
    /// The contract's version that the plugin was built for.
    pub(in crate::plugin) fn contract(&self, lane: Lane) -> Option<String> {
        if lane == Lane::Bytes {
            return Some("bytes-abi@1".to_owned());
        }
        let mut names = self.exports.iter().filter(|name| super::EXPORTS.contains(&super::interface(name)));
        names.next().and_then(|name| name.split_once('@')).map(|(_, version)| format!("sluice:plugin@{version}"))
    }
}

/// What stands in the sections of a file.
pub(super) struct Sections {
    /// If it is a core module.
    pub(super) core: Option<CoreShape>,
    /// The bytes of the manifest: the outermost one.
    pub(super) manifest: Option<Vec<u8>>,
}

/// Names and types on the outside of a core module.
#[derive(Default)]
pub(super) struct CoreShape {
    /// Module, name, type.
    pub(super) imports: Vec<(String, String, String)>,
    /// Name, type.
    pub(super) exports: Vec<(String, String)>,
    /// Whether it says itself of which interfaces it is.
    pub(super) has_metadata: bool,
}

impl CoreShape {
    /// Whether its exports have the names that the contract's interfaces have in core modules.
    pub(super) fn speaks_contract(&self) -> bool {
        self.contract_exports().next().is_some()
    }

    /// Interface with its version, and function.
    pub(super) fn contract_exports(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.exports.iter().map(|(name, _)| name.as_str());
        names.filter(|name| name.starts_with("sluice:plugin/")).filter_map(|name| name.split_once('#'))
    }

    pub(super) fn shape(&self) -> Shape {
        let import = |(module, name, _): &(String, String, String)| format!("{module}.{name}");
        Shape {
            imports: self.imports.iter().map(import).collect(),
            exports: self.exports.iter().map(|(name, _)| name.clone()).collect(),
        }
    }
}

impl Sections {
    /// Validates a file and reads its sections.
    pub(super) fn read(wasm: &[u8]) -> Result<Self, UnusablePlugin> {
        let malformed = |error: BinaryReaderError| UnusablePlugin::Malformed(error.to_string());
        let types = Validator::new_with_features(WasmFeatures::default()).validate_all(wasm).map_err(malformed)?;
        let types = types.as_ref();
        let mut sections = Self { core: None, manifest: None };
        let (mut depth, mut manifest_depth) = (0_usize, usize::MAX);
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(malformed)? {
                Payload::Version { encoding, .. } => {
                    if depth == 0 && encoding == Encoding::Module {
                        sections.core = Some(CoreShape::default());
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(custom) => {
                    if custom.name() == manifest::SECTION && depth < manifest_depth {
                        sections.manifest = Some(custom.data().to_vec());
                        manifest_depth = depth;
                    }
                    if let Some(core) = &mut sections.core {
                        core.has_metadata |= custom.name().starts_with("component-type");
                    }
                }
                Payload::ImportSection(imports) => {
                    let Some(core) = &mut sections.core else { continue };
                    for import in imports.into_imports() {
                        let import = import.map_err(malformed)?;
                        let ty = types.entity_type_from_import(&import).map(|ty| text(types, ty));
                        core.imports.push((import.module.to_owned(), import.name.to_owned(), ty.unwrap_or_default()));
                    }
                }
                Payload::ExportSection(exports) => {
                    let Some(core) = &mut sections.core else { continue };
                    for export in exports {
                        let export = export.map_err(malformed)?;
                        let ty = types.entity_type_from_export(&export).map(|ty| text(types, ty));
                        core.exports.push((export.name.to_owned(), ty.unwrap_or_default()));
                    }
                }
                _ => {}
            }
        }
        Ok(sections)
    }
}

/// What a component imports and exports.
pub(super) fn of_component(wasm: &[u8]) -> Result<Shape, UnusablePlugin> {
    let malformed = |error: BinaryReaderError| UnusablePlugin::Malformed(error.to_string());
    let mut shape = Shape::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    shape.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    shape.exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(shape)
}

/// A type in short: `(i32, i32) -> i64`, `memory`.
fn text(types: TypesRef<'_>, ty: EntityType) -> String {
    let id = match ty {
        EntityType::Func(id) | EntityType::FuncExact(id) => id,
        EntityType::Memory(memory) if memory.memory64 || memory.shared => {
            return "memory64 or shared memory".to_owned();
        }
        EntityType::Memory(_) => return "memory".to_owned(),
        EntityType::Table(_) => return "table".to_owned(),
        EntityType::Global(_) => return "global".to_owned(),
        EntityType::Tag(_) => return "tag".to_owned(),
    };
    let function = types[id].unwrap_func();
    let mut text = String::from("(");
    for (index, param) in function.params().iter().enumerate() {
        // Writing into a string cannot fail.
        write!(text, "{}{param}", if index == 0 { "" } else { ", " }).unwrap_or_default();
    }
    text.push_str(") -> ");
    match function.results() {
        [one] => write!(text, "{one}").unwrap_or_default(),
        results => {
            let results: Vec<_> = results.iter().map(ToString::to_string).collect();
            write!(text, "({})", results.join(", ")).unwrap_or_default();
        }
    }
    text
}
