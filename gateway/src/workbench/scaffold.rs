//! Makes a new project of a language's template.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::language::{self, Language};
use super::project::{FILE, Project, check_name};

/// What stands for the project's name in a template, also in the names of its files.
const NAME: &str = "{{name}}";

/// Makes the folder `NAME` with a project of that name, in `parent`.
///
/// # Errors
///
/// The name is none, the folder is there and not empty, the world is none of the template's, or nothing can be written.
pub fn create(language: &Language, parent: &Path, name: &str, world: Option<&str>) -> anyhow::Result<Project> {
    if let Err(problem) = check_name(name) {
        bail!(problem);
    }
    let folder = parent.join(name);
    if folder.exists() {
        let is_empty = fs::read_dir(&folder).is_ok_and(|mut files| files.next().is_none());
        anyhow::ensure!(
            is_empty,
            "{} is there and not an empty folder; choose another name or place",
            folder.display()
        );
    }
    let told = || format!("write the project into {}", folder.display());
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for (place, bytes) in language.template {
        let bytes = match std::str::from_utf8(bytes) {
            Ok(text) => filled(place, text, name, world)?.into_bytes(),
            Err(_) => bytes.to_vec(),
        };
        files.push((folder.join(place.replace(NAME, name)), bytes));
    }
    for (path, bytes) in files {
        fs::create_dir_all(path.parent().unwrap_or(&folder))
            .and_then(|()| fs::write(&path, bytes))
            .with_context(told)?;
    }
    language::write_all(&folder.join("sdk"), language.sdk).with_context(told)?;
    Project::open(&folder)
}

fn filled(place: &str, text: &str, name: &str, world: Option<&str>) -> anyhow::Result<String> {
    let text = text.replace(NAME, name);
    let Some(world) = world.filter(|_| place == FILE) else { return Ok(text) };
    let is_world = |line: &&str| line.starts_with("world = ");
    let own = text.lines().find(is_world).unwrap_or_default().to_owned();
    let wanted = format!("world = {world:?}");
    if own == "world = \"bytes\"" && own != wanted {
        bail!("plugins in this language speak the bytes ABI: they have no metrics and no look-ups; leave --world out");
    }
    Ok(text.replacen(&own, &wanted, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_makes_a_project_that_can_be_opened() {
        let parent = tempfile::tempdir().unwrap();
        for name in language::names() {
            let made = create(language::named(name).unwrap(), parent.path(), &format!("my-{name}"), None).unwrap();
            assert_eq!((made.file.name.as_str(), made.file.language.as_str()), (format!("my-{name}").as_str(), name));
            assert!(made.folder.join("vectors.ndjson").is_file(), "{name}");
        }
    }

    #[test]
    fn what_is_there_is_not_touched() {
        let parent = tempfile::tempdir().unwrap();
        let wat = language::named("wat").unwrap();
        create(wat, parent.path(), "tiny", None).unwrap();
        assert!(create(wat, parent.path(), "tiny", None).unwrap_err().to_string().contains("not an empty folder"));
        fs::create_dir(parent.path().join("empty")).unwrap();
        create(wat, parent.path(), "empty", None).unwrap();
        for bad in ["../tiny", "Tiny", ""] {
            assert!(create(wat, parent.path(), bad, None).unwrap_err().to_string().contains("no name"), "{bad}");
        }
    }

    #[test]
    fn the_world_is_written_where_the_language_has_it() {
        let parent = tempfile::tempdir().unwrap();
        let error = create(language::named("wat").unwrap(), parent.path(), "a", Some("enricher")).unwrap_err();
        assert!(error.to_string().contains("bytes ABI"), "{error}");
        assert!(!parent.path().join("a").exists());
        let made = create(language::named("python").unwrap(), parent.path(), "b", Some("enricher")).unwrap();
        assert_eq!(made.file.world, "enricher");
    }
}
