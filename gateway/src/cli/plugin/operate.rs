//! Plugins of a running node, over its operator's listener.

use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use crate::cli::client::Client;
use crate::cli::{AdminUrl, Output, base_url, show};

#[derive(Debug, Subcommand)]
pub enum OperateCommand {
    /// List the plugins that serve, with digest, origin and routes.
    List {
        #[command(flatten)]
        admin: AdminUrl,
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

pub(super) fn run(command: OperateCommand, config: Option<&Path>) -> anyhow::Result<()> {
    let OperateCommand::List { admin, output } = command;
    let client = Client::new(&base_url(admin.url, config, |config| config.admin.listen)?);
    let answer = client.get("/plugins").map_err(|error| client.unreachable(&error))?.success()?.json()?;
    let plugins = answer.get("plugins").unwrap_or(&answer);
    let plugins = plugins.as_array().map(Vec::as_slice).unwrap_or_default();
    let shown: Vec<Value> = plugins.iter().map(|plugin| with_short_digest(plugin, output)).collect();
    show::list(output, &shown, &["name", "digest", "bytes", "origin", "routes"])?;
    Ok(())
}

/// Twelve digits are enough to tell two apart on a screen.
fn with_short_digest(plugin: &Value, output: Output) -> Value {
    let mut plugin = plugin.clone();
    if output == Output::Table
        && let Some(Value::String(digest)) = plugin.get_mut("digest")
    {
        *digest = digest.trim_start_matches("sha256:").chars().take(12).collect();
    }
    plugin
}
