//! Memory that is used again holds nothing of what stood in it, however it was zeroed: for the one who waits for it, ahead of time, or a part by each.

use crate::refuse::Check;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use tessera_probe::random::Random;
use tessera_rt::abi::object::{ObjectKind, Rights};
use tessera_rt::abi::{Error, LARGE_PAGE_SIZE, PAGE_SIZE};
use tessera_rt::{CNode, Frame, Untyped, slots, vm};

/// What objects leave behind.
const JUNK: u64 = 0x0503_0107_0503_0107;
/// Pages of a large page.
const LARGE: u64 = (LARGE_PAGE_SIZE / PAGE_SIZE) as u64;

fn text(error: Error) -> String {
    error.text().to_string()
}

/// Whether a frame is all zero; then it is filled with junk.
fn spoil(frame: Frame) -> Result<bool, Error> {
    let mapping = vm::map(frame, Rights::READ | Rights::WRITE, 0)?;
    // SAFETY: the frame is mapped, readable and writable, and nobody else has it.
    let words = unsafe { core::slice::from_raw_parts_mut(mapping.as_ptr().cast::<u64>(), mapping.length / 8) };
    let clean = words.iter().all(|word| *word == 0);
    words.fill(JUNK);
    mapping.unmap();
    Ok(clean)
}

/// Objects in a block of memory, by slot; all go with it.
struct Made(Vec<u32>);

impl Made {
    fn frame(&mut self, memory: Untyped, pages: u64) -> Result<bool, Error> {
        let frame = memory.frame(pages)?;
        self.0.push(frame.slot());
        spoil(frame)
    }

    fn part(&mut self, memory: Untyped, pages: u64) -> Result<Untyped, Error> {
        let slot = memory.make(ObjectKind::Untyped, pages)?;
        self.0.push(slot);
        Ok(Untyped::new(slot))
    }

    /// Whether a fresh table is empty.
    fn table(&mut self, memory: Untyped, bits: u64) -> Result<bool, Error> {
        let slot = memory.make(ObjectKind::CNode, bits)?;
        self.0.push(slot);
        Ok(u64::from(CNode::new(slot).next_used(1)?) == 1 << bits)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for slot in self.0.drain(..).rev() {
            slots::free(slot);
        }
    }
}

/// Zeroes up to so many portions ahead.
fn zero_ahead(memory: Untyped, portions: u64) -> Result<(), Error> {
    for _ in 0..portions {
        match memory.zero_ahead() {
            Err(Error::Again) => {}
            other => return other,
        }
    }
    Ok(())
}

/// Makes and deletes all kinds of things in any order, and looks at each.
pub fn old_contents() -> Check {
    let mut random = Random::new(1);
    let own = Untyped::OWN.info().map_err(text)?;
    let pages = (own.pages - own.used / PAGE_SIZE as u64) / 2;
    let slot = Untyped::OWN.make(ObjectKind::Untyped, pages).map_err(text)?;
    let block = Untyped::new(slot);
    let outcome = behind_a_gap(block, pages);
    let outcome = outcome
        .and_then(|()| (0..40).try_for_each(|round| any_order(block, pages, &mut random).map_err(|what| format!("round {round}: {what}"))));
    let outcome = outcome
        .and_then(|()| half_a_batch(block, pages))
        .and_then(|()| counted(block, pages));
    slots::free(slot);
    outcome
}

fn any_order(block: Untyped, pages: u64, random: &mut Random) -> Check {
    let mut made = Made(Vec::new());
    for _ in 0..random.below(12) {
        let wanted = 1 + random.below(pages / 3);
        let (what, result) = match random.below(6) {
            0 => ("zeroing ahead", zero_ahead(block, random.below(40)).map(|()| true)),
            1 => ("a beginning", begin(block, wanted).map(|()| true)),
            2 => ("a table", made.table(block, 2 + random.below(11))),
            3 => {
                let inner = made.part(block, wanted).and_then(|part| {
                    zero_ahead(part, random.below(3))?;
                    made.frame(part, wanted.div_ceil(2))
                });
                ("a frame of a part", inner)
            }
            _ => ("a frame", made.frame(block, wanted)),
        };
        match result {
            Ok(true) | Err(Error::NoMemory) => {}
            Ok(false) => return Err(format!("{what} of {wanted} pages is not zero")),
            Err(error) => return Err(format!("{what} of {wanted} pages: {}", error.text())),
        }
    }
    Ok(())
}

