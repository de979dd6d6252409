//! What went out (I2, I4) and in which order (I5).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use harness::broker::Seen;

use super::Case;
use crate::evidence::{plain, serial_of};
use crate::history::Moment;

pub(super) fn judge(case: &mut Case<'_>) {
    let mut found = Vec::new();
    each_passed_order_is_out(case, &mut found);
    each_outcome_is_out_once(case, &mut found);
    for topic in [&case.evidence.orders_topic, &case.evidence.outcomes_topic] {
        the_same_id_is_the_same_record(topic, &mut found);
    }
    each_record_was_ordered(case, &mut found);
    the_log_has_no_gaps(case, &mut found);
    each_key_is_in_order(case, &mut found);
    for (invariant, order, what) in found {
        case.report(invariant, &order, what);
    }
}

type Found = Vec<(u8, String, String)>;

fn order_of(seen: &Seen) -> String {
    plain(seen.header("ce_subject"))
}

fn each_passed_order_is_out(case: &Case<'_>, found: &mut Found) {
    let out: BTreeSet<String> = case.evidence.orders_topic.iter().map(order_of).collect();
    for order in &case.evidence.orders {
        let was_published = ["PUBLISHED", "VALIDATED", "EXPIRED"].contains(&order.status.as_str());
        if (was_published || order.has_record) && !out.contains(&order.id) && !order.is_dead {
            found.push((2, order.id.clone(), format!("it is {} and no record of it is on the topic", order.status)));
        }
        if order.status == "REJECTED" && !order.has_reason {
            found.push((2, order.id.clone(), "it is REJECTED without a reason".to_owned()));
        }
    }
}

fn each_outcome_is_out_once(case: &Case<'_>, found: &mut Found) {
    let mut outcomes: BTreeMap<String, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for seen in &case.evidence.outcomes_topic {
        outcomes.entry(order_of(seen)).or_default().insert((seen.header("ce_id"), seen.header("ce_type")));
    }
    for order in &case.evidence.orders {
        let expected = match order.status.as_str() {
            _ if !order.is_final || !order.has_record => None,
            "VALIDATED" => Some("OrderValidated"),
            "REJECTED" => Some("OrderRejected"),
            "EXPIRED" => Some("OrderExpired"),
            "CANCELLED" => Some("OrderCancelled"),
            _ => None,
        };
        let told: Vec<&str> = outcomes.get(&order.id).into_iter().flatten().map(|(_, kind)| *kind).collect();
        let wanted: Vec<&str> = expected.into_iter().collect();
        if told != wanted {
            found.push((
                2,
                order.id.clone(),
                format!("it is {}, and its outcomes are {told:?}, not {wanted:?}", order.status),
            ));
        }
    }
}

fn the_same_id_is_the_same_record(topic: &[Seen], found: &mut Found) {
    let mut first: HashMap<&str, &Seen> = HashMap::new();
    for seen in topic {
        match first.get(seen.header("ce_id")) {
            None => {
                first.insert(seen.header("ce_id"), seen);
            }
            Some(before) => {
                let same = Seen { offset: before.offset, ..seen.clone() };
                if same != **before {
                    let what = format!(
                        "record {} at {}/{} is another one than at {}/{}",
                        seen.header("ce_id"),
                        seen.partition,
                        seen.offset,
                        before.partition,
                        before.offset
                    );
                    found.push((4, order_of(seen), what));
                }
            }
        }
    }
}

/// A record is of an order, of one of its bodies, with its key, and is what the log says.
fn each_record_was_ordered(case: &Case<'_>, found: &mut Found) {
    let mut ids: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (seen, is_outcome) in case
        .evidence
        .orders_topic
        .iter()
        .map(|seen| (seen, false))
        .chain(case.evidence.outcomes_topic.iter().map(|seen| (seen, true)))
    {
        let (id, place) = (order_of(seen), format!("{}/{}", seen.partition, seen.offset));
        let Some(order) = case.orders.get(id.as_str()) else {
            found.push((4, id, format!("the record at {place} is of an order that is not there")));
            continue;
        };
        if seen.key != order.order_key.as_bytes() {
            found.push((
                4,
                id.clone(),
                format!("the record at {place} has the key {:?}", String::from_utf8_lossy(&seen.key)),
            ));
        }
        if !is_outcome {
            ids.entry(id.clone()).or_default().insert(seen.header("ce_id"));
            let serial = serial_of(&seen.value);
            if !order.serials.contains(&serial) {
                found.push((4, id.clone(), format!("the record at {place} has the body of {serial:?}")));
            }
        }
        match case.log.get(seen.header("ce_id")) {
            Some(logged) if logged.value != seen.value || logged.key != seen.key || logged.order != id => {
                found.push((
                    4,
                    id,
                    format!(
                        "the record at {place} is not what slot {} number {} of the log says",
                        logged.slot, logged.number
                    ),
                ));
            }
            None if case.evidence.log_is_whole => {
                found.push((4, id, format!("the record at {place}, {}, is not in the log", seen.header("ce_id"))));
            }
            _ => {}
        }
    }
    for (id, records) in ids {
        let redrives = case.orders.get(id.as_str()).map_or(0, |order| order.redrives);
        if records.len() as u64 > redrives + 1 {
            found.push((4, id, format!("it has {} records with ids of their own: {records:?}", records.len())));
        }
    }
}

