//! Preview 1 of WASI, twice: as an adapter for modules that are made components, as host functions for the bytes lane.

use wasmtime::{Caller, Extern, Linker};

use super::STEP;
use crate::plugin::host::Host;

/// Errno of what does not exist: `badf`.
const BADF: i32 = 8;

/// Errno of a question that makes no sense: `inval`.
const INVAL: i32 = 28;

/// The functions that answer something, with their types.
const ANSWERED: [(&str, &str, &str); 12] = [
    ("args_get", "ii", "i"),
    ("args_sizes_get", "ii", "i"),
    ("clock_res_get", "ii", "i"),
    ("clock_time_get", "iIi", "i"),
    ("environ_get", "ii", "i"),
    ("environ_sizes_get", "ii", "i"),
    ("fd_write", "iiii", "i"),
    ("poll_oneoff", "iiii", "i"),
    ("proc_exit", "i", ""),
    ("proc_raise", "i", "i"),
    ("random_get", "ii", "i"),
    ("sched_yield", "", "i"),
];

/// The functions that always answer [`BADF`], with their parameters: `i` for 32 bits, `I` for 64.
const REFUSED: [(&str, &str); 34] = [
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// The type of a function in short, such as `(i32, i64) -> i32`; none if there is no such function.
pub(in crate::plugin) fn signature(name: &str) -> Option<String> {
    let (params, result) = types(name)?;
    let names = |letters: &str| letters.chars().map(word).collect::<Vec<_>>().join(", ");
    let result = if result.is_empty() { "()".to_owned() } else { names(result) };
    Some(format!("({}) -> {result}", names(params)))
}

fn types(name: &str) -> Option<(&'static str, &'static str)> {
    let answered = ANSWERED.iter().find(|(own, _, _)| *own == name).map(|(_, params, result)| (*params, *result));
    answered.or_else(|| REFUSED.iter().find(|(own, _)| *own == name).map(|(_, params)| (*params, "i")))
}

fn word(letter: char) -> &'static str {
    if letter == 'I' { "i64" } else { "i32" }
}

/// The adapter for `wit-component`, which leaves away what a module does not use.
pub(in crate::plugin) fn adapter() -> Result<Vec<u8>, wat::Error> {
    let refused = REFUSED.map(|(name, params)| {
        let params: Vec<_> = params.chars().map(word).collect();
        format!("(func (export \"{name}\") (param {}) (result i32) (i32.const {BADF}))", params.join(" "))
    });
    wat::parse_str(include_str!("preview1.wat").replace("REFUSED", &refused.join("\n  ")))
}

/// Gives a core module the functions that it imports.
pub(in crate::plugin) fn link(linker: &mut Linker<Host>, module: &wasmtime::Module) -> wasmtime::Result<()> {
    // Go's modules import some functions twice: once for the runtime, once for its packages.
    linker.allow_shadowing(true);
    for import in module.imports().filter(|import| import.module() == crate::plugin::lane::PREVIEW1) {
        let name = import.name();
        let module = import.module();
        match name {
            "args_sizes_get" | "environ_sizes_get" => linker.func_wrap(module, name, sizes_get)?,
            "args_get" | "environ_get" => linker.func_wrap(module, name, |_: i32, _: i32| 0_i32)?,
            "clock_res_get" => linker.func_wrap(module, name, clock_res_get)?,
            "clock_time_get" => linker.func_wrap(module, name, clock_time_get)?,
            "random_get" => linker.func_wrap(module, name, random_get)?,
            "fd_write" => linker.func_wrap(module, name, fd_write)?,
            "poll_oneoff" => linker.func_wrap(module, name, poll_oneoff)?,
            "sched_yield" => linker.func_wrap(module, name, || 0_i32)?,
            "proc_exit" => linker.func_wrap(module, name, |_: i32| -> wasmtime::Result<()> {
                Err(wasmtime::Error::msg("it wants to exit"))
            })?,
            "proc_raise" => linker.func_wrap(module, name, |_: i32| -> wasmtime::Result<i32> {
                Err(wasmtime::Error::msg("it wants to exit"))
            })?,
            _ => {
                // Of the right type: that was checked when the lane was chosen.
                let wasmtime::ExternType::Func(ty) = import.ty() else { continue };
                linker.func_new(module, name, ty, |_, _, results| {
                    for result in results {
                        *result = wasmtime::Val::I32(BADF);
                    }
                    Ok(())
                })?
            }
        };
    }
    Ok(())
}

/// The memory of an instance and the data of its store.
struct Memory<'caller> {
    bytes: &'caller mut [u8],
    host: &'caller mut Host,
}

