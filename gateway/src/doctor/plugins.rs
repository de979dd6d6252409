//! Whether the plugins that routes ask can be had: the folder, the gateway's own folder, and each plugin as a node would load it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Fault, Finding, State};
use crate::config::Config;
use crate::workbench::desk::Desk;
use crate::workbench::material;

const CHECK: &str = "plugins";

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![folder(&config.plugins.dir), own_folder(&config.plugins.state_dir)];
    let mut names: Vec<&String> = config.route.iter().flat_map(|route| &route.plugins).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return findings;
    }
    match Desk::open(config.plugins.clone()) {
        Ok(desk) => findings.extend(names.into_iter().map(|name| plugin(config, &desk, name))),
        Err(error) => {
            let said = format!("no plugin can run: {error:#}");
            let advice = "lower plugins.memory_bytes_max or plugins.threads, or give this machine more memory";
            findings.push(Finding::bad((CHECK, "engine"), State::Failed, said, Fault::Machine, advice));
        }
    }
    findings
}

fn folder(folder: &Path) -> Finding {
    let shown = folder.display();
    match fs::read_dir(folder) {
        Ok(files) => Finding::ok(CHECK, "plugins.dir", format!("{shown} has {} file(s)", files.count())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::ok(CHECK, "plugins.dir", format!("{shown} is not there: the bundled plugins serve"))
        }
        Err(error) => {
            let advice = "let this user read the folder, or name another one in plugins.dir";
            let said = format!("{shown} cannot be read: {error}");
            Finding::bad((CHECK, "plugins.dir"), State::Failed, said, Fault::Machine, advice)
        }
    }
}

/// Machine code lies there: nobody else may enter it.
fn own_folder(folder: &Path) -> Finding {
    let (shown, at) = (folder.display(), (CHECK, "plugins.state_dir"));
    match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => {
            let advice = "move the file away, or name another folder in plugins.state_dir";
            Finding::bad(at, State::Failed, format!("{shown} is no folder"), Fault::Machine, advice)
        }
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let said = format!("{shown} can be entered by others (mode {:o})", meta.permissions().mode() & 0o777);
            Finding::bad(at, State::Failed, said, Fault::Machine, format!("chmod 700 {shown}"))
        }
        Ok(_) => Finding::ok(CHECK, "plugins.state_dir", format!("{shown} is ours alone")),
        Err(_) => Finding::ok(CHECK, "plugins.state_dir", format!("{shown} is not there: the first start makes it")),
    }
}

fn plugin(config: &Config, desk: &Desk, name: &str) -> Finding {
    let loaded = material::source(config, Path::new(name), None).and_then(|mut source| {
        // As a node would, not as the tools for authors do: nothing is granted but what the operator grants.
        source.policy = config.plugins.policy.get(name).cloned().unwrap_or_default();
        Ok(desk.load(source)?)
    });
    match loaded {
        Ok(plugin) => {
            let digest = plugin.info().digest.to_string();
            Finding::ok(CHECK, name, format!("compiles, and takes its configuration ({digest})"))
        }
        Err(error) => {
            let advice = format!("see `sluice plugin check {name}`; a node goes on with the last version that worked");
            Finding::bad((CHECK, name), State::Failed, format!("{error:#}"), Fault::Plugin, advice)
        }
    }
}
