//! A plugin's project: a folder with `plugin.toml`, which says what the plugin is called and what it may do.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::plugin::{MANIFEST_SECTION, Manifest};

/// The file that makes a folder a project.
pub const FILE: &str = "plugin.toml";

/// The file with a project's test vectors.
pub const VECTORS: &str = "vectors.ndjson";

/// Longest name of a plugin.
const NAME_BYTES_MAX: usize = 64;

/// Worlds that a plugin can be of.
const WORLDS: [&str; 3] = ["validator", "enricher", "bytes"];

/// A project as its `plugin.toml` has it.
#[derive(Debug, Clone)]
pub struct Project {
    pub folder: PathBuf,
    pub file: ProjectFile,
}

/// What stands in `plugin.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// What the plugin is called, and its file.
    pub name: String,
    pub version: String,
    #[serde(default)]
    pub description: String,
    pub language: String,
    /// `validator`, `enricher` or `bytes`.
    pub world: String,
    /// Where it may change orders: JSON Pointers, with all below them. None: anywhere.
    pub patch: Option<Vec<String>>,
    /// A sample of the operator's configuration, for test, bench and run.
    #[serde(default)]
    pub config: toml::Table,
    pub native: Option<Native>,
}

/// How the project is tested without WebAssembly.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Native {
    /// A command for the shell, run in the project's folder; instead of what the language does by itself.
    pub test: String,
}

impl Project {
    /// Reads the project in a folder.
    ///
    /// # Errors
    ///
    /// There is none, or its `plugin.toml` is wrong.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        ensure!(path.is_file(), "{} is no plugin's project: it has no {FILE}", folder.display());
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let file: ProjectFile = toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        let problem = check_name(&file.name).and_then(|()| file.check());
        if let Err(problem) = problem {
            bail!("{}: {problem}", path.display());
        }
        let folder = fs::canonicalize(folder).with_context(|| format!("find {}", folder.display()))?;
        Ok(Self { folder, file })
    }

    /// Where its plugin is built to.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.file.name))
    }

    /// The sample configuration as JSON.
    ///
    /// # Errors
    ///
    /// It has something that JSON has not, such as a date.
    pub fn config_json(&self) -> anyhow::Result<Vec<u8>> {
        serde_json::to_vec(&self.file.config).with_context(|| format!("[config] of {FILE} as JSON"))
    }
}

impl ProjectFile {
    fn check(&self) -> Result<(), String> {
        if !WORLDS.contains(&self.world.as_str()) {
            return Err(format!("world is `{}`; expected one of {WORLDS:?}", self.world));
        }
        let mut pointers = self.patch.iter().flatten();
        match pointers.find(|pointer| !pointer.starts_with('/')) {
            Some(pointer) => Err(format!("patch has `{pointer}`; expected JSON Pointers such as /totals")),
            None => Ok(()),
        }
    }

    /// The plugin with this manifest in it. Text becomes binary on the way.
    ///
    /// # Errors
    ///
    /// The text is no WebAssembly.
    pub fn with_manifest(&self, plugin: &[u8]) -> anyhow::Result<Vec<u8>> {
        let manifest = Manifest {
            name: self.name.clone(),
            version: self.version.clone(),
            description: self.description.clone(),
            language: self.language.clone(),
            world: self.world.clone(),
            patch: self.patch.clone(),
        };
        let mut wasm = wat::parse_bytes(plugin).context("the plugin is no WebAssembly")?.into_owned();
        append_section(&mut wasm, MANIFEST_SECTION, &serde_json::to_vec(&manifest)?);
        Ok(wasm)
    }
}

/// Checks what a plugin is to be called: it is a file's name, a label of metrics and a key of the configuration.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_word = name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_word {
        return Err(format!("`{}` is no name for a plugin: a letter, then letters, digits and -", name.escape_debug()));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the name has {} bytes, at most {NAME_BYTES_MAX} can be", name.len()));
    }
    Ok(())
}

/// A custom section has the same form in components and in core modules, and may stand at the end.
fn append_section(wasm: &mut Vec<u8>, name: &str, contents: &[u8]) {
    let mut body = Vec::new();
    push_length(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(contents);
    wasm.push(0);
    push_length(wasm, body.len());
    wasm.extend_from_slice(&body);
}

/// LEB128.
fn push_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        if length == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> anyhow::Result<Project> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(FILE), text)?;
        Project::open(folder.path())
    }

    const WHOLE: &str = "name = \"tiny\"\nversion = \"0.1.0\"\nlanguage = \"wat\"\nworld = \"bytes\"\npatch = [\"/a\"]\n[config]\nmost = 5\n";

    #[test]
    fn a_project_is_read_and_its_configuration_is_json() {
        let project = project(WHOLE).unwrap();
        assert_eq!(project.config_json().unwrap(), br#"{"most":5}"#);
        assert!(project.target().ends_with("tiny.wasm"));
    }

    #[test]
    fn what_is_wrong_with_a_project_is_told() {
        for (from, to, told) in [
            ("\"tiny\"", "\"Tiny\"", "no name for a plugin"),
            ("\"bytes\"", "\"all\"", "world is `all`"),
            ("\"/a\"", "\"a\"", "JSON Pointers"),
            ("version", "versoin", "unknown field `versoin`"),
            ("most = 5", "most = ", "line 7"),
        ] {
            let error = format!("{:#}", project(&WHOLE.replace(from, to)).unwrap_err());
            assert!(error.contains(told) && error.contains(FILE), "{error}");
        }
        assert!(Project::open(Path::new("/nowhere")).unwrap_err().to_string().contains("no plugin's project"));
    }

    #[test]
    fn names_are_words_that_can_be_files() {
        for good in ["a", "order-check", "a1"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "-a", "1a", "a-", "A", "a b", "a/b", "..", "ä", &"a".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_manifest_is_a_section_that_leaves_the_plugin_valid() {
        let project = project(WHOLE).unwrap();
        let description = "x".repeat(300);
        let file = ProjectFile { description, ..project.file };
        for text in ["(module (memory 1))", "(component)"] {
            let wasm = file.with_manifest(text.as_bytes()).unwrap();
            let again = wat::parse_str(text).unwrap();
            assert!(wasm.starts_with(&again));
            let added = &wasm[again.len()..];
            // Its id, its length in two bytes, its name's length, its name.
            assert_eq!((added[0], usize::from(added[1] & 0x7f) + (usize::from(added[2]) << 7)), (0, added.len() - 3));
            assert_eq!((usize::from(added[3]), &added[4..19]), (MANIFEST_SECTION.len(), MANIFEST_SECTION.as_bytes()));
            let manifest = Manifest::parse(&added[19..]).unwrap();
            assert_eq!((manifest.name, manifest.patch), ("tiny".to_owned(), Some(vec!["/a".to_owned()])));
        }
    }
}
