//! The host against the bundled plugins and against guests written by hand that do what no plugin should.

mod bundled;
mod cached;
mod capabilities;
mod contract;
mod denied;
mod hostile;
mod lanes;
mod policies;
mod unusable;

use std::borrow::Cow;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::*;
use crate::config::{ByteSize, Span};

/// Limits as shipped, with less time, so that tests of endless loops end soon, and less of what tests use up.
fn limits() -> PluginsConfig {
    let millis = |millis| Span(Duration::from_millis(millis));
    let shipped = crate::config::load::assemble(None, []).unwrap().plugins;
    PluginsConfig {
        threads: 2,
        batch_bytes_max: ByteSize(4 << 20),
        memory_bytes_max: ByteSize(16 << 20),
        time_per_order: millis(10),
        time_per_batch_min: millis(20),
        time_per_batch_max: millis(250),
        wall_per_batch_max: millis(60_000),
        output_bytes_max: ByteSize(256 << 10),
        config: std::collections::BTreeMap::new(),
        ..shipped
    }
}

fn candidate(body: impl Into<Bytes>) -> Candidate {
    Candidate {
        order_id: OrderId::generate(),
        route: "/orders".into(),
        event_type: "OrderCreated".into(),
        received: Timestamp(1_290_000_000_007),
        attempt: 1,
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        body: body.into(),
    }
}

pub(crate) fn source(name: &str, component: impl Into<Bytes>) -> PluginSource {
    PluginSource {
        name: name.to_owned(),
        origin: PluginOrigin::File(format!("{name}.wasm").into()),
        component: component.into(),
        config_json: b"{}".to_vec(),
        policy: PluginPolicy::default(),
        tables: Tables::default(),
    }
}

/// A guest by hand, with its places filled in.
pub(crate) fn guest(evil: &str, configure: &str, start: &str) -> Vec<u8> {
    let text = include_str!("tests/guest.wat");
    component(&text.replace("EVIL", evil).replace("CONFIGURE", configure).replace("START", start))
}

/// Makes a component of the text of a core module.
fn component(text: &str) -> Vec<u8> {
    let mut module = wat::parse_str(text).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let contract = include_str!("../../../plugin-sdk/wit/1.0.0/plugin.wit");
    let package = resolve.push_str("plugin.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some("validator")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

fn host(limits: &PluginsConfig, sources: Vec<PluginSource>) -> PluginHost {
    host_with(limits, sources, Arc::default())
}

fn host_with(limits: &PluginsConfig, sources: Vec<PluginSource>, metrics: Arc<Metrics>) -> PluginHost {
    let host = PluginHost::start(limits, metrics).unwrap();
    let loaded = host.load_all(limits, sources).unwrap();
    host.publish(Generation::new(1, loaded, []));
    host
}

/// Why a plugin is not loaded.
fn refused(limits: &PluginsConfig, source: PluginSource) -> PluginError {
    PluginHost::start(limits, Arc::default()).unwrap().load(limits, source).unwrap_err()
}

/// Makes a chain of loaded plugins that of the candidates' route.
fn chain(host: &PluginHost, names: &[&str]) {
    let present = host.generation();
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let plugins = present.plugins.clone();
    host.publish(Generation::new(present.number() + 1, plugins, [("/orders", names.as_slice())]));
}

/// Runs a future to its end, outside of any runtime: the host needs none.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn judge(host: &PluginHost, names: &[&str], bodies: impl IntoIterator<Item = Bytes>) -> Vec<Judgement> {
    chain(host, names);
    wait(host.judge("/orders", bodies.into_iter().map(candidate).collect(), &Pace::default()))
}

/// What became of an order, for comparing.
fn word(judgement: &Judgement) -> Cow<'static, str> {
    match &judgement.decision {
        Decision::Pass { patch, headers, .. } if patch.is_empty() && headers.is_empty() => "pass".into(),
        Decision::Pass { .. } => "patched".into(),
        Decision::Reject(_) => "reject".into(),
        Decision::Later { .. } => "later".into(),
        Decision::Fault { kind, .. } => kind.as_str().into(),
    }
}

fn body(judgement: &Judgement) -> &str {
    let Decision::Pass { body, .. } = &judgement.decision else { panic!("{judgement:?}") };
    std::str::from_utf8(body).unwrap()
}
