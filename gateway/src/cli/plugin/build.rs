//! `sluice plugin build`: from a project to a file that a node can load.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::check::Report;
use crate::config::Config;
use crate::workbench::{language, project::Project};

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Folder of the project.
    #[arg(default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// Where to put the plugin: a file, or a folder that gets NAME.wasm [default: the project's folder].
    #[arg(short, long, value_name = "PATH")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &BuildArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let project = Project::open(&args.project)?;
    let file_name = format!("{}.wasm", project.file.name);
    let out = match &args.out {
        None => args.project.join(&file_name),
        Some(out) if out.extension().is_some_and(|kind| kind == "wasm") => out.clone(),
        Some(folder) => folder.join(&file_name),
    };
    let config = Config::load(config)?;
    language::build(&project, &out)?;
    let report = Report::of_built(&config, &project, &out)?;
    let problems = report.problems();
    if !problems.is_empty() {
        anyhow::bail!("{} was built, but no node can use it: it {}", out.display(), problems.join("; it "));
    }
    writeln!(io::stdout(), "{}: {}", out.display(), report.in_a_line())?;
    Ok(ExitCode::SUCCESS)
}
