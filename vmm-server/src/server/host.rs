//! What the vCPU threads need from the kernel.

use super::RingConsole;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use tessera_abi::vcpu::VcpuState;
use tessera_rt::{Notification, Vcpu, caps::RunOutcome, log, sys};
use tessera_vmm::MAX_VCPUS;
use tessera_vmm::apic::Kick;
use tessera_vmm::devices::pci::MAX_DEVICES;
use tessera_vmm::machine::{Host, Run};

/// Notifications of the vCPU threads, by slot; 0: the thread is not there yet and will look by itself.
static THREADS: [AtomicU32; MAX_VCPUS] = [const { AtomicU32::new(0) }; MAX_VCPUS];

/// Wake the threads that speak with the servers of devices; 0: there is none.
static LINKS: [AtomicU32; MAX_LINKS] = [const { AtomicU32::new(0) }; MAX_LINKS];
/// Servers of devices.
const MAX_LINKS: usize = 8;
/// For each device on the bus, the notification that tells its server of requests; 0: nobody serves it.
static DOORBELLS: [AtomicU32; MAX_DEVICES] = [const { AtomicU32::new(0) }; MAX_DEVICES];

/// Kicks threads through their bound notifications.
#[derive(Debug)]
pub struct Threads;

impl Threads {
    /// The thread of vCPU `index` is kicked with this notification from now on.
    pub fn set(index: usize, notification: Notification) {
        // Release: the thread's capabilities are in place before its slot is known.
        THREADS[index].store(notification.slot(), Ordering::Release);
    }

    /// A link's thread is woken with this notification from now on.
    pub fn add_link(notification: Notification) {
        let free = |link: &&AtomicU32| link.load(Ordering::Relaxed) == 0;
        // Only the thread that sets the machine up adds links, and there are places for all.
        if let Some(place) = LINKS.iter().find(free) {
            place.store(notification.slot(), Ordering::Release);
        }
    }

    /// A device's server is told of requests with this notification from now on. Answers the last one.
    pub fn set_doorbell(device: usize, notification: Option<Notification>) -> Option<Notification> {
        let before = DOORBELLS[device].swap(notification.map_or(0, Notification::slot), Ordering::AcqRel);
        (before != 0).then(|| Notification::new(before))
    }
}

fn signal(place: &AtomicU32) {
    let slot = place.load(Ordering::Acquire);
    if slot != 0 {
        // It can only fail when the process, or the server behind it, is being taken apart.
        let _ = Notification::new(slot).signal();
    }
}

impl Kick for Threads {
    fn kick(&self, index: usize) {
        signal(&THREADS[index]);
    }

    fn wake_link(&self) {
        LINKS.iter().for_each(signal);
    }

    fn ring(&self, device: usize) {
        signal(&DOORBELLS[device]);
    }
}

/// TSC ticks of a nap. Much longer than the system call itself takes, or it would be over before it began and the holder would not get to run.
const NAP: u64 = 1_000_000;

/// One vCPU thread's view.
pub struct Kernel {
    /// The virtual processor.
    pub vcpu: Vcpu,
    /// Bound to the thread.
    pub notification: Notification,
    /// Wakes the first thread.
    pub control: Notification,
}

/// Tells the compiler that the kernel reads and writes the page here.
#[inline(always)]
fn expose(state: &mut VcpuState) {
    // SAFETY: no instruction; the compiler must assume that the page was read and written, which is what the kernel does in the call before or after.
    unsafe { core::arch::asm!("/* {} */", in(reg) core::ptr::from_mut(state), options(nostack, preserves_flags)) };
}

impl Host for Kernel {
    type Kick = Threads;
    type Console = RingConsole;

    #[inline(always)]
    fn now() -> u64 {
        sys::tsc()
    }

    #[cold]
    fn nap() {
        let _ = sys::wait(0, Some(sys::tsc() + NAP));
    }

    #[inline(always)]
    fn run(&mut self, state: &mut VcpuState, deadline: u64) -> Run {
        let deadline = if deadline == u64::MAX { None } else { Some(deadline) };
        expose(state);
        let outcome = self.vcpu.run(deadline);
        expose(state);
        match outcome {
            Ok(RunOutcome::Exit) => Run::Exit,
            Ok(RunOutcome::Notified(bits)) => Run::Kicked(bits),
            Err(error) => Run::Refused(error as u64),
        }
    }

    fn sync(&mut self, state: &mut VcpuState) {
        expose(state);
        // It cannot fail: the vCPU belongs to this thread and is not running.
        let _ = self.vcpu.sync();
        expose(state);
    }

    fn wait(&mut self, deadline: u64) -> u64 {
        let deadline = if deadline == u64::MAX { None } else { Some(deadline) };
        // A passed deadline or an error: whoever waits looks at the world again in any case.
        self.notification.wait(deadline).unwrap_or(0)
    }

    fn wake_control(&self) {
        let _ = self.control.signal();
    }

    fn warn(&self, text: fmt::Arguments<'_>) {
        log::warn!("{text}");
    }
}
