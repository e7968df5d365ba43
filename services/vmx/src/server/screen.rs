//! The screen: video RAM and registers are looked at, a ring is written. The video RAM comes in pieces: which there are, the monitor says beside the registers, and init gives them.

use super::{fail, map};
use alloc::string::String;
use tessera_manifest::slots as fixed;
use tessera_proto::{
    Call, CallError, Failure, FailureKind, Slots, init,
    vm_screen::{self, Keys, MAX_DATA, MAX_KEYS, MAX_LINES, ScreenInfo, View, ViewChunk},
};
use tessera_ring::Writer;
use tessera_rt::{
    Connection, Endpoint, Frame, Notification, abi::LARGE_PAGE_SIZE, abi::object::Rights, exit, require, slots, start, time, vm,
};
use tessera_screen::{EVENT_LENGTH, Event, INPUT, Memory, PIECE_BYTES, PIECES, REGISTERS, Registers, VIDEO_BYTES, pieces};
use tessera_vmx::deflate::Compressor;
use tessera_vmx::picture::Picture;
use tessera_vmx::png::Png;
use tessera_vmx::rfb::Input;
use tessera_vmx::views::{Refusal, Views, typed};

extern crate alloc;

/// The keyboard's and the mouse's ring.
struct Keyboard {
    ring: Writer<'static>,
    /// Tells the VMM that there is something.
    vmm: Notification,
}

impl Keyboard {
    fn room(&self) -> usize {
        self.ring.room() / EVENT_LENGTH
    }
}

impl Input for Keyboard {
    fn send(&mut self, event: Event) {
        if self.room() > 0 {
            self.ring.write(&event.encode());
            // The VMM may be ending; init will say so.
            let _ = self.vmm.signal();
        }
    }

    fn type_text(&mut self, text: &str) {
        for event in typed(text, self.room()).0 {
            self.send(event);
        }
    }
}

/// One screen.
pub struct Screen {
    /// Where the video RAM is, or is to be.
    base: u64,
    video: Memory,
    registers: Memory,
    keyboard: Keyboard,
    views: Views,
    compressor: Compressor,
}

fn microseconds() -> u64 {
    time::from_ticks(time::now(), 1_000_000, time::hz())
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::TooMany => Failure::new(FailureKind::Exhausted, "too many look at this screen: close another view"),
        Refusal::Gone => Failure::new(FailureKind::NotFound, "this view has ended: open another"),
    }
}

impl Screen {
    /// Puts the memory in place; `None`: the machine has no screen.
    pub fn attach() -> Option<Self> {
        start::find(REGISTERS)?;
        let registers = map(REGISTERS, Rights::READ);
        let input = map(INPUT, Rights::READ | Rights::WRITE);
        let base = match vm::take(VIDEO_BYTES, LARGE_PAGE_SIZE as u64) {
            Ok(base) => base,
            Err(error) => fail("the video RAM", error),
        };
        // SAFETY: the addresses were taken for this, and pieces are added when they are mapped there. The others stay mapped for the life of the process, only these use them, and the first two are never written here.
        let (video, registers, ring) = unsafe {
            (
                Memory::in_pieces(base as *mut u8, VIDEO_BYTES as usize),
                Memory::new(registers.as_ptr(), registers.length),
                Writer::attach(input.as_ptr(), input.length),
            )
        };
        let Some(ring) = ring else {
            exit(1, "the ring of the keyboard is too small")
        };
        let compressor = Compressor::default();
        Some(Self {
            base,
            video,
            registers,
            keyboard: Keyboard {
                ring,
                vmm: Notification::new(require("vmm.signal")),
            },
            // No earlier instance gave these numbers out.
            views: Views::new(time::now(), compressor.clone()),
            compressor,
        })
    }

