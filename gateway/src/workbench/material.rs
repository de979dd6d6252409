//! Finds the plugin that a person means: a project, a file, one of the plugins' folder, or one that is bundled.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;

use super::language;
use super::project::{FILE, Project};
use crate::config::{Capability, Config, OnFault, PluginPolicy};
use crate::plugin::{PluginOrigin, PluginSource, Tables, bundled};

/// The plugin behind a folder, a file or a name. A project is built first. Its configuration is the one given, else the
/// project's sample, else what a node would give it.
///
/// # Errors
///
/// There is none, it does not build, or it cannot be read.
pub fn source(config: &Config, given: &Path, config_json: Option<Vec<u8>>) -> anyhow::Result<PluginSource> {
    if given.is_dir() {
        let project = Project::open(given)?;
        language::build(&project, &project.target())?;
        let config_json = config_json.map_or_else(|| project.config_json(), Ok)?;
        return of_file(config, &project.file.name, &project.target(), config_json);
    }
    let name = given.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if given.is_file() {
        let config_json = match (config_json, beside(given, &name)) {
            (Some(config_json), _) => config_json,
            (None, Some(project)) => project.config_json()?,
            (None, None) => configured(config, &name)?,
        };
        return of_file(config, &name, given, config_json);
    }
    let config_json = config_json.map_or_else(|| configured(config, &name), Ok)?;
    let in_folder = ["wasm", "wat"].map(|kind| config.plugins.dir.join(format!("{name}.{kind}")));
    if given.components().count() == 1 {
        if let Some(file) = in_folder.iter().find(|file| file.is_file()) {
            return of_file(config, &name, file, config_json);
        }
        if let Some((name, bytes)) = bundled().into_iter().find(|(bundled, _)| *bundled == name) {
            let component = Bytes::from_static(bytes);
            return of_bytes(config, name, PluginOrigin::Bundled, component, config_json);
        }
    }
    let names: Vec<_> = bundled().into_iter().map(|(name, _)| name).collect();
    bail!(
        "there is no plugin {}: expected a project's folder, a file, a plugin in {}, or one of {names:?}",
        given.display(),
        config.plugins.dir.display()
    );
}

fn of_file(config: &Config, name: &str, file: &Path, config_json: Vec<u8>) -> anyhow::Result<PluginSource> {
    let told = || format!("read {}", file.display());
    let (size, size_max) = (fs::metadata(file).with_context(told)?.len(), config.plugins.file_bytes_max);
    let is_readable = size <= size_max.0 as u64;
    ensure!(is_readable, "{} has {size} bytes, plugins.file_bytes_max is {size_max}", file.display());
    let component = Bytes::from(fs::read(file).with_context(told)?);
    of_bytes(config, name, PluginOrigin::File(file.to_owned()), component, config_json)
}

/// With the policy and the tables that a node would have for it. On the desk it may call whatever it imports, and its faults are
/// shown.
fn of_bytes(
    config: &Config,
    name: &str,
    origin: PluginOrigin,
    component: Bytes,
    config_json: Vec<u8>,
) -> anyhow::Result<PluginSource> {
    let policy = PluginPolicy {
        grants: vec![Capability::Metrics, Capability::Lookup],
        on_fault: OnFault::Hold,
        ..config.plugins.policy.get(name).cloned().unwrap_or_default()
    };
    let tables = Tables::load(&config.plugins).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{}", errors.join("; "))
    })?;
    Ok(PluginSource { name: name.to_owned(), origin, component, config_json, policy, tables })
}

/// The project whose plugin a file is.
fn beside(file: &Path, name: &str) -> Option<Project> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.join(FILE).is_file() {
        return None;
    }
    Project::open(folder).ok().filter(|project| project.file.name == name)
}

/// What the node of this configuration gives a plugin at its start.
fn configured(config: &Config, name: &str) -> anyhow::Result<Vec<u8>> {
    let table = config.plugins.config.get(name).cloned().unwrap_or_default();
    serde_json::to_vec(&table).with_context(|| format!("plugins.config.{name} as JSON"))
}
