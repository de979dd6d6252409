//! WASI for components, made from the types of what a component imports: every version of every interface.

use wasmtime::StoreContextMut;
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{Component, Linker, LinkerInstance, Resource, ResourceType, Val};

use super::STEP;
use crate::plugin::host::Host;

/// Most random bytes of one call.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// What output streams say they have room for.
const ROOM: u64 = 64 << 10;

/// How deep answers may be nested; a type cannot contain itself, but a type can be large.
const DEPTH_MAX: usize = 32;

/// Every resource that a plugin can come by: none of them is anything.
struct Denied;

/// Defines what a component imports of WASI.
pub(in crate::plugin) fn link(linker: &mut Linker<Host>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (import, item) in component.component_type().imports(engine) {
        if !import.starts_with("wasi:") {
            continue;
        }
        let ComponentItem::ComponentInstance(instance) = item.ty else {
            return Err(wasmtime::Error::msg(format!("it imports `{import}`, which is not an interface")));
        };
        let mut place = linker.instance(import)?;
        let interface = import.split('@').next().unwrap_or(import);
        for (name, item) in instance.exports(engine) {
            define(&mut place, interface, name, &item.ty)?;
        }
    }
    Ok(())
}

fn define(
    place: &mut LinkerInstance<'_, Host>,
    interface: &str,
    name: &str,
    item: &ComponentItem,
) -> wasmtime::Result<()> {
    match item {
        ComponentItem::ComponentFunc(_) => {
            let full = format!("{interface}#{name}");
            place.func_new(name, move |store, ty, params, results| answer(store, &full, &ty, params, results))
        }
        ComponentItem::Resource(_) => place.resource(name, ResourceType::host::<Denied>(), |_, _| Ok(())),
        ComponentItem::Type(_) => Ok(()),
        ComponentItem::CoreFunc(_)
        | ComponentItem::Module(_)
        | ComponentItem::Component(_)
        | ComponentItem::ComponentInstance(_) => {
            Err(wasmtime::Error::msg(format!("it imports `{interface}#{name}`, which is not a function")))
        }
    }
}

fn answer(
    mut store: StoreContextMut<'_, Host>,
    function: &str,
    ty: &ComponentFunc,
    params: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    for (ty, result) in ty.results().zip(results) {
        *result = match special(&mut store, function, params)? {
            Some(value) => value,
            None => denial(&mut store, &ty, DEPTH_MAX)?,
        };
    }
    for param in params {
        release(&mut store, param)?;
    }
    if function.starts_with("wasi:cli/exit#") {
        return Err(wasmtime::Error::msg("it wants to exit"));
    }
    Ok(())
}

/// Gives back what was lent or handed over.
fn release(store: &mut StoreContextMut<'_, Host>, value: &Val) -> wasmtime::Result<()> {
    match value {
        Val::Resource(resource) => resource.resource_drop(store),
        Val::List(values) | Val::Tuple(values) | Val::FixedLengthList(values) => {
            values.iter().try_for_each(|value| release(store, value))
        }
        Val::Record(fields) => fields.iter().try_for_each(|(_, value)| release(store, value)),
        Val::Map(pairs) => {
            pairs.iter().try_for_each(|(key, value)| release(store, key).and_then(|()| release(store, value)))
        }
        Val::Variant(_, Some(value)) | Val::Option(Some(value)) | Val::Result(Ok(Some(value)) | Err(Some(value))) => {
            release(store, value)
        }
        _ => Ok(()),
    }
}