/// Has memory zeroed for a frame, at most one portion of it, and makes none.
fn begin(block: Untyped, pages: u64) -> Result<(), Error> {
    let slot = slots::take()?;
    let begun = block.retype_step(ObjectKind::Frame, pages, CNode::OWN, slot, 1);
    slots::free(slot);
    match begun {
        Err(Error::Again) => Ok(()),
        other => other,
    }
}

/// What was zeroed for a large page leaves a gap before it, and a table that begins in that gap is empty all the same.
fn behind_a_gap(block: Untyped, pages: u64) -> Check {
    if pages < 4 * LARGE {
        return Ok(());
    }
    let mut made = Made(Vec::new());
    made.frame(block, 3 * LARGE).map_err(text)?;
    drop(core::mem::replace(&mut made, Made(Vec::new())));
    made.frame(block, LARGE / 2).map_err(text)?;
    begin(block, 2 * LARGE).map_err(text)?;
    match made.table(block, 16) {
        Ok(true) => Ok(()),
        Ok(false) => Err("a table holds what stood in its memory before".into()),
        Err(error) => Err(text(error)),
    }
}

/// Of a batch of which the kernel made only some, for it had no room for more of the kind, those stand in used memory.
fn half_a_batch(block: Untyped, pages: u64) -> Check {
    /// Slots of a table for more address spaces than there can be.
    const SLOTS: u64 = 2048;
    const BATCH: u64 = 64;
    // An address space takes at least three pages, and there are 1024.
    if pages < 3 * SLOTS / 2 + LARGE {
        return Ok(());
    }
    let mut made = Made(Vec::new());
    let slot = block.make(ObjectKind::CNode, u64::from(SLOTS.ilog2())).map_err(text)?;
    made.0.push(slot);
    let table = CNode::new(slot);
    let mut next = 1;
    while next + BATCH <= SLOTS {
        let before = block.info().map_err(text)?.used;
        match block.retype(ObjectKind::AddressSpace, 1, table, next as u32, BATCH as u32) {
            Ok(()) => next += BATCH,
            Err(Error::NoMemory) => {
                let some = u64::from(table.next_used(next as u32).map_err(text)?) < SLOTS;
                if some && block.info().map_err(text)?.used <= before {
                    return Err("half a batch of address spaces stands in unused memory".into());
                }
                return match made.frame(block, 64) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err("a frame behind half a batch of address spaces is not zero".into()),
                    Err(error) => Err(text(error)),
                };
            }
            Err(error) => return Err(text(error)),
        }
    }
    Err("there is no end of address spaces".into())
}

/// What is known to be zero is told, and forgotten when the memory was used.
fn counted(block: Untyped, pages: u64) -> Check {
    let zeroed = || block.info().map(|info| info.zeroed).map_err(text);
    let all = pages * PAGE_SIZE as u64;
    zero_ahead(block, u64::MAX).map_err(text)?;
    if zeroed()? != all {
        return Err(format!("{} of {all} bytes are zero after all were zeroed", zeroed()?));
    }
    let mut made = Made(Vec::new());
    made.frame(block, 1).map_err(text)?;
    if zeroed()? != all - PAGE_SIZE as u64 {
        return Err(format!("{} of {all} bytes are zero behind a page", zeroed()?));
    }
    let part = made.part(block, pages / 4).and_then(Untyped::info).map_err(text)?;
    if part.zeroed != part.pages * PAGE_SIZE as u64 {
        return Err(format!("{} bytes of a zeroed part of {} pages are zero", part.zeroed, part.pages));
    }
    drop(made);
    if zeroed()? != 0 {
        return Err(format!("{} bytes are zero where something was", zeroed()?));
    }
    Ok(())
}
