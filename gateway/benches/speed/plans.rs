//! The plans that PostgreSQL really ran, with the buffers they touched: what `auto_explain` logs of the gateway's own
//! statements.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::Value;

use super::report;
use super::services::Postgres;

/// Lets every new session of a database log its plans.
pub(crate) async fn begin(postgres: &Postgres, database: &str) -> anyhow::Result<Mark> {
    let settings = [
        ("log_min_duration", "0"),
        ("log_analyze", "on"),
        ("log_buffers", "on"),
        ("log_timing", "off"),
        ("log_format", "json"),
    ];
    let text = settings.map(|(name, value)| format!("ALTER DATABASE {database} SET auto_explain.{name} = {value};"));
    postgres.run(database, &text.concat()).await?;
    Ok(Mark { at: std::fs::metadata(postgres.folder.join("log"))?.len() })
}

/// Where the log stood.
pub(crate) struct Mark {
    at: u64,
}

/// One run of a statement.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rows: u64,
    pub(crate) buffers: u64,
    /// Nodes, tables and indexes, without the numbers of partitions.
    pub(crate) shape: String,
}

/// Runs by the statement's text.
pub(crate) type Runs = BTreeMap<String, Vec<Run>>;

/// Ends the logging and returns what was run since it began.
pub(crate) async fn end(postgres: &Postgres, database: &str, mark: Mark) -> anyhow::Result<Runs> {
    postgres.run(database, &format!("ALTER DATABASE {database} RESET ALL")).await?;
    let log = std::fs::read(postgres.folder.join("log"))?;
    let text = String::from_utf8_lossy(&log[usize::try_from(mark.at)?..]).into_owned();
    let mut runs = Runs::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !(line.starts_with("LOG:  duration: ") && line.ends_with("plan:")) {
            continue;
        }
        let mut json = String::new();
        // What belongs to a message is indented.
        while let Some(more) = lines.next_if(|line| line.starts_with('\t')) {
            json.push_str(more);
        }
        let found: Value = serde_json::from_str(&json).with_context(|| format!("a plan: {json}"))?;
        let plan = &found["Plan"];
        let run = Run { rows: number(plan, "Actual Rows"), buffers: buffers(plan), shape: shape(plan) };
        let words: Vec<&str> = found["Query Text"].as_str().unwrap_or_default().split_whitespace().collect();
        runs.entry(words.join(" ")).or_default().push(run);
    }
    Ok(runs)
}

fn number(plan: &Value, name: &str) -> u64 {
    plan[name].as_f64().map_or(0, |number| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
        let count = number as u64;
        count
    })
}

/// Pages found and read, by a node and all below it.
fn buffers(plan: &Value) -> u64 {
    number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks")
}

fn shape(plan: &Value) -> String {
    let name = |key: &str| {
        let name = plan[key].as_str().unwrap_or_default();
        name.chars().filter(|c| !c.is_ascii_digit()).collect::<String>()
    };
    let below = plan["Plans"].as_array().into_iter().flatten();
    // Partitions beside each other look the same, however many there are.
    let mut below: Vec<String> = below.map(shape).collect();
    below.dedup();
    format!("{} {} {}({})", name("Node Type"), name("Relation Name"), name("Index Name"), below.join(", "))
}

/// Median buffers of the runs that returned so many rows at least, and their commonest shape.
pub(crate) fn typical(runs: &[Run], rows: u64) -> Option<(f64, &str, usize)> {
    let full: Vec<&Run> = runs.iter().filter(|run| run.rows >= rows).collect();
    let mut shapes: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &full {
        *shapes.entry(&run.shape).or_default() += 1;
    }
    let commonest = shapes.into_iter().max_by_key(|(_, count)| *count)?.0;
    let counts: Vec<f64> = full.iter().map(|run| run.buffers as f64).collect();
    Some((report::median(&counts), commonest, full.len()))
}

/// Buffers of everything that was run.
pub(crate) fn all_buffers(runs: &Runs) -> u64 {
    runs.values().flatten().map(|run| run.buffers).sum()
}
