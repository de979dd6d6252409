//! What this node owns, as it last heard, and for how long by its own clock.
//!
//! The tending task writes it; those who carry the slots follow it between their passes: they load what is gained,
//! forget what is lost, and let go of what is to be given back. It is not the fence (that is the epoch in every
//! transaction, PROTOCOL O2): it spares work that would be lost, and keeps a node from beginning any once its leases may
//! have ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::order::Slot;

/// Who carries slots, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Decider,
    Sender,
}

/// What this node owns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ownership {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    owned: BTreeMap<Slot, Owned>,
    /// When the leases end by our own clock; `None`: they do not.
    until: Option<Instant>,
    /// Which half carries nothing any more, for good.
    has_ended: [bool; 2],
}

#[derive(Debug, Clone, Copy)]
struct Owned {
    epoch: i64,
    leaving: Option<Leaving>,
}

/// A slot that is to be given back.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    /// Work in flight is waited for until then.
    until: Instant,
    has_let_go: [bool; 2],
}

/// What one half has to do so that it carries what the node owns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// To be loaded afresh, with their epochs: nothing of an earlier tenure is used (PROTOCOL O5).
    pub gained: Vec<(Slot, i64)>,
    /// To be forgotten.
    pub lost: Vec<Slot>,
    /// To be let go of when nothing of it is in flight any more, at the latest at the moment.
    pub leaving: Vec<(Slot, Instant)>,
}

impl Default for Ownership {
    /// Nothing is owned.
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Ownership {
    /// Notes what is owned, with the epochs, and until when. Slots that are to be given back stay so.
    pub fn hold(&self, held: &[(Slot, i64)], until: Option<Instant>) {
        self.state.send_modify(|state| {
            let before = std::mem::take(&mut state.owned);
            state.owned = held
                .iter()
                .map(|&(slot, epoch)| {
                    let same = before.get(&slot).filter(|owned| owned.epoch == epoch);
                    (slot, same.copied().unwrap_or(Owned { epoch, leaving: None }))
                })
                .collect();
            state.until = until;
        });
    }

    /// Notes that a slot is not ours any more, whatever was heard before.
    pub fn disown(&self, slot: Slot, epoch: i64) {
        self.state.send_if_modified(|state| {
            let is_it = state.owned.get(&slot).is_some_and(|owned| owned.epoch == epoch);
            is_it && state.owned.remove(&slot).is_some()
        });
    }

    /// Has so many slots on their way out, within `until`: more are sent, or some stay. Returns how many are.
    pub fn give_back(&self, count: usize, until: Instant) -> usize {
        self.state.send_if_modified(|state| {
            let leaving = state.owned.values().filter(|owned| owned.leaving.is_some()).count();
            let mut slots = state.owned.values_mut();
            // Those highest up go first and stay last, so that it is mostly the same ones that wander.
            if leaving > count {
                let staying = slots.filter(|owned| owned.leaving.is_some()).take(leaving - count);
                staying.for_each(|owned| owned.leaving = None);
            } else {
                let going = slots.by_ref().rev().filter(|owned| owned.leaving.is_none()).take(count - leaving);
                going.for_each(|owned| owned.leaving = Some(Leaving { until, has_let_go: [false; 2] }));
            }
            leaving != count
        });
        self.state.borrow().owned.values().filter(|owned| owned.leaving.is_some()).count()
    }

    /// A half has nothing of a slot in flight, and begins nothing.
    pub fn let_go(&self, half: Half, slot: Slot) {
        self.state.send_if_modified(|state| {
            let leaving = state.owned.get_mut(&slot).and_then(|owned| owned.leaving.as_mut());
            leaving.is_some_and(|leaving| !std::mem::replace(&mut leaving.has_let_go[half as usize], true))
        });
    }

    /// A half has ended and carries nothing any more.
    pub fn end(&self, half: Half) {
        self.state.send_modify(|state| state.has_ended[half as usize] = true);
    }

    /// Whether both halves have ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.borrow().has_ended == [true; 2]
    }

    /// Slots, with their epochs, that can be given back now.
    #[must_use]
    pub fn ready(&self) -> Vec<(Slot, i64)> {
        let state = self.state.borrow();
        let is_ready = |owned: &Owned| owned.leaving.is_some_and(|leaving| leaving.has_let_go == [true; 2]);
        state.owned.iter().filter(|(_, owned)| is_ready(owned)).map(|(slot, owned)| (*slot, owned.epoch)).collect()
    }

    /// The slots that are owned, with their epochs; none while the leases may have ended.
    #[must_use]
    pub fn slots(&self) -> Vec<(Slot, i64)> {
        if !self.lives() {
            return Vec::new();
        }
        self.state.borrow().owned.iter().map(|(slot, owned)| (*slot, owned.epoch)).collect()
    }

