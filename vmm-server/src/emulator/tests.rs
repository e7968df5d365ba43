use super::super::string_io;
use super::*;
use crate::boot::registers::{start_at_kernel, start_in_real_mode, tests::blank};
use crate::memory::tests::ram;
use proptest::prelude::*;
use std::boxed::Box;
use std::vec::Vec;

const DEVICE: u64 = 0x8000_0000;

/// A device that remembers accesses, and reads as what was written last.
#[derive(Default)]
struct Recorder {
    log: Vec<(bool, u64, u8, u64)>,
    value: u64,
    ports: Vec<(u16, u8, u32)>,
}

impl Bus for Recorder {
    fn memory_read(&mut self, address: u64, width: u8) -> u64 {
        self.log.push((false, address, width, 0));
        self.value
    }
    fn memory_write(&mut self, address: u64, width: u8, value: u64) {
        self.log.push((true, address, width, value));
        self.value = value;
    }
    fn port_read(&mut self, port: u16, width: u8) -> u32 {
        self.ports.push((port, width, 0));
        0x4433_2211
    }
    fn port_write(&mut self, port: u16, width: u8, value: u32) -> bool {
        self.ports.push((port, width, value));
        false
    }
}

/// A vCPU in long mode without paging in the way: the boot page tables map one to one.
fn long() -> (Box<VcpuState>, GuestMemory) {
    let memory = ram(&[1 << 20]);
    let mut state = blank();
    start_at_kernel(&mut state, 0x4_0000);
    // One PML4, one PDPT with 1 GiB pages.
    memory.write_slice(0x8000, &0x9003u64.to_le_bytes()).unwrap();
    for i in 0..4u64 {
        memory.write_slice(0x9000 + i * 8, &(i << 30 | 0x83).to_le_bytes()).unwrap();
    }
    (state, memory)
}

fn run(state: &mut VcpuState, memory: &GuestMemory, bus: &mut Recorder, code: &[u8]) -> Result<(), Fault> {
    memory.write_slice(super::super::linear_rip(state), code).unwrap();
    emulate(state, memory, bus)
}

/// Runs one instruction on a device that reads as `value`; RBX points there.
fn on_device(value: u64, code: &[u8], prepare: impl Fn(&mut VcpuState)) -> (Box<VcpuState>, Recorder) {
    let (mut state, memory) = long();
    state.gpr[gpr::RBX] = DEVICE;
    prepare(&mut state);
    let mut bus = Recorder {
        value,
        ..Recorder::default()
    };
    run(&mut state, &memory, &mut bus, code).unwrap();
    assert_eq!(state.rip, 0x4_0000 + code.len() as u64);
    (state, bus)
}

#[test]
fn stack() {
    // push qword ptr [rbx]; pop qword ptr [rbx]
    let (state, bus) = on_device(0x1122_3344, &[0xff, 0x33], |state| state.gpr[gpr::RSP] = 0x5000);
    assert_eq!((state.gpr[gpr::RSP], bus.log.len()), (0x4ff8, 1));
    let (state, memory) = long();
    memory.write_slice(0x5000, &0x99u64.to_le_bytes()).unwrap();
    let (mut state, mut bus) = (state, Recorder::default());
    (state.gpr[gpr::RSP], state.gpr[gpr::RBX]) = (0x5000, DEVICE);
    run(&mut state, &memory, &mut bus, &[0x8f, 0x03]).unwrap();
    assert_eq!((state.gpr[gpr::RSP], bus.value), (0x5008, 0x99));
    // push ax with the stack in a device.
    let (state, bus) = on_device(0, &[0x66, 0x50], |state| {
        (state.gpr[gpr::RSP], state.gpr[gpr::RAX]) = (DEVICE + 8, 0x1234_5678);
    });
    assert_eq!(
        (state.gpr[gpr::RSP], bus.log),
        (DEVICE + 6, std::vec![(true, DEVICE + 6, 2, 0x5678)])
    );
    // A pop that faults leaves the stack pointer: the page at 1 MiB is read-only.
    let (mut state, memory) = long();
    memory.write_slice(0x9000, &0x81u64.to_le_bytes()).unwrap();
    (state.gpr[gpr::RSP], state.gpr[gpr::RBX]) = (0x5000, 0x6000);
    state.cr0 |= 1 << 16;
    let outcome = run(&mut state, &memory, &mut Recorder::default(), &[0x8f, 0x03]);
    assert_eq!(
        (outcome, state.gpr[gpr::RSP]),
        (Err(Fault::Page { address: 0x6000, error: 3 }), 0x5000)
    );
}

