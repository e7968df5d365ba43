//! The second processor: INIT, start-up, and interrupts between the two (SDM volume 3, 9.4, 11.6).

use crate::{absent, ensure, machine, machine::SECOND_IS_UP, report::Outcome, same, serial, start::Test, trap};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("second-identity", identity),
    ("second-starts-again", starts_again),
    ("second-debug-registers-after-init", debug_registers),
    ("second-start-page", start_page),
    ("second-ipi-destinations", destinations),
    ("second-nmi", nmi),
    ("second-shared-memory", shared_memory),
    ("second-tsc", tsc),
    ("second-invalidates", invalidates),
];

/// What the second processor does next.
static JOB: AtomicU64 = AtomicU64::new(0);
static ANSWER: AtomicU64 = AtomicU64::new(0);
static COUNTER: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static low_start: u8;
    static low_end: u8;
}

// SAFETY: called only by the assembly of this program.
#[unsafe(no_mangle)]
extern "C" fn second_main() -> ! {
    machine::install();
    machine::set_apic(0xf0, 0x1ff);
    machine::set_apic(0xe0, 0xffff_ffff);
    machine::set_apic(0xd0, 0x0200_0000);
    SECOND_IS_UP.fetch_add(1, SeqCst);
    loop {
        let job = JOB.load(SeqCst);
        if job == 0 {
            machine::open();
            core::hint::spin_loop();
            continue;
        }
        // SAFETY: the first processor stored a function of this type.
        let job = unsafe { core::mem::transmute::<u64, fn() -> u64>(job) };
        ANSWER.store(job(), SeqCst);
        JOB.store(0, SeqCst);
    }
}

/// Runs a function on the second processor.
fn on_second(job: fn() -> u64) -> Option<u64> {
    JOB.store(job as *const () as u64, SeqCst);
    machine::wait(|| JOB.load(SeqCst) == 0).then(|| ANSWER.load(SeqCst))
}

/// INIT and start-up by the shorthand for all others, at page 8. True: it came up.
fn start(page: u32) -> bool {
    let before = SECOND_IS_UP.load(SeqCst);
    machine::send(0, 0xc_4500);
    machine::send(0, 0xc_4600 | page);
    machine::wait_for(1_000_000_000, || SECOND_IS_UP.load(SeqCst) > before)
}

/// Brings the second processor up, if there is one.
pub fn start_second() {
    let (from, end) = (core::ptr::addr_of!(low_start) as u64, core::ptr::addr_of!(low_end) as u64);
    for i in 0..end - from {
        machine::poke(0x8000 + i, machine::peek::<u8>(from + i));
    }
    start(8);
}

fn only_with_two() -> Outcome {
    if machine::processors() < 2 {
        absent!("one processor");
    }
    Ok(())
}

fn identity() -> Outcome {
    only_with_two()?;
    let apic = on_second(|| u64::from(machine::apic(0x20) >> 24));
    let leaf = on_second(|| u64::from(machine::cpuid(1, 0)[1] >> 24));
    ensure!(apic.is_some() && apic == leaf, "APIC {apic:?}, CPUID {leaf:?}");
    ensure!(apic != Some(u64::from(machine::apic(0x20) >> 24)), "both are {apic:?}");
    same!(on_second(|| machine::rdmsr(0x1b) >> 8 & 1), Some(0), "it is not the one that boots");
    Ok(())
}

fn starts_again() -> Outcome {
    only_with_two()?;
    on_second(|| {
        machine::set_apic(0x80, 0x50);
        0
    });
    ensure!(start(8), "it did not come up again");
    same!(on_second(|| u64::from(machine::apic(0x80))), Some(0), "TPR after INIT");
    // A start-up message to a processor that runs does nothing.
    let before = SECOND_IS_UP.load(SeqCst);
    machine::send(0, 0xc_4608);
    same!(on_second(|| 77), Some(77), "it goes on");
    same!(SECOND_IS_UP.load(SeqCst), before, "starts");
    Ok(())
}

/// INIT clears the breakpoint addresses too (SDM volume 3, table 10-1).
fn debug_registers() -> Outcome {
    only_with_two()?;
    on_second(|| {
        machine::set_dr0(0x1234);
        machine::set_dr7(0xffff_0400);
        0
    });
    ensure!(start(8), "it did not come up again");
    same!(on_second(machine::dr7), Some(0x400), "DR7 after INIT");
    same!(on_second(machine::dr0), Some(0), "DR0 after INIT");
    Ok(())
}

