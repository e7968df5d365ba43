//! Page tables, and code that changes itself (SDM volume 3, 4.8, 4.10, 12.6).

use crate::{code, ensure, machine, report::Outcome, same, start::Test, trap};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("paging-accessed-and-dirty", accessed_and_dirty),
    ("paging-dirty-log", dirty_log),
    ("paging-translations", translations),
    ("paging-global-pages", global),
    ("paging-large-pages", large),
    ("paging-levels", levels),
    ("paging-memory-types", memory_types),
    ("code-same-page", same_page),
    ("code-across-pages", across_pages),
    ("code-other-mapping", other_mapping),
    ("code-overwrites-the-next-instruction", next_instruction),
];

fn accessed_and_dirty() -> Outcome {
    let bits = || machine::entry(1) & 0x60;
    let page = machine::map(1, machine::scratch(1) | 7);
    same!(bits(), 0, "before");
    machine::peek::<u8>(page);
    same!(bits(), 0x20, "after a read");
    machine::poke(page, 1u8);
    same!(bits(), 0x60, "after a write");
    // An access that faults sets nothing.
    machine::map(1, machine::scratch(1) | 1);
    trap::probe(code!(; "mov [rdi], eax"), page);
    same!(bits(), 0, "after a refused write");
    // Fetches and ring 3.
    machine::poke(machine::scratch(1), [0xcdu8, 0x80]);
    machine::map(1, machine::scratch(1) | 7);
    let trap = trap::probe_user(code!(; "jmp rdi"), page);
    same!((trap.vector, trap.rip), (0x80, page + 2), "ring 3");
    same!(bits(), 0x20, "after a fetch");
    // The upper levels have accessed bits only.
    let tables = machine::WINDOW_TABLES.get() as u64;
    for (level, place) in [("directory", tables + 4096), ("pointers", tables + 8192)] {
        same!(machine::peek::<u64>(place) & 0x20, 0x20, "{level}");
    }
    // A locked instruction that does not change anything still writes.
    machine::map(1, machine::scratch(1) | 3);
    trap::probe(code!("mov eax, 0x12345678", "xor ecx, ecx"; "lock cmpxchg [rdi + 8], ecx"), page);
    same!(bits(), 0x60, "after a CMPXCHG that failed");
    machine::map(1, 0);
    Ok(())
}

fn dirty_log() -> Outcome {
    for page in 16..48 {
        machine::map(page, machine::scratch(0) | 3);
    }
    for page in (16..48).step_by(3) {
        machine::poke(machine::WINDOW + page * 4096 + 100, 1u8);
    }
    for page in 16..48 {
        same!(machine::entry(page) >> 6 & 1, u64::from((page - 16) % 3 == 0), "page {page}");
    }
    // Cleared and flushed, they are set anew.
    for page in 16..48 {
        machine::map(page, machine::entry(page) & !0x60);
    }
    machine::poke(machine::WINDOW + 17 * 4096, 1u8);
    same!(machine::entry(17) & 0x60, 0x60, "second round");
    same!(machine::entry(16) & 0x60, 0, "second round, not touched");
    for page in 16..48 {
        machine::map(page, 0);
    }
    Ok(())
}

fn translations() -> Outcome {
    machine::poke(machine::scratch(0), 0x1111u64);
    machine::poke(machine::scratch(1), 0x2222u64);
    let page = machine::map(1, machine::scratch(0) | 3);
    same!(machine::peek::<u64>(page), 0x1111, "first");
    machine::map(1, machine::scratch(1) | 3);
    same!(machine::peek::<u64>(page), 0x2222, "after INVLPG");
    // Without INVLPG, a write to CR3 does.
    machine::poke(machine::WINDOW_TABLES.get() as u64 + 8, machine::scratch(0) | 3);
    machine::set_cr3(machine::cr3());
    same!(machine::peek::<u64>(page), 0x1111, "after a write to CR3");
    // What was absent is not remembered.
    machine::map(1, 0);
    ensure!(trap::probe(code!(; "mov eax, [rdi]"), page).is_some(), "absent");
    machine::poke(machine::WINDOW_TABLES.get() as u64 + 8, machine::scratch(1) | 3);
    same!(trap::probe(code!(; "mov eax, [rdi]"), page), None, "present from now on");
    // More rights are found by the fault's own look.
    machine::map(1, machine::scratch(1) | 1);
    machine::peek::<u8>(page);
    machine::poke(machine::WINDOW_TABLES.get() as u64 + 8, machine::scratch(1) | 3);
    same!(trap::probe(code!(; "mov [rdi], eax"), page), None, "writable from now on");
    machine::map(1, 0);
    Ok(())
}

