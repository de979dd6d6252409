//! Makes loaded plugins of files: compiled, checked against the contract, configured once.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, InstancePre};

use super::call::{self, Call};
use super::compile::{self, Compiler, Facts};
use super::engine::{Runtime, THREAD_STACK_BYTES};
use super::health::{Health, Record};
use super::host::{self, Host, bindings};
use super::inspect::Wishes;
use super::lane::{EXPORTS, IMPORTS};
use super::limits::Limits;
use super::tables::Tables;
use super::{PluginInfo, PluginOrigin, PluginSource, bytes_lane, stub};
use crate::config::{Capability, PluginPolicy, PluginsConfig};
use crate::order::OrderId;

/// A plugin that is ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct LoadedPlugin(Arc<Loaded>);

struct Loaded {
    info: PluginInfo,
    code: Code,
    config_json: Vec<u8>,
    limits: Limits,
    tables: Tables,
    health: Record,
}

/// What runs: one kind for each seam between gateway and plugin.
pub(super) enum Code {
    Component(bindings::EnricherPre<Host>),
    Bytes(InstancePre<Host>),
}

impl LoadedPlugin {
    /// What it is.
    #[must_use]
    pub fn info(&self) -> &PluginInfo {
        &self.0.info
    }

    pub(super) fn code(&self) -> &Code {
        &self.0.code
    }

    pub(super) fn config_json(&self) -> &[u8] {
        &self.0.config_json
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.0.tables
    }

    /// How it does.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.health.read()
    }

    /// Notes how it did on the orders of a batch: which judgement of the order it was, and whether it failed. Returns
    /// whether it is broken.
    pub(super) fn note(&self, orders: Vec<(OrderId, u32, bool)>) -> bool {
        let may_break = orders.iter().any(|(.., is_fault)| *is_fault);
        self.0.health.note(orders.into_iter());
        may_break && self.0.health.read().is_broken
    }

    /// Whether it is broken and nobody was told yet; from now on somebody was.
    pub(super) fn tell_broken(&self) -> bool {
        self.0.health.tell()
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
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum UnusablePlugin {
    #[error("has {bytes} bytes, more than the {bytes_max} of `plugins.file_bytes_max`")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("is no WebAssembly: it begins with {found}, expected \\0asm or the text (module …) or (component …)")]
    NotWasm { found: String },
    #[error("is machine code that was compiled before, which is never taken from a file; expected WebAssembly")]
    Compiled,
    #[error("is WebAssembly text with a mistake: {0}")]
    Text(String),
    #[error("is no valid WebAssembly: {0}")]
    Malformed(String),
    #[error(
        "is a core module of no lane: it imports {imports} and exports {exports}; expected a component, or a core \
         module that exports sluice:plugin/lifecycle@1.1.0#configure and sluice:plugin/processor@1.1.0#process, or \
         one that exports memory, sluice_alloc and sluice_process (bytes ABI 1)"
    )]
    NoLane { imports: String, exports: String },
    #[error("is a core module of the bytes ABI that does not fit it: {0}")]
    BytesAbi(String),
    #[error("is a core module that cannot be made a component: {0}")]
    Componentize(String),
    #[error("has a manifest (custom section `sluice:manifest`) that cannot be read: {0}")]
    Manifest(String),
    #[error("does not compile: {0}")]
    Invalid(String),
    #[error("does not compile: the compiler failed on it")]
    Crashed,
    #[error("cannot be compiled within the limits: {0}")]
    Compiler(String),
    #[error(
        "imports {found:?}, which no plugin can have; it may import {IMPORTS:?} of version 1, and WASI, which denies"
    )]
    Imports { found: Vec<String> },
    #[error(
        "imports {imports:?}, which needs {} granted: grants = [{}] in [plugins.policy.NAME]",
        words(missing, "`", " and "),
        words(missing, "\"", ", ")
    )]
    NotGranted { imports: Vec<String>, missing: Vec<Capability> },
    #[error("does not export {missing}, expected {EXPORTS:?} of version 1; it exports {found:?}")]
    Exports { missing: String, found: Vec<String> },
    #[error("does not fit the contract sluice:plugin@1: {0}")]
    Contract(String),
    #[error("refuses its configuration: {}", .0.join("; "))]
    Configuration(Vec<String>),
    #[error("fails while it is configured: {0}")]
    Fault(String),
}

