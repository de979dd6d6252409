//! The judge judged: evidence of a real run is spoiled in one place after the other, by dice, and each time the right invariant
//! is named, with the order at fault.

use std::time::Duration;

use harness::broker::Seen;
use harness::environment::say;
use harness::orders::order_of;
use harness::random::{Dice, unique};

use crate::evidence::{CursorMove, Evidence, Neighbor, Sample, StoredVersion, plain};
use crate::history::{Answer, Call, Moment, Request};
use crate::judge::{RESIDENT_BYTES_MAX, Violation, judge};
use crate::world::{Setup, World, seed};

/// So many times each kind of spoiling is done.
const ROUNDS: u64 = 8;

/// What is spoiled, which invariant must be named, and how; it returns the order at fault.
type Spoiling = (&'static str, u8, fn(&mut Evidence, &mut Dice) -> String);

const SPOILINGS: [Spoiling; 20] = [
    ("the row of an accepted order is lost", 1, lose_a_row),
    ("an accepted order is answered 404", 1, forget_an_order),
    ("no record of an order is on the topic", 2, lose_a_record),
    ("an outcome is missing", 2, lose_an_outcome),
    ("one idempotency key makes a second order", 3, double_an_order),
    ("a repeat is answered with somebody else's order", 3, answer_with_another),
    ("a record of an order that nobody posted", 4, invent_a_record),
    ("other bytes under the same id", 4, change_bytes),
    ("another record than the log says", 4, change_the_only_record),
    ("two first appearances of a key change places", 5, swap_records),
    ("an accepted order overtakes another", 5, swap_in_log_and_topic),
    ("a final state is left", 6, leave_a_final_state),
    ("a version is left out", 6, leave_a_version_out),
    ("an order ends as it must not", 6, end_wrongly),
    ("an older version is shown after a newer one", 7, look_back),
    ("a stream leaves a version out", 7, leave_an_event_out),
    ("a cursor moves under an old epoch", 8, write_stale),
    ("a cursor is moved from where it does not stand", 8, move_from_elsewhere),
    ("a poisonous order delays another key", 9, delay_a_neighbor),
    ("an order is stuck", 11, stick),
];

#[test]
fn whatever_is_spoiled_is_found_and_named() {
    let setup = Setup { posts: 120, ..Setup::default() };
    let world = World::start(setup, |builder| builder);
    let clients = world.clients();
    world.run(&clients, |_| {});
    let evidence = world.evidence(&clients);
    world.expect_innocence(&evidence);

    let mut dice = Dice::new(seed());
    for (what, invariant, spoil) in SPOILINGS {
        for _ in 0..ROUNDS {
            let mut spoiled = evidence.clone();
            let order = spoil(&mut spoiled, &mut dice);
            let violations = judge(&spoiled);
            let is_named = violations.iter().any(|found| found.invariant == invariant && found.order == order);
            let listed: Vec<String> = violations.iter().map(Violation::to_string).collect();
            assert!(is_named, "seed {}: {what}: I{invariant} of {order:?} is not among {listed:?}", setup.seed);
        }
    }
    let mut spoiled = evidence.clone();
    spoiled.samples.push(Sample { node: 0, resident_bytes: RESIDENT_BYTES_MAX + 1, open_files: 1, threads: 1 });
    assert!(judge(&spoiled).iter().any(|found| found.invariant == 10));
    let mut spoiled = evidence;
    spoiled.drained_in = None;
    spoiled.unready.push("relay: passes fail".to_owned());
    assert_eq!(judge(&spoiled).iter().filter(|found| found.invariant == 11).count(), 2);
    say(&format!("proof: {} kinds of spoiled evidence, {ROUNDS} times each, all named", SPOILINGS.len() + 2));
}

/// A place among those that fit.
fn any<T>(dice: &mut Dice, of: &[T], fits: impl Fn(&T) -> bool) -> usize {
    let fitting: Vec<usize> = (0..of.len()).filter(|place| fits(&of[*place])).collect();
    fitting[dice.place(fitting.len())]
}

fn subject(seen: &Seen) -> String {
    plain(seen.header("ce_subject"))
}

fn set_header(seen: &mut Seen, name: &str, value: &str) {
    seen.headers.insert(name.to_owned(), value.to_owned());
}

fn accepted(call: &Call) -> Option<String> {
    match (&call.request, &call.answer) {
        (Request::Post { .. }, Answer::Accepted(order)) => Some(order.clone()),
        _ => None,
    }
}

fn lose_a_row(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.calls, |call| accepted(call).is_some());
    let order = plain(&accepted(&evidence.calls[place]).unwrap());
    evidence.orders.retain(|row| row.id != order);
    order
}

