//! Borrowing a virtual machine's RAM from init.
#![allow(unsafe_code)]

use crate::{platform, ram::Ram, ram::RamFrame};
use alloc::{rc::Rc, vec::Vec};
use core::ptr::NonNull;
use tessera_proto::vm_memory::{Client, MachineConfig, StateKind};
use tessera_proto::{CallError, Failure, FailureKind, Slots};
use tessera_rt::{
    AddressSpace, Connection, Endpoint, Frame,
    abi::{Error, LARGE_PAGE_SIZE, PAGE_SIZE, object::Rights},
    log, slots, start, vm,
};

const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);

/// A machine's RAM and state frame, mapped here as long as this lives. Given back to init when dropped: no device may work there any more.
#[derive(Debug)]
pub struct Loan {
    machine: u64,
    /// Frames of both.
    slots: Vec<u32>,
    /// Addresses that are taken.
    regions: Vec<(u64, u64)>,
    ram: Option<Rc<Ram>>,
    state: Option<(NonNull<u8>, usize)>,
}

impl Loan {
    /// Borrows a machine's RAM and maps it, and the state frame for devices of a kind, which has to have `state` bytes. Bits `ending` of the server's own notification are set when the machine ends and init waits for the RAM.
    ///
    /// # Errors
    /// For the one who asked: what went wrong, with init's words.
    pub fn new(config: &MachineConfig, ending: u64, kind: StateKind, state: usize) -> Result<Self, Failure> {
        let number = config.machine;
        let mut init = init().map_err(refused)?;
        let signal = platform::signal(ending).map_err(kernel)?;
        let borrowed = init.borrow_memory([signal.slot()], number);
        slots::free(signal.slot());
        borrowed.map_err(refused)?;
        // From here on its end gives everything back.
        let mut loan = Self {
            machine: number,
            slots: Vec::new(),
            regions: Vec::new(),
            ram: None,
            state: None,
        };
        loan.map(config, &mut init, kind, state)?;
        Ok(loan)
    }

    fn map(&mut self, config: &MachineConfig, init: &mut Client<Connection>, kind: StateKind, wanted: usize) -> Result<(), Failure> {
        let number = config.machine;
        let memory = config.memory.saturating_add(config.video);
        let base = vm::take(memory, LARGE_PAGE_SIZE as u64).map_err(kernel)?;
        self.regions.push((base, memory));
        let mut frames = Vec::new();
        let mut end = 0;
        for frame in 0..config.frames {
            let slot = slots::take().map_err(kernel)?;
            self.slots.push(slot);
            let place = init.frame(number, frame, Slots(slot)).map_err(refused)?;
            let status = Frame::new(slot).info().map_err(kernel)?;
            if place.address != end || status.pages * PAGE_SIZE as u64 != place.length || end + place.length > memory {
                return Err(Failure::new(
                    FailureKind::Internal,
                    "init's account of a guest's memory makes no sense",
                ));
            }
            Frame::new(slot).map(AddressSpace::OWN, base + end, READ_WRITE, 0).map_err(kernel)?;
            frames.push(RamFrame {
                length: place.length,
                physical: status.physical,
            });
            end += place.length;
        }
        let slot = slots::take().map_err(kernel)?;
        self.slots.push(slot);
        init.state(number, kind, Slots(slot)).map_err(refused)?;
        let state = vm::map(Frame::new(slot), READ_WRITE, 0).map_err(kernel)?;
        self.regions.push((state.address, state.length as u64));
        if state.length < wanted {
            return Err(Failure::new(FailureKind::Internal, "init's state frame is too small"));
        }
        let base = NonNull::new(base as *mut u8).ok_or(Failure::from(FailureKind::Internal))?;
        self.state = NonNull::new(state.as_ptr()).map(|place| (place, state.length));
        // SAFETY: all frames were mapped there, one behind the other; they stay until the loan is dropped, which by its contract the users of the RAM do not outlive.
        self.ram = Some(Rc::new(unsafe { Ram::new(base, &frames) }));
        log::debug!("{}: borrowed {} MiB in {} frames", config.name, config.memory >> 20, frames.len());
        Ok(())
    }

    /// The RAM. Whoever keeps it lets go of it before the loan ends.
    ///
    /// # Panics
    /// Never: a loan is only given out with its RAM mapped.
    #[must_use]
    pub fn ram(&self) -> Rc<Ram> {
        self.ram.clone().expect("a loan is given out with its RAM mapped")
    }

    /// The state frame: where it is mapped, and its bytes. It holds no Rust object but what its borrowers put there.
    ///
    /// # Panics
    /// Never, as [`Self::ram`].
    #[must_use]
    pub fn state(&self) -> (NonNull<u8>, usize) {
        self.state.expect("a loan is given out with its state mapped")
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        for slot in self.slots.drain(..) {
            let _ = Frame::new(slot).unmap();
            slots::free(slot);
        }
        for (address, length) in self.regions.drain(..) {
            vm::give(address, length);
        }
        if let Err(error) = init().and_then(|mut init| init.release(self.machine)) {
            log::error!("the memory of a virtual machine cannot be given back: {error}");
        }
    }
}

/// init, if the manifest lets this server borrow RAM.
///
/// # Errors
/// It does not.
pub fn init() -> Result<Client<Connection>, CallError> {
    let grant = start::find("guests").ok_or(CallError::Failed(Failure::new(
        FailureKind::NotAllowed,
        "this server is not lent the memory of guests: grant it `guests = { use = \"init\" }`",
    )))?;
    Ok(Client(Connection::new(Endpoint::new(grant.slot))))
}

/// init's refusal, for whoever caused the question.
#[must_use]
pub fn refused(error: CallError) -> Failure {
    match error {
        CallError::Failed(failure) => failure,
        error => Failure::new(FailureKind::Internal, format_args!("init: {error}")),
    }
}

fn kernel(error: Error) -> Failure {
    Failure::new(FailureKind::Exhausted, format_args!("mapping a guest's memory: {}", error.text()))
}
