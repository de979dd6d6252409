//! What is compiled once is kept, whole and for this user alone, and what is damaged is never trusted.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// A folder of the gateway's own.
fn state() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

fn start(limits: &PluginsConfig, state_dir: &Path) -> PluginHost {
    PluginHost::start(limits, Arc::default()).unwrap().compiling(state_dir, None)
}

/// Whether a fresh host finds the plugin compiled; it is used, too.
fn is_kept(limits: &PluginsConfig, state_dir: &Path, file: &[u8]) -> bool {
    let host = start(limits, state_dir);
    let plugin = host.load(limits, source("hand", file.to_vec())).unwrap();
    let is_cached = plugin.info().is_cached;
    assert_eq!(plugin.info().bytes, file.len());
    host.publish(Generation::new(1, vec![plugin], []));
    assert_eq!(word(&judge(&host, &["hand"], [Bytes::from(r#"{"n":1}"#)])[0]), "pass");
    is_cached
}

fn kept(state_dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(state_dir.join("compiled")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_plugin_of_each_lane_is_compiled_once() {
    let state = state();
    let module = include_str!("guest.wat").replace("EVIL", "").replace("CONFIGURE", "").replace("START", "");
    let bytes = include_str!("bytes.wat").replace("TOP", "").replace("EVIL", "");
    let bytes = bytes.replace("ANSWER", r#"{\"outcomes\":[{\"seq\":0,\"verdict\":\"accept\"}]}"#);
    for (count, file) in [guest("", "", ""), module.into_bytes(), bytes.into_bytes()].into_iter().enumerate() {
        assert!(!is_kept(&limits(), state.path(), &file));
        assert!(is_kept(&limits(), state.path(), &file));
        assert_eq!(kept(state.path()).len(), count + 1);
    }
    for file in kept(state.path()) {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(state.path().join("compiled")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_damaged_file_is_compiled_anew() {
    let state = state();
    let file = guest("", "", "");
    assert!(!is_kept(&limits(), state.path(), &file));
    let path = kept(state.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases = [
        Vec::new(),
        whole[..20].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        flipped(0),
        flipped(40),
        flipped(whole.len() / 2),
        flipped(whole.len() - 1),
    ];
    for damaged in cases {
        fs::write(&path, &damaged).unwrap();
        assert!(!is_kept(&limits(), state.path(), &file), "{} bytes", damaged.len());
        assert_eq!(fs::read(&path).unwrap().len(), whole.len());
        assert!(is_kept(&limits(), state.path(), &file));
    }
}

#[test]
fn a_folder_that_others_may_enter_is_not_used() {
    for (outer, inner) in [(0o755, 0o700), (0o700, 0o750), (0o700, 0o702)] {
        let state = state();
        let compiled = state.path().join("compiled");
        fs::create_dir(&compiled).unwrap();
        fs::set_permissions(&compiled, fs::Permissions::from_mode(inner)).unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(outer)).unwrap();
        let file = guest("", "", "");
        for _ in 0..2 {
            assert!(!is_kept(&limits(), state.path(), &file), "{outer:o} {inner:o}");
        }
        assert_eq!(kept(state.path()), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_was_not_used_longest_makes_room() {
    let state = state();
    let file = |number: usize| guest(&"(nop)".repeat(number), "", "");
    is_kept(&limits(), state.path(), &file(0));
    let size = fs::metadata(&kept(state.path())[0]).unwrap().len();
    let small = PluginsConfig { cache_bytes_max: ByteSize(usize::try_from(size).unwrap() * 5 / 2), ..limits() };
    is_kept(&small, state.path(), &file(1));
    assert!(is_kept(&small, state.path(), &file(0)), "it was used, so the other is older");
    is_kept(&small, state.path(), &file(2));
    assert_eq!(kept(state.path()).len(), 2);
    assert!(is_kept(&small, state.path(), &file(0)));
    assert!(!is_kept(&small, state.path(), &file(1)));
    let none = PluginsConfig { cache_bytes_max: ByteSize(0), ..limits() };
    assert!(!is_kept(&none, state.path(), &file(3)));
    assert!(!is_kept(&none, state.path(), &file(3)));
}

#[test]
fn many_who_want_the_same_wait_for_one_compilation() {
    let state = state();
    let host = start(&limits(), state.path());
    let file = super::super::bundled()[0].1;
    let loaded = host.load_all(&limits(), (0..8).map(|number| source(&format!("p{number}"), file)).collect()).unwrap();
    let compiled: Vec<_> = loaded.iter().map(|plugin| plugin.info().is_cached).collect();
    assert_eq!(compiled.iter().filter(|is_cached| !**is_cached).count(), 1, "{compiled:?}");
}

#[test]
fn compiling_has_a_limit_of_time() {
    let limits = PluginsConfig { compile_time_max: Span(Duration::from_nanos(1)), ..limits() };
    let error = refused(&limits, source("odd", super::super::bundled()[0].1)).to_string();
    assert!(error.contains("cannot be compiled within the limits: it takes longer than"), "{error}");
}
