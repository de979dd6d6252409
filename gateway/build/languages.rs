//! Embeds what `sluice plugin new` and `build` need of each language: its template, its SDK and its build script.
//!
//! A language is a folder of `plugin-sdk/` with `template/plugin.toml` and `build`. What a project gets as its folder
//! `sdk/` is the language's own `sdk/`, its README, and the contract where the build script reads it; of Rust it is the crate.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the contract that a Rust plugin's bindings are made of, in the repository and in a project's `sdk/`.
const RUST_WIT: (&str, &str) = ("\"../wit/", "\"wit\"");

/// Writes a Rust file with the table of languages, and copies of what is changed on the way, into `out`.
pub(super) fn embed(workspace: &Path, out: &Path) -> Result<(), String> {
    let root = workspace.join("plugin-sdk");
    let contract = contract(&root)?;
    let mut table = String::from("&[\n");
    for folder in folders(&root)? {
        let (manifest, script) = (folder.join("template/plugin.toml"), folder.join("build"));
        if !manifest.is_file() || !script.is_file() {
            continue;
        }
        let name = file_name(&folder);
        let template = below(&folder.join("template"))?;
        let sdk = sdk(workspace, &folder, &contract, &out.join("sdk").join(&name))?;
        writeln!(table, "    Language {{\n        name: {name:?},").unwrap_or_default();
        writeln!(table, "        script: include_bytes!({:?}),", script.display().to_string()).unwrap_or_default();
        entries(&mut table, "template", &template);
        entries(&mut table, "sdk", &sdk);
        table.push_str("    },\n");
    }
    table.push_str("]\n");
    let file = out.join("languages.rs");
    fs::write(&file, table).map_err(|error| format!("{}: {error}", file.display()))
}

fn entries(table: &mut String, field: &str, files: &[(String, PathBuf)]) {
    writeln!(table, "        {field}: &[").unwrap_or_default();
    for (place, file) in files {
        writeln!(table, "            ({place:?}, include_bytes!({:?})),", file.display().to_string())
            .unwrap_or_default();
    }
    table.push_str("        ],\n");
}

/// The files of a project's folder `sdk/`.
fn sdk(workspace: &Path, folder: &Path, contract: &Path, out: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut files = if folder.join("Cargo.toml").is_file() {
        rust(workspace, folder, out)?
    } else if folder.join("sdk").is_dir() {
        below(&folder.join("sdk"))?
    } else {
        return Ok(Vec::new());
    };
    if !files.iter().any(|(place, _)| place == "README.md") {
        files.push(("README.md".to_owned(), folder.join("README.md")));
    }
    if folder.join("Cargo.toml").is_file() || read(&folder.join("build"))?.contains("/wit") {
        files.push(("wit/plugin.wit".to_owned(), contract.to_owned()));
    }
    Ok(files)
}

/// The crate, with what it takes from the workspace put in its place.
fn rust(workspace: &Path, folder: &Path, out: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let parse =
        |path: PathBuf| read(&path)?.parse::<toml::Table>().map_err(|error| format!("{}: {error}", path.display()));
    let shared = parse(workspace.join("Cargo.toml"))?;
    let mut manifest = parse(folder.join("Cargo.toml"))?;
    let empty = toml::Table::new();
    let section = |name: &str| shared.get("workspace").and_then(|table| table.get(name)?.as_table()).unwrap_or(&empty);
    // The code answers some of them.
    manifest.insert("lints".to_owned(), section("lints").clone().into());
    inherit(&mut manifest, "package", section("package"));
    inherit(&mut manifest, "dependencies", section("dependencies"));
    for target in manifest.get_mut("target").and_then(toml::Value::as_table_mut).into_iter().flatten() {
        if let Some(target) = target.1.as_table_mut() {
            inherit(target, "dependencies", section("dependencies"));
        }
    }
    // A workspace of its own: it must not be taken for a part of one that a project lies in.
    manifest.insert("workspace".to_owned(), toml::Value::Table(toml::Table::new()));
    let text = toml::to_string_pretty(&manifest).map_err(|error| error.to_string())?;
    let mut files = vec![("Cargo.toml".to_owned(), write(&out.join("Cargo.toml"), &text)?)];
    for (place, file) in below(&folder.join("src"))? {
        let text = read(&file)?;
        let file = match text.split_once(RUST_WIT.0) {
            Some((before, rest)) => {
                let (_, after) = rest.split_once('"').ok_or("the path of the contract has no end")?;
                write(&out.join("src").join(&place), &format!("{before}{}{after}", RUST_WIT.1))?
            }
            None => file,
        };
        files.push((format!("src/{place}"), file));
    }
    Ok(files)
}

/// Replaces `key.workspace = true` by what the workspace has under that key.
fn inherit(manifest: &mut toml::Table, section: &str, shared: &toml::Table) {
    let Some(own) = manifest.get_mut(section).and_then(toml::Value::as_table_mut) else { return };
    for (key, value) in own.iter_mut() {
        let Some(table) = value.as_table_mut() else { continue };
        if table.remove("workspace").is_none() {
            continue;
        }
        let Some(inherited) = shared.get(key) else { continue };
        if table.is_empty() {
            *value = inherited.clone();
        } else {
            match inherited {
                toml::Value::Table(inherited) => table.extend(inherited.clone()),
                version => drop(table.insert("version".to_owned(), version.clone())),
            }
        }
    }
}

/// The contract's highest version.
fn contract(root: &Path) -> Result<PathBuf, String> {
    let versions = folders(&root.join("wit"))?.into_iter().filter_map(|folder| {
        let numbers: Option<Vec<u64>> = file_name(&folder).split('.').map(|number| number.parse().ok()).collect();
        Some((numbers?, folder))
    });
    let (_, folder) = versions.max().ok_or("plugin-sdk/wit has no version")?;
    Ok(folder.join("plugin.wit"))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found: Vec<_> = listed(folder)?.into_iter().filter(|path| path.is_dir()).collect();
    found.sort();
    Ok(found)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::read_dir(folder).map_err(told)?.map(|entry| Ok(entry.map_err(told)?.path())).collect()
}

/// All files below a folder with their places in it, sorted; without what tools leave behind.
fn below(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    const LEFT_BEHIND: [&str; 5] = ["node_modules", "target", "__pycache__", ".zig-cache", "zig-out"];
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = open.pop() {
        for path in listed(&next)? {
            let name = file_name(&path);
            if path.is_dir() && !LEFT_BEHIND.contains(&name.as_str()) {
                open.push(path);
            } else if path.is_file() && !name.ends_with(".wasm") {
                let place = path.strip_prefix(folder).map_err(|error| error.to_string())?;
                found.push((place.to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<PathBuf, String> {
    let folder = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
    written.map(|()| path.to_owned()).map_err(|error| format!("{}: {error}", path.display()))
}
