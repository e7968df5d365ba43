//! The command ring (xHCI 1.2, 4.6).

use super::ring::{Block, Code, Next, kind};
use super::slot::{CONTEXT, CONTROL, Endpoint, REPORTS, SLOTS, Slot, Stage, State};
use super::{Controller, TABLET_PORT};
use crate::memory::GuestMemory;

/// Commands that are done at a time.
const MOST: usize = 64;
/// Address Device: the device is not told. Configure Endpoint: take all away.
const FLAG: u32 = 1 << 9;
/// Flags of an input context: the slot's own, the control endpoint's, endpoint 1 in's.
const OWN: u32 = 1;
const FIRST: u32 = 1 << CONTROL;
const THIRD: u32 = 1 << REPORTS;
/// Type of an endpoint in its context: interrupt, in.
const INTERRUPT_IN: u32 = 7;

/// Words of an input context (6.2.5): what is taken away and added, the slot's, and each endpoint's.
struct Input<'m> {
    memory: &'m GuestMemory,
    at: u64,
}

impl Input<'_> {
    fn word(&self, offset: u64) -> Result<u32, Code> {
        self.memory.read_u32(self.at.wrapping_add(offset)).ok_or(Code::BlockError)
    }

    fn flags(&self) -> Result<(u32, u32), Code> {
        Ok((self.word(0)?, self.word(4)?))
    }

    /// A context, behind those of input control.
    fn context(&self, number: u8) -> Result<[u32; 8], Code> {
        let mut words = [0; 8];
        for (place, word) in (0..).zip(&mut words) {
            *word = self.word(CONTEXT * (1 + u64::from(number)) + 4 * place)?;
        }
        Ok(words)
    }
}

/// Where an endpoint's context says that its ring is.
fn pointer(words: &[u32; 8]) -> u64 {
    u64::from(words[3]) << 32 | u64::from(words[2])
}

fn write(memory: &GuestMemory, at: u64, words: &[u32; 8]) -> Result<(), Code> {
    let mut bytes = [0; CONTEXT as usize];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    memory.write_slice(at, &bytes).ok_or(Code::BlockError)
}

impl Controller {
    /// Does what was written to the command ring, as far as there is room for the answers.
    pub(super) fn run_commands(&mut self, memory: &GuestMemory) {
        for _ in 0..MOST {
            if !self.commands_rung || !self.interrupter.events.has_room(1) {
                return;
            }
            self.commands_run = true;
            match self.commands.next(memory) {
                Next::Empty => self.commands_rung = false,
                Next::Broken => return self.die(),
                Next::Block(block, at) => {
                    self.commands.advance();
                    let (code, slot) = match self.command(block, memory) {
                        Ok(slot) => (Code::Success, slot),
                        Err(code) => (code, block.slot()),
                    };
                    self.tell_command(memory, at, code, slot);
                }
            }
        }
        // Whoever has more rings again.
        self.commands_rung = false;
    }

    /// Says how a command ended.
    pub(super) fn tell_command(&mut self, memory: &GuestMemory, at: u64, code: Code, slot: u8) {
        let event = Block {
            parameter: at,
            status: u32::from(code as u8) << 24,
            control: u32::from(kind::COMMAND_EVENT) << 10 | u32::from(slot) << 24,
        };
        self.tell(memory, event);
    }

    /// Does a command: the slot that it was about.
    fn command(&mut self, block: Block, memory: &GuestMemory) -> Result<u8, Code> {
        let number = block.slot();
        match block.kind() {
            kind::NO_OP_COMMAND => return Ok(0),
            kind::ENABLE_SLOT => return self.enable_slot(),
            kind::DISABLE_SLOT => self.disable_slot(number, memory)?,
            kind::ADDRESS_DEVICE => self.address_device(block, memory)?,
            kind::CONFIGURE_ENDPOINT => self.configure(block, memory)?,
            kind::EVALUATE_CONTEXT => self.evaluate(block, memory)?,
            kind::RESET_ENDPOINT => self.change(block, memory, State::Halted, State::Stopped)?,
            kind::STOP_ENDPOINT => self.change(block, memory, State::Running, State::Stopped)?,
            kind::SET_DEQUEUE => self.set_dequeue(block, memory)?,
            kind::RESET_DEVICE => self.reset_device(number, memory)?,
            _ => return Err(Code::BlockError),
        }
        Ok(number)
    }

