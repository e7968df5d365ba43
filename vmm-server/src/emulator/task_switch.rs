//! Hardware task switches, which neither VT-x nor AMD-V carries out (Intel SDM volume 3, 8.3 "Task Switching" and table 8-1 for the checks and their order).

use super::walk::{Access, Walker};
use super::{Fault, GENERAL_PROTECTION};
use crate::boot::registers::CR0_PG;
use crate::memory::GuestMemory;
use tessera_abi::vcpu::{Dirty, SEGMENT_UNUSABLE, Segment, VcpuState, gpr, segment};

const INVALID_TSS: u8 = 10;
const NOT_PRESENT: u8 = 11;
const STACK_FAULT: u8 = 12;
const DEBUG: u8 = 1;

const CR0_TS: u64 = 1 << 3;
const NESTED_TASK: u32 = 1 << 14;
const VIRTUAL_8086: u32 = 1 << 17;
/// Flags that exist, without those reserved.
const FLAGS: u32 = 0x003f_7fd5;
/// DR6: the switch was to a task with the trap bit.
const DR6_TASK: u64 = 1 << 15;
/// DR7: breakpoints of the task that ends, L0 to L3 and LE.
const DR7_LOCAL: u64 = 0x155;

const PRESENT: u32 = 1 << 7;
const CODE_OR_DATA: u32 = 1 << 4;
const CODE: u32 = 1 << 3;
/// Of code: conforming.
const CONFORMING: u32 = 1 << 2;
/// Of code: readable. Of data: writable.
const READ_WRITE: u32 = 1 << 1;
const ACCESSED: u32 = 1;
/// Of a TSS: in use.
const BUSY: u32 = 1 << 1;
/// Of a TSS: 32-bit.
const WIDE: u32 = 1 << 3;
/// Of a stack: 32-bit.
const BIG: u32 = 1 << 14;

/// What made the processor switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `call`.
    Call,
    /// `iret` with the nested-task flag.
    Return,
    /// `jmp`.
    Jump,
    /// A task gate in the interrupt descriptor table.
    Gate,
}

/// A task switch that the guest asked for.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Selector of the new task's TSS.
    pub selector: u16,
    /// Cause.
    pub source: Source,
    /// Error code of the exception behind a gate.
    pub error: Option<u32>,
    /// Bytes from the instruction pointer to where the old task goes on.
    pub length: u64,
    /// The gate was taken for an interrupt or an exception, not for an instruction: EXT in error codes.
    pub external: bool,
}

/// Where the fields stand in a task-state segment (SDM volume 3, figures 8-2 and 8-10).
struct Layout {
    /// Bytes, without the I/O map.
    size: usize,
    /// Bytes of a register.
    width: usize,
    instruction_pointer: usize,
    registers: usize,
    selectors: usize,
    /// From one selector to the next.
    step: usize,
    /// Segment registers.
    count: usize,
    ldt: usize,
}

const NARROW: Layout = Layout {
    size: 0x2c,
    width: 2,
    instruction_pointer: 0x0e,
    registers: 0x12,
    selectors: 0x22,
    step: 2,
    count: 4,
    ldt: 0x2a,
};
const WIDE_LAYOUT: Layout = Layout {
    size: 0x68,
    width: 4,
    instruction_pointer: 0x20,
    registers: 0x28,
    selectors: 0x48,
    step: 4,
    count: 6,
    ldt: 0x60,
};
const PAGE_ROOT: usize = 0x1c;
const TRAP: usize = 0x64;

impl Layout {
    const fn of(attributes: u32) -> &'static Self {
        if attributes & WIDE != 0 { &WIDE_LAYOUT } else { &NARROW }
    }

    fn get(&self, image: &[u8; 0x68], offset: usize) -> u32 {
        let low = u32::from(image[offset]) | u32::from(image[offset + 1]) << 8;
        if self.width == 2 {
            low
        } else {
            low | u32::from(image[offset + 2]) << 16 | u32::from(image[offset + 3]) << 24
        }
    }

    fn put(&self, image: &mut [u8; 0x68], offset: usize, value: u32) {
        image[offset..offset + self.width].copy_from_slice(&value.to_le_bytes()[..self.width]);
    }

    fn selector(&self, image: &[u8; 0x68], offset: usize) -> u16 {
        u16::from_le_bytes([image[offset], image[offset + 1]])
    }
}