    /// Whether work may begin: by our own clock the leases have not ended.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.state.borrow().until.is_none_or(|until| Instant::now() < until)
    }

    /// What a half that carries `carried`, each slot under an epoch, has to do.
    #[must_use]
    pub fn moves(&self, half: Half, carried: impl Iterator<Item = (Slot, i64)>) -> Moves {
        let carried: BTreeMap<Slot, i64> = carried.collect();
        let state = self.state.borrow();
        let mut moves = Moves::default();
        for (slot, owned) in &state.owned {
            match owned.leaving {
                Some(leaving) if leaving.has_let_go[half as usize] => {}
                Some(leaving) => moves.leaving.push((*slot, leaving.until)),
                // A later epoch than was heard of is the database's word.
                None if carried.get(slot).is_none_or(|epoch| *epoch < owned.epoch) => {
                    moves.gained.push((*slot, owned.epoch));
                }
                None => {}
            }
        }
        moves.lost = carried.into_keys().filter(|slot| !state.owned.contains_key(slot)).collect();
        moves
    }

    /// Hears of changes from now on.
    #[must_use]
    pub fn watch(&self) -> Changes {
        Changes { state: self.state.subscribe() }
    }
}

/// Hears when what is owned changes.
#[derive(Debug)]
pub struct Changes {
    state: watch::Receiver<State>,
}

impl Changes {
    /// Returns once something has changed since this was made or last returned. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            // Nobody owns anything any more.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HERE: Slot = Slot(3);
    const THERE: Slot = Slot(9);

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn owning(held: &[(Slot, i64)]) -> Ownership {
        let ownership = Ownership::default();
        ownership.hold(held, Some(soon()));
        ownership
    }

    #[test]
    fn what_is_new_or_has_another_epoch_is_loaded_and_what_is_gone_is_forgotten() {
        let ownership = owning(&[(HERE, 2), (THERE, 1)]);
        let moves = ownership.moves(Half::Decider, [(HERE, 1), (Slot(5), 7)].into_iter());
        assert_eq!(moves, Moves { gained: vec![(HERE, 2), (THERE, 1)], lost: vec![Slot(5)], leaving: Vec::new() });
        assert_eq!(ownership.moves(Half::Sender, [(HERE, 2), (THERE, 1)].into_iter()), Moves::default());
    }

    #[test]
    fn a_slot_is_given_back_once_both_halves_have_let_go_of_it() {
        let (ownership, until) = (owning(&[(HERE, 2), (THERE, 1)]), soon());
        assert_eq!(ownership.give_back(1, until), 1);
        let carried = || [(HERE, 2), (THERE, 1)].into_iter();
        assert_eq!(ownership.moves(Half::Sender, carried()).leaving, [(THERE, until)]);
        ownership.let_go(Half::Decider, THERE);
        assert_eq!(ownership.moves(Half::Decider, [(HERE, 2)].into_iter()), Moves::default(), "it is not loaded again");
        assert!(ownership.ready().is_empty(), "its records are still in flight");
        ownership.let_go(Half::Sender, THERE);
        assert_eq!(ownership.ready(), [(THERE, 1)]);
        // A renewal in between changes nothing about that.
        ownership.hold(&[(HERE, 2), (THERE, 1)], Some(until));
        assert_eq!(ownership.ready(), [(THERE, 1)]);
        ownership.hold(&[(HERE, 2)], Some(until));
        assert!(ownership.ready().is_empty());
    }

    #[test]
    fn a_slot_that_stays_after_all_is_loaded_again() {
        let ownership = owning(&[(HERE, 2), (THERE, 1)]);
        ownership.give_back(2, soon());
        ownership.let_go(Half::Decider, HERE);
        ownership.let_go(Half::Decider, THERE);
        assert_eq!(ownership.give_back(1, soon()), 1);
        assert_eq!(ownership.moves(Half::Decider, std::iter::empty()).gained, [(HERE, 2)]);
    }

    #[test]
    fn nothing_is_begun_once_the_leases_may_have_ended() {
        let ownership = owning(&[(HERE, 1)]);
        assert!(ownership.lives() && ownership.slots() == [(HERE, 1)]);
        ownership.hold(&[(HERE, 1)], Some(Instant::now()));
        assert!(!ownership.lives() && ownership.slots().is_empty());
        ownership.hold(&[(HERE, 1)], None);
        assert!(ownership.lives(), "the lock of a file does not end");
    }

    #[test]
    fn the_databases_word_that_a_slot_is_anothers_counts_until_it_is_ours_again() {
        let ownership = owning(&[(HERE, 1)]);
        ownership.disown(HERE, 1);
        assert_eq!(ownership.moves(Half::Sender, std::iter::empty()), Moves::default());
        ownership.hold(&[(HERE, 3)], Some(soon()));
        ownership.disown(HERE, 1);
        assert_eq!(ownership.moves(Half::Sender, std::iter::empty()).gained, [(HERE, 3)]);
    }
}
