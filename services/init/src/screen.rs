//! What a machine's monitor and its VMX share of a screen. The video RAM is made in pieces: the first at the machine's start, each other when the monitor, or who reads the machine's state, first needs it. So
//! a machine has of it what its guest uses. Nothing is set aside for the others: when memory is used up, what a guest draws there is lost until there is some, as the monitor sees to.

use crate::arrange::Item;
use crate::buddy::Block;
use crate::loan::{Lendable, READ_WRITE};
use crate::machine::Machine;
use crate::process::trouble;
use crate::root::Root;
use crate::vm::Running;
use alloc::vec;
use tessera_abi::PAGE_SIZE;
use tessera_abi::object::{ObjectKind, Rights};
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::{CNode, Untyped, slots};
use tessera_screen::{INPUT, PIECE_BYTES, PIECES, REGISTERS};

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages of a piece of the video RAM.
const PIECE_PAGES: u64 = PIECE_BYTES / PAGE;
/// Pages of the ring for what is typed and moved at a screen.
const INPUT_PAGES: u64 = 2;

/// The video RAM of a machine: of each piece that was made its memory and the slot of its frame.
#[derive(Debug, Default)]
pub struct VideoRam {
    pieces: [Option<(Block, u32)>; PIECES],
}

impl VideoRam {
    /// The slot of a piece's frame; it is made if it is not there and `make` says so.
    ///
    /// # Errors
    /// `NotFound`: the piece is not there, or there is none of that number. `Exhausted`.
    pub fn piece(&mut self, machine: &mut Machine, piece: u32, make: bool) -> Result<u32, Failure> {
        let none = || Failure::new(FailureKind::NotFound, format_args!("piece {piece} of the video RAM is not there"));
        let place = self.pieces.get_mut(piece as usize).ok_or_else(none)?;
        if let Some((_, slot)) = place {
            return Ok(*slot);
        }
        if !make {
            return Err(none());
        }
        let block = machine.take(PIECE_PAGES.ilog2()).ok_or_else(|| {
            Failure::new(
                FailureKind::Exhausted,
                "there is no memory for its screen: stop another virtual machine, or switch its display off",
            )
        })?;
        let made = slots::take().map_err(trouble("init has no slot left")).and_then(|slot| {
            Untyped::new(block.slot)
                .retype(ObjectKind::Frame, PIECE_PAGES, CNode::OWN, slot, 1)
                .inspect_err(|_| slots::free(slot))
                .map_err(trouble("making its video RAM"))?;
            Ok(slot)
        });
        match made {
            Ok(slot) => {
                *place = Some((block, slot));
                Ok(slot)
            }
            Err(failure) => {
                machine.reclaim(vec![block]);
                Err(failure)
            }
        }
    }

    /// Pages that were made.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pieces.iter().flatten().map(|(block, _)| block.pages()).sum()
    }

    /// Takes everything back.
    pub fn reclaim(self, machine: &mut Machine) {
        for (block, slot) in self.pieces.into_iter().flatten() {
            machine.reclaim(vec![block]);
            slots::free(slot);
        }
    }
}

impl Running {
    /// Makes the page with the card's registers, the ring of events and the first piece of the video RAM.
    pub(crate) fn make_screen(&mut self, machine: &mut Machine) -> Result<(), Failure> {
        let items = [Item::whole_frame(1), Item::whole_frame(INPUT_PAGES)];
        let [registers, input] = Self::make_shared(machine, &items, &mut self.shared, &mut self.slots)?;
        self.lent.video.get_or_insert_default().piece(machine, 0, true)?;
        self.screen = vec![(REGISTERS, registers, PAGE), (INPUT, input, INPUT_PAGES * PAGE)];
        Ok(())
    }
}

impl Lendable {
    /// The slot of a piece's frame, as [`VideoRam::piece`].
    pub(crate) fn video_piece(&mut self, machine: &mut Machine, piece: u32, make: bool) -> Result<u32, Failure> {
        let none = || Failure::new(FailureKind::NotFound, "the virtual machine has no screen");
        self.video.as_mut().ok_or_else(none)?.piece(machine, piece, make)
    }
}

impl Root {
    /// Gives a process of a machine with a screen a piece of its video RAM: its monitor, which alone has pieces made, to write, its VMX to read.
    pub(crate) fn give_video(&mut self, call: &mut Call, server: usize, piece: u32, make: bool) -> Result<(), Failure> {
        let record = &self.servers[server];
        let monitor = self.machines.is_vmm(&self.manifest, record.server);
        let of_machine = record.vm.and_then(|vm| self.machines.entries[vm].running.as_mut());
        let none = || Failure::new(FailureKind::NotFound, "the server belongs to no running virtual machine");
        let running = of_machine.ok_or_else(none)?;
        if make && !monitor {
            return Err(FailureKind::NotAllowed.into());
        }
        let slot = running.lent.video_piece(&mut self.machine, piece, make)?;
        let rights = if monitor { READ_WRITE } else { Rights::READ };
        self.give_frame(call, slot, rights)
    }
}
