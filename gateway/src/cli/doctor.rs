//! `sluice doctor`: what is wrong with everything around a node, whose fault it is and what to do.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Output;
use crate::clock::Clock;
use crate::config::Config;
use crate::doctor::{self, Finding, Means, State};

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Also ask the broker for its time, by a topic of its own (`sluice-doctor-…`) that is removed again.
    #[arg(long)]
    write: bool,
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// Exit code 0 also with warnings, 1 where a check failed.
pub(super) fn run(args: &DoctorArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let findings = doctor::examine(&config, &Clock::system(), Means { may_write: args.write });
    let text = match args.output {
        Output::Table => table(&findings),
        Output::Json => format!("{}\n", json!({ "ok": !has_failed(&findings), "findings": findings })),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if has_failed(&findings) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.state == State::Failed)
}

fn table(findings: &[Finding]) -> String {
    let mut lines: Vec<String> = findings.iter().map(line).collect();
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    lines.push(format!("{} failed, {} warning(s)\n", count(State::Failed), count(State::Warning)));
    lines.join("\n")
}

fn line(finding: &Finding) -> String {
    let word = match finding.state {
        State::Ok => "ok",
        State::Skipped => "skipped",
        State::Warning => "WARNING",
        State::Failed => "FAILED",
    };
    let Finding { check, subject, said, .. } = finding;
    let line = format!("{word:8} {check:9} {subject}: {said}");
    match (finding.fault, &finding.advice) {
        (Some(fault), Some(advice)) => format!("{line}\n{:18} at fault: {}; to do: {advice}", "", fault.as_str()),
        _ => line,
    }
}
