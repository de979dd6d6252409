//! `sluice plugin bench`: what a plugin costs, beside what it may.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;

use crate::cli::Output;
use crate::config::{Config, PluginsConfig};
use crate::workbench::costs::{self, BATCH, Costs};
use crate::workbench::orders::Lines;
use crate::workbench::project::VECTORS;
use crate::workbench::{material, vectors};

/// Most orders that are taken of a file.
const ORDERS_MAX: usize = 1000;

/// Times are medians of CPU time, so a busy machine changes them little; a program built without optimisation changes them much.
/// Instructions are counted on a second engine: they are the same on each machine and each time.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// A project's folder (which is built), a file, or a bundled plugin's name.
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// Orders to measure with, one per line [default: those of the project's vectors].
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What to configure it with: a file with one JSON object [default: the project's sample].
    #[arg(long, value_name = "FILE")]
    plugin_config: Option<PathBuf>,
    /// Calls of each kind.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    #[arg(short, long, default_value = "table")]
    output: Output,
}

pub(super) fn run(args: &BenchArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let config_json = args.plugin_config.as_deref().map(super::judge::read_config).transpose()?;
    let orders = orders(args, &config)?;
    let source = material::source(&config, &args.plugin, config_json)?;
    let (name, bytes) = (source.name.clone(), source.component.len());
    let costs = costs::measure(&config.plugins, source, &orders, usize::try_from(args.calls)?)?;
    match args.output {
        Output::Json => {
            let mut json = serde_json::to_value(&costs)?;
            json["name"] = name.into();
            json["bytes"] = bytes.into();
            writeln!(io::stdout(), "{json}")?;
        }
        Output::Table => io::stdout().write_all(table(&name, bytes, &costs, &config.plugins).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn orders(args: &BenchArgs, config: &Config) -> anyhow::Result<Vec<Bytes>> {
    if let Some(file) = &args.file {
        let lines = Lines::open(file, &config.http)?.next_batch(ORDERS_MAX)?;
        let order = |line: crate::workbench::orders::Line| {
            line.order.map_err(|reason| anyhow::anyhow!("line {} of {}: {reason}", line.number, file.display()))
        };
        return lines.into_iter().map(order).collect();
    }
    let folder = if args.plugin.is_dir() { Some(args.plugin.as_path()) } else { args.plugin.parent() };
    let file = folder.unwrap_or(Path::new(".")).join(VECTORS);
    let vectors = vectors::read(&file).context("there are no orders to measure with; name a file with -f")?;
    Ok(vectors.iter().map(vectors::Vector::order).collect())
}

fn table(name: &str, bytes: usize, costs: &Costs, limits: &PluginsConfig) -> String {
    let none = String::new;
    let rows = [
        ("file", format!("{bytes} bytes"), format!("{}", limits.file_bytes_max)),
        ("compile", format!("{} ms", costs.compile_ms), none()),
        ("instance", format!("{} µs", costs.instantiate_micros), none()),
        ("order alone", format!("{} µs", costs.alone_micros), format!("{}", limits.time_per_batch_min)),
        (
            "order in a batch",
            format!("{} µs, in one of {BATCH}", costs.in_batch_micros),
            format!("{}", limits.time_per_order),
        ),
        ("order, warm", format!("{} µs, each further one", costs.warm_micros), none()),
        (
            "instructions",
            format!("{} alone, {} in a batch", costs.instructions_alone, costs.instructions_in_batch),
            none(),
        ),
        ("memory", format!("{} bytes", costs.memory_bytes), format!("{}", limits.memory_bytes_max)),
        (
            "answer",
            format!("{} bytes for a batch", costs.answer_bytes_in_batch),
            format!("{}", limits.output_bytes_max),
        ),
        ("patch", format!("{} bytes", costs.patch_bytes), format!("{}", limits.patch_bytes_max)),
        ("operations", costs.patch_operations.to_string(), limits.patch_operations_max.to_string()),
        ("log", format!("{} lines", costs.log_lines), limits.log_lines_per_order_max.to_string()),
    ];
    let mut text = format!("{name}, with {} orders", costs.orders);
    if costs.failed > 0 {
        text += &format!(" ({} more on which it fails)", costs.failed);
    }
    text += "\n";
    for (what, cost, limit) in rows {
        let limit = if limit.is_empty() { limit } else { format!("at most {limit}") };
        text += format!("  {what:18}{cost:44}{limit}").trim_end();
        text += "\n";
    }
    text
}
