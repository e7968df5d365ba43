//! A driver that points its device at memory that was not lent for it: an NVMe controller (NVM Express Base 2.0) is to write what it says of itself there.

use crate::report::{line, verdict};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use tessera_abi::object::Rights;
use tessera_device::{DmaBuffer, Platform, Registers, platform, wait_until};
use tessera_rt::{Untyped, start_info, vm};

/// Registers (3.1.3).
mod register {
    pub const CONFIGURATION: u64 = 0x14;
    pub const STATUS: u64 = 0x1c;
    pub const ADMIN_LENGTHS: u64 = 0x24;
    pub const ADMIN_SUBMISSIONS: u64 = 0x28;
    pub const ADMIN_COMPLETIONS: u64 = 0x30;
    pub const SUBMISSION_TAIL: u64 = 0x1000;
    pub const COMPLETION_HEAD: u64 = 0x1004;
}

const PAGE: usize = 4096;
/// Entries of both queues.
const ENTRIES: usize = 16;
/// How long a command may take, in milliseconds.
const PATIENCE: u64 = 2000;
/// What stands in the memory that must not change.
const MARK: u64 = 0x5eed_0f7e_55e2_a000;

struct Controller {
    registers: Rc<dyn Registers>,
    platform: Rc<dyn Platform>,
    /// Submissions in the first page, completions in the second, room for an answer in the third.
    memory: DmaBuffer,
    commands: usize,
}

impl Controller {
    fn start() -> Result<Self, String> {
        let devices = (0..).zip(&start_info().devices);
        let mut all = devices.map(|(number, given)| platform::device(number, given).0);
        let device = all
            .find(|device| device.class() == (1, 8, 2))
            .ok_or("there is no NVMe controller")?;
        let registers = device.memory[0].clone().ok_or("it has no registers")?;
        let platform = device.platform.clone();
        registers.write32(register::CONFIGURATION, 0);
        if !wait_until(&*platform, PATIENCE, || registers.read32(register::STATUS) & 1 == 0) {
            return Err("it cannot be reset".into());
        }
        platform.allow_memory_access()?;
        let memory = platform.allocate(3 * PAGE).ok_or("there is no memory for it")?;
        registers.write32(register::ADMIN_LENGTHS, (ENTRIES as u32 - 1) << 16 | (ENTRIES as u32 - 1));
        registers.write64(register::ADMIN_SUBMISSIONS, memory.physical());
        registers.write64(register::ADMIN_COMPLETIONS, memory.physical() + PAGE as u64);
        registers.write32(register::CONFIGURATION, 4 << 20 | 6 << 16 | 1);
        if !wait_until(&*platform, PATIENCE, || registers.read32(register::STATUS) & 1 == 1) {
            return Err("it does not start".into());
        }
        Ok(Self {
            registers,
            platform,
            memory,
            commands: 0,
        })
    }

    /// Has it write its description to an address. Answers the command's status, if it ended.
    fn identify(&mut self, address: u64) -> Option<u16> {
        let (number, place) = (self.commands as u32 + 1, self.commands * 64);
        self.memory.write::<u32>(place, number << 16 | 6);
        self.memory.write::<u64>(place + 24, address);
        self.memory.write::<u32>(place + 40, 1);
        let done = PAGE + self.commands * 16;
        self.commands += 1;
        self.registers.write32(register::SUBMISSION_TAIL, self.commands as u32);
        let ended = || self.memory.read::<u32>(done + 12) >> 16 & 1 == 1;
        let ended = wait_until(&*self.platform, PATIENCE, ended);
        self.registers.write32(register::COMPLETION_HEAD, self.commands as u32);
        ended.then(|| (self.memory.read::<u32>(done + 12) >> 17) as u16)
    }
}

/// Strays once, and says what became of the memory.
pub fn run() {
    if let Err(problem) = stray() {
        verdict("stray", Some(format_args!("{problem}")));
    }
}

fn stray() -> Result<(), String> {
    let kernel = |error: tessera_abi::Error| error.text().to_string();
    let frame = Untyped::OWN.frame(1).map_err(kernel)?;
    let physical = frame.info().map_err(kernel)?.physical;
    let mapping = vm::map(frame, Rights::READ | Rights::WRITE, 0).map_err(kernel)?;
    let base = core::ptr::NonNull::new(mapping.as_ptr()).ok_or("a frame is mapped at 0")?;
    // SAFETY: the frame is fresh and zeroed, mapped for the life of the process, page-aligned, and nothing else knows of it.
    let victim = unsafe { DmaBuffer::new(base, physical, mapping.length) };
    for word in 0..PAGE / 8 {
        victim.write::<u64>(word * 8, MARK + word as u64);
    }
    let mut controller = Controller::start()?;
    // In memory that was lent it works.
    let answer = controller.memory.physical() + 2 * PAGE as u64;
    let status = controller.identify(answer);
    let written = (0..PAGE / 8).any(|word| controller.memory.read::<u64>(2 * PAGE + word * 8) != 0);
    if status != Some(0) || !written {
        return Err(format!("the controller does not work: status {status:?}, answer {written}"));
    }
    let status = controller.identify(physical);
    let changed = (0..PAGE / 8).any(|word| victim.read::<u64>(word * 8) != MARK + word as u64);
    line(format_args!(
        "stray: at {physical:#x}, status {status:?}, memory {}",
        if changed { "changed" } else { "unchanged" }
    ));
    // And works again.
    let status = controller.identify(answer);
    if status != Some(0) {
        return Err(format!("the controller does not work any more: status {status:?}"));
    }
    verdict("stray", None);
    Ok(())
}
