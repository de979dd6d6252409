//! Reads the document that a plugin of the bytes lane answers with. What the ABI does not say is a broken contract.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::plugin::call::{Failure, Outcome, PatchOp, Verdict, problem_text};
use crate::plugin::host::bindings::sluice::plugin::types::{Fault, Problem, Retry};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'answer> {
    #[serde(borrow)]
    outcomes: Option<Vec<Answer<'answer>>>,
    refused: Option<Vec<Finding>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer<'answer> {
    seq: u32,
    verdict: String,
    #[serde(borrow)]
    patch: Option<Vec<Change<'answer>>>,
    problems: Option<Vec<Finding>>,
    #[serde(rename = "afterMs")]
    after_ms: Option<u32>,
    reason: Option<String>,
    code: Option<String>,
    detail: Option<String>,
    retryable: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change<'answer> {
    set: Option<String>,
    remove: Option<String>,
    header: Option<String>,
    /// `null` is a value too.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'answer RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    code: String,
    title: String,
    detail: Option<String>,
    pointer: Option<String>,
}

fn present<'answer, D: Deserializer<'answer>>(value: D) -> Result<Option<&'answer RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

/// The outcomes, as the plugin put them.
pub(super) fn read(answer: &[u8]) -> Result<Vec<Outcome>, Failure> {
    let broken = |detail: String| Failure::contract(format!("its answer is not of the bytes ABI: {detail}"));
    let document: Document<'_> = serde_json::from_slice(answer).map_err(|error| broken(error.to_string()))?;
    match document {
        Document { outcomes: Some(outcomes), refused: None } => {
            outcomes.into_iter().map(outcome).collect::<Result<_, _>>().map_err(broken)
        }
        Document { outcomes: None, refused: Some(problems) } if problems.is_empty() => {
            Err(broken("`refused` has no problem in it".to_owned()))
        }
        Document { outcomes: None, refused: Some(problems) } => {
            Err(Failure::Refused(problems.into_iter().map(|finding| problem_text(finding.into())).collect()))
        }
        Document { .. } => Err(broken("it has to have `outcomes` or `refused`, one of them".to_owned())),
    }
}

fn outcome(answer: Answer<'_>) -> Result<Outcome, String> {
    let Answer { seq, verdict, patch, problems, after_ms, reason, code, detail, retryable } = answer;
    let rest = (patch, problems, after_ms, reason, code, detail, retryable);
    let verdict = match (verdict.as_str(), rest) {
        ("accept", (None, None, None, None, None, None, None)) => Ok(Verdict::Accept),
        ("enrich", (Some(patch), None, None, None, None, None, None)) => {
            Ok(Verdict::Enrich(patch.into_iter().map(|change| operation(seq, change)).collect::<Result<_, _>>()?))
        }
        ("reject", (None, Some(problems), None, None, None, None, None)) => {
            Ok(Verdict::Reject(problems.into_iter().map(Problem::from).collect()))
        }
        ("retry-later", (None, None, Some(after_ms), Some(reason), None, None, None)) => {
            Ok(Verdict::RetryLater(Retry { after_ms, reason }))
        }
        ("fault", (None, None, None, None, Some(code), Some(detail), Some(retryable))) => {
            Err(Fault { code, detail, retryable })
        }
        (word, _) => {
            let members = match word {
                "accept" => "nothing",
                "enrich" => "`patch`",
                "reject" => "`problems`",
                "retry-later" => "`afterMs` and `reason`",
                "fault" => "`code`, `detail` and `retryable`",
                _ => return Err(format!("seq {seq} has the unknown verdict `{}`", word.escape_debug())),
            };
            return Err(format!("seq {seq} is `{word}`, which has {members} besides, no more and no less"));
        }
    };
    Ok(Outcome { seq, verdict })
}

