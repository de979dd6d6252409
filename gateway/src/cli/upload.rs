//! Posts a file of orders, one per line, in batches that can be interrupted and resumed.
//!
//! # Guarantees
//!
//! - Each batch has an `Idempotency-Key` made from the content of the whole file, the limits of a batch and its first
//!   line. A batch that is sent again makes no second order, as long as the node keeps its keys
//!   (`retention.idempotency`).
//! - What the note beside the file says is behind us was answered by the node.
//!
//! # Not here
//!
//! Cutting the file into batches (`source`), the note (`state`).

mod source;
mod state;

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use self::source::{Batch, Batches, fingerprint};
use self::state::State;
use super::Output;
use super::client::{Answer, Client, describe};
use super::orders::PostArgs;

const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// Answers that say: later.
const BUSY: [u16; 5] = [408, 429, 502, 503, 504];

pub(super) fn run(client: &Client, file: &Path, args: &PostArgs) -> anyhow::Result<ExitCode> {
    let limits = (args.batch_lines as usize, args.batch_bytes.0);
    let mut upload = Upload { client, args, bar: progress(), note: None, state: State::default() };
    if file == Path::new("-") {
        upload.state = State::new(String::new(), &args.node.route, limits, args.again);
        upload.post(Batches::new(io::stdin().lock(), limits, 0, 1))?;
    } else {
        let read = || File::open(file).with_context(|| format!("cannot read {}", file.display()));
        let digest = fingerprint(read()?).with_context(|| format!("cannot read {}", file.display()))?;
        let note = args.resume.clone().unwrap_or_else(|| note_beside(file));
        let fresh = State::new(digest, &args.node.route, limits, args.again);
        upload.state = fresh.or_noted(&note)?;
        // Noted before the first batch, so that one of unknown fate is sent under the same key.
        upload.state.save(&note)?;
        upload.note = Some(note);
        let mut reader = read()?;
        upload.bar.set_length(reader.metadata()?.len());
        reader.seek(SeekFrom::Start(upload.state.next_byte))?;
        let (byte, line, limits) = (upload.state.next_byte, upload.state.next_line, upload.state.limits());
        if line > 1 {
            upload.say(&format!("going on at line {line}; what is before it was answered in an earlier run"))?;
        }
        upload.post(Batches::new(BufReader::new(reader), limits, byte, line))?;
    }
    upload.finish()
}

struct Upload<'a> {
    client: &'a Client,
    args: &'a PostArgs,
    bar: ProgressBar,
    /// Where the state is noted; not for standard input.
    note: Option<PathBuf>,
    state: State,
}

