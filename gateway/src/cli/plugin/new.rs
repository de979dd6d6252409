//! `sluice plugin new`: a project to begin with.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::workbench::{language, scaffold};

/// The project has a whole plugin that builds and passes its tests, and all it needs of the SDK: nothing else has to be
/// fetched but the language's own toolchain.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Language of the plugin.
    #[arg(long, value_name = "LANGUAGE", value_parser = PossibleValuesParser::new(language::names()))]
    lang: String,
    /// Name of the plugin and of its folder: lower-case letters, digits and `-`.
    name: String,
    /// What the plugin may ask the gateway for: `enricher` has metrics and look-ups.
    #[arg(long, value_parser = ["validator", "enricher"])]
    world: Option<String>,
    /// Where the project's folder is made.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    r#in: PathBuf,
}

pub(super) fn run(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let project = scaffold::create(language::named(&args.lang)?, &args.r#in, &args.name, args.world.as_deref())?;
    let folder = if args.r#in == Path::new(".") { args.name.clone().into() } else { args.r#in.join(&args.name) };
    let (name, folder) = (&project.file.name, folder.display());
    let next = [
        (format!("sluice plugin test {folder}"), "its vectors, and its own tests"),
        (format!("sluice plugin build {folder} -o plugins.d"), "where a node finds it"),
        (format!("sluice dev --plugin {name}"), "a gateway that asks it"),
    ];
    let width = next.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    let mut text = format!("{folder}/ has a plugin in {}. Next:\n\n", args.lang);
    text.extend(next.iter().map(|(command, what)| format!("  {command:width$}  # {what}\n")));
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
