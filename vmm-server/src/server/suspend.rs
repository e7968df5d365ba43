//! Suspending the machine into a file of a datastore, and taking its state up again.
//!
//! ```text
//! suspend: processors park -> servers of devices stop with nothing in flight -> processors take their state down -> file -> the monitor ends
//! resume:  RAM and state are read -> the machine is put together -> processors take their state over -> the file goes -> servers go on -> the guest runs
//! ```

use super::devices::{Backend, PATIENCE_MS};
use super::host::Kernel;
use super::storage::Disks;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use tessera_manifest::{Begin, DiskBacking, SUSPENDED, StartVm, Vm};
use tessera_proto::CallError;
use tessera_proto::guest_disk::{Client, MAX_READ};
use tessera_rt::{Connection, Endpoint, exit, log, start, sys, time};
use tessera_vm_state::{checksum, decode, encode};
use tessera_vmm::clock::Clock;
use tessera_vmm::devices::chipset::SavedChipset;
use tessera_vmm::machine::{Machine, Phase};
use tessera_vmm::vcpu::SavedVcpu;

/// Version of what follows; another one is refused.
const VERSION: u32 = 5;
/// Bytes of RAM that one message has written.
const PIECE: u64 = 16 << 20;
/// How long a machine waits for datastores that it has no disk in.
const SHORT_PATIENCE_MS: u64 = 10_000;
/// How long the processors may take for their part.
const EXCHANGE_MS: u64 = 10_000;
/// How often is looked whether they are done.
const LOOK_US: u64 = 200;

/// The monitor's part of the file.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    /// Nanoseconds that the guest has had since its start.
    elapsed: u64,
    /// Seconds since 1970 at its start, as its clocks have it.
    wall_clock: u64,
    chipset: SavedChipset,
    #[expect(clippy::vec_box, reason = "each goes to a thread of its own, and not over its small stack")]
    vcpus: Vec<Box<SavedVcpu>>,
}

impl Saved {
    /// Nanoseconds that the guest has had since its start.
    pub const fn elapsed(&self) -> u64 {
        self.elapsed
    }

    /// The clock with which guest time goes on, at the host's TSC `now`.
    pub fn clock(&self, hz: u64, now: u64) -> Clock {
        let clock = Clock::new(hz, now);
        Clock::new(hz, now.wrapping_sub(clock.ns_to_ticks(self.elapsed)))
    }

    /// Seconds since 1970 at the guest's start, if they are `seconds` now and guest time stood still meanwhile.
    pub fn wall_clock(&self, seconds: u64) -> u64 {
        seconds.saturating_sub(self.elapsed / 1_000_000_000)
    }
}

/// The way to the file.
pub struct StateFile(Endpoint);

fn failed(what: &str) -> impl FnOnce(CallError) -> String {
    move |error| format!("{what}: {error}")
}

impl StateFile {
    /// Finds the server.
    pub fn new() -> Result<Self, String> {
        let grant = start::find(Disks::SERVER)
            .ok_or("the machine's monitor has no way to datastores: grant it `storage = { use = \"storage\" }`")?;
        Ok(Self(Endpoint::new(grant.slot)))
    }

    fn client(&self) -> Client<Connection> {
        Client(Connection::new(self.0))
    }

    /// Writes everything. When it answers, the file is whole and safe.
    fn write(&self, machine: &Machine<Kernel>, state: &[u8]) -> Result<u64, String> {
        let mut client = self.client();
        let written = (|| {
            client.begin_state(state.len() as u64, checksum(state))?;
            for (place, part) in (0..).step_by(MAX_READ).zip(state.chunks(MAX_READ)) {
                client.write_state(place, part)?;
            }
            let end = machine.memory.end() + machine.chipset().video_bytes();
            for address in (0..end).step_by(PIECE as usize) {
                client.save_memory(address, PIECE.min(end - address))?;
            }
            client.end_state()
        })();
        written.map_err(|error| {
            // It says by itself that it is none.
            let _ = client.abandon_state();
            format!("its file cannot be written: {error}")
        })
    }

    fn patient(&self, wait_ms: u64) -> Client<Connection> {
        Client(Connection::with_timeout(self.0, time::milliseconds(wait_ms)))
    }

    /// Reads everything; RAM goes where it belongs.
    pub fn read(&self, vcpus: usize) -> Result<Saved, String> {
        let info = self.patient(PATIENCE_MS).open_state().map_err(failed("its file"))?;
        let mut client = self.client();
        let mut state = Vec::new();
        while (state.len() as u64) < info.state {
            let part = client.read_state(state.len() as u64, MAX_READ as u32).map_err(failed("its file"))?;
            if part.data.is_empty() {
                return Err("its file is shorter than it says".into());
            }
            state.extend_from_slice(&part.data);
        }
        let saved: Saved = decode(&state).map_err(|damage| format!("its file: {damage}"))?;
        if saved.version != VERSION {
            return Err(format!(
                "its file was written by another version of the monitor ({}, this is {VERSION})",
                saved.version
            ));
        }
        if saved.vcpus.len() != vcpus {
            return Err(format!(
                "its file is of a machine with {} virtual processors, this one has {vcpus}",
                saved.vcpus.len()
            ));
        }
        client.load_memory().map_err(failed("its file"))?;
        Ok(saved)
    }

