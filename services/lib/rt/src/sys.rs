//! System calls as they are: register in, register out. Everything else in this crate stands on these few functions.

use tessera_abi::syscall::{FLAG_DEADLINE, MessageInfo, NOTIFIED, Syscall};
use tessera_abi::{Error, utcb::Utcb};

/// The first 48 bytes of a message, or the arguments and results of an operation.
pub type Words = [u64; 6];

/// What a system call left in the registers besides the words.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// 0, an [`Error`], or [`NOTIFIED`].
    pub status: u64,
    /// Badge or notification bits.
    pub badge: u64,
    /// Length and capabilities of the message.
    pub info: MessageInfo,
}

impl Outcome {
    /// Success, or the error; an unknown status counts as an error too.
    #[inline(always)]
    pub fn check(self) -> Result<Self, Error> {
        if self.status == 0 { Ok(self) } else { Err(error_of(self.status)) }
    }
}

#[cold]
fn error_of(status: u64) -> Error {
    Error::from_status(status).unwrap_or(Error::BadState)
}

/// One system call with its words; `rdx` and `r8` as the caller says. What a call does not read is not loaded: on the way of a message every instruction counts.
#[cfg(target_os = "tessera")]
macro_rules! syscall {
    ($rax:expr, $rdi:expr, $rsi:expr, $words:expr, $($operands:tt)*) => {{
        let words: &mut Words = $words;
        let (status, badge, info): (u64, u64, u64);
        // SAFETY: the kernel changes no memory of ours other than the message buffer of this thread, which is only reached through `message`, and what
        // the caller mapped by the call itself. Every register that the kernel changes is an output, or saved around the instruction: LLVM reserves rbx and rbp.
        unsafe {
            core::arch::asm!(
                "push rbx",
                "push rbp",
                "mov rbx, r9",
                "mov rbp, r10",
                "syscall",
                "mov r9, rbx",
                "mov r10, rbp",
                "pop rbp",
                "pop rbx",
                inlateout("rax") $rax => status,
                inlateout("rdi") $rdi => badge,
                inlateout("rsi") $rsi => info,
                inlateout("r9") words[0] => words[0],
                inlateout("r10") words[1] => words[1],
                inlateout("r12") words[2] => words[2],
                inlateout("r13") words[3] => words[3],
                inlateout("r14") words[4] => words[4],
                inlateout("r15") words[5] => words[5],
                lateout("rcx") _,
                lateout("r11") _,
                $($operands)*
            );
        }
        Outcome { status, badge, info: MessageInfo(info) }
    }};
}

/// There is no kernel below a host test.
#[cfg(not(target_os = "tessera"))]
macro_rules! syscall {
    ($rax:expr, $rdi:expr, $rsi:expr, $words:expr, $($operands:tt)*) => {{
        let _: (u64, u64, u64, &mut Words) = ($rax, $rdi, $rsi, $words);
        Outcome {
            status: Error::Unsupported as u64,
            badge: 0,
            info: MessageInfo(0),
        }
    }};
}

/// Any system call. `rax` is call number and flags; see [`tessera_abi::syscall`] for the rest.
#[inline(always)]
#[cfg_attr(not(target_os = "tessera"), allow(unused_variables))]
pub fn raw(rax: u64, rdi: u64, rsi: u64, rdx: u64, r8: u64, words: &mut Words) -> Outcome {
    syscall!(rax, rdi, rsi, words, inlateout("rdx") rdx => _, inlateout("r8") r8 => _)
}

/// A system call whose words mean nothing. The kernel may use their registers, so they are saved, but nothing is loaded or stored.
#[cfg(target_os = "tessera")]
#[inline(always)]
fn raw_wordless(rax: u64, rdi: u64, r8: u64) -> (u64, u64) {
    let (status, badge);
    // SAFETY: as in `raw`.
    unsafe {
        core::arch::asm!(
            "push rbx",
            "push rbp",
            "syscall",
            "pop rbp",
            "pop rbx",
            inlateout("rax") rax => status,
            inlateout("rdi") rdi => badge,
            inlateout("r8") r8 => _,
            lateout("rsi") _,
            lateout("rdx") _,
            lateout("rcx") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
        );
    }
    (status, badge)
}

#[cfg(not(target_os = "tessera"))]
fn raw_wordless(_rax: u64, _rdi: u64, _r8: u64) -> (u64, u64) {
    (Error::Unsupported as u64, 0)
}

#[inline(always)]
fn number(call: Syscall, deadline: Option<u64>) -> (u64, u64) {
    match deadline {
        Some(tsc) => (call as u64 | FLAG_DEADLINE, tsc),
        None => (call as u64, 0),
    }
}

/// Does nothing.
#[inline(always)]
pub fn null() {
    let _ = raw_wordless(Syscall::Null as u64, 0, 0);
}