fn global() -> Outcome {
    let cr4 = machine::cr4();
    machine::poke(machine::scratch(0), 0x1111u64);
    machine::poke(machine::scratch(1), 0x2222u64);
    machine::set_cr4(cr4 | 0x80);
    let page = machine::map(1, machine::scratch(0) | 0x103);
    machine::peek::<u64>(page);
    machine::poke(machine::WINDOW_TABLES.get() as u64 + 8, machine::scratch(1) | 0x103);
    // A write to CR4.PGE forgets global pages too.
    machine::set_cr4(cr4 & !0x80);
    let seen = machine::peek::<u64>(page);
    machine::set_cr4(cr4);
    machine::map(1, 0);
    same!(seen, 0x2222, "after CR4.PGE changed");
    Ok(())
}

fn large() -> Outcome {
    let tables = machine::WINDOW_TABLES.get() as u64;
    machine::map(1, 0);
    let scratch = machine::scratch(0);
    machine::poke(scratch + 8, 0x1a26_e5ecu32);
    // 2 MiB at the second place of the directory.
    machine::poke(tables + 4096 + 8, (scratch & !0x1f_ffff) | 0x83);
    let address = machine::WINDOW + 0x20_0000 + (scratch & 0x1f_ffff) + 8;
    same!(machine::peek::<u32>(address), 0x1a26_e5ec, "2 MiB");
    same!(machine::peek::<u64>(tables + 4096 + 8) & 0x60, 0x20, "2 MiB, accessed");
    machine::poke(address, 0u32);
    same!(machine::peek::<u64>(tables + 4096 + 8) & 0x60, 0x60, "2 MiB, dirty");
    machine::poke(tables + 4096 + 8, 0u64);
    machine::flush(machine::WINDOW + 0x20_0000);
    if machine::cpuid(0x8000_0001, 0)[3] >> 26 & 1 != 0 {
        machine::poke(scratch + 8, 0x6169_6220u32);
        machine::poke(tables + 8192 + 8, 0x83u64);
        let seen = machine::peek::<u32>(machine::WINDOW + (1 << 30) + scratch + 8);
        machine::poke(tables + 8192 + 8, 0u64);
        machine::flush(machine::WINDOW + (1 << 30));
        same!(seen, 0x6169_6220, "1 GiB");
    }
    // Reserved bits of a large page: bit 13.
    machine::poke(tables + 4096 + 8, 0x2083u64);
    let trap = trap::probe(code!(; "mov eax, [rdi]"), machine::WINDOW + 0x20_0000);
    machine::poke(tables + 4096 + 8, 0u64);
    machine::flush(machine::WINDOW + 0x20_0000);
    same!(trap.map(|t| (t.vector, t.error)), Some((14, 9)), "reserved bit of a large page");
    Ok(())
}

/// A right must be given at every level.
fn levels() -> Outcome {
    let tables = machine::WINDOW_TABLES.get() as u64;
    let page = machine::map(1, machine::scratch(1) | 7);
    for (name, place) in [
        ("directory", tables + 4096),
        ("pointers", tables + 8192),
        ("root", machine::TABLES.get() as u64 + 8),
    ] {
        let entry = machine::peek::<u64>(place);
        let with = |changed: u64, function: extern "C" fn(u64), user: bool| {
            machine::poke(place, changed);
            machine::flush(page);
            machine::set_cr3(machine::cr3());
            let error = if user {
                Some(trap::probe_user(function, page)).filter(|t| t.vector == 14)
            } else {
                trap::probe(function, page)
            }
            .map(|t| t.error);
            machine::poke(place, entry);
            machine::set_cr3(machine::cr3());
            error
        };
        same!(with(entry & !2, code!(; "mov [rdi], eax"), false), Some(3), "{name} read-only");
        same!(with(entry & !4, code!(; "mov eax, [rdi]"), true), Some(5), "{name} of ring 0");
        same!(with(entry & !1, code!(; "mov eax, [rdi]"), false), Some(0), "{name} absent");
        machine::poke(machine::scratch(1), 0xc3u8);
        same!(with(entry | 1 << 63, code!(; "call rdi"), false), Some(17), "{name} not executable");
        same!(with(entry, code!(; "call rdi"), false), None, "{name} as it was");
    }
    machine::map(1, 0);
    Ok(())
}