/// The owner numbers the records of its slot without gaps, and all of them are on a topic.
fn the_log_has_no_gaps(case: &Case<'_>, found: &mut Found) {
    if !case.evidence.log_is_whole {
        return;
    }
    let topics = case.evidence.orders_topic.iter().chain(&case.evidence.outcomes_topic);
    let out: BTreeSet<&str> = topics.map(|seen| seen.header("ce_id")).collect();
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for record in &case.evidence.log {
        let before = last.insert(record.slot, record.number).unwrap_or(0);
        if record.number != before + 1 {
            let what = format!("slot {} goes from record {before} to {}", record.slot, record.number);
            found.push((2, record.order.clone(), what));
        }
        let is_dead = case.orders.get(record.order.as_str()).is_some_and(|order| order.is_dead);
        if !out.contains(record.id.as_str()) && !is_dead {
            let what = format!("record {} of slot {} number {} is on no topic", record.id, record.slot, record.number);
            found.push((2, record.order.clone(), what));
        }
    }
}

/// First appearances of each key, in the order of its partition.
fn each_key_is_in_order(case: &Case<'_>, found: &mut Found) {
    let mut seen_ids = BTreeSet::new();
    let mut keys: BTreeMap<&[u8], Vec<&Seen>> = BTreeMap::new();
    let mut topic: Vec<&Seen> = case.evidence.orders_topic.iter().collect();
    topic.sort_by_key(|seen| (seen.partition, seen.offset));
    for seen in topic {
        if seen_ids.insert(seen.header("ce_id")) {
            keys.entry(&seen.key).or_default().push(seen);
        }
    }
    for (key, records) in keys {
        let key = String::from_utf8_lossy(key).into_owned();
        if records.iter().any(|seen| seen.partition != records[0].partition) {
            found.push((5, order_of(records[0]), format!("records of key {key} are in several partitions")));
        }
        as_in_the_log(case, &key, &records, found);
        as_accepted(case, &key, &records, found);
    }
}

fn as_in_the_log(case: &Case<'_>, key: &str, records: &[&Seen], found: &mut Found) {
    let number_of = |seen: &Seen| {
        let logged = case.log.get(seen.header("ce_id"))?;
        Some((logged.slot, logged.number))
    };
    let mut highest = None::<((i64, i64), String)>;
    for seen in records {
        let Some(number) = number_of(seen) else { continue };
        match &highest {
            Some((before, other)) if *before > number => {
                let what = format!("key {key}: it stands before {other} in the log and behind it on the topic");
                found.push((5, order_of(seen), what));
            }
            _ => highest = Some((number, order_of(seen))),
        }
    }
}

/// Nobody stands behind one that was sent after its own `202`.
fn as_accepted(case: &Case<'_>, key: &str, records: &[&Seen], found: &mut Found) {
    let mut latest = None::<(Moment, String)>;
    for seen in records {
        let id = order_of(seen);
        // An operator's redrive takes a new place.
        let Some(order) = case.orders.get(id.as_str()).filter(|order| order.redrives == 0) else { continue };
        let Some((sent, accepted)) = case.post(order).and_then(times) else { continue };
        match &latest {
            Some((before, other)) if accepted < *before => {
                let what = format!("key {key}: it was accepted before {other} was sent, and stands behind it");
                found.push((5, id, what));
            }
            Some((before, _)) if sent <= *before => {}
            _ => latest = Some((sent, id)),
        }
    }
}

/// When a post was first sent, and when the first `202` of it was read.
fn times(post: &super::Post<'_>) -> Option<(Moment, Moment)> {
    let sent = post.calls.iter().map(|call| call.sent).min()?;
    let is_accepted = |call: &&&crate::history::Call| matches!(call.answer, crate::history::Answer::Accepted(_));
    let accepted = post.calls.iter().filter(is_accepted).map(|call| call.answered).min();
    // Never accepted as far as its client knows: it may have been at any time.
    Some((sent, accepted.unwrap_or(Moment(u64::MAX))))
}