impl Upload<'_> {
    fn post(&mut self, batches: Batches<impl io::BufRead>) -> anyhow::Result<()> {
        for batch in batches {
            let batch = batch.context("cannot read the orders")?;
            let refused = |line: &u64| {
                let detail = format!("longer than --batch-bytes ({})", self.args.batch_bytes);
                (*line, serde_json::json!({"status": 413, "problem": {"title": "Line too long", "detail": detail}}))
            };
            let mut results: Vec<(u64, Value)> = batch.too_long.iter().map(refused).collect();
            if !batch.lines.is_empty() {
                results.extend(self.send(&batch)?);
            }
            results.sort_by_key(|(line, _)| *line);
            for (line, result) in results {
                self.note_result(line, result)?;
            }
            (self.state.next_byte, self.state.next_line) = (batch.next_byte, batch.next_line);
            if let Some(note) = &self.note {
                self.state.save(note)?;
            }
            self.bar.set_position(batch.next_byte);
            self.bar.set_message(self.state.counts());
        }
        Ok(())
    }

    /// Sends a batch until the node has answered for each of its lines.
    fn send(&self, batch: &Batch) -> anyhow::Result<Vec<(u64, Value)>> {
        let key = self.state.batch_key(batch);
        let headers = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", key.as_str())];
        let started = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        let mut is_told = false;
        loop {
            let (reason, wait) = match self.client.post(&self.args.node.route, &headers, &batch.body) {
                Ok(answer) => match results(&answer, &batch.lines) {
                    Ok(results) => return Ok(results),
                    Err(NoResults::Later(reason)) => (anyhow::anyhow!(reason), answer.retry_after()),
                    Err(NoResults::Never(reason)) => {
                        let (first, last) = (batch.lines[0], batch.lines[batch.lines.len() - 1]);
                        anyhow::bail!("lines {first} to {last} are refused as a batch: {reason}");
                    }
                },
                Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                    return Err(self.client.unreachable(&error));
                }
                Err(error) => (self.client.unreachable(&error), None),
            };
            if started.elapsed() > self.args.retry_for.0 {
                return Err(reason.context(self.how_to_go_on()));
            }
            if !is_told {
                self.say(&format!("{reason:#}; trying again for up to {}", self.args.retry_for))?;
                is_told = true;
            }
            // Some jitter, so that many uploads do not come back as one.
            thread::sleep(wait.unwrap_or(backoff).mul_f64(1.0 + fastrand::f64() / 4.0));
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn note_result(&mut self, line: u64, mut result: Value) -> anyhow::Result<()> {
        let status =
            result.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok()).unwrap_or(0);
        let is_accepted = (200..300).contains(&status);
        *(if is_accepted { &mut self.state.accepted } else { &mut self.state.refused }) += 1;
        if self.args.output == Output::Json {
            result["line"] = line.into();
            self.print(&result.to_string())?;
        } else if !is_accepted {
            let problem = result.get("problem").unwrap_or(&Value::Null);
            self.print(&format!("line {line}: {}", describe(status, problem)))?;
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<ExitCode> {
        self.bar.finish_and_clear();
        if let Some(note) = &self.note {
            State::remove(note)?;
        }
        if self.args.output == Output::Json {
            writeln!(io::stderr(), "{}", self.state.counts())?;
        } else {
            writeln!(io::stdout(), "{}", self.state.counts())?;
        }
        Ok(if self.state.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn how_to_go_on(&self) -> String {
        match &self.note {
            Some(note) => format!(
                "gave up at line {}; {} (noted in {}: the same command goes on from there)",
                self.state.next_line,
                self.state.counts(),
                note.display()
            ),
            None => format!("gave up at line {}; {}", self.state.next_line, self.state.counts()),
        }
    }

    /// A result, on standard output.
    fn print(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stdout(), "{line}"))
    }

    /// A remark, on standard error.
    fn say(&self, line: &str) -> io::Result<()> {
        self.bar.suspend(|| writeln!(io::stderr(), "{line}"))
    }
}

/// Why a batch has no results.
#[derive(Debug, PartialEq, Eq)]
enum NoResults {
    /// Send it again.
    Later(String),
    /// It would be the same again.
    Never(String),
}

/// The result of each line, by its number in the file.
fn results(answer: &Answer, lines: &[u64]) -> Result<Vec<(u64, Value)>, NoResults> {
    if BUSY.contains(&answer.status) {
        return Err(NoResults::Later(answer.problem()));
    }
    if answer.status != 207 {
        return Err(NoResults::Never(answer.problem()));
    }
    let read: Vec<Value> = answer.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if read.len() != lines.len() {
        return Err(NoResults::Later(format!("{} results came for {} lines", read.len(), lines.len())));
    }
    let status =
        |result: &Value| result.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    // The accepted lines of the same batch are answered as before when it is sent again.
    if let Some(busy) = read.iter().find(|result| status(result).is_some_and(|status| BUSY.contains(&status))) {
        let problem = busy.get("problem").unwrap_or(&Value::Null);
        return Err(NoResults::Later(describe(status(busy).unwrap_or(0), problem)));
    }
    Ok(lines.iter().copied().zip(read).collect())
}

/// On a terminal only.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let template = "{bar:30} {bytes}/{total_bytes} {msg} {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style)
}

fn note_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sluice-state");
    name.into()
}

#[cfg(test)]
mod tests;
