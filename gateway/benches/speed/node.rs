//! Real gateways: the program itself, each a process of its own, told by a configuration file.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sluice::config::Config;

use super::services;

const LIMIT: Duration = Duration::from_secs(60);

/// A running node. Killed when dropped.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub(crate) fn start(config: &Config, folder: &Path) -> anyhow::Result<Self> {
        let mut config = config.clone();
        std::fs::create_dir_all(folder)?;
        (config.http.listen, config.admin.listen) = (free_address()?, free_address()?);
        "warn".clone_into(&mut config.telemetry.log);
        let file = folder.join("sluice.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SLUICE_")) {
            command.env_remove(name);
        }
        let log = std::fs::File::create(folder.join("log"))?;
        command.arg("run").arg("--config").arg("sluice.toml").current_dir(folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().context("start sluice")?;
        let mut node = Self { address: config.http.listen, admin: config.admin.listen, child };
        let begun = Instant::now();
        while !node.is_ready() {
            let said = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            ensure!(node.child.try_wait()?.is_none(), "the node ended: {}", said());
            ensure!(begun.elapsed() < LIMIT, "the node does not get ready: {}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(node)
    }

    fn is_ready(&self) -> bool {
        ureq::get(format!("http://{}/readyz", self.admin)).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// A metric without labels.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = ureq::get(format!("http://{}/metrics", self.admin)).call()?.body_mut().read_to_string()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("no metric {name}"))?.parse()?)
    }

    /// Waits until everything accepted is on Kafka.
    pub(crate) fn drained(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.metric("sluice_outbox_backlog_orders")? > 0.0 {
            ensure!(begun.elapsed() < LIMIT, "the backlog does not drain");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Duration {
        services::cpu_of_family(self.child.id())
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        kill_process(pid, Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until each node has its share of the slots.
pub(crate) fn shared(nodes: &[&Node]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let share = 64.0 / nodes.len() as f64;
    loop {
        let slots = nodes.iter().map(|node| node.metric("sluice_node_slots")).collect::<anyhow::Result<Vec<f64>>>()?;
        if slots.iter().all(|own| (own - share).abs() < 0.5) {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "the nodes have {slots:?} slots");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
