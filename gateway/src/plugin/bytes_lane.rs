//! The bytes lane: core modules that take one JSON document for a batch and answer with one.

mod answer;
mod question;

use wasmtime::{Caller, Extern, InstancePre, Linker, Memory, Module, Store, TypedFunc};

use super::call::{Event, Failure, Outcome};
use super::host::{Host, Level};
use super::{FaultKind, stub};

/// Links a module to what it may import.
pub(super) fn link(module: &Module) -> wasmtime::Result<InstancePre<Host>> {
    let mut linker = Linker::new(module.engine());
    linker.func_wrap("sluice", "log", log)?;
    linker.func_wrap("env", "abort", abort)?;
    stub::preview1::link(&mut linker, module)?;
    linker.instantiate_pre(module)
}

/// Asks a fresh instance about events; with none of them, whether it takes its configuration.
pub(super) fn run(
    pre: &InstancePre<Host>,
    store: &mut Store<Host>,
    config_json: &[u8],
    events: &[Event<'_>],
    output_bytes_max: usize,
) -> wasmtime::Result<Result<Vec<Outcome>, Failure>> {
    let instance = pre.instantiate(&mut *store)?;
    if let Some(initialize) = instance.get_func(&mut *store, "_initialize") {
        initialize.typed::<(), ()>(&mut *store)?.call(&mut *store, ())?;
    }
    let memory = instance.get_memory(&mut *store, "memory").ok_or_else(|| wasmtime::Error::msg("it has no memory"))?;
    let alloc: TypedFunc<i32, i32> = instance.get_typed_func(&mut *store, "sluice_alloc")?;
    let process: TypedFunc<(i32, i32), i64> = instance.get_typed_func(&mut *store, "sluice_process")?;

    let question = question::write(config_json, events);
    let Ok(length) = i32::try_from(question.len()) else {
        return Err(wasmtime::Error::msg("the batch has more bytes than the bytes ABI can address"));
    };
    let place = alloc.call(&mut *store, length)?;
    if memory.write(&mut *store, address(place), &question).is_err() {
        let detail = format!("sluice_alloc({length}) gave {}, which lies outside of its memory", address(place));
        return Ok(Err(Failure::contract(detail)));
    }
    let packed = process.call(&mut *store, (place, length))?.cast_unsigned();
    let (start, length) = (usize::try_from(packed >> 32)?, usize::try_from(packed & u64::from(u32::MAX))?);
    if length > output_bytes_max {
        let detail = "it answered with more data than it may".to_owned();
        return Ok(Err(Failure::Fault { kind: FaultKind::Output, detail }));
    }
    Ok(match slice(&memory, store, start, length) {
        Some(answer) => answer::read(answer),
        None => {
            let detail = format!("its answer of {length} bytes at {start} lies outside of its memory");
            Err(Failure::contract(detail))
        }
    })
}

fn address(pointer: i32) -> usize {
    // 32 bits fit wherever this gateway runs.
    usize::try_from(pointer.cast_unsigned()).unwrap_or(usize::MAX)
}

fn slice<'store>(memory: &Memory, store: &'store Store<Host>, start: usize, length: usize) -> Option<&'store [u8]> {
    memory.data(store).get(start..start.checked_add(length)?)
}

/// A text in the memory of the instance that calls.
fn text(caller: &mut Caller<'_, Host>, pointer: i32, length: i32) -> wasmtime::Result<Vec<u8>> {
    let outside = || wasmtime::Error::new(wasmtime::Trap::MemoryOutOfBounds);
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return Err(outside()) };
    let (start, length) = (address(pointer), address(length));
    if length > caller.data().output_bytes_max() {
        return Err(wasmtime::Error::msg(super::call::OUTPUT_EXHAUSTED));
    }
    let end = start.checked_add(length).ok_or_else(outside)?;
    memory.data(&*caller).get(start..end).map(<[u8]>::to_vec).ok_or_else(outside)
}

fn log(mut caller: Caller<'_, Host>, level: i32, pointer: i32, length: i32) -> wasmtime::Result<()> {
    let text = text(&mut caller, pointer, length)?;
    let level = match level {
        0 => Level::Debug,
        1 => Level::Info,
        2 => Level::Warn,
        _ => Level::Error,
    };
    caller.data_mut().log(level, &String::from_utf8_lossy(&text))
}

/// What `AssemblyScript` calls before it gives up: where, and why, in UTF-16 with its length before it.
fn abort(mut caller: Caller<'_, Host>, message: i32, file: i32, line: i32, column: i32) -> wasmtime::Result<()> {
    let mut words = |pointer: i32| {
        let length = text(&mut caller, pointer.wrapping_sub(4), 4).ok()?;
        let length = u32::from_le_bytes(length.try_into().ok()?).min(1024);
        let units = text(&mut caller, pointer, length.cast_signed()).ok()?;
        let units: Vec<_> = units.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        Some(super::host::printable(&String::from_utf16_lossy(&units), 1024))
    };
    let unknown = || "?".to_owned();
    let message = if message == 0 { None } else { words(message) };
    let file = if file == 0 { None } else { words(file) };
    let message = message.unwrap_or_else(|| "without a message".to_owned());
    let place = format!("{}:{line}:{column}", file.unwrap_or_else(unknown));
    Err(wasmtime::Error::msg(format!("it aborted: {message} at {place}")))
}
