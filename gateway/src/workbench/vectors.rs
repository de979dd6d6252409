//! Test vectors: orders in a file, each with the verdict that is expected for it.
//!
//! Each vector is judged twice through the gateway's own host: alone, and in one batch with all others of its
//! configuration. Both must give what is expected, and the same.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::compare::differences;
use super::desk::{Desk, candidate, verdict};
use crate::order::Problem;
use crate::plugin::{Candidate, Decision, PluginSource};

/// One line of a file of vectors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    pub name: String,
    order: Box<RawValue>,
    #[serde(default = "first")]
    attempt: u32,
    /// Instead of the project's sample.
    config: Option<Box<RawValue>>,
    expect: Expected,
    #[serde(skip)]
    line: usize,
}

fn first() -> u32 {
    1
}

/// What is expected; what is absent is not compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: Word,
    /// The order as patched.
    order: Option<Box<RawValue>>,
    headers: Option<BTreeMap<String, String>>,
    problems: Option<Vec<ExpectedProblem>>,
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    Accept,
    Enrich,
    Reject,
    RetryLater,
    Fault,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedProblem {
    code: String,
    title: Option<String>,
    detail: Option<String>,
    pointer: Option<String>,
}

/// A vector that did not come out as expected.
#[derive(Debug)]
pub struct Miss {
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// What differs, for people, one a line.
    pub findings: Vec<String>,
}

/// Reads a file of vectors.
///
/// # Errors
///
/// It cannot be read, has no vector, or a line is none: which and why.
pub fn read(path: &Path) -> anyhow::Result<Vec<Vector>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut vectors: Vec<Vector> = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let mut vector: Vector = serde_json::from_str(text)
            .with_context(|| format!("line {line} of {} is no test vector", path.display()))?;
        vector.line = line;
        vectors.push(vector);
    }
    if vectors.is_empty() {
        bail!("{} has no test vector", path.display());
    }
    Ok(vectors)
}

/// Judges all vectors with a plugin; its configuration is that of vectors that bring none.
///
/// # Errors
///
/// The plugin cannot be used, whatever it is configured with.
pub fn run(desk: &Desk, source: &PluginSource, vectors: &[Vector]) -> anyhow::Result<Vec<Miss>> {
    let mut groups: Vec<(Vec<u8>, Vec<&Vector>)> = Vec::new();
    for vector in vectors {
        let config = vector.config.as_ref().map_or_else(|| source.config_json.clone(), |raw| raw.get().into());
        match groups.iter_mut().find(|(own, _)| *own == config) {
            Some((_, group)) => group.push(vector),
            None => groups.push((config, vec![vector])),
        }
    }
    let mut misses = Vec::new();
    for (config_json, group) in groups {
        let is_own = config_json == source.config_json;
        match desk.load(PluginSource { config_json, ..source.clone() }) {
            Ok(plugin) => desk.seat(vec![plugin]),
            Err(error) if is_own => return Err(error.into()),
            Err(error) => {
                let missed = |vector: &&Vector| vector.missed(vec![error.to_string()]);
                misses.extend(group.iter().map(missed));
                continue;
            }
        }
        let orders: Vec<Candidate> = group.iter().map(|vector| vector.candidate()).collect();
        let together = desk.judge(orders.clone());
        for ((vector, order), together) in group.iter().zip(orders).zip(together) {
            let alone = desk.judge(vec![order]).remove(0);
            let mut findings = vector.findings(&alone.decision);
            if !is_same(&alone.decision, &together.decision) {
                let (alone, together) = (told(&alone.decision), told(&together.decision));
                findings.push(format!("alone it gives {alone}, in a batch with the others {together}"));
            }
            if !findings.is_empty() {
                misses.push(vector.missed(findings));
            }
        }
    }
    misses.sort_by_key(|miss| miss.line);
    Ok(misses)
}

impl Vector {
    /// Its order, as it stands in the file.
    #[must_use]
    pub fn order(&self) -> Bytes {
        Bytes::copy_from_slice(self.order.get().as_bytes())
    }

    fn candidate(&self) -> Candidate {
        candidate(self.line, self.attempt, self.order())
    }

    fn missed(&self, findings: Vec<String>) -> Miss {
        Miss { name: self.name.clone(), line: self.line, findings }
    }

