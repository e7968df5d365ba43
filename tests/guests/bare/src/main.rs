//! A guest for tests: a bzImage without an operating system that does, on command, everything a hostile guest would try.
//!
//! `guest.test=NAME` on the command line selects the test. It prints `BARE NAME begin`, then a line `BARE NAME end …` with what it counted, and stops with interrupts
//! off. Whether the virtual machine survives a test is not the point; the host must.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod instructions;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod msr;
#[cfg(target_os = "none")]
mod ports;
#[cfg(target_os = "none")]
mod serial;
#[cfg(target_os = "none")]
mod trap;
#[cfg(target_os = "none")]
mod virtio;

#[cfg(target_os = "none")]
mod start {
    use crate::{instructions, memory, msr, ports, println, trap, virtio};

    core::arch::global_asm!(include_str!("boot.s"));

    /// Room for the stack; the assembly sets `rsp` to its end.
    #[repr(align(16))]
    #[allow(dead_code)]
    struct Stack([u8; 65536]);
    // SAFETY: the symbol is used only by the assembly of this program.
    #[unsafe(no_mangle)]
    static STACK: trap::Raw<Stack> = trap::Raw::new(Stack([0; 65536]));

    /// The command line: `boot_params` + 0x228 has its address (Linux boot protocol, `cmd_line_ptr`).
    fn command_line(parameters: u64) -> &'static [u8] {
        // SAFETY: the boot loader passes `boot_params`, a page of identity-mapped memory.
        let pointer = u64::from(unsafe { ((parameters + 0x228) as *const u32).read_unaligned() });
        let byte = |i: u64| {
            // SAFETY: the boot loader puts a zero-terminated line of at most 2048 bytes there.
            unsafe { ((pointer + i) as *const u8).read() }
        };
        let length = (0..2047).take_while(|&i| byte(i) != 0).count();
        // SAFETY: these bytes were just read, and nothing writes there.
        unsafe { core::slice::from_raw_parts(pointer as *const u8, length) }
    }

    // SAFETY: the symbol is called only by the assembly of this program.
    #[unsafe(no_mangle)]
    extern "C" fn main(parameters: u64) {
        let line = core::str::from_utf8(command_line(parameters)).unwrap_or("");
        let name = line
            .split_ascii_whitespace()
            .find_map(|w| w.strip_prefix("guest.test="))
            .unwrap_or("none");
        trap::install();
        println!("BARE {name} begin");
        match name {
            "none" => println!("BARE none end"),
            "triple-fault" => instructions::triple_fault(),
            "privileged" => instructions::privileged(),
            "hypercalls" => instructions::hypercalls(),
            "msr" => msr::walk(),
            "ports" => ports::walk(),
            "memory" => memory::walk(),
            "execute-hole" => memory::execute_hole(),
            "page-table-hole" => memory::page_table_hole(),
            "virtio" => virtio::offend_disk(),
            "virtio-net" => virtio::offend_network(),
            "apic" => memory::apic_registers(),
            "spin" => loop {
                core::hint::spin_loop();
            },
            _ => match name.strip_prefix("wreck-") {
                Some(number) => instructions::wreck(number),
                None => println!("BARE {name} unknown"),
            },
        }
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo) -> ! {
        println!("BARE panic {info}");
        loop {
            // SAFETY: stops this guest's processor.
            unsafe { core::arch::asm!("cli", "hlt") };
        }
    }
}
