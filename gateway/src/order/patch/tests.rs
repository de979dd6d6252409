//! Patches against examples, and against the same change of a parsed value.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn set_op(pointer: &str, value: &str) -> PatchOp {
    PatchOp::set(pointer.to_owned(), value.as_bytes()).unwrap()
}

fn remove_op(pointer: &str) -> PatchOp {
    PatchOp::remove(pointer.to_owned()).unwrap()
}

fn applied(body: &str, ops: &[PatchOp]) -> String {
    String::from_utf8(apply(body.as_bytes(), ops).unwrap().to_vec()).unwrap()
}

#[test]
fn a_set_replaces_creates_and_appends() {
    for (body, pointer, value, expected) in [
        (r#"{"a":1}"#, "/a", "2", r#"{"a":2}"#),
        (r#" { "a" : 1.0 } "#, "/b", r#""x""#, r#" { "a" : 1.0,"b":"x" } "#),
        ("{}", "/a", "1", r#"{"a":1}"#),
        ("{ }", "/totals/net", r#""15.50""#, r#"{"totals":{"net":"15.50"} }"#),
        (r#"{"totals":{"tax":1e0}}"#, "/totals/net", "1", r#"{"totals":{"tax":1e0,"net":1}}"#),
        (r#"{"l":[1 ,2]}"#, "/l/-", "3", r#"{"l":[1 ,2,3]}"#),
        (r#"{"l":[]}"#, "/l/0", "3", r#"{"l":[3]}"#),
        (r#"{"l":[1,2]}"#, "/l/2", "3", r#"{"l":[1,2,3]}"#),
        (r#"{"l":[{"q":1},{"q":2}]}"#, "/l/1/q", " 7 ", r#"{"l":[{"q":1},{"q":7}]}"#),
        (r#"{"l":[1]}"#, "/l/-/a/b", "3", r#"{"l":[1,{"a":{"b":3}}]}"#),
        (r#"{"a/b":{"~":1,"":2}}"#, "/a~1b/~0", "9", r#"{"a/b":{"~":9,"":2}}"#),
        (r#"{"a/b":{"~":1,"":2}}"#, "/a~1b/", "9", r#"{"a/b":{"~":1,"":9}}"#),
        (r#"{"\u0061":1,"b":"}\"]"}"#, "/a", "2", r#"{"\u0061":2,"b":"}\"]"}"#),
        (r#"{"b":"\\","a":[["]"]]}"#, "/a/0/0", "null", r#"{"b":"\\","a":[[null]]}"#),
        (r#"{"x":1}"#, "/\"é\n", "2", r#"{"x":1,"\"é\n":2}"#),
        (
            r#"{"n":0.10,"m":123456789012345678901234567890}"#,
            "/o",
            "1e400",
            r#"{"n":0.10,"m":123456789012345678901234567890,"o":1e400}"#,
        ),
    ] {
        assert_eq!(applied(body, &[set_op(pointer, value)]), expected, "{body} {pointer}");
    }
}

#[test]
fn a_removal_takes_one_comma_along() {
    for (body, pointer, expected) in [
        (r#"{"a":1}"#, "/a", "{}"),
        (r#"{ "a" : 1 , "b":2 }"#, "/a", r#"{ "b":2 }"#),
        (r#"{ "a" : 1 , "b":2 }"#, "/b", r#"{ "a" : 1 }"#),
        (r#"{"l":[1,2,3]}"#, "/l/1", r#"{"l":[1,3]}"#),
        (r#"{"l":[1]}"#, "/l/0", r#"{"l":[]}"#),
        (r#"{"l":[{"q":1,"p":2}]}"#, "/l/0/q", r#"{"l":[{"p":2}]}"#),
    ] {
        assert_eq!(applied(body, &[remove_op(pointer)]), expected, "{body} {pointer}");
    }
}

#[test]
fn operations_build_on_each_other() {
    let ops = [set_op("/c", "{}"), set_op("/c/d", "[1]"), set_op("/c/d/-", "2"), remove_op("/a"), remove_op("/c/d/0")];
    assert_eq!(applied(r#"{"a":1}"#, &ops), r#"{"c":{"d":[2]}}"#);
    assert_eq!(applied(r#"{"a":1}"#, &[]), r#"{"a":1}"#);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let body = br#"{"a":1,"l":[1,2],"o":{}}"#;
    for (op, reason) in [
        (remove_op("/x"), Missing),
        (remove_op("/l/2"), Missing),
        (remove_op("/l/-"), Missing),
        (remove_op("/l/x"), InvalidIndex),
        (remove_op("/o/x/y"), Missing),
        (remove_op("/a/x"), NotAContainer),
        (set_op("/a/x", "1"), NotAContainer),
        (set_op("/l/3", "1"), InvalidIndex),
        (set_op("/l/01", "1"), InvalidIndex),
        (set_op("/l/x", "1"), InvalidIndex),
        (set_op("/l/99999999999999999999", "1"), InvalidIndex),
    ] {
        assert_eq!(apply(body, std::slice::from_ref(&op)).unwrap_err().reason, reason, "{op:?}");
    }
}

#[test]
fn only_pointers_to_members_and_json_make_an_operation() {
    for pointer in ["", "a", "#/a", "/~", "/~2", "/a~"] {
        assert_eq!(PatchOp::set(pointer.to_owned(), b"1").unwrap_err().reason, InvalidPointer, "{pointer}");
        assert_eq!(PatchOp::remove(pointer.to_owned()).unwrap_err().reason, InvalidPointer, "{pointer}");
    }
    for value in ["", "{", "1 2", "01", "NaN", "'a'", "{\"a\":}", "[1,]", "tru"] {
        assert_eq!(PatchOp::set("/a".to_owned(), value.as_bytes()).unwrap_err().reason, InvalidValue, "{value}");
    }
    assert_eq!(PatchOp::set("/a".to_owned(), b"\"\xff\"").unwrap_err().reason, InvalidValue);
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(PatchOp::set("/a".to_owned(), nested(DEPTH_MAX - 1).as_bytes()).is_ok());
    assert_eq!(PatchOp::set("/a".to_owned(), nested(DEPTH_MAX).as_bytes()).unwrap_err().reason, TooDeep);
}

#[test]
fn operations_keep_their_json() {
    let ops = vec![set_op("/a~1b", "1.50"), set_op("/n", "null"), remove_op("/c")];
    let text = serde_json::to_string(&ops).unwrap();
    let expected = r#"[{"op":"set","path":"/a~1b","value":1.50},{"op":"set","path":"/n","value":null},{"op":"remove","path":"/c"}]"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Vec<PatchOp>>(&text).unwrap(), ops);
    for bad in [r#"{"op":"move","path":"/a"}"#, r#"{"op":"remove","path":"/a","value":1}"#, r#"{"op":"set"}"#] {
        assert!(serde_json::from_str::<PatchOp>(bad).is_err(), "{bad}");
    }
}

/// The same change of a parsed value, in the plainest way.
fn set_value(target: &mut Value, tokens: &[Cow<'_, str>], value: Value) -> bool {
    let Some((first, rest)) = tokens.split_first() else {
        *target = value;
        return true;
    };
    match target {
        Value::Object(members) => {
            let child = members.entry(first.as_ref()).or_insert_with(|| json!({}));
            set_value(child, rest, value)
        }
        Value::Array(elements) => match index(first) {
            Some(Index::At(at)) if at < elements.len() => set_value(&mut elements[at], rest, value),
            Some(Index::At(at)) if at > elements.len() => false,
            Some(_) => {
                elements.push(json!({}));
                elements.last_mut().is_some_and(|last| set_value(last, rest, value))
            }
            None => false,
        },
        _ => false,
    }
}

fn remove_value(target: &mut Value, tokens: &[Cow<'_, str>]) -> bool {
    let Some((last, path)) = tokens.split_last() else { return false };
    let mut parent = target;
    for token in path {
        let child = match parent {
            Value::Object(members) => members.get_mut(token.as_ref()),
            Value::Array(elements) => token.parse::<usize>().ok().and_then(|at| elements.get_mut(at)),
            _ => None,
        };
        let Some(child) = child else { return false };
        parent = child;
    }
    match parent {
        Value::Object(members) => members.remove(last.as_ref()).is_some(),
        Value::Array(elements) => {
            last.parse::<usize>().ok().filter(|at| *at < elements.len()).map(|at| elements.remove(at)).is_some()
        }
        _ => false,
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c\"\\\\{}\\[\\],:é\n]{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c~/\"]{0,2}", inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

fn objects() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-c~/\"]{0,2}", values(), 0..5).prop_map(Value::from_iter)
}

fn pointers() -> impl Strategy<Value = String> {
    let token = prop_oneof![4 => "[a-c~/\"]{0,2}", 2 => "[0-4]", 1 => Just("-".to_owned())];
    proptest::collection::vec(token, 1..4).prop_map(|tokens| {
        tokens.iter().map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1"))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_patch_equals_the_same_change_of_a_parsed_value(
        body in objects(), pointer in pointers(), value in values(), removes in any::<bool>(), is_pretty in any::<bool>()
    ) {
        let text = if is_pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) }.unwrap();
        let mut expected = body.clone();
        let names = tokens(&pointer).unwrap();
        let (op, fits) = if removes {
            (remove_op(&pointer), remove_value(&mut expected, &names))
        } else {
            (set_op(&pointer, &value.to_string()), set_value(&mut expected, &names, value))
        };
        match apply(text.as_bytes(), &[op]) {
            Ok(patched) => {
                prop_assert!(fits, "{} was patched to {:?}", text, patched);
                prop_assert_eq!(serde_json::from_slice::<Value>(&patched).unwrap(), expected);
            }
            Err(error) => prop_assert!(!fits, "{}: {}", text, error),
        }
    }

    #[test]
    fn members_that_no_operation_names_keep_their_bytes(before in "[0-9]{1,30}\\.[0-9]{1,30}", after in "[1-9]e[0-9]{1,3}") {
        let body = format!("{{\"x\" :{before}, \"a\":1,\t\"y\":[ {after} ]}}");
        let expected = format!("{{\"x\" :{before}, \"a\":2,\t\"y\":[ {after} ],\"z\":3}}");
        prop_assert_eq!(applied(&body, &[set_op("/a", "2"), set_op("/z", "3")]), expected);
    }
}
