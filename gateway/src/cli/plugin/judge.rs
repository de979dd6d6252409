//! `sluice plugin run`: orders of a file through a chain of plugins, without a gateway.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::Output;
use crate::config::Config;
use crate::order::Problem;
use crate::plugin::{Candidate, Decision, Judgement, PluginRun};
use crate::workbench::compare::differences;
use crate::workbench::desk::{Desk, candidate, verdict};
use crate::workbench::orders::{Line, Lines};
use crate::workbench::{material, vectors};

/// Each line of the file is an order. For each it is said what the chain makes of it, and where it changes it.
///
/// Exit code 1: a line is no order, or a plugin failed on one. A refused order is no failure.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A file with one order per line (NDJSON); `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The chain: projects (which are built), files, or names of bundled plugins.
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugins: Vec<PathBuf>,
    /// What to configure a plugin with: a file with one JSON object; of several plugins, NAME=FILE.
    #[arg(long, value_name = "[NAME=]FILE")]
    plugin_config: Vec<String>,
    /// The verdict with the diff (table), or one object per order (json).
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// Reads a plugin's configuration.
pub(super) fn read_config(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let object: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(&bytes);
    object.with_context(|| format!("{} is no JSON object", path.display()))?;
    Ok(bytes)
}

pub(super) fn run(args: &RunArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let mut given = BTreeMap::new();
    for text in &args.plugin_config {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (Some(name), path),
            None if args.plugins.len() == 1 => (None, text.as_str()),
            None => bail!("of several plugins, name the one: --plugin-config NAME={text}"),
        };
        given.insert(name, read_config(Path::new(path))?);
    }
    let desk = Desk::open(config.plugins.clone())?;
    let mut chain = Vec::new();
    for plugin in &args.plugins {
        let mut source = material::source(&config, plugin, given.get(&None).cloned())?;
        if let Some(config_json) = given.get(&Some(source.name.as_str())) {
            source.config_json.clone_from(config_json);
        }
        chain.push(desk.load(source)?);
    }
    desk.seat(chain);

    let mut lines = Lines::open(&args.file, &config.http)?;
    let mut tally = Tally::default();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    loop {
        let batch = lines.next_batch(desk.batch_orders_max())?;
        if batch.is_empty() {
            break;
        }
        for shown in judged(&desk, batch) {
            tally.count(&shown);
            match args.output {
                Output::Json => writeln!(stdout, "{}", serde_json::to_string(&shown.json())?)?,
                Output::Table => stdout.write_all(shown.text().as_bytes())?,
            }
        }
    }
    if args.output == Output::Table {
        writeln!(stdout, "{}", tally.text())?;
    }
    stdout.flush()?;
    Ok(if tally.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An order that was judged, or a line that is none.
struct Shown {
    line: usize,
    outcome: Result<(Candidate, Judgement), String>,
}

fn judged(desk: &Desk, batch: Vec<Line>) -> Vec<Shown> {
    let orders: Vec<Candidate> = batch
        .iter()
        .filter_map(|line| line.order.as_ref().ok().map(|order| candidate(line.number, 1, order.clone())))
        .collect();
    let mut judgements = orders.clone().into_iter().zip(desk.judge(orders));
    let shown = batch.into_iter().filter_map(|line| {
        let outcome = match line.order {
            Ok(_) => Ok(judgements.next()?),
            Err(reason) => Err(reason),
        };
        Some(Shown { line: line.number, outcome })
    });
    shown.collect()
}

/// An order's line for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    plugins: Vec<JsonRun<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [Problem],
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    micros: u64,
}

#[derive(Serialize)]
struct JsonRun<'a> {
    name: &'a str,
    digest: &'a str,
    verdict: &'static str,
    micros: u64,
}

impl<'a> JsonRun<'a> {
    fn of(run: &'a PluginRun) -> Self {
        Self { name: &run.name, digest: &run.digest, verdict: run.verdict, micros: run.micros }
    }
}

impl Shown {
    fn json(&self) -> Json<'_> {
        let mut json = Json {
            line: self.line,
            error: None,
            id: None,
            verdict: None,
            plugins: Vec::new(),
            problems: &[],
            order: None,
            headers: BTreeMap::new(),
            reason: None,
            after_ms: None,
            fault: None,
            micros: 0,
        };
        let (candidate, judgement) = match &self.outcome {
            Ok(judged) => judged,
            Err(error) => return Json { error: Some(error), ..json },
        };
        json.id = Some(candidate.order_id.to_string());
        json.verdict = Some(verdict(&judgement.decision));
        json.plugins = judgement.runs.iter().map(JsonRun::of).collect();
        json.micros = judgement.runs.iter().map(|run| run.micros).sum();
        match &judgement.decision {
            Decision::Pass { body, headers, .. } => {
                json.order = serde_json::from_slice(body).ok();
                json.headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            }
            Decision::Reject(problems) => json.problems = problems,
            Decision::Later { reason, after, .. } => {
                json.reason = Some(reason);
                json.after_ms = Some(after.as_millis());
            }
            Decision::Fault { kind, detail, .. } => {
                json.fault = Some(kind.as_str());
                json.reason = Some(detail);
            }
        }
        json
    }

    fn text(&self) -> String {
        let line = self.line;
        let (candidate, judgement) = match &self.outcome {
            Ok(judged) => judged,
            Err(error) => return format!("line {line}  NO ORDER  {error}\n"),
        };
        let decision = &judgement.decision;
        let micros: u64 = judgement.runs.iter().map(|run| run.micros).sum();
        let runs: Vec<String> = judgement.runs.iter().map(|run| format!("{} {}", run.name, run.verdict)).collect();
        let mut text = format!("line {line}  {}  ({}; {micros} µs)\n", verdict(decision), runs.join(", "));
        match decision {
            Decision::Pass { body, headers, .. } => {
                for difference in differences(&candidate.body, body).unwrap_or_default() {
                    text += &format!("  {difference}\n");
                }
                for (name, value) in headers {
                    text += &format!("  header {name}: {value}\n");
                }
            }
            Decision::Reject(problems) => {
                for problem in problems {
                    text += &format!("  {}\n", vectors::told_problem(problem));
                }
            }
            Decision::Later { plugin, .. } | Decision::Fault { plugin, .. } => {
                text += &format!("  {plugin}: {}\n", vectors::told(decision));
            }
        }
        text
    }
}

/// How many there were of each.
#[derive(Default)]
struct Tally {
    verdicts: BTreeMap<&'static str, usize>,
    micros: u64,
}

impl Tally {
    fn count(&mut self, shown: &Shown) {
        let word = match &shown.outcome {
            Ok((_, judgement)) => {
                self.micros += judgement.runs.iter().map(|run| run.micros).sum::<u64>();
                verdict(&judgement.decision)
            }
            Err(_) => "no order",
        };
        *self.verdicts.entry(word).or_default() += 1;
    }

    fn text(&self) -> String {
        let all: usize = self.verdicts.values().sum();
        let each: Vec<String> = self.verdicts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        let micros = self.micros / u64::try_from(all.max(1)).unwrap_or(1);
        format!("{all} orders: {}; {micros} µs each", each.join(", "))
    }

    fn is_clean(&self) -> bool {
        !self.verdicts.contains_key("no order") && !self.verdicts.contains_key("fault")
    }
}
