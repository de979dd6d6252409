//! What must hold after all the kills.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use harness::TestGateway;
use harness::broker::Seen;
use harness::environment::say;

use super::client::Posted;

/// A request that was sent again is one order, and nobody has an order that nobody sent.
pub(super) fn each_request_made_one_order(gateway: &TestGateway, posted: &[Posted]) {
    let ids: BTreeSet<&str> = posted.iter().map(|posted| posted.id.as_str()).collect();
    assert_eq!(ids.len(), posted.len(), "two requests got one order");
    let lost = posted.iter().filter(|posted| posted.lost > 0).count();
    say(&format!("crash test: {} orders, {lost} of them sent again after a lost answer", posted.len()));
    assert_eq!(gateway.database().orders(), posted.len() as u64, "orders that no request was answered with");

    let customers: BTreeSet<&str> = posted.iter().map(|posted| posted.customer.as_str()).collect();
    for customer in customers {
        let (mut listed, mut next) = (BTreeSet::new(), String::new());
        loop {
            let page = gateway.get(&format!("/orders?key={customer}&limit=500{next}")).json();
            for order in page["orders"].as_array().expect("a page has orders") {
                assert!(listed.insert(order["id"].as_str().expect("orders have ids").to_owned()), "listed twice");
            }
            match page["next"].as_str() {
                Some(cursor) => next = format!("&after={cursor}"),
                None => break,
            }
        }
        let expected: BTreeSet<String> =
            posted.iter().filter(|posted| posted.customer == customer).map(|posted| posted.id.clone()).collect();
        assert_eq!(listed, expected, "orders of {customer}");
    }
}

/// Every `202` has come to its end, and to the right one.
pub(super) fn each_order_is_final(gateway: &TestGateway, posted: &[Posted]) {
    for posted in posted {
        let order = gateway.order(&posted.id);
        assert_eq!((&order["status"], &order["final"]), (&"VALIDATED".into(), &true.into()), "{order}");
    }
}

/// The topic has every order, repeats are the same record, and each key is in the order of acceptance.
pub(super) fn topic_is_right(records: &[Seen], posted: &[Posted]) {
    let by_id: HashMap<&str, &Posted> = posted.iter().map(|posted| (posted.id.as_str(), posted)).collect();
    let mut first: BTreeMap<&str, &Seen> = BTreeMap::new();
    let mut event_of: HashMap<&str, &str> = HashMap::new();
    // Orders in the order of their first appearance, per key; a key is in one partition.
    let mut appeared: BTreeMap<&[u8], Vec<&Posted>> = BTreeMap::new();
    let mut repeats = 0;
    for seen in records {
        let (event, order) = (seen.header("ce_id"), seen.header("ce_subject"));
        let posted = by_id.get(order).unwrap_or_else(|| panic!("a record of an order that nobody posted: {seen:?}"));
        assert_eq!(seen.key, posted.customer.as_bytes(), "key of {order}");
        assert_eq!(*event_of.entry(order).or_insert(event), event, "two records of one order {order}");
        match first.get(event) {
            None => {
                first.insert(event, seen);
                appeared.entry(&seen.key).or_default().push(posted);
            }
            Some(before) => {
                repeats += 1;
                let same = Seen { offset: before.offset, ..seen.clone() };
                assert_eq!(&&same, before, "the same id with another record");
            }
        }
    }
    assert_eq!(event_of.len(), posted.len(), "orders are missing on the topic");
    for (key, orders) in &appeared {
        let key = String::from_utf8_lossy(key);
        // Whoever appears later must not have had its 202 before an earlier one was first sent.
        let mut sent_last = None::<&Posted>;
        for order in orders {
            if let Some(last) = sent_last {
                assert!(
                    order.answered >= last.first_sent,
                    "key {key}: {} was accepted before {} was sent, but stands behind it",
                    order.id,
                    last.id
                );
            }
            if sent_last.is_none_or(|last| order.first_sent > last.first_sent) {
                sent_last = Some(order);
            }
        }
    }
    say(&format!("crash test: {} records, {repeats} of them repeats, {} keys", records.len(), appeared.len()));
}
