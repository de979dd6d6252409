//! The judge: what must hold of a run, whatever was done to it. It looks at evidence only and knows nothing of the faults.
//!
//! | | must hold |
//! |---|---|
//! | I1 | every `202` has its order |
//! | I2 | what the plugins let pass is on its topic, each outcome once, and each refusal has a reason |
//! | I3 | one order per idempotency key |
//! | I4 | nothing is on a topic that nobody ordered; the same id is the same record |
//! | I5 | of one key, first appearances stand in the order of acceptance |
//! | I6 | states follow the declared ways, and a final one stays |
//! | I7 | nobody sees an older version after a newer one; streams leave nothing out |
//! | I8 | cursors move on, each from where it stood, by the slot's owner |
//! | I9 | a poisonous order delays nobody under other keys |
//! | I10 | memory, files and threads stay within limits |
//! | I11 | undisturbed, everything comes to its end and every node is ready |

mod acceptance;
mod delivery;
mod service;
mod status;

pub(crate) use service::{DRAIN_MAX, RESIDENT_BYTES_MAX};

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::evidence::{Evidence, LoggedRecord, StoredOrder, StoredVersion, plain};
use crate::history::{Answer, Call, Request};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) invariant: u8,
    /// The order at fault, where one is.
    pub(crate) order: String,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "I{} order {}: {}", self.invariant, if self.order.is_empty() { "-" } else { &self.order }, self.what)
    }
}

/// The evidence, sorted for looking things up.
struct Case<'a> {
    evidence: &'a Evidence,
    orders: HashMap<&'a str, &'a StoredOrder>,
    /// The log, by id of the record.
    log: HashMap<&'a str, &'a LoggedRecord>,
    versions: BTreeMap<&'a str, Vec<&'a StoredVersion>>,
    posts: Vec<Post<'a>>,
    post_of: HashMap<&'a str, usize>,
    violations: Vec<Violation>,
}

/// All calls of one post: the same serial.
struct Post<'a> {
    serial: &'a str,
    customer: &'a str,
    idempotency_key: Option<&'a str>,
    must_end: &'static [&'static str],
    calls: Vec<&'a Call>,
    /// The order of its `202`, without hyphens.
    accepted: Option<String>,
}

/// Everything that is wrong; nothing, if all is well.
pub(crate) fn judge(evidence: &Evidence) -> Vec<Violation> {
    let mut case = Case::new(evidence);
    acceptance::judge(&mut case);
    delivery::judge(&mut case);
    status::judge(&mut case);
    service::judge(&mut case);
    case.violations.sort();
    case.violations.dedup();
    case.violations
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence) -> Self {
        let mut versions: BTreeMap<&str, Vec<&StoredVersion>> = BTreeMap::new();
        for version in &evidence.versions {
            versions.entry(&version.order).or_default().push(version);
        }
        let (mut posts, mut post_of) = (Vec::<Post<'a>>::new(), HashMap::new());
        for call in &evidence.calls {
            let Request::Post { serial, customer, idempotency_key, must_end } = &call.request else { continue };
            let place = *post_of.entry(serial.as_str()).or_insert_with(|| {
                let (idempotency_key, calls, accepted) = (idempotency_key.as_deref(), Vec::new(), None);
                posts.push(Post { serial, customer, idempotency_key, must_end, calls, accepted });
                posts.len() - 1
            });
            posts[place].calls.push(call);
            if let Answer::Accepted(order) = &call.answer {
                posts[place].accepted.get_or_insert_with(|| plain(order));
            }
        }
        let orders = evidence.orders.iter().map(|order| (order.id.as_str(), order)).collect();
        let log = evidence.log.iter().map(|record| (record.id.as_str(), record)).collect();
        Self { evidence, orders, log, versions, posts, post_of, violations: Vec::new() }
    }

    fn report(&mut self, invariant: u8, order: &str, what: String) {
        self.violations.push(Violation { invariant, order: order.to_owned(), what });
    }

    /// The post that an order came from.
    fn post(&self, order: &StoredOrder) -> Option<&Post<'a>> {
        let place = self.post_of.get(order.serials.first()?.as_str())?;
        self.posts.get(*place)
    }

    /// Serials of the revisions that were asked for, by order.
    fn revisions(&self) -> HashMap<String, Vec<&'a str>> {
        let mut revisions: HashMap<String, Vec<&str>> = HashMap::new();
        for call in &self.evidence.calls {
            if let Request::Revise { order, serial } = &call.request {
                revisions.entry(plain(order)).or_default().push(serial);
            }
        }
        revisions
    }
}
