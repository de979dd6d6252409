//! Guests that trap, loop, eat memory or answer nonsense: one order of 64 is at fault, the others pass.

use super::*;

/// Judges 64 orders, of which one is evil, and checks that the others pass.
fn one_of_64(evil: &str) -> Decision {
    let host = host(&limits(), vec![source("hand", guest(evil, "", ""))]);
    let bodies = (0..64)
        .map(|number| Bytes::from(if number == 37 { r#"{"evil":1}"#.into() } else { format!("{{\"n\":{number}}}") }));
    let judgements = judge(&host, &["hand"], bodies);
    let words: Vec<_> = judgements.iter().map(word).collect();
    for (number, word) in words.iter().enumerate().filter(|(number, _)| *number != 37) {
        assert_eq!(word, "pass", "order {number} of {words:?}");
        assert_eq!(body(&judgements[number]), format!("{{\"n\":{number}}}"));
    }
    let culprit = &judgements[37];
    assert_eq!(culprit.runs.len(), 1);
    assert_eq!(&*culprit.runs[0].name, "hand");
    culprit.decision.clone()
}

fn fault_of(evil: &str) -> (FaultKind, String) {
    match one_of_64(evil) {
        Decision::Fault { plugin, kind, detail } if *plugin == *"hand" => (kind, detail),
        decision => panic!("{decision:?}"),
    }
}

#[test]
fn a_trap_is_its_own_orders_fault() {
    let (kind, detail) = fault_of("unreachable");
    assert_eq!(kind, FaultKind::Trap);
    assert!(detail.contains("unreachable"), "{detail}");
}

#[test]
fn an_endless_loop_runs_out_of_time() {
    let (kind, detail) = fault_of("(loop $l (br $l))");
    assert_eq!((kind, detail.as_str()), (FaultKind::Time, "it used more than 20 ms of CPU time"));
}

#[test]
fn memory_has_a_limit() {
    let (kind, detail) = fault_of("(loop $l (drop (memory.grow (i32.const 16))) (br $l))");
    assert_eq!((kind, detail.as_str()), (FaultKind::Memory, "it asked for more than 16777216 bytes of memory"));
}

#[test]
fn the_stack_has_a_limit() {
    let (kind, detail) = fault_of("(drop (call $deep (i32.const 0)))");
    assert_eq!(kind, FaultKind::Trap);
    assert!(detail.contains("call stack exhausted"), "{detail}");
}

#[test]
fn an_access_out_of_bounds_is_a_trap() {
    assert_eq!(fault_of("(drop (i32.load (i32.const -4)))").0, FaultKind::Trap);
}

#[test]
fn an_answer_has_a_limit() {
    let evil =
        "(call $enrich (local.get $o) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 0) (i32.const 1048576))";
    assert_eq!(fault_of(evil).0, FaultKind::Output);
    // A list of problems that lies outside of its memory.
    let evil = "(i32.store8 offset=8 (local.get $o) (i32.const 2)) (i32.store offset=16 (local.get $o) (i32.const -1))";
    assert!(matches!(fault_of(evil).0, FaultKind::Trap | FaultKind::Output));
}

#[test]
fn a_line_for_the_log_has_a_limit_too() {
    assert_eq!(fault_of("(call $log (i32.const 1) (i32.const 0) (i32.const 1048576))").0, FaultKind::Output);
    // Too many short ones are dropped, and no fault.
    let evil = "(local $i i32) (loop $l (call $log (i32.const 1) (i32.const 16) (i32.const 2))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 10000))))";
    assert!(matches!(one_of_64(evil), Decision::Pass { .. }));
}

#[test]
fn each_order_has_exactly_one_outcome() {
    let (kind, detail) = fault_of("(global.set $missing (i32.const 1))");
    assert_eq!((kind, detail.as_str()), (FaultKind::Contract, "it gave 0 outcomes for 1 orders"));
    // For its neighbor's seq, or alone for an unknown one.
    let (kind, detail) = fault_of("(i32.store (local.get $o) (i32.xor (i32.load (local.get $e)) (i32.const 1)))");
    assert_eq!((kind, detail.as_str()), (FaultKind::Contract, "it answered for the unknown seq 1"));
    let (kind, _) = fault_of("(i32.store (local.get $o) (i32.const -1))");
    assert_eq!(kind, FaultKind::Contract);
}

#[test]
fn a_patch_has_to_fit() {
    for (operation, word) in [
        // `{{` is no JSON.
        ("(i32.const 0) (i32.const 16) (i32.const 2) (i32.const 32) (i32.const 2)", "not JSON"),
        // `a` is no pointer.
        ("(i32.const 0) (i32.const 17) (i32.const 1) (i32.const 48) (i32.const 12)", "not a JSON Pointer"),
        // Nor is the whole order.
        ("(i32.const 0) (i32.const 16) (i32.const 0) (i32.const 48) (i32.const 12)", "not a JSON Pointer"),
        // `/a` is not there to be removed.
        ("(i32.const 1) (i32.const 16) (i32.const 2) (i32.const 0) (i32.const 0)", "nothing to remove"),
        ("(i32.const 2) (i32.const 80) (i32.const 5) (i32.const 112) (i32.const 3)", "the gateway's own"),
        ("(i32.const 2) (i32.const 16) (i32.const 2) (i32.const 112) (i32.const 3)", "no name for a header"),
        // 64 KiB of spaces and zeros.
        ("(i32.const 0) (i32.const 16) (i32.const 2) (i32.const 4096) (i32.const 40000)", "more than 32768"),
    ] {
        let (kind, detail) = fault_of(&format!("(call $enrich (local.get $o) {operation})"));
        assert_eq!(kind, FaultKind::Contract, "{detail}");
        assert!(detail.contains(word), "{detail}");
    }
    let many =
        "(i32.store8 offset=8 (local.get $o) (i32.const 1)) (i32.store offset=12 (local.get $o) (i32.const 4096))
        (i32.store offset=16 (local.get $o) (i32.const 65))";
    let (kind, detail) = fault_of(many);
    assert_eq!((kind, detail.as_str()), (FaultKind::Contract, "its patch has 65 operations, more than 64"));
}

#[test]
fn unknown_verdicts_and_empty_refusals_are_faults() {
    let (kind, detail) = fault_of(
        "(i32.store8 offset=8 (local.get $o) (i32.const 4)) (i32.store offset=12 (local.get $o) (i32.const 96))
         (i32.store offset=16 (local.get $o) (i32.const 3))",
    );
    assert_eq!((kind, detail.as_str()), (FaultKind::Contract, "it gave the unknown verdict `tag`"));
    let (kind, detail) = fault_of("(i32.store8 offset=8 (local.get $o) (i32.const 2))");
    assert_eq!((kind, detail.as_str()), (FaultKind::Contract, "it refused without a problem"));
    assert_eq!(fault_of("(i32.store8 offset=8 (local.get $o) (i32.const 9))").0, FaultKind::Trap);
}

#[test]
fn reject_later_and_reported_faults_are_not_mixed() {
    let later =
        "(i32.store8 offset=8 (local.get $o) (i32.const 3)) (i32.store offset=12 (local.get $o) (i32.const 1500))
        (i32.store offset=16 (local.get $o) (i32.const 96)) (i32.store offset=20 (local.get $o) (i32.const 3))";
    let expected =
        Decision::Later { plugin: "hand".into(), reason: "tag".to_owned(), after: Duration::from_millis(1500) };
    assert_eq!(one_of_64(later), expected);
    let reported =
        "(i32.store8 offset=4 (local.get $o) (i32.const 1)) (i32.store offset=8 (local.get $o) (i32.const 96))
        (i32.store offset=12 (local.get $o) (i32.const 3)) (i32.store offset=16 (local.get $o) (i32.const 112))
        (i32.store offset=20 (local.get $o) (i32.const 3))";
    assert_eq!(fault_of(reported), (FaultKind::Reported, "tag: red".to_owned()));
    // 200 empty problems, cut to 100.
    let reject =
        "(i32.store8 offset=8 (local.get $o) (i32.const 2)) (i32.store offset=12 (local.get $o) (i32.const 16384))
        (i32.store offset=16 (local.get $o) (i32.const 200))";
    assert!(matches!(one_of_64(reject), Decision::Reject(problems) if problems.len() == 100));
}

#[test]
fn texts_that_clients_see_are_cut() {
    let max = limits().text_bytes_max.0;
    let is_cut = |text: &str| text.ends_with('…') && text.len() == max + '…'.len_utf8();
    let later = "(i32.store8 offset=8 (local.get $o) (i32.const 3)) (i32.store offset=16 (local.get $o) (i32.const 96))
        (i32.store offset=20 (local.get $o) (i32.const 10000))";
    assert!(matches!(one_of_64(later), Decision::Later { reason, .. } if is_cut(&reason)));
    let reported =
        "(i32.store8 offset=4 (local.get $o) (i32.const 1)) (i32.store offset=8 (local.get $o) (i32.const 96))
        (i32.store offset=12 (local.get $o) (i32.const 3)) (i32.store offset=16 (local.get $o) (i32.const 96))
        (i32.store offset=20 (local.get $o) (i32.const 10000))";
    assert!(matches!(fault_of(reported), (FaultKind::Reported, detail) if is_cut(&detail)));
    // One problem at 16384: the code is long, the other texts are empty.
    let reject =
        "(i32.store8 offset=8 (local.get $o) (i32.const 2)) (i32.store offset=12 (local.get $o) (i32.const 16384))
        (i32.store offset=16 (local.get $o) (i32.const 1))
        (i32.store (i32.const 16384) (i32.const 96)) (i32.store (i32.const 16388) (i32.const 10000))";
    assert!(matches!(one_of_64(reject), Decision::Reject(problems) if is_cut(&problems[0].code)));
}

#[test]
fn patches_and_headers_reach_the_order() {
    let set = "(call $enrich (local.get $o) (i32.const 0) (i32.const 16) (i32.const 2) (i32.const 48) (i32.const 12))";
    let Decision::Pass { body, patch, headers } = one_of_64(set) else { panic!("no pass") };
    assert_eq!((&body[..], headers.len()), (&br#"{"evil":1,"a":{"b":[1.50]}}"#[..], 0));
    assert_eq!(patch, [PatchOp::set("/a".to_owned(), br#"{"b":[1.50]}"#).unwrap()]);
    let header =
        "(call $enrich (local.get $o) (i32.const 2) (i32.const 96) (i32.const 3) (i32.const 112) (i32.const 3))";
    let Decision::Pass { body, patch, headers } = one_of_64(header) else { panic!("no pass") };
    assert_eq!((&body[..], patch.len()), (&br#"{"evil":1}"#[..], 0));
    assert_eq!(headers, [("tag".to_owned(), "red".to_owned())]);
}

#[test]
fn nothing_survives_a_call() {
    let evil = "(if (i32.gt_u (global.get $calls) (i32.const 1)) (then unreachable))
        (if (i32.load (i32.const 8192)) (then unreachable)) (i32.store (i32.const 8192) (i32.const 1))";
    let host = host(&PluginsConfig { threads: 1, ..limits() }, vec![source("hand", guest(evil, "", ""))]);
    for _ in 0..20 {
        let judgements = judge(&host, &["hand"], [Bytes::from(r#"{"evil":1}"#)]);
        assert_eq!(word(&judgements[0]), "pass", "{judgements:?}");
    }
}

#[test]
fn many_culprits_are_all_found() {
    let host = host(&limits(), vec![source("hand", guest("unreachable", "", ""))]);
    let is_evil = |number: usize| number.is_multiple_of(7) || number == 199;
    let bodies = (0..200).map(|number| Bytes::from(if is_evil(number) { r#"{"evil":1}"# } else { r#"{"n":1}"# }));
    let judgements = judge(&host, &["hand"], bodies);
    for (number, judgement) in judgements.iter().enumerate() {
        assert_eq!(word(judgement), if is_evil(number) { "trap" } else { "pass" }, "order {number}");
    }
}

#[test]
fn threads_go_on_after_faults() {
    let loops = "(loop $l (br $l))";
    let host = host(&limits(), vec![source("hand", guest(loops, "", "")), source("good", guest("", "", ""))]);
    for _ in 0..8 {
        assert_eq!(word(&judge(&host, &["hand"], [Bytes::from(r#"{"evil":1}"#)])[0]), "time");
    }
    assert_eq!(word(&judge(&host, &["good", "hand"], [Bytes::from(r#"{"n":1}"#)])[0]), "pass");
}
