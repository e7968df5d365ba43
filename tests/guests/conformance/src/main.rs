//! A guest for tests that holds the processor under it against the architecture (Intel SDM, AMD APM), never against an emulator: it runs bare and in a
//! virtual machine, and says the same in both where both are right.
//!
//! For each behaviour it prints a line on COM1, `CONF name ok`, `CONF name absent why` where the processor lacks what is tested, or `CONF name FAILED what`, and in the end
//! `CONF end N passed M failed`. `only=PREFIX` on the command line runs a part.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod cpuid;
#[cfg(target_os = "none")]
mod debug;
#[cfg(target_os = "none")]
mod exceptions;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod legacy;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod mmio;
#[cfg(target_os = "none")]
mod msr;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod processors;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
#[path = "../../bare/src/serial.rs"]
mod serial;
#[cfg(target_os = "none")]
mod trap;

#[cfg(target_os = "none")]
mod start {
    use crate::{machine, println, report::Outcome, serial::Com1, trap};
    use core::sync::atomic::Ordering::SeqCst;

    core::arch::global_asm!(include_str!("boot.s"));
    core::arch::global_asm!(include_str!("low.s"), options(att_syntax));

    /// A behaviour.
    pub type Test = (&'static str, fn() -> Outcome);

    /// Prints without a line's end.
    #[macro_export]
    macro_rules! print {
        ($($arg:tt)*) => {{
            use core::fmt::Write;
            // Writing to the port does not fail.
            let _ = core::write!($crate::serial::Com1, $($arg)*);
        }};
    }

    /// The command line: the Multiboot information has its address at byte 16.
    fn command_line() -> &'static str {
        let information = machine::MULTIBOOT.load(SeqCst);
        let line = u64::from(machine::peek::<u32>(information + 16));
        let length = (0..2047).take_while(|&i| machine::peek::<u8>(line + i) != 0).count();
        // SAFETY: the boot loader's text, which nothing changes.
        core::str::from_utf8(unsafe { core::slice::from_raw_parts(line as *const u8, length) }).unwrap_or("")
    }

    // SAFETY: the symbol is called only by the assembly of this program.
    #[unsafe(no_mangle)]
    extern "C" fn main() {
        Com1::initialise();
        machine::install();
        // The 8259s are silent, the local APIC is on.
        crate::serial::out8(0x21, 0xff);
        crate::serial::out8(0xa1, 0xff);
        machine::set_apic(0xf0, 0x1ff);
        let line = command_line();
        let only = line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("only="))
            .unwrap_or("");
        let (mut passed, mut failed) = (0, 0);
        println!("CONF begin");
        crate::processors::start_second();
        let groups = [
            crate::cpuid::TESTS,
            crate::msr::TESTS,
            crate::exceptions::TESTS,
            crate::debug::TESTS,
            crate::ports::TESTS,
            crate::mmio::TESTS,
            crate::memory::TESTS,
            crate::interrupts::TESTS,
            crate::processors::TESTS,
            crate::legacy::TESTS,
        ];
        for (name, test) in groups.iter().flat_map(|group| group.iter()) {
            if !name.starts_with(only) {
                continue;
            }
            print!("CONF {name} ");
            trap::clear();
            let outcome = test();
            trap::clear();
            machine::set_dr7(0x400);
            match outcome {
                Ok(()) => {
                    passed += 1;
                    println!("ok");
                }
                Err(failure) if failure.absent => println!("absent {failure}"),
                Err(failure) => {
                    failed += 1;
                    println!("FAILED {failure}");
                }
            }
        }
        println!("CONF end {passed} passed {failed} failed");
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        println!("\nCONF panic {info}");
        loop {
            machine::halt();
        }
    }
}