/// Linear memory as the processor itself reaches it, whatever privilege the guest runs at.
struct Linear<'a> {
    walker: Walker<'a>,
    memory: &'a GuestMemory,
}

const OUTSIDE: Fault = Fault::Unknown("a task switch with tables outside RAM");

impl<'a> Linear<'a> {
    fn new(state: &VcpuState, memory: &'a GuestMemory) -> Self {
        Self {
            walker: Walker::supervisor(state, memory),
            memory,
        }
    }

    /// Calls `each` for every part of `length` bytes from `address` that is within one page: its guest-physical address, and where it is in the whole.
    fn parts(
        &self,
        address: u64,
        length: usize,
        access: Access,
        mut each: impl FnMut(u64, core::ops::Range<usize>) -> Option<()>,
    ) -> Result<(), Fault> {
        let mut done = 0;
        while done < length {
            let linear = address.wrapping_add(done as u64) & 0xffff_ffff;
            let part = (0x1000 - (linear & 0xfff) as usize).min(length - done);
            each(self.walker.translate(linear, access)?, done..done + part).ok_or(OUTSIDE)?;
            done += part;
        }
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.parts(address, bytes.len(), Access::READ, |physical, range| {
            self.memory.read_slice(physical, &mut bytes[range])
        })
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        // Nothing is written unless all of it can be.
        self.parts(address, bytes.len(), Access::WRITE, |physical, range| {
            self.memory.contains(physical, range.len() as u64).then_some(())
        })?;
        self.parts(address, bytes.len(), Access::WRITE, |physical, range| {
            self.memory.write_slice(physical, &bytes[range])
        })
    }
}

/// Where a selector's descriptor is; `None` for a null selector, and beyond the table's end.
fn place(state: &VcpuState, selector: u16) -> Option<u64> {
    let ldtr = &state.segments[segment::LDTR];
    let (base, limit) = match selector & 4 {
        0 if selector & !3 == 0 => return None,
        0 => (state.gdtr.base, state.gdtr.limit),
        _ if ldtr.attributes & SEGMENT_UNUSABLE != 0 => return None,
        _ => (ldtr.base, ldtr.limit.into()),
    };
    let offset = u64::from(selector & !7);
    (offset + 7 <= limit).then(|| base.wrapping_add(offset))
}

/// Reads a descriptor (SDM volume 3, 3.4.5).
fn descriptor(linear: &Linear<'_>, place: u64, selector: u16) -> Result<Segment, Fault> {
    let mut bytes = [0; 8];
    linear.read(place, &mut bytes)?;
    let raw = u64::from_le_bytes(bytes);
    let attributes = (raw >> 40) as u32 & 0xf0ff;
    let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
    Ok(Segment {
        selector,
        attributes,
        limit: if attributes >> 15 & 1 != 0 { limit << 12 | 0xfff } else { limit },
        base: raw >> 16 & 0xff_ffff | raw >> 56 << 24,
        ..Segment::default()
    })
}

/// Sets and clears bits of a descriptor's type.
fn change_type(linear: &Linear<'_>, place: u64, set: u32, clear: u32) -> Result<(), Fault> {
    let mut byte = [0];
    linear.read(place.wrapping_add(5), &mut byte)?;
    let new = byte[0] & !(clear as u8) | set as u8;
    if new == byte[0] {
        Ok(())
    } else {
        linear.write(place.wrapping_add(5), &[new])
    }
}