fn forget_an_order(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.calls, |call| accepted(call).is_some());
    let order = accepted(&evidence.calls[place]).unwrap();
    let (sent, answered) = (evidence.calls[place].answered, evidence.calls[place].answered);
    let request = Request::Read { order: order.clone() };
    evidence.calls.push(Call { request, sent, answered, answer: Answer::Refused(404) });
    plain(&order)
}

fn lose_a_record(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let order = subject(&evidence.orders_topic[dice.place(evidence.orders_topic.len())]);
    evidence.orders_topic.retain(|seen| subject(seen) != order);
    order
}

fn lose_an_outcome(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let order = subject(&evidence.outcomes_topic[dice.place(evidence.outcomes_topic.len())]);
    evidence.outcomes_topic.retain(|seen| subject(seen) != order);
    order
}

/// The second order has every right but the first one's serial.
fn double_an_order(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let keyed: Vec<String> = evidence
        .calls
        .iter()
        .filter_map(|call| match &call.request {
            Request::Post { serial, idempotency_key: Some(_), .. } => Some(serial.clone()),
            _ => None,
        })
        .collect();
    let place = any(dice, &evidence.orders, |order| keyed.contains(&order.serials[0]));
    let mut second = evidence.orders[place].clone();
    let first = std::mem::replace(&mut second.id, plain(&unique("f")));
    let copies: Vec<StoredVersion> =
        evidence.versions.iter().filter(|version| version.order == first).cloned().collect();
    evidence.versions.extend(copies.into_iter().map(|version| StoredVersion { order: second.id.clone(), ..version }));
    let order = second.id.clone();
    evidence.orders.push(second);
    order
}

fn answer_with_another(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let first = any(dice, &evidence.calls, |call| accepted(call).is_some());
    let own = accepted(&evidence.calls[first]).unwrap();
    let second = any(dice, &evidence.calls, |call| accepted(call).is_some_and(|order| order != own));
    let other = accepted(&evidence.calls[second]).unwrap();
    let mut repeat = evidence.calls[first].clone();
    repeat.answer = Answer::Accepted(other.clone());
    evidence.calls.push(repeat);
    plain(&other)
}

fn invent_a_record(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = dice.place(evidence.orders_topic.len());
    let mut seen = evidence.orders_topic[place].clone();
    let id = unique("phantom");
    set_header(&mut seen, "ce_id", &id);
    set_header(&mut seen, "ce_subject", &id);
    seen.offset += 100_000;
    evidence.orders_topic.push(seen);
    plain(&id)
}

fn change_bytes(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = dice.place(evidence.orders_topic.len());
    let mut seen = evidence.orders_topic[place].clone();
    let at = dice.place(seen.value.len());
    seen.value[at] ^= 1;
    seen.offset += 100_000;
    let order = subject(&seen);
    evidence.orders_topic.push(seen);
    order
}

fn change_the_only_record(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = dice.place(evidence.orders_topic.len());
    let seen = &mut evidence.orders_topic[place];
    let at = dice.place(seen.value.len());
    seen.value[at] ^= 1;
    subject(seen)
}

/// Two places on the topic of the same key, the first before the second.
fn two_of_a_key(evidence: &Evidence, dice: &mut Dice, fits: impl Fn(&Seen, &Seen) -> bool) -> (usize, usize) {
    let topic = &evidence.orders_topic;
    let mut pairs = Vec::new();
    for first in 0..topic.len() {
        for second in 0..topic.len() {
            let is_pair = topic[first].key == topic[second].key && topic[first].offset < topic[second].offset;
            if is_pair && fits(&topic[first], &topic[second]) {
                pairs.push((first, second));
            }
        }
    }
    pairs[dice.place(pairs.len())]
}

fn swap_places(evidence: &mut Evidence, first: usize, second: usize) {
    let (low, high) = (evidence.orders_topic[first].offset, evidence.orders_topic[second].offset);
    (evidence.orders_topic[first].offset, evidence.orders_topic[second].offset) = (high, low);
}

fn swap_records(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let (first, second) = two_of_a_key(evidence, dice, |_, _| true);
    swap_places(evidence, first, second);
    subject(&evidence.orders_topic[first])
}

