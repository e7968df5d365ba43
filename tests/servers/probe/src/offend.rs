//! Things that must end the server that does them, and nobody else.

use crate::report::{line, verdict};
use core::arch::asm;
use tessera_rt::abi::{layout, object::Rights};
use tessera_rt::{Untyped, slots, vm};

macro_rules! instruction {
    ($($code:literal),+) => {
        // SAFETY: the instruction is expected to fault; if it does not, it changed at most the registers named here.
        unsafe { asm!($($code,)+ out("rax") _, out("rcx") _, out("rdx") _) }
    };
}

/// Does the thing, or says that it survived.
pub fn run(name: &str) {
    line(format_args!("probe: {name} tries"));
    match name {
        "read-kernel" => read(0xffff_ffff_8020_0000),
        "read-physical-map" => read(0xffff_8000_0000_1000),
        "write-kernel" => write(0xffff_ffff_8020_0000),
        "read-null" => read(8),
        "read-non-canonical" => read(0x8000_0000_0000_0000),
        "read-other-server" => read(SECRET),
        "keep-secret" => return keep_secret(),
        "write-text" => write(layout::PROGRAM_BASE),
        "write-start-info" => write(layout::START_INFO),
        "read-guard-page" => read(layout::STACK_TOP),
        "execute-data" => execute_data(),
        "execute-stack" => execute_stack(),
        "execute-kernel" => jump(0xffff_ffff_8020_0000),
        "jump-non-canonical" => jump(0x8000_0000_0000_0000),
        "stack-overflow" => {
            line(format_args!("probe: {}", recurse(1)));
        }
        "divide-by-zero" => instruction!("xor ecx, ecx", "div ecx"),
        "undefined-instruction" => instruction!("ud2"),
        "breakpoint" => instruction!("int3"),
        "software-interrupt" => instruction!("int 0x80"),
        "kernel-interrupt" => instruction!("int 0xfe"),
        "port-in" => instruction!("mov edx, 0x3f8", "in al, dx"),
        "port-out" => instruction!("mov edx, 0xcf9", "mov eax, 6", "out dx, al"),
        "cli" => instruction!("cli"),
        "hlt" => instruction!("hlt"),
        "read-cr0" => instruction!("mov rax, cr0"),
        "write-cr3" => instruction!("xor eax, eax", "mov cr3, rax"),
        "write-msr" => instruction!("mov ecx, 0xc0000082", "xor eax, eax", "xor edx, edx", "wrmsr"),
        "load-idt" => instruction!("lidt [rsp]"),
        "vmrun" => instruction!("vmrun rax"),
        "swapgs" => instruction!("swapgs"),
        "sysretq" => instruction!("sysretq"),
        "trap-flag" => instruction!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop"),
        "panic" => panic!("on purpose"),
        "exit" => tessera_rt::exit(3, "on purpose"),
        "stop-own-thread" => return,
        "spin" => loop {
            core::hint::spin_loop();
        },
        "flood" => flood(),
        _ => return verdict(name, Some(format_args!("no such offence"))),
    }
    verdict(name, Some(format_args!("survived")));
}

/// Where `keep-secret` has memory and nobody else.
const SECRET: u64 = 0x7_0000_0000;

fn read(address: u64) {
    // SAFETY: expected to fault; the value is not used.
    unsafe { asm!("mov {0}, [{0}]", inout(reg) address => _, options(nostack)) };
}

fn write(address: u64) {
    // SAFETY: expected to fault; where it does not, the test has failed and this server is worth nothing.
    unsafe { asm!("mov byte ptr [{}], 0", in(reg) address, options(nostack)) };
}

fn jump(address: u64) {
    // SAFETY: expected to fault.
    unsafe { asm!("call {}", in(reg) address) };
}

fn execute_data() {
    let frame = Untyped::OWN
        .frame(1)
        .and_then(|frame| vm::map(frame, Rights::READ | Rights::WRITE, 0));
    let Ok(page) = frame else {
        return line(format_args!("probe: no memory"));
    };
    // SAFETY: the page was just mapped, for this.
    unsafe { page.as_ptr().write(0xc3) };
    jump(page.address);
}

fn execute_stack() {
    let code = [0xc3u8; 16];
    jump(core::hint::black_box(&code).as_ptr() as u64);
}

#[expect(unconditional_recursion, reason = "that is the test")]
fn recurse(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    recurse(room[1] + 1) + room[2]
}

fn keep_secret() {
    let kept = Untyped::OWN
        .frame(1)
        .and_then(|frame| frame.map(tessera_rt::AddressSpace::OWN, SECRET, Rights::READ | Rights::WRITE, 0));
    match kept {
        Ok(()) => verdict("keep-secret", None),
        Err(error) => verdict("keep-secret", Some(format_args!("{}", error.text()))),
    }
}

/// Calls init without end: with nonsense, with log lines, with capabilities. init must go on serving the others.
fn flood() {
    use tessera_rt::abi::syscall::MessageInfo;
    use tessera_rt::{Endpoint, manifest::slots as fixed};
    let init = Endpoint::new(fixed::INIT);
    let mut random = tessera_probe::random::Random::new(1);
    let _ = slots::take();
    loop {
        let mut words = core::array::from_fn(|_| random.next());
        let _ = init.call(MessageInfo::new(random.below(49) as usize, 0), None, &mut words);
    }
}