/// Carries out the switch, after a full exit. The vectoring event that led to it is done with.
///
/// # Errors
/// The exception that the guest gets: before the switch in the old task, after it in the new one; `state` is that task's.
pub fn task_switch(state: &mut VcpuState, memory: &GuestMemory, switch: &Switch) -> Result<(), Fault> {
    let linear = Linear::new(state, memory);
    let external = u32::from(switch.external);
    let about = |selector: u16| Some(u32::from(selector & 0xfffc) | external);
    let returns = switch.source == Source::Return;
    let refusal = Fault::Exception(if returns { INVALID_TSS } else { GENERAL_PROTECTION }, about(switch.selector));
    let new_place = if switch.selector & 4 == 0 {
        place(state, switch.selector)
    } else {
        None
    }
    .ok_or(refusal)?;
    let mut new = descriptor(&linear, new_place, switch.selector)?;
    // An available TSS is 1 or 9, a busy one 3 or 11.
    let wanted = if returns { 1 | BUSY } else { 1 };
    if new.attributes & (CODE_OR_DATA | 0x7) != wanted {
        return Err(refusal);
    }
    if new.attributes & PRESENT == 0 {
        return Err(Fault::Exception(NOT_PRESENT, about(switch.selector)));
    }
    let layout = Layout::of(new.attributes);
    if (new.limit as usize) < layout.size - 1 {
        return Err(Fault::Exception(INVALID_TSS, about(switch.selector)));
    }
    let mut image = [0; 0x68];
    linear.read(new.base, &mut image[..layout.size])?;

    save(state, &linear, switch)?;
    if matches!(switch.source, Source::Jump | Source::Return)
        && let Some(old_place) = place(state, state.segments[segment::TR].selector)
    {
        change_type(&linear, old_place, 0, BUSY)?;
    }
    let nests = matches!(switch.source, Source::Call | Source::Gate);
    if nests {
        linear.write(new.base, &state.segments[segment::TR].selector.to_le_bytes())?;
    }
    change_type(&linear, new_place, BUSY, 0)?;
    new.attributes |= BUSY;
    let trap = layout.width == 4 && image[TRAP] & 1 != 0;
    enter(state, memory, layout, &image, new, nests, about)?;
    if let Some(error) = switch.error {
        push(state, memory, layout.width, error)?;
    }
    if trap {
        state.dr6 |= DR6_TASK;
        return Err(Fault::Exception(DEBUG, None));
    }
    Ok(())
}

/// Stores the old task's registers into its TSS.
fn save(state: &VcpuState, linear: &Linear<'_>, switch: &Switch) -> Result<(), Fault> {
    let old = &state.segments[segment::TR];
    let layout = Layout::of(old.attributes);
    let mut image = [0; 0x68];
    let mut flags = state.rflags as u32;
    if switch.source == Source::Return {
        flags &= !NESTED_TASK;
    }
    layout.put(&mut image, layout.instruction_pointer, state.rip.wrapping_add(switch.length) as u32);
    layout.put(&mut image, layout.instruction_pointer + layout.width, flags);
    for number in 0..8 {
        layout.put(&mut image, layout.registers + number * layout.width, state.gpr[number] as u32);
    }
    for number in 0..layout.count {
        let at = layout.selectors + number * layout.step;
        layout.put(&mut image, at, state.segments[number].selector.into());
    }
    // From the instruction pointer to the last selector; link, stacks, page root and LDT are not the processor's to write.
    linear.write(
        old.base.wrapping_add(layout.instruction_pointer as u64),
        &image[layout.instruction_pointer..layout.selectors + layout.count * layout.step],
    )
}