fn start_page() -> Outcome {
    only_with_two()?;
    // At page 0x9e, code that says where it is: mov ax, cs; mov [0x600], ax (segment 0 by ds); ip by call; mov eax, cr0; mov [0x604], eax; hlt.
    let code: [u8; 22] = [
        0xfa, 0x8c, 0xc8, 0x2e, 0xa3, 0x00, 0x01, 0x0f, 0x20, 0xc0, 0x66, 0x2e, 0xa3, 0x04, 0x01, 0x2e, 0xc6, 0x06, 0x08, 0x01, 0x01, 0xf4,
    ];
    for (i, byte) in code.into_iter().enumerate() {
        machine::poke(0x9_e000 + i as u64, byte);
    }
    machine::poke(0x9_e108, 0u8);
    machine::send(0, 0xc_4500);
    machine::send(0, 0xc_469e);
    let came = machine::wait(|| machine::peek::<u8>(0x9_e108) == 1);
    let (cs, cr0) = (machine::peek::<u16>(0x9_e100), machine::peek::<u32>(0x9_e104));
    ensure!(start(8), "it did not come up again");
    ensure!(came, "it did not start at page 0x9e");
    same!(cs, 0x9e00, "code segment");
    same!(cr0, 0x6000_0010, "CR0 after INIT");
    Ok(())
}

fn destinations() -> Outcome {
    only_with_two()?;
    let second = on_second(|| u64::from(machine::apic(0x20) >> 24)).unwrap_or(1) as u32;
    machine::set_apic(0xe0, 0xffff_ffff);
    machine::set_apic(0xd0, 0x0100_0000);
    for (number, (name, destination, command, first, other)) in [
        ("physical", second, 0, 0, 1),
        ("physical, everyone", 0xff, 0, 1, 1),
        ("logical, second", 2, 0x800, 0, 1),
        ("logical, both", 3, 0x800, 1, 1),
        ("logical, nobody", 4, 0x800, 0, 0),
        ("shorthand: all others", 0, 0xc_0000, 0, 1),
        ("shorthand: all", 0, 0x8_0000, 1, 1),
        ("shorthand: self", 0, 0x4_0000, 1, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let vector = 0xa0 + number as u8;
        let before = trap::count_on_second(vector);
        machine::send(destination, command | u32::from(vector));
        let reached = || trap::count_on_second(vector) - before;
        if other != 0 {
            machine::wait(|| reached() == other);
        }
        on_second(|| {
            machine::open();
            0
        });
        machine::wait(|| first == 0 || machine::apic(0x250) >> (vector & 31) & 1 != 0);
        machine::open();
        same!((trap::count(vector), reached()), (first, other), "{name}");
    }
    Ok(())
}

fn nmi() -> Outcome {
    only_with_two()?;
    let before = trap::count_on_second(2);
    machine::send(0, 0xc_4400);
    ensure!(machine::wait(|| trap::count_on_second(2) == before + 1), "it did not come");
    same!(trap::count(2), 0, "on the sender");
    same!(on_second(|| 5), Some(5), "it goes on");
    Ok(())
}

fn shared_memory() -> Outcome {
    only_with_two()?;
    COUNTER.store(0, SeqCst);
    JOB.store(
        (|| {
            (0..100_000).for_each(|_| {
                COUNTER.fetch_add(1, SeqCst);
            });
            0
        }) as fn() -> u64 as *const () as u64,
        SeqCst,
    );
    (0..100_000).for_each(|_| {
        COUNTER.fetch_add(1, SeqCst);
    });
    ensure!(machine::wait(|| JOB.load(SeqCst) == 0), "it did not come to its end");
    same!(COUNTER.load(SeqCst), 200_000, "locked additions of both");
    Ok(())
}

fn tsc() -> Outcome {
    only_with_two()?;
    for _ in 0..50 {
        let before = machine::rdtsc();
        let there = on_second(machine::rdtsc).unwrap_or(0);
        let after = machine::rdtsc();
        ensure!(
            before <= there && there <= after,
            "{before:#x}, on the second {there:#x}, {after:#x}"
        );
    }
    Ok(())
}

fn invalidates() -> Outcome {
    only_with_two()?;
    machine::poke(machine::scratch(0), 0x1111u64);
    machine::poke(machine::scratch(1), 0x2222u64);
    machine::map(1, machine::scratch(0) | 3);
    let read = || {
        machine::flush(machine::WINDOW + 4096);
        machine::peek::<u64>(machine::WINDOW + 4096)
    };
    same!(on_second(read), Some(0x1111), "before");
    machine::map(1, machine::scratch(1) | 3);
    same!(on_second(read), Some(0x2222), "after the second's INVLPG");
    machine::map(1, 0);
    let _ = serial::in8(0x3fd);
    Ok(())
}
