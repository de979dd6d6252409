//! `sluice dead`: dead letters of a running node, and what the operator makes of them.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::{AdminUrl, Output, base_url, show};
use crate::clock::{Clock, Timestamp};
use crate::config::Span;

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
    /// Replace the body of a dead order, or payload and headers of a dead reply; it stays dead until it is redriven.
    Edit(EditArgs),
    /// Put them back: each order goes to the end of its key, each reply into the inbox of its order.
    Redrive(ActArgs),
    /// Give them up: each order ends CANCELLED.
    Discard(ActArgs),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only these.
    #[arg(long, value_parser = ["order", "record", "reply"])]
    kind: Option<String>,
    /// Only those that died of this, such as `held-too-long`.
    #[arg(long)]
    reason: Option<String>,
    /// Only orders of this route, such as `/orders`.
    #[arg(long)]
    route: Option<String>,
    /// Only those that died since: a moment (RFC 3339), or how long ago (`2h`).
    #[arg(long, value_parser = since)]
    since: Option<Since>,
    /// Only those behind this one.
    #[arg(long, value_name = "ID")]
    after: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Since {
    Moment(Timestamp),
    Ago(Duration),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most so many.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminUrl,
}

#[derive(Debug, Args)]
pub struct EditArgs {
    id: i64,
    /// File with the new body or payload; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// A header of a reply. Said once or more it takes the place of all headers that there are.
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Put it back at once.
    #[arg(long)]
    redrive: bool,
    /// Who does it, for the timeline.
    #[arg(long, value_name = "NAME", default_value = "operator")]
    by: String,
    #[command(flatten)]
    admin: AdminUrl,
}

#[derive(Debug, Args)]
pub struct ActArgs {
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    ids: Vec<i64>,
    /// All that are dead now, as far as the filter goes. Broken off, it goes on when it is begun again.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Most per second.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Who does it, for the timeline.
    #[arg(long, value_name = "NAME", default_value = "operator")]
    by: String,
    #[arg(short, long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    admin: AdminUrl,
}

/// What is done to dead letters.
#[derive(Debug, Clone, Copy)]
struct Act {
    verb: &'static str,
    done: &'static str,
}

const REDRIVE: Act = Act { verb: "redrive", done: "redriven" };
const DISCARD: Act = Act { verb: "discard", done: "discarded" };

pub(super) fn run(command: DeadCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let connect =
        |admin: AdminUrl| base_url(admin.url, config, |config| config.admin.listen).map(|url| Client::new(&url));
    match command {
        DeadCommand::List(ListArgs { filter, limit, output, admin }) => {
            let found = list(&connect(admin)?, &filter, limit)?;
            let columns = ["id", "kind", "orderId", "reason", "since", "attempts", "redrives", "detail"];
            show::list(output, &found, &columns)?;
        }
        DeadCommand::Show { id, admin } => {
            let client = connect(admin)?;
            let answer = client.get(&format!("/dead/{id}")).map_err(|error| client.unreachable(&error))?.success()?;
            writeln!(io::stdout(), "{}", answer.text().trim_end())?;
        }
        DeadCommand::Edit(EditArgs { id, payload, headers, redrive, by, admin }) => {
            let client = connect(admin)?;
            edit(&client, id, payload.as_deref(), &headers, &by)?;
            writeln!(io::stdout(), "{id}: edited")?;
            if redrive {
                return act(&client, &[id], REDRIVE, &by, Output::Table);
            }
        }
        DeadCommand::Redrive(args) => return act_on(args, REDRIVE, connect),
        DeadCommand::Discard(args) => return act_on(args, DISCARD, connect),
    }
    Ok(ExitCode::SUCCESS)
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(span) = Span::parse(text) {
        return Ok(Since::Ago(span.0));
    }
    text.parse().map(Since::Moment).map_err(|_| "expected a moment (RFC 3339) or how long ago, such as 2h".to_owned())
}