/// What WASI cannot do without a memory, or outside of it.
fn outside() -> wasmtime::Error {
    wasmtime::Error::new(wasmtime::Trap::MemoryOutOfBounds)
}

impl<'caller> Memory<'caller> {
    fn of(caller: &'caller mut Caller<'_, Host>) -> wasmtime::Result<Self> {
        let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return Err(outside()) };
        let (bytes, host) = memory.data_and_store_mut(caller);
        Ok(Self { bytes, host })
    }

    fn at(&mut self, at: i32, bytes: usize) -> wasmtime::Result<&mut [u8]> {
        let start = usize::try_from(at.cast_unsigned()).map_err(|_| outside())?;
        let end = start.checked_add(bytes).ok_or_else(outside)?;
        self.bytes.get_mut(start..end).ok_or_else(outside)
    }

    fn write<const N: usize>(&mut self, at: i32, bytes: [u8; N]) -> wasmtime::Result<()> {
        self.at(at, N)?.copy_from_slice(&bytes);
        Ok(())
    }

    fn read<const N: usize>(&mut self, at: i32) -> wasmtime::Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.at(at, N)?);
        Ok(bytes)
    }
}

fn sizes_get(mut caller: Caller<'_, Host>, count: i32, bytes: i32) -> wasmtime::Result<i32> {
    let mut memory = Memory::of(&mut caller)?;
    memory.write(count, [0; 4])?;
    memory.write(bytes, [0; 4])?;
    Ok(0)
}

fn clock_res_get(mut caller: Caller<'_, Host>, _id: i32, to: i32) -> wasmtime::Result<i32> {
    Memory::of(&mut caller)?.write(to, STEP.to_le_bytes())?;
    Ok(0)
}

fn clock_time_get(mut caller: Caller<'_, Host>, _id: i32, _precision: i64, to: i32) -> wasmtime::Result<i32> {
    let mut memory = Memory::of(&mut caller)?;
    let now = memory.host.stub.now();
    memory.write(to, now.to_le_bytes())?;
    Ok(0)
}

fn random_get(mut caller: Caller<'_, Host>, to: i32, count: i32) -> wasmtime::Result<i32> {
    let Memory { bytes, host } = Memory::of(&mut caller)?;
    let index = |number: i32| usize::try_from(number.cast_unsigned()).map_err(|_| outside());
    let start = index(to)?;
    let end = start.checked_add(index(count)?).ok_or_else(outside)?;
    for byte in bytes.get_mut(start..end).ok_or_else(outside)? {
        *byte = host.stub.byte();
    }
    Ok(0)
}

fn fd_write(mut caller: Caller<'_, Host>, fd: i32, parts: i32, count: i32, to: i32) -> wasmtime::Result<i32> {
    if fd != 1 && fd != 2 {
        return Ok(BADF);
    }
    let mut memory = Memory::of(&mut caller)?;
    let mut sum = 0_u32;
    let mut at = parts;
    for _ in 0..count.cast_unsigned() {
        let [_, _, _, _, length @ ..] = memory.read::<8>(at)?;
        sum = sum.wrapping_add(u32::from_le_bytes(length));
        at = at.wrapping_add(8);
    }
    memory.write(to, sum.to_le_bytes())?;
    Ok(0)
}

/// Waiting for a time lets it pass at once; waiting for anything else fails.
fn poll_oneoff(mut caller: Caller<'_, Host>, from: i32, to: i32, n: i32, count: i32) -> wasmtime::Result<i32> {
    if n == 0 {
        return Ok(INVAL);
    }
    let mut memory = Memory::of(&mut caller)?;
    let mut at = from;
    let mut answer = None;
    for _ in 0..n.cast_unsigned() {
        if memory.read::<1>(at.wrapping_add(8))? == [0] {
            let time = u64::from_le_bytes(memory.read(at.wrapping_add(24))?);
            let [flags, _] = memory.read(at.wrapping_add(40))?;
            let is_absolute = flags & 1 == 1;
            let stub = &mut memory.host.stub;
            let left =
                if is_absolute { time.wrapping_sub(stub.now).cast_signed().max(0).cast_unsigned() } else { time };
            stub.pass(left);
            answer = Some((at, 0, 0));
            break;
        }
        at = at.wrapping_add(48);
    }
    let (at, errno, kind) = match answer {
        Some(answer) => answer,
        None => (from, 8, memory.read::<1>(from.wrapping_add(8))?[0]),
    };
    let mut event = [0; 32];
    event[..8].copy_from_slice(&memory.read::<8>(at)?);
    event[8] = errno;
    event[10] = kind;
    memory.write(to, event)?;
    memory.write(count, 1_u32.to_le_bytes())?;
    Ok(0)
}
