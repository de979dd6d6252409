//! The program `sluice`: arguments, configuration, logging, then what was asked for, then its exit code.
//!
//! Exit codes: 0; 1 something failed at run time; 2 usage; 78 configuration (`EX_CONFIG` of sysexits.h).

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sluice::cli::{self, Cli, Command};
use sluice::config::{Config, ConfigErrors, load};
use sluice::gateway::{self, Mode};
use sluice::telemetry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_RUNTIME: u8 = 1;
const EXIT_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let Cli { config, command } = Cli::parse();
    let result = match command {
        Command::Dev { plugins } => {
            if !plugins.is_empty() {
                load::add_plugins(&plugins);
            }
            serve(config.as_deref(), Mode::Dev)
        }
        Command::Run => serve(config.as_deref(), Mode::Run),
        command => cli::run(command, config.as_deref()),
    };
    match result {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<ConfigErrors>() { EXIT_CONFIGURATION } else { EXIT_RUNTIME };
            // Where standard error is closed there is nobody left to tell.
            drop(writeln!(io::stderr(), "{}", message(&error)));
            ExitCode::from(code)
        }
    }
}

fn serve(path: Option<&Path>, mode: Mode) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    if mode == Mode::Run {
        config.check_for_run()?;
    }
    telemetry::init(&config.telemetry, load::no_color())?;
    #[cfg(feature = "crash-points")]
    {
        let (point, clock_file) = load::crash_point();
        sluice::crash::arm(point.as_deref(), clock_file).map_err(anyhow::Error::msg)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let path = path.unwrap_or(Path::new(load::FILE_DEFAULT));
    runtime.block_on(gateway::run(config, path, mode))?;
    Ok(ExitCode::SUCCESS)
}

/// Problems of the configuration stand one on a line; other errors with their sources on one.
fn message(error: &anyhow::Error) -> String {
    match error.downcast_ref::<ConfigErrors>() {
        Some(errors) => format!("the configuration has {} problem(s)\n{errors}", errors.problems.len()),
        None => format!("sluice: {error:#}"),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
