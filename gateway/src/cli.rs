//! The command line: what can be asked of `sluice`, and everything that needs no running gateway in this process.
//!
//! # Not here
//!
//! `dev` and `run` are started by `main`.

mod client;
mod dead;
pub mod dev;
mod doctor;
mod orders;
mod plugin;
mod show;
mod upload;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigErrors, Problem, hot};
use crate::plugin::{TableError, Tables};

/// Sluice, an event gateway: orders in over REST, through WebAssembly plugins, out on Kafka, nothing lost.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true)]
pub struct Cli {
    /// Configuration file [default: `sluice.toml` if it is there, else the defaults alone].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything in one process: gateway, broker in memory, sample services, page.
    Dev {
        /// A plugin that every route asks behind its own: the name of a file in `plugins.dir`. Can be said more than once.
        #[arg(long = "plugin", value_name = "NAME")]
        plugins: Vec<String>,
    },
    /// Start the gateway on the broker that the configuration names.
    Run,
    /// Say what is wrong with the configuration.
    Validate,
    /// Print the configuration in force as TOML, secrets hidden.
    Config,
    /// Post orders and see what becomes of them.
    #[command(subcommand)]
    Orders(orders::OrdersCommand),
    /// Dead letters: what waits for you.
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Plugins: write, build, test and judge with them; and those of a running node.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Compile the plugin that comes by standard input, for the gateway that started this.
    #[command(hide = true)]
    CompilePlugin {
        #[arg(long)]
        memory_bytes: u64,
        #[arg(long)]
        seconds: u64,
        #[arg(long)]
        engine: u64,
    },
    /// Look at everything a node needs (database, broker, topics, clocks, disk, plugins): what is wrong, whose fault it is, what to do.
    Doctor(doctor::DoctorArgs),
    /// Print completions for a shell.
    Completions { shell: clap_complete::Shell },
}

/// How lists are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people.
    Table,
    /// JSON for programs.
    Json,
}

/// Where the operator's listener of a node is.
#[derive(Debug, Args)]
pub struct AdminUrl {
    /// Admin listener of the node [default: `admin.listen` of the configuration].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Carries out a command other than `dev` and `run`.
///
/// # Errors
///
/// The configuration is wrong (`ConfigErrors`), no node answers, or it refuses.
pub fn run(command: Command, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev { .. } | Command::Run => anyhow::bail!("this command starts a gateway"),
        Command::Validate => {
            let config = Config::load(config)?;
            Tables::load(&config.plugins)
                .map_err(|errors| ConfigErrors { problems: errors.iter().map(table).collect() })?;
            let (routes, url) = (config.route.len(), &config.redacted().database.url);
            writeln!(io::stdout(), "the configuration is valid: {routes} route(s), {url}")?;
            if let Err(errors) = config.check_for_run() {
                writeln!(io::stdout(), "for `sluice run` it lacks\n{errors}")?;
            }
            let [hot, restart] = [&hot::HOT[..], &hot::RESTART[..]].map(|keys| keys.join(", "));
            writeln!(io::stdout(), "a running node takes over: {hot}\na restart is needed for: {restart}")?;
        }
        Command::Config => {
            let shown = Config::load(config)?.redacted();
            io::stdout().write_all(toml::to_string_pretty(&shown)?.as_bytes())?;
        }
        Command::Orders(command) => return orders::run(command, config),
        Command::Dead(command) => return dead::run(command, config),
        Command::Doctor(args) => return doctor::run(&args, config),
        Command::Plugin(command) => return plugin::run(command, config),
        Command::CompilePlugin { memory_bytes, seconds, engine } => {
            crate::plugin::compile_for_parent(memory_bytes, seconds, engine)?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            io::stdout().write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A table that cannot be read, as a problem of its key.
fn table(error: &TableError) -> Problem {
    let TableError { name, path, reason } = error;
    Problem::new(format!("plugins.tables.{name}"), format!("{}: {reason}", path.display()))
}

/// The URL given, else that of the address in the configuration.
fn base_url(
    given: Option<String>,
    config: Option<&Path>,
    listen: impl FnOnce(&Config) -> SocketAddr,
) -> anyhow::Result<String> {
    match given {
        Some(url) => Ok(url),
        None => Ok(url_of(listen(&Config::load(config)?))),
    }
}

/// Where a listener is reached from this machine.
fn url_of(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        assert_eq!(url_of("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(url_of("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(url_of("10.0.0.1:80".parse().unwrap()), "http://10.0.0.1:80");
    }
}
