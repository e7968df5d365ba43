//! The clock by time servers.

use crate::server::Machine;
use alloc::{
    boxed::Box,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use core::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    net::SocketAddr,
    task::Poll,
};
use tessera_hostd::{
    host::TimeFacts,
    net::Stack,
    ntp::{self, Answer},
    platform::Platform,
};
use tessera_rt::log;

/// How long a server may take, in milliseconds.
const PATIENCE: u64 = 3000;
/// Seconds between two rounds: few at first, then ever more (RFC 4330, 10 asks for no fewer than 15).
const FIRST_PAUSE: u64 = 16;
const LONGEST_PAUSE: u64 = 1024;
/// Rounds without an answer after which the clock does not follow any more.
const MOST_MISSED: u32 = 4;

/// What follows the servers.
pub struct Clock {
    machine: Rc<Machine>,
    stack: Stack,
    search: Rc<RefCell<Vec<String>>>,
    servers: RefCell<Vec<String>>,
    /// How often the servers were set.
    changes: Cell<u64>,
    facts: RefCell<TimeFacts>,
}

impl Clock {
    /// Begins, with no server.
    pub fn start(machine: &Rc<Machine>, stack: &Stack, search: &Rc<RefCell<Vec<String>>>) -> Rc<Self> {
        let clock = Rc::new(Self {
            machine: machine.clone(),
            stack: stack.clone(),
            search: search.clone(),
            servers: RefCell::default(),
            changes: Cell::new(0),
            facts: RefCell::default(),
        });
        machine.spawn(Box::pin(clock.clone().follow()));
        clock
    }

    /// Sets the servers; none: the clock runs free.
    pub fn set(&self, servers: &[String]) {
        if *self.servers.borrow() == servers {
            return;
        }
        self.servers.replace(servers.to_vec());
        self.changes.set(self.changes.get() + 1);
        let mut facts = self.facts.borrow_mut();
        *facts = TimeFacts {
            drift_ppb: facts.drift_ppb,
            ..TimeFacts::default()
        };
    }

    /// What the servers say.
    pub fn facts(&self) -> TimeFacts {
        self.facts.borrow().clone()
    }

    async fn follow(self: Rc<Self>) {
        loop {
            let changes = self.changes.get();
            let mut pause = FIRST_PAUSE;
            let mut missed = 0;
            while changes == self.changes.get() && !self.servers.borrow().is_empty() {
                if self.round().await {
                    missed = 0;
                } else {
                    missed += 1;
                    if missed == MOST_MISSED {
                        log::warn!("no time server answers: the clock runs free");
                        self.facts.borrow_mut().synchronized = false;
                    }
                }
                for _ in 0..pause {
                    if changes != self.changes.get() {
                        break;
                    }
                    self.machine.sleep(1000).await;
                }
                pause = (pause + pause / 2).min(LONGEST_PAUSE);
            }
            self.machine.sleep(500).await;
        }
    }

    /// Asks every server, and sets the clock by the one in the middle. False: none answers.
    async fn round(&self) -> bool {
        let servers = self.servers.borrow().clone();
        let mut answers: Vec<(Answer, String)> = Vec::new();
        for server in servers {
            match self.ask(&server).await {
                Ok(answer) => answers.push((answer, server)),
                Err(text) => log::debug!("time server {server}: {text}"),
            }
        }
        answers.sort_by_key(|(answer, _)| answer.offset_us);
        // With an even number the one that was nearer counts: of two, neither can be said to be right.
        let lower = answers.len().saturating_sub(1) / 2;
        let middle = answers.get(lower..=answers.len() / 2).unwrap_or_default();
        let Some((answer, server)) = middle.iter().min_by_key(|(answer, _)| answer.delay_us) else {
            return false;
        };
        let drift_ppb = self.machine.set_clock(answer.offset_us);
        let before = self.facts.replace(TimeFacts {
            synchronized: true,
            offset_us: Some(answer.offset_us),
            server: Some(server.clone()),
            drift_ppb,
        });
        if !before.synchronized {
            log::info!("the clock follows {server}, it was {} ms off", answer.offset_us / 1000);
        }
        true
    }

    async fn ask(&self, server: &str) -> Result<Answer, String> {
        let search = self.search.borrow().clone();
        let addresses = self.stack.resolve(server, &search).await.map_err(|error| error.to_string())?;
        let address = addresses.first().ok_or("it has no address")?;
        let mut random = [0; 10];
        self.machine.random(&mut random);
        let [nonce @ .., low, high] = random;
        let (nonce, number) = (u64::from_le_bytes(nonce), u16::from_le_bytes([low, high]));
        let sent = self.machine.unix_us();
        let question = ntp::question(nonce);
        let mut asked = Box::pin(self.stack.ask(SocketAddr::new(*address, ntp::PORT), number, &question));
        let mut late = self.machine.sleep(PATIENCE);
        let packet = poll_fn(|context| {
            if let Poll::Ready(packet) = asked.as_mut().poll(context) {
                return Poll::Ready(packet);
            }
            late.as_mut().poll(context).map(|()| None)
        })
        .await;
        let received = self.machine.unix_us();
        let packet = packet.ok_or("it does not answer")?;
        ntp::answer(&packet, nonce, sent, received).map_err(|error| alloc::format!("its answer is not believed: {error:?}"))
    }
}
