//! Rounds, their ratios, and how the machine fared meanwhile.

use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often each arm runs, unless a scenario says otherwise.
pub(crate) const ROUNDS: usize = 7;

/// The same for the scenarios that need services: `SLUICE_BENCH_ROUNDS` says how many, instead.
pub(crate) fn rounds(usual: usize) -> anyhow::Result<usize> {
    Ok(usize::try_from(super::services::number("SLUICE_BENCH_ROUNDS", usual as u64)?)?)
}

/// Says what the figures were measured on.
pub(crate) fn machine() {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("machine: {cores} x{}, Linux {}", model.trim_start_matches(['\t', ' ', ':']), kernel.trim());
    println!("every ratio: median of {ROUNDS} rounds or more (lowest to highest), arms taking turns");
}

/// Announces a scenario.
pub(crate) fn title(text: &str) {
    println!("\n== {text}");
}

/// The ratios of one scenario.
#[derive(Default)]
pub(crate) struct Ratios(Vec<f64>);

impl Ratios {
    pub(crate) fn add(&mut self, ratio: f64) {
        self.0.push(ratio);
    }

    /// Prints median and range beside the goal.
    pub(crate) fn print(&self, name: &str, goal: &str) {
        let (low, high) = self.0.iter().fold((f64::MAX, f64::MIN), |(low, high), own| (low.min(*own), high.max(*own)));
        println!("{name}: {:.3} ({low:.3} to {high:.3}), goal {goal}", median(&self.0));
    }
}

/// The middle value.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that this share of them does not exceed; sorts them.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The state of the machine before a round: the disk's answer and a fixed piece of work.
pub(crate) fn probe(folder: &Path) -> anyhow::Result<String> {
    let mut disk = Disk::open(folder)?;
    let mut syncs = Vec::new();
    let end = Instant::now() + Duration::from_millis(60);
    while Instant::now() < end {
        syncs.push(disk.sync_ms()?);
    }
    let begun = Instant::now();
    let mut state = 1_u64;
    for _ in 0..10_000_000 {
        state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
    Ok(format!("fdatasync {:.2} ms, spin {:.1} ms", median(&syncs), begun.elapsed().as_secs_f64() * 1e3))
}

/// A file of one page that is written over and over. Removed when dropped.
pub(crate) struct Disk(File, PathBuf);

impl Disk {
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(format!(".tmp-probe-{}", std::process::id()));
        let mut file = File::create(&path)?;
        file.write_all(&[0; 4096])?;
        Ok(Self(file, path))
    }

    /// Milliseconds of one sync.
    pub(crate) fn sync_ms(&mut self) -> anyhow::Result<f64> {
        self.0.rewind()?;
        self.0.write_all(&[1; 4096])?;
        let begun = Instant::now();
        self.0.sync_data()?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It goes with its folder otherwise.
        drop(std::fs::remove_file(&self.1));
    }
}

/// CPU time of this process so far.
pub(crate) fn cpu_of_process() -> Duration {
    of_clock(rustix::time::ClockId::ProcessCPUTime)
}

/// CPU time of this thread so far.
pub(crate) fn cpu_of_thread() -> Duration {
    of_clock(rustix::time::ClockId::ThreadCPUTime)
}

fn of_clock(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
