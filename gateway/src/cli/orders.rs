//! `sluice orders`: posts orders to a running node and shows what becomes of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, finding_line, read, segment};
use super::{Output, base_url, upload};
use crate::config::Span;

/// A watch gives up when no node has answered for so long.
const WATCH_PATIENCE: Duration = Duration::from_secs(60);

/// Wait before a reconnect until the node names another.
const RECONNECT: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub enum OrdersCommand {
    /// Post one order (from `-d` or standard input), or a file with one order per line.
    Post(PostArgs),
    /// Print an order as JSON.
    Get {
        id: String,
        #[command(flatten)]
        node: Node,
    },
    /// Follow an order until its final state: one line per version.
    Watch {
        id: String,
        #[arg(short, long, default_value = "table")]
        output: Output,
        #[command(flatten)]
        node: Node,
    },
}

#[derive(Debug, Args)]
pub struct Node {
    /// Public listener of the node [default: `http.listen` of the configuration].
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// Path of the route.
    #[arg(long, value_name = "PATH", default_value = "/orders")]
    pub(super) route: String,
}

/// A file is sent in batches. How far it got is noted beside it (`FILE.sluice-state`) after each batch, so the same
/// command goes on after an interruption; each batch has an Idempotency-Key made from the file's content, so what was
/// sent twice is one order. The note is removed at the end.
#[derive(Debug, Args)]
pub struct PostArgs {
    /// The order, as JSON.
    #[arg(short, long, value_name = "JSON", conflicts_with = "file")]
    data: Option<String>,
    /// A file with one order per line (NDJSON); `-` for standard input, which cannot be resumed.
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// `Idempotency-Key` of the one order.
    #[arg(long, value_name = "KEY", conflicts_with = "file")]
    idempotency_key: Option<String>,
    /// Wait so many seconds for what becomes of the one order, and print that.
    #[arg(long, value_name = "SECONDS", conflicts_with = "file")]
    wait: Option<u32>,
    /// Where to note how far the file got, instead of `FILE.sluice-state`.
    #[arg(long, value_name = "STATE", requires = "file")]
    pub(super) resume: Option<PathBuf>,
    /// Post the file as new orders, even if it was posted before. (Interrupted, the same command goes on, too.)
    #[arg(long, requires = "file")]
    pub(super) again: bool,
    /// Lines of one batch; at most the node's `http.batch_lines_max`.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) batch_lines: u32,
    /// Bytes of one batch; at most the node's `http.batch_bytes_max`.
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = crate::config::ByteSize::parse)]
    pub(super) batch_bytes: crate::config::ByteSize,
    /// How long to go on trying while the node is busy or away.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = Span::parse)]
    pub(super) retry_for: Span,
    /// For a file: what was refused and a summary (table), or the result of every line (json).
    #[arg(short, long, default_value = "table")]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) node: Node,
}

