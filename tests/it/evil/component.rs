//! Hostile plugins of the contract's interfaces.

use harness::guests::evil::Component;

use super::Expect::{Fault, Passes, Rejected, Waits};
use super::{Evil, Expect, Guest};

const FRAME: Component = Component { imports: "", alloc: "", configure: "", order: "", more: "" };
const LOG: &str = r#"(import "sluice:plugin/log@1.1.0" "write" (func $log (param i32 i32 i32)))"#;

/// Does something to each evil order.
fn order(name: &'static str, order: &'static str, expect: Expect) -> Evil {
    Evil::new(name, Guest::Component(Component { order, ..FRAME }), expect)
}

pub(super) fn all() -> Vec<Evil> {
    let mut all = takes_too_much();
    all.extend(breaks_off());
    all.extend(answers_nonsense());
    all.extend(patches_what_it_may_not());
    all.extend(calls_too_often());
    all.extend(is_odd_but_allowed());
    all
}

fn takes_too_much() -> Vec<Evil> {
    let alloc = "(if (i32.gt_u (local.get $size) (i32.const 9000)) (then (loop $forever (br $forever))))";
    let post_return = r#"(func (export "cabi_post_sluice:plugin/processor@1.1.0#process") (param i32)
        (if (global.get $evils) (then (loop $forever (br $forever)))))"#;
    let table = "(table $table 1 funcref)
        (func $bomb (loop $more (br_if $more (i32.ne (i32.const -1)
            (table.grow $table (ref.null func) (i32.const 10000))))))";
    let flood = "(loop $next (call $log (i32.const 1) (i32.const 64) (i32.const 4))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $next (i32.lt_u (local.get $i) (i32.const 2000))))";
    // The text of one line is all of its memory, grown to 8 MiB.
    let line = "(drop (memory.grow (i32.const 128)))
        (call $log (i32.const 1) (i32.const 131072) (i32.const 8000000))";
    let log =
        |name, order, expect| Evil::new(name, Guest::Component(Component { imports: LOG, order, ..FRAME }), expect);
    vec![
        order("c-endless-loop", "(loop $forever (br $forever))", Fault("time", "ms of CPU time")),
        Evil::new("c-endless-loop-in-alloc", Guest::Component(Component { alloc, ..FRAME }), Fault("time", "CPU time"))
            .padded(10_000),
        Evil::new(
            "c-endless-loop-behind-the-answer",
            Guest::Component(Component { more: post_return, ..FRAME }),
            Fault("time", "CPU time"),
        ),
        order(
            "c-endless-work",
            "(loop $forever (call $work (i32.const 1000)) (br $forever))",
            Fault("time", "CPU time"),
        ),
        order(
            "c-memory-bomb",
            "(loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))",
            Fault("memory", "bytes of memory"),
        ),
        order(
            "c-memory-bomb-that-touches",
            "(local $at i32) (loop $more
                (local.set $at (i32.shl (memory.grow (i32.const 16)) (i32.const 16)))
                (memory.fill (local.get $at) (i32.const 1) (i32.const 65536)) (br $more))",
            Fault("memory", "bytes of memory"),
        ),
        Evil::new(
            "c-table-bomb",
            Guest::Component(Component { more: table, order: "(call $bomb)", ..FRAME }),
            Fault("memory", "table elements"),
        ),
        order("c-deep-recursion", "(drop (call $deeper (i32.const 0)))", Fault("trap", "call stack exhausted")),
        order(
            "c-huge-output",
            "(drop (memory.grow (i32.const 128)))
             (call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2)
                (i32.const 131072) (i32.const 8000000))",
            Fault("output", "more data than it may"),
        ),
        // 60 operations on the same 100,000 bytes: little memory in the plugin, 6 MB in the gateway.
        order(
            "c-output-of-many-times-the-same",
            "(drop (memory.grow (i32.const 4)))
             (call $enrich (local.get $outcome) (i32.const 60) (i32.const 0) (i32.const 16) (i32.const 2)
                (i32.const 131072) (i32.const 100000))",
            Fault("output", "more data than it may"),
        ),
        log("c-log-bomb", line, Fault("output", "more data than it may")),
        log("c-log-flood", flood, Passes("")),
    ]
}

/// Time enough to come to the end of the calls.
const PATIENT: (&str, &str) = ("time_per_order", "\"250ms\"");

