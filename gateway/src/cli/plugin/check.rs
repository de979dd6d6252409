//! `sluice plugin check`: what a plugin is, and whether a node can use it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Output;
use crate::config::{Config, PluginsConfig};
use crate::plugin::{Inspection, Manifest, PluginError, PluginSource, inspect};
use crate::workbench::desk::Desk;
use crate::workbench::material;
use crate::workbench::project::{Project, ProjectFile};

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A file, a project's folder (which is built), or a bundled plugin's name.
    #[arg(default_value = ".", value_name = "PLUGIN")]
    plugin: PathBuf,
    /// What to configure it with: a file with one JSON object [default: the project's sample].
    #[arg(long, value_name = "FILE")]
    plugin_config: Option<PathBuf>,
    #[arg(short, long, default_value = "table")]
    output: Output,
}

/// What was found out about a plugin.
pub(super) struct Report {
    name: String,
    inspection: Inspection,
    /// What its project says of it, where there is one beside it.
    expected: Option<ProjectFile>,
    limits: PluginsConfig,
}

pub(super) fn run(args: &CheckArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let config = Config::load(config)?;
    let config_json = args.plugin_config.as_deref().map(super::judge::read_config).transpose()?;
    let source = material::source(&config, &args.plugin, config_json)?;
    let mut report = Report::of(&config, source)?;
    report.expected = Project::open(&args.plugin).ok().map(|project| project.file);
    report.print(args.output)?;
    Ok(if report.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Report {
    /// Of a project's plugin, as it was built.
    pub(super) fn of_built(config: &Config, project: &Project, file: &Path) -> anyhow::Result<Self> {
        let mut source = material::source(config, file, Some(project.config_json()?))?;
        source.name.clone_from(&project.file.name);
        let mut report = Self::of(config, source)?;
        report.expected = Some(project.file.clone());
        Ok(report)
    }

    fn of(config: &Config, source: PluginSource) -> anyhow::Result<Self> {
        let limits = config.plugins.clone();
        let (name, mut inspection) = (source.name.clone(), inspect(&source.component, limits.file_bytes_max.0));
        // What looks right may still not compile, not fit or refuse its configuration.
        if inspection.problems.is_empty() {
            match Desk::open(limits.clone())?.load(source) {
                Ok(_) => {}
                Err(PluginError::Unusable { problem, .. }) => inspection.problems.push(problem.to_string()),
                Err(error @ PluginError::Engine { .. }) => return Err(error.into()),
            }
        }
        Ok(Self { name, inspection, expected: None, limits })
    }

    /// Why no node can use it, and where it is not what its project says.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.inspection.problems.clone();
        if let (Some(expected), Some(world)) = (&self.expected, self.inspection.world) {
            // A plugin of a larger world need not use all of it.
            let fits = expected.world == world || (expected.world == "enricher" && world == "validator");
            if !fits {
                problems
                    .push(format!("is of the world `{world}`, expected `{}` as its plugin.toml says", expected.world));
            }
        }
        problems
    }

    /// A plugin that can be used, in a line.
    pub(super) fn in_a_line(&self) -> String {
        let seen = &self.inspection;
        let capabilities =
            if seen.capabilities.is_empty() { "nothing".to_owned() } else { seen.capabilities.join(", ") };
        format!("{} bytes, {} lane, asks for {capabilities}", seen.bytes, lane(seen))
    }

    fn json(&self) -> anyhow::Result<Value> {
        let mut json = serde_json::to_value(&self.inspection)?;
        let problems = self.problems();
        json["name"] = self.name.clone().into();
        json["usable"] = problems.is_empty().into();
        json["problems"] = problems.into();
        json["limits"] = json!({
            "fileBytesMax": self.limits.file_bytes_max.0,
            "memoryBytesMax": self.limits.memory_bytes_max.0,
            "outputBytesMax": self.limits.output_bytes_max.0,
            "patchOperationsMax": self.limits.patch_operations_max,
            "patchBytesMax": self.limits.patch_bytes_max.0,
        });
        Ok(json)
    }

    fn print(&self, output: Output) -> anyhow::Result<()> {
        if output == Output::Json {
            writeln!(io::stdout(), "{}", self.json()?)?;
            return Ok(());
        }
        let seen = &self.inspection;
        let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
        let mut rows = vec![
            ("plugin", self.name.clone()),
            ("digest", seen.digest.clone()),
            ("size", format!("{} bytes, at most {}", seen.bytes, self.limits.file_bytes_max)),
            ("lane", lane(seen)),
            ("contract", seen.contract.clone().unwrap_or_else(|| "unknown".to_owned())),
            ("world", seen.world.unwrap_or("unknown").to_owned()),
            ("grants", format!("{} (what it has to be granted)", list(&seen.capabilities))),
            ("imports", list(&seen.imports)),
            ("exports", list(&seen.exports)),
        ];
        if !seen.denied.is_empty() {
            rows.push(("denied", list(&seen.denied)));
        }
        rows.push((
            "manifest",
            seen.manifest.as_ref().map_or_else(|| "none: it may change orders anywhere".to_owned(), told),
        ));
        let (limits, memory) = (&self.limits, self.limits.memory_bytes_max);
        let patch = format!("{} operations, {}", limits.patch_operations_max, limits.patch_bytes_max);
        rows.push(("limits", format!("memory {memory}, answer {}, patch {patch}", limits.output_bytes_max)));
        let problems = self.problems();
        rows.push(("usable", if problems.is_empty() { "yes".to_owned() } else { "no".to_owned() }));
        let mut text: String = rows.iter().map(|(name, value)| format!("{name:10}{value}\n")).collect();
        text.extend(problems.iter().map(|problem| format!("  it {problem}\n")));
        io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }
}

fn lane(seen: &Inspection) -> String {
    let name = serde_json::to_value(seen.lane).unwrap_or_default();
    name.as_str().unwrap_or("none").to_owned()
}

fn told(manifest: &Manifest) -> String {
    let paths = match &manifest.patch {
        None => "anywhere".to_owned(),
        Some(paths) if paths.is_empty() => "nowhere".to_owned(),
        Some(paths) => paths.join(", "),
    };
    format!("{} {}, {}; changes orders at: {paths}", manifest.name, manifest.version, manifest.language)
}
