//! Every privileged or sensitive instruction, one after the other, and hypercalls.

use crate::{println, trap::survive};
use core::arch::asm;

macro_rules! instructions {
    ($($name:literal: $($code:literal),+;)*) => {
        &[$(($name, {
            extern "C" fn run(argument: u64) {
                // SAFETY: whatever it does, it does to this guest; the caller recovers from exceptions. All registers that C preserves are saved there.
                unsafe {
                    asm!($($code,)+ inout("rdi") argument => _, out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
                        out("r8") _, out("r9") _, out("r10") _, out("r11") _);
                }
            }
            run as extern "C" fn(u64)
        })),*]
    };
}

/// Names and code. `rdi` points to 64 bytes of scratch memory.
static ALL: &[(&str, extern "C" fn(u64))] = instructions! {
    "ud2": "ud2";
    "int3": "int3";
    "int 0x80": "int 0x80";
    "int1": ".byte 0xf1";
    "hlt with a pending breakpoint": "int3", "hlt";
    "invd": "invd";
    "wbinvd": "wbinvd";
    "clts": "clts";
    "smsw": "smsw ax";
    "lmsw": "smsw ax", "lmsw ax";
    "sgdt": "sgdt [rdi]";
    "sidt": "sidt [rdi]";
    "sldt": "sldt ax";
    "str": "str ax";
    "lldt null": "xor eax, eax", "lldt ax";
    "lldt bad": "mov eax, 0xfff8", "lldt ax";
    "ltr bad": "mov eax, 0xfff8", "ltr ax";
    "mov cr0 same": "mov rax, cr0", "mov cr0, rax";
    "mov cr2": "mov rax, -1", "mov cr2, rax";
    "mov cr3 same": "mov rax, cr3", "mov cr3, rax";
    "mov cr4 same": "mov rax, cr4", "mov cr4, rax";
    "mov cr8": "mov eax, 15", "mov cr8, rax", "xor eax, eax", "mov cr8, rax";
    "mov cr8 reserved": "mov eax, 16", "mov cr8, rax";
    "mov dr0": "mov rax, -1", "mov dr0, rax", "mov rax, dr0";
    "mov dr6": "mov rax, dr6", "mov dr6, rax";
    "mov dr7": "mov rax, dr7", "mov dr7, rax";
    "invlpg": "invlpg [rdi]";
    "invpcid": "mov qword ptr [rdi], 0", "mov qword ptr [rdi + 8], 0", "mov eax, 2", "invpcid rax, [rdi]";
    "rdpmc": "xor ecx, ecx", "rdpmc";
    "rdpmc far": "mov ecx, -1", "rdpmc";
    "rdtsc": "rdtsc";
    "rdtscp": "rdtscp";
    "swapgs": "swapgs", "swapgs";
    "xgetbv": "xor ecx, ecx", "xgetbv";
    "xgetbv 1": "mov ecx, 1", "xgetbv";
    "xsetbv 0": "xor ecx, ecx", "xor eax, eax", "xor edx, edx", "xsetbv";
    "xsetbv all": "xor ecx, ecx", "mov eax, -1", "mov edx, -1", "xsetbv";
    "xsetbv x87": "xor ecx, ecx", "mov eax, 1", "xor edx, edx", "xsetbv";
    "xsetbv register 7": "mov ecx, 7", "mov eax, 1", "xor edx, edx", "xsetbv";
    "monitor": "mov rax, rdi", "xor ecx, ecx", "xor edx, edx", "monitor";
    "mwait extensions": "mov eax, -1", "mov ecx, -1", "mwait";
    "clflush": "clflush [rdi]";
    "cpuid all": "push rbx", "mov esi, 0x80000040", "2:", "mov eax, esi", "mov ecx, esi", "cpuid", "dec esi", "cmp esi, 0x80000000", "jae 2b",
        "mov esi, 0x40000040", "3:", "mov eax, esi", "xor ecx, ecx", "cpuid", "dec esi", "cmp esi, 0x40000000", "jae 3b",
        "mov esi, 64", "4:", "mov eax, esi", "mov ecx, esi", "cpuid", "dec esi", "jns 4b", "pop rbx";
    "vmcall": "mov eax, -1", "vmcall";
    "vmmcall": "mov eax, -1", "vmmcall";
    "vmrun": "mov rax, rdi", "vmrun rax";
    "vmrun bad": "mov rax, -4096", "vmrun rax";
    "vmload": "mov rax, rdi", "vmload rax";
    "vmsave": "mov rax, -4096", "vmsave rax";
    "stgi": "stgi";
    "clgi": "clgi";
    "skinit": "xor eax, eax", "skinit eax";
    "invlpga": "xor eax, eax", "xor ecx, ecx", "invlpga rax, ecx";
    "vmxon": "mov qword ptr [rdi], 0", ".byte 0xf3, 0x0f, 0xc7, 0x37";
    "vmxoff": "vmxoff";
    "vmlaunch": "vmlaunch";
    "vmptrld": ".byte 0x0f, 0xc7, 0x37";
    "vmread": "xor eax, eax", "vmread rax, rax";
    "invept": "mov eax, 1", ".byte 0x66, 0x0f, 0x38, 0x80, 0x07";
    "vmfunc": "xor eax, eax", "vmfunc";
    "getsec": "xor eax, eax", ".byte 0x0f, 0x37";
    "encls": "xor eax, eax", ".byte 0x0f, 0x01, 0xcf";
    "non-canonical read": "mov rax, 0x8000000000000000", "mov rax, [rax]";
    "non-canonical stack": "mov rcx, rsp", "mov rax, 0x7fffffffffffff00", "mov rsp, rax", "mov rsp, rcx";
    "divide by zero": "xor ecx, ecx", "div ecx";
    "lock on a register": ".byte 0xf0, 0x89, 0xc0";
    "fifteen prefixes": ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x0f,0xa2";
    "cpuid with prefixes": "push rbx", "xor eax, eax", ".byte 0x66,0xf2,0x48,0x0f,0xa2", "pop rbx";
    "rdmsr with prefixes": "mov ecx, 0x10", ".byte 0xf3,0x66,0x0f,0x32";
    "in with prefixes": "mov edx, 0x3fd", ".byte 0x66,0x66,0xec";
    "ins to nowhere": "mov edx, 0x3fd", "mov rdi, 0x8000000000000000", "mov ecx, 16", "rep insb";
    "outs from nowhere": "mov edx, 0x80", "mov rsi, 0x8000000000000000", "mov ecx, 16", "rep outsb";
    "outs backwards": "mov edx, 0x80", "mov rsi, rdi", "mov ecx, 8", "std", "rep outsb", "cld";
    "wrpkru": "xor eax, eax", "xor ecx, ecx", "xor edx, edx", ".byte 0x0f, 0x01, 0xef";
    "rdpkru": "xor ecx, ecx", ".byte 0x0f, 0x01, 0xee";
    "clac stac": "clac", "stac";
    "rdfsbase": "rdfsbase rax";
    "rdrand": "rdrand rax";
    "rdseed": "rdseed rax";
    "umonitor": ".byte 0xf3, 0x0f, 0xae, 0xf7";
    "wbnoinvd": ".byte 0xf3, 0x0f, 0x09";
    "pconfig": "xor eax, eax", ".byte 0x0f, 0x01, 0xc5";
    "psmash": ".byte 0xf3, 0x0f, 0x01, 0xff";
    "pause a thousand times": "mov ecx, 1000", "2:", "pause", "loop 2b";
};

