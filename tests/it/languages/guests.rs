//! The plugins of a folder, in the gateway's own host.

use std::path::Path;
use std::sync::Arc;

use sluice::clock::Timestamp;
use sluice::config::PluginPolicy;
use sluice::order::OrderId;
use sluice::plugin::{
    Candidate, Decision, Generation, Judgement, Pace, PluginHost, PluginOrigin, PluginSource, Tables,
};

use super::model::{Answer, Finding, config};
use super::{Language, limits};

/// A language's plugin. All of them share one host, each on a route of its own.
pub(super) struct Guests {
    host: PluginHost,
    name: String,
}

impl Guests {
    /// Loads every `LANGUAGE.wasm` of a folder.
    pub(super) fn load(folder: &Path) -> Vec<Self> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .collect();
        files.sort();
        let sources = files.iter().map(|path| PluginSource {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            origin: PluginOrigin::File(path.clone()),
            component: std::fs::read(path).unwrap().into(),
            config_json: config().into_bytes(),
            policy: PluginPolicy::default(),
            tables: Tables::default(),
        });
        let limits = limits();
        let host = PluginHost::start(&limits, Arc::default()).unwrap();
        let loaded = host.load_all(&limits, sources.collect()).unwrap();
        let chains: Vec<(String, Vec<String>)> = loaded
            .iter()
            .map(|plugin| (format!("/{}", plugin.info().name), vec![plugin.info().name.to_string()]))
            .collect();
        let names = loaded.iter().map(|plugin| plugin.info().name.to_string()).collect::<Vec<_>>();
        host.publish(Generation::new(
            1,
            loaded,
            chains.iter().map(|(route, names)| (route.as_str(), names.as_slice())),
        ));
        names.into_iter().map(|name| Self { host: host.clone(), name }).collect()
    }
}

impl Language for Guests {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&self, orders: &[String]) -> Vec<Answer> {
        let route = format!("/{}", self.name);
        let candidate = |order: &String| Candidate {
            order_id: OrderId::generate(),
            route: route.as_str().into(),
            event_type: "OrderCreated".into(),
            received: Timestamp(1_290_000_000_007),
            attempt: 1,
            traceparent: "".into(),
            body: order.clone().into(),
        };
        let batch = orders.iter().map(candidate).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.host.judge(&route, batch, &Pace::default())).into_iter().map(answer).collect()
    }
}

fn answer(judgement: Judgement) -> Answer {
    match judgement.decision {
        Decision::Pass { patch, body, headers } => {
            let operations: Vec<serde_json::Value> =
                patch.iter().map(|operation| serde_json::to_value(operation).unwrap()).collect();
            if operations.iter().any(|operation| operation["op"] != "set") {
                return Answer::Else(format!("{operations:?}"));
            }
            // The bytes of a value, as the record of the patch keeps them.
            let raw = |operation| {
                let text = serde_json::to_string(operation).unwrap();
                let members: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
                    serde_json::from_str(&text).unwrap();
                let path: String = serde_json::from_str(members["path"].get()).unwrap();
                (path, members["value"].get().to_owned())
            };
            let patch = patch.iter().map(raw).collect();
            Answer::Enrich { patch, headers, body: String::from_utf8(body.to_vec()).unwrap() }
        }
        Decision::Reject(problems) => {
            let finding = |problem: sluice::order::Problem| Finding {
                code: problem.code,
                title: problem.title,
                detail: problem.detail,
                pointer: problem.pointer,
            };
            Answer::Reject(problems.into_iter().map(finding).collect())
        }
        decision => Answer::Else(format!("{decision:?}")),
    }
}
