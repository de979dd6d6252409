//! What a plugin answers.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// What becomes of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The order may pass as it is.
    Accept,
    /// The order may pass with these changes.
    Enrich(Patch),
    /// The order is refused for good. At least one problem.
    Reject(Vec<Problem>),
    /// "Ask me again": the order is held and judged anew.
    RetryLater {
        /// Not before this has passed, in whole milliseconds.
        after: Duration,
        /// Why; the client sees it.
        reason: String,
    },
    /// The plugin itself has failed. The order is held.
    Fault(Fault),
}

/// A plugin's own failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable word for programs.
    pub code: String,
    /// What happened, for the operator.
    pub detail: String,
    /// Whether the same order may do better at another time.
    pub retryable: bool,
}

/// One finding about an order, or about the plugin's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable word for programs, such as `quantity-not-positive`.
    pub code: Cow<'static, str>,
    /// Short text for people, the same for each order.
    pub title: Cow<'static, str>,
    /// What is wrong with this one.
    pub detail: Option<String>,
    /// JSON Pointer (RFC 6901) to the member at fault.
    pub pointer: Option<String>,
}

/// One change of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchOp {
    /// Creates or replaces a member, or appends to an array with `-`; missing objects on the way are created.
    Set {
        /// JSON Pointer (RFC 6901) to the member.
        pointer: String,
        /// The JSON of the new value.
        value: Vec<u8>,
    },
    /// Removes a member.
    Remove {
        /// JSON Pointer (RFC 6901) to the member.
        pointer: String,
    },
    /// Gives the order's record a header.
    Header {
        /// Name of the header.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Changes of an order, applied in this sequence. All else keeps its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// The changes.
    pub ops: Vec<PatchOp>,
}

impl Verdict {
    /// The pointers of a rejection's problems, for tests.
    #[must_use]
    pub fn pointers(&self) -> Vec<&str> {
        match self {
            Self::Reject(problems) => problems.iter().filter_map(|problem| problem.pointer.as_deref()).collect(),
            _ => Vec::new(),
        }
    }
}

impl From<Problem> for Verdict {
    fn from(problem: Problem) -> Self {
        Self::Reject(vec![problem])
    }
}

impl From<Patch> for Verdict {
    /// Enriches, or accepts where there is nothing to change.
    fn from(patch: Patch) -> Self {
        if patch.ops.is_empty() { Self::Accept } else { Self::Enrich(patch) }
    }
}

impl Problem {
    /// A problem without detail and pointer.
    #[must_use]
    pub fn new(code: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), title: title.into(), detail: None, pointer: None }
    }

    /// Says what is wrong with this order.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Names the member at fault by its JSON Pointer (RFC 6901).
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }
}

impl Patch {
    /// No change.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates or replaces a member, or appends to an array with `-`; missing objects on the way are created.
    ///
    /// # Panics
    ///
    /// If `value` has no JSON form, such as a map whose keys are no strings.
    #[must_use]
    pub fn set(mut self, pointer: impl Into<String>, value: &(impl Serialize + ?Sized)) -> Self {
        let value = serde_json::to_vec(value).expect("the value has a JSON form");
        self.ops.push(PatchOp::Set { pointer: pointer.into(), value });
        self
    }

    /// Removes a member.
    #[must_use]
    pub fn remove(mut self, pointer: impl Into<String>) -> Self {
        self.ops.push(PatchOp::Remove { pointer: pointer.into() });
        self
    }

    /// Gives the order's record a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.ops.push(PatchOp::Header { name: name.into(), value: value.into() });
        self
    }
}
