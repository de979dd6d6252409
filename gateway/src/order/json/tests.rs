//! What is legal and what is not, and which key is found.

use super::*;

fn at(pointer: &str) -> JsonPointer {
    pointer.parse().unwrap()
}

fn key_of(json: &str, pointer: &str) -> Option<String> {
    check(json.as_bytes(), 64, &at(pointer)).unwrap().order_key
}

fn fault(json: impl AsRef<[u8]>) -> JsonFault {
    check(json.as_ref(), 64, &at("/customerId")).unwrap_err()
}

#[test]
fn legal_objects_pass() {
    for json in [
        "{}",
        " \r\n\t{ } \n",
        r#"{"a":[1,-0,1.5e3,true,null,"\ud83d\ude00"],"b":{"a":1}}"#,
        r#"{"a":{"a":{"a":1}}}"#,
        r#"{"":1}"#,
    ] {
        assert_eq!(check(json.as_bytes(), 64, &at("")), Ok(Checked { order_key: None }), "{json}");
    }
}

#[test]
fn what_is_no_legal_object_is_refused() {
    let cases: &[&[u8]] = &[
        b"",
        b" ",
        b"hello",
        b"{",
        br#"{"a""#,
        br#"{"a":"#,
        b"{}x",
        b"{}{}",
        b"{},",
        b"[]",
        b"\"x\"",
        b"null",
        b"1",
        b"1.5",
        b"-1",
        b"true",
        br#"{"a":NaN}"#,
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
        br#"{"a":"\ud800"}"#,
        br#"{"a":"\udc00"}"#,
        br#"{"\ud800":1}"#,
        b"{\"a\":\"\x01\"}",
        b"{\"a\x01\":1}",
        br#"{"a":1e999999}"#,
        br#"{"a":-1e999999}"#,
        br#"{"a":01}"#,
        br#"{"a":+1}"#,
        br#"{"a":.5}"#,
        br#"{"a":1.}"#,
        br#"{"a":1,}"#,
        br#"{"a":[1,]}"#,
        br#"{a:1}"#,
        br#"{'a':1}"#,
        br#"{"a":"\x41"}"#,
        br#"{"a":1}//"#,
        b"{\"a\":1}\0",
        br#"{"a":Infinity}"#,
        br#"{"a":0x1}"#,
        b"\x0b{}",
    ];
    for json in cases {
        let fault = check(json, 64, &at("/a")).expect_err(&String::from_utf8_lossy(json));
        assert!(!fault.to_string().is_empty());
    }
}

#[test]
fn duplicate_members_are_named_by_pointer() {
    for (json, pointer) in [
        (r#"{"a":1,"a":2}"#, "/a"),
        (r#"{"a":1,"\u0061":2}"#, "/a"),
        (r#"{"x":[0,{"y":{"b/c":1,"b/c":2}}]}"#, "/x/1/y/b~1c"),
        (r#"{"":{"~":1,"~":1}}"#, "//~0"),
        (r#"{"":1,"":1}"#, "/"),
    ] {
        assert_eq!(fault(json).place, Place::Member(pointer.to_owned()), "{json}");
    }
}

#[test]
fn duplicates_are_found_among_many_members() {
    let many = |last: &str| {
        let members: Vec<_> = (0..100_000).map(|n| format!("\"m{n}\":{{\"x\":{n}}}")).collect();
        format!("{{{},\"{last}\":1}}", members.join(","))
    };
    assert!(check(many("fresh").as_bytes(), 64, &at("")).is_ok());
    for name in ["m0", "m15", "m16", "m17", "m99999"] {
        assert_eq!(fault(many(name)).place, Place::Member(format!("/{name}")));
    }
    let nested = format!("{{\"outer\":[{}]}}", many("m16"));
    assert_eq!(fault(nested).place, Place::Member("/outer/0/m16".to_owned()));
}

#[test]
fn a_fault_inside_the_hundredth_member_has_the_whole_path() {
    let members: Vec<_> = (0..99).map(|n| format!("\"m{n}\":0")).collect();
    let json = format!("{{{},\"last\":{{\"a\":1,\"a\":1}}}}", members.join(","));
    assert_eq!(fault(json).place, Place::Member("/last/a".to_owned()));
}

#[test]
fn depth_counts_the_object_itself() {
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(check(nested(64).as_bytes(), 64, &at("")).is_ok());
    assert_eq!(fault(nested(65)).what, "nested deeper than 64 levels");
    assert!(check(nested(DEPTH_LIMIT_MAX).as_bytes(), usize::MAX, &at("")).is_ok());
    assert!(check(nested(DEPTH_LIMIT_MAX + 1).as_bytes(), usize::MAX, &at("")).is_err());
    for opening in ["[", "{\"a\":", "{\"a\":[", "[{\"a\":"] {
        for depth_max in [1, 64, 1_000_000] {
            assert!(check(opening.repeat(200_000).as_bytes(), depth_max, &at("")).is_err());
        }
    }
}

#[test]
fn the_key_is_what_the_pointer_finds() {
    for (json, pointer, key) in [
        (r#"{"customerId":"17850"}"#, "/customerId", Some("17850")),
        (r#"{"customerId":"a\u0062\n"}"#, "/customerId", Some("ab\n")),
        (r#"{"customer\u0049d":"x"}"#, "/customerId", Some("x")),
        (r#"{"k":17850}"#, "/k", Some("17850")),
        (r#"{"k":-5}"#, "/k", Some("-5")),
        (r#" {"k":1.50 }"#, "/k", Some("1.50")),
        (r#"{"k":-0}"#, "/k", Some("-0")),
        (r#"{"k":1E5}"#, "/k", Some("1E5")),
        (r#"{"k":123456789012345678901234567890}"#, "/k", Some("123456789012345678901234567890")),
        (r#"{"k":false}"#, "/k", Some("false")),
        (r#"{"a":{"b":[0,{"c/d":"x"}]}}"#, "/a/b/1/c~1d", Some("x")),
        (r#"{"a":{"b":[0,{"c\u002fd":2.50}]}}"#, "/a/b/1/c~1d", Some("2.50")),
        (r#"{"k":null}"#, "/k", None),
        (r#"{"k":""}"#, "/k", None),
        (r#"{"k":{"x":1}}"#, "/k", None),
        (r#"{"k":["x"]}"#, "/k", None),
        (r#"{"k":["x"]}"#, "/k/-", None),
        (r#"{"k":["x"]}"#, "/k/00", None),
        (r#"{"k":"x"}"#, "/k/0", None),
        (r#"{"a":{"k":"x"}}"#, "/k", None),
        (r#"{"0":"x"}"#, "/0", Some("x")),
        (r#"{"k":"x"}"#, "", None),
    ] {
        assert_eq!(key_of(json, pointer).as_deref(), key, "{json} {pointer}");
    }
}

#[test]
fn a_fault_says_where() {
    assert_eq!(fault("{\n \"a\":\n  01}").place, Place::Text { line: 3, column: 4 });
    assert_eq!(fault(b"{\n\"a\":\"\xff\"}").place, Place::Text { line: 2, column: 6 });
    assert_eq!(
        fault("[1]"),
        JsonFault { what: "an order is a JSON object, this is an array".into(), place: Place::Whole }
    );
}

#[test]
fn a_pointer_beyond_reading_gives_way_to_line_and_column() {
    let name = "n".repeat(2000);
    assert!(matches!(fault(format!("{{\"{name}\":1,\"{name}\":1}}")).place, Place::Text { line: 1, .. }));
}
