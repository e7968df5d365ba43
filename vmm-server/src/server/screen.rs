//! The screen's memory, which VMX looks at, and the ring with what people type, which VMX writes.

use super::setup::failed;
use alloc::boxed::Box;
use alloc::string::String;
use tessera_ring::Reader;
use tessera_rt::{CNode, Frame, GuestSpace, abi::object::Rights, log, require, slots, vm};
use tessera_screen::{EVENT_LENGTH, Event, INPUT, Memory, REGISTERS, VIDEO};
use tessera_vmm::devices::vga::{Display, Surroundings};

/// The guest's view of its video RAM, and the ring.
struct Screen {
    guest: GuestSpace,
    /// A capability for the guest's mapping alone.
    video: Frame,
    mapped: bool,
    /// That it could not be mapped was said.
    told: bool,
    input: Reader<'static>,
}

impl core::fmt::Debug for Screen {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Screen")
            .field("mapped", &self.mapped)
            .finish_non_exhaustive()
    }
}

impl Surroundings for Screen {
    fn place(&mut self, address: Option<u32>) {
        if core::mem::take(&mut self.mapped) {
            // It fails only when nothing is mapped, which is as good.
            let _ = self.video.unmap();
        }
        let Some(address) = address else { return };
        // Where it cannot be mapped, as over RAM, accesses come here one by one.
        match self.video.map_guest(self.guest, address.into(), Rights::READ | Rights::WRITE, 0) {
            Ok(()) => self.mapped = true,
            // A guest may try as often as it likes.
            Err(error) if !core::mem::replace(&mut self.told, true) => log::info!("the video RAM is not at {address:#x}: {}", error.text()),
            Err(_) => {}
        }
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

fn map(name: &str) -> Result<vm::Mapping, String> {
    vm::map(Frame::new(require(name)), Rights::READ | Rights::WRITE, 0).map_err(failed("the screen's memory cannot be mapped"))
}

/// Maps what init granted.
pub fn attach(guest: GuestSpace) -> Result<Display, String> {
    let (video, registers, input) = (map(VIDEO)?, map(REGISTERS)?, map(INPUT)?);
    let copy = slots::take().map_err(failed("the screen's memory cannot be mapped"))?;
    CNode::OWN
        .copy(copy, CNode::OWN, video.frame.slot(), Rights::all(), 0)
        .map_err(failed("the screen's memory cannot be mapped"))?;
    // SAFETY: all of them stay mapped for the life of the process, and only these use them.
    let (video, registers, input) = unsafe {
        (
            Memory::new(video.as_ptr(), video.length),
            Memory::new(registers.as_ptr(), registers.length),
            Reader::attach(input.as_ptr(), input.length),
        )
    };
    Ok(Display {
        video,
        registers,
        surroundings: Box::new(Screen {
            guest,
            video: Frame::new(copy),
            mapped: false,
            told: false,
            input: input.ok_or("the ring of the keyboard is too small")?,
        }),
    })
}
