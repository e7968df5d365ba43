//! Threads, as kernel objects. [`crate::thread`] makes running ones.

use super::{AddressSpace, CNode, Endpoint, Notification, SchedContext, ask, order};
use tessera_abi::Error;
use tessera_abi::object::thread;
use tessera_manifest::slots;

capability! {
    /// A thread with its message buffer.
    Thread
}

/// What a thread needs before it can start.
#[derive(Clone, Copy, Debug)]
pub struct ThreadConfig {
    /// Its capability table.
    pub cnode: CNode,
    /// Its address space.
    pub space: AddressSpace,
    /// Who is told of its faults.
    pub fault: Option<Endpoint>,
    /// Its processor time.
    pub sched_context: SchedContext,
    /// Priority, 0 to 63.
    pub priority: u8,
    /// Processor.
    pub cpu: u32,
    /// Flags of [`tessera_abi::object::thread`].
    pub flags: u64,
    /// Address where its message buffer is mapped.
    pub utcb: u64,
}

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStatus {
    /// A [`tessera_abi::object::thread::ThreadState`].
    pub state: u8,
    /// Priority.
    pub priority: u8,
    /// Processor.
    pub cpu: u32,
    /// Flags.
    pub flags: u64,
    /// TSC ticks it ran.
    pub consumed: u64,
    /// Times it was switched to.
    pub switches: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
}

impl Thread {
    /// The server's first thread.
    pub const FIRST: Self = Self::new(slots::THREAD);

    /// Gives a stopped thread what it needs.
    ///
    /// # Errors
    /// `BadState` unless stopped, `BadArgument`, `NoMemory` (page tables).
    pub fn configure(self, config: &ThreadConfig) -> Result<(), Error> {
        let packed = u64::from(config.priority) | u64::from(config.cpu & 0xff) << 8 | config.flags << 16;
        let fault = config.fault.map_or(0, Endpoint::slot);
        order(
            self.slot(),
            thread::CONFIGURE,
            &[
                config.cnode.slot().into(),
                config.space.slot().into(),
                fault.into(),
                config.sched_context.slot().into(),
                packed,
                config.utcb,
            ],
        )
    }

    /// Starts it at an instruction, with a stack and an argument in `rdi`.
    ///
    /// # Errors
    /// `BadState` unless configured and stopped, `BadArgument` for addresses no program can use.
    pub fn start(self, rip: u64, rsp: u64, argument: u64) -> Result<(), Error> {
        order(self.slot(), thread::START, &[rip, rsp, argument])
    }

    /// Stops it wherever it is.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn stop(self) -> Result<(), Error> {
        order(self.slot(), thread::STOP, &[])
    }

    /// Changes its priority; not above the caller's own.
    ///
    /// # Errors
    /// `BadArgument`, `NoRight`.
    pub fn set_priority(self, priority: u8) -> Result<(), Error> {
        order(self.slot(), thread::SET_PRIORITY, &[priority.into()])
    }

    /// Binds a notification, whose signals then end the thread's waiting for messages and its running of a vCPU.
    ///
    /// # Errors
    /// `BadState` if either is bound already, `NoRight`.
    pub fn bind(self, notification: Option<Notification>) -> Result<(), Error> {
        order(self.slot(), thread::BIND, &[notification.map_or(0, Notification::slot).into()])
    }

    /// What it is doing.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn info(self) -> Result<ThreadStatus, Error> {
        let [state, packed, consumed, switches, rip, rsp] = ask(self.slot(), thread::INFO, &[])?;
        Ok(ThreadStatus {
            state: state as u8,
            priority: packed as u8,
            cpu: (packed >> 8 & 0xff) as u32,
            flags: packed >> 16,
            consumed,
            switches,
            rip,
            rsp,
        })
    }

    /// General registers of a thread that does not run: rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15, flags.
    ///
    /// # Errors
    /// `BadState` while it runs.
    pub fn registers(self) -> Result<[u64; 16], Error> {
        let mut registers = [0; 16];
        for (part, chunk) in registers.chunks_mut(6).enumerate() {
            let words = ask(self.slot(), thread::REGISTERS, &[part as u64])?;
            chunk.copy_from_slice(&words[..chunk.len()]);
        }
        Ok(registers)
    }
}
