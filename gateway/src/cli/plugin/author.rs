//! What the author of a plugin asks for: no running node is needed, but for `watch`.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::{bench, build, check, judge, new, vectors, watch};

#[derive(Debug, Subcommand)]
pub enum AuthorCommand {
    /// Start a project: a folder with a whole plugin to change, its tests and the SDK.
    New(new::NewArgs),
    /// Build a project to NAME.wasm, and check it.
    Build(build::BuildArgs),
    /// Say what a plugin is and whether a node can use it.
    Check(check::CheckArgs),
    /// Build a project and run its test vectors, and natively its own tests.
    Test(vectors::TestArgs),
    /// Measure what a plugin costs: time, memory, instructions and output, against its limits.
    Bench(bench::BenchArgs),
    /// Judge the orders of a file, without a gateway.
    Run(judge::RunArgs),
    /// At each save: build a project, run its vectors, and give it to a running node.
    Watch(watch::WatchArgs),
}

pub(super) fn run(command: AuthorCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    match command {
        AuthorCommand::New(args) => new::run(&args),
        AuthorCommand::Build(args) => build::run(&args, config),
        AuthorCommand::Check(args) => check::run(&args, config),
        AuthorCommand::Test(args) => vectors::run(&args, config),
        AuthorCommand::Bench(args) => bench::run(&args, config),
        AuthorCommand::Run(args) => judge::run(&args, config),
        AuthorCommand::Watch(args) => watch::run(args, config),
    }
}