#[test]
fn string_input_faults_as_a_write_before_the_port_is_read() {
    let (mut state, memory) = long();
    memory.write_slice(0x9000, &0x81u64.to_le_bytes()).unwrap();
    state.cr0 |= 1 << 16;
    state.gpr[gpr::RDI] = 0x6000;
    memory.write_slice(0x4_0000, &[0x6c]).unwrap();
    let mut bus = Recorder::default();
    let outcome = string_io(&mut state, &memory, &mut bus);
    assert_eq!(outcome, Err(Fault::Page { address: 0x6000, error: 3 }));
    assert!(bus.ports.is_empty());
}

#[test]
fn a_single_step_of_a_string_is_one_iteration() {
    let (mut state, memory) = long();
    (state.gpr[gpr::RDI], state.gpr[gpr::RCX]) = (DEVICE, 2);
    state.rflags |= 1 << 8;
    let mut bus = Recorder::default();
    run(&mut state, &memory, &mut bus, &[0xf3, 0xaa]).unwrap();
    assert_eq!((state.rip, state.gpr[gpr::RCX]), (0x4_0000, 1));
    run(&mut state, &memory, &mut bus, &[0xf3, 0xaa]).unwrap();
    assert_eq!((state.rip, state.gpr[gpr::RCX]), (0x4_0002, 0));
}

#[test]
fn loads() {
    // mov eax, [rbx+0x20]
    let (state, bus) = on_device(0xdead_beef_1234_5678, &[0x8b, 0x43, 0x20], |state| state.gpr[gpr::RAX] = u64::MAX);
    assert_eq!(state.gpr[gpr::RAX], 0x1234_5678, "upper half cleared");
    assert_eq!(bus.log, [(false, DEVICE + 0x20, 4, 0)]);
    // mov al, [rbx]; mov ah, [rbx]; mov rax, [rbx]
    assert_eq!(
        on_device(0x99, &[0x8a, 0x03], |state| state.gpr[gpr::RAX] = 0x1100).0.gpr[gpr::RAX],
        0x1199
    );
    assert_eq!(
        on_device(0x99, &[0x8a, 0x23], |state| state.gpr[gpr::RAX] = 0x11).0.gpr[gpr::RAX],
        0x9911
    );
    assert_eq!(on_device(u64::MAX, &[0x48, 0x8b, 0x03], |_| ()).0.gpr[gpr::RAX], u64::MAX);
    // movzx eax, byte [rbx]; movsx rax, byte [rbx]; movsxd rax, dword [rbx]
    assert_eq!(on_device(0xff80, &[0x0f, 0xb6, 0x03], |_| ()).0.gpr[gpr::RAX], 0x80);
    assert_eq!(on_device(0x80, &[0x48, 0x0f, 0xbe, 0x03], |_| ()).0.gpr[gpr::RAX] as i64, -128);
    assert_eq!(
        on_device(0x8000_0000, &[0x48, 0x63, 0x03], |_| ()).0.gpr[gpr::RAX],
        0xffff_ffff_8000_0000
    );
}

#[test]
fn stores() {
    // mov [rbx], ecx; mov dword [rbx+8], imm32; mov word [rbx], cx; mov [rbx], dh
    let (_, bus) = on_device(0, &[0x89, 0x0b], |state| state.gpr[gpr::RCX] = 0x1_2345_6789);
    assert_eq!(bus.log, [(true, DEVICE, 4, 0x2345_6789)]);
    let (_, bus) = on_device(0, &[0xc7, 0x43, 8, 1, 2, 3, 4], |_| ());
    assert_eq!(bus.log, [(true, DEVICE + 8, 4, 0x0403_0201)]);
    let (_, bus) = on_device(0, &[0x66, 0x89, 0x0b], |state| state.gpr[gpr::RCX] = 0x1_2345);
    assert_eq!(bus.log, [(true, DEVICE, 2, 0x2345)]);
    let (_, bus) = on_device(0, &[0x88, 0x33], |state| state.gpr[gpr::RDX] = 0xab00);
    assert_eq!(bus.log, [(true, DEVICE, 1, 0xab)]);
    // mov [0x80000000+abs32 sign-extends]: mov qword [rbx], -1
    let (_, bus) = on_device(0, &[0x48, 0xc7, 0x03, 0xff, 0xff, 0xff, 0xff], |_| ());
    assert_eq!(bus.log, [(true, DEVICE, 8, u64::MAX)]);
}