/// What leaves a state in which a processor, or an emulator that checks less, cannot go on: each is a test of its own, `wreck-N`, after which only the host has to be well.
static WRECKS: &[(&str, extern "C" fn(u64))] = instructions! {
    "hlt with prefixes and a trap flag": "pushfq", "or qword ptr [rsp], 0x100", "popfq", ".byte 0x66, 0xf4";
    "ins huge count": "mov edx, 0x3fd", "mov ecx, 0", "rep insd";
    "mov cr0 without PE": "mov rax, cr0", "and eax, 0xfffffffe", "mov cr0, rax";
    "mov cr0 NW without CD": "mov rax, cr0", "or eax, 0x20000000", "and eax, 0xbfffffff", "mov cr0, rax";
    "mov cr0 high bits": "mov rax, cr0", "bts rax, 40", "mov cr0, rax";
    "mov cr3 reserved": "mov rax, cr3", "bts rax, 62", "mov cr3, rax", "mov rax, cr3", "btr rax, 62", "mov cr3, rax";
    "mov cr4 reserved": "mov rax, cr4", "bts rax, 31", "mov cr4, rax";
    "mov cr4 VMXE": "mov rax, cr4", "mov rdx, rax", "bts rax, 13", "mov cr4, rax", "mov cr4, rdx";
    "mov cr4 without PAE": "mov rax, cr4", "and eax, 0xffffffdf", "mov cr4, rax";
    "mov dr7 reserved": "mov rax, -1", "mov dr7, rax";
    "rsm": "rsm";
    "syscall unset": "mov ecx, 0xc0000080", "rdmsr", "and eax, 0xfffffffe", "wrmsr", "syscall";
    "sysenter unset": "sysenter";
    "sysexit": "sysexit";
    "iret to nowhere": "push 0", "push 0", "push 2", "push 0xfff8", "push 0", "iretq";
    "far jump": "push 0x7777", "push 0", "retfq";
};

