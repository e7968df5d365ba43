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
        thread.set_result(error as u64, 0, 0);
    }
}

#[inline(always)]
fn signal(cpu: &'static PerCpu, thread: Ref<Thread>) -> Result<(), Error> {
    let (notification, badge) = ipc::object::<Notification>(&thread, thread.regs.rdi.get(), ObjectKind::Notification, Rights::SEND)?;
    thread.set_result(0, 0, 0);
    ipc::signal(cpu, notification, badge);
    Ok(())
}

#[inline(always)]
fn run(cpu: &'static PerCpu, thread: Ref<Thread>) -> Result<(), Error> {
    if thread.regs.rax.get() == Syscall::Signal as u64 {
        return signal(cpu, thread);
    }
    if thread.regs.rax.get() >> 9 != 0 {
        return Err(Error::UnknownOperation);
    }
    let call = Syscall::from_number(thread.regs.rax.get() & 0xff).ok_or(Error::UnknownOperation)?;
    match call {
        Syscall::Wait => ipc::wait(cpu, thread, true),
        Syscall::Poll => ipc::wait(cpu, thread, false),
        Syscall::Yield => {
            thread.set_status(0);
            scheduler::give_way(cpu, thread);
            Ok(())
        }
        // The entry code answers the first and calls the second itself, the third is dealt with above; they come here with flags that they do not have.
        Syscall::Null | Syscall::VcpuRun | Syscall::Signal => Err(Error::UnknownOperation),
        _ => {
            let exclusive = Exclusive::enter(cpu);
            // While this processor waited, another may have ended the thread.
            if cpu.current.get() != Some(thread) {
                return Ok(());
            }
            match call {
                Syscall::Call => ipc::call(&exclusive, thread),
                Syscall::ReplyRecv => ipc::receive(&exclusive, thread, true),
                Syscall::Recv => ipc::receive(&exclusive, thread, false),
                Syscall::Reply => ipc::reply(&exclusive, thread),
                _ => invoke::invoke(&exclusive, thread),
            }
        }
    }
}
