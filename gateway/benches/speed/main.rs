//! Measures the gateway's speed as ratios between arms that take turns in one run.
//!
//! `cargo bench` runs everything that it finds the services for, `cargo bench -- S1 S13` only those. Absolute figures depend
//! on the machine and on the minute; the ratios are the result. `RESULTS.md` beside this folder keeps the last ones.
//!
//! Servers run as children of this program (`--serve ARM FOLDER`), so that their CPU time is theirs alone.
#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

mod backlog;
mod bare;
mod carry;
mod debezium;
mod downstream;
mod drain;
mod fanout;
mod feed;
mod follow;
mod intake;
mod isolation;
mod lag;
mod languages;
mod load;
mod node;
mod orders;
mod overload;
mod path;
mod plans;
mod plugins;
mod prices;
mod replicas;
mod report;
mod retire;
mod scale;
mod server;
mod services;
mod stall;
mod streams;
mod taking;

use std::path::Path;

use anyhow::{Context, bail};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Scenarios that run together, and what runs them.
type Scenario = (&'static [&'static str], fn() -> anyhow::Result<()>);

/// What can be asked for.
const SCENARIOS: [Scenario; 21] = [
    (&["S13"], plugins::run),
    (&["S14"], isolation::run),
    (&["S15"], stall::run),
    (&["PRICES"], prices::run),
    (&["LANGUAGES"], languages::run),
    (&["S17"], streams::run),
    (&["S1", "S2", "S4", "S24"], intake::run),
    (&["S9B"], drain::run),
    (&["S23"], overload::run),
    // These need PostgreSQL or a real Kafka, and are skipped where there is none.
    (&["S9"], drain::run_real),
    (&["DEBEZIUM"], debezium::run),
    (&["S10"], scale::run_backlog),
    (&["S11"], scale::run_held),
    (&["S6"], taking::run_intake),
    (&["S7"], taking::run_wakes),
    (&["S16"], path::run),
    (&["S8"], lag::run),
    (&["S12"], retire::run),
    (&["S20"], replicas::run),
    (&["S18"], fanout::run),
    (&["FEED"], feed::run),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, arm, folder] = &arguments[..]
        && mode == "--serve"
    {
        return server::serve(arm, Path::new(folder));
    }
    if let [mode, share] = &arguments[..]
        && mode == "--burn"
    {
        stall::burn(share.parse()?);
    }
    // Cargo adds `--bench`.
    let wanted: Vec<String> =
        arguments.iter().filter(|word| !word.starts_with('-')).map(|word| word.to_uppercase()).collect();
    let all = || SCENARIOS.iter().flat_map(|(names, _)| *names);
    if let Some(unknown) = wanted.iter().find(|word| !all().any(|name| name == word)) {
        bail!("no scenario {unknown}: there are {:?}", all().collect::<Vec<_>>());
    }
    report::machine();
    for (names, run) in SCENARIOS {
        if wanted.is_empty() || names.iter().any(|name| wanted.iter().any(|word| word == name)) {
            run().with_context(|| names.join(", "))?;
        }
    }
    Ok(())
}
