//! `sluice plugin test`: a project's test vectors in WebAssembly, and its own tests natively.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::config::Config;
use crate::workbench::desk::Desk;
use crate::workbench::language::{self, NativeTests};
use crate::workbench::project::{Project, VECTORS};
use crate::workbench::vectors::Miss;
use crate::workbench::{material, vectors};

/// Vectors are lines of `vectors.ndjson`, each an order with the verdict expected for it:
///
/// {"name":"no lines","order":{"lines":[]},"expect":{"verdict":"reject","problems":[{"code":"lines-missing"}]}}
///
/// `expect` has `verdict` and perhaps `order` (as patched; numbers and strings are compared as written), `headers`, `problems`
/// (code, and perhaps pointer) and `reason`; beside it can stand `attempt` and `config`. Each vector is judged alone and in a
/// batch with the others: both must give the same.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Folder of the project.
    #[arg(default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// Test this plugin instead of building the project.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Take the vectors from another file.
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Leave the native tests out.
    #[arg(long)]
    no_native: bool,
}

pub(super) fn run(args: &TestArgs, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let project = Project::open(&args.project)?;
    let config = Config::load(config)?;
    let vectors = vectors::read(&args.vectors.clone().unwrap_or_else(|| project.folder.join(VECTORS)))?;
    let plugin = args.plugin.as_ref().unwrap_or(&project.folder);
    let mut source = material::source(&config, plugin, Some(project.config_json()?))?;
    source.name.clone_from(&project.file.name);

    let desk = Desk::open(config.plugins)?;
    let misses = vectors::run(&desk, &source, &vectors)?;
    let mut stdout = io::stdout().lock();
    tell(&mut stdout, &misses, vectors.len())?;
    let native = if args.no_native { None } else { Some(language::native_tests(&project)?) };
    let natively = match native {
        None => "natively: left out",
        Some(NativeTests::Passed) => "natively: passed",
        Some(NativeTests::Failed) => "natively: FAILED",
        Some(NativeTests::NotOffered) => "natively: this language has no tests of its own",
    };
    writeln!(stdout, "{natively}")?;
    let has_passed = misses.is_empty() && native != Some(NativeTests::Failed);
    Ok(if has_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says which vectors missed, and how many of how many.
pub(super) fn tell(out: &mut impl Write, misses: &[Miss], count: usize) -> io::Result<()> {
    for miss in misses {
        writeln!(out, "FAILED line {}: {}", miss.line, miss.name)?;
        for line in miss.findings.iter().flat_map(|finding| finding.lines()) {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(out, "{count} vectors in WebAssembly: {} passed, {} failed", count - misses.len(), misses.len())
}
