//! The languages that plugins can be written in: what of them is part of this program, and their builds.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail};

use super::project::Project;

/// Exit code of a build script whose toolchain is missing.
const TOOLCHAIN_MISSING: i32 = 3;

/// What the header of a build script says if it can run a project's own tests.
const TESTS_OFFERED: &str = "build --test ";

/// A language.
#[derive(Debug)]
pub struct Language {
    pub name: &'static str,
    /// Builds a project: `build PROJECT_DIR OUT.wasm`, for bash.
    script: &'static [u8],
    /// Files of a new project, with `{{name}}` for its name.
    pub(super) template: &'static [(&'static str, &'static [u8])],
    /// Files of a project's folder `sdk`.
    pub(super) sdk: &'static [(&'static str, &'static [u8])],
}

/// All languages, by name.
static LANGUAGES: &[Language] = include!(concat!(env!("OUT_DIR"), "/languages.rs"));

/// The names of all languages.
#[must_use]
pub fn names() -> Vec<&'static str> {
    LANGUAGES.iter().map(|language| language.name).collect()
}

/// The language of a name.
///
/// # Errors
///
/// There is none of that name.
pub fn named(name: &str) -> anyhow::Result<&'static Language> {
    let Some(found) = LANGUAGES.iter().find(|language| language.name == name) else {
        bail!("there is no language `{name}`; expected one of: {}", names().join(", "));
    };
    Ok(found)
}

/// Whether native tests ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeTests {
    Passed,
    Failed,
    /// The language cannot run natively.
    NotOffered,
}

/// Builds a project and puts the plugin, with its manifest, at `out`. What the toolchain says goes to standard error.
///
/// # Errors
///
/// The toolchain is missing, or the project does not build.
pub fn build(project: &Project, out: &Path) -> anyhow::Result<()> {
    let language = named(&project.file.language)?;
    let work = tempfile::Builder::new().prefix("sluice-build-").tempdir().context("make a folder to build in")?;
    let built = work.path().join("built.wasm");
    let status = language.run(work.path(), &[project.folder.as_os_str(), built.as_os_str()], &project.folder)?;
    if status.code() == Some(TOOLCHAIN_MISSING) {
        bail!("the toolchain of {} is missing; what is needed is said above", language.name);
    }
    if !status.success() {
        bail!("`{}` does not build ({status}); what the compiler said is above", project.file.name);
    }
    let bytes = fs::read(&built).with_context(|| format!("the build of {} left no plugin", language.name))?;
    put(out, &project.file.with_manifest(&bytes)?)
}

/// Runs the project's own tests, natively.
///
/// # Errors
///
/// They could not be started.
pub fn native_tests(project: &Project) -> anyhow::Result<NativeTests> {
    let status = if let Some(native) = &project.file.native {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(&native.test);
        finish(shell, &project.folder)?
    } else {
        let language = named(&project.file.language)?;
        if !String::from_utf8_lossy(language.script).contains(TESTS_OFFERED) {
            return Ok(NativeTests::NotOffered);
        }
        let work = tempfile::Builder::new().prefix("sluice-test-").tempdir().context("make a folder to test in")?;
        let status = language.run(work.path(), &["--test".as_ref(), project.folder.as_os_str()], &project.folder)?;
        if status.code() == Some(TOOLCHAIN_MISSING) {
            bail!("the toolchain of {} is missing; what is needed is said above", language.name);
        }
        status
    };
    Ok(if status.success() { NativeTests::Passed } else { NativeTests::Failed })
}

impl Language {
    /// Runs the build script. A project with an SDK of its own uses that; one that lies in the folder of the language's SDK is built
    /// with what stands there, which its sources refer to; any other with the SDK of this program.
    fn run(&self, work: &Path, arguments: &[&std::ffi::OsStr], folder: &Path) -> anyhow::Result<ExitStatus> {
        let has_own = folder.join("sdk").is_dir();
        if let Some(script) = self.script_around(folder).filter(|_| !has_own) {
            let mut bash = Command::new("bash");
            bash.arg(&script).args(arguments);
            return finish(bash, folder);
        }
        let home = work.join("plugin-sdk").join(self.name);
        let script = home.join("build");
        let unpacked = fs::create_dir_all(&home)
            .and_then(|()| fs::write(&script, self.script))
            .and_then(|()| if has_own { Ok(()) } else { write_all(&home.join("sdk"), self.sdk) });
        unpacked.with_context(|| format!("unpack the SDK into {}", home.display()))?;
        let mut bash = Command::new("bash");
        bash.arg(&script).args(arguments);
        finish(bash, folder)
    }
}

impl Language {
    /// The build script of the SDK that a folder lies in.
    fn script_around(&self, folder: &Path) -> Option<PathBuf> {
        let is_sdk =
            |home: &&Path| home.ends_with(self.name) && home.join("template").join(super::project::FILE).is_file();
        let script = folder.ancestors().skip(1).find(is_sdk)?.join("build");
        script.is_file().then_some(script)
    }
}

/// Runs to the end; all that is said goes to standard error.
fn finish(mut command: Command, folder: &Path) -> anyhow::Result<ExitStatus> {
    let stderr = io::stderr().as_fd().try_clone_to_owned().context("share standard error")?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::from(stderr));
    let program = command.get_program().to_string_lossy().into_owned();
    command.status().with_context(|| format!("`{program}` could not be started; builds of plugins need it"))
}

/// Writes files below a folder.
pub(super) fn write_all(folder: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    for (place, bytes) in files {
        let path = folder.join(place);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, bytes)?;
    }
    Ok(())
}

/// Puts a file in its place at once: whoever watches the folder never sees half of it.
///
/// # Errors
///
/// The folder cannot be made or does not take it.
pub fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let place = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut fresh = tempfile::Builder::new().prefix(".").suffix(".new").tempfile_in(folder)?;
        io::Write::write_all(&mut fresh, bytes)?;
        fs::set_permissions(fresh.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        fresh.persist(path)?;
        Ok::<_, io::Error>(())
    };
    place().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_has_a_template_whose_file_names_it() {
        assert!(names().contains(&"wat"), "{:?}", names());
        for language in LANGUAGES {
            let (_, manifest) = language.template.iter().find(|(place, _)| *place == "plugin.toml").unwrap();
            let text = String::from_utf8_lossy(manifest);
            assert!(text.contains(&format!("language = \"{}\"", language.name)), "{text}");
            assert!(text.contains("name = \"{{name}}\""), "{text}");
        }
    }

    #[test]
    fn an_unknown_language_is_told_with_those_there_are() {
        let told = named("cobol").unwrap_err().to_string();
        assert!(told.contains("cobol") && told.contains("wat"), "{told}");
    }

    #[test]
    fn a_file_is_put_in_place_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.wasm");
        for bytes in [b"first".as_slice(), b"second"] {
            put(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
