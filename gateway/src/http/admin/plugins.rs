//! Plugins: which versions serve, what waits in the folder, and what the operator does about it.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Desk, json_answer};
use crate::catalog::{CandidateReport, PluginReport, Refusal, Report, Version};
use crate::http::error::HttpProblem;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PinQuery {
    digest: Option<String>,
}

/// `GET /plugins`: the plugins that serve, and what lies in the folder and does not.
pub(super) async fn list(State(desk): State<Arc<Desk>>) -> Response {
    json_answer(&whole(&desk.state.catalog.report()))
}

/// `POST /plugins/reload`: looks now and answers with how things stand then.
pub(super) async fn reload(State(desk): State<Arc<Desk>>) -> Result<Response, HttpProblem> {
    let done = desk.state.catalog.reload(None).await;
    answer(&desk, done)
}

/// `POST /plugins/{name}/reload`: the same, and tries this plugin's file although it was refused or withdrawn before.
pub(super) async fn reload_one(
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
) -> Result<Response, HttpProblem> {
    let done = desk.state.catalog.reload(Some(name)).await;
    answer(&desk, done)
}

/// `POST /plugins/{name}/rollback`: puts the version before the present one back.
pub(super) async fn roll_back(
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
) -> Result<Response, HttpProblem> {
    let done = desk.state.catalog.roll_back(name).await;
    answer(&desk, done)
}

/// `POST /plugins/{name}/pin?digest=`: writes the digest, else that of the serving version, into `plugins.lock`.
pub(super) async fn pin(
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
    query: Result<Query<PinQuery>, QueryRejection>,
) -> Result<Response, HttpProblem> {
    let Query(query) = query.map_err(|rejection| HttpProblem::bad_query(rejection.body_text()))?;
    let done = desk.state.catalog.pin(name, query.digest).await;
    answer(&desk, done)
}

/// `POST /plugins/{name}/forget`: gives up the kept versions of a plugin whose file is gone.
pub(super) async fn forget(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Result<Response, HttpProblem> {
    let done = desk.state.catalog.forget(name).await;
    answer(&desk, done)
}

fn answer(desk: &Desk, done: Result<(), Refusal>) -> Result<Response, HttpProblem> {
    match done {
        Ok(()) => Ok(json_answer(&whole(&desk.state.catalog.report()))),
        Err(Refusal::Unknown(_)) => Err(HttpProblem::not_found("plugin in any route")),
        Err(Refusal::State(reason)) => Err(HttpProblem::conflict(reason)),
        Err(Refusal::Gone) => Err(HttpProblem::internal()),
    }
}

fn whole(report: &Report) -> Value {
    json!({
        "generation": report.generation,
        "plugins": report.plugins.iter().map(plugin).collect::<Vec<_>>(),
        "configuration": {
            "problems": report.configuration_problems,
            "needsRestart": report.restart_keys,
        },
    })
}

fn plugin(plugin: &PluginReport) -> Value {
    json!({
        "name": plugin.name,
        "state": "serving",
        "digest": plugin.serving.digest,
        "origin": plugin.serving.origin,
        "since": plugin.serving.since,
        "generation": plugin.generation,
        "lane": plugin.lane,
        "capabilities": &*plugin.capabilities,
        "grants": plugin.grants,
        "bytes": plugin.bytes,
        "routes": plugin.routes,
        "pin": plugin.pin,
        "trouble": plugin.trouble,
        "candidate": plugin.candidate.as_ref().map(candidate),
        "previous": plugin.previous.as_ref().map(version),
    })
}

fn candidate(candidate: &CandidateReport) -> Value {
    json!({
        "digest": candidate.digest,
        "state": candidate.state.as_str(),
        "code": candidate.code,
        "reason": candidate.reason,
        "missingGrants": candidate.missing_grants,
        "since": candidate.since,
    })
}

fn version(version: &Version) -> Value {
    json!({ "digest": version.digest, "origin": version.origin, "since": version.since })
}