fn operation(seq: u32, change: Change<'_>) -> Result<PatchOp, String> {
    match change {
        Change { set: Some(pointer), value: Some(value), remove: None, header: None } => {
            Ok(PatchOp::Set((pointer, value.get().as_bytes().to_vec())))
        }
        Change { remove: Some(pointer), set: None, value: None, header: None } => Ok(PatchOp::Remove(pointer)),
        Change { header: Some(name), value: Some(value), set: None, remove: None } => {
            let text = serde_json::from_str(value.get());
            let value = text.map_err(|_| format!("seq {seq} gives the header `{}` no text", name.escape_debug()))?;
            Ok(PatchOp::Header((name, value)))
        }
        Change { .. } => Err(format!(
            "seq {seq} has an operation that is none of `set` with `value`, `remove`, `header` with `value`"
        )),
    }
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        let Finding { code, title, detail, pointer } = finding;
        Self { code, title, detail, pointer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(answer: &str) -> String {
        match read(answer.as_bytes()) {
            Ok(outcomes) => outcomes.iter().map(|outcome| format!("{}:{:?}", outcome.seq, outcome.verdict)).collect(),
            Err(Failure::Refused(problems)) => format!("refused: {}", problems.join("; ")),
            Err(Failure::Fault { detail, .. }) => detail,
        }
    }

    #[test]
    fn every_verdict_of_the_abi_is_read() {
        assert_eq!(verdicts(r#"{"outcomes":[]}"#), "");
        assert_eq!(verdicts(r#"{"outcomes":[{"seq":3,"verdict":"accept"}]}"#), "3:Ok(Verdict::Accept)");
        let text = verdicts(r#"{"outcomes":[{"seq":0,"verdict":"retry-later","afterMs":5,"reason":"x"}]}"#);
        assert!(text.contains("after-ms: 5"), "{text}");
        let text = verdicts(r#"{"outcomes":[{"verdict":"reject","seq":0,"problems":[{"code":"c","title":"t"}]}]}"#);
        assert!(text.contains(r#"code: "c""#), "{text}");
        let text = verdicts(r#"{"outcomes":[{"seq":0,"verdict":"fault","code":"c","detail":"d","retryable":true}]}"#);
        assert!(text.starts_with("0:Err(Fault"), "{text}");
        let refused = r#"{"refused":[{"code":"c","title":"t","pointer":"/x","detail":"d"}]}"#;
        assert_eq!(verdicts(refused), "refused: /x: d");
    }

    #[test]
    fn the_bytes_of_a_value_stay_as_they_are() {
        let answer = r#"{"outcomes":[{"seq":0,"verdict":"enrich","patch":[{"set":"/a","value":{ "x" : 1.50e0, "y":12345678901234567890 }},{"set":"/n","value":null},{"remove":"/b"},{"header":"tag","value":"r\u00e9d"}]}]}"#;
        let outcomes = read(answer.as_bytes()).unwrap();
        let Ok(Verdict::Enrich(patch)) = &outcomes[0].verdict else { panic!("{outcomes:?}") };
        let PatchOp::Set((_, value)) = &patch[0] else { panic!("{patch:?}") };
        assert_eq!(value, br#"{ "x" : 1.50e0, "y":12345678901234567890 }"#);
        assert!(matches!(&patch[1], PatchOp::Set((_, value)) if value == b"null"), "{patch:?}");
        assert!(matches!(&patch[2], PatchOp::Remove(pointer) if pointer == "/b"), "{patch:?}");
        assert!(matches!(&patch[3], PatchOp::Header((_, value)) if value == "réd"), "{patch:?}");
    }

    #[test]
    fn anything_else_breaks_the_contract() {
        for (answer, words) in [
            ("", "EOF"),
            ("[]", "expected struct"),
            ("{}", "`outcomes` or `refused`"),
            (r#"{"outcomes":[],"refused":[]}"#, "`outcomes` or `refused`"),
            (r#"{"refused":[]}"#, "no problem"),
            (r#"{"outcomes":[],"more":1}"#, "unknown field `more`"),
            (r#"{"outcomes":[]} x"#, "trailing characters"),
            (r#"{"outcomes":[{"seq":-1,"verdict":"accept"}]}"#, "-1"),
            (r#"{"outcomes":[{"seq":4294967296,"verdict":"accept"}]}"#, "4294967296"),
            (r#"{"outcomes":[{"seq":0,"seq":0,"verdict":"accept"}]}"#, "duplicate field"),
            (r#"{"outcomes":[{"seq":0,"verdict":"accept","patch":[]}]}"#, "seq 0 is `accept`, which has nothing"),
            (r#"{"outcomes":[{"seq":0,"verdict":"enrich"}]}"#, "`patch` besides"),
            (r#"{"outcomes":[{"seq":0,"verdict":"maybe"}]}"#, "unknown verdict `maybe`"),
            (r#"{"outcomes":[{"seq":0,"verdict":"enrich","patch":[{"set":"/a"}]}]}"#, "none of `set`"),
            (r#"{"outcomes":[{"seq":0,"verdict":"enrich","patch":[{"header":"a","value":1}]}]}"#, "no text"),
            (r#"{"outcomes":[{"seq":0,"verdict":"retry-later","reason":"x"}]}"#, "`afterMs` and `reason`"),
        ] {
            let text = verdicts(answer);
            assert!(
                text.starts_with("its answer is not of the bytes ABI: ") && text.contains(words),
                "{answer}: {text}"
            );
        }
        let Err(Failure::Fault { kind, .. }) = read(b"{\"outcomes\":[{\"seq\":0,\"verdict\":\"\xff\"}]}") else {
            panic!("read");
        };
        assert_eq!(kind, crate::plugin::FaultKind::Contract);
    }
}
