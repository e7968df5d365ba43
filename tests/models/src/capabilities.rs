//! Derivation and revocation: memory made into objects, capabilities copied, moved, deleted and revoked by two processes at once. Revoking goes one capability at a time, and anything may
//! happen between two steps.

use stateright::{Model, Property};

/// Slots, of both processes together. Slot 0 holds the memory that everything is made of.
pub const SLOTS: usize = 5;

/// A capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capability {
    /// 0: the memory; else the number of the object made of it.
    pub object: u8,
    /// Rights, two bits.
    pub rights: u8,
    /// Slot of the capability it descends from.
    pub parent: Option<u8>,
    /// The one that making the object gave: all others to the object came from it.
    pub first: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The slots.
    pub slots: [Option<Capability>; SLOTS],
    /// Rights that each object's first capability had, for objects that were ever made: nobody may ever have more.
    pub made: Vec<u8>,
    /// A revocation that was told to ask again: its slot.
    pub revoking: Option<u8>,
    /// The slot whose revocation has just been answered with success.
    pub revoked: Option<u8>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Make an object of the memory.
    Retype(u8),
    /// Copy from one slot to another with these rights.
    Copy(u8, u8, u8),
    /// Move.
    Move(u8, u8),
    /// Delete.
    Delete(u8),
    /// One step of a revocation.
    Revoke(u8),
}

/// The protocol. Faults can be switched on.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Objects that may be made.
    pub objects: usize,
    /// Fault: deleting a capability forgets its children instead of giving them to its parent.
    pub orphans: bool,
    /// Fault: a copy becomes a sibling of its source, and not its child.
    pub siblings: bool,
    /// Fault: a moved capability's children keep pointing at its old slot.
    pub stale_parents: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            objects: 2,
            orphans: false,
            siblings: false,
            stale_parents: false,
        }
    }
}

