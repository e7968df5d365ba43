//! Calls and replies: callers with deadlines, a server that dies and is started again, its reply object, its bound notification.

use stateright::{Model, Property};

/// Callers.
pub const CALLERS: usize = 2;

/// What a caller is doing. Calls are numbered, so that an answer to an earlier one can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Not in a call.
    Idle,
    /// In the endpoint's queue.
    Queued,
    /// Held by a reply object.
    AwaitingReply,
    /// Its thread ended.
    Dead,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The reply to this number of call of this caller.
    Reply {
        /// Whose call the server worked on.
        caller: usize,
        /// Which of them.
        call: u8,
    },
    /// `Error::ServerDied`.
    ServerDied,
    /// `Error::TimedOut`.
    TimedOut,
}

/// What the server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// Waits for a message or for its notification.
    Receiving,
    /// Works on a request of a caller.
    Working {
        /// Whose.
        caller: usize,
        /// Which call of that caller.
        call: u8,
    },
    /// Runs, with nothing to answer.
    Running,
    /// Ended; init starts another.
    Dead,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Callers.
    pub callers: [Caller; CALLERS],
    /// Number of each caller's present or next call.
    pub call: [u8; CALLERS],
    /// What the last call of each came to, with its number.
    pub answers: [Option<(u8, Answer)>; CALLERS],
    /// Callers in the endpoint's queue, the first to be served first.
    pub queue: Vec<usize>,
    /// The caller that the server's reply object holds.
    pub reply: Option<usize>,
    /// The server.
    pub server: Server,
    /// Bits of the bound notification that nobody took yet.
    pub bits: u8,
    /// Bits that were ever signalled, and bits that a server ever took.
    pub signalled: u8,
    /// See `signalled`.
    pub taken: u8,
    /// Deaths of the server so far.
    pub deaths: u8,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A caller calls.
    Call(usize),
    /// A caller's deadline passes.
    TimeOut(usize),
    /// A caller's thread is destroyed.
    Kill(usize),
    /// The server receives: a queued caller, bits, or it waits.
    Receive,
    /// The server replies and receives in one system call.
    ReplyReceive,
    /// The server replies.
    Reply,
    /// Somebody signals a bit.
    Signal(u8),
    /// The server ends, wherever it is.
    ServerDies,
    /// init starts it again, with a new reply object.
    ServerStarts,
}

/// The protocol. The faults can be switched on to see that the checker finds them.
#[derive(Clone, Debug, Default)]
pub struct Ipc {
    /// Calls of each caller.
    pub calls: u8,
    /// Deaths of the server.
    pub deaths: u8,
    /// Fault: a caller that gives up stays in the reply object.
    pub stale_replies: bool,
    /// Fault: destroying the reply object tells nobody.
    pub silent_death: bool,
    /// Fault: bits that come while a message is being delivered are overwritten.
    pub lost_bits: bool,
}

impl Ipc {
    fn finish(state: &mut State, caller: usize, answer: Answer) {
        state.answers[caller] = Some((state.call[caller], answer));
        state.call[caller] += 1;
        state.callers[caller] = Caller::Idle;
    }

    /// `Reply`: to whoever the reply object holds; nobody there is no error.
    fn reply(state: &mut State) {
        let Server::Working { caller, call } = state.server else { return };
        state.server = Server::Running;
        if let Some(held) = state.reply.take()
            && state.callers[held] != Caller::Dead
        {
            state.queue.retain(|&queued| queued != held);
            Self::finish(state, held, Answer::Reply { caller, call });
        }
    }

    /// `Recv`: bits of the bound notification first, then the queue.
    fn receive(state: &mut State) {
        if state.bits != 0 {
            state.taken |= state.bits;
            state.bits = 0;
            state.server = Server::Running;
        } else if state.queue.is_empty() {
            state.server = Server::Receiving;
        } else {
            let caller = state.queue.remove(0);
            Self::deliver(state, caller);
        }
    }

    fn deliver(state: &mut State, caller: usize) {
        state.callers[caller] = Caller::AwaitingReply;
        state.reply = Some(caller);
        state.server = Server::Working {
            caller,
            call: state.call[caller],
        };
    }
}