impl Filter {
    /// As a query, without where it begins.
    fn query(&self) -> String {
        let since = self.since.map(|since| match since {
            Since::Moment(moment) => moment.to_string(),
            Since::Ago(span) => Clock::system().now().before(span).to_string(),
        });
        let parts = [
            ("kind", self.kind.as_ref()),
            ("reason", self.reason.as_ref()),
            ("route", self.route.as_ref()),
            ("since", since.as_ref()),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", segment(value?))));
        parts.collect()
    }
}

fn list(client: &Client, filter: &Filter, limit: usize) -> anyhow::Result<Vec<Value>> {
    let query = filter.query();
    let mut found: Vec<Value> = Vec::new();
    let mut after = filter.after.unwrap_or(0);
    while found.len() < limit {
        let path = format!("/dead?limit={}&after={after}{query}", (limit - found.len()).min(PAGE));
        let mut answer = client.get(&path).map_err(|error| client.unreachable(&error))?.success()?.json()?;
        if let Some(Value::Array(page)) = answer.get_mut("dead").map(Value::take) {
            found.extend(page);
        }
        match answer.get("next").and_then(Value::as_i64) {
            Some(next) => after = next,
            None => break,
        }
    }
    Ok(found)
}

fn edit(client: &Client, id: i64, payload: Option<&Path>, headers: &[String], by: &str) -> anyhow::Result<()> {
    anyhow::ensure!(payload.is_some() || !headers.is_empty(), "nothing to edit: name --payload or --header");
    let mut edit = json!({});
    if let Some(path) = payload {
        let bytes = if path == Path::new("-") {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).context("read standard input")?;
            bytes
        } else {
            std::fs::read(path).with_context(|| format!("read {}", path.display()))?
        };
        edit["payload"] = String::from_utf8(bytes).context("the payload is not UTF-8")?.into();
    }
    if !headers.is_empty() {
        let read = |header: &String| -> anyhow::Result<Value> {
            let (name, value) = header.split_once('=').with_context(|| format!("`{header}` is not NAME=VALUE"))?;
            Ok(json!({ "name": name, "value": value }))
        };
        edit["headers"] = headers.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?.into();
    }
    let own = [("Content-Type", "application/json"), ("Sluice-Operator", by)];
    let answer = client.post(&format!("/dead/{id}/edit"), &own, edit.to_string().as_bytes());
    answer.map_err(|error| client.unreachable(&error))?.success()?;
    Ok(())
}

fn act_on(
    args: ActArgs,
    what: Act,
    connect: impl FnOnce(AdminUrl) -> anyhow::Result<Client>,
) -> anyhow::Result<ExitCode> {
    let ActArgs { ids, all, filter, rate, by, output, admin } = args;
    let client = connect(admin)?;
    if all { act_on_all(&client, &filter, what, rate, &by, output) } else { act(&client, &ids, what, &by, output) }
}

/// Does it to each; a refusal of one does not keep it from the others.
fn act(client: &Client, ids: &[i64], what: Act, by: &str, output: Output) -> anyhow::Result<ExitCode> {
    let mut results = Vec::with_capacity(ids.len());
    for id in ids {
        let path = format!("/dead/{id}/{}", what.verb);
        let answer = client.post(&path, &[("Sluice-Operator", by)], b"").map_err(|error| client.unreachable(&error))?;
        let problem = (!answer.is_success()).then(|| answer.problem());
        if output == Output::Table {
            match &problem {
                None => writeln!(io::stdout(), "{id}: {}", what.done)?,
                Some(problem) => writeln!(io::stdout(), "{id}: not {}: {problem}", what.done)?,
            }
        }
        results.push(json!({ "id": id, "done": problem.is_none(), "problem": problem }));
    }
    let is_all_done = results.iter().all(|result| result["done"] == true);
    if output == Output::Json {
        writeln!(io::stdout(), "{}", Value::Array(results))?;
    }
    Ok(if is_all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does it to all that died before now, in steps, at most `rate` per second. What was done stays done when it breaks off:
/// begun again it goes on with the rest.
fn act_on_all(
    client: &Client,
    filter: &Filter,
    what: Act,
    rate: u32,
    by: &str,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let query = filter.query();
    let (mut after, mut before) = (filter.after.unwrap_or(0), String::new());
    let (mut accepted, mut not_dead, mut refused) = (0, 0, Vec::new());
    let begun = Instant::now();
    let limit = PAGE.min(usize::try_from(rate)?);
    loop {
        let path = format!("/dead/{}?limit={limit}&after={after}{query}{before}", what.verb);
        let step = client.post(&path, &[("Sluice-Operator", by)], b"").map_err(|error| client.unreachable(&error));
        let step = step.and_then(super::client::Answer::success).and_then(|answer| answer.json());
        let step = step.with_context(|| {
            format!("{accepted} are {}; begin it again for the rest, or name --after {after}", what.done)
        })?;
        let number = |name: &str| step.get(name).and_then(Value::as_u64).unwrap_or(0);
        accepted += number("accepted");
        not_dead += number("notDead");
        refused.extend(step.get("refused").and_then(Value::as_array).into_iter().flatten().cloned());
        let Some(next) = step.get("next").and_then(Value::as_i64) else { break };
        after = next;
        let moment = step.get("before").and_then(Value::as_str).unwrap_or_default();
        before = format!("&before={}", segment(moment));
        let looked_at = accepted + not_dead + refused.len() as u64;
        let due = Duration::from_secs_f64(looked_at as f64 / f64::from(rate));
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    let is_all_done = refused.is_empty();
    match output {
        Output::Json => {
            let result = json!({ "accepted": accepted, "notDead": not_dead, "refused": refused });
            writeln!(io::stdout(), "{result}")?;
        }
        Output::Table => {
            writeln!(io::stdout(), "{accepted} {}", what.done)?;
            if !is_all_done {
                let ids = refused.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
                writeln!(io::stdout(), "not {}, since they are no replies as they are: {ids}", what.done)?;
            }
        }
    }
    Ok(if is_all_done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
