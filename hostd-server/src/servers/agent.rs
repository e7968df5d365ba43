//! The agents in guests, reached through the machines' monitors. A guest may say what it likes, or nothing: each exchange has an end.

use super::{Answer, failed, machines};
use alloc::{format, string::String, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tessera_hostd::{
    agent::{self, Answers, Misunderstood},
    host::{Failure, HostError, VmFacts, VmRun},
};
use tessera_proto::{
    vm_control::{AgentOutput, Client, MAX_AGENT_DATA},
    vm_manager::VmService,
};
use tessera_rt::{Connection, Mutex, sys, time};

/// How long a monitor may take for a message, in milliseconds.
const PATIENCE: u64 = 1000;
/// How long an agent may take to say that it listens.
const GREETING: u64 = 1000;
/// How long it may take for what is quick, and for freezing file systems, which writes what is not written.
const QUICK: u64 = 1000;
const FREEZING: u64 = 20_000;
/// Pause between two looks for an answer.
const LOOK: u64 = 5;
/// How often an agent is asked for addresses; and one that does not answer.
const ASK_EVERY: u64 = 10_000;
const ASK_SILENT: u64 = 60_000;

/// The number of the next synchronisation.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// An exchange with an agent.
struct Line {
    client: Client<Connection>,
    /// Frees the slot at the end.
    _slot: machines::Slot,
    name: String,
    answers: Answers,
}

impl Line {
    /// Reaches the agent and has it listen.
    fn open(name: &str) -> Answer<Self> {
        let slot = machines::connect(name, VmService::Control, PATIENCE)?;
        let client = Client(slot.connection(PATIENCE));
        let mut line = Self {
            client,
            _slot: slot,
            name: name.into(),
            answers: Answers::default(),
        };
        if !line.read()?.open {
            let text = format!("No agent runs in the guest of {name}: install and start qemu-guest-agent in it");
            return Err(HostError::new(Failure::Unsupported, text));
        }
        // Relaxed: any number that was not used lately.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        line.write(&agent::synchronise(number))?;
        line.until(GREETING, |answers| Ok(answers.is_synchronised(number).then_some(())))?;
        Ok(line)
    }

    fn read(&mut self) -> Answer<AgentOutput> {
        self.client
            .agent_read()
            .map_err(|error| failed(&format!("The agent in {} cannot be heard", self.name), &error))
    }

    fn write(&mut self, bytes: &[u8]) -> Answer<()> {
        // Requests are short: no more than one message, and there is room for it, for the agent took what came before.
        let taken = self.client.agent_write(&bytes[..bytes.len().min(MAX_AGENT_DATA)]);
        let taken = taken.map_err(|error| failed(&format!("The agent in {} cannot be told anything", self.name), &error))?;
        if taken as usize != bytes.len() {
            return Err(self.silent());
        }
        Ok(())
    }

    fn silent(&self) -> HostError {
        HostError::new(
            Failure::Unavailable,
            format!("The agent in the guest of {} does not answer", self.name),
        )
    }

    /// Listens until something is found, at most so many milliseconds.
    fn until<T>(&mut self, patience: u64, mut find: impl FnMut(&mut Answers) -> Result<Option<T>, Misunderstood>) -> Answer<T> {
        let end = time::after(time::milliseconds(patience));
        let name = self.name.clone();
        let misunderstood = |why: Misunderstood| {
            HostError::new(
                Failure::Failed,
                format!("The agent in the guest of {name} did not do it: {}", why.text()),
            )
        };
        loop {
            let output = self.read()?;
            self.answers.push(&output.data).map_err(misunderstood)?;
            if let Some(found) = find(&mut self.answers).map_err(misunderstood)? {
                return Ok(found);
            }
            if time::now() > end || !output.open {
                return Err(self.silent());
            }
            if output.data.is_empty() {
                let _ = sys::wait(0, Some(time::after(time::milliseconds(LOOK))));
            }
        }
    }

    fn ask(&mut self, command: &str, patience: u64) -> Answer<serde_json::Value> {
        self.write(&agent::request(command))?;
        self.until(patience, Answers::take)
    }
}

/// Has the guest shut down by its agent.
pub fn shut_down(name: &str) -> Answer<()> {
    Line::open(name)?.write(&agent::shut_down())
}

/// Has the guest bring its file systems on their disks to rest, or lets them go on.
pub fn freeze(name: &str, frozen: bool) -> Answer<()> {
    let command = if frozen { "guest-fsfreeze-freeze" } else { "guest-fsfreeze-thaw" };
    Line::open(name)?.ask(command, FREEZING).map(|_| ())
}

/// What is known of a guest's addresses.
struct Known {
    name: String,
    /// Of which start of the machine.
    start: u64,
    addresses: Vec<String>,
    /// When it is asked again.
    next: u64,
}

/// By the thread that asks written, by the first read.
static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());
static ASKING: AtomicBool = AtomicBool::new(false);

/// Held while guests are asked for their addresses.
pub struct Asking(());

impl Asking {
    /// `None`: somebody is at it.
    pub fn begin() -> Option<Self> {
        // Acquire and release: one after the other.
        (!ASKING.swap(true, Ordering::Acquire)).then_some(Self(()))
    }

    /// Asks the guests whose turn it is. `running`: names and starts of the machines that run.
    pub fn ask(self, running: Vec<(String, u64)>) {
        for (name, start) in &running {
            let due = {
                let mut known = KNOWN.lock();
                known.retain(|one| one.name != *name || one.start == *start);
                known.iter().find(|one| one.name == *name).is_none_or(|one| time::now() >= one.next)
            };
            if !due {
                continue;
            }
            let found = Line::open(name).and_then(|mut line| line.ask("guest-network-get-interfaces", QUICK));
            let pause = match &found {
                Err(error) if error.failure != Failure::Unsupported => ASK_SILENT,
                _ => ASK_EVERY,
            };
            let mut known = KNOWN.lock();
            let before = known.iter().find(|one| one.name == *name).map(|one| one.addresses.clone());
            let fresh = Known {
                name: name.clone(),
                start: *start,
                addresses: match found {
                    Ok(answer) => agent::addresses(&answer),
                    // There is no agent.
                    Err(error) if error.failure == Failure::Unsupported => Vec::new(),
                    // It does not tell while its file systems rest.
                    Err(_) => before.unwrap_or_default(),
                },
                next: time::after(time::milliseconds(pause)),
            };
            known.retain(|one| one.name != *name);
            known.push(fresh);
        }
        KNOWN.lock().retain(|one| running.iter().any(|(name, _)| *name == one.name));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKING.store(false, Ordering::Release);
    }
}

/// Fills in the addresses of machines that run, and says which these are.
pub fn fill(machines: &mut [VmFacts]) -> Vec<(String, u64)> {
    let known = KNOWN.lock();
    let mut running = Vec::new();
    for machine in machines.iter_mut().filter(|machine| machine.run == VmRun::On) {
        let Some(start) = machine.start else { continue };
        if let Some(one) = known.iter().find(|one| one.name == machine.name && one.start == start) {
            machine.addresses.clone_from(&one.addresses);
        }
        running.push((machine.name.clone(), start));
    }
    running
}