/// The functions that have more to say than no.
fn special(store: &mut StoreContextMut<'_, Host>, function: &str, params: &[Val]) -> wasmtime::Result<Option<Val>> {
    let stub = &mut store.data_mut().stub;
    let good = |value: Option<Val>| Val::Result(Ok(value.map(Box::new)));
    Ok(Some(match function {
        "wasi:clocks/monotonic-clock#now" => Val::U64(stub.now()),
        "wasi:clocks/monotonic-clock#resolution" => Val::U64(STEP),
        "wasi:clocks/wall-clock#now" => time(stub.now()),
        "wasi:clocks/wall-clock#resolution" => time(STEP),
        "wasi:random/random#get-random-u64" | "wasi:random/insecure#get-insecure-random-u64" => Val::U64(stub.next()),
        "wasi:random/insecure-seed#insecure-seed" => Val::Tuple(vec![Val::U64(stub.next()), Val::U64(stub.next())]),
        "wasi:random/random#get-random-bytes" | "wasi:random/insecure#get-insecure-random-bytes" => {
            let [Val::U64(count)] = params else { return Ok(None) };
            if *count > RANDOM_BYTES_MAX {
                let text = format!("it asks for {count} random bytes at once, more than {RANDOM_BYTES_MAX}");
                return Err(wasmtime::Error::msg(text));
            }
            Val::List((0..*count).map(|_| Val::U8(stub.byte())).collect())
        }
        // Output is taken and forgotten.
        "wasi:io/streams#[method]output-stream.check-write" => good(Some(Val::U64(ROOM))),
        "wasi:io/streams#[method]output-stream.write"
        | "wasi:io/streams#[method]output-stream.blocking-write-and-flush"
        | "wasi:io/streams#[method]output-stream.flush"
        | "wasi:io/streams#[method]output-stream.blocking-flush"
        | "wasi:io/streams#[method]output-stream.write-zeroes"
        | "wasi:io/streams#[method]output-stream.blocking-write-zeroes-and-flush" => good(None),
        // Whatever is waited for has happened.
        "wasi:io/poll#[method]pollable.ready" => Val::Bool(true),
        "wasi:io/poll#poll" => {
            let [Val::List(waiting)] = params else { return Ok(None) };
            Val::List((0..).map(Val::U32).take(waiting.len()).collect())
        }
        _ => return Ok(None),
    }))
}

fn time(nanos: u64) -> Val {
    let below = u32::try_from(nanos % 1_000_000_000).unwrap_or(0);
    let fields = [("seconds", Val::U64(nanos / 1_000_000_000)), ("nanoseconds", Val::U32(below))];
    Val::Record(fields.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// The value of a type that says least: an error, nothing, zero, empty.
fn denial(store: &mut StoreContextMut<'_, Host>, ty: &Type, depth: usize) -> wasmtime::Result<Val> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(wasmtime::Error::msg("a function of WASI that it imports has a type that is nested too deep"));
    };
    let boxed = |store: &mut StoreContextMut<'_, Host>, ty: Option<Type>| {
        ty.map(|ty| denial(store, &ty, depth).map(Box::new)).transpose()
    };
    Ok(match ty {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char('\0'),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Map(_) => Val::Map(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Enum(ty) => Val::Enum(ty.names().next().unwrap_or_default().to_owned()),
        Type::Result(ty) => Val::Result(Err(boxed(store, ty.err())?)),
        Type::Tuple(ty) => Val::Tuple(ty.types().map(|ty| denial(store, &ty, depth)).collect::<wasmtime::Result<_>>()?),
        Type::Record(ty) => {
            let fields = ty.fields().map(|field| Ok((field.name.to_owned(), denial(store, &field.ty, depth)?)));
            Val::Record(fields.collect::<wasmtime::Result<_>>()?)
        }
        Type::Variant(ty) => {
            // A case without more to it: of the errors of a stream, that it is closed.
            let plain = ty.cases().find(|case| case.ty.is_none());
            let Some(case) = plain.or_else(|| ty.cases().next()) else { return Err(unfit("an empty variant")) };
            Val::Variant(case.name.to_owned(), boxed(store, case.ty)?)
        }
        Type::Own(_) => Val::Resource(Resource::<Denied>::new_own(0).try_into_resource_any(store)?),
        Type::Borrow(_) | Type::Future(_) | Type::Stream(_) | Type::ErrorContext | Type::FixedLengthList(_) => {
            return Err(unfit("a type that no answer can have here"));
        }
    })
}

fn unfit(what: &str) -> wasmtime::Error {
    wasmtime::Error::msg(format!("a function of WASI that it imports answers with {what}"))
}
