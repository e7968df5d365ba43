//! Operations on interrupts.

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights, irq as op, irq_control as control};

use super::{Request, Results};
use crate::arch::{apic, ioapic, percpu, vector};
use crate::interrupt;
use crate::object::cnode;
use crate::object::count;
use crate::object::destroy;
use crate::object::irq::{IRQS, MSI};
use crate::object::slot::Cap;

pub fn invoke_control(request: &Request<'_>) -> Result<Results, Error> {
    request.rights_by_operation(&[control::INFO])?;
    match request.operation {
        control::LINE => line(request),
        control::MSI => {
            let [cpu, table, index, ..] = request.words;
            let cpu = u8::try_from(cpu).ok().filter(|c| percpu::get(usize::from(*c)).is_some()).ok_or(Error::Unsupported)?;
            if !request.destination(table, index)?.is_empty() {
                return Err(Error::SlotOccupied);
            }
            let vector = IRQS.claim(MSI, cpu)?;
            give(request, vector, table, index)
        }
        control::INFO => {
            let irq = IRQS.get(request.words[0]).ok_or(Error::BadArgument)?;
            Ok([
                u64::from(irq.references.get() != 0),
                irq.count.get(),
                irq.line.get(),
                u64::from(irq.cpu.get()),
                u64::from(irq.masked.get()),
                0,
            ])
        }
        _ => Err(Error::UnknownOperation),
    }
}

fn line(request: &Request<'_>) -> Result<Results, Error> {
    let [line, table, index, flags, ..] = request.words;
    if flags & !15 != 0 || line > u64::from(u32::MAX) {
        return Err(Error::BadArgument);
    }
    let (mut gsi, mut level, mut low) = (line as u32, flags & 1 != 0, flags & 2 != 0);
    if line < 16 {
        let (real, firmware_level, firmware_low) = ioapic::isa_to_gsi(line as u8);
        gsi = real;
        if flags & 4 != 0 {
            (level, low) = (firmware_level, firmware_low);
        }
    }
    if !request.destination(table, index)?.is_empty() {
        return Err(Error::SlotOccupied);
    }
    let cpu = request.exclusive.cpu().index.get();
    let vector = IRQS.claim(u64::from(gsi), cpu as u8)?;
    ioapic::route(gsi, vector::DEVICE_FIRST + vector as u8, cpu, level, low, flags & 8 != 0).ok_or(Error::BadArgument)?;
    // It stays masked until it has somebody to signal.
    give(request, vector, table, index)?;
    Ok([vector, level.into(), 0, 0, 0, 0])
}

fn give(request: &Request<'_>, vector: u64, table: u64, index: u64) -> Result<Results, Error> {
    let cap = Cap { kind: ObjectKind::Irq, rights: Rights::all(), object: vector, ..Cap::NULL };
    request.destination(table, index)?.insert(&cap, Some(request.slot))?;
    count(&cap, 1);
    Ok([vector, 0, 0, 0, 0, 0])
}

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let index = request.slot.object();
    let irq = IRQS.get(index).ok_or(Error::BadSlot)?;
    request.rights(Rights::WRITE)?;
    match request.operation {
        op::BIND => {
            let source = request.own(request.words[0])?.require(ObjectKind::Notification, Rights::SEND)?;
            destroy::delete(request.exclusive, &irq.notification);
            cnode::copy(source, &irq.notification, Rights::SEND, 0)?;
            interrupt::unmask(irq);
            Ok([0; 6])
        }
        op::ACK => {
            if irq.notification.is_empty() {
                return Err(Error::BadState);
            }
            interrupt::unmask(irq);
            Ok([0; 6])
        }
        op::MESSAGE => {
            let (address, data) = apic::message(usize::from(irq.cpu.get()), vector::DEVICE_FIRST + index as u8);
            Ok([address, u64::from(data), 0, 0, 0, 0])
        }
        _ => Err(Error::UnknownOperation),
    }
}
