//! Runs a chain of plugins on a batch, on the present thread.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::debug;

use super::call::{Call, Event, Failure};
use super::engine::Runtime;
use super::load::LoadedPlugin;
use super::reported::Names;
use super::verdict::{self, Answer};
use super::{Candidate, Decision, FaultKind, Judgement, PluginRun};
use crate::config::OnFault;
use crate::order::patch::{self, PatchError, PatchOp};
use crate::order::{Problem, Source};
use crate::telemetry::metrics::{FaultLabels, Metrics, NameLabel, PluginLabels};

/// A plugin of a chain.
#[derive(Debug)]
pub(super) enum Link {
    Loaded(LoadedPlugin),
    Absent(Arc<str>),
}

impl Link {
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Self::Loaded(plugin) => Arc::clone(&plugin.info().name),
            Self::Absent(name) => Arc::clone(name),
        }
    }
}

/// Header of a record whose order some plugins failed on and were passed over: their names, by comma.
const UNVERIFIED_HEADER: &str = "sluice-unverified";

/// What running a chain needs.
pub(super) struct Chain<'host> {
    pub(super) runtime: &'host Runtime,
    pub(super) metrics: &'host Metrics,
    pub(super) shared: &'host Shared,
}

/// What all chains share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Names of the metrics that plugins have.
    names: Names,
    /// Hears of plugins that become broken.
    pub(super) broken: Notify,
}

/// An order on its way through the chain.
struct Order {
    candidate: Candidate,
    id: String,
    received: String,
    /// As patched so far.
    body: Bytes,
    patch: Vec<PatchOp>,
    headers: Vec<(String, String)>,
    runs: Vec<PluginRun>,
    /// Plugins that failed on it and were passed over.
    unverified: Vec<Arc<str>>,
    end: Option<Decision>,
}

impl Chain<'_> {
    /// Judges orders. Result *i* belongs to order *i*.
    pub(super) fn run(&self, links: &[Link], orders: Vec<Candidate>) -> Vec<Judgement> {
        let mut orders: Vec<_> = orders.into_iter().map(Order::new).collect();
        for link in links {
            let mut open: Vec<&mut Order> = orders.iter_mut().filter(|order| order.end.is_none()).collect();
            match link {
                _ if open.is_empty() => break,
                Link::Loaded(plugin) => self.ask(plugin, &mut open),
                Link::Absent(name) => {
                    for order in open {
                        let detail = "no plugin of this name is loaded".to_owned();
                        let plugin = Arc::clone(name);
                        order.end = Some(Decision::Fault { plugin, kind: FaultKind::Absent, detail });
                    }
                }
            }
        }
        orders.into_iter().map(Order::finish).collect()
    }

    /// Asks one plugin about orders; after a fault again in halves, until those at fault stand alone. After a call that ran
    /// out of time each is asked about alone: halves would burn the time of each half that has one that does not end.
    fn ask(&self, plugin: &LoadedPlugin, orders: &mut [&mut Order]) {
        let start = Instant::now();
        let attrs: Vec<_> = orders.iter().map(|order| order.attrs()).collect();
        let events: Vec<_> =
            orders.iter().zip(&attrs).zip(0..).map(|((order, attrs), seq)| order.event(seq, attrs)).collect();
        let call = Call { runtime: self.runtime, plugin };
        let outcomes = call.process(&events);
        let taken = start.elapsed();
        let name = &plugin.info().name;
        let label = NameLabel { plugin: name.to_string() };
        self.metrics.plugin_call_seconds.get_or_create(&label).observe(taken.as_secs_f64());
        let answers: Vec<_> = match outcomes {
            Ok((outcomes, reported)) => {
                self.shared.names.add(reported, name, plugin.limits(), self.metrics);
                outcomes.into_iter().map(|outcome| verdict::read(outcome, name, plugin.limits())).collect()
            }
            Err(Failure::Fault { kind: FaultKind::Time, .. }) if orders.len() > 1 => {
                for order in orders.chunks_mut(1) {
                    self.ask(plugin, order);
                }
                return;
            }
            Err(_) if orders.len() > 1 => {
                let (left, right) = orders.split_at_mut(orders.len() / 2);
                self.ask(plugin, left);
                self.ask(plugin, right);
                return;
            }
            Err(Failure::Fault { kind, detail }) => vec![Answer::fault(name, kind, detail)],
            Err(Failure::Refused(problems)) => {
                let detail = format!("it refused its configuration: {}", problems.join("; "));
                vec![Answer::fault(name, FaultKind::Reported, detail)]
            }
        };
        let share = taken.as_micros() / orders.len().max(1) as u128;
        let micros = u64::try_from(share).unwrap_or(u64::MAX);
        let mut counts: Vec<(&'static str, u64)> = Vec::new();
        let mut judged = Vec::with_capacity(orders.len());
        for (order, answer) in orders.iter_mut().zip(answers) {
            let (word, fault) = order.take(plugin, answer, micros);
            judged.push((order.candidate.order_id, order.candidate.attempt, fault.is_some()));
            match counts.iter_mut().find(|(own, _)| *own == word) {
                Some((_, count)) => *count += 1,
                None => counts.push((word, 1)),
            }
            if let Some(kind) = fault {
                let labels = FaultLabels { plugin: name.to_string(), kind: kind.as_str() };
                self.metrics.plugin_faults.get_or_create(&labels).inc();
            }
        }
        for (verdict, count) in counts {
            let labels = PluginLabels { plugin: name.to_string(), verdict };
            self.metrics.plugin_orders.get_or_create(&labels).inc_by(count);
        }
        if plugin.note(judged) {
            self.shared.broken.notify_one();
        }
    }
}

