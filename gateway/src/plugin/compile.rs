//! Compiles plugins away from the request path: each content once, at the lowest priority, within limits, and keeps what
//! came out.

mod cache;
mod child;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use super::engine::{self, THREAD_STACK_BYTES};
use super::lane::{self, Lane, Shape};
use super::load::{UnusablePlugin, digest};
use super::manifest::Manifest;
use crate::config::PluginsConfig;
use cache::Cache;
pub use child::work;

/// Niceness of what compiles: whatever else wants to run goes first.
const NICE: i32 = 19;

/// What is known of a plugin once it is compiled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) lane: Lane,
    pub(super) shape: Shape,
    pub(super) manifest: Option<Manifest>,
}

/// A plugin in machine code, as one of our own compilers made it.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) facts: Facts,
    machine_code: Vec<u8>,
}

/// What the engine runs.
pub(super) enum Code {
    Component(Component),
    Module(Module),
}

impl Compiled {
    /// Hands the machine code to the engine.
    #[expect(
        unsafe_code,
        reason = "machine code from our own compiler or, after its checksum was compared, our own folder"
    )]
    pub(super) fn code(&self, engine: &Engine) -> wasmtime::Result<Code> {
        // SAFETY: the bytes were made by `precompile_*` in this process, in a child that runs this program, or were read from a
        // folder that only this user can write to and have the checksum that was written with them. A file that somebody
        // placed never gets here: files of plugins are WebAssembly or refused.
        match self.facts.lane {
            Lane::Component | Lane::Module => {
                unsafe { Component::deserialize(engine, &self.machine_code) }.map(Code::Component)
            }
            Lane::Bytes => unsafe { Module::deserialize(engine, &self.machine_code) }.map(Code::Module),
        }
    }

    /// The facts on a line, then the machine code.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(&self.facts).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.machine_code);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let facts = serde_json::from_slice(&bytes[..end]).ok()?;
        Some(Self { facts, machine_code: bytes[end + 1..].to_vec() })
    }
}

type Outcome = Result<Arc<Compiled>, UnusablePlugin>;

/// The one place where plugins are compiled.
#[derive(Debug)]
pub(super) struct Compiler {
    engine: Engine,
    /// Of the engine's version, settings and processor.
    engine_hash: u64,
    cache: Option<Cache>,
    /// This program, to compile in a process of its own.
    program: Option<PathBuf>,
    /// Contents that are being compiled.
    flights: Mutex<HashMap<Arc<str>, Weak<OnceLock<Outcome>>>>,
    turns: Turns,
}

/// How much a compilation may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    time: Duration,
    memory_bytes: u64,
}

