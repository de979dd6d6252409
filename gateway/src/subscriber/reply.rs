//! What a record on a reply topic says: a reply, or why it is none.
//!
//! Pure. CloudEvents 1.0 in binary mode (headers `ce_…`) and in structured mode (`application/cloudevents+json`), and
//! plain JSON with the headers or members that are needed. Whether the order is known is not decided here.

use serde_json::{Map, Value};

use crate::order::{OrderId, Problem, Source};
use crate::reply::{PoisonReply, RawReply, Reply};

/// Problems of one reply that are kept; the limit of problems per order.
const PROBLEMS_MAX: usize = 100;
/// Characters of each text of a problem that are kept.
const PROBLEM_TEXT_CHARACTERS_MAX: usize = 2_000;
/// Header that names the order, for services that do not speak CloudEvents.
const ORDER_ID_HEADER: &str = "sluice-order-id";

/// Reads a record of a reply topic.
///
/// # Errors
///
/// The record as it came, and what it lacks.
pub fn parse(raw: RawReply) -> Result<Reply, PoisonReply> {
    match read(&raw) {
        Ok(said) => Ok(Reply {
            place: raw.place,
            timestamp: raw.timestamp,
            order_id: said.order_id,
            kind: said.kind,
            from: said.source,
            event_id: said.event_id,
            problems: said.problems,
        }),
        Err(reason) => Err(PoisonReply { raw: Box::new(raw), reason }),
    }
}

/// What a record says, without where it stood.
struct Said {
    order_id: OrderId,
    kind: String,
    source: Option<String>,
    event_id: Option<String>,
    problems: Vec<Problem>,
}

fn read(raw: &RawReply) -> Result<Said, String> {
    let body = match raw.value.as_deref() {
        None | Some([]) => None,
        Some(value) => {
            let body: Value =
                serde_json::from_slice(value).map_err(|error| format!("the value is not JSON: {error}"))?;
            Some(body)
        }
    };
    let content_type = text_header(raw, "content-type")?.unwrap_or_default().to_ascii_lowercase();
    if content_type.starts_with("application/cloudevents+json") {
        let Some(Value::Object(event)) = body else {
            return Err("a structured CloudEvent was announced: expected a JSON object as value".to_owned());
        };
        let attribute = |name: &str| member_text(&event, name);
        let (id, source) = (attribute("id"), attribute("source"));
        return assemble(raw, attribute("subject"), attribute("type"), id, source, event.get("data"));
    }
    let attribute = |name: &str| -> Result<Option<String>, String> {
        let binary = text_header(raw, &format!("ce_{name}"))?;
        Ok(binary.or(text_header(raw, &format!("ce-{name}"))?).map(str::to_owned))
    };
    let in_body = || body.as_ref().and_then(Value::as_object).and_then(|body| member_text(body, "type"));
    let kind = attribute("type")?.or_else(in_body);
    assemble(raw, attribute("subject")?, kind, attribute("id")?, attribute("source")?, body.as_ref())
}

fn assemble(
    raw: &RawReply,
    subject: Option<String>,
    kind: Option<String>,
    id: Option<String>,
    source: Option<String>,
    data: Option<&Value>,
) -> Result<Said, String> {
    let (name, order_id) = match (text_header(raw, ORDER_ID_HEADER)?, subject) {
        (Some(order_id), _) => (ORDER_ID_HEADER, order_id.to_owned()),
        (None, Some(subject)) => ("the CloudEvents subject", subject),
        (None, None) => {
            return Err(format!("it names no order: expected header `{ORDER_ID_HEADER}` or the CloudEvents subject"));
        }
    };
    let order_id = order_id.parse().map_err(|error| format!("{name} is {error}"))?;
    let kind = kind
        .filter(|kind| !kind.is_empty())
        .ok_or("it does not say what it is: expected header `ce_type` or a member `type` of the JSON value")?;
    let event_id = source.as_ref().zip(id).map(|(source, id)| format!("{source}\n{id}"));
    let problems = data.and_then(|data| data.get("problems")).map(problems).unwrap_or_default();
    Ok(Said { order_id, kind, source, event_id, problems })
}