impl Order {
    fn new(candidate: Candidate) -> Self {
        Self {
            id: candidate.order_id.to_string(),
            received: candidate.received.to_string(),
            body: candidate.body.clone(),
            patch: Vec::new(),
            headers: Vec::new(),
            runs: Vec::new(),
            unverified: Vec::new(),
            end: None,
            candidate,
        }
    }

    fn attrs(&self) -> Vec<(&str, &str)> {
        if self.candidate.traceparent.is_empty() {
            Vec::new()
        } else {
            vec![("traceparent", &self.candidate.traceparent)]
        }
    }

    fn event<'event>(&'event self, seq: u32, attrs: &'event [(&'event str, &'event str)]) -> Event<'event> {
        Event {
            seq,
            id: &self.id,
            route: &self.candidate.route,
            kind: &self.candidate.event_type,
            received: &self.received,
            attempt: self.candidate.attempt,
            attrs,
            body: &self.body,
        }
    }

    fn patched(&self, patch: &[PatchOp]) -> Result<Bytes, PatchError> {
        if patch.is_empty() { Ok(self.body.clone()) } else { patch::apply(&self.body, patch) }
    }

    /// Takes a plugin's answer in and returns its word, and how the plugin failed if it did. A patch that does not fit is
    /// the plugin's fault.
    fn take(&mut self, plugin: &LoadedPlugin, answer: Answer, micros: u64) -> (&'static str, Option<FaultKind>) {
        let name = &plugin.info().name;
        let answer = match answer {
            Answer::GoesOn { patch, headers } => match self.patched(&patch) {
                Ok(body) => {
                    self.body = body;
                    Answer::GoesOn { patch, headers }
                }
                Err(error) => Answer::fault(name, FaultKind::Contract, error.to_string()),
            },
            answer @ Answer::Ends(_) => answer,
        };
        let word = answer.word();
        let digest = Arc::clone(&plugin.info().digest);
        self.runs.push(PluginRun { name: Arc::clone(name), digest, verdict: word, micros });
        match answer {
            Answer::GoesOn { patch, headers } => {
                self.patch.extend(patch);
                for (name, value) in headers {
                    self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(&name));
                    self.headers.push((name, value));
                }
            }
            Answer::Ends(Decision::Fault { kind, detail, .. }) => {
                self.fail(plugin, kind, detail);
                return (word, Some(kind));
            }
            Answer::Ends(decision) => self.end = Some(decision),
        }
        (word, None)
    }

    /// Does what the plugin's policy says where it fails.
    fn fail(&mut self, plugin: &LoadedPlugin, kind: FaultKind, detail: String) {
        let name = &plugin.info().name;
        let on_fault = plugin.limits().on_fault;
        let detail = verdict::shown(detail, plugin.limits());
        if on_fault != OnFault::Hold {
            // The order's status says nothing of it.
            debug!(plugin.name = &**name, order.id = self.id, fault = kind.as_str(), "{detail}");
        }
        match on_fault {
            OnFault::Hold => self.end = Some(Decision::Fault { plugin: Arc::clone(name), kind, detail }),
            OnFault::Reject => {
                let problem = Problem {
                    code: "plugin-failed".to_owned(),
                    title: "A plugin failed on this order".to_owned(),
                    detail: Some(format!("plugin `{name}` could not judge it, so it is refused")),
                    pointer: None,
                    source: Source::Plugin,
                };
                self.end = Some(Decision::Reject(vec![problem]));
            }
            OnFault::SkipAndMark => self.unverified.push(Arc::clone(name)),
        }
    }

    fn finish(mut self) -> Judgement {
        if !self.unverified.is_empty() {
            self.headers.push((UNVERIFIED_HEADER.to_owned(), self.unverified.join(",")));
        }
        let pass = Decision::Pass { patch: self.patch, body: self.body, headers: self.headers };
        Judgement { runs: self.runs, decision: self.end.unwrap_or(pass) }
    }
}
