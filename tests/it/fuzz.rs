//! Random and damaged files for the loader of plugins: each is refused with a reason or loaded, none makes it panic or hang.
//!
//! `SLUICE_TEST_SEED` repeats a run, `SLUICE_TEST_FUZZ_SECONDS` makes it longer.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use harness::random::Dice;
use harness::{environment, guests};
use sluice::config::{ByteSize, Config, PluginPolicy, PluginsConfig};
use sluice::plugin::{self, PluginHost, PluginOrigin, PluginSource, Tables};
use wasm_smith::{Component, Config as Shapes, Module};

/// How long random files are made where nobody says otherwise.
const SECONDS: u64 = 3;

/// When the loader counts as hanging; a busy machine takes its time, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a module of the bytes ABI exports, for making random modules of that shape.
const BYTES_ABI: &str = r#"(module (memory (export "memory") 1)
    (func (export "sluice_alloc") (param i32) (result i32) unreachable)
    (func (export "sluice_process") (param i32 i32) (result i64) unreachable))"#;

fn noise(dice: &mut Dice) -> Vec<u8> {
    let length = 64 + dice.below(6000);
    (0..length.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes()).collect()
}

fn module(dice: &mut Dice, shapes: Shapes) -> Option<Vec<u8>> {
    let noise = noise(dice);
    Module::new(shapes, &mut Unstructured::new(&noise)).ok().map(|module| module.to_bytes())
}

fn component(dice: &mut Dice) -> Option<Vec<u8>> {
    let noise = noise(dice);
    Component::new(Shapes::default(), &mut Unstructured::new(&noise)).ok().map(|component| component.to_bytes())
}

/// A good plugin of one of the lanes.
fn good(dice: &mut Dice) -> Vec<u8> {
    match dice.below(5) {
        0 => plugin::bundled()[0].1.to_vec(),
        1 => guests::marked(),
        2 => guests::evil::Component::default().text().into_bytes(),
        3 => guests::evil::Bytes::default().build(),
        _ => wat::parse_str(guests::evil::Component::default().text()).unwrap(),
    }
}

/// A place in bytes that are not empty.
fn place(dice: &mut Dice, bytes: &[u8]) -> usize {
    usize::try_from(dice.below(bytes.len() as u64)).unwrap()
}

fn damaged(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = good(dice);
    match dice.below(4) {
        0 => bytes.truncate(place(dice, &bytes)),
        1 => {
            let (from, to) = (place(dice, &bytes), place(dice, &bytes));
            let piece = bytes[from.min(to)..from.max(to)].to_vec();
            let at = place(dice, &bytes);
            bytes.splice(at..at, piece);
        }
        _ => {
            for _ in 0..=dice.below(8) {
                let at = place(dice, &bytes);
                bytes[at] ^= 1 << dice.below(8);
            }
        }
    }
    bytes
}

fn file(dice: &mut Dice) -> Option<Vec<u8>> {
    match dice.below(8) {
        0 => module(dice, Shapes::default()),
        1 => component(dice),
        2 | 3 => {
            let exports = Some(wat::parse_str(BYTES_ABI).unwrap());
            module(dice, Shapes { exports, max_imports: 0, memory64_enabled: false, ..Shapes::default() })
        }
        _ => Some(damaged(dice)),
    }
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "a failed run is repeated with its seed, which the harness of tests shows then"
)]
fn random_files_are_loaded_or_refused_with_a_reason() {
    let seed = environment::seed().unwrap_or_else(|| u64::from(std::process::id()));
    let seconds = environment::fuzz_seconds().unwrap_or(SECONDS);
    println!("SLUICE_TEST_SEED={seed} SLUICE_TEST_FUZZ_SECONDS={seconds}");
    let mut dice = Dice::new(seed);
    let limits = PluginsConfig { memory_bytes_max: ByteSize(16 << 20), ..Config::from_bytes(None).unwrap().plugins };
    let host = PluginHost::start(&limits, Arc::default()).unwrap();
    let begin = Instant::now();
    let (mut loaded, mut refused) = (0, 0);
    while begin.elapsed() < Duration::from_secs(seconds) || loaded == 0 || refused == 0 {
        let Some(file) = file(&mut dice) else { continue };
        let number = loaded + refused;
        let (sender, receiver) = mpsc::channel();
        let (host, limits, bytes) = (host.clone(), limits.clone(), file.clone());
        thread::spawn(move || {
            let inspection = plugin::inspect(&bytes, limits.file_bytes_max.0);
            let origin = PluginOrigin::File("random.wasm".into());
            let source = PluginSource {
                name: "random".to_owned(),
                origin,
                component: bytes.into(),
                config_json: b"{}".to_vec(),
                policy: PluginPolicy::default(),
                tables: Tables::default(),
            };
            sender.send((inspection, host.load(&limits, source))).unwrap();
        });
        let (inspection, outcome) = match receiver.recv_timeout(PATIENCE) {
            Ok(both) => both,
            Err(RecvTimeoutError::Timeout) => panic!("the loader hangs on file {number}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the loader panics on file {number}"),
        };
        match outcome {
            Ok(plugin) => {
                loaded += 1;
                assert_eq!(inspection.problems, Vec::<String>::new(), "file {number} was loaded all the same");
                assert_eq!(*plugin.info().digest, *inspection.digest);
                assert_eq!(Some(plugin.info().lane), inspection.lane);
            }
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.len() > "plugin `random` ".len() + 10, "file {number}: {text}");
                assert!(!text.contains("the compiler failed on it"), "file {number} makes the compiler panic");
            }
        }
    }
    println!("{loaded} loaded, {refused} refused");
}