    /// Removes whatever would have a machine that goes on begin here once more: its file, unless that stays, and one that was found.
    fn remove(&self, keep: bool) -> Result<(), String> {
        let mut client = self.client();
        let removed = if keep { Ok(()) } else { client.remove_state() };
        removed
            .and_then(|()| client.discard_state())
            .map_err(failed("its file cannot be removed"))
    }

    /// Looks for the file of a machine that is started, and removes it if its state was given up. Answers whether the machine is to go on with it.
    fn look(&self, vm: &Vm, give_up: bool) -> Result<bool, String> {
        let on_store = vm.disks.iter().any(|disk| matches!(disk.backing, DiskBacking::Store { .. }));
        let mut client = self.patient(if on_store { PATIENCE_MS } else { SHORT_PATIENCE_MS });
        let found = if give_up {
            client.discard_state().map(|()| false)
        } else {
            client.find_state()
        };
        match found {
            Ok(found) => Ok(found),
            // Whatever a datastore has of it, no disk of the machine goes on without it.
            Err(error) if !on_store => {
                log::debug!("no datastore is looked at for its state: {error}");
                Ok(false)
            }
            Err(error) => Err(format!("whether the machine is suspended cannot be seen: {error}")),
        }
    }
}

/// The state that a machine begins with, if it is not to begin anew.
pub fn begin(vm: &StartVm, vcpus: usize) -> Result<Option<Saved>, String> {
    let file = match (StateFile::new(), vm.begin) {
        (Ok(file), _) => file,
        (Err(_), Begin::AsFound | Begin::Anew) => return Ok(None),
        (Err(trouble), Begin::State { .. }) => refuse(&trouble),
    };
    let goes_on = match vm.begin {
        Begin::State { .. } => true,
        Begin::AsFound | Begin::Anew => file.look(&vm.config, vm.begin == Begin::Anew)?,
    };
    if !goes_on {
        return Ok(None);
    }
    match file.read(vcpus) {
        Ok(saved) => Ok(Some(saved)),
        Err(trouble) => refuse(&trouble),
    }
}

/// The machine's state cannot be taken up: it stays suspended.
pub fn refuse(trouble: &str) -> ! {
    log::error!("the machine cannot be resumed: {trouble}");
    exit(SUSPENDED, &format!("cannot be resumed: {trouble}"))
}

/// Waits until all processors have done their part.
#[expect(clippy::vec_box, reason = "each goes to a thread of its own, and not over its small stack")]
fn exchange(machine: &Machine<Kernel>, phase: Phase, saved: Vec<Box<SavedVcpu>>, now: u64) -> Result<Vec<Box<SavedVcpu>>, String> {
    machine.begin_exchange(phase, saved, now);
    let end = time::after(time::milliseconds(EXCHANGE_MS));
    loop {
        if let Some(done) = machine.exchanged() {
            return done.map_err(|trouble| trouble.to_string());
        }
        if sys::tsc() > end {
            return Err("a processor does not stand still".into());
        }
        let _ = sys::wait(0, Some(time::after(time::microseconds(LOOK_US))));
    }
}

/// Has the processors of a machine that stands still take their states down, and writes the file. The machine can go on afterwards.
pub fn save(machine: &Machine<Kernel>) -> Result<u64, String> {
    let file = StateFile::new()?;
    let now = sys::tsc();
    let vcpus = exchange(machine, Phase::Saving, Vec::new(), now)?;
    let saved = Saved {
        version: VERSION,
        elapsed: machine.clock.ns(now),
        wall_clock: machine.wall_clock,
        chipset: machine.chipset().save(),
        vcpus,
    };
    let state = encode(&saved).ok_or("the state of its processors and devices is too long")?;
    drop(saved);
    file.write(machine, &state)
}

/// Puts the state that was read into the machine, whose processors are parked. It stands still until [`Machine::go_on`].
pub fn restore(machine: &Machine<Kernel>, saved: Saved, now: u64) -> Result<(), String> {
    // The processors first: what the devices ask for at once, as for a line that was typed meanwhile, would not find them otherwise.
    exchange(machine, Phase::Restoring, saved.vcpus, now)?;
    let shift = machine.wall_clock.wrapping_sub(saved.wall_clock);
    machine
        .chipset()
        .restore(&saved.chipset, shift, machine.clock.ns(now), &machine.interrupts)?;
    Ok(())
}

/// The machine is about to go on with its state: no file has it begin there once more.
pub fn forget_file(begin: Begin) -> Result<(), String> {
    StateFile::new()?.remove(begin == Begin::State { keep: true })
}
