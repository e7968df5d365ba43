//! Borrowing a virtual machine's RAM from init.
#![allow(unsafe_code)]

use crate::{platform, ram::Ram, ram::RamFrame};
use alloc::{rc::Rc, vec::Vec};
use core::cell::RefCell;
use core::ops::Range;
use core::ptr::NonNull;
use tessera_proto::vm_memory::{Client, MachineConfig, StateKind};
use tessera_proto::{CallError, Failure, FailureKind, Slots};
use tessera_rt::{
    AddressSpace, Connection, Endpoint, Frame,
    abi::{Error, LARGE_PAGE_SIZE, PAGE_SIZE, object::Rights},
    log, slots, start, vm,
};
use tessera_screen::{PIECE_BYTES, PIECES, VIDEO_BYTES};

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
    video: RefCell<Video>,
}

/// A machine's video RAM, as far as it is mapped here.
#[derive(Debug, Default)]
struct Video {
    /// Where its first byte is to be, and its bytes.
    place: (u64, u64),
    /// Slots of the frames of its pieces.
    pieces: [Option<u32>; PIECES],
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
            video: RefCell::default(),
        };
        loan.map(config, &mut init, kind, state)?;
        Ok(loan)
    }

    fn map(&mut self, config: &MachineConfig, init: &mut Client<Connection>, kind: StateKind, wanted: usize) -> Result<(), Failure> {
        let number = config.machine;
        let memory = config.memory;
        // The video RAM is mapped behind the RAM, which is a multiple of large pages.
        let all = memory.next_multiple_of(LARGE_PAGE_SIZE as u64).saturating_add(config.video);
        let base = vm::take(all, LARGE_PAGE_SIZE as u64).map_err(kernel)?;
        self.regions.push((base, all));
        self.video.get_mut().place = (base + all - config.video, config.video);
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

impl Loan {
    /// Maps the pieces of the machine's video RAM that were made since it was looked at last.
    ///
    /// # Errors
    /// What init or the kernel refuses.
    pub fn look_at_video(&self) -> Result<(), Failure> {
        let mut video = self.video.borrow_mut();
        for piece in 0..video.count() {
            match video.take(self.machine, piece, false) {
                Err(failure) if failure.kind == FailureKind::NotFound => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Copies bytes of the video RAM out; where no piece was there when it was looked at, they are zero. `None` unless all are video RAM.
    pub fn read_video(&self, offset: u64, bytes: &mut [u8]) -> Option<()> {
        let video = self.video.borrow();
        in_pieces(video.place, offset, bytes.len(), |piece, place, range| {
            let part = &mut bytes[range];
            match video.pieces[piece] {
                // SAFETY: the piece is mapped, to its end at least, until the loan is dropped; `part` is Rust's own memory. If the guest writes meanwhile, what comes is a mixture.
                Some(_) => unsafe { core::ptr::copy_nonoverlapping(place as *const u8, part.as_mut_ptr(), part.len()) },
                None => part.fill(0),
            }
            Ok(())
        })?
        .ok()
    }

    /// Copies bytes into the video RAM; pieces that are not there are made. `None` unless all are video RAM.
    ///
    /// # Errors
    /// What init or the kernel refuses.
    pub fn write_video(&self, offset: u64, bytes: &[u8]) -> Option<Result<(), Failure>> {
        let mut video = self.video.borrow_mut();
        in_pieces(video.place, offset, bytes.len(), |piece, place, range| {
            video.take(self.machine, piece, true)?;
            let part = &bytes[range];
            // SAFETY: as in `read_video`; it is mapped to be written, and holds no Rust object.
            unsafe { core::ptr::copy_nonoverlapping(part.as_ptr(), place as *mut u8, part.len()) };
            Ok(())
        })
    }
}

impl Video {
    fn count(&self) -> usize {
        ((self.place.1 / PIECE_BYTES) as usize).min(PIECES)
    }

    /// Maps a piece, if that was not done before.
    fn take(&mut self, machine: u64, piece: usize, make: bool) -> Result<(), Failure> {
        if self.pieces[piece].is_some() {
            return Ok(());
        }
        let slot = slots::take().map_err(kernel)?;
        let address = self.place.0 + piece as u64 * PIECE_BYTES;
        let mapped = (|| {
            let mut init = init().map_err(refused)?;
            init.video(machine, piece as u32, make, Slots(slot)).map_err(refused)?;
            vm::map_at(Frame::new(slot), address, PIECE_BYTES, READ_WRITE).map_err(kernel)
        })();
        match mapped {
            Ok(()) => self.pieces[piece] = Some(slot),
            Err(_) => slots::free(slot),
        }
        mapped
    }
}

/// Calls `act` for the part of a range that is in each piece of the video RAM, which has `all` bytes from `base` on: the piece, where the part is mapped or would be, and which bytes of the range it is. `None` unless all are
/// video RAM.
fn in_pieces(
    (base, all): (u64, u64),
    offset: u64,
    length: usize,
    mut act: impl FnMut(usize, u64, Range<usize>) -> Result<(), Failure>,
) -> Option<Result<(), Failure>> {
    let end = offset.checked_add(length as u64).filter(|end| *end <= all.min(VIDEO_BYTES))?;
    let mut at = offset;
    while at < end {
        let next = end.min((at / PIECE_BYTES + 1) * PIECE_BYTES);
        if let Err(failure) = act(
            (at / PIECE_BYTES) as usize,
            base + at,
            (at - offset) as usize..(next - offset) as usize,
        ) {
            return Some(Err(failure));
        }
        at = next;
    }
    Some(Ok(()))
}

impl Drop for Loan {
    fn drop(&mut self) {
        let pieces = self.video.get_mut().pieces.into_iter().flatten();
        for slot in self.slots.drain(..).chain(pieces) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_range_is_cut_at_the_ends_of_pieces() {
        let cut = |offset, length| {
            let mut parts = Vec::new();
            let outcome = in_pieces((0x1000, VIDEO_BYTES), offset, length, |piece, place, range| {
                parts.push((piece, place, range));
                Ok(())
            });
            outcome.map(|_| parts)
        };
        assert_eq!(cut(PIECE_BYTES, 4096).unwrap(), [(1, 0x1000 + PIECE_BYTES, 0..4096)]);
        assert_eq!(
            cut(PIECE_BYTES - 8, 12).unwrap(),
            [(0, 0x1000 + PIECE_BYTES - 8, 0..8), (1, 0x1000 + PIECE_BYTES, 8..12)]
        );
        assert_eq!(cut(VIDEO_BYTES - 4, 4).unwrap().len(), 1);
        assert!(cut(VIDEO_BYTES - 4, 5).is_none() && cut(u64::MAX, 2).is_none());
    }
}
