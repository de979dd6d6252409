//! Makes loaded plugins of files: compiled, checked against the contract, configured once.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::thread;

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, HasSelf, Linker};

use super::call::{self, Call, Host, bindings};
use super::engine::{Runtime, THREAD_STACK_BYTES};
use super::limits::Limits;
use super::{PluginInfo, PluginOrigin, PluginSource};

/// What a plugin may import.
const IMPORTS: [&str; 2] = ["sluice:plugin/log@1.0.0", "sluice:plugin/types@1.0.0"];

/// What a plugin must export.
const EXPORTS: [&str; 2] = ["sluice:plugin/lifecycle@1.0.0", "sluice:plugin/processor@1.0.0"];

/// A plugin that is ready to be called.
pub(super) struct Loaded {
    pub(super) info: PluginInfo,
    pub(super) pre: bindings::ValidatorPre<Host>,
    pub(super) config_json: Vec<u8>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("info", &self.info).finish_non_exhaustive()
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
    #[error("there are two plugins named `{name}`")]
    NameTaken { name: String },
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
    #[error("does not fit the contract sluice:plugin@1.0.0: {0}")]
    Contract(String),
    #[error("refuses its configuration: {}", .0.join("; "))]
    Configuration(Vec<String>),
    #[error("fails while it is configured: {0}")]
    Fault(String),
}

/// Loads all plugins, several at a time.
pub(super) fn load(
    runtime: &Runtime,
    limits: &Limits,
    sources: Vec<PluginSource>,
) -> Result<Vec<Arc<Loaded>>, PluginError> {
    for (position, source) in sources.iter().enumerate() {
        if sources[..position].iter().any(|other| other.name == source.name) {
            return Err(PluginError::NameTaken { name: source.name.clone() });
        }
    }
    thread::scope(|scope| {
        let compiling: Vec<_> = sources
            .into_iter()
            .map(|source| {
                let name = source.name.clone();
                (name, scope.spawn(move || compile(runtime, limits, source)))
            })
            .collect();
        let mut plugins = Vec::new();
        for (name, thread) in compiling {
            let crash = || Err(UnusablePlugin::Invalid("the compiler failed on it".to_owned()));
            let loaded = thread.join().unwrap_or_else(|_| crash());
            // One after the other: the pool has room for one instance besides those of its threads.
            let configured = loaded.and_then(|loaded| configure_once(runtime, limits, loaded));
            plugins.push(Arc::new(configured.map_err(|problem| PluginError::Unusable { name, problem })?));
        }
        Ok(plugins)
    })
}

fn compile(runtime: &Runtime, limits: &Limits, source: PluginSource) -> Result<Loaded, UnusablePlugin> {
    let PluginSource { name, origin, component: bytes, config_json } = source;
    check_header(&bytes, limits.file_bytes_max)?;
    let engine = &runtime.engine;
    let text = |error: wasmtime::Error| format!("{error:#}");
    let component = Component::from_binary(engine, &bytes).map_err(text).map_err(UnusablePlugin::Invalid)?;

    let shape = component.component_type();
    let imported = shape.imports(engine).map(|(name, _)| name.to_owned());
    let found: Vec<_> = imported.filter(|name| !IMPORTS.contains(&name.as_str())).collect();
    if !found.is_empty() {
        return Err(UnusablePlugin::Imports { found });
    }
    let found: Vec<_> = shape.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if let Some(missing) = EXPORTS.into_iter().find(|expected| !found.iter().any(|name| name == expected)) {
        return Err(UnusablePlugin::Exports { missing, found });
    }

    let pre = || {
        let mut linker = Linker::new(engine);
        bindings::Validator::add_to_linker::<_, HasSelf<_>>(&mut linker, |host: &mut Host| host)?;
        bindings::ValidatorPre::new(linker.instantiate_pre(&component)?)
    };
    let pre = pre().map_err(text).map_err(UnusablePlugin::Contract)?;
    let info = PluginInfo { name: name.into(), digest: digest(&bytes), origin, bytes: bytes.len() };
    Ok(Loaded { info, pre, config_json })
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

fn configure_once(runtime: &Runtime, limits: &Limits, plugin: Loaded) -> Result<Loaded, UnusablePlugin> {
    let call = Call { runtime, limits, plugin: &plugin };
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
