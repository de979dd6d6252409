//! Plugins of a running node, over its operator's listener.

use std::io::{self, Write};
use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use crate::cli::client::{Answer, Client, segment};
use crate::cli::{AdminUrl, Output, base_url, show};

#[derive(Debug, Subcommand)]
pub enum OperateCommand {
    /// List the plugins that serve, and what waits in the folder, with state and reason.
    List {
        #[command(flatten)]
        admin: AdminUrl,
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Look at the plugins' folder and the configuration now; with a name, try its file although it was refused before.
    Reload {
        name: Option<String>,
        #[command(flatten)]
        admin: AdminUrl,
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Put the version before the present one back, until the file changes.
    Rollback {
        name: String,
        #[command(flatten)]
        admin: AdminUrl,
    },
    /// Write a digest into `plugins.lock`: the one given, else that of the version that serves.
    Pin {
        name: String,
        digest: Option<String>,
        #[command(flatten)]
        admin: AdminUrl,
    },
    /// Give up the kept versions of a plugin whose file is gone.
    Forget {
        name: String,
        #[command(flatten)]
        admin: AdminUrl,
    },
}

pub(super) fn run(command: OperateCommand, config: Option<&Path>) -> anyhow::Result<()> {
    let client = |admin: AdminUrl| -> anyhow::Result<Client> {
        Ok(Client::new(&base_url(admin.url, config, |config| config.admin.listen)?))
    };
    let post = |client: &Client, path: &str| -> anyhow::Result<Answer> {
        client.post(path, &[], b"").map_err(|error| client.unreachable(&error))?.success()
    };
    match command {
        OperateCommand::List { admin, output } => {
            let client = client(admin)?;
            let answer = client.get("/plugins").map_err(|error| client.unreachable(&error))?.success()?;
            list(&answer.json()?, output)
        }
        OperateCommand::Reload { name, admin, output } => {
            let path = match name {
                Some(name) => format!("/plugins/{}/reload", segment(&name)),
                None => "/plugins/reload".to_owned(),
            };
            list(&post(&client(admin)?, &path)?.json()?, output)
        }
        OperateCommand::Rollback { name, admin } => {
            let answer = post(&client(admin)?, &format!("/plugins/{}/rollback", segment(&name)))?;
            say(&answer.json()?, &name)
        }
        OperateCommand::Pin { name, digest, admin } => {
            let query = digest.map(|digest| format!("?digest={}", segment(&digest))).unwrap_or_default();
            let answer = post(&client(admin)?, &format!("/plugins/{}/pin{query}", segment(&name)))?;
            say(&answer.json()?, &name)
        }
        OperateCommand::Forget { name, admin } => {
            let answer = post(&client(admin)?, &format!("/plugins/{}/forget", segment(&name)))?;
            say(&answer.json()?, &name)
        }
    }
}

fn plugins(answer: &Value) -> &[Value] {
    answer.get("plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// One row for each version: what serves, and beside it what waits in the folder.
fn list(answer: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        show::list(output, plugins(answer), &[])?;
        return Ok(());
    }
    let rows: Vec<Value> = plugins(answer).iter().flat_map(rows).collect();
    show::list(output, &rows, &["name", "state", "digest", "lane", "bytes", "origin", "routes", "reason"])?;
    let configuration = |key: &str| {
        let list = answer.pointer(&format!("/configuration/{key}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    for problem in configuration("problems") {
        writeln!(io::stdout(), "configuration, not taken over: {problem}")?;
    }
    for key in configuration("needsRestart") {
        writeln!(io::stdout(), "configuration, needs a restart: {key}")?;
    }
    Ok(())
}

fn rows(plugin: &Value) -> Vec<Value> {
    let mut serving = plugin.clone();
    serving["digest"] = short(&plugin["digest"]);
    serving["reason"] = plugin["trouble"].clone();
    let mut rows = vec![serving];
    if let Some(candidate) = plugin.get("candidate").filter(|candidate| !candidate.is_null()) {
        let state = |name: &str| candidate[name].as_str().unwrap_or_default();
        rows.push(serde_json::json!({
            "name": plugin["name"],
            "state": format!("{} ({})", state("state"), state("code")),
            "digest": short(&candidate["digest"]),
            "reason": candidate["reason"],
        }));
    }
    rows
}

/// Twelve digits are enough to tell two apart on a screen.
fn short(digest: &Value) -> Value {
    digest
        .as_str()
        .map_or(Value::Null, |digest| digest.trim_start_matches("sha256:").chars().take(12).collect::<String>().into())
}

fn say(answer: &Value, name: &str) -> anyhow::Result<()> {
    let plugin = plugins(answer).iter().find(|plugin| plugin["name"] == name);
    let digest = plugin.and_then(|plugin| plugin["digest"].as_str()).unwrap_or("nothing");
    writeln!(io::stdout(), "{name} serves with {digest}")?;
    if let Some(pin) = plugin.and_then(|plugin| plugin["pin"].as_str()) {
        writeln!(io::stdout(), "{name} is pinned to {pin}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_the_folder_has_a_row_of_its_own() {
        let plugin = serde_json::json!({
            "name": "a", "state": "serving", "digest": "sha256:0123456789abcdef", "trouble": null,
            "candidate": {"digest": "sha256:fedcba9876543210", "state": "staged", "code": "not-pinned", "reason": "why"},
        });
        let rows = rows(&plugin);
        assert_eq!(rows.len(), 2);
        assert_eq!((&rows[0]["state"], &rows[0]["digest"]), (&"serving".into(), &"0123456789ab".into()));
        assert_eq!((&rows[1]["state"], &rows[1]["digest"]), (&"staged (not-pinned)".into(), &"fedcba987654".into()));
    }
}