fn calls_too_often() -> Vec<Evil> {
    let count = r#"(import "sluice:plugin/metrics@1.1.0" "count" (func $count (param i32 i32 i32)))"#;
    let get = r#"(import "sluice:plugin/lookup@1.1.0" "get" (func $get (param i32 i32 i32 i32 i32)))"#;
    // 200 names: two letters behind each other, from `aa` on.
    let names = "(loop $next
        (i32.store8 (i32.const 4096) (i32.add (i32.const 97) (i32.div_u (local.get $i) (i32.const 20))))
        (i32.store8 (i32.const 4097) (i32.add (i32.const 97) (i32.rem_u (local.get $i) (i32.const 20))))
        (call $count (i32.const 4096) (i32.const 2) (i32.const 1))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $next (i32.lt_u (local.get $i) (i32.const 200))))";
    let storm = |name, imports, order, policy| {
        let expect = Fault("contract", "called the gateway more than 10000 times per order");
        Evil::new(name, Guest::Component(Component { imports, order, ..FRAME }), expect).under(policy)
    };
    vec![
        Evil::new("c-metric-flood", Guest::Component(Component { imports: count, order: names, ..FRAME }), Passes(""))
            .under(&[("grants", "[\"metrics\"]")]),
        storm(
            "c-metric-storm",
            count,
            "(loop $forever (call $count (i32.const 64) (i32.const 4) (i32.const -1)) (br $forever))",
            &[("grants", "[\"metrics\"]"), PATIENT],
        ),
        storm(
            "c-lookup-storm",
            get,
            "(loop $forever (call $get (i32.const 64) (i32.const 4) (i32.const 64) (i32.const 4) (i32.const 128)) (br $forever))",
            &[("grants", "[\"lookup\"]"), PATIENT],
        ),
        storm(
            "c-log-storm",
            LOG,
            "(loop $forever (call $log (i32.const 1) (i32.const 64) (i32.const 4)) (br $forever))",
            &[PATIENT],
        ),
    ]
}

fn breaks_off() -> Vec<Evil> {
    vec![
        order("c-trap", "unreachable", Fault("trap", "unreachable")),
        order("c-division-by-zero", "(drop (i32.div_u (i32.const 1) (local.get $i)))", Fault("trap", "divide by zero")),
        order("c-access-out-of-bounds", "(drop (i32.load (i32.const -4)))", Fault("trap", "out of bounds")),
        order(
            "c-reported-fault",
            "(i32.store8 offset=4 (local.get $outcome) (i32.const 1))
             (i32.store offset=8 (local.get $outcome) (i32.const 64)) (i32.store offset=12 (local.get $outcome) (i32.const 4))
             (i32.store offset=16 (local.get $outcome) (i32.const 64)) (i32.store offset=20 (local.get $outcome) (i32.const 4))",
            Fault("reported", "word: word"),
        ),
    ]
}

fn answers_nonsense() -> Vec<Evil> {
    vec![
        order("c-an-outcome-too-few", "(global.set $surplus (i32.const -1))", Fault("contract", "0 outcomes for 1 orders")),
        order("c-an-outcome-too-many", "(global.set $surplus (i32.const 1))", Fault("contract", "2 outcomes for 1 orders")),
        // A list of 2^30 outcomes from a memory of 128 KiB.
        order("c-endless-list-of-outcomes", "(global.set $surplus (i32.const 0x40000000))", Fault("trap", "")),
        order(
            "c-unknown-sequence-number",
            "(i32.store (local.get $outcome) (i32.const 4000000))",
            Fault("contract", "unknown seq 4000000"),
        ),
        order(
            "c-repeated-sequence-number",
            // That of a neighbor, which answers too; alone it is nobody's.
            "(i32.store (local.get $outcome) (i32.xor (i32.load (local.get $event)) (i32.const 1)))",
            Fault("contract", "unknown seq 1"),
        ),
        order("c-outcomes-out-of-bounds", "(global.set $elsewhere (i32.const 0x7ffffff0))", Fault("trap", "")),
        order("c-outcomes-not-aligned", "(global.set $elsewhere (i32.const 65537))", Fault("trap", "")),
        order("c-outcomes-that-are-no-verdict", "(i32.store8 offset=8 (local.get $outcome) (i32.const 99))", Fault("trap", "")),
        order(
            "c-problem-of-invalid-utf-8",
            "(call $reject (local.get $outcome) (i32.const 1) (i32.const 48) (i32.const 11))",
            Fault("trap", "utf-8"),
        ),
        order(
            "c-problems-from-nowhere",
            "(call $reject (local.get $outcome) (i32.const 1) (i32.const 0x7fff0000) (i32.const 11))",
            Fault("trap", "out of bounds"),
        ),
        order(
            "c-rejects-without-a-problem",
            "(i32.store8 offset=8 (local.get $outcome) (i32.const 2)) (i32.store offset=12 (local.get $outcome) (i32.const 4))",
            Fault("contract", "without a problem"),
        ),
        order(
            "c-unknown-verdict",
            "(i32.store8 offset=8 (local.get $outcome) (i32.const 4))
             (i32.store offset=12 (local.get $outcome) (i32.const 64)) (i32.store offset=16 (local.get $outcome) (i32.const 4))",
            Fault("contract", "unknown verdict `word`"),
        ),
    ]
}

