//! `sluice plugin`: what can be asked about plugins, group by group.

mod author;
mod bench;
mod build;
mod check;
mod judge;
mod new;
mod operate;
mod vectors;
mod watch;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// What the author of a plugin does.
    #[command(flatten)]
    Author(author::AuthorCommand),
    /// What the operator of a running node does.
    #[command(flatten)]
    Operate(operate::OperateCommand),
}

pub(super) fn run(command: PluginCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        PluginCommand::Author(command) => author::run(command, config),
        PluginCommand::Operate(command) => operate::run(command, config).map(|()| ExitCode::SUCCESS),
    }
}
