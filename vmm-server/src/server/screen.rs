//! The screen's memory, which VMX looks at, and the ring with what people type, which VMX writes.

use super::setup::failed;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use tessera_manifest::slots as fixed;
use tessera_proto::{CallError, FailureKind, Slots, init};
use tessera_ring::Reader;
use tessera_rt::{
    CNode, Connection, Endpoint, Frame, GuestSpace, abi::LARGE_PAGE_SIZE, abi::object::Rights, log, require, slots, time, vm,
};
use tessera_screen::{EVENT_LENGTH, Event, INPUT, Memory, PIECE_BYTES, PIECES, REGISTERS, VIDEO_BYTES};
use tessera_vmm::devices::vga::{Display, Surroundings};

const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);
/// After init had no memory for a piece of the video RAM it is not asked again for so long.
const PATIENCE_MS: u64 = 1000;

/// A piece of the video RAM, as the guest sees it.
struct Piece {
    /// A capability for the guest's mapping alone.
    frame: Frame,
    mapped: bool,
}

/// The guest's view of its video RAM, and the ring.
struct Screen {
    guest: GuestSpace,
    /// Where the monitor has the video RAM.
    base: u64,
    /// The pieces that there are.
    pieces: [Option<Piece>; PIECES],
    /// Where the guest wants it.
    address: Option<u32>,
    /// No piece is asked for before (TSC).
    next_try: u64,
    /// That there is no memory was said.
    told_of_memory: bool,
    /// That it could not be mapped was said.
    told: bool,
    input: Reader<'static>,
}

impl core::fmt::Debug for Screen {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Screen")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Screen {
    /// Maps a piece where the guest wants it. Where it cannot be mapped, as over RAM, accesses come here one by one.
    fn show(&mut self, piece: usize) {
        let (Some(address), Some(Some(shown))) = (self.address, self.pieces.get_mut(piece)) else {
            return;
        };
        let address = u64::from(address) + piece as u64 * PIECE_BYTES;
        match shown.frame.map_guest(self.guest, address, READ_WRITE, 0) {
            Ok(()) => shown.mapped = true,
            // A guest may try as often as it likes.
            Err(error) if !core::mem::replace(&mut self.told, true) => log::info!("the video RAM is not at {address:#x}: {}", error.text()),
            Err(_) => {}
        }
    }

    /// Takes up a piece of the video RAM from init, which makes it if it is not there and `make` says so, and shows it to the guest.
    fn take(&mut self, video: &mut Memory, piece: usize, make: bool) -> Result<(), CallError> {
        let own = slots::take_range(2)?;
        let shown = own + 1;
        let taken = (|| {
            let mut init = init::Client(Connection::new(Endpoint::new(fixed::INIT)));
            init.video_memory(piece as u32, make, Slots(own))?;
            CNode::OWN.copy(shown, CNode::OWN, own, Rights::all(), 0)?;
            let address = self.base + piece as u64 * PIECE_BYTES;
            Ok(vm::map_at(Frame::new(own), address, PIECE_BYTES, READ_WRITE)?)
        })();
        if let Err(error) = taken {
            slots::free_range(own, 2);
            return Err(error);
        }
        // SAFETY: it was mapped where `video` has it, for the life of the process, and nobody else here uses it.
        unsafe { video.add(piece) };
        self.pieces[piece] = Some(Piece {
            frame: Frame::new(shown),
            mapped: false,
        });
        self.show(piece);
        Ok(())
    }
}

impl Surroundings for Screen {
    fn place(&mut self, address: Option<u32>) {
        for shown in self.pieces.iter_mut().flatten() {
            if core::mem::take(&mut shown.mapped) {
                // It fails only when nothing is mapped, which is as good.
                let _ = shown.frame.unmap();
            }
        }
        self.address = address;
        (0..PIECES).for_each(|piece| self.show(piece));
    }

    fn make(&mut self, video: &mut Memory, piece: usize) {
        if piece >= PIECES || self.pieces[piece].is_some() || time::now() < self.next_try {
            return;
        }
        if let Err(error) = self.take(video, piece, true) {
            self.next_try = time::after(time::milliseconds(PATIENCE_MS));
            if !core::mem::replace(&mut self.told_of_memory, true) {
                log::warn!("the screen does not show all that the guest draws: {error}");
            }
        }
    }

    fn shows(&self, piece: usize) -> bool {
        self.pieces
            .get(piece)
            .is_some_and(|shown| shown.as_ref().is_some_and(|shown| shown.mapped))
    }

    fn event(&mut self) -> Option<Event> {
        // A VMX that writes nonsense is not typed for.
        self.input.resynchronise();
        let mut bytes = [0; EVENT_LENGTH];
        while self.input.available() >= EVENT_LENGTH {
            self.input.read(&mut bytes);
            if let Some(event) = Event::decode(bytes) {
                return Some(event);
            }
        }
        None
    }
}

const CANNOT: &str = "the screen's memory cannot be mapped";

fn map(name: &str) -> Result<vm::Mapping, String> {
    vm::map(Frame::new(require(name)), READ_WRITE, 0).map_err(failed(CANNOT))
}

/// Maps what init granted, and what there is of the video RAM: a resumed machine has what it had.
pub fn attach(guest: GuestSpace) -> Result<Display, String> {
    let (registers, input) = (map(REGISTERS)?, map(INPUT)?);
    let base = vm::take(VIDEO_BYTES, LARGE_PAGE_SIZE as u64).map_err(failed(CANNOT))?;
    // SAFETY: the addresses were taken for this, and pieces are added when they are mapped there. The others stay mapped for the life of the process, and only these use them.
    let (mut video, registers, input) = unsafe {
        (
            Memory::in_pieces(base as *mut u8, VIDEO_BYTES as usize),
            Memory::new(registers.as_ptr(), registers.length),
            Reader::attach(input.as_ptr(), input.length),
        )
    };
    let mut screen = Screen {
        guest,
        base,
        pieces: [const { None }; PIECES],
        address: None,
        next_try: 0,
        told_of_memory: false,
        told: false,
        input: input.ok_or("the ring of the keyboard is too small")?,
    };
    for piece in 0..PIECES {
        match screen.take(&mut video, piece, false) {
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound => {}
            outcome => outcome.map_err(|error| error.to_string())?,
        }
    }
    Ok(Display {
        video,
        registers,
        surroundings: Box::new(screen),
    })
}
