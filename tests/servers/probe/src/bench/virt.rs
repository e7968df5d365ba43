//! From a guest's instruction to the user-level VMM and back, measured by the guest itself.

use super::Bench;
use crate::guest::Guest;
use tessera_probe::statistics::{SAMPLES, Summary};
use tessera_rt::abi::Error;
use tessera_rt::abi::object::thread::NO_FPU;
use tessera_rt::abi::object::{ObjectKind, Rights};
use tessera_rt::abi::vcpu::{ExitReason, VcpuState};
use tessera_rt::{AddressSpace, CNode, Notification, RunOutcome, SchedContext, Thread, ThreadConfig, Untyped, Vcpu, slots, sys, vm};

/// Where the code stands in the guest.
const CODE: usize = 0x1000;
/// Where it puts its samples, as 32-bit numbers.
const RESULTS: usize = 0x4000;

/// A 16-bit loop that reads the TSC before and after `instruction` and stores the difference.
fn code(instruction: &[u8]) -> alloc::vec::Vec<u8> {
    let end = RESULTS + SAMPLES * 4;
    let mut code = alloc::vec![0xbf, RESULTS as u8, (RESULTS >> 8) as u8]; // mov di, RESULTS
    let start = code.len();
    code.extend([0x0f, 0x31, 0x66, 0x89, 0xc6]); // rdtsc; mov esi, eax
    code.extend(instruction);
    code.extend([0x0f, 0x31, 0x66, 0x29, 0xf0]); // rdtsc; sub eax, esi
    code.extend([0x66, 0x89, 0x05, 0x83, 0xc7, 4]); // mov [di], eax; add di, 4
    code.extend([0x81, 0xff, end as u8, (end >> 8) as u8]); // cmp di, end
    let distance = start as i64 - (code.len() as i64 + 2);
    code.extend([0x72, distance as u8, 0xf4]); // jb start; hlt
    code
}

/// Runs the group.
pub fn run(bench: &Bench) -> Result<(), Error> {
    let mut vm = Machine::new()?;
    let timer = Summary::of(&mut vm.samples(&[])?, 0).median;
    // Each maker's processors have a hypercall of their own, and take the other's for an undefined instruction.
    let has_vtx = core::arch::x86_64::__cpuid(1).ecx & 1 << 5 != 0;
    let hypercall: &[u8] = if has_vtx { &[0x0f, 0x01, 0xc1] } else { &[0x0f, 0x01, 0xd9] };
    for (name, instruction) in [
        ("virt.exit-cpuid", &[0x0f, 0xa2][..]),
        ("virt.exit-port", &[0xe6, 0x80]),
        ("virt.exit-hypercall", hypercall),
    ] {
        let mut samples = vm.samples(instruction)?;
        bench.print(name, 250, Summary::of(&mut samples, timer));
    }
    Ok(())
}

struct Machine {
    guest: Guest,
    thread: Thread,
    stack_top: u64,
    work: alloc::boxed::Box<Work>,
}

/// What the driving thread needs.
struct Work {
    vcpu: Vcpu,
    state: *mut VcpuState,
    done: Notification,
}

/// Runs the guest to its `hlt`, handling exits as cheaply as a VMM can. As a VMM's thread it declares that it uses no FPU, so that the guest's extended state
/// stays in the registers: nothing in here may be compiled to SSE instructions, hence numbers one by one and nothing else.
extern "C" fn drive(work: *const Work) -> ! {
    // SAFETY: the machine keeps its work as long as this thread runs.
    let (vcpu, state, done) = unsafe { ((*work).vcpu, (*work).state, (*work).done) };
    while let Ok(RunOutcome::Exit) = vcpu.run(None) {
        // SAFETY: the state page is mapped, and the vCPU does not run while this thread looks.
        unsafe {
            match (&raw const (*state).reason).read_volatile() {
                reason if reason == ExitReason::Cpuid as u32 => (*state).rip += 2,
                reason if reason == ExitReason::Io as u32 => (*state).rip = (*state).info[1],
                reason if reason == ExitReason::Hypercall as u32 => (*state).rip += 3,
                _ => break,
            }
        }
    }
    let _ = done.signal();
    loop {
        let _ = sys::wait(0, None);
    }
}

impl Machine {
    fn new() -> Result<Self, Error> {
        let guest = Guest::new()?;
        let thread = Thread::new(Untyped::OWN.make(ObjectKind::Thread, 0)?);
        let sched_context = SchedContext::new(Untyped::OWN.make(ObjectKind::SchedContext, 0)?);
        let here = Thread::FIRST.info()?;
        thread.configure(&ThreadConfig {
            cnode: CNode::OWN,
            space: AddressSpace::OWN,
            fault: None,
            sched_context,
            priority: here.priority,
            cpu: here.cpu,
            flags: NO_FPU,
            utcb: vm::take(4096, 4096)?,
        })?;
        let stack = vm::map(Untyped::OWN.frame(4)?, Rights::READ | Rights::WRITE, 0)?;
        let plain = Untyped::OWN.notification()?;
        let slot = slots::take()?;
        // Only a capability with a badge sets bits.
        CNode::OWN.copy(slot, CNode::OWN, plain.slot(), Rights::all(), 1)?;
        let done = Notification::new(slot);
        let work = alloc::boxed::Box::new(Work {
            vcpu: guest.vcpu,
            state: guest.state,
            done,
        });
        Ok(Self {
            guest,
            thread,
            stack_top: stack.address + stack.length as u64,
            work,
        })
    }

    /// Runs the loop to its `hlt`, handling exits as cheaply as a VMM can.
    fn samples(&mut self, instruction: &[u8]) -> Result<[u64; SAMPLES], Error> {
        let state = self.work.state;
        self.guest.write(CODE, code(instruction));
        self.guest.start_at(CODE);
        self.thread
            .start(drive as *const () as u64, self.stack_top - 8, &raw const *self.work as u64)?;
        let _ = self.work.done.wait(None)?;
        self.thread.stop()?;
        // SAFETY: the vCPU does not run, and nobody else looks.
        let (reason, rip, info) = unsafe { ((&raw const (*state).reason).read_volatile(), (*state).rip, (*state).info) };
        if reason != ExitReason::Halt as u32 {
            crate::report::line(format_args!("probe: virt stopped at {rip:#x}: exit {reason} {info:x?}"));
            return Err(Error::BadState);
        }
        Ok(core::array::from_fn(|index| {
            // SAFETY: inside the guest's 32 KiB; the vCPU is halted.
            let sample = unsafe { self.guest.memory.add(RESULTS + index * 4).cast::<u32>().read_volatile() };
            sample.into()
        }))
    }
}
