//! What the operator says of a plugin: where it may change orders, what it may use, and what becomes of orders it fails on.

use super::*;
use crate::config::OnFault;

fn under(policy: PluginPolicy, evil: &str) -> PluginSource {
    PluginSource { policy, ..source("hand", guest(evil, "", "")) }
}

fn decided(limits: &PluginsConfig, source: PluginSource) -> Judgement {
    let name = source.name.clone();
    judge(&host(limits, vec![source]), &[&name], [Bytes::from(r#"{"evil":1}"#)]).remove(0)
}

fn fault(judgement: &Judgement) -> (FaultKind, &str) {
    let Decision::Fault { kind, detail, .. } = &judgement.decision else { panic!("{judgement:?}") };
    (*kind, detail)
}

/// Sets `/n/y`.
const SETS: &str =
    "(call $enrich (local.get $o) (i32.const 0) (i32.const 64) (i32.const 4) (i32.const 48) (i32.const 12))";

#[test]
fn a_patch_outside_of_its_places_is_a_fault_that_names_them() {
    let patch = |paths: &[&str]| PluginPolicy {
        patch: Some(paths.iter().map(|&path| path.to_owned()).collect()),
        ..PluginPolicy::default()
    };
    assert_eq!(word(&decided(&limits(), under(patch(&["/n"]), SETS))), "patched");
    assert_eq!(word(&decided(&limits(), under(PluginPolicy::default(), SETS))), "patched");
    let judgement = decided(&limits(), under(patch(&["/totals", "/n/z"]), SETS));
    let expected = "its patch sets `/n/y`; it may change orders only at or below `/totals`, `/n/z`";
    assert_eq!(fault(&judgement), (FaultKind::Contract, expected));
}

/// The file with a manifest, which says where the plugin may change orders.
fn with_manifest(mut file: Vec<u8>, patch: &str) -> Vec<u8> {
    let manifest = format!(r#"{{"name":"hand","version":"1.0.0","patch":{patch}}}"#);
    let mut section = vec![u8::try_from(MANIFEST_SECTION.len()).unwrap()];
    section.extend(MANIFEST_SECTION.as_bytes());
    section.extend(manifest.as_bytes());
    assert!(section.len() < 128, "one byte tells its length");
    file.extend([0, u8::try_from(section.len()).unwrap()]);
    file.extend(section);
    file
}

#[test]
fn the_manifest_says_where_unless_the_operator_does() {
    let file = with_manifest(guest(SETS, "", ""), r#"["/totals"]"#);
    let judgement = decided(&limits(), source("hand", file.clone()));
    assert!(fault(&judgement).1.ends_with("only at or below `/totals`"), "{judgement:?}");
    let policy = PluginPolicy { patch: Some(vec!["/n/y".to_owned()]), ..PluginPolicy::default() };
    assert_eq!(word(&decided(&limits(), PluginSource { policy, ..source("hand", file) })), "patched");
}

#[test]
fn a_plugin_has_limits_of_its_own() {
    // 16 MiB is the limit of all.
    let grows = "(drop (memory.grow (i32.const 300)))";
    assert_eq!(fault(&decided(&limits(), under(PluginPolicy::default(), grows))).0, FaultKind::Memory);
    let more = PluginPolicy { memory_bytes_max: Some(ByteSize(32 << 20)), ..PluginPolicy::default() };
    assert_eq!(word(&decided(&limits(), under(more, grows))), "pass");
    let less = PluginPolicy { time_per_order: Some(Span(Duration::from_millis(35))), ..PluginPolicy::default() };
    let judgement = decided(&limits(), under(less, "(loop $l (br $l))"));
    assert_eq!(fault(&judgement), (FaultKind::Time, "it used more than 35 ms of CPU time"));
}

#[test]
fn tables_count_as_memory_does() {
    let text = |evil: &str| {
        let text = include_str!("guest.wat").replace("EVIL", evil).replace("CONFIGURE", "");
        text.replace("START", "(table $t 0 100000 funcref)").into_bytes()
    };
    let grows = text("(drop (table.grow $t (ref.null func) (i32.const 20000)))");
    let limits = PluginsConfig { memory_bytes_max: ByteSize((2 << 20) + 100_000), ..limits() };
    let judgement = decided(&limits, source("hand", grows.clone()));
    assert_eq!(fault(&judgement), (FaultKind::Memory, "it asked for more than 2197152 bytes of memory"));
    let limits = PluginsConfig { memory_bytes_max: ByteSize((2 << 20) + 200_000), ..limits };
    assert_eq!(word(&decided(&limits, source("hand", grows))), "pass");
    let too_many = text("(drop (table.grow $t (ref.null func) (i32.const 100001)))");
    let judgement = decided(&super::limits(), source("hand", too_many));
    assert_eq!(fault(&judgement).0, FaultKind::Memory);
}

#[test]
fn a_storm_of_calls_ends() {
    let evil = "(local $i i32) (loop $l (call $log (i32.const 1) (i32.const 16) (i32.const 2))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 101))))";
    let limits = PluginsConfig { host_calls_per_order_max: 100, ..limits() };
    let judgement = decided(&limits, under(PluginPolicy::default(), evil));
    assert_eq!(fault(&judgement), (FaultKind::Contract, "it called the gateway more than 100 times per order"));
    let limits = PluginsConfig { host_calls_per_order_max: 101, ..limits };
    assert_eq!(word(&decided(&limits, under(PluginPolicy::default(), evil))), "pass");
}

fn on_fault(on_fault: OnFault, evil: &str) -> PluginSource {
    under(PluginPolicy { on_fault, ..PluginPolicy::default() }, evil)
}

#[test]
fn an_order_that_a_plugin_fails_on_is_refused_where_the_operator_says_so() {
    let judgement = decided(&limits(), on_fault(OnFault::Reject, "unreachable"));
    assert_eq!(judgement.runs[0].verdict, "fault");
    let Decision::Reject(problems) = &judgement.decision else { panic!("{judgement:?}") };
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].code.as_str(), problems[0].source), ("plugin-failed", crate::order::Source::Plugin));
    let detail = problems[0].detail.as_deref().unwrap();
    assert!(detail.contains("`hand`") && !detail.contains("unreachable"), "{detail}");
}

#[test]
fn an_order_that_a_plugin_fails_on_goes_on_marked_where_the_operator_says_so() {
    let skipped = on_fault(OnFault::SkipAndMark, "unreachable");
    let skipped = [PluginSource { name: "first".to_owned(), ..skipped.clone() }, skipped];
    // The last in the chain enriches: what comes behind is asked all the same.
    let last = source("last", guest(SETS, "", ""));
    let host = host(&limits(), skipped.into_iter().chain([last]).collect());
    let bodies = [r#"{"evil":1}"#, r#"{"n":{}}"#].map(Bytes::from);
    let judgements = judge(&host, &["first", "hand", "last"], bodies);
    let words: Vec<_> = judgements[0].runs.iter().map(|run| run.verdict).collect();
    assert_eq!(words, ["fault", "fault", "enrich"]);
    let Decision::Pass { headers, body, .. } = &judgements[0].decision else { panic!("{judgements:?}") };
    assert_eq!(headers, &[("sluice-unverified".to_owned(), "first,hand".to_owned())]);
    assert_eq!(body, r#"{"evil":1,"n":{"y":{"b":[1.50]}}}"#);
    assert_eq!(word(&judgements[1]), "pass", "whom it did not fail on is not marked");
}

/// One call with all, then two for each halving: a trap among 64 costs 13 calls.
#[test]
fn the_one_at_fault_is_found_by_halves() {
    for culprit in [0, 37, 63] {
        let metrics = Arc::new(Metrics::new());
        let host = host_with(&limits(), vec![source("hand", guest("unreachable", "", ""))], Arc::clone(&metrics));
        let bodies = (0..64).map(|number| if number == culprit { r#"{"evil":1}"# } else { r#"{"n":1}"# });
        let judgements = judge(&host, &["hand"], bodies.map(Bytes::from));
        assert_eq!(judgements.iter().filter(|judgement| word(judgement) == "pass").count(), 63);
        assert_eq!(word(&judgements[culprit]), "trap");
        let calls = r#"sluice_plugin_call_seconds_count{plugin="hand"} 13"#;
        assert!(metrics.render().contains(calls), "{}", metrics.render());
    }
}

#[test]
fn a_plugin_that_fails_too_often_is_told_of_once() {
    let host = host(&limits(), vec![source("hand", guest("unreachable", "", "")), source("good", guest("", "", ""))]);
    let bodies = |evil: usize, good: usize| {
        let evil = std::iter::repeat_n(r#"{"evil":1}"#, evil);
        evil.chain(std::iter::repeat_n(r#"{"n":1}"#, good)).map(Bytes::from)
    };
    let mut broken = Box::pin(host.broken_plugin());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    judge(&host, &["hand", "good"], bodies(10, 10));
    assert!(broken.as_mut().poll(&mut context).is_pending(), "half of them is not more than half");
    judge(&host, &["hand", "good"], bodies(1, 0));
    let std::task::Poll::Ready(plugin) = broken.as_mut().poll(&mut context) else { panic!("nobody was told") };
    assert_eq!(&*plugin.info().name, "hand");
    let health = plugin.health();
    assert_eq!((health.judged, health.faulted, health.is_broken), (21, 11, true));
    judge(&host, &["hand", "good"], bodies(1, 0));
    assert!(Box::pin(host.broken_plugin()).as_mut().poll(&mut context).is_pending(), "it is told of once");
    let good = host.generation().plugins.iter().find(|plugin| *plugin.info().name == *"good").unwrap().health();
    assert_eq!((good.judged, good.faulted, good.clean_batches), (10, 0, 1));
}

#[test]
fn retries_of_one_order_do_not_break_a_plugin() {
    let host = host(&limits(), vec![source("hand", guest("unreachable", "", ""))]);
    chain(&host, &["hand"]);
    let order = candidate(Bytes::from(r#"{"evil":1}"#));
    for attempt in 1..=30 {
        let again = Candidate { attempt, ..order.clone() };
        assert_eq!(word(&wait(host.judge("/orders", vec![again], &Pace::default()))[0]), "trap");
    }
    let health = host.generation().plugins[0].health();
    assert_eq!((health.judged, health.faulted, health.is_broken), (1, 1, false));
}
