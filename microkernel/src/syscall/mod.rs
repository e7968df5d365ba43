//! System calls: the dispatcher, the fast paths, IPC, vCPUs, and the operations on objects.

pub mod fast;
pub mod invoke;
pub mod ipc;
pub mod vcpu_run;

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::syscall::Syscall;
use tessera_abi::trace::Event;

use crate::arch::percpu::{self, PerCpu};
use crate::kref::Ref;
use crate::lock::Exclusive;
use crate::object::notification::Notification;
use crate::object::thread::Thread;
use crate::sched::dispatch as scheduler;
use crate::trace;

const CALL: u64 = Syscall::Call as u64;
const REPLY_RECV: u64 = Syscall::ReplyRecv as u64;
const RECV: u64 = Syscall::Recv as u64;
const REPLY: u64 = Syscall::Reply as u64;
const SIGNAL: u64 = Syscall::Signal as u64;
const WAIT: u64 = Syscall::Wait as u64;
const POLL: u64 = Syscall::Poll as u64;
const INVOKE: u64 = Syscall::Invoke as u64;
const YIELD: u64 = Syscall::Yield as u64;

/// Every system call that no fast path took. The current thread's registers are stored; shared mode is on. Returns whom to resume.
pub extern "C" fn dispatch() -> Ref<Thread> {
    let cpu = percpu::this();
    if let Some(thread) = cpu.current.get() {
        trace::record(cpu, Event::Syscall, thread.address(), thread.regs.rax.get() & 0xff | thread.regs.rdx.get() << 8);
        if let Err(error) = run(cpu, thread) {
            fail(cpu, thread, error);
        }
    }
    scheduler::next_thread(cpu)
}

#[cold]
#[inline(never)]
fn fail(cpu: &PerCpu, thread: Ref<Thread>, error: Error) {
    // The call may have ended its own thread.
    if cpu.current.get() == Some(thread) {
        thread.set_status(error as u64);
        thread.regs.rdi.set(0);
        thread.regs.rsi.set(0);
    }
}

#[inline(always)]
fn signal(cpu: &'static PerCpu, thread: Ref<Thread>) -> Result<(), Error> {
    let (notification, badge) = ipc::object::<Notification>(&thread, thread.regs.rdi.get(), ObjectKind::Notification, Rights::SEND)?;
    thread.set_status(0);
    thread.regs.rdi.set(0);
    thread.regs.rsi.set(0);
    ipc::signal(cpu, notification, badge);
    Ok(())
}

#[inline(always)]
fn run(cpu: &'static PerCpu, thread: Ref<Thread>) -> Result<(), Error> {
    let number = thread.regs.rax.get() & 0xff;
    if thread.regs.rax.get() == SIGNAL {
        return signal(cpu, thread);
    }
    if thread.regs.rax.get() >> 9 != 0 {
        return Err(Error::UnknownOperation);
    }
    match number {
        SIGNAL => signal(cpu, thread),
        WAIT => ipc::wait(cpu, thread, true),
        POLL => ipc::wait(cpu, thread, false),
        YIELD => {
            thread.set_status(0);
            cpu.run_queue.slice_end.set(0);
            scheduler::ask_reschedule(cpu);
            Ok(())
        }
        CALL | REPLY_RECV | RECV | REPLY | INVOKE => {
            let exclusive = Exclusive::enter(cpu);
            // While this processor waited, another may have ended the thread.
            if cpu.current.get() != Some(thread) {
                return Ok(());
            }
            match number {
                CALL => ipc::call(&exclusive, thread),
                REPLY_RECV => ipc::receive(&exclusive, thread, true),
                RECV => ipc::receive(&exclusive, thread, false),
                REPLY => ipc::reply(&exclusive, thread),
                _ => invoke::invoke(&exclusive, thread),
            }
        }
        _ => Err(Error::UnknownOperation),
    }
}