static SCRATCH: crate::trap::Raw<[u64; 512]> = crate::trap::Raw::new([0; 512]);

/// Tries all of them.
pub fn privileged() {
    let (mut done, mut faults) = (0, 0);
    for (name, code) in ALL {
        println!("BARE privileged next {name}");
        match survive(*code, SCRATCH.get() as u64 & !63) {
            None => done += 1,
            Some(vector) => {
                faults += 1;
                println!("BARE privileged {name}: exception {vector}");
            }
        }
        // SAFETY: undoes what a test may have left: the trap flag and the direction flag.
        unsafe { asm!("push 2", "popfq") };
    }
    println!("BARE privileged end done {done} faulted {faults}");
}

/// Tries one of [`WRECKS`].
pub fn wreck(number: &str) {
    match number.parse::<usize>().ok().and_then(|index| WRECKS.get(index)) {
        Some((name, code)) => {
            println!("BARE wreck next {name}");
            let fault = survive(*code, SCRATCH.get() as u64 & !63);
            println!("BARE wreck-{number} end {name}: {fault:?}");
        }
        None => println!("BARE wreck-{number} none"),
    }
}

/// Makes a function that executes the hypercall `$instruction` with number `number` and odd arguments.
macro_rules! hypercall {
    ($instruction:literal) => {{
        extern "C" fn call(number: u64) {
            for argument in [0, 1, u64::MAX, 0x1000, 1 << 63] {
                // SAFETY: the answer is not used.
                unsafe {
                    asm!("push rbx", "mov rbx, {a}", $instruction, "pop rbx", a = in(reg) argument, inout("rax") number => _,
                        in("rcx") argument, in("rdx") argument, in("rsi") argument);
                }
            }
        }
        call as extern "C" fn(u64)
    }};
}

/// Hypercalls with every small number and odd arguments, by either maker's instruction; the processor lacks one of them.
pub fn hypercalls() {
    let mut faults = 0;
    for call in [hypercall!("vmcall"), hypercall!("vmmcall")] {
        for number in (0..256).chain([u64::MAX, 1 << 31, 1 << 32]) {
            faults += u32::from(survive(call, number).is_some());
        }
    }
    println!("BARE hypercalls end faulted {faults}");
}

/// An exception that nothing can handle.
pub fn triple_fault() {
    let nothing = [0u16; 5];
    // SAFETY: this ends the virtual machine, as wanted.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &nothing) };
}