#[test]
fn arithmetic_on_memory() {
    // or dword [rbx], 0x10
    let (_, bus) = on_device(0x101, &[0x83, 0x0b, 0x10], |_| ());
    assert_eq!(bus.log, [(false, DEVICE, 4, 0), (true, DEVICE, 4, 0x111)]);
    // cmp dword [rbx], 5: no write
    let (state, bus) = on_device(5, &[0x83, 0x3b, 5], |_| ());
    assert_eq!(bus.log.len(), 1);
    assert_ne!(state.rflags & ZERO, 0);
    // test byte [rbx], 0x80; and eax, [rbx]
    assert_eq!(on_device(0x7f, &[0xf6, 0x03, 0x80], |_| ()).0.rflags & ZERO, ZERO);
    assert_eq!(
        on_device(0xf0, &[0x23, 0x03], |state| state.gpr[gpr::RAX] = 0x3c).0.gpr[gpr::RAX],
        0x30
    );
    // xchg [rbx], eax
    let (state, bus) = on_device(7, &[0x87, 0x03], |state| state.gpr[gpr::RAX] = 9);
    assert_eq!((state.gpr[gpr::RAX], bus.value), (7, 9));
    // lock bts dword [rbx], 33: the bit number is cut; bt [rbx], ecx reaches further
    let (state, bus) = on_device(0, &[0xf0, 0x0f, 0xba, 0x2b, 33], |_| ());
    assert_eq!((state.rflags & CARRY, bus.value), (0, 2));
    let (_, bus) = on_device(0, &[0x0f, 0xa3, 0x0b], |state| state.gpr[gpr::RCX] = 40);
    assert_eq!(bus.log, [(false, DEVICE + 4, 4, 0)]);
    // lock cmpxchg [rbx], ecx
    let (state, bus) = on_device(5, &[0xf0, 0x0f, 0xb1, 0x0b], |state| {
        (state.gpr[gpr::RAX], state.gpr[gpr::RCX]) = (5, 6)
    });
    assert_eq!((state.rflags & ZERO, bus.value), (ZERO, 6));
    let (state, bus) = on_device(8, &[0xf0, 0x0f, 0xb1, 0x0b], |state| {
        (state.gpr[gpr::RAX], state.gpr[gpr::RCX]) = (5, 6)
    });
    assert_eq!((state.rflags & ZERO, state.gpr[gpr::RAX], bus.value), (0, 8, 8));
    // inc byte [rbx], not dword [rbx]
    assert_eq!(on_device(0xff, &[0xfe, 0x03], |_| ()).1.value, 0);
    assert_eq!(on_device(0x0f, &[0xf7, 0x13], |_| ()).1.value, 0xffff_fff0);
}

