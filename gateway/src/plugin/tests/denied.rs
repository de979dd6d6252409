//! WASI, which every plugin gets and which denies everything, always in the same way.

use super::*;

/// A module with the names of the contract that calls preview 1 for each evil order.
fn with_preview1(imports: &str, evil: &str) -> String {
    let text = include_str!("guest.wat").replace("EVIL", evil).replace("CONFIGURE", "").replace("START", "");
    text.replacen("(memory", &format!("{imports}\n(memory"), 1)
}

/// The same for the bytes lane; `$o` is the place of an outcome in the other lane, which has none here.
fn bytes_with_preview1(imports: &str, evil: &str) -> String {
    let text = include_str!("bytes.wat").replace("TOP", imports).replace("EVIL", evil);
    text.replace("ANSWER", r#"{\"outcomes\":[{\"seq\":0,\"verdict\":\"accept\"}]}"#)
}

const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))) ;; again, as Go does
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;

/// Traps unless a condition holds.
fn expect(condition: &str) -> String {
    format!("(if (i32.eqz {condition}) (then unreachable))")
}

#[test]
fn preview_1_answers_the_same_in_both_lanes() {
    let conditions = [
        "(i32.eqz (call $clock (i32.const 0) (i64.const 1) (i32.const 4096)))",
        "(i64.eq (i64.load (i32.const 4096)) (i64.const 1001000000))",
        "(i32.eqz (call $random (i32.const 4096) (i32.const 16)))",
        // The first bytes of the fixed sequence.
        "(i64.eq (i64.load (i32.const 4096)) (i64.const RANDOM))",
        "(i64.ne (i64.load (i32.const 4096)) (i64.load (i32.const 4104)))",
        // Two parts of 5 and 7 bytes are written, somewhere; nothing can be read, nor written to a file.
        "(i32.eqz (block (result i32) (i32.store (i32.const 4100) (i32.const 5)) (i32.store (i32.const 4108) (i32.const 7))
            (call $write (i32.const 1) (i32.const 4096) (i32.const 2) (i32.const 5000))))",
        "(i32.eq (i32.load (i32.const 5000)) (i32.const 12))",
        "(i32.eq (call $write (i32.const 3) (i32.const 4096) (i32.const 2) (i32.const 5000)) (i32.const 8))",
        "(i32.eq (call $read (i32.const 0) (i32.const 4096) (i32.const 2) (i32.const 5000)) (i32.const 8))",
        "(i32.eqz (call $environ (i32.const 5000) (i32.const 5004)))",
        "(i64.eqz (i64.load (i32.const 5000)))",
        // A wait of 5 s is over at once, and the clock knows.
        "(i32.eqz (block (result i32) (memory.fill (i32.const 6000) (i32.const 0) (i32.const 48))
            (i64.store (i32.const 6000) (i64.const 77)) (i64.store (i32.const 6024) (i64.const 5000000000))
            (call $poll (i32.const 6000) (i32.const 6100) (i32.const 1) (i32.const 6200))))",
        "(i32.and (i64.eq (i64.load (i32.const 6100)) (i64.const 77)) (i32.eq (i32.load (i32.const 6200)) (i32.const 1)))",
        "(i32.eqz (i32.load offset=8 (i32.const 6100)))",
        "(i32.eqz (call $clock (i32.const 1) (i64.const 1) (i32.const 4096)))",
        "(i64.eq (i64.load (i32.const 4096)) (i64.const 6002000000))",
        // Nobody waits for input.
        "(i32.eqz (block (result i32) (i32.store8 (i32.const 6008) (i32.const 1))
            (call $poll (i32.const 6000) (i32.const 6100) (i32.const 1) (i32.const 6200))))",
        "(i32.eq (i32.load offset=8 (i32.const 6100)) (i32.const 0x10008))",
    ];
    let evil = conditions.map(expect).join("\n").replace("RANDOM", &first_random().to_string());
    for text in [with_preview1(IMPORTS, &evil), bytes_with_preview1(IMPORTS, &evil)] {
        let host = host(&limits(), vec![source("hand", text)]);
        for _ in 0..2 {
            let judgements = judge(&host, &["hand"], [Bytes::from(r#"{"evil":1}"#)]);
            assert_eq!(word(&judgements[0]), "pass", "{judgements:?}");
        }
        assert!(host.generation().plugins()[0].denied.iter().all(|name| name.starts_with("wasi")));
    }
}

/// Eight bytes, worked out apart from the code under test.
fn first_random() -> i64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let bytes = [(); 8].map(|()| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    i64::from_le_bytes(bytes)
}

#[test]
fn leaving_is_a_trap() {
    let evil = "(call $exit (i32.const 0))";
    for text in [with_preview1(IMPORTS, evil), bytes_with_preview1(IMPORTS, evil)] {
        let host = host(&limits(), vec![source("hand", text)]);
        assert_eq!(word(&judge(&host, &["hand"], [Bytes::from(r#"{"evil":1}"#)])[0]), "trap");
    }
}

#[test]
fn every_function_of_preview_1_is_there_in_both_lanes_and_no_other() {
    let adapter = stub::preview1::adapter().unwrap();
    let module = wasmtime::Module::new(&wasmtime::Engine::default(), &adapter).unwrap();
    let mut names: Vec<_> = module.exports().map(|export| export.name().to_owned()).collect();
    names.sort();
    assert_eq!(names.len(), 46);
    let imports = |names: &[String]| -> String {
        let import = |name: &String| {
            let signature = stub::preview1::signature(name).unwrap();
            let (params, result) = signature.split_once(" -> ").unwrap();
            let params = params.trim_matches(['(', ')']).replace(',', " ");
            let result = if result == "()" { String::new() } else { format!("(result {result})") };
            format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func (param {params}) {result}))\n")
        };
        names.iter().map(import).collect()
    };
    let all = imports(&names);
    for text in [with_preview1(&all, ""), bytes_with_preview1(&all, "")] {
        host(&limits(), vec![source("hand", text)]);
    }
    let unknown = r#"(import "wasi_snapshot_preview1" "fd_teleport" (func))"#;
    for text in [with_preview1(unknown, ""), bytes_with_preview1(unknown, "")] {
        let error = refused(&limits(), source("odd", text)).to_string();
        assert!(error.contains("wasi_snapshot_preview1.fd_teleport"), "{error}");
    }
}

/// The guest by hand as a component that asks for parts of WASI.
fn with_wasi(imports: &str, evil: &str) -> Vec<u8> {
    let mut module = wat::parse_str(with_preview1(imports, evil)).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let world = r#"package test:denied;
        world all {
          include sluice:plugin/validator@1.0.0;
          import wasi:clocks/monotonic-clock@0.2.3; import wasi:clocks/wall-clock@0.2.3;
          import wasi:random/random@0.2.3; import wasi:io/poll@0.2.3; import wasi:io/streams@0.2.3;
          import wasi:cli/environment@0.2.3; import wasi:cli/stdin@0.2.3; import wasi:cli/stdout@0.2.3;
          import wasi:filesystem/preopens@0.2.3;
        }"#;
    resolve.push_str("plugin.wit", include_str!("../../../../plugin-sdk/wit/1.0.0/plugin.wit")).unwrap();
    let package = resolve.push_str("all.wit", &[world, include_str!("wasi.wit")].join("\n")).unwrap();
    let world = resolve.select_world(&[package], Some("all")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

const WASI: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $now (result i64)))
    (import "wasi:clocks/wall-clock@0.2.3" "now" (func $wall (param i32)))
    (import "wasi:random/random@0.2.3" "get-random-bytes" (func $random (param i64 i32)))
    (import "wasi:cli/environment@0.2.3" "get-environment" (func $environ (param i32)))
    (import "wasi:cli/environment@0.2.3" "initial-cwd" (func $cwd (param i32)))
    (import "wasi:cli/stdin@0.2.3" "get-stdin" (func $stdin (result i32)))
    (import "wasi:cli/stdout@0.2.3" "get-stdout" (func $stdout (result i32)))
    (import "wasi:io/streams@0.2.3" "[method]input-stream.read" (func $read (param i32 i64 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.check-write" (func $room (param i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush"
      (func $write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.subscribe" (func $subscribe (param i32) (result i32)))
    (import "wasi:io/streams@0.2.3" "[resource-drop]output-stream" (func $drop (param i32)))
    (import "wasi:io/poll@0.2.3" "[method]pollable.ready" (func $ready (param i32) (result i32)))
    (import "wasi:io/poll@0.2.3" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:filesystem/preopens@0.2.3" "get-directories" (func $directories (param i32)))"#;

#[test]
fn components_get_a_wasi_that_denies() {
    let conditions = [
        "(i64.eq (call $now) (i64.const 1001000000))",
        "(i64.eq (call $now) (i64.const 1002000000))",
        "(block (result i32) (call $wall (i32.const 4096)) (i64.eq (i64.load (i32.const 4096)) (i64.const 1)))",
        "(i32.eq (i32.load (i32.const 4104)) (i32.const 3000000))",
        "(block (result i32) (call $random (i64.const 8) (i32.const 4096)) (i32.eq (i32.load (i32.const 4100)) (i32.const 8)))",
        "(i64.eq (i64.load (i32.load (i32.const 4096))) (i64.const RANDOM))",
        "(block (result i32) (call $environ (i32.const 4096)) (i32.eqz (i32.load (i32.const 4100))))",
        "(block (result i32) (call $cwd (i32.const 4096)) (i32.eqz (i32.load8_u (i32.const 4096))))",
        "(block (result i32) (call $directories (i32.const 4096)) (i32.eqz (i32.load (i32.const 4100))))",
        // Input has ended, which is the second case of its error; output has room and is taken.
        "(block (result i32) (call $read (call $stdin) (i64.const 8) (i32.const 4096))
            (i32.and (i32.load8_u (i32.const 4096)) (i32.load8_u (i32.const 4100))))",
        "(block (result i32) (call $room (call $stdout) (i32.const 4096))
            (i32.and (i32.eqz (i32.load8_u (i32.const 4096))) (i64.eq (i64.load (i32.const 4104)) (i64.const 65536))))",
        "(block (result i32) (call $write (call $stdout) (i32.const 16) (i32.const 2) (i32.const 4096))
            (i32.eqz (i32.load8_u (i32.const 4096))))",
        "(block (result i32) (call $drop (call $stdout)) (i32.const 1))",
        "(call $ready (call $subscribe (call $stdout)))",
        "(block (result i32) (i32.store (i32.const 4096) (call $subscribe (call $stdout)))
            (call $poll (i32.const 4096) (i32.const 1) (i32.const 4104)) (i32.eq (i32.load (i32.const 4108)) (i32.const 1)))",
    ];
    let evil = conditions.map(expect).join("\n").replace("RANDOM", &first_random().to_string());
    let component = with_wasi(WASI, &evil);
    let inspection = inspect(&component, 1 << 20);
    assert_eq!(inspection.problems, Vec::<String>::new());
    assert!(inspection.denied.iter().any(|name| name == "wasi:cli/stdout@0.2.3"), "{inspection:?}");
    let host = host(&limits(), vec![source("hand", component)]);
    for _ in 0..2 {
        let judgements = judge(&host, &["hand"], [Bytes::from(r#"{"evil":1}"#)]);
        assert_eq!(word(&judgements[0]), "pass", "{judgements:?}");
    }
}

#[test]
fn a_flood_of_random_bytes_is_a_fault() {
    let component = with_wasi(WASI, "(call $random (i64.const -1) (i32.const 4096))");
    let host = host(&limits(), vec![source("hand", component)]);
    let judgements = judge(&host, &["hand"], [Bytes::from(r#"{"evil":1}"#)]);
    let Decision::Fault { detail, .. } = &judgements[0].decision else { panic!("{judgements:?}") };
    assert_eq!(detail, "it asks for 18446744073709551615 random bytes at once, more than 65536");
}
