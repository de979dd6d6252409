//! Makes loaded plugins of files: compiled, checked against the contract, configured once.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::thread;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, Linker};

use super::call::{self, Call};
use super::engine::{Runtime, THREAD_STACK_BYTES};
use super::host::{Host, bindings};
use super::limits::Limits;
use super::{PluginInfo, PluginOrigin, PluginSource};
use crate::config::PluginsConfig;

/// What a plugin may import, of any version 1.x.
const IMPORTS: [&str; 2] = ["sluice:plugin/log", "sluice:plugin/types"];

/// What a plugin must export, of any version 1.x.
const EXPORTS: [&str; 2] = ["sluice:plugin/lifecycle", "sluice:plugin/processor"];

/// An interface without its version, where that is one we know.
fn interface(name: &str) -> &str {
    match name.split_once('@') {
        Some((interface, version)) if version.starts_with("1.") => interface,
        _ => name,
    }
}

/// A plugin that is ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct LoadedPlugin(Arc<Loaded>);

struct Loaded {
    info: PluginInfo,
    pre: bindings::ValidatorPre<Host>,
    config_json: Vec<u8>,
    limits: Limits,
}

impl LoadedPlugin {
    /// What it is.
    #[must_use]
    pub fn info(&self) -> &PluginInfo {
        &self.0.info
    }

    pub(super) fn pre(&self) -> &bindings::ValidatorPre<Host> {
        &self.0.pre
    }

    pub(super) fn config_json(&self) -> &[u8] {
        &self.0.config_json
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

impl fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPlugin").field("info", self.info()).finish_non_exhaustive()
    }
}

/// Plugins cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("start the plugin engine")]
    Engine {
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("plugin `{name}` {problem}")]
    Unusable { name: String, problem: UnusablePlugin },
}

/// Why a plugin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusablePlugin {
    #[error("has {bytes} bytes, more than the {bytes_max} of `plugins.file_bytes_max`")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("is no WebAssembly: it begins with {found}, expected \\0asm")]
    NotWasm { found: String },
    #[error("is a WebAssembly core module, expected a component: `wasm-tools component new` makes one")]
    CoreModule,
    #[error("does not compile: {0}")]
    Invalid(String),
    #[error("imports {found:?}, which plugins are not granted; it may import {IMPORTS:?}")]
    Imports { found: Vec<String> },
    #[error("does not export {missing}, expected {EXPORTS:?}; it exports {found:?}")]
    Exports { missing: &'static str, found: Vec<String> },
    #[error("does not fit the contract sluice:plugin@1: {0}")]
    Contract(String),
    #[error("refuses its configuration: {}", .0.join("; "))]
    Configuration(Vec<String>),
    #[error("fails while it is configured: {0}")]
    Fault(String),
}

impl UnusablePlugin {
    pub(super) fn crashed() -> Self {
        Self::Invalid("the compiler failed on it".to_owned())
    }
}

/// Loads one plugin.
pub(super) fn load(
    runtime: &Runtime,
    config: &PluginsConfig,
    source: PluginSource,
) -> Result<LoadedPlugin, PluginError> {
    let name = source.name.clone();
    let compiled = compile(runtime, Limits::new(config), source);
    let configured = compiled.and_then(|plugin| configure_once(runtime, plugin));
    configured.map_err(|problem| PluginError::Unusable { name, problem })
}

fn compile(runtime: &Runtime, limits: Limits, source: PluginSource) -> Result<LoadedPlugin, UnusablePlugin> {
    let PluginSource { name, origin, component: bytes, config_json } = source;
    check_header(&bytes, limits.file_bytes_max)?;
    let engine = &runtime.engine;
    let text = |error: wasmtime::Error| format!("{error:#}");
    let component = Component::from_binary(engine, &bytes).map_err(text).map_err(UnusablePlugin::Invalid)?;

    let shape = component.component_type();
    let imported = shape.imports(engine).map(|(name, _)| name.to_owned());
    let found: Vec<_> = imported.filter(|name| !IMPORTS.contains(&interface(name))).collect();
    if !found.is_empty() {
        return Err(UnusablePlugin::Imports { found });
    }
    let found: Vec<_> = shape.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if let Some(missing) = EXPORTS.into_iter().find(|expected| !found.iter().any(|name| interface(name) == *expected)) {
        return Err(UnusablePlugin::Exports { missing, found });
    }

    let pre = || {
        let mut linker = Linker::new(engine);
        bindings::Validator::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host)?;
        bindings::ValidatorPre::new(linker.instantiate_pre(&component)?)
    };
    let pre = pre().map_err(text).map_err(UnusablePlugin::Contract)?;
    let info = PluginInfo { name: name.into(), digest: digest(&bytes), origin, bytes: bytes.len() };
    Ok(LoadedPlugin(Arc::new(Loaded { info, pre, config_json, limits })))
}

fn check_header(bytes: &[u8], bytes_max: usize) -> Result<(), UnusablePlugin> {
    if bytes.len() > bytes_max {
        return Err(UnusablePlugin::TooLarge { bytes: bytes.len(), bytes_max });
    }
    if !bytes.starts_with(b"\0asm") {
        let found = match &bytes[..bytes.len().min(8)] {
            [] => "nothing".to_owned(),
            first => first.escape_ascii().to_string(),
        };
        return Err(UnusablePlugin::NotWasm { found });
    }
    if bytes.get(4..8) == Some(&[1, 0, 0, 0]) { Err(UnusablePlugin::CoreModule) } else { Ok(()) }
}

fn configure_once(runtime: &Runtime, plugin: LoadedPlugin) -> Result<LoadedPlugin, UnusablePlugin> {
    let _turn = runtime.loading.lock().unwrap_or_else(PoisonError::into_inner);
    let call = Call { runtime, plugin: &plugin };
    let thread = thread::Builder::new().name("plugin-start".to_owned()).stack_size(THREAD_STACK_BYTES);
    let done = thread::scope(|scope| {
        let thread = thread.spawn_scoped(scope, || call.configure());
        thread.map(|thread| thread.join().map_err(|_| "the gateway failed while it ran the plugin"))
    });
    match done {
        Ok(Ok(Ok(()))) => Ok(plugin),
        Ok(Ok(Err(call::Failure::Refused(problems)))) => Err(UnusablePlugin::Configuration(problems)),
        Ok(Ok(Err(call::Failure::Fault { detail, .. }))) => Err(UnusablePlugin::Fault(detail)),
        Ok(Err(detail)) => Err(UnusablePlugin::Fault(detail.to_owned())),
        Err(error) => Err(UnusablePlugin::Fault(error.to_string())),
    }
}

fn digest(bytes: &[u8]) -> Arc<str> {
    use fmt::Write;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing into a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text.into()
}

impl fmt::Display for PluginOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundled => f.write_str("bundled"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