#[test]
fn strings() {
    let (mut state, memory) = long();
    let mut bus = Recorder::default();
    memory.write_slice(0x5_0000, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    (state.gpr[gpr::RSI], state.gpr[gpr::RDI], state.gpr[gpr::RCX]) = (0x5_0000, DEVICE, 2);
    run(&mut state, &memory, &mut bus, &[0xf3, 0xa5]).unwrap(); // rep movsd
    assert_eq!(bus.log, [(true, DEVICE, 4, 0x0403_0201), (true, DEVICE + 4, 4, 0x0807_0605)]);
    assert_eq!(
        (state.gpr[gpr::RCX], state.gpr[gpr::RSI], state.gpr[gpr::RDI]),
        (0, 0x5_0008, DEVICE + 8)
    );
    // std; rep stosb stops after a burst and comes back.
    state.rflags |= DIRECTION;
    (state.gpr[gpr::RDI], state.gpr[gpr::RCX]) = (DEVICE + 0x10_0000, 5000);
    let rip = state.rip;
    run(&mut state, &memory, &mut bus, &[0xf3, 0xaa]).unwrap();
    assert_eq!((state.rip, state.gpr[gpr::RCX]), (rip, 5000 - BURST));
    emulate(&mut state, &memory, &mut bus).unwrap();
    assert_eq!(
        (state.rip, state.gpr[gpr::RCX], state.gpr[gpr::RDI]),
        (rip + 2, 0, DEVICE + 0x10_0000 - 5000)
    );
}

#[test]
fn string_ports_cross_pages_and_fault_before_the_port() {
    let (mut state, memory) = long();
    let mut bus = Recorder::default();
    (state.gpr[gpr::RDX], state.gpr[gpr::RDI], state.gpr[gpr::RCX]) = (0x1f0, 0x5_0ffe, 2);
    memory.write_slice(state.rip, &[0xf3, 0x6d]).unwrap(); // rep insd
    string_io(&mut state, &memory, &mut bus).unwrap();
    assert_eq!(bus.ports, [(0x1f0, 4, 0); 2]);
    assert_eq!(memory.read::<8>(0x5_0ffe), Some([0x11, 0x22, 0x33, 0x44, 0x11, 0x22, 0x33, 0x44]));
    assert_eq!(state.rip, 0x4_0002);
    memory.write_slice(state.rip, &[0x6e]).unwrap(); // outsb
    state.gpr[gpr::RSI] = 0x5_0fff;
    string_io(&mut state, &memory, &mut bus).unwrap();
    assert_eq!(bus.ports[2], (0x1f0, 1, 0x22));
    memory.write_slice(state.rip, &[0x6c]).unwrap(); // insb
    state.gpr[gpr::RDI] = 1 << 40;
    let before = state.rip;
    assert!(matches!(
        string_io(&mut state, &memory, &mut bus),
        Err(Fault::Page { error: 2, .. })
    ));
    assert_eq!((bus.ports.len(), state.rip), (3, before));
}

#[test]
fn real_mode_uses_segments() {
    let memory = ram(&[1 << 20]);
    let mut state = blank();
    start_in_real_mode(&mut state, 0x10);
    state.segments[segment::DS].base = 0x20_0000;
    state.gpr[gpr::RBX] = 0xff_0010;
    let mut bus = Recorder {
        value: 0x55aa,
        ..Recorder::default()
    };
    run(&mut state, &memory, &mut bus, &[0x8b, 0x47, 0x02]).unwrap(); // mov ax, [bx+2]
    assert_eq!(bus.log, [(false, 0x20_0012, 2, 0)]);
    assert_eq!((state.gpr[gpr::RAX], state.rip), (0x55aa, 3));
}

#[test]
fn unknown_and_invalid() {
    let (mut state, memory) = long();
    let mut bus = Recorder::default();
    state.gpr[gpr::RBX] = DEVICE;
    assert!(matches!(run(&mut state, &memory, &mut bus, &[0xff, 0x13]), Err(Fault::Unknown(_)))); // call [rbx]
    assert_eq!(
        run(&mut state, &memory, &mut bus, &[0x0f, 0x0b, 0, 0]),
        Err(Fault::Unknown("an instruction without operands on device memory"))
    );
    assert_eq!(run(&mut state, &memory, &mut bus, &[0x06, 0, 0]), Err(Fault::Exception(6, None)));
    assert!(bus.log.is_empty());
    assert_eq!(state.rip, 0x4_0000, "a refused instruction does not move on");
}

proptest! {
    #[test]
    fn any_bytes_any_registers(code in prop::collection::vec(any::<u8>(), 15), registers: [u64; 16], real: bool, small: bool) {
        let (mut state, memory) = long();
        if real {
            start_in_real_mode(&mut state, 0x10);
        }
        state.gpr = registers;
        if small {
            state.gpr.iter_mut().for_each(|register| *register &= 0xfffff);
        }
        let mut bus = Recorder::default();
        let _ = run(&mut state, &memory, &mut bus, &code);
        let _ = string_io(&mut state, &memory, &mut bus);
    }
}
