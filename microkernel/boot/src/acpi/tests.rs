use super::*;
use proptest::prelude::*;

/// Memory that starts at address 0x1000.
struct Memory(std::vec::Vec<u8>);
const BASE: u64 = 0x1000;

impl Physical for Memory {
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        self.0.get(start..start.checked_add(length)?)
    }
}

impl Memory {
    fn place(&mut self, bytes: &[u8]) -> u64 {
        let address = BASE + self.0.len() as u64;
        self.0.extend(bytes);
        address
    }

    fn place_table(&mut self, signature: &[u8; 4], body: &[u8]) -> u64 {
        let mut bytes = signature.to_vec();
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        let length = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        seal(&mut bytes, 9);
        self.place(&bytes)
    }
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
}

fn madt() -> std::vec::Vec<u8> {
    let mut body = 0xfee0_0000u32.to_le_bytes().to_vec();
    body.extend(1u32.to_le_bytes());
    body.extend([0, 8, 0, 0, 1, 0, 0, 0]);
    body.extend([0, 8, 1, 3, 1, 0, 0, 0]);
    body.extend([0, 8, 2, 5, 0, 0, 0, 0]);
    body.extend([9, 16, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
    body.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0xd, 0]);
    body
}

fn fadt(dsdt: u64) -> std::vec::Vec<u8> {
    let mut body = vec![0u8; 244 - HEADER];
    let mut put = |offset: usize, bytes: &[u8]| body[offset - HEADER..offset - HEADER + bytes.len()].copy_from_slice(bytes);
    put(40, &(dsdt as u32).to_le_bytes());
    put(64, &0x604u32.to_le_bytes());
    put(76, &0x608u32.to_le_bytes());
    put(108, &[0x32]);
    put(112, &(1u32 << 10 | 1 << 8).to_le_bytes());
    put(116, &[1, 8, 0, 1]);
    put(120, &0xcf9u64.to_le_bytes());
    put(128, &[0xf]);
    body
}

fn machine(wide: bool) -> (Memory, std::vec::Vec<u8>) {
    let mut memory = Memory(vec![]);
    let dsdt = memory.place_table(b"DSDT", &[1, 2, 8, b'_', b'S', b'5', b'_', 0x12, 6, 4, 0x0a, 5, 0x01, 0, 0]);
    let tables = [memory.place_table(b"APIC", &madt()), memory.place_table(b"FACP", &fadt(dsdt)), 7];
    let body: std::vec::Vec<u8> = if wide {
        tables.iter().flat_map(|t| t.to_le_bytes()).collect()
    } else {
        tables.iter().flat_map(|&t| (t as u32).to_le_bytes()).collect()
    };
    let root = memory.place_table(if wide { b"XSDT" } else { b"RSDT" }, &body);
    let mut rsdp = b"RSD PTR ".to_vec();
    rsdp.resize(if wide { 36 } else { 20 }, 0);
    rsdp[15] = if wide { 2 } else { 0 };
    if wide {
        rsdp[24..32].copy_from_slice(&root.to_le_bytes());
    } else {
        rsdp[16..20].copy_from_slice(&(root as u32).to_le_bytes());
    }
    seal(&mut rsdp[..20], 8);
    if wide {
        seal(&mut rsdp, 32);
    }
    (memory, rsdp)
}

#[test]
fn reads_a_machine() {
    for wide in [false, true] {
        let (memory, rsdp) = machine(wide);
        let machine = parse(&memory, &rsdp).unwrap();
        assert_eq!(machine.processors.as_slice(), [0, 3, 0x1234]);
        assert_eq!(machine.ioapics.as_slice(), [IoApic { address: 0xfec0_0000, first_gsi: 0 }]);
        assert_eq!(
            machine.overrides.as_slice(),
            [Override { line: 0, gsi: 2, level: false, active_low: false }, Override { line: 9, gsi: 9, level: true, active_low: false }]
        );
        assert_eq!((machine.pm_timer, machine.pm_timer_32, machine.century), (0x608, true, 0x32));
        assert_eq!(machine.reset, Some(ResetRegister::Port(0xcf9, 0xf)));
        assert_eq!(machine.soft_off, Some(SoftOff { pm1a: 0x604, pm1b: 0, type_a: 5, type_b: 1 }));
    }
}

#[test]
fn a_damaged_table_is_absent() {
    let (mut memory, rsdp) = machine(true);
    let at = memory.0.windows(4).position(|window| window == b"APIC").unwrap();
    memory.0[at + 50] ^= 1;
    let machine = parse(&memory, &rsdp).unwrap();
    assert!(machine.processors.is_empty() && machine.pm_timer != 0);
}

#[test]
fn a_damaged_root_is_refused() {
    let (memory, mut rsdp) = machine(false);
    rsdp[12] ^= 1;
    assert!(parse(&memory, &rsdp).is_none());
    assert!(parse(&memory, b"RSD PTR ").is_none());
}

proptest! {
    /// Tables with correct checksums and arbitrary contents: bounded, and never a panic.
    #[test]
    fn survives_sealed_nonsense(signature in prop::sample::select(vec![*b"APIC", *b"FACP", *b"DSDT"]), body in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut memory = Memory(vec![]);
        let table = memory.place_table(&signature, &body);
        let root = memory.place_table(b"RSDT", &(table as u32).to_le_bytes());
        let mut rsdp = b"RSD PTR ".to_vec();
        rsdp.resize(20, 0);
        rsdp[16..20].copy_from_slice(&(root as u32).to_le_bytes());
        seal(&mut rsdp, 8);
        let machine = parse(&memory, &rsdp).unwrap();
        for entry in &machine.overrides {
            prop_assert!(entry.line < 16);
        }
    }

    #[test]
    fn survives_changed_bytes(wide: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let (mut memory, rsdp) = machine(wide);
        for (index, value) in changes {
            let at = index.index(memory.0.len());
            memory.0[at] = value;
        }
        let _ = parse(&memory, &rsdp);
    }

    #[test]
    fn survives_any_bytecode(code in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut named = b"_S5_\x12".to_vec();
        named.extend(&code);
        let _ = sleep_types(&named);
        let _ = sleep_types(&code);
    }
}