    fn enable_slot(&mut self) -> Result<u8, Code> {
        let most = (self.enabled_slots as usize).min(SLOTS);
        let free = self.slots[..most]
            .iter()
            .position(|slot| slot.stage == Stage::Free)
            .ok_or(Code::NoSlots)?;
        self.slots[free] = Slot {
            stage: Stage::Enabled,
            ..Slot::default()
        };
        Ok(free as u8 + 1)
    }

    /// A slot that is in use.
    fn used(&mut self, number: u8) -> Result<&mut Slot, Code> {
        let slot = usize::from(number).checked_sub(1).and_then(|index| self.slots.get_mut(index));
        slot.filter(|slot| slot.stage != Stage::Free).ok_or(Code::SlotNotEnabled)
    }

    fn disable_slot(&mut self, number: u8, memory: &GuestMemory) -> Result<(), Code> {
        let slot = self.used(number)?;
        let told = slot.stage != Stage::Enabled;
        let context = slot.context;
        *slot = Slot::default();
        if told {
            Slot {
                context,
                ..Slot::default()
            }
            .tell_stage(memory, 0);
        }
        Ok(())
    }

    fn address_device(&mut self, block: Block, memory: &GuestMemory) -> Result<(), Code> {
        let number = block.slot();
        let quiet = block.has(FLAG);
        let (list, enabled) = (self.contexts, self.ports[TABLET_PORT].is_enabled());
        let slot = self.used(number)?;
        match (slot.stage, quiet) {
            (Stage::Enabled, _) | (Stage::Default, false) => {}
            _ => return Err(Code::ContextState),
        }
        let input = Input {
            memory,
            at: block.parameter & !0xf,
        };
        if input.flags()? != (0, OWN | FIRST) {
            return Err(Code::BlockError);
        }
        let (mut own, mut first) = (input.context(0)?, input.context(CONTROL)?);
        // At a root port, and one with a device.
        let (route, port) = (own[0] & 0xf_ffff, own[1] >> 16 & 0xff);
        if route != 0 || port != TABLET_PORT as u32 + 1 || !enabled {
            return Err(Code::TransactionError);
        }
        let context = memory.read_u64(list.wrapping_add(8 * u64::from(number))).ok_or(Code::Parameter)? & !0x3f;
        let address = if quiet { 0 } else { number };
        own[3] = (if quiet { 1 } else { 2 }) << 27 | u32::from(address);
        first[0] = first[0] & !7 | 1;
        write(memory, context, &own)?;
        write(memory, context.wrapping_add(CONTEXT), &first)?;
        *slot = Slot {
            stage: if quiet { Stage::Default } else { Stage::Addressed },
            context,
            control: Endpoint::running(pointer(&first)),
            reports: Endpoint::default(),
        };
        Ok(())
    }

    fn configure(&mut self, block: Block, memory: &GuestMemory) -> Result<(), Code> {
        let number = block.slot();
        let slot = self.used(number)?;
        if !matches!(slot.stage, Stage::Addressed | Stage::Configured) {
            return Err(Code::ContextState);
        }
        if block.has(FLAG) {
            slot.reports = Endpoint::default();
        } else {
            let input = Input {
                memory,
                at: block.parameter & !0xf,
            };
            let (taken, added) = input.flags()?;
            // The device has one endpoint beside the control endpoint, which is not configured.
            if taken & !THIRD != 0 || added & !(OWN | THIRD) != 0 {
                return Err(Code::Parameter);
            }
            let mut reports = if taken & THIRD != 0 {
                Endpoint::default()
            } else {
                slot.reports.clone()
            };
            if added & THIRD != 0 {
                let words = input.context(REPORTS)?;
                if words[1] >> 3 & 7 != INTERRUPT_IN {
                    return Err(Code::Parameter);
                }
                write(memory, slot.context.wrapping_add(CONTEXT * u64::from(REPORTS)), &words)?;
                reports = Endpoint::running(pointer(&words));
            }
            slot.reports = reports;
            if added & OWN != 0 {
                // How many contexts there are.
                let (entries, at) = (input.context(0)?[0] & 0xf800_0000, slot.context);
                if let Some(word) = memory.read_u32(at) {
                    let _ = memory.write_u32(at, word & 0x07ff_ffff | entries);
                }
            }
        }
        slot.stage = if slot.reports.state == State::Disabled {
            Stage::Addressed
        } else {
            Stage::Configured
        };
        slot.tell_endpoint(memory, REPORTS);
        slot.tell_stage(memory, number);
        self.tablet.forget();
        Ok(())
    }

