//! `sluice plugin`: what can be asked about plugins, group by group.

mod operate;

use std::path::Path;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// What the operator of a running node does.
    #[command(flatten)]
    Operate(operate::OperateCommand),
}

pub(super) fn run(command: PluginCommand, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        PluginCommand::Operate(command) => operate::run(command, config),
    }
}
