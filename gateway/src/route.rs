//! What a route's configuration means for the orders on it: which replies are required, whether outcomes are told.
//!
//! Pure. The judging of a set of replies is here as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The rules of all routes, by path.
pub type Rules = HashMap<Arc<str>, RouteRules>;

/// What holds for the orders of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteRules {
    /// Absent: an order is final as soon as it is published.
    pub replies: Option<ReplyRules>,
    /// Whether final states are announced on a topic of outcomes.
    pub has_outcomes: bool,
}

/// Which replies make the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyRules {
    pub topic: String,
    /// All of these make the order VALIDATED.
    pub all_of: Vec<String>,
    /// Any of these makes it REJECTED.
    pub any_of_rejects: Vec<String>,
    /// From the commit that records PUBLISHED.
    pub deadline: Duration,
    /// How long after the deadline the ends of the reply partitions are asked for.
    pub grace: Duration,
}

/// What a set of replies amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Validated,
    Rejected,
}

impl ReplyRules {
    /// Whether a reply of this kind counts at all.
    #[must_use]
    pub fn asks_for(&self, kind: &str) -> bool {
        self.is_refusal(kind) || self.all_of.iter().any(|wanted| wanted == kind)
    }

    /// Whether a reply of this kind is a refusal.
    #[must_use]
    pub fn is_refusal(&self, kind: &str) -> bool {
        self.any_of_rejects.iter().any(|refusal| refusal == kind)
    }

    /// The verdict over all replies that count, or `None` while some are missing. Among them a refusal wins.
    #[must_use]
    pub fn judge<'a>(&self, kinds: impl Iterator<Item = &'a str> + Clone) -> Option<Verdict> {
        if kinds.clone().any(|kind| self.is_refusal(kind)) {
            return Some(Verdict::Rejected);
        }
        let is_complete = self.all_of.iter().all(|wanted| kinds.clone().any(|kind| kind == wanted));
        is_complete.then_some(Verdict::Validated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ReplyRules {
        ReplyRules {
            topic: "order-replies".to_owned(),
            all_of: vec!["A".to_owned(), "B".to_owned()],
            any_of_rejects: vec!["NotA".to_owned(), "NotB".to_owned()],
            deadline: Duration::from_secs(30),
            grace: Duration::from_secs(5),
        }
    }

    #[test]
    fn the_verdict_depends_only_on_the_set() {
        for (kinds, expected) in [
            (&[] as &[&str], None),
            (&["A"], None),
            (&["A", "A"], None),
            (&["A", "B"], Some(Verdict::Validated)),
            (&["B", "A", "B"], Some(Verdict::Validated)),
            (&["NotA"], Some(Verdict::Rejected)),
            (&["A", "B", "NotB"], Some(Verdict::Rejected)),
            (&["Unasked"], None),
        ] {
            let rules = rules();
            assert_eq!(rules.judge(kinds.iter().copied()), expected, "{kinds:?}");
            assert_eq!(rules.judge(kinds.iter().rev().copied()), expected, "{kinds:?} reversed");
        }
    }
}