fn text_header<'a>(raw: &'a RawReply, name: &str) -> Result<Option<&'a str>, String> {
    let Some((_, value)) = raw.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)) else {
        return Ok(None);
    };
    std::str::from_utf8(value).map(Some).map_err(|_| format!("header `{name}` is not UTF-8"))
}

fn member_text(object: &Map<String, Value>, name: &str) -> Option<String> {
    object.get(name)?.as_str().map(str::to_owned)
}

/// The problems as far as they can be read; what is oddly shaped is shown as it came rather than lost.
fn problems(found: &Value) -> Vec<Problem> {
    match found {
        Value::Null => Vec::new(),
        Value::Array(found) => found.iter().take(PROBLEMS_MAX).map(problem).collect(),
        other => vec![problem(other)],
    }
}

fn problem(found: &Value) -> Problem {
    let text = |name: &str| found.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(shorten);
    let (code, title) = (text("code"), text("title"));
    if code.is_none() && title.is_none() {
        return Problem {
            code: "unreadable-problem".to_owned(),
            title: "The service gave a problem without code and title".to_owned(),
            detail: Some(shorten(&found.to_string())),
            pointer: None,
            source: Source::Downstream,
        };
    }
    let pointer = found.get("pointer").and_then(Value::as_str);
    Problem {
        title: title.or_else(|| code.clone()).unwrap_or_default(),
        code: code.unwrap_or_else(|| "refused".to_owned()),
        detail: text("detail"),
        pointer: pointer.filter(|pointer| pointer.is_empty() || pointer.starts_with('/')).map(shorten),
        source: Source::Downstream,
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(PROBLEM_TEXT_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::Timestamp;
    use crate::reply::Place;

    const ORDER: &str = "01890f3e-7c00-7000-8000-000000000001";

    fn raw(headers: &[(&str, &str)], value: &str) -> RawReply {
        RawReply {
            place: Place { topic: "order-replies".to_owned(), partition: 1, offset: 7 },
            timestamp: Timestamp(5),
            key: None,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes::from((*value).to_owned())))
                .collect(),
            value: Some(Bytes::from(value.to_owned())),
        }
    }

    #[test]
    fn a_reply_is_read_in_every_form_it_may_have() {
        let binary =
            [("ce_type", "ConsumerValidated"), ("ce_subject", ORDER), ("ce_id", "7"), ("ce_source", "/services/c")];
        let dashes =
            [("ce-type", "ConsumerValidated"), ("ce-subject", ORDER), ("ce-id", "7"), ("ce-source", "/services/c")];
        let structured = [("content-type", "application/cloudevents+json; charset=UTF-8")];
        let event = format!(r#"{{"id":"7","source":"/services/c","type":"ConsumerValidated","subject":"{ORDER}"}}"#);
        let sluice = [("sluice-order-id", ORDER), ("ce_type", "ConsumerValidated"), ("ce_subject", "something else")];
        let whole = (Some("/services/c"), Some("/services/c\n7"));
        for (headers, value, (from, event_id)) in [
            (&binary[..], r#"{"orderId":1}"#, whole),
            (&binary[..], "", whole),
            (&dashes[..], "{}", whole),
            (&structured[..], event.as_str(), whole),
            (&sluice[..], "[]", (None, None)),
            (&[("sluice-order-id", ORDER)][..], r#"{"type":"ConsumerValidated"}"#, (None, None)),
        ] {
            let reply = parse(raw(headers, value)).unwrap_or_else(|poison| panic!("{headers:?}: {}", poison.reason));
            assert_eq!((reply.order_id.to_string().as_str(), reply.kind.as_str()), (ORDER, "ConsumerValidated"));
            assert_eq!((reply.from.as_deref(), reply.event_id.as_deref()), (from, event_id), "{headers:?}");
            assert_eq!(reply.problems, []);
        }
    }

    #[test]
    fn what_is_no_reply_says_what_was_expected() {
        let whole = [("ce_type", "ConsumerValidated"), ("ce_subject", ORDER)];
        let structured = [("content-type", "application/cloudevents+json")];
        let no_type = format!(r#"{{"id":"7","source":"s","subject":"{ORDER}"}}"#);
        for (headers, value, reason) in [
            (&whole[..], "not json", "the value is not JSON"),
            (&whole[..], "{\"a\":", "the value is not JSON"),
            (&[][..], "{}", "it names no order: expected header `sluice-order-id` or the CloudEvents subject"),
            (
                &[("ce_subject", "17")][..],
                "{}",
                "the CloudEvents subject is not an order id: expected a hyphenated UUID",
            ),
            (&[("sluice-order-id", "")][..], "{}", "sluice-order-id is not an order id"),
            (&[("ce_subject", ORDER)][..], "{}", "it does not say what it is"),
            (&[("ce_subject", ORDER)][..], r#"{"type":7}"#, "it does not say what it is"),
            (&[("ce_subject", ORDER), ("ce_type", "")][..], "{}", "it does not say what it is"),
            (&structured[..], "[]", "a structured CloudEvent was announced"),
            (&structured[..], "", "a structured CloudEvent was announced"),
            (&structured[..], no_type.as_str(), "it does not say what it is"),
        ] {
            let poison = parse(raw(headers, value)).unwrap_err();
            assert!(poison.reason.starts_with(reason), "{headers:?} {value}: {}", poison.reason);
            assert_eq!(poison.raw.value.as_deref(), Some(value.as_bytes()));
        }
        let mut odd = raw(&whole, "{}");
        odd.headers[0].1 = Bytes::from_static(b"\xff");
        assert_eq!(parse(odd).unwrap_err().reason, "header `ce_type` is not UTF-8");
        let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(parse(raw(&whole, &deep)).unwrap_err().reason.starts_with("the value is not JSON"));
    }

    #[test]
    fn problems_are_taken_as_far_as_they_can_be_read() {
        let headers = [("ce_type", "ConsumerRejected"), ("ce_subject", ORDER)];
        let problems = |value: &str| parse(raw(&headers, value)).unwrap().problems;
        let whole = problems(
            r#"{"problems":[{"code":"blocked","title":"Blocked","detail":"unpaid","pointer":"/customerId","source":"client"}]}"#,
        );
        let expected = Problem {
            code: "blocked".to_owned(),
            title: "Blocked".to_owned(),
            detail: Some("unpaid".to_owned()),
            pointer: Some("/customerId".to_owned()),
            source: Source::Downstream,
        };
        assert_eq!(whole, [expected]);
        for (value, code, title, detail) in [
            (r#"{"problems":[{"code":"blocked"}]}"#, "blocked", "blocked", None),
            (r#"{"problems":[{"title":"Blocked","pointer":"no"}]}"#, "refused", "Blocked", None),
            (r#"{"problems":["blocked"]}"#, "unreadable-problem", "", Some("\"blocked\"")),
            (r#"{"problems":7}"#, "unreadable-problem", "", Some("7")),
            (r#"{"problems":[{"code":7,"x":[]}]}"#, "unreadable-problem", "", Some(r#"{"code":7,"x":[]}"#)),
        ] {
            let found = problems(value);
            assert_eq!(found.len(), 1, "{value}");
            assert_eq!((found[0].code.as_str(), found[0].detail.as_deref()), (code, detail), "{value}");
            assert!(title.is_empty() || found[0].title == title, "{value}");
            assert_eq!(found[0].pointer, None);
        }
        assert_eq!(problems(r#"{"problems":null}"#), []);
        assert_eq!(problems(&format!(r#"{{"problems":[{}1]}}"#, "1,".repeat(5_000))).len(), PROBLEMS_MAX);
    }
}
