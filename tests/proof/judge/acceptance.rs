//! What was accepted is there, once (I1, I3), and nothing is there that nobody asked for (I4).

use std::collections::{BTreeMap, BTreeSet};

use super::Case;
use crate::evidence::plain;
use crate::history::{Answer, Request};

pub(super) fn judge(case: &mut Case<'_>) {
    let mut found = Vec::new();
    for post in &case.posts {
        let ids: BTreeSet<String> = post
            .calls
            .iter()
            .filter_map(|call| if let Answer::Accepted(order) = &call.answer { Some(plain(order)) } else { None })
            .collect();
        for id in &ids {
            match case.orders.get(id.as_str()) {
                None => found.push((
                    1,
                    id.clone(),
                    format!("its 202 was sent ({}), and there is no such order", post.serial),
                )),
                Some(order) => {
                    if order.serials.first().map(String::as_str) != Some(post.serial) {
                        found.push((
                            3,
                            id.clone(),
                            format!("the 202 of {} names an order with another body", post.serial),
                        ));
                    }
                    if order.order_key != post.customer {
                        let what = format!("it was posted for {} and stands under {}", post.customer, order.order_key);
                        found.push((1, id.clone(), what));
                    }
                }
            }
        }
        if ids.len() > 1 {
            let what = format!("one request ({}) was answered with {} orders: {ids:?}", post.serial, ids.len());
            found.push((3, ids.first().cloned().unwrap_or_default(), what));
        }
    }
    once_per_key(case, &mut found);
    from_a_post(case, &mut found);
    for (invariant, order, what) in found {
        case.report(invariant, &order, what);
    }
}

/// Of all that was posted under one idempotency key, one order is there.
fn once_per_key(case: &Case<'_>, found: &mut Vec<(u8, String, String)>) {
    let mut by_key: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for order in case.evidence.orders.iter() {
        if let Some(key) = case.post(order).and_then(|post| post.idempotency_key) {
            by_key.entry(key).or_default().insert(&order.id);
        }
    }
    for (key, orders) in by_key {
        if let Some(second) = orders.iter().nth(1) {
            found.push((
                3,
                (*second).to_owned(),
                format!("idempotency key {key} made {} orders: {orders:?}", orders.len()),
            ));
        }
    }
    // Another body under a key that is taken is refused, or was first itself.
    let mut answers: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for post in &case.posts {
        if let (Some(key), Some(order)) = (post.idempotency_key, &post.accepted) {
            answers.entry(key).or_default().insert(order.clone());
        }
    }
    for (key, orders) in answers.into_iter().filter(|(_, orders)| orders.len() > 1) {
        let second = orders.iter().nth(1).cloned().unwrap_or_default();
        found.push((3, second, format!("idempotency key {key} was answered with {orders:?}")));
    }
}

fn from_a_post(case: &Case<'_>, found: &mut Vec<(u8, String, String)>) {
    let revisions = case.revisions();
    let mut of_serial: BTreeMap<&str, &str> = BTreeMap::new();
    for order in case.evidence.orders.iter() {
        let Some(serial) = order.serials.first() else {
            found.push((1, order.id.clone(), "it has no body".to_owned()));
            continue;
        };
        if case.post(order).is_none() {
            found.push((4, order.id.clone(), format!("nobody posted it ({serial})")));
        }
        if let Some(before) = of_serial.insert(serial, &order.id) {
            let was_sent_once =
                case.post(order).is_some_and(|post| post.idempotency_key.is_none() && post.calls.len() > 1);
            if !was_sent_once {
                found.push((3, order.id.clone(), format!("{serial} was posted once and is also order {before}")));
            }
        }
        for revised in order.serials.iter().skip(1) {
            let is_asked = revisions.get(&order.id).is_some_and(|asked| asked.contains(&revised.as_str()));
            if !is_asked {
                found.push((4, order.id.clone(), format!("nobody revised it to {revised}")));
            }
        }
    }
    for call in &case.evidence.calls {
        let of = match &call.request {
            Request::Read { order } | Request::Event { order, .. } => order,
            Request::Revise { order, .. } | Request::Cancel { order } => order,
            Request::Post { .. } => continue,
        };
        if call.answer == Answer::Refused(404) {
            found.push((1, plain(of), "it was accepted, and then somebody was told 404".to_owned()));
        }
    }
}
