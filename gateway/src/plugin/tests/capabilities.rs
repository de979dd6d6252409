//! What plugins may call besides the log: numbers for the operator, tables to look things up in.

use super::*;
use crate::config::Capability;

/// A guest by hand that may count, observe and look up. Its texts: `/a` at 16, `tag` at 96, `red` at 112, `Bad` at
/// 1024. `$which` tells which evil an order is: the digit of `{"evil":1}`.
fn enricher(evil: &str) -> Vec<u8> {
    let imports = r#"
      (import "sluice:plugin/metrics@1.1.0" "count" (func $count (param i32 i32 i32)))
      (import "sluice:plugin/metrics@1.1.0" "observe" (func $observe (param i32 i32 f64)))
      (import "sluice:plugin/lookup@1.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))
      (import "sluice:plugin/lookup@1.1.0" "get-many" (func $get_many (param i32 i32 i32 i32 i32)))
      (memory (export "memory") 32)
      (data (i32.const 1024) "Bad")
      (func $which (param $e i32) (result i32)
        (i32.sub (i32.load8_u offset=8 (i32.load offset=48 (local.get $e))) (i32.const 48)))"#;
    let text = include_str!("guest.wat").replace("@1.0.0", "@1.1.0");
    let text = text.replace("EVIL", evil).replace("CONFIGURE", "").replace("START", "");
    text.replace(r#"(memory (export "memory") 32)"#, imports).into_bytes()
}

fn granted(name: &str, evil: &str, grants: &[Capability]) -> PluginSource {
    let policy = PluginPolicy { grants: grants.to_vec(), ..PluginPolicy::default() };
    PluginSource { policy, ..source(name, enricher(evil)) }
}

fn metered(limits: &PluginsConfig, evil: &str, evils: impl IntoIterator<Item = u8>) -> (String, Vec<Judgement>) {
    let metrics = Arc::new(Metrics::new());
    let source = granted("hand", evil, &[Capability::Metrics, Capability::Lookup]);
    let host = host_with(limits, vec![source], Arc::clone(&metrics));
    let judgements = judge(&host, &["hand"], evils.into_iter().map(evil_order));
    (metrics.render(), judgements)
}

fn evil_order(which: u8) -> Bytes {
    Bytes::from(format!(r#"{{"evil":{which}}}"#))
}

const COUNT_TAG: &str = "(call $count (i32.const 96) (i32.const 3) (i32.const 2))";

#[test]
fn numbers_of_a_plugin_are_on_the_metrics_page() {
    let evil = format!("{COUNT_TAG} (call $observe (i32.const 112) (i32.const 3) (f64.const 1.5))");
    let (page, judgements) = metered(&limits(), &evil, [1, 1, 1]);
    assert!(judgements.iter().all(|judgement| word(judgement) == "pass"));
    for line in [
        r#"sluice_plugin_custom_total{plugin="hand",name="tag"} 6"#,
        r#"sluice_plugin_custom_observations_sum{plugin="hand",name="red"} 4.5"#,
        r#"sluice_plugin_custom_observations_count{plugin="hand",name="red"} 3"#,
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    assert!(!page.contains("sluice_plugin_custom_dropped_total{"), "{page}");
}

#[test]
fn a_batch_that_is_judged_again_in_parts_counts_once() {
    let evil = format!("{COUNT_TAG} (if (i32.eq (call $which (local.get $e)) (i32.const 9)) (then unreachable))");
    let (page, judgements) = metered(&limits(), &evil, (0..64).map(|number| if number == 40 { 9 } else { 1 }));
    assert_eq!(judgements.iter().filter(|judgement| word(judgement) == "pass").count(), 63);
    assert!(page.contains(r#"sluice_plugin_custom_total{plugin="hand",name="tag"} 126"#), "{page}");
}

#[test]
fn names_values_and_calls_are_bounded_and_what_is_dropped_is_counted() {
    let limits = PluginsConfig { metric_names_max: 1, metric_calls_per_order_max: 4, ..limits() };
    let evil = format!(
        "{COUNT_TAG}
         (call $count (i32.const 1024) (i32.const 3) (i32.const 1))
         (call $observe (i32.const 96) (i32.const 3) (f64.const nan))
         (call $count (i32.const 112) (i32.const 3) (i32.const 1))
         (call $count (i32.const 96) (i32.const 0) (i32.const 1))
         {COUNT_TAG} {COUNT_TAG} {COUNT_TAG} {COUNT_TAG}"
    );
    let (page, judgements) = metered(&limits, &evil, [1]);
    assert_eq!(word(&judgements[0]), "pass");
    let has = |line: &str| assert!(page.contains(line), "{line}\n{page}");
    // Four calls are taken: three with `tag`, one with `red`. Of the two names only the first in the alphabet is kept.
    has(r#"sluice_plugin_custom_total{plugin="hand",name="red"} 1"#);
    assert!(!page.contains(r#"name="tag""#), "{page}");
    has(r#"sluice_plugin_custom_dropped_total{plugin="hand",reason="name"} 2"#);
    has(r#"sluice_plugin_custom_dropped_total{plugin="hand",reason="value"} 1"#);
    has(r#"sluice_plugin_custom_dropped_total{plugin="hand",reason="calls"} 2"#);
    has(r#"sluice_plugin_custom_dropped_total{plugin="hand",reason="names"} 1"#);
}

/// A host with the table `tag`, in which `red` is known.
fn with_table(limits: &PluginsConfig, evil: &str, value: &str) -> PluginHost {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tag.json");
    std::fs::write(&file, format!(r#"{{"red":{value}}}"#)).unwrap();
    let limits = PluginsConfig { tables: [("tag".to_owned(), file)].into(), ..limits.clone() };
    let tables = Tables::load(&limits).unwrap();
    let source = PluginSource { tables, ..granted("hand", evil, &[Capability::Metrics, Capability::Lookup]) };
    host(&limits, vec![source])
}

/// Looks the key `red`, or the two bytes of it, up in the table, and sets `/a` to what it finds.
const LOOK_UP: &str = "
  (local $r i32) (local $op i32)
  (local.set $r (call $alloc (i32.const 4) (i32.const 16)))
  (call $get (i32.const 96) (i32.const 3) (i32.const 112) (call $which (local.get $e)) (local.get $r))
  (if (i32.load8_u (local.get $r)) (then unreachable))
  (if (i32.load8_u offset=4 (local.get $r)) (then
    (call $enrich (local.get $o) (i32.const 0) (i32.const 16) (i32.const 2)
      (i32.load offset=8 (local.get $r)) (i32.load offset=12 (local.get $r)))))";

#[test]
fn what_is_looked_up_comes_as_it_is_written() {
    let host = with_table(&limits(), LOOK_UP, r#"{"n": 1.50}"#);
    let judgements = judge(&host, &["hand"], [3, 2].map(evil_order));
    assert_eq!(body(&judgements[0]), r#"{"evil":3,"a":{"n": 1.50}}"#);
    assert_eq!(word(&judgements[1]), "pass", "a key that is not there is no error");
}

#[test]
fn a_table_that_is_not_there_is_an_error_of_its_own() {
    // `unknown-table` is the first of its enum.
    let evil = LOOK_UP.replace(
        "(if (i32.load8_u (local.get $r)) (then unreachable))",
        "(if (i32.eqz (i32.load8_u (local.get $r))) (then unreachable))
         (if (i32.load8_u offset=4 (local.get $r)) (then unreachable))",
    );
    let (_, judgements) = metered(&limits(), &evil, [3]);
    assert_eq!(word(&judgements[0]), "pass");
}

#[test]
fn look_ups_are_bounded_in_number_and_bytes() {
    let again = "
      (local $r i32) (local $i i32)
      (local.set $r (call $alloc (i32.const 4) (i32.const 16)))
      (loop $l
        (call $get (i32.const 96) (i32.const 3) (i32.const 112) (i32.const 3) (local.get $r))
        (if (i32.load8_u (local.get $r)) (then
          ;; The second of its enum is `too-many`.
          (if (i32.ne (i32.load8_u offset=4 (local.get $r)) (i32.const 1)) (then unreachable))
          (if (i32.ne (local.get $i) (i32.const 5)) (then unreachable))
          (return)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $i) (i32.const 100))))
      unreachable";
    let few = PluginsConfig { lookups_per_order_max: 5, ..limits() };
    assert_eq!(word(&judge(&with_table(&few, again, "1"), &["hand"], [evil_order(1)])[0]), "pass");

    let value = format!("\"{}\"", "x".repeat(100 << 10));
    let judgements = judge(&with_table(&limits(), again, &value), &["hand"], [evil_order(1)]);
    let Decision::Fault { kind, detail, .. } = &judgements[0].decision else { panic!("{judgements:?}") };
    assert_eq!((*kind, detail.as_str()), (FaultKind::Output, "it looked up more than 262144 bytes"));
}

#[test]
fn many_keys_are_looked_up_at_once_in_their_sequence() {
    // The keys `red` and `re`, as a list of two texts at 2048.
    let evil = "
      (local $r i32) (local $list i32)
      (i32.store (i32.const 2048) (i32.const 112)) (i32.store (i32.const 2052) (i32.const 2))
      (i32.store (i32.const 2056) (i32.const 112)) (i32.store (i32.const 2060) (i32.const 3))
      (local.set $r (call $alloc (i32.const 4) (i32.const 12)))
      (call $get_many (i32.const 96) (i32.const 3) (i32.const 2048) (call $which (local.get $e)) (local.get $r))
      (if (i32.load8_u (local.get $r)) (then (return)))
      (if (i32.ne (i32.load offset=8 (local.get $r)) (i32.const 2)) (then unreachable))
      (local.set $list (i32.load offset=4 (local.get $r)))
      (if (i32.load8_u (local.get $list)) (then unreachable))
      (if (i32.eqz (i32.load8_u offset=12 (local.get $list))) (then unreachable))
      (call $enrich (local.get $o) (i32.const 0) (i32.const 16) (i32.const 2)
        (i32.load offset=16 (local.get $list)) (i32.load offset=20 (local.get $list)))";
    let host = with_table(&limits(), evil, "[1]");
    assert_eq!(body(&judge(&host, &["hand"], [evil_order(2)])[0]), r#"{"evil":2,"a":[1]}"#);
    let one = PluginsConfig { lookup_keys_max: 1, ..limits() };
    let host = with_table(&one, evil, "[1]");
    assert_eq!(word(&judge(&host, &["hand"], [evil_order(2)])[0]), "pass", "two keys at once are too many");
}

#[test]
fn what_is_not_granted_is_named_and_the_plugin_does_not_serve() {
    let error = refused(&limits(), granted("hand", "", &[Capability::Metrics]));
    let PluginError::Unusable { problem: UnusablePlugin::NotGranted { imports, missing }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(missing, &[Capability::Lookup]);
    assert!(imports.iter().any(|import| import == "sluice:plugin/lookup@1.1.0"), "{imports:?}");
    let said = r#"which needs `lookup` granted: grants = ["lookup"] in [plugins.policy.NAME]"#;
    assert!(error.to_string().ends_with(said), "{error}");
    let error = refused(&limits(), granted("hand", "", &[])).to_string();
    let said = r#"which needs `lookup` and `metrics` granted: grants = ["lookup", "metrics"] in [plugins.policy.NAME]"#;
    assert!(error.ends_with(said), "{error}");
}

/// The check by name is not all that stands before it.
#[test]
fn what_is_not_granted_is_not_there_to_be_linked() {
    let runtime = engine::Runtime::start(1).unwrap();
    let links = |grants: &[Capability]| {
        let count = r#"(export "count" (func (param "name" string) (param "by" u32)))"#;
        let text = format!(r#"(component (import "sluice:plugin/metrics@1.1.0" (instance {count})))"#);
        let binary = wat::parse_str(&text).unwrap();
        let component = wasmtime::component::Component::new(&runtime.engine, &binary).unwrap();
        let mut linker = wasmtime::component::Linker::new(&runtime.engine);
        host::link(&mut linker, &PluginPolicy { grants: grants.to_vec(), ..PluginPolicy::default() }).unwrap();
        linker.instantiate_pre(&component).is_ok()
    };
    assert!(links(&[Capability::Metrics]));
    assert!(!links(&[]));
    assert!(!links(&[Capability::Lookup]));
}