    /// In what a decision is not as expected.
    fn findings(&self, decision: &Decision) -> Vec<String> {
        let expected = &self.expect;
        if verdict(decision) != expected.verdict.as_str() {
            return vec![format!("expected {}, found {}", expected.verdict.as_str(), told(decision))];
        }
        let mut findings = Vec::new();
        match decision {
            Decision::Pass { body, headers, .. } => {
                if let Some(order) = &expected.order {
                    findings.extend(differ("order", order.get().as_bytes(), body));
                }
                if let Some(expected) = &expected.headers {
                    let found: BTreeMap<&str, &str> =
                        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                    let json = |map| serde_json::to_vec(map).unwrap_or_default();
                    findings.extend(differ("headers", &json(&expected.iter().map(borrowed).collect()), &json(&found)));
                }
            }
            Decision::Reject(problems) => {
                if let Some(expected) = &expected.problems
                    && !are_as_expected(expected, problems)
                {
                    let expected: Vec<String> = expected.iter().map(ExpectedProblem::told).collect();
                    let found: Vec<String> = problems.iter().map(told_problem).collect();
                    findings.push(format!("expected the problems\n  {}", expected.join("\n  ")));
                    findings.push(format!("found the problems\n  {}", found.join("\n  ")));
                }
            }
            Decision::Later { reason, .. } => {
                if let Some(expected) = expected.reason.as_ref().filter(|expected| *expected != reason) {
                    findings.push(format!("expected the reason {expected:?}, found {reason:?}"));
                }
            }
            Decision::Fault { .. } => {}
        }
        findings
    }
}

fn borrowed<'a>((name, value): (&'a String, &'a String)) -> (&'a str, &'a str) {
    (name, value)
}

/// `-` is what was expected and is missing, `+` what was found and not expected.
fn differ(what: &str, expected: &[u8], found: &[u8]) -> Vec<String> {
    match differences(expected, found) {
        Ok(differences) if differences.is_empty() => Vec::new(),
        Ok(differences) => {
            let lines: Vec<String> = differences.iter().map(|difference| format!("  {difference}")).collect();
            vec![format!("{what}, from expected to found:\n{}", lines.join("\n"))]
        }
        Err(error) => vec![format!("{what}: {error}")],
    }
}

fn are_as_expected(expected: &[ExpectedProblem], found: &[Problem]) -> bool {
    let agrees = |expected: &Option<String>, found: Option<&String>| expected.is_none() || expected.as_ref() == found;
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| {
            expected.code == found.code
                && agrees(&expected.title, Some(&found.title))
                && agrees(&expected.detail, found.detail.as_ref())
                && agrees(&expected.pointer, found.pointer.as_ref())
        })
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Enrich => "enrich",
            Self::Reject => "reject",
            Self::RetryLater => "retry-later",
            Self::Fault => "fault",
        }
    }
}

impl ExpectedProblem {
    fn told(&self) -> String {
        match &self.pointer {
            Some(pointer) => format!("{} at {pointer}", self.code),
            None => self.code.clone(),
        }
    }
}

/// A problem on a line.
#[must_use]
pub fn told_problem(problem: &Problem) -> String {
    let place = problem.pointer.as_ref().map_or_else(String::new, |pointer| format!(" at {pointer}"));
    let detail = problem.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
    format!("{}{place} ({}{detail})", problem.code, problem.title)
}

/// A decision in a few words.
#[must_use]
pub fn told(decision: &Decision) -> String {
    let word = verdict(decision);
    match decision {
        Decision::Pass { body, .. } if word == "enrich" => format!("enrich to {}", String::from_utf8_lossy(body)),
        Decision::Pass { .. } => word.to_owned(),
        Decision::Reject(problems) => {
            let problems: Vec<String> = problems.iter().map(told_problem).collect();
            format!("{word}: {}", problems.join("; "))
        }
        Decision::Later { reason, after, .. } => format!("{word} in {} ms: {reason}", after.as_millis()),
        Decision::Fault { kind, detail, .. } => format!("{word} ({}): {detail}", kind.as_str()),
    }
}

/// Whether two decisions mean the same; how a fault is worded depends on where it struck.
fn is_same(left: &Decision, right: &Decision) -> bool {
    match (left, right) {
        (Decision::Fault { kind: left, .. }, Decision::Fault { kind: right, .. }) => left == right,
        (left, right) => left == right,
    }
}
