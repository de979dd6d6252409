//! `sluice plugin watch`: from each save to a plugin that serves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::vectors::tell;
use crate::cli::AdminUrl;
use crate::cli::base_url;
use crate::cli::client::Client;
use crate::config::Config;
use crate::plugin::PluginSource;
use crate::workbench::changes::Changes;
use crate::workbench::desk::Desk;
use crate::workbench::language;
use crate::workbench::project::{Project, VECTORS};
use crate::workbench::{material, vectors};

/// How long a node may take to serve what was put into its folder.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is asked meanwhile.
const ASK: Duration = Duration::from_millis(50);

/// At each save the project is built and its vectors are judged; a plugin that passes goes into the plugins' folder of a running
/// node, in one step, and it is told what the node makes of it. A plugin that does not pass changes nothing. Ends with Ctrl-C.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Folder of the project.
    #[arg(default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// The plugins' folder of the node [default: `plugins.dir` of the configuration].
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminUrl,
}

pub(super) fn run(args: WatchArgs, config_path: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::load(config_path)?;
    let client = Client::new(&base_url(args.admin.url, config_path, |config| config.admin.listen)?);
    let folder = args.into.unwrap_or_else(|| config.plugins.dir.clone());
    // What cannot be read at the start is no project; later it may be one in the middle of a change.
    let mut changes = Changes::of(&Project::open(&args.project)?.folder);
    loop {
        let begin = Instant::now();
        if let Err(error) = deliver(&config, &args.project, &folder, &client, begin) {
            writeln!(io::stdout(), "{error:#}")?;
        }
        writeln!(io::stdout(), "waiting for the next save")?;
        changes.wait();
    }
}

fn deliver(config: &Config, path: &Path, folder: &Path, client: &Client, begin: Instant) -> anyhow::Result<()> {
    let project = Project::open(path)?;
    let source = material::source(config, &project.folder, None)?;
    if !passes(config, &project, &source)? {
        writeln!(io::stdout(), "what served goes on serving")?;
        return Ok(());
    }
    let place = folder.join(format!("{}.wasm", project.file.name));
    language::put(&place, &source.component)?;
    writeln!(io::stdout(), "{} after {} ms", place.display(), begin.elapsed().as_millis())?;
    let digest = crate::folder::digest(&source.component);
    let told = follow(client, &project.file.name, &digest);
    writeln!(io::stdout(), "{told}, {} ms after the save", begin.elapsed().as_millis())?;
    Ok(())
}

fn passes(config: &Config, project: &Project, source: &PluginSource) -> anyhow::Result<bool> {
    let file = project.folder.join(VECTORS);
    if !file.is_file() {
        return Ok(true);
    }
    let vectors = vectors::read(&file)?;
    let misses = vectors::run(&Desk::open(config.plugins.clone())?, source, &vectors)?;
    tell(&mut io::stdout().lock(), &misses, vectors.len())?;
    Ok(misses.is_empty())
}

/// What a node makes of a new version.
fn follow(client: &Client, name: &str, digest: &str) -> String {
    let begin = Instant::now();
    loop {
        let answer = client.get("/plugins").map_err(|error| error.to_string());
        let plugins = match answer.and_then(|answer| answer.json().map_err(|error| error.to_string())) {
            Ok(answer) => answer.get("plugins").and_then(Value::as_array).cloned().unwrap_or_default(),
            Err(error) => return format!("no node is there to serve it ({error})"),
        };
        let is_it = |plugin: &&Value| plugin.get("name").and_then(Value::as_str) == Some(name);
        let Some(plugin) = plugins.iter().find(is_it) else {
            return format!("no route of the node asks for it: `sluice dev --plugin {name}` does");
        };
        let of = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        if of(plugin, "digest") == digest {
            return format!("{name} serves, {digest}");
        }
        let candidate = plugin.get("candidate").filter(|candidate| of(candidate, "digest") == digest);
        if let Some(candidate) = candidate {
            return format!("{name} is not served: {}: {}", of(candidate, "state"), of(candidate, "reason"));
        }
        if begin.elapsed() > PATIENCE {
            return format!(
                "the node has not taken it up for {} s; does it look into this folder?",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(ASK);
    }
}
