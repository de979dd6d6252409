//! Each header in its legal, odd and broken forms.

use http::HeaderValue;

use super::*;

fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for value in values {
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn wait(values: &[&str]) -> Option<u64> {
    prefer_wait(&headers("prefer", values), Duration::from_secs(30)).map(|span| span.as_secs())
}

#[test]
fn a_preference_to_wait_is_found_among_others() {
    for (values, seconds) in [
        (&["wait=5"][..], Some(5)),
        (&["WAIT = 5"], Some(5)),
        (&["wait=\"5\""], Some(5)),
        (&["respond-async, wait=5"], Some(5)),
        (&["respond-async; a=\"x,wait=9\", wait=5; foo=bar"], Some(5)),
        (&["handling=lenient", "wait=5"], Some(5)),
        (&["wait=5, wait=6"], Some(5)),
        (&["wait=0"], Some(0)),
        (&["wait=31"], Some(30)),
        (&["wait=99999999999999999999999"], Some(30)),
        (&["wait=soon, wait=7"], Some(7)),
    ] {
        assert_eq!(wait(values), seconds, "{values:?}");
    }
}

#[test]
fn odd_preferences_are_ignored() {
    for odd in [
        "wait=soon",
        "respond-async",
        "wait=-3",
        "wait=\"5",
        "wait=5\"",
        "wait",
        "wait=",
        "wait=1.5",
        "wait=\"\"",
        "",
        ",,;=",
        "x; wait=5",
    ] {
        assert_eq!(wait(&[odd]), None, "{odd}");
    }
}

fn key(values: &[&str]) -> Result<Option<String>, u16> {
    idempotency_key(&headers("idempotency-key", values), 255).map_err(|problem| problem.status.as_u16())
}

#[test]
fn keys_are_taken_bare_and_quoted() {
    let longest = "x".repeat(255);
    let quoted = format!("\"{longest}\"");
    for (value, expected) in [
        ("abc", "abc"),
        ("\"abc\"", "abc"),
        ("\"a b\"", "a b"),
        ("a b", "a b"),
        (r#""a\"b\\c""#, r#"a"b\c"#),
        (r#"a"b"#, r#"a"b"#),
        (&longest, &longest),
        (&quoted, &longest),
    ] {
        assert_eq!(key(&[value]), Ok(Some(expected.to_owned())), "{value}");
    }
    assert_eq!(key(&[]), Ok(None));
}

#[test]
fn broken_keys_are_refused() {
    let long = "x".repeat(256);
    for odd in ["", " ", "\"\"", "\"", "\"open", "\"a\"b\"", "\"a\" ;p=1", r#""a\""#, r#""a\n""#, "a\tb", "é", &long] {
        assert_eq!(key(&[odd]), Err(400), "{odd:?}");
    }
    assert_eq!(key(&["a", "b"]), Err(400));
}

#[test]
fn entity_tags_are_compared_weakly() {
    for (values, expected) in [
        (&["\"7\""][..], Some(true)),
        (&["W/\"7\""], Some(true)),
        (&["\"999\", \"7\""], Some(true)),
        (&["\"1\"", "\"7\""], Some(true)),
        (&["*"], Some(true)),
        (&["\"8\""], Some(false)),
        (&["\"07\""], Some(false)),
        (&["7"], None),
        (&[""], None),
        (&[], None),
    ] {
        assert_eq!(none_match(&headers("if-none-match", values), 7), expected, "{values:?}");
    }
    assert_eq!(none_match(&headers("if-none-match", &["\"18446744073709551615\""]), u64::MAX), Some(true));
}

#[test]
fn only_a_legal_traceparent_is_passed_on() {
    let legal = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(traceparent(&headers("traceparent", &[legal])).as_deref(), Some(legal));
    for odd in [
        "00-zzz-1",
        "",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e47-36-00f067aa0ba902b7-01",
    ] {
        assert_eq!(traceparent(&headers("traceparent", &[odd])), None, "{odd}");
    }
    assert_eq!(traceparent(&headers("traceparent", &[legal, legal])), None);
}

#[test]
fn content_types_are_read_without_case_and_with_parameters() {
    for (value, expected) in [
        ("application/json", Some(Media::Json)),
        ("Application/JSON", Some(Media::Json)),
        ("application/json; charset=utf-8", Some(Media::Json)),
        ("application/json;charset=\"UTF-8\" ; x=y", Some(Media::Json)),
        ("application/cloudevents+json; charset=UTF-8", Some(Media::CloudEvent)),
        ("application/x-ndjson", Some(Media::NdJson)),
        ("application/json; charset=latin1", None),
        ("application/jsonx", None),
        ("text/plain", None),
        ("multipart/form-data; boundary=x", None),
        ("", None),
    ] {
        assert_eq!(media(&headers("content-type", &[value])).ok(), expected, "{value}");
    }
    assert!(media(&headers("content-type", &[])).is_err());
    assert!(media(&headers("content-type", &["application/json", "text/plain"])).is_err());
}