impl Model for Ipc {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            callers: [Caller::Idle; CALLERS],
            call: [0; CALLERS],
            answers: [None; CALLERS],
            queue: Vec::new(),
            reply: None,
            server: Server::Receiving,
            bits: 0,
            signalled: 0,
            taken: 0,
            deaths: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for caller in 0..CALLERS {
            match state.callers[caller] {
                Caller::Idle if state.call[caller] < self.calls => actions.push(Action::Call(caller)),
                Caller::Queued | Caller::AwaitingReply => actions.extend([Action::TimeOut(caller), Action::Kill(caller)]),
                Caller::Idle | Caller::Dead => {}
            }
        }
        match state.server {
            Server::Working { .. } => actions.extend([Action::Reply, Action::ReplyReceive]),
            Server::Running => actions.push(Action::Receive),
            Server::Receiving => {}
            Server::Dead => actions.push(Action::ServerStarts),
        }
        if state.server != Server::Dead && state.deaths < self.deaths {
            actions.push(Action::ServerDies);
        }
        actions.extend((0..2).filter(|bit| state.signalled & 1 << bit == 0).map(Action::Signal));
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Call(caller) => {
                if state.server == Server::Receiving {
                    Self::deliver(&mut state, caller);
                    if self.lost_bits {
                        state.bits = 0;
                    }
                } else {
                    state.callers[caller] = Caller::Queued;
                    state.queue.push(caller);
                }
            }
            Action::TimeOut(caller) | Action::Kill(caller) => {
                state.queue.retain(|&queued| queued != caller);
                if state.reply == Some(caller) && !self.stale_replies {
                    state.reply = None;
                }
                if action == Action::TimeOut(caller) {
                    Self::finish(&mut state, caller, Answer::TimedOut);
                } else {
                    state.callers[caller] = Caller::Dead;
                }
            }
            Action::Receive => Self::receive(&mut state),
            Action::Reply => Self::reply(&mut state),
            Action::ReplyReceive => {
                Self::reply(&mut state);
                Self::receive(&mut state);
            }
            Action::Signal(bit) => {
                state.signalled |= 1 << bit;
                state.bits |= 1 << bit;
                if state.server == Server::Receiving {
                    Self::receive(&mut state);
                } else if self.lost_bits {
                    state.bits = 1 << bit;
                }
            }
            Action::ServerDies => {
                state.server = Server::Dead;
                state.deaths += 1;
                // Its reply object ends with it, and the caller in it learns that. Queued callers wait for the next instance.
                if let Some(held) = state.reply.take()
                    && !self.silent_death
                {
                    Self::finish(&mut state, held, Answer::ServerDied);
                }
            }
            Action::ServerStarts => state.server = Server::Running,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a reply answers the call it was made for", |_, state: &State| {
                state.answers.iter().enumerate().all(|(caller, answer)| match answer {
                    Some((call, Answer::Reply { caller: of, call: number })) => *of == caller && number == call,
                    _ => true,
                })
            }),
            Property::always(
                "who waits for a reply is held by the reply object of a living server",
                |_, state: &State| {
                    (0..CALLERS).all(|caller| {
                        state.callers[caller] != Caller::AwaitingReply
                            || (state.reply == Some(caller)
                                && matches!(state.server, Server::Working { caller: worked, .. } if worked == caller))
                    })
                },
            ),
            Property::always("the queue holds exactly the callers that wait in it", |_, state: &State| {
                (0..CALLERS).all(|caller| {
                    state.queue.iter().filter(|&&queued| queued == caller).count() == usize::from(state.callers[caller] == Caller::Queued)
                })
            }),
            Property::always("no server waits while there is something for it", |_, state: &State| {
                state.server != Server::Receiving || (state.queue.is_empty() && state.bits == 0)
            }),
            Property::always("every signalled bit is pending or was taken", |_, state: &State| {
                state.bits | state.taken == state.signalled
            }),
            Property::always(
                "a server death is told only to callers of a server that died",
                |_, state: &State| state.deaths != 0 || !state.answers.iter().any(|a| matches!(a, Some((_, Answer::ServerDied)))),
            ),
            Property::sometimes("a call is answered", |_, state: &State| {
                state.answers.iter().any(|a| matches!(a, Some((_, Answer::Reply { .. }))))
            }),
            Property::sometimes("a caller learns that its server died", |_, state: &State| {
                state.answers.iter().any(|a| matches!(a, Some((_, Answer::ServerDied))))
            }),
            Property::sometimes(
                "a queued caller outlives its server and is answered by the next",
                |_, state: &State| {
                    state.deaths == 1
                        && state.answers.iter().any(|a| matches!(a, Some((0, Answer::Reply { .. }))))
                        && state.server != Server::Dead
                },
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stateright::Checker;

    fn check(model: Ipc) -> impl Checker<Ipc> {
        model.checker().threads(2).spawn_bfs().join()
    }

    #[test]
    fn the_protocol_keeps_its_promises() {
        let checker = check(Ipc {
            calls: 3,
            deaths: 2,
            ..Ipc::default()
        });
        checker.assert_properties();
        assert!(checker.unique_state_count() > 1000, "only {} states", checker.unique_state_count());
    }

    #[test]
    fn a_stale_reply_is_found() {
        let checker = check(Ipc {
            calls: 3,
            deaths: 0,
            stale_replies: true,
            ..Ipc::default()
        });
        assert!(checker.discovery("a reply answers the call it was made for").is_some());
    }

    #[test]
    fn a_silent_death_is_found() {
        let checker = check(Ipc {
            calls: 1,
            deaths: 1,
            silent_death: true,
            ..Ipc::default()
        });
        assert!(
            checker
                .discovery("who waits for a reply is held by the reply object of a living server")
                .is_some()
        );
    }

    #[test]
    fn a_lost_bit_is_found() {
        let checker = check(Ipc {
            calls: 1,
            deaths: 0,
            lost_bits: true,
            ..Ipc::default()
        });
        assert!(checker.discovery("every signalled bit is pending or was taken").is_some());
    }
}