impl Compiler {
    /// Compiles on a thread and keeps nothing.
    pub(super) fn new(engine: &Engine) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let engine_hash = hash(engine);
        let turns = Turns { free: Mutex::new(cores), changed: Condvar::new() };
        Self { engine: engine.clone(), engine_hash, cache: None, program: None, flights: Mutex::default(), turns }
    }

    /// Keeps what it compiles below a folder of the gateway's own, and compiles in a process of its own, if it is told how.
    pub(super) fn with(engine: &Engine, state_dir: &Path, program: Option<PathBuf>) -> Self {
        let cache = match Cache::open(state_dir) {
            Ok(cache) => Some(cache),
            Err(problem) => {
                warn!("compiled plugins are not kept, each start compiles them anew: {problem}");
                None
            }
        };
        Self { cache, program, ..Self::new(engine) }
    }

    /// The machine code of a file, and whether it had been kept. Who asks for the same content meanwhile waits and shares it.
    pub(super) fn compile(&self, config: &PluginsConfig, file: &[u8]) -> Result<(Arc<Compiled>, bool), UnusablePlugin> {
        let digest = digest(file);
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            flights.retain(|_, flight| flight.strong_count() > 0);
            let present = flights.get(&digest).and_then(Weak::upgrade);
            present.unwrap_or_else(|| {
                let flight = Arc::new(OnceLock::new());
                flights.insert(Arc::clone(&digest), Arc::downgrade(&flight));
                flight
            })
        };
        let name = format!("{}-{:016x}", digest.trim_start_matches("sha256:"), self.engine_hash);
        let mut is_cached = true;
        let outcome = flight.get_or_init(|| {
            if let Some(kept) = self.cache.as_ref().and_then(|cache| cache.read(&name)) {
                return Ok(Arc::new(kept));
            }
            is_cached = false;
            let _turn = self.turns.take();
            let compiled = self.compile_now(config, file)?;
            if let Some(cache) = &self.cache {
                cache.write(&name, &compiled, config.cache_bytes_max.0);
            }
            Ok(Arc::new(compiled))
        });
        outcome.clone().map(|compiled| (compiled, is_cached))
    }

    /// Forgets a content whose kept machine code turned out to be of no use.
    pub(super) fn forget(&self, file: &[u8]) {
        if let Some(cache) = &self.cache {
            let digest = digest(file);
            cache.remove(&format!("{}-{:016x}", digest.trim_start_matches("sha256:"), self.engine_hash));
        }
    }

    fn compile_now(&self, config: &PluginsConfig, file: &[u8]) -> Result<Compiled, UnusablePlugin> {
        let memory_bytes = u64::try_from(config.compile_memory_max.0).unwrap_or(u64::MAX);
        let bounds = Bounds { time: config.compile_time_max.0, memory_bytes };
        if let Some(program) = &self.program {
            match child::compile(program, bounds, self.engine_hash, file) {
                Ok(outcome) => return outcome,
                Err(problem) => warn!("plugins are compiled in this process, not in one of their own: {problem}"),
            }
        }
        self.compile_on_thread(bounds, file)
    }

    /// For where there is no program to start. A thread cannot be ended: over its time it is left to itself.
    fn compile_on_thread(&self, bounds: Bounds, file: &[u8]) -> Result<Compiled, UnusablePlugin> {
        let (sender, receiver) = mpsc::channel();
        let (engine, file) = (self.engine.clone(), file.to_vec());
        let thread = thread::Builder::new().name("plugin-compile".to_owned()).stack_size(THREAD_STACK_BYTES);
        let started = thread.spawn(move || {
            if let Err(error) = setpriority_process(Some(gettid()), NICE) {
                debug!(%error, "the priority of a thread stays as it is");
            }
            // Over the time nobody waits for it any more.
            drop(sender.send(compile(&engine, &file)));
        });
        started.map_err(|error| UnusablePlugin::Invalid(format!("no thread to compile it: {error}")))?;
        match receiver.recv_timeout(bounds.time) {
            Ok(outcome) => outcome,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(bounds.out_of_time()),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(UnusablePlugin::crashed()),
        }
    }
}

impl Bounds {
    fn out_of_time(self) -> UnusablePlugin {
        let seconds = self.time.as_secs_f64();
        UnusablePlugin::Compiler(format!("it takes longer than the {seconds} s of `plugins.compile_time_max`"))
    }

    fn out_of_memory(self, end: &str) -> UnusablePlugin {
        let bytes = self.memory_bytes;
        let text = format!(
            "it needs more memory than the {bytes} bytes of `plugins.compile_memory_max`, or crashes the compiler"
        );
        UnusablePlugin::Compiler(format!("{text} ({end})"))
    }
}

/// Compiles here and now.
fn compile(engine: &Engine, file: &[u8]) -> Result<Compiled, UnusablePlugin> {
    let run = || {
        let prepared = lane::prepare(file)?;
        let machine_code = match prepared.lane {
            Lane::Component | Lane::Module => engine.precompile_component(&prepared.wasm),
            Lane::Bytes => engine.precompile_module(&prepared.wasm),
        };
        let machine_code = machine_code.map_err(|error| UnusablePlugin::Invalid(format!("{error:#}")))?;
        let facts = Facts { lane: prepared.lane, shape: prepared.shape, manifest: prepared.manifest };
        Ok(Compiled { facts, machine_code })
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(UnusablePlugin::crashed()))
}

/// What machine code of an engine fits: equal for engines of equal version, settings and processor.
fn hash(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// How many may compile at the same time.
#[derive(Debug)]
struct Turns {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Turns {
    fn take(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.changed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

struct Turn<'turns>(&'turns Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}
