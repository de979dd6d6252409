//! Hostile plugins of the bytes ABI.

use harness::guests::evil::Bytes;

use super::Expect::{self, Fault, Passes, Rejected, Waits};
use super::{Evil, Guest};

const FRAME: Bytes = Bytes { imports: "", alloc: "", order: "", more: "", tail: br#","verdict":"accept"}"# };
const LOG: &str = r#"(import "sluice" "log" (func $log (param i32 i32 i32)))"#;

/// Does something at each evil order.
fn order(name: &'static str, order: &'static str, expect: Expect) -> Evil {
    Evil::new(name, Guest::Bytes(Bytes { order, ..FRAME }), expect)
}

/// Answers something for each evil order.
fn tail(name: &'static str, tail: &'static [u8], expect: Expect) -> Evil {
    Evil::new(name, Guest::Bytes(Bytes { tail, ..FRAME }), expect)
}

pub(super) fn all() -> Vec<Evil> {
    let mut all = takes_too_much();
    all.extend(breaks_off());
    all.extend(answers_what_is_no_document());
    all.extend(answers_what_it_may_not());
    all.extend(is_odd_but_allowed());
    all
}

fn takes_too_much() -> Vec<Evil> {
    let alloc = "(if (i32.gt_u (local.get $size) (i32.const 12000)) (then (loop $forever (br $forever))))";
    let flood = "(loop $next (call $log (i32.const 1) (i32.const 64) (i32.const 4))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $next (i32.lt_u (local.get $i) (i32.const 2000))))";
    let log = |name, order, expect| Evil::new(name, Guest::Bytes(Bytes { imports: LOG, order, ..FRAME }), expect);
    vec![
        order("b-endless-loop", "(loop $forever (br $forever))", Fault("time", "ms of CPU time")),
        Evil::new("b-endless-loop-in-alloc", Guest::Bytes(Bytes { alloc, ..FRAME }), Fault("time", "CPU time"))
            .padded(12_000),
        order(
            "b-memory-bomb",
            "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))",
            Fault("memory", "bytes of memory"),
        ),
        order("b-deep-recursion", "(drop (call $deeper (i32.const 0)))", Fault("trap", "call stack exhausted")),
        order(
            "b-huge-answer",
            "(drop (memory.grow (i32.const 128))) (global.set $surplus (i32.const 8000000))",
            Fault("output", "more data than it may"),
        ),
        log("b-log-flood", flood, Passes("")),
        log(
            "b-log-bomb",
            "(drop (memory.grow (i32.const 128))) (call $log (i32.const 1) (i32.const 131072) (i32.const 8000000))",
            Fault("output", "more data than it may"),
        ),
        log(
            "b-log-from-nowhere",
            "(call $log (i32.const 1) (i32.const -16) (i32.const 64))",
            Fault("trap", "out of bounds"),
        ),
    ]
}

fn breaks_off() -> Vec<Evil> {
    let abort = r#"(import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;
    let exit = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    let with = |name, imports, order, words| {
        Evil::new(name, Guest::Bytes(Bytes { imports, order, ..FRAME }), Fault("trap", words))
    };
    vec![
        order("b-trap", "unreachable", Fault("trap", "unreachable")),
        with("b-abort", abort, "(call $abort (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 9))", "aborted"),
        with(
            "b-abort-with-pointers-from-nowhere",
            abort,
            "(call $abort (i32.const -2) (i32.const 1) (i32.const -7) (i32.const -9))",
            "aborted",
        ),
        with("b-exit", exit, "(call $exit (i32.const 0))", ""),
    ]
}

fn answers_what_is_no_document() -> Vec<Evil> {
    vec![
        order(
            "b-answer-out-of-bounds",
            "(global.set $start (i32.const 0x7ffffff0))",
            Fault("contract", "outside of its memory"),
        ),
        order("b-answer-from-the-end-of-memory", "(global.set $start (i32.const -1))", Fault("contract", "outside")),
        order("b-answer-of-nothing", "(global.set $start (i32.const 200000))", Fault("contract", "bytes ABI")),
        order("b-answer-cut-off", "(global.set $surplus (i32.const -1))", Fault("contract", "EOF")),
        order("b-answer-with-more-behind-it", "(global.set $surplus (i32.const 5))", Fault("contract", "trailing")),
        tail(
            "b-problem-of-invalid-utf-8",
            b",\"verdict\":\"reject\",\"problems\":[{\"code\":\"\xff\xfe\",\"title\":\"t\"}]}",
            Fault("contract", ""),
        ),
        tail(
            "b-patch-of-invalid-utf-8",
            b",\"verdict\":\"enrich\",\"patch\":[{\"set\":\"/a\",\"value\":\"\xff\xfe\"}]}",
            Fault("contract", ""),
        ),
        tail("b-no-json", b",{{{", Fault("contract", "bytes ABI")),
        tail(
            "b-lone-surrogate",
            br#","verdict":"reject","problems":[{"code":"\ud800","title":"t"}]}"#,
            Fault("contract", ""),
        ),
        tail("b-unknown-verdict", br#","verdict":"maybe"}"#, Fault("contract", "unknown verdict `maybe`")),
        tail("b-unknown-member", br#","verdict":"accept","really":true}"#, Fault("contract", "unknown field")),
        tail("b-member-twice", br#","verdict":"accept","verdict":"accept"}"#, Fault("contract", "duplicate field")),
        tail(
            "b-number-out-of-range",
            br#","verdict":"retry-later","afterMs":1e99,"reason":"r"}"#,
            Fault("contract", "bytes ABI"),
        ),
    ]
}

fn answers_what_it_may_not() -> Vec<Evil> {
    // Arrays in each other: `[` is 91, `]` 93.
    let deep = "(memory.fill (i32.const 1073) (i32.const 91) (i32.const 5000))
        (memory.fill (i32.const 6073) (i32.const 93) (i32.const 5000))
        (i32.store (i32.const 11073) (i32.const 0x207d5d7d))
        (global.set $tail_length (i32.const 10052))";
    let tail_of_depth = br#","verdict":"enrich","patch":[{"set":"/a","value":"#;
    vec![
        tail(
            "b-an-outcome-too-many",
            br#","verdict":"accept"},{"seq":1,"verdict":"accept"}"#,
            Fault("contract", "2 outcomes for 1 orders"),
        ),
        tail(
            "b-repeated-sequence-number",
            br#","verdict":"accept"},{"seq":0,"verdict":"accept"}"#,
            Fault("contract", "outcomes for 1 orders"),
        ),
        tail(
            "b-rejects-without-a-problem",
            br#","verdict":"reject","problems":[]}"#,
            Fault("contract", "without a problem"),
        ),
        tail(
            "b-patch-of-the-whole-order",
            br#","verdict":"enrich","patch":[{"set":"","value":{}}]}"#,
            Fault("contract", "not a JSON Pointer"),
        ),
        tail(
            "b-header-of-the-gateway",
            br#","verdict":"enrich","patch":[{"header":"CE_Id","value":"mine"}]}"#,
            Fault("contract", "the gateway's own"),
        ),
        tail(
            "b-removes-what-is-not-there",
            br#","verdict":"enrich","patch":[{"remove":"/nothing"}]}"#,
            Fault("contract", "nothing to remove"),
        ),
        Evil::new(
            "b-patch-of-great-depth",
            Guest::Bytes(Bytes { order: deep, tail: tail_of_depth, ..FRAME }),
            Fault("contract", ""),
        ),
    ]
}

fn is_odd_but_allowed() -> Vec<Evil> {
    let counting = "(if (i32.ne (global.get $evils) (i32.const 1)) (then unreachable))
        (if (i32.load (i32.const 40000)) (then unreachable)) (i32.store (i32.const 40000) (i32.const 1))";
    let problems = r#",{"code":"word","title":"word"}"#;
    let many = format!(r#","verdict":"reject","problems":[{}]}}"#, &problems.repeat(1000)[1..]);
    vec![
        order(
            "b-unreachable-after-three-orders",
            "(if (i32.gt_u (global.get $orders) (i32.const 3)) (then unreachable))",
            Passes(""),
        ),
        Evil::new(
            "b-state-between-batches",
            Guest::Bytes(Bytes {
                order: counting,
                tail: br#","verdict":"enrich","patch":[{"set":"/a","value":1}]}"#,
                ..FRAME
            }),
            Passes(r#""a":1"#),
        ),
        order("b-slow-but-under-the-limit", "(call $work (i32.const 2000000))", Passes("")),
        Evil::new("b-thousand-problems", Guest::Bytes(Bytes { tail: many.leak().as_bytes(), ..FRAME }), Rejected(100)),
        tail(
            "b-asks-to-wait-for-weeks",
            br#","verdict":"retry-later","afterMs":4294967295,"reason":"word"}"#,
            Waits("asks to be asked later: word"),
        ),
    ]
}
