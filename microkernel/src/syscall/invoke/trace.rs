//! Tracing, statistics of processors, and the machine as a whole.

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights, trace as op};
use tessera_abi::trace::EVENTS;

use super::{Request, Results};
use crate::arch::{cpu, memory, percpu, power, timer};
use crate::kref::Ref;
use crate::object::page_tables;
use crate::object::space::Space;
use crate::trace;
use crate::virt;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let [first, ..] = request.words;
    request.rights_by_operation(&[op::CPU_INFO, op::MACHINE, op::CHECK_WX])?;
    match request.operation {
        op::SET_MASK => {
            if first >> EVENTS != 0 {
                return Err(Error::BadArgument);
            }
            trace::set_mask(first);
            Ok([0; 6])
        }
        op::CPU_INFO => {
            let cpu = usize::try_from(first).ok().and_then(percpu::get).ok_or(Error::BadArgument)?;
            let queue = &cpu.run_queue;
            let now = timer::now();
            // An idle processor is charged when it wakes; until then its idleness is added here.
            let since = if cpu.current.get().is_none() { now.saturating_sub(queue.charged_at.get()) } else { 0 };
            Ok([
                u64::from(cpu.arch.apic_id.load(core::sync::atomic::Ordering::Relaxed)),
                queue.idle.get() + since,
                cpu.interrupts.get(),
                queue.switches.get(),
                now,
                cpu.shootdowns.get(),
            ])
        }
        op::MACHINE => {
            let [found, used] = virt::features().map(|features| features.bits());
            Ok([cpu::features().bits(), timer::tsc_hz(), percpu::count() as u64, virt::backend() as u64, found, used])
        }
        op::CHECK_WX => {
            let (pages, violations, address) = if first == 0 {
                memory::check_write_execute()
            } else {
                let space: Ref<Space> = request.object(first, ObjectKind::AddressSpace, Rights::READ)?;
                page_tables::check_write_execute(&*space, space.root.get(), 0..256)
            };
            Ok([pages, violations, address, 0, 0, 0])
        }
        op::MACHINE_RESET => match first {
            0 => power::reset(),
            1 => power::power_off(),
            2 => panic!("asked for by the holder of the Trace capability"),
            _ => Err(Error::BadArgument),
        },
        _ => Err(Error::UnknownOperation),
    }
}