/// Loads the new task's registers.
fn enter(
    state: &mut VcpuState,
    memory: &GuestMemory,
    layout: &Layout,
    image: &[u8; 0x68],
    new: Segment,
    nests: bool,
    about: impl Fn(u16) -> Option<u32>,
) -> Result<(), Fault> {
    state.dirty |= (Dirty::SEGMENTS | Dirty::CONTROL | Dirty::DEBUG | Dirty::FLUSH).bits();
    state.interrupt_shadow &= !1;
    state.cr0 |= CR0_TS;
    state.dr7 &= !DR7_LOCAL;
    state.segments[segment::TR] = new;
    if layout.width == 4 && state.cr0 & CR0_PG != 0 {
        state.cr3 = layout.get(image, PAGE_ROOT).into();
    }
    state.rip = layout.get(image, layout.instruction_pointer).into();
    let mut flags = layout.get(image, layout.instruction_pointer + layout.width) & FLAGS | 2;
    if nests {
        flags |= NESTED_TASK;
    }
    state.rflags = flags.into();
    for number in 0..8 {
        let value = layout.get(image, layout.registers + number * layout.width);
        // A 16-bit TSS leaves the upper halves undefined: ones, as on processors that were looked at.
        state.gpr[number] = u64::from(value) | if layout.width == 2 { 0xffff_0000 } else { 0 };
    }
    let selectors: [u16; 6] = core::array::from_fn(|number| match number < layout.count {
        true => layout.selector(image, layout.selectors + number * layout.step),
        false => 0,
    });
    // If a descriptor turns out bad, its register has the selector and what was in it before.
    for (register, selector) in state.segments.iter_mut().zip(selectors) {
        register.selector = selector;
    }
    let ldt = layout.selector(image, layout.ldt);
    state.segments[segment::LDTR] = Segment {
        selector: ldt,
        attributes: SEGMENT_UNUSABLE | 0x82,
        ..Segment::default()
    };
    let linear = Linear::new(state, memory);
    let invalid = |selector| Fault::Exception(INVALID_TSS, about(selector));
    if ldt & !3 != 0 {
        let place = if ldt & 4 == 0 { place(state, ldt) } else { None }.ok_or(invalid(ldt))?;
        let table = descriptor(&linear, place, ldt)?;
        if table.attributes & (PRESENT | CODE_OR_DATA | 0xf) != PRESENT | 2 {
            return Err(invalid(ldt));
        }
        state.segments[segment::LDTR] = table;
    }
    if flags & VIRTUAL_8086 != 0 {
        for (register, selector) in state.segments.iter_mut().zip(selectors) {
            *register = Segment {
                selector,
                attributes: 0xf3,
                limit: 0xffff,
                base: u64::from(selector) << 4,
                ..Segment::default()
            };
        }
        return Ok(());
    }
    let privilege = u32::from(selectors[segment::CS] & 3);
    for index in [segment::CS, segment::SS, segment::DS, segment::ES, segment::FS, segment::GS] {
        let selector = selectors[index];
        let Some(place) = place(state, selector) else {
            if selector & !3 != 0 || matches!(index, segment::CS | segment::SS) {
                return Err(invalid(selector));
            }
            state.segments[index] = Segment {
                selector,
                attributes: SEGMENT_UNUSABLE,
                ..Segment::default()
            };
            continue;
        };
        let mut loaded = descriptor(&linear, place, selector)?;
        check(&loaded, index, privilege).map_err(|vector| Fault::Exception(vector, about(selector)))?;
        change_type(&linear, place, ACCESSED, 0)?;
        loaded.attributes |= ACCESSED;
        state.segments[index] = loaded;
    }
    if state.rip > state.segments[segment::CS].limit.into() {
        return Err(Fault::Exception(GENERAL_PROTECTION, Some(0)));
    }
    Ok(())
}

/// The checks of table 8-1 for one segment register. The vector of the exception if one fails.
fn check(loaded: &Segment, index: usize, privilege: u32) -> Result<(), u8> {
    let attributes = loaded.attributes;
    let (own, requested) = (attributes >> 5 & 3, u32::from(loaded.selector & 3));
    let is = |bits: u32| attributes & bits == bits;
    let fits = is(CODE_OR_DATA)
        && match index {
            segment::CS => is(CODE) && if is(CONFORMING) { own <= requested } else { own == requested },
            segment::SS => !is(CODE) && is(READ_WRITE) && own == privilege && requested == privilege,
            _ => (!is(CODE) || is(READ_WRITE)) && (is(CODE | CONFORMING) || own >= privilege.max(requested)),
        };
    if !fits {
        return Err(INVALID_TSS);
    }
    match index {
        _ if is(PRESENT) => Ok(()),
        segment::SS => Err(STACK_FAULT),
        _ => Err(NOT_PRESENT),
    }
}

/// Pushes an exception's error code onto the new task's stack.
fn push(state: &mut VcpuState, memory: &GuestMemory, width: usize, error: u32) -> Result<(), Fault> {
    let stack = state.segments[segment::SS];
    let mask = if stack.attributes & BIG != 0 { 0xffff_ffff } else { 0xffff };
    let pointer = state.gpr[gpr::RSP].wrapping_sub(width as u64) & mask;
    // Expand-down stacks end below their limit; others begin there (SDM volume 3, 5.3).
    let grows_down = stack.attributes & CONFORMING != 0;
    let last = pointer + width as u64 - 1;
    let limit = u64::from(stack.limit);
    if last > mask || (grows_down && pointer <= limit) || (!grows_down && last > limit) {
        return Err(Fault::Exception(STACK_FAULT, Some(1)));
    }
    let linear = Linear {
        walker: Walker::new(state, memory),
        memory,
    };
    linear.write(stack.base.wrapping_add(pointer), &error.to_le_bytes()[..width])?;
    state.gpr[gpr::RSP] = state.gpr[gpr::RSP] & !mask | pointer;
    Ok(())
}

#[cfg(test)]
#[path = "task_switch_tests.rs"]
mod tests;
