//! What a verdict amounts to: the words of the contract made into the gateway's, checked on the way.

use std::sync::Arc;
use std::time::Duration;

use super::call::{self, Verdict};
use super::limits::Limits;
use super::{Decision, FaultKind};
use crate::order::patch::{PatchError, PatchOp};
use crate::order::{Problem, Source};

/// Headers that are the gateway's own.
const RESERVED_HEADERS: [&str; 4] = ["content-type", "datacontenttype", "traceparent", "tracestate"];
const RESERVED_PREFIXES: [&str; 3] = ["ce_", "ce-", "sluice-"];

/// Most characters of a header's name.
const HEADER_NAME_MAX: usize = 255;

/// An answer about one order.
pub(super) enum Answer {
    /// The order goes on, with these changes and headers.
    GoesOn {
        patch: Vec<PatchOp>,
        headers: Vec<(String, String)>,
    },
    Ends(Decision),
}

impl Answer {
    /// A fault of this plugin on this order.
    pub(super) fn fault(plugin: &Arc<str>, kind: FaultKind, detail: String) -> Self {
        Self::Ends(Decision::Fault { plugin: Arc::clone(plugin), kind, detail })
    }

    /// The word for timelines and metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::GoesOn { patch, headers } if patch.is_empty() && headers.is_empty() => "accept",
            Self::GoesOn { .. } | Self::Ends(Decision::Pass { .. }) => "enrich",
            Self::Ends(Decision::Reject(_)) => "reject",
            Self::Ends(Decision::Later { .. }) => "retry-later",
            Self::Ends(Decision::Fault { .. }) => "fault",
        }
    }
}

/// Reads an outcome.
pub(super) fn read(outcome: call::Outcome, plugin: &Arc<str>, limits: &Limits) -> Answer {
    let contract = |detail: String| Answer::fault(plugin, FaultKind::Contract, detail);
    match outcome.verdict {
        Ok(Verdict::Accept) => Answer::GoesOn { patch: Vec::new(), headers: Vec::new() },
        Ok(Verdict::Enrich(ops)) => match changes(ops, limits) {
            Ok((patch, headers)) => Answer::GoesOn { patch, headers },
            Err(detail) => contract(detail),
        },
        Ok(Verdict::Reject(problems)) if problems.is_empty() => contract("it refused without a problem".to_owned()),
        Ok(Verdict::Reject(problems)) => {
            let is_pointer = |pointer: &String| {
                (pointer.is_empty() || pointer.starts_with('/')) && pointer.len() <= limits.text_bytes_max
            };
            let problem = |problem: super::host::bindings::sluice::plugin::types::Problem| Problem {
                code: shown(problem.code, limits),
                title: shown(problem.title, limits),
                detail: problem.detail.map(|detail| shown(detail, limits)),
                pointer: problem.pointer.filter(is_pointer),
                source: Source::Plugin,
            };
            Answer::Ends(Decision::Reject(problems.into_iter().take(limits.problems_max).map(problem).collect()))
        }
        Ok(Verdict::RetryLater(retry)) => {
            let after = Duration::from_millis(u64::from(retry.after_ms));
            let reason = shown(retry.reason, limits);
            Answer::Ends(Decision::Later { plugin: Arc::clone(plugin), reason, after })
        }
        Ok(Verdict::Other(extension)) => contract(format!("it gave the unknown verdict `{}`", extension.name)),
        Err(fault) => Answer::fault(plugin, FaultKind::Reported, format!("{}: {}", fault.code, fault.detail)),
    }
}

/// A text as clients see it: cut where it is long.
pub(super) fn shown(mut text: String, limits: &Limits) -> String {
    if text.len() > limits.text_bytes_max {
        text.truncate(text.floor_char_boundary(limits.text_bytes_max));
        text.push('…');
    }
    text
}

type Changes = (Vec<PatchOp>, Vec<(String, String)>);

fn changes(ops: Vec<call::PatchOp>, limits: &Limits) -> Result<Changes, String> {
    if ops.len() > limits.patch_operations_max {
        return Err(format!("its patch has {} operations, more than {}", ops.len(), limits.patch_operations_max));
    }
    let bytes: usize = ops.iter().map(size).sum();
    if bytes > limits.patch_bytes_max {
        return Err(format!("its patch has {bytes} bytes, more than {}", limits.patch_bytes_max));
    }
    let text = |error: PatchError| error.to_string();
    let (mut patch, mut headers) = (Vec::new(), Vec::<(String, String)>::new());
    for op in ops {
        match op {
            call::PatchOp::Set((pointer, value)) => {
                let op = PatchOp::set(pointer, &value).map_err(text)?;
                limits.patch_paths.check(&op)?;
                patch.push(op);
            }
            call::PatchOp::Remove(pointer) => {
                let op = PatchOp::remove(pointer).map_err(text)?;
                limits.patch_paths.check(&op)?;
                patch.push(op);
            }
            call::PatchOp::Header((name, value)) => {
                check_header(&name)?;
                headers.push((name, value));
            }
        }
    }
    Ok((patch, headers))
}

/// How large an outcome is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) operations: usize,
    pub(super) patch_bytes: usize,
    /// Of all its texts.
    pub(super) answer_bytes: usize,
}

pub(super) fn size_of(outcome: &call::Outcome) -> Size {
    let ops = match &outcome.verdict {
        Ok(Verdict::Enrich(ops)) => ops.as_slice(),
        _ => &[],
    };
    let patch_bytes = ops.iter().map(size).sum();
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let answer_bytes = match &outcome.verdict {
        Ok(Verdict::Accept) => 0,
        Ok(Verdict::Enrich(_)) => patch_bytes,
        Ok(Verdict::Reject(problems)) => problems
            .iter()
            .map(|problem| {
                problem.code.len() + problem.title.len() + optional(&problem.detail) + optional(&problem.pointer)
            })
            .sum(),
        Ok(Verdict::RetryLater(retry)) => retry.reason.len(),
        Ok(Verdict::Other(extension)) => extension.name.len() + extension.data.len(),
        Err(fault) => fault.code.len() + fault.detail.len(),
    };
    Size { operations: ops.len(), patch_bytes, answer_bytes }
}

fn size(op: &call::PatchOp) -> usize {
    match op {
        call::PatchOp::Set((pointer, value)) => pointer.len() + value.len(),
        call::PatchOp::Remove(pointer) => pointer.len(),
        call::PatchOp::Header((name, value)) => name.len() + value.len(),
    }
}

fn check_header(name: &str) -> Result<(), String> {
    let is_word = !name.is_empty()
        && name.len() <= HEADER_NAME_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_word {
        return Err(format!("`{}` is no name for a header: letters, digits, - _ .", name.escape_debug()));
    }
    let lower = name.to_ascii_lowercase();
    let is_reserved =
        RESERVED_HEADERS.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
    if is_reserved { Err(format!("the header `{name}` is the gateway's own")) } else { Ok(()) }
}