fn memory_types() -> Outcome {
    // Every entry of the PAT can be chosen, and memory stays memory.
    for index in 0..8u64 {
        let page = machine::map(1, machine::scratch(1) | 3 | (index & 3) << 3 | (index >> 2) << 7);
        machine::poke(page, index);
        same!(machine::peek::<u64>(machine::scratch(1)), index, "entry {index}");
    }
    machine::map(1, 0);
    Ok(())
}

/// `mov eax, VALUE; ret`.
fn write_code(address: u64, value: u32) {
    machine::poke(address, 0xb8u8);
    machine::poke(address + 1, value);
    machine::poke(address + 5, 0xc3u8);
}

fn call(address: u64) -> u32 {
    let value: u32;
    // SAFETY: code that was just written there.
    unsafe { core::arch::asm!("call {}", in(reg) address, out("eax") value) };
    value
}

fn same_page() -> Outcome {
    let page = machine::scratch(1);
    for value in 0..20 {
        write_code(page, value);
        same!(call(page), value, "new code");
        machine::poke(page + 1, value + 100);
        same!(call(page), value + 100, "a new constant");
    }
    Ok(())
}

fn across_pages() -> Outcome {
    // The constant lies on both pages.
    let address = machine::scratch(2) - 3;
    for value in [0u32, 0x0102_0304, 0xffff_ffff, 0x8899_aabb] {
        write_code(address, value);
        same!(call(address), value, "an instruction on two pages");
    }
    // Only the second page changes.
    machine::poke(machine::scratch(2), [0x11u8, 0x22]);
    same!(call(address), 0x2211_aabb, "its second page changed");
    Ok(())
}

fn other_mapping() -> Outcome {
    let page = machine::map(1, machine::scratch(1) | 3);
    write_code(machine::scratch(1), 1);
    same!(call(page), 1, "at first");
    machine::poke(machine::scratch(1) + 1, 2u32);
    same!(call(page), 2, "changed through another mapping");
    machine::poke(page + 1, 3u32);
    same!(call(machine::scratch(1)), 3, "and the other way");
    // Other code at the same linear address.
    write_code(machine::scratch(2), 9);
    machine::map(1, machine::scratch(2) | 3);
    same!(call(page), 9, "after the page table changed");
    machine::map(1, 0);
    Ok(())
}

/// On every processor since the P6 a store is seen by the very next instruction, when its linear address is the same (SDM volume 3, 12.6).
fn next_instruction() -> Outcome {
    let page = machine::scratch(1);
    // mov byte ptr [rip + 1], 0x55; mov al, 0x11; ret
    let bytes = [0xc6u8, 0x05, 1, 0, 0, 0, 0x55, 0xb0, 0x11, 0xc3];
    for (i, byte) in bytes.into_iter().enumerate() {
        machine::poke(page + i as u64, byte);
    }
    same!(call(page) & 0xff, 0x55, "the next instruction");
    // A store that becomes the code behind a jump: mov byte ptr [rip + 3], 0x66; jmp 1f; int3; 1: mov al, 0x11; ret
    let bytes = [0xc6u8, 0x05, 4, 0, 0, 0, 0x66, 0xeb, 1, 0xcc, 0xb0, 0x11, 0xc3];
    for (i, byte) in bytes.into_iter().enumerate() {
        machine::poke(page + i as u64, byte);
    }
    same!(call(page) & 0xff, 0x66, "behind a jump");
    Ok(())
}