pub(super) fn run(command: OrdersCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        OrdersCommand::Post(mut args) => {
            let client = Client::new(&base_url(args.node.url.take(), config, |config| config.http.listen)?);
            match args.file.clone() {
                Some(file) => upload::run(&client, &file, &args),
                None => post_one(&client, args),
            }
        }
        OrdersCommand::Get { id, node } => {
            let client = Client::new(&base_url(node.url, config, |config| config.http.listen)?);
            let answer = client.get(&order_path(&node.route, &id)).map_err(|error| client.unreachable(&error))?;
            writeln!(io::stdout(), "{}", answer.success()?.text().trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        OrdersCommand::Watch { id, output, node } => {
            let client = Client::new(&base_url(node.url, config, |config| config.http.listen)?);
            watch(&client, &order_path(&node.route, &id), output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn post_one(client: &Client, args: PostArgs) -> anyhow::Result<ExitCode> {
    let body = match args.data {
        Some(data) => data.into_bytes(),
        None => {
            let mut body = Vec::new();
            io::stdin().lock().read_to_end(&mut body)?;
            body
        }
    };
    let mut headers = vec![("Content-Type", "application/json")];
    let prefer = args.wait.map(|seconds| format!("wait={seconds}"));
    headers.extend(prefer.as_deref().map(|prefer| ("Prefer", prefer)));
    headers.extend(args.idempotency_key.as_deref().map(|key| ("Idempotency-Key", key)));
    let answer = client.post(&args.node.route, &headers, &body).map_err(|error| client.unreachable(&error))?;
    writeln!(io::stdout(), "{}", answer.success()?.text().trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// `id` may be a whole link too.
fn order_path(route: &str, id: &str) -> String {
    format!("{}/{}", route.trim_end_matches('/'), segment(id.rsplit('/').next().unwrap_or(id)))
}

fn watch(client: &Client, path: &str, output: Output) -> anyhow::Result<()> {
    let mut last_event_id: Option<String> = None;
    let mut reconnect = RECONNECT;
    let mut heard = Instant::now();
    loop {
        match client.stream(&format!("{path}/events"), last_event_id.as_deref()) {
            Ok(response) if response.status() == 204 => return Ok(()),
            Ok(response) if response.status() == 200 => {
                heard = Instant::now();
                let mut events = Events::new(BufReader::new(response.into_body().into_reader()));
                // A stream that breaks off is resumed as one that ends.
                while let Ok(Some(event)) = events.next() {
                    heard = Instant::now();
                    reconnect = event.retry.unwrap_or(reconnect);
                    last_event_id = event.id.or(last_event_id);
                    let Ok(order) = serde_json::from_str::<Value>(&event.data) else { continue };
                    let line = if output == Output::Json { event.data } else { version_line(&order) };
                    writeln!(io::stdout(), "{line}")?;
                    if order.get("final") == Some(&Value::Bool(true)) {
                        return Ok(());
                    }
                }
            }
            Ok(response) if response.status().is_client_error() && response.status() != 429 => {
                anyhow::bail!(read(response)?.problem());
            }
            Ok(response) if heard.elapsed() > WATCH_PATIENCE => {
                anyhow::bail!("the node answers {} for more than a minute", response.status());
            }
            Err(error) if heard.elapsed() > WATCH_PATIENCE || last_event_id.is_none() => {
                return Err(client.unreachable(&error));
            }
            Ok(_) | Err(_) => {}
        }
        thread::sleep(reconnect);
    }
}

/// `time  version  STATUS`, what it waits for, and one indented line per problem.
fn version_line(order: &Value) -> String {
    let word = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let version = order.get("version").and_then(Value::as_u64).unwrap_or(0);
    let mut line = format!("{}  v{version:<3} {}", word(order, "updatedAt"), word(order, "status"));
    if let Some(held) = order.get("held") {
        line.push_str(&format!("  {} (next attempt {})", word(held, "reason"), word(held, "nextAttemptAt")));
    } else if let Some(deadline) = order.get("deadlineAt").and_then(Value::as_str) {
        line.push_str(&format!("  replies awaited until {deadline}"));
    }
    for problem in order.get("problems").and_then(Value::as_array).into_iter().flatten() {
        line.push_str(&format!("\n  {}", finding_line(problem)));
    }
    line
}

/// One event of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: Option<String>,
    data: String,
    retry: Option<Duration>,
}

/// Reads `text/event-stream`.
struct Events<R> {
    lines: io::Lines<R>,
    retry: Option<Duration>,
}

impl<R: BufRead> Events<R> {
    fn new(reader: R) -> Self {
        Self { lines: reader.lines(), retry: None }
    }

    /// The next event that has data, or `None` at the end.
    fn next(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        let mut data: Vec<String> = Vec::new();
        for line in self.lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                if data.is_empty() {
                    continue;
                }
                event.data = data.join("\n");
                event.retry = self.retry;
                return Ok(Some(event));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => data.push(value.to_owned()),
                "id" => event.id = Some(value.to_owned()),
                "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_event_by_event() {
        let text = "retry: 1500\n\n: beat\n\nevent: status\nid: 1\ndata: {\"a\":\ndata: 1}\n\nid:2\ndata:x\n\nid: 3\ndata: cut off";
        let mut events = Events::new(text.as_bytes());
        let retry = Some(Duration::from_millis(1500));
        let first = Event { id: Some("1".into()), data: "{\"a\":\n1}".into(), retry };
        assert_eq!(events.next().unwrap(), Some(first));
        assert_eq!(events.next().unwrap(), Some(Event { id: Some("2".into()), data: "x".into(), retry }));
        assert_eq!(events.next().unwrap(), None);
    }

    #[test]
    fn a_version_is_a_line_with_what_it_waits_for_and_its_problems() {
        let order = serde_json::json!({
            "status": "HELD", "version": 2, "updatedAt": "T",
            "held": {"reason": "behind", "nextAttemptAt": null}, "problems": [{"pointer": "/a", "title": "Wrong"}],
        });
        assert_eq!(version_line(&order), "T  v2   HELD  behind (next attempt -)\n  /a: Wrong");
    }

    #[test]
    fn an_order_is_named_by_its_id_or_its_link() {
        assert_eq!(order_path("/orders", "0198-a"), "/orders/0198-a");
        assert_eq!(order_path("/orders/", "/orders/0198-a"), "/orders/0198-a");
        assert_eq!(order_path("/orders", "a b?"), "/orders/a%20b%3F");
    }
}