    fn evaluate(&mut self, block: Block, memory: &GuestMemory) -> Result<(), Code> {
        let slot = self.used(block.slot())?;
        if slot.stage == Stage::Enabled {
            return Err(Code::ContextState);
        }
        let input = Input {
            memory,
            at: block.parameter & !0xf,
        };
        let (taken, added) = input.flags()?;
        if taken != 0 || added & !(OWN | FIRST) != 0 {
            return Err(Code::BlockError);
        }
        // Exit latency and interrupter; packet size of the control endpoint. They are the driver's to read, nothing hangs on them here.
        for (flag, context, mask, word) in [(OWN, 0, 0xffff, 1), (OWN, 0, 0xffc0_0000, 2), (FIRST, CONTROL, 0xffff_0000, 1)] {
            if added & flag != 0 {
                let at = slot.context.wrapping_add(CONTEXT * u64::from(context) + 4 * word);
                let (new, old) = (input.context(context)?[word as usize], memory.read_u32(at).ok_or(Code::BlockError)?);
                memory.write_u32(at, old & !mask | new & mask).ok_or(Code::BlockError)?;
            }
        }
        Ok(())
    }

    /// An endpoint that a command is about, and its slot.
    fn at_endpoint(&mut self, block: Block) -> Result<&mut Slot, Code> {
        let slot = self.used(block.slot())?;
        let there = slot
            .endpoint(block.endpoint())
            .is_some_and(|endpoint| endpoint.state != State::Disabled);
        if there { Ok(slot) } else { Err(Code::EndpointNotEnabled) }
    }

    /// Brings an endpoint from one state to another.
    fn change(&mut self, block: Block, memory: &GuestMemory, from: State, to: State) -> Result<(), Code> {
        let slot = self.at_endpoint(block)?;
        let endpoint = slot.endpoint(block.endpoint()).ok_or(Code::EndpointNotEnabled)?;
        if endpoint.state != from {
            return Err(Code::ContextState);
        }
        endpoint.state = to;
        (endpoint.rung, endpoint.polled) = (false, false);
        slot.tell_endpoint(memory, block.endpoint());
        if block.endpoint() == REPORTS {
            self.tablet.forget();
        }
        Ok(())
    }

    fn set_dequeue(&mut self, block: Block, memory: &GuestMemory) -> Result<(), Code> {
        let slot = self.at_endpoint(block)?;
        let endpoint = slot.endpoint(block.endpoint()).ok_or(Code::EndpointNotEnabled)?;
        if !matches!(endpoint.state, State::Stopped | State::Error) {
            return Err(Code::ContextState);
        }
        endpoint.move_to(block.parameter);
        endpoint.state = State::Stopped;
        slot.tell_endpoint(memory, block.endpoint());
        Ok(())
    }

    fn reset_device(&mut self, number: u8, memory: &GuestMemory) -> Result<(), Code> {
        let slot = self.used(number)?;
        if !matches!(slot.stage, Stage::Addressed | Stage::Configured) {
            return Err(Code::ContextState);
        }
        slot.stage = Stage::Default;
        slot.reports = Endpoint::default();
        slot.tell_endpoint(memory, REPORTS);
        slot.tell_stage(memory, 0);
        self.tablet.forget();
        Ok(())
    }
}