/// Whether `slot` descends from `ancestor`. The walk is bounded: a loop counts as no descent and is found by a property.
fn descends(state: &State, slot: u8, ancestor: u8) -> bool {
    let mut at = slot;
    for _ in 0..SLOTS {
        match state.slots[usize::from(at)].and_then(|c| c.parent) {
            Some(parent) if parent == ancestor => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

impl Capabilities {
    fn delete(&self, state: &mut State, slot: u8) {
        let Some(gone) = state.slots[usize::from(slot)].take() else {
            return;
        };
        for capability in state.slots.iter_mut().flatten() {
            if capability.parent == Some(slot) {
                capability.parent = if self.orphans { None } else { gone.parent };
            }
        }
        if state.revoking == Some(slot) {
            state.revoking = None;
        }
    }
}

impl Model for Capabilities {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut slots = [None; SLOTS];
        slots[0] = Some(Capability {
            object: 0,
            rights: 3,
            parent: None,
            first: true,
        });
        vec![State {
            slots,
            made: Vec::new(),
            revoking: None,
            revoked: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // Empty slots are alike: the first one stands for all.
        let empty = (0..SLOTS as u8).find(|&slot| state.slots[usize::from(slot)].is_none());
        for slot in 0..SLOTS as u8 {
            let Some(capability) = state.slots[usize::from(slot)] else {
                continue;
            };
            if let Some(empty) = empty {
                if capability.object == 0 {
                    if state.made.len() < self.objects {
                        actions.push(Action::Retype(empty));
                    }
                } else {
                    actions.extend([1, 3].map(|rights| Action::Copy(slot, empty, rights)));
                    actions.push(Action::Move(slot, empty));
                }
            }
            // A revocation that was answered `Again` may be given up or continued; others of the same slot continue it.
            actions.push(Action::Revoke(slot));
            if slot != 0 {
                actions.push(Action::Delete(slot));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.revoked = None;
        match action {
            Action::Retype(to) => {
                state.made.push(3);
                state.slots[usize::from(to)] = Some(Capability {
                    object: state.made.len() as u8,
                    rights: 3,
                    parent: Some(0),
                    first: true,
                });
            }
            Action::Copy(from, to, rights) => {
                let source = state.slots[usize::from(from)]?;
                let parent = if self.siblings { source.parent } else { Some(from) };
                state.slots[usize::from(to)] = Some(Capability {
                    object: source.object,
                    rights: source.rights & rights,
                    parent,
                    first: false,
                });
            }
            Action::Move(from, to) => {
                state.slots[usize::from(to)] = state.slots[usize::from(from)].take();
                if !self.stale_parents {
                    for capability in state.slots.iter_mut().flatten() {
                        if capability.parent == Some(from) {
                            capability.parent = Some(to);
                        }
                    }
                }
                if state.revoking == Some(from) {
                    state.revoking = None;
                }
            }
            Action::Delete(slot) => self.delete(&mut state, slot),
            Action::Revoke(slot) => {
                let found = |state: &State, leaf: bool| {
                    (0..SLOTS as u8).find(|&other| {
                        state.slots[usize::from(other)].is_some()
                            && descends(state, other, slot)
                            && (!leaf
                                || !(0..SLOTS as u8).any(|child| state.slots[usize::from(child)].is_some_and(|c| c.parent == Some(other))))
                    })
                };
                if let Some(leaf) = found(&state, true) {
                    self.delete(&mut state, leaf);
                }
                if found(&state, false).is_some() {
                    state.revoking = Some(slot);
                } else {
                    state.revoking = None;
                    state.revoked = Some(slot);
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a finished revocation leaves no descendant", |_, state: &State| {
                match state.revoked {
                    Some(slot) => (0..SLOTS as u8).all(|other| state.slots[usize::from(other)].is_none() || !descends(state, other, slot)),
                    None => true,
                }
            }),
            Property::always("revoking the memory leaves nothing that was made of it", |_, state: &State| {
                state.revoked != Some(0) || state.slots[1..].iter().all(Option::is_none)
            }),
            Property::always("revoking the first capability to an object leaves no other", |_, state: &State| {
                let first = |slot: u8| state.slots[usize::from(slot)].filter(|c| c.first);
                match state.revoked.and_then(first) {
                    Some(capability) => state.slots.iter().flatten().filter(|c| c.object == capability.object).count() == 1,
                    None => true,
                }
            }),
            Property::always("everything descends from the memory", |_, state: &State| {
                (1..SLOTS as u8).all(|slot| state.slots[usize::from(slot)].is_none() || descends(state, slot, 0))
            }),
            Property::always("a parent exists and names the same object, or the memory", |_, state: &State| {
                state
                    .slots
                    .iter()
                    .flatten()
                    .all(|capability| match capability.parent.and_then(|p| state.slots[usize::from(p)]) {
                        Some(parent) => parent.object == capability.object || parent.object == 0,
                        None => capability.parent.is_none(),
                    })
            }),
            Property::always("no capability has a right that its parent lacks", |_, state: &State| {
                state
                    .slots
                    .iter()
                    .flatten()
                    .all(|capability| match capability.parent.and_then(|p| state.slots[usize::from(p)]) {
                        Some(parent) => capability.rights & !parent.rights == 0,
                        None => true,
                    })
            }),
            Property::sometimes("a revocation is interrupted", |_, state: &State| state.revoking.is_some()),
            Property::sometimes("a revocation of copies of copies ends", |_, state: &State| {
                state.revoked.is_some() && state.made.len() == 2
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.made.len() <= self.objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateright::Checker;

    const STATES: usize = 2_000_000;

    fn check(model: Capabilities) -> impl Checker<Capabilities> {
        // The bound is for the faulty variants, whose states need not be finite; the protocol itself stays far below.
        model.checker().threads(2).target_state_count(STATES).spawn_bfs().join()
    }

    #[test]
    fn the_protocol_keeps_its_promises() {
        let checker = check(Capabilities::default());
        checker.assert_properties();
        assert!(checker.unique_state_count() > 1000, "only {} states", checker.unique_state_count());
        assert!(checker.state_count() < STATES, "the model is larger than what was explored");
    }

    #[test]
    fn orphans_are_found() {
        let checker = check(Capabilities {
            orphans: true,
            ..Capabilities::default()
        });
        assert!(checker.discovery("everything descends from the memory").is_some());
    }

    #[test]
    fn sibling_copies_are_found() {
        let checker = check(Capabilities {
            siblings: true,
            ..Capabilities::default()
        });
        assert!(
            checker
                .discovery("revoking the first capability to an object leaves no other")
                .is_some()
        );
    }

    #[test]
    fn stale_parents_are_found() {
        let checker = check(Capabilities {
            stale_parents: true,
            ..Capabilities::default()
        });
        let broken = [
            "a parent exists and names the same object, or the memory",
            "everything descends from the memory",
        ];
        assert!(broken.iter().any(|name| checker.discovery(name).is_some()));
    }
}