fn patches_what_it_may_not() -> Vec<Evil> {
    vec![
        order(
            "c-patch-outside-its-paths",
            "(call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 32) (i32.const 7))",
            Fault("contract", "may change orders only at or below `/totals`"),
        )
        .under(&[("patch", "[\"/totals\"]")]),
        order(
            "c-patch-bomb-of-operations",
            "(call $enrich (local.get $outcome) (i32.const 65) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 32) (i32.const 7))",
            Fault("contract", "65 operations, more than 64"),
        ),
        order(
            "c-patch-bomb-of-bytes",
            "(memory.fill (i32.const 4096) (i32.const 49) (i32.const 40000))
             (call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 4096) (i32.const 40000))",
            Fault("contract", "bytes, more than 32768"),
        ),
        order(
            "c-patch-of-invalid-utf-8",
            "(call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 48) (i32.const 11))",
            Fault("contract", "not JSON"),
        ),
        order(
            "c-pointer-of-invalid-utf-8",
            "(call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 48) (i32.const 11) (i32.const 32) (i32.const 7))",
            Fault("trap", "utf-8"),
        ),
        order(
            "c-patch-of-the-whole-order",
            "(call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 0) (i32.const 32) (i32.const 7))",
            Fault("contract", "not a JSON Pointer"),
        ),
        // 30,000 arrays in each other.
        order(
            "c-patch-of-great-depth",
            "(memory.fill (i32.const 4096) (i32.const 91) (i32.const 15000)) (memory.fill (i32.const 19096) (i32.const 93) (i32.const 15000))
             (call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 4096) (i32.const 30000))",
            Fault("contract", ""),
        ),
        order(
            "c-header-of-invalid-utf-8",
            "(call $enrich (local.get $outcome) (i32.const 1) (i32.const 2) (i32.const 64) (i32.const 4) (i32.const 48) (i32.const 11))",
            Fault("trap", "utf-8"),
        ),
    ]
}

fn is_odd_but_allowed() -> Vec<Evil> {
    vec![
        // The fourth order that an instance sees is too much for it; smaller batches get through.
        order(
            "c-unreachable-after-three-orders",
            "(if (i32.gt_u (global.get $orders) (i32.const 3)) (then unreachable))",
            Passes(""),
        ),
        // What it counts and what it writes has to be new each time.
        order(
            "c-state-between-batches",
            "(if (i32.ne (global.get $evils) (i32.const 1)) (then unreachable))
             (if (i32.load (i32.const 8192)) (then unreachable)) (i32.store (i32.const 8192) (i32.const 1))
             (i32.store8 (i32.const 4096) (i32.add (i32.const 48) (global.get $evils)))
             (call $enrich (local.get $outcome) (i32.const 1) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 4096) (i32.const 1))",
            Passes(r#""a":1"#),
        ),
        order("c-slow-but-under-the-limit", "(call $work (i32.const 2000000))", Passes("")),
        order(
            "c-thousand-problems",
            "(call $reject (local.get $outcome) (i32.const 1000) (i32.const 64) (i32.const 4))",
            Rejected(100),
        ),
        order(
            "c-asks-to-wait-for-weeks",
            "(i32.store8 offset=8 (local.get $outcome) (i32.const 3)) (i32.store offset=12 (local.get $outcome) (i32.const -1))
             (i32.store offset=16 (local.get $outcome) (i32.const 64)) (i32.store offset=20 (local.get $outcome) (i32.const 4))",
            Waits("asks to be asked later: word"),
        ),
    ]
}
