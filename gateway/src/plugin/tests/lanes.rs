//! Each lane: what is accepted, as binary and as text, what it is taken for, and what is refused in which words.

use super::*;

const GUEST: &str = include_str!("guest.wat");

/// The core module of the guest by hand, with the names of a version of the contract.
fn module(version: &str, evil: &str) -> String {
    GUEST.replace("EVIL", evil).replace("CONFIGURE", "").replace("START", "").replace("@1.0.0", version)
}

fn bytes_module(top: &str, evil: &str, answer: &str) -> String {
    let text = include_str!("bytes.wat").replace("TOP", top).replace("EVIL", evil);
    text.replace("ANSWER", &answer.replace('"', "\\\""))
}

fn bytes_host(top: &str, evil: &str, answer: &str) -> PluginHost {
    host(&limits(), vec![source("hand", bytes_module(top, evil, answer))])
}

fn answered(top: &str, evil: &str, answer: &str) -> Decision {
    let host = bytes_host(top, evil, answer);
    judge(&host, &["hand"], [Bytes::from(r#"{"n":1}"#)]).remove(0).decision
}

fn fault(top: &str, evil: &str, answer: &str) -> (FaultKind, String) {
    match answered(top, evil, answer) {
        Decision::Fault { kind, detail, .. } => (kind, detail),
        decision => panic!("{decision:?}"),
    }
}

fn refusal(wat: &str) -> String {
    let text = refused(&limits(), source("odd", wat.as_bytes().to_vec())).to_string();
    let inspection = inspect(wat.as_bytes(), 1 << 20);
    // What the loader refuses for its shape, the report says in the same words.
    for problem in inspection.problems {
        assert_eq!(format!("plugin `odd` {problem}"), text);
    }
    text
}

fn info(component: impl Into<Bytes>) -> PluginInfo {
    let host = PluginHost::start(&limits(), Arc::default()).unwrap();
    host.load(&limits(), source("one", component)).unwrap().info().clone()
}

const ACCEPT: &str = r#"{"outcomes":[{"seq":0,"verdict":"accept"}]}"#;

#[test]
fn a_module_with_the_names_of_the_contract_is_made_a_component() {
    for version in ["@1.0.0", "@1.1.0"] {
        let text = module(version, "unreachable");
        let info = info(text.clone());
        assert_eq!((info.lane, info.world), (Lane::Module, "validator"));
        assert_eq!(*info.contract, *format!("sluice:plugin{version}"));
        assert_eq!(*info.capabilities, ["log"]);
        let host = host(&limits(), vec![source("hand", text)]);
        let judgements = judge(&host, &["hand"], [r#"{"n":1}"#, r#"{"evil":1}"#].map(Bytes::from));
        assert_eq!(judgements.iter().map(word).collect::<Vec<_>>(), ["pass", "trap"]);
    }
}

#[test]
fn a_module_that_carries_its_types_is_made_a_component() {
    let mut wasm = wat::parse_str(module("@1.0.0", "")).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let contract = include_str!("../../../../plugin-sdk/wit/1.0.0/plugin.wit");
    let package = resolve.push_str("plugin.wit", contract).unwrap();
    let world = resolve.select_world(&[package], Some("validator")).unwrap();
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).unwrap();
    assert_eq!(info(wasm).lane, Lane::Module);
}

#[test]
fn a_component_is_used_as_it_is() {
    let component = guest("", "", "");
    let info = info(component.clone());
    assert_eq!((info.lane, info.bytes), (Lane::Component, component.len()));
}

#[test]
fn a_module_of_the_bytes_abi_answers_with_documents() {
    assert!(matches!(answered("", "", ACCEPT), Decision::Pass { patch, .. } if patch.is_empty()));
    let enrich = r#"{"outcomes":[{"seq":0,"verdict":"enrich","patch":[{"set":"/total","value":1.50},{"header":"tag","value":"x"}]}]}"#;
    let Decision::Pass { body, headers, .. } = answered("", "", enrich) else { panic!("no pass") };
    assert_eq!((&*body, headers), (br#"{"n":1,"total":1.50}"#.as_slice(), vec![("tag".to_owned(), "x".to_owned())]));
    let reject = r#"{"outcomes":[{"seq":0,"verdict":"reject","problems":[{"code":"c","title":"t","pointer":"/n"}]}]}"#;
    let Decision::Reject(problems) = answered("", "", reject) else { panic!("no reject") };
    assert_eq!((&*problems[0].code, problems[0].pointer.as_deref()), ("c", Some("/n")));
    let later = r#"{"outcomes":[{"seq":0,"verdict":"retry-later","afterMs":1500,"reason":"r"}]}"#;
    assert!(matches!(answered("", "", later), Decision::Later { after, .. } if after.as_millis() == 1500));
    let own = r#"{"outcomes":[{"seq":0,"verdict":"fault","code":"c","detail":"d","retryable":false}]}"#;
    assert_eq!(fault("", "", own), (FaultKind::Reported, "c: d".to_owned()));
    let info = info(bytes_module("", "", ACCEPT));
    assert_eq!((info.lane, info.world, &*info.contract), (Lane::Bytes, "bytes", "bytes-abi@1"));
    assert!(info.capabilities.is_empty());
}

#[test]
fn the_question_is_the_document_of_the_abi() {
    // It answers with what it was asked, which is no answer and is shown by its first wrong member.
    let (kind, detail) = fault(
        "",
        "(return (i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32)) (i64.extend_i32_u (local.get $n))))",
        ACCEPT,
    );
    assert_eq!(kind, FaultKind::Contract);
    assert!(detail.contains("unknown field `abi`, expected `outcomes` or `refused`"), "{detail}");
}

#[test]
fn the_bytes_lane_has_the_same_limits() {
    let of = |evil: &str| fault("", evil, ACCEPT);
    assert_eq!(of("unreachable").0, FaultKind::Trap);
    assert_eq!(of("(loop $l (br $l))"), (FaultKind::Time, "it used more than 20 ms of CPU time".to_owned()));
    let (kind, detail) = of("(loop $l (drop (memory.grow (i32.const 16))) (br $l))");
    assert_eq!((kind, &*detail), (FaultKind::Memory, "it asked for more than 16777216 bytes of memory"));
    assert_eq!(of("(drop (call $deep (i32.const 0)))").0, FaultKind::Trap);
    assert_eq!(of("(return (i64.const 0x4000100000))").0, FaultKind::Output);
    let (kind, detail) = of("(return (i64.const -256))");
    assert_eq!(kind, FaultKind::Output, "{detail}");
    let (kind, detail) = of("(return (i64.const 0x7fffffff00000001))");
    assert_eq!(
        (kind, &*detail),
        (FaultKind::Contract, "its answer of 1 bytes at 2147483647 lies outside of its memory")
    );
    let (kind, detail) = of("(return (i64.const 0))");
    assert_eq!(kind, FaultKind::Contract);
    assert!(detail.contains("EOF"), "{detail}");
    let (kind, detail) = fault("", "", r#"{"outcomes":[]}"#);
    assert_eq!((kind, &*detail), (FaultKind::Contract, "it gave 0 outcomes for 1 orders"));
    let (_, detail) = fault("", "", r#"{"outcomes":[{"seq":7,"verdict":"accept"}]}"#);
    assert_eq!(detail, "it answered for the unknown seq 7");
}

#[test]
fn a_log_and_an_abort_are_all_that_the_bytes_lane_may_import() {
    let log = r#"(import "sluice" "log" (func $log (param i32 i32 i32)))"#;
    let loop_of = "(local $i i32) (loop $l (call $log (i32.const 1) (i32.const 64) (i32.const 2))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 1000))))";
    let evil = loop_of.strip_prefix("(local $i i32) ").unwrap();
    let text = bytes_module(log, evil, ACCEPT)
        .replace("(param $n i32) (result i64)\n", "(param $n i32) (result i64) (local $i i32)\n");
    assert_eq!(*info(text.clone()).capabilities, ["log"]);
    let host = host(&limits(), vec![source("hand", text)]);
    assert_eq!(word(&judge(&host, &["hand"], [Bytes::from("{}")])[0]), "pass");
    assert_eq!(fault(log, "(call $log (i32.const 1) (i32.const 0) (i32.const 1048576))", ACCEPT).0, FaultKind::Output);
    assert_eq!(fault(log, "(call $log (i32.const 1) (i32.const -8) (i32.const 16))", ACCEPT).0, FaultKind::Trap);

    let abort = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))
        (data (i32.const 1024) "\04\00\00\00n\00o\00") (data (i32.const 1040) "\02\00\00\00a\00")"#;
    let call = "(call $abort (i32.const 1028) (i32.const 1044) (i32.const 3) (i32.const 9))";
    assert_eq!(fault(abort, call, ACCEPT), (FaultKind::Trap, "it aborted: no at a:3:9".to_owned()));
    let call = "(call $abort (i32.const 0) (i32.const -2) (i32.const 3) (i32.const 9))";
    assert_eq!(fault(abort, call, ACCEPT).1, "it aborted: without a message at ?:3:9");
}

#[test]
fn the_bytes_lane_refuses_its_configuration_at_load() {
    let refusal_of = |answer: &str| {
        // It gives the same answer to the check.
        let text = bytes_module("", "", answer).replace("(then (return (i64.const 0x80000000f)))", "(then)");
        refused(&limits(), source("odd", text)).to_string()
    };
    let refused = r#"{"refused":[{"code":"c","title":"t","detail":"no such currency","pointer":"/currencies"}]}"#;
    assert_eq!(refusal_of(refused), "plugin `odd` refuses its configuration: /currencies: no such currency");
    assert_eq!(refusal_of(ACCEPT), "plugin `odd` fails while it is configured: it gave 1 outcomes for 0 orders");
}

#[test]
fn initialize_runs_first_and_under_the_limits() {
    let with = |body: &str| bytes_module(&format!("(func (export \"_initialize\") {body})"), "", ACCEPT);
    let set = with("(i32.store8 (i32.const 64) (i32.const 120))");
    let host = host(&limits(), vec![source("hand", set)]);
    let Decision::Fault { detail, .. } = &judge(&host, &["hand"], [Bytes::from("{}")])[0].decision else { panic!() };
    assert!(detail.contains("expected value at line 1 column 1"), "{detail}");
    assert!(refusal(&with("(loop $l (br $l))")).contains("more than 250 ms of CPU time"));
}

#[test]
fn what_fits_no_lane_is_refused_with_what_was_found() {
    for (wat, words) in [
        ("(module)", "is a core module of no lane: it imports nothing and exports nothing; expected a component"),
        (
            r#"(module (import "env" "now" (func)) (memory (export "memory") 1) (func (export "run")))"#,
            "it imports env.now and exports memory, run; expected a component, or a core module that exports",
        ),
        ("(module (func", "is WebAssembly text with a mistake: expected `)` (line 1, column 14)"),
        (";; nothing", "is WebAssembly text with a mistake"),
        (
            r#"(module (func (export "sluice_process") (param i32 i32) (result i64) i64.const 0))"#,
            "it does not export `memory` (memory); it exports sluice_process",
        ),
        (
            r#"(module (memory (export "memory") 1) (func (export "sluice_alloc") (param i32) (result i32) i32.const 0)
                (func (export "sluice_process") (param i32 i32) (result i32) i32.const 0))"#,
            "it exports `sluice_process` as (i32, i32) -> i32, expected (i32, i32) -> i64",
        ),
        (
            r#"(module (memory (export "memory") i64 1) (func (export "sluice_alloc") (param i32) (result i32) i32.const 0)
                (func (export "sluice_process") (param i32 i32) (result i64) i64.const 0))"#,
            "it exports `memory` as memory64 or shared memory, expected memory",
        ),
        (
            r#"(module (func (export "sluice:plugin/processor@1.0.0#process") (param i32 i32) (result i32) i32.const 0))"#,
            "is a core module that cannot be made a component",
        ),
        (
            r#"(module (func (export "sluice:plugin/processor@2.0.0#process") (param i32 i32) (result i32) i32.const 0))"#,
            "it is of version 2.0.0 of the contract and does not carry its types, which are known for 1.0.0 and 1.1.0",
        ),
        (
            r#"(component (import "sluice:plugin/secrets@1.1.0" (instance)))"#,
            r#"imports ["sluice:plugin/secrets@1.1.0"], which no plugin can have; it may import ["sluice:plugin/log", "#,
        ),
    ] {
        let error = refusal(wat);
        assert!(error.contains(words), "{error}");
    }
    let import = bytes_module(r#"(import "env" "seed" (func (result f64)))"#, "", ACCEPT);
    let error = refusal(&import);
    assert!(
        error.contains("it imports `env.seed`, which it cannot have; it may import sluice.log, env.abort"),
        "{error}"
    );
    let import = bytes_module(r#"(import "sluice" "log" (func (param i32 i32)))"#, "", ACCEPT);
    let error = refusal(&import);
    let words = "it imports `sluice.log` as (i32, i32) -> (), expected (i32, i32, i32) -> ()";
    assert!(error.contains(words), "{error}");
}

#[test]
fn an_encoding_without_exports_is_no_success() {
    // It carries types of a world that exports nothing.
    let mut wasm = wat::parse_str("(module)").unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("empty.wit", "package a:b; world nothing {}").unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    embed_component_metadata(&mut wasm, &resolve, world, StringEncoding::UTF8).unwrap();
    let error = refused(&limits(), source("odd", wasm)).to_string();
    assert!(error.contains("does not export sluice:plugin/lifecycle") && error.ends_with("it exports []"), "{error}");
}

#[test]
fn machine_code_is_never_taken() {
    let engine = wasmtime::Engine::default();
    let compiled = engine.precompile_component(&guest("", "", "")).unwrap();
    let error = refused(&limits(), source("odd", compiled)).to_string();
    assert!(error.contains("is machine code that was compiled before, which is never taken from a file"), "{error}");
}

/// Appends a custom section.
fn with_section(mut wasm: Vec<u8>, data: &[u8]) -> Vec<u8> {
    let name = MANIFEST_SECTION.as_bytes();
    let leb = |mut value: usize| {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(value & 0x7f).unwrap();
            value >>= 7;
            bytes.push(if value == 0 { low } else { low | 0x80 });
            if value == 0 {
                return bytes;
            }
        }
    };
    let body = [leb(name.len()), name.to_vec(), data.to_vec()].concat();
    wasm.push(0);
    wasm.extend(leb(body.len()));
    wasm.extend(body);
    wasm
}

#[test]
fn the_manifest_is_read_in_every_lane() {
    let manifest =
        br#"{"name":"a","version":"0.1.0","description":"d","language":"wat","world":"validator","patch":["/totals"]}"#;
    let module = wat::parse_str(module("@1.1.0", "")).unwrap();
    let nested = {
        let wasm = with_section(module.clone(), manifest);
        let prepared = lane::prepare(&wasm).unwrap();
        prepared.wasm.into_owned()
    };
    let bytes = wat::parse_str(bytes_module("", "", ACCEPT)).unwrap();
    for wasm in [
        with_section(module.clone(), manifest),
        with_section(bytes, manifest),
        with_section(guest("", "", ""), manifest),
        nested,
    ] {
        let manifest = inspect(&wasm, 1 << 20).manifest.unwrap();
        assert_eq!((&*manifest.name, manifest.patch.as_deref()), ("a", Some(["/totals".to_owned()].as_slice())));
        assert_eq!(info(wasm).manifest.as_deref(), Some(&manifest));
    }
    let error = refused(&limits(), source("odd", with_section(module, b"{"))).to_string();
    assert!(error.contains("has a manifest (custom section `sluice:manifest`) that cannot be read"), "{error}");
}
