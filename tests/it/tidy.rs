//! What the source tree promises about itself: who may import whom, and where things are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first: a module's place decides what it may import.
const LAYERS: [(&str, &[&str]); 6] = [
    ("words", &["clock", "dead", "entry", "order", "record", "reply", "retry", "route"]),
    ("ground", &["config", "crash", "lifecycle", "ownership", "pace", "telemetry"]),
    ("doors", &["broker", "folder", "outbox", "plugin", "publisher", "subscriber"]),
    ("flows", &["admin", "catalog", "intake", "janitor", "relay", "replies", "status"]),
    ("edge", &["http"]),
    ("root", &["cli", "dev", "doctor", "gateway", "main", "workbench"]),
];

/// What each layer may import besides the module itself. `dev` is no exception: it stands beside the root.
fn may_import(from: &str, to: &str) -> bool {
    let allowed: &[&str] = match layer(from) {
        "words" => &["words"],
        "ground" => &["words", "ground"],
        "doors" => &["words", "ground"],
        "flows" => &["words", "ground", "doors"],
        "edge" => &["words", "ground", "flows"],
        _ => &["words", "ground", "doors", "flows", "edge", "root"],
    };
    from == to || allowed.contains(&layer(to))
}

/// Foreign libraries and the only modules that may name them.
const DOORS: [(&str, &[&str]); 11] = [
    ("axum", &["http"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("tower", &["http"]),
    ("rusqlite", &["outbox"]),
    ("sqlx", &["outbox"]),
    ("wasmtime", &["plugin"]),
    ("notify", &["folder"]),
    ("minisign_verify", &["catalog"]),
    ("rdkafka", &["broker", "publisher", "subscriber", "dev"]),
    ("clap", &["cli", "main"]),
];

fn layer(module: &str) -> &'static str {
    let found = LAYERS.iter().find(|(_, modules)| modules.contains(&module));
    found.unwrap_or_else(|| panic!("module `{module}` stands in no layer: give it a place in tests/it/tidy.rs")).0
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// All files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The gateway's source files: module on the top level, path, and the lines of code before the unit tests.
fn gateway_sources() -> Vec<(String, PathBuf, Vec<String>)> {
    let source = root().join("gateway/src");
    let rust = files(&source).into_iter().filter(|path| path.extension().is_some_and(|name| name == "rs"));
    let no_tests = rust.filter(|path| path.file_stem().is_some_and(|name| name != "tests" && name != "lib"));
    no_tests
        .map(|path| {
            let inside = path.strip_prefix(&source).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let module = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned()).collect();
            (module, path, lines)
        })
        .collect()
}

/// Whether `name` stands in the line as a path's first part: `name::…`, `use name;`.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = &line[at + name.len()..];
        let is_begin = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':' && c != '"');
        is_begin && (after.starts_with("::") || (line.trim_start().starts_with("use ") && after.starts_with(';')))
    })
}

/// The modules behind each `crate::` of a file, with the line.
fn imports(lines: &[String]) -> Vec<(usize, String)> {
    let text = lines.join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + "crate::".len()..];
        let ident = |text: &str| -> String {
            text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
        };
        if text[..at].ends_with('$') {
            continue;
        }
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut begin = 0;
            for (position, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        found.push((line, ident(&list[begin..position])));
                        begin = position + 1;
                        if c == '}' {
                            break;
                        }
                    }
                    _ => {}
                }
            }
        } else {
            found.push((line, ident(rest)));
        }
    }
    found.retain(|(_, module)| module.chars().next().is_some_and(|c| c.is_ascii_lowercase()));
    found
}

fn report(rule: &str, offenses: &[String]) {
    assert!(offenses.is_empty(), "{rule}:\n{}", offenses.join("\n"));
}

#[test]
fn imports_go_down_the_layers_only() {
    let mut offenses = Vec::new();
    for (module, path, lines) in gateway_sources() {
        for (line, imported) in imports(&lines) {
            if !may_import(&module, &imported) {
                let (from, to) = (layer(&module), layer(&imported));
                offenses.push(format!("{}:{line}: {module} ({from}) imports {imported} ({to})", path.display()));
            }
        }
    }
    report("imports go words, ground, doors, flows, edge, root; doors and flows do not import each other", &offenses);
}

#[test]
fn each_foreign_library_has_one_door() {
    let mut offenses = Vec::new();
    for (module, path, lines) in gateway_sources() {
        for (number, line) in lines.iter().enumerate() {
            for (library, doors) in DOORS {
                if names(line, library) && !doors.contains(&module.as_str()) {
                    offenses.push(format!("{}:{}: {library} belongs to {doors:?}", path.display(), number + 1));
                }
            }
        }
    }
    report("a foreign library is named in its door only", &offenses);
}