/// As a relay would that decided them in the wrong order: only the clients' history knows.
fn swap_in_log_and_topic(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let mut times = std::collections::HashMap::new();
    for call in &evidence.calls {
        if let Some(order) = accepted(call) {
            let entry = times.entry(plain(&order)).or_insert((call.sent, call.answered));
            *entry = (entry.0.min(call.sent), entry.1.min(call.answered));
        }
    }
    let time = |seen: &Seen| times.get(&subject(seen)).copied().unwrap_or((Moment(0), Moment(u64::MAX)));
    let (first, second) = two_of_a_key(evidence, dice, |first, second| time(first).1 < time(second).0);
    swap_places(evidence, first, second);
    let ids = [first, second].map(|place| evidence.orders_topic[place].header("ce_id").to_owned());
    let logged = ids.map(|id| evidence.log.iter().position(|record| record.id == id).unwrap());
    let numbers = logged.map(|place| evidence.log[place].number);
    (evidence.log[logged[0]].number, evidence.log[logged[1]].number) = (numbers[1], numbers[0]);
    subject(&evidence.orders_topic[first])
}

fn leave_a_final_state(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.orders, |order| order.is_final);
    let order = &mut evidence.orders[place];
    order.version += 1;
    "VALIDATED".clone_into(&mut order.status);
    let (order, version) = (order.id.clone(), order.version);
    evidence.versions.push(StoredVersion {
        order: order.clone(),
        version,
        status: "VALIDATED".to_owned(),
        is_final: true,
    });
    order
}

fn leave_a_version_out(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.versions, |version| version.version > 1);
    evidence.versions.remove(place).order
}

fn end_wrongly(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.orders, |order| order.status == "VALIDATED" && order.serials.len() == 1);
    let order = evidence.orders[place].id.clone();
    "EXPIRED".clone_into(&mut evidence.orders[place].status);
    let versions = evidence.versions.iter_mut().filter(|version| version.order == order);
    "EXPIRED".clone_into(&mut versions.last().unwrap().status);
    order
}

fn look_back(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.orders, |order| order.version > 1);
    let (order, version) = (evidence.orders[place].id.clone(), evidence.orders[place].version);
    for (version, at) in [(version, 1), (version - 1, 10)] {
        let request = Request::Read { order: order.clone() };
        let answer = Answer::Seen { version, is_reset: false };
        evidence.calls.push(Call { request, sent: Moment(at), answered: Moment(at + 1), answer });
    }
    order
}

fn leave_an_event_out(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.orders, |order| order.version > 2);
    let (order, version) = (evidence.orders[place].id.clone(), evidence.orders[place].version);
    for version in [version - 2, version] {
        let request = Request::Event { order: order.clone(), stream: u64::MAX };
        let answer = Answer::Seen { version, is_reset: false };
        evidence.calls.push(Call { request, sent: Moment(0), answered: Moment(1), answer });
    }
    order
}

fn write_stale(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = dice.place(evidence.moves.len());
    let step = evidence.moves[place].clone();
    let last = evidence.moves.iter().rfind(|other| other.slot == step.slot && other.cursor == step.cursor).unwrap();
    let stale = CursorMove { from: last.to.clone(), to: last.to.clone() + "0", epoch: last.epoch - 1, ..step };
    evidence.moves.push(stale);
    String::new()
}

fn move_from_elsewhere(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = dice.place(evidence.moves.len());
    let again = evidence.moves[place].clone();
    evidence.moves.push(again);
    String::new()
}

fn delay_a_neighbor(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = dice.place(evidence.orders.len());
    let order = evidence.orders[place].id.clone();
    evidence.neighbors.push(Neighbor { order: order.clone(), settled_in: Duration::from_secs(60) });
    order
}

fn stick(evidence: &mut Evidence, dice: &mut Dice) -> String {
    let place = any(dice, &evidence.orders, |order| order.is_final && order.version > 1);
    let order = &mut evidence.orders[place];
    order.version -= 1;
    order.is_final = false;
    let (id, last) = (order.id.clone(), order.version);
    evidence.versions.retain(|version| version.order != id || version.version <= last);
    let before = evidence.versions.iter().rfind(|version| version.order == id).unwrap();
    order.status.clone_from(&before.status);
    id
}

/// The bodies of the proof are orders as the other tests post them, with a serial number.
#[test]
fn a_body_carries_its_serial_number() {
    let with = crate::history::body("serial-1", "c", Some("retry"), true);
    assert_eq!(crate::evidence::serial_of(with.to_string().as_bytes()), "serial-1");
    let mut without = with;
    for member in ["serial", "mark"] {
        without.as_object_mut().unwrap().remove(member);
    }
    assert_eq!(without, order_of("c"));
}
