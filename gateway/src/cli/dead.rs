//! `sluice dead`: dead letters of a running node, and what the operator makes of them.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::Client;
use super::{AdminUrl, Output, base_url, show};

/// Dead letters asked for at a time.
const PAGE: usize = 100;

#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, oldest first.
    List(ListArgs),
    /// Print one with its payload, as JSON.
    Show {
        id: i64,
        #[command(flatten)]
        admin: AdminUrl,
    },
    /// Put them back: each order goes to the end of its key.
    Redrive(ActArgs),
    /// Give them up: each order ends CANCELLED.
    Discard(ActArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only these.
    #[arg(long, value_parser = ["order", "record", "reply"])]
    kind: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminUrl,
}

#[derive(Debug, Args)]
pub struct ActArgs {
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    admin: AdminUrl,
}

pub(super) fn run(command: DeadCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let connect =
        |admin: AdminUrl| base_url(admin.url, config, |config| config.admin.listen).map(|url| Client::new(&url));
    match command {
        DeadCommand::List(ListArgs { kind, limit, output, admin }) => {
            let found = list(&connect(admin)?, kind.as_deref(), limit)?;
            show::list(output, &found, &["id", "kind", "orderId", "reason", "since", "attempts", "detail"])?;
        }
        DeadCommand::Show { id, admin } => {
            let client = connect(admin)?;
            let answer = client.get(&format!("/dead/{id}")).map_err(|error| client.unreachable(&error))?.success()?;
            writeln!(io::stdout(), "{}", answer.text().trim_end())?;
        }
        DeadCommand::Redrive(ActArgs { ids, admin }) => return act(&connect(admin)?, &ids, "redrive", "redriven"),
        DeadCommand::Discard(ActArgs { ids, admin }) => return act(&connect(admin)?, &ids, "discard", "discarded"),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(client: &Client, kind: Option<&str>, limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut found: Vec<Value> = Vec::new();
    let mut after = String::new();
    while found.len() < limit {
        let mut path = format!("/dead?limit={}", (limit - found.len()).min(PAGE));
        if let Some(kind) = kind {
            path.push_str(&format!("&kind={kind}"));
        }
        if !after.is_empty() {
            path.push_str(&format!("&after={after}"));
        }
        let mut answer = client.get(&path).map_err(|error| client.unreachable(&error))?.success()?.json()?;
        if let Some(Value::Array(page)) = answer.get_mut("dead").map(Value::take) {
            found.extend(page);
        }
        after = match answer.get("next") {
            Some(Value::String(next)) => next.clone(),
            Some(Value::Number(next)) => next.to_string(),
            _ => break,
        };
    }
    Ok(found)
}

/// Does it to each; a refusal of one does not keep it from the others.
fn act(client: &Client, ids: &[i64], verb: &str, done: &str) -> anyhow::Result<ExitCode> {
    let mut is_all_done = true;
    for id in ids {
        let answer =
            client.post(&format!("/dead/{id}/{verb}"), &[], b"").map_err(|error| client.unreachable(&error))?;
        if answer.is_success() {
            writeln!(io::stdout(), "{id}: {done}")?;
        } else {
            is_all_done = false;
            writeln!(io::stdout(), "{id}: not {done}: {}", answer.problem())?;
        }
    }
    Ok(if is_all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
