//! How states follow each other (I6), and what clients saw of it (I7).

use std::collections::{BTreeMap, HashMap, HashSet};

use harness::orders::REFUSED;

use super::Case;
use crate::evidence::plain;
use crate::history::{Answer, Moment, Request};

/// What may follow what. Written a second time here, without a look at the gateway's own table.
const WAYS: [(&str, &[&str]); 7] = [
    ("PENDING", &["PENDING", "HELD", "PUBLISHED", "REJECTED", "CANCELLED"]),
    ("HELD", &["HELD", "PENDING", "REJECTED", "CANCELLED"]),
    ("PUBLISHED", &["PUBLISHED", "VALIDATED", "REJECTED", "EXPIRED", "CANCELLED"]),
    ("VALIDATED", &[]),
    ("REJECTED", &[]),
    ("EXPIRED", &[]),
    ("CANCELLED", &[]),
];

type Found = Vec<(u8, String, String)>;

pub(super) fn judge(case: &mut Case<'_>) {
    let mut found = Vec::new();
    states_follow_the_ways(case, &mut found);
    ends_are_the_right_ones(case, &mut found);
    nobody_sees_an_older_version(case, &mut found);
    streams_leave_nothing_out(case, &mut found);
    for (invariant, order, what) in found {
        case.report(invariant, &order, what);
    }
}

fn states_follow_the_ways(case: &Case<'_>, found: &mut Found) {
    for order in &case.evidence.orders {
        let versions = case.versions.get(order.id.as_str()).map_or(&[][..], Vec::as_slice);
        for (place, version) in versions.iter().enumerate() {
            if version.version != place as u64 + 1 {
                let what = format!("its {}. version has the number {}", place + 1, version.version);
                found.push((6, order.id.clone(), what));
            }
            let Some(before) = place.checked_sub(1).map(|before| versions[before]) else {
                if version.status != "PENDING" {
                    found.push((6, order.id.clone(), format!("it begins {}", version.status)));
                }
                continue;
            };
            let ways = WAYS.iter().find(|(from, _)| *from == before.status).map_or(&[][..], |(_, to)| to);
            if before.is_final || !ways.contains(&version.status.as_str()) {
                let word = if before.is_final { "final " } else { "" };
                let what = format!("version {}: from {word}{} to {}", version.version, before.status, version.status);
                found.push((6, order.id.clone(), what));
            }
        }
        let last = versions.last().map(|last| (last.version, last.status.as_str(), last.is_final));
        if last != Some((order.version, order.status.as_str(), order.is_final)) {
            let what =
                format!("it is {} at version {}, and its history ends with {last:?}", order.status, order.version);
            found.push((6, order.id.clone(), what));
        }
    }
}

/// Who was not cancelled or revised ends as the rules say; those two may have been too late.
fn ends_are_the_right_ones(case: &Case<'_>, found: &mut Found) {
    let cancelled: HashSet<String> = case
        .evidence
        .calls
        .iter()
        .filter_map(|call| if let Request::Cancel { order } = &call.request { Some(plain(order)) } else { None })
        .collect();
    for order in case.evidence.orders.iter().filter(|order| order.is_final) {
        let Some(post) = case.post(order) else { continue };
        let was_revised = order.serials.len() > 1;
        let of_revision = if post.customer == REFUSED { "REJECTED" } else { "VALIDATED" };
        let status = order.status.as_str();
        let is_right = post.must_end.contains(&status)
            || (status == "CANCELLED" && cancelled.contains(&order.id))
            || (was_revised && status == of_revision);
        if !is_right {
            found.push((6, order.id.clone(), format!("it is {status} and had to become {:?}", post.must_end)));
        }
    }
}

fn nobody_sees_an_older_version(case: &Case<'_>, found: &mut Found) {
    let mut seen: HashMap<String, Vec<(Moment, Moment, u64)>> = HashMap::new();
    for call in &case.evidence.calls {
        let (order, version) = match (&call.request, &call.answer) {
            (Request::Read { order }, Answer::Seen { version, .. }) => (order, *version),
            // A stream tells old versions late; when it did, the order had at least this one.
            (Request::Event { order, .. }, Answer::Seen { version, .. }) => {
                seen.entry(plain(order)).or_default().push((Moment(u64::MAX), call.answered, *version));
                continue;
            }
            _ => continue,
        };
        seen.entry(plain(order)).or_default().push((call.sent, call.answered, version));
    }
    for (id, node, version) in &case.evidence.looks {
        let id = plain(id);
        let newest = seen.get(&id).into_iter().flatten().map(|(.., version)| *version).max().unwrap_or(0);
        if *version < newest {
            found.push((7, id, format!("node {node} shows version {version}, and somebody saw {newest}")));
        }
    }
    for (id, looks) in seen {
        for (sent, _, version) in &looks {
            // The newest that anybody had seen before this was asked.
            let before = looks.iter().filter(|(_, answered, _)| answered < sent && sent.0 != u64::MAX);
            let newest = before.map(|(.., version)| *version).max().unwrap_or(0);
            if *version < newest {
                found.push((7, id.clone(), format!("somebody saw version {newest}, and later somebody {version}")));
            }
        }
    }
}

fn streams_leave_nothing_out(case: &Case<'_>, found: &mut Found) {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for call in &case.evidence.calls {
        let (Request::Event { order, stream }, Answer::Seen { version, is_reset }) = (&call.request, &call.answer)
        else {
            continue;
        };
        if let Some(before) = last.insert(*stream, *version)
            && *version != before + 1
            && !is_reset
        {
            found.push((7, plain(order), format!("stream {stream} goes from version {before} to {version}")));
        }
    }
}
