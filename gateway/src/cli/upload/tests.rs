use ureq::http::HeaderMap;

use super::*;

fn batches(text: &str, limits: (usize, usize)) -> Vec<Batch> {
    Batches::new(text.as_bytes(), limits, 0, 1).collect::<Result<_, _>>().unwrap()
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, headers: HeaderMap::new(), body: body.as_bytes().to_vec() }
}

#[test]
fn a_file_is_cut_by_lines_and_by_bytes() {
    let text = "{1}\n\n{2}\r\n{3}\n{444444}\n{5}";
    let cut = |limits| batches(text, limits).into_iter().map(|batch| batch.lines).collect::<Vec<_>>();
    assert_eq!(cut((2, 100)), [vec![1, 3], vec![4, 5], vec![6]]);
    assert_eq!(cut((100, 10)), [vec![1, 3], vec![4], vec![5], vec![6]]);
    assert_eq!(batches(text, (2, 100))[0].body, b"{1}\n{2}\n");
    assert_eq!(batches("", (2, 100)), []);
}

#[test]
fn a_line_that_fits_no_batch_is_refused_and_the_others_go_on() {
    let all = batches("{1}\n{222222222222}\n{3}\n", (10, 10));
    assert_eq!((all.len(), all[0].lines.as_slice(), all[0].too_long.as_slice()), (1, &[1, 3][..], &[2][..]));
}

#[test]
fn the_rest_is_cut_as_it_would_have_been() {
    let text: String = (0..100).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    let all = batches(&text, (7, 64));
    for (done, batch) in all.iter().enumerate() {
        let at = usize::try_from(batch.next_byte).unwrap();
        let rest: Vec<Batch> = Batches::new(&text.as_bytes()[at..], (7, 64), batch.next_byte, batch.next_line)
            .map(Result::unwrap)
            .collect();
        assert_eq!(rest, all[done + 1..], "after batch {done}");
    }
    assert_eq!(all.iter().map(|batch| batch.lines.len()).sum::<usize>(), 100);
}

#[test]
fn a_batch_has_one_key_and_another_batch_another() {
    let state = State::new("f".repeat(32), "/orders", (2, 100), false);
    let keys: Vec<String> =
        batches("{1}\n{2}\n{1}\n{2}\n", (2, 100)).iter().map(|batch| state.batch_key(batch)).collect();
    assert_eq!(keys[0], format!("file-{}-2x100-1", "f".repeat(32)));
    assert_ne!(keys[0], keys[1]);
    let again = State::new("f".repeat(32), "/orders", (2, 100), true);
    assert_ne!(again.batch_key(&batches("{1}\n", (2, 100))[0]), keys[0]);
}

#[test]
fn results_are_told_by_the_line_of_the_file() {
    let two = "{\"line\":1,\"status\":202,\"order\":{}}\n{\"line\":2,\"status\":400,\"problem\":{\"title\":\"No\"}}\n";
    let read = results(&answer(207, two), &[3, 7]).unwrap();
    assert_eq!(
        read.iter().map(|(line, result)| (*line, result["status"].as_u64())).collect::<Vec<_>>(),
        [(3, Some(202)), (7, Some(400))]
    );
}

#[test]
fn a_busy_node_or_half_an_answer_is_asked_again_and_a_refusal_is_not() {
    let busy = "{\"line\":1,\"status\":202}\n{\"line\":2,\"status\":503,\"problem\":{\"title\":\"Full\"}}\n";
    assert_eq!(results(&answer(207, busy), &[1, 2]).unwrap_err(), NoResults::Later("503 Full".into()));
    let half = "{\"line\":1,\"status\":202}\n{\"line\":2,";
    assert!(matches!(results(&answer(207, half), &[1, 2]), Err(NoResults::Later(_))));
    assert!(matches!(results(&answer(429, "{}"), &[1]), Err(NoResults::Later(_))));
    assert!(matches!(results(&answer(413, "{}"), &[1]), Err(NoResults::Never(_))));
}

#[test]
fn an_interrupted_upload_goes_on_only_with_the_same_file_and_route() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("orders.ndjson.sluice-state");
    let fresh = |fingerprint: &str, route| State::new(fingerprint.to_owned(), route, (500, 1000), false);
    assert_eq!(fresh("a", "/orders").or_noted(&note).unwrap().next_line, 1);

    let mut state = State::new("a".into(), "/orders", (7, 64), true);
    (state.next_byte, state.next_line, state.accepted) = (640, 65, 64);
    state.save(&note).unwrap();
    assert_eq!(fresh("a", "/orders").or_noted(&note).unwrap(), state, "limits and salt are those it began with");
    assert!(fresh("b", "/orders").or_noted(&note).unwrap_err().to_string().contains("has changed"));
    assert!(fresh("a", "/refunds").or_noted(&note).unwrap_err().to_string().contains("went to /orders"));

    let again = |fingerprint: &str| State::new(fingerprint.to_owned(), "/orders", (500, 1000), true);
    assert_eq!(again("a").or_noted(&note).unwrap(), state, "the same command goes on");
    assert_eq!(again("b").or_noted(&note).unwrap().next_line, 1);

    State::remove(&note).unwrap();
    State::remove(&note).unwrap();
    assert_eq!(fresh("a", "/orders").or_noted(&note).unwrap().next_line, 1);
}