/// Gives the processor to others of the same priority.
#[inline(always)]
pub fn yield_now() {
    let _ = raw_wordless(Syscall::Yield as u64, 0, 0);
}

/// Sends `words` (and, past 48 bytes, the message buffer) to an endpoint and waits for the reply.
#[inline(always)]
pub fn call(endpoint: u32, info: MessageInfo, deadline: Option<u64>, words: &mut Words) -> Outcome {
    const CALL: u64 = Syscall::Call as u64;
    match deadline {
        Some(tsc) => raw(CALL | FLAG_DEADLINE, endpoint.into(), info.0, 0, tsc, words),
        None => syscall!(CALL, u64::from(endpoint), info.0, words, lateout("rdx") _, lateout("r8") _),
    }
}

/// Replies, then receives the next message.
#[inline(always)]
pub fn reply_recv(endpoint: u32, reply: u32, info: MessageInfo, deadline: Option<u64>, words: &mut Words) -> Outcome {
    const REPLY_RECV: u64 = Syscall::ReplyRecv as u64;
    match deadline {
        Some(tsc) => raw(REPLY_RECV | FLAG_DEADLINE, endpoint.into(), info.0, reply.into(), tsc, words),
        None => syscall!(REPLY_RECV, u64::from(endpoint), info.0, words, inlateout("rdx") u64::from(reply) => _, lateout("r8") _),
    }
}

/// Receives a message.
#[inline(always)]
pub fn recv(endpoint: u32, reply: u32, deadline: Option<u64>, words: &mut Words) -> Outcome {
    let (rax, r8) = number(Syscall::Recv, deadline);
    raw(rax, endpoint.into(), 0, reply.into(), r8, words)
}

/// Replies without waiting.
#[inline(always)]
pub fn reply(reply: u32, info: MessageInfo, words: &mut Words) -> Outcome {
    raw(Syscall::Reply as u64, reply.into(), info.0, 0, 0, words)
}

/// Sets a notification's bits.
#[inline(always)]
pub fn signal(notification: u32) -> Result<(), Error> {
    match raw_wordless(Syscall::Signal as u64, notification.into(), 0) {
        (0, _) => Ok(()),
        (status, _) => Err(error_of(status)),
    }
}

/// Waits for bits of a notification; slot 0 only sleeps.
#[inline(always)]
pub fn wait(notification: u32, deadline: Option<u64>) -> Result<u64, Error> {
    let (rax, r8) = number(Syscall::Wait, deadline);
    match raw_wordless(rax, notification.into(), r8) {
        (0, bits) => Ok(bits),
        (status, _) => Err(error_of(status)),
    }
}

/// Takes the bits of a notification without waiting.
#[inline(always)]
pub fn poll(notification: u32) -> Result<u64, Error> {
    match raw_wordless(Syscall::Poll as u64, notification.into(), 0) {
        (0, bits) => Ok(bits),
        (status, _) => Err(error_of(status)),
    }
}

/// Why [`vcpu_run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// The guest left for a reason that stands in the shared page.
    Exit,
    /// The thread's bound notification was signalled; its bits. The shared page is as after an exit.
    Notified(u64),
}

/// Runs a virtual processor until something is to be done.
#[inline(always)]
pub fn vcpu_run(vcpu: u32, deadline: Option<u64>) -> Result<RunOutcome, Error> {
    let (rax, r8) = number(Syscall::VcpuRun, deadline);
    match raw_wordless(rax, vcpu.into(), r8) {
        (0, _) => Ok(RunOutcome::Exit),
        (NOTIFIED, bits) => Ok(RunOutcome::Notified(bits)),
        (status, _) => Err(error_of(status)),
    }
}

/// An operation on an object. Results replace the words.
#[inline]
pub fn invoke(object: u32, operation: u64, words: &mut Words) -> Result<(), Error> {
    raw(Syscall::Invoke as u64, object.into(), 0, operation, 0, words)
        .check()
        .map(|_| ())
}

/// The message buffer of the running thread.
#[cfg(target_os = "tessera")]
#[inline(always)]
pub fn utcb() -> *mut Utcb {
    let address: *mut Utcb;
    // SAFETY: the kernel points fs at the buffer and stores its address in its first word.
    unsafe { core::arch::asm!("mov {}, fs:0", out(reg) address, options(nostack, readonly, preserves_flags)) };
    address
}

/// Host tests have one page to play with per thread.
#[cfg(not(target_os = "tessera"))]
pub fn utcb() -> *mut Utcb {
    use alloc::boxed::Box;
    // SAFETY: an all-zero Utcb is a valid one: it has integers only.
    Box::leak(Box::new(unsafe { core::mem::zeroed::<Utcb>() }))
}

/// The time stamp counter, the clock of all deadlines.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: reading the counter has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}