impl UnusablePlugin {
    pub(super) fn crashed() -> Self {
        Self::Crashed
    }
}

/// The words of capabilities in quotes.
fn words(capabilities: &[Capability], quote: &str, between: &str) -> String {
    let words: Vec<_> = capabilities.iter().map(|capability| format!("{quote}{capability}{quote}")).collect();
    words.join(between)
}

/// Loads one plugin.
pub(super) fn load(
    runtime: &Runtime,
    compiler: &Compiler,
    config: &PluginsConfig,
    source: PluginSource,
) -> Result<LoadedPlugin, PluginError> {
    let name = source.name.clone();
    let compiled = compile(compiler, config, source, &runtime.engine);
    let configured = compiled.and_then(|plugin| configure_once(runtime, plugin));
    configured.map_err(|problem| PluginError::Unusable { name, problem })
}

fn compile(
    compiler: &Compiler,
    config: &PluginsConfig,
    source: PluginSource,
    engine: &Engine,
) -> Result<LoadedPlugin, UnusablePlugin> {
    let PluginSource { name, origin, component: file, config_json, policy, tables } = source;
    let (bytes, bytes_max) = (file.len(), config.file_bytes_max.0);
    if bytes > bytes_max {
        return Err(UnusablePlugin::TooLarge { bytes, bytes_max });
    }
    let start = Instant::now();
    let (mut compiled, mut is_cached) = compiler.compile(config, &file)?;
    let mut code = compiled.code(engine);
    if code.is_err() && is_cached {
        // Of an engine that calls itself the same and is not: it is made anew.
        compiler.forget(&file);
        (compiled, is_cached) = compiler.compile(config, &file)?;
        code = compiled.code(engine);
    }
    let text = |error: wasmtime::Error| format!("{error:#}");
    let Facts { lane, shape, manifest } = &compiled.facts;
    let missing = policy.missing_grants(&shape.imports);
    if !missing.is_empty() {
        return Err(UnusablePlugin::NotGranted { imports: shape.imports.clone(), missing });
    }
    let code = match code.map_err(text).map_err(UnusablePlugin::Invalid)? {
        compile::Code::Component(component) => link(&component, &policy).map(Code::Component),
        compile::Code::Module(module) => bytes_lane::link(&module).map(Code::Bytes),
    };
    let code = code.map_err(text).map_err(UnusablePlugin::Contract)?;
    let wishes = Wishes::of(&shape.imports);
    let paths = manifest.as_ref().and_then(|manifest| manifest.patch.as_deref());
    let limits = Limits::new(config, &policy, paths);
    let health = Record::new(limits.tolerance);
    let info = PluginInfo {
        name: name.into(),
        digest: digest(&file),
        origin,
        bytes,
        lane: *lane,
        world: wishes.world(*lane),
        contract: shape.contract(*lane).unwrap_or_default().into(),
        capabilities: wishes.capabilities.into(),
        denied: wishes.denied.into(),
        manifest: manifest.clone().map(Arc::new),
        compiled: start.elapsed(),
        is_cached,
    };
    Ok(LoadedPlugin(Arc::new(Loaded { info, code, config_json, limits, tables, health })))
}

fn link(component: &Component, policy: &PluginPolicy) -> wasmtime::Result<bindings::EnricherPre<Host>> {
    let mut linker = Linker::new(component.engine());
    host::link(&mut linker, policy)?;
    stub::wasi::link(&mut linker, component)?;
    bindings::EnricherPre::new(linker.instantiate_pre(component)?)
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

pub(super) fn digest(bytes: &[u8]) -> Arc<str> {
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