    fn picture(&mut self) -> Picture {
        let missing = pieces(&self.registers) & !self.video.pieces();
        for piece in (0..PIECES).filter(|piece| missing >> piece & 1 != 0) {
            // One that the monitor tells of and init does not have stays black.
            let _ = self.take(piece);
        }
        Picture::of(&Registers::load(&self.registers))
    }

    /// Maps a piece of the video RAM.
    fn take(&mut self, piece: usize) -> Result<(), CallError> {
        let slot = slots::take()?;
        let taken = (|| {
            let mut init = init::Client(Connection::new(Endpoint::new(fixed::INIT)));
            init.video_memory(piece as u32, false, Slots(slot))?;
            let address = self.base + piece as u64 * PIECE_BYTES;
            Ok(vm::map_at(Frame::new(slot), address, PIECE_BYTES, Rights::READ)?)
        })();
        match taken {
            // SAFETY: it was mapped where the video RAM has it, for the life of the process, and is never written here.
            Ok(()) => unsafe { self.video.add(piece) },
            Err(_) => slots::free(slot),
        }
        taken
    }
}

impl vm_screen::Server for Screen {
    fn info(&mut self, _call: &mut Call) -> Result<ScreenInfo, Failure> {
        let picture = self.picture();
        let (width, height) = picture.size();
        let (columns, rows) = picture.text_size().unwrap_or((0, 0));
        Ok(ScreenInfo {
            mode: picture.name(),
            width: width as u32,
            height: height as u32,
            columns: columns as u32,
            rows: rows as u32,
            hash: picture.hash(&self.video),
            viewers: self.views.count() as u32,
        })
    }

    fn text(&mut self, _call: &mut Call, first: u32) -> Result<String, Failure> {
        let picture = self.picture();
        let mut text = String::new();
        for row in (first as usize..).take(MAX_LINES) {
            let Some(line) = picture.text_row(&self.video, row) else { break };
            text.push_str(&line);
            text.push('\n');
        }
        Ok(text)
    }

    fn open(&mut self, _call: &mut Call, view: View) -> Result<u64, Failure> {
        let picture = match view {
            View::Rfb => None,
            View::Picture { divisor } => Some(Png::new(self.picture(), divisor.into(), &self.compressor)),
        };
        self.views.open(picture, microseconds(), &mut self.keyboard).map_err(refused)
    }

    fn read(&mut self, _call: &mut Call, view: u64, from: u64) -> Result<ViewChunk, Failure> {
        let picture = self.picture();
        let (data, last) = self
            .views
            .read(view, from, MAX_DATA, &picture, &self.video, &microseconds)
            .map_err(refused)?;
        Ok(ViewChunk { data, last })
    }

    fn write(&mut self, _call: &mut Call, view: u64, data: &[u8]) -> Result<u32, Failure> {
        let picture = self.picture();
        self.views.write(view, data, &picture, &mut self.keyboard).map_err(refused)?;
        Ok(data.len() as u32)
    }

    fn close(&mut self, _call: &mut Call, view: u64) -> Result<(), Failure> {
        self.views.close(view, &mut self.keyboard);
        Ok(())
    }

    fn press(&mut self, _call: &mut Call, keys: Keys) -> Result<(), Failure> {
        if keys.codes.len() > MAX_KEYS {
            return Err(FailureKind::BadRequest.into());
        }
        if self.keyboard.room() < 2 * keys.codes.len() {
            return Err(Failure::new(FailureKind::BadState, "the guest does not take what was typed before"));
        }
        for code in &keys.codes {
            self.keyboard.send(Event::Key { code: *code, down: true });
        }
        for code in keys.codes.iter().rev() {
            self.keyboard.send(Event::Key { code: *code, down: false });
        }
        Ok(())
    }

    fn type_text(&mut self, _call: &mut Call, text: &str) -> Result<u32, Failure> {
        let (events, taken) = typed(text, self.keyboard.room());
        for event in events {
            self.keyboard.send(event);
        }
        Ok(taken as u32)
    }
}