#[test]
fn metrics_are_named_in_one_file() {
    let mut offenses = Vec::new();
    for (_, path, lines) in gateway_sources() {
        if path.ends_with("telemetry/metrics.rs") {
            continue;
        }
        for (number, line) in lines.iter().enumerate() {
            if line.contains("Registry") || line.contains("register(") {
                offenses.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    report("every metric is named in telemetry/metrics.rs", &offenses);
}

#[test]
fn files_are_named_for_what_they_do() {
    let mut offenses = Vec::new();
    for folder in ["gateway", "plugin-sdk", "plugins", "tests"] {
        for path in files(&root().join(folder)) {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if ["util", "utils", "helper", "helpers", "common", "misc", "types", "traits"].contains(&stem)
                || path.ends_with("mod.rs")
            {
                offenses.push(path.display().to_string());
            }
        }
    }
    report("no file is named for nothing", &offenses);
}

#[test]
fn each_source_file_begins_with_what_it_does() {
    let mut offenses = Vec::new();
    for folder in ["gateway", "plugin-sdk", "plugins", "tests"] {
        for path in files(&root().join(folder)) {
            if path.extension().is_some_and(|name| name == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let word = ["TO", "DO"].concat();
                // `tests.rs` beside a file is a part of it that became long.
                if !text.starts_with("//! ") && !path.ends_with("tests.rs") {
                    offenses.push(format!("{}: no `//!` header", path.display()));
                }
                if text.contains(&word) || text.contains(&["FIX", "ME"].concat()) {
                    offenses.push(format!("{}: work is kept in issues, not in comments", path.display()));
                }
            }
        }
    }
    report("each file says what it does", &offenses);
}

#[test]
fn every_key_of_the_configuration_is_in_its_default_file_with_a_comment() {
    let defaults = fs::read_to_string(root().join("config/gateway.toml")).unwrap();
    let written: BTreeSet<String> = defaults
        .lines()
        // `#key = …`, `#[[table]]`: one that may be left out.
        .map(|line| {
            let is_left_out = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
            line.strip_prefix('#').filter(is_left_out).unwrap_or(line)
        })
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| match line.strip_prefix('[') {
            Some(header) => header.trim_matches(['[', ']']).split('.').next_back().map(str::to_owned),
            None => line.split_once(" = ").map(|(key, _)| key.to_owned()),
        })
        .chain(defaults.lines().filter_map(|line| line.strip_prefix("[plugins.")).map(|_| "config".to_owned()))
        .collect();
    let source = fs::read_to_string(root().join("gateway/src/config.rs")).unwrap();
    let mut offenses = Vec::new();
    for block in source.split("\npub struct ").skip(1) {
        let body = block.split("\n}").next().unwrap();
        let mut renamed = None;
        for line in body.lines().map(str::trim) {
            if let Some((_, rest)) = line.split_once("rename = \"") {
                renamed = rest.split('"').next().map(str::to_owned);
            }
            if let Some((field, _)) = line.strip_prefix("pub ").and_then(|line| line.split_once(": ")) {
                let key = renamed.take().unwrap_or_else(|| field.to_owned());
                if !written.contains(&key) {
                    offenses.push(format!("config/gateway.toml has no {key}"));
                }
            }
        }
    }
    let lines: Vec<&str> = defaults.lines().collect();
    for pair in lines.windows(2) {
        let is_key = pair[1].contains(" = ") && !pair[1].starts_with(['#', '[']);
        if is_key && pair[0].is_empty() {
            offenses.push(format!("no comment above `{}`", pair[1]));
        }
    }
    report("every key stands in config/gateway.toml with a comment", &offenses);
}

#[test]
fn migrations_are_numbered_without_gaps() {
    for dialect in fs::read_dir(root().join("gateway/migrations")).unwrap() {
        let folder = dialect.unwrap().path();
        let names: Vec<String> = files(&folder)
            .iter()
            .filter(|path| path.extension().is_some_and(|name| name == "sql"))
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        for (number, name) in names.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", number + 1)), "{}: {name}", folder.display());
        }
        assert!(!names.is_empty(), "{} is empty", folder.display());
    }
}

#[test]
fn the_top_level_is_what_it_is_said_to_be() {
    const REQUIRED: [&str; 10] = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "gateway",
        "plugin-sdk",
        "plugins",
        "config",
        "tests",
    ];
    const SETTINGS: [&str; 4] = ["clippy.toml", "rustfmt.toml", "rust-toolchain.toml", "deny.toml"];
    let present: BTreeSet<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && name != "target" && name != "sluice.plugins" && !name.contains(".db"))
        .collect();
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| !present.contains(*name)).collect();
    let unknown: Vec<&String> = present
        .iter()
        .filter(|name| !REQUIRED.contains(&name.as_str()) && !SETTINGS.contains(&name.as_str()))
        .collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:?}, not listed: {unknown:?}");
}
