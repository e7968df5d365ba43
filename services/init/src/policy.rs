//! Checks that the manifest is consistent, before anything is started by it. `image-builder` checks much more, with better words; this is what init's own safety needs.

use alloc::{format, string::String};
use tessera_abi::object::{Rights, size, thread};
use tessera_abi::{PAGE_SIZE, layout};
use tessera_manifest::{GuestFile, MAX_BOOT_ORDER, MAX_DISKS, MAX_NICS, MAX_PASSED, Manifest, Program, Resource, Server, Vm, slots};
use tessera_vswitch::Network;

const PAGE: u64 = PAGE_SIZE as u64;
/// More servers, machines, endpoints or grants than this are a broken manifest.
const MOST: usize = 256;
/// Largest virtual machine: RAM in bytes.
const MAX_RAM: u64 = 64 << 30;

/// Whether a range of bytes lies inside of `length` bytes.
fn inside(offset: u64, bytes: u64, length: u64) -> bool {
    offset.checked_add(bytes).is_some_and(|end| end <= length)
}

/// Checks everything. `bundle` is the length of the bundle in bytes.
///
/// # Errors
/// One line: what is wrong, and where.
pub fn check(manifest: &Manifest, bundle: u64) -> Result<(), String> {
    let lists = [
        manifest.programs.len(),
        manifest.files.len(),
        manifest.endpoints.len(),
        manifest.servers.len(),
        manifest.vms.len(),
    ];
    if lists.iter().any(|length| *length > MOST) {
        return Err(format!("more than {MOST} entries of one kind"));
    }
    for program in &manifest.programs {
        check_program(program, bundle).map_err(|what| format!("program `{}`: {what}", program.name))?;
    }
    for file in &manifest.files {
        if !file.offset.is_multiple_of(PAGE) || file.length == 0 || !inside(file.offset, file.length.next_multiple_of(PAGE), bundle) {
            return Err(format!("file `{}` lies outside the bundle", file.name));
        }
    }
    for server in &manifest.servers {
        check_server(server, manifest).map_err(|what| format!("server `{}`: {what}", server.name))?;
    }
    let network = Network {
        switches: manifest.switches.clone(),
    };
    network.check()?;
    for vm in &manifest.vms {
        check_vm(vm, manifest).map_err(|what| format!("virtual machine `{}`: {what}", vm.name))?;
    }
    Ok(())
}

fn check_program(program: &Program, bundle: u64) -> Result<(), String> {
    for segment in &program.segments {
        let aligned = [segment.address, segment.offset, segment.file_length, segment.memory_length]
            .iter()
            .all(|value| value.is_multiple_of(PAGE));
        let write = segment.rights & Rights::WRITE.bits() != 0;
        if !aligned || segment.memory_length == 0 || segment.file_length > segment.memory_length {
            return Err(format!("segment at {:#x} has bad lengths", segment.address));
        }
        if !inside(segment.offset, segment.file_length, bundle) {
            return Err(format!("segment at {:#x} lies outside the bundle", segment.address));
        }
        if segment.address < layout::USER_BOTTOM || !inside(segment.address, segment.memory_length, layout::START_INFO) {
            return Err(format!(
                "segment at {:#x} lies outside the program's part of memory",
                segment.address
            ));
        }
        if write && segment.rights & Rights::EXECUTE.bits() != 0 {
            return Err(format!("segment at {:#x} is writable and executable", segment.address));
        }
        if !write && segment.file_length != segment.memory_length {
            return Err(format!("segment at {:#x} is read-only and longer than its file", segment.address));
        }
    }
    Ok(())
}

fn check_server(server: &Server, manifest: &Manifest) -> Result<(), String> {
    if !manifest.programs.iter().any(|program| program.name == server.program) {
        return Err(format!("there is no program `{}`", server.program));
    }
    if !server.slots.is_power_of_two() || server.slots <= slots::GRANTS || server.slots.ilog2() > size::CNODE_MAX_BITS {
        return Err(format!("{} is no number of slots", server.slots));
    }
    if server.priority > thread::MAX_PRIORITY {
        return Err(format!("there is no priority {}", server.priority));
    }
    if server.heap.max(server.screen_heap) > layout::DYNAMIC_BASE - layout::HEAP_BASE
        || server.stack > 16 << 20
        || server.untyped.max(server.device_memory) > 1 << 30
        || server.vcpu_untyped > 16 << 20
    {
        return Err("heap, stack or memory is too large".into());
    }
    if server.grants.len() > MOST {
        return Err(format!("more than {MOST} grants"));
    }
    for grant in &server.grants {
        let known = match &grant.resource {
            Resource::Provide { endpoint } => manifest.endpoints.contains(endpoint),
            Resource::Use { endpoint } => endpoint == "init" || manifest.endpoints.contains(endpoint),
            Resource::File { file } => manifest.files.iter().any(|known| known.name == *file),
            Resource::IoPorts { first, count } => *count > 0 && u32::from(*first) + *count <= 0x1_0000,
            Resource::Mmio { address, length } => {
                address.is_multiple_of(PAGE) && length.is_multiple_of(PAGE) && *length > 0 && address.checked_add(*length).is_some()
            }
            Resource::Share { server, length } => {
                let other = manifest.servers.iter().find(|known| known.name == *server);
                other.is_some_and(|other| !other.per_vm) && length.is_multiple_of(PAGE) && (PAGE..=16 << 20).contains(length)
            }
            Resource::Irq { .. } | Resource::KernelLog | Resource::Trace | Resource::IrqStatistics | Resource::Pci { .. } => true,
        };
        if !known {
            return Err(format!("grant `{}` names nothing that exists", grant.name));
        }
    }
    Ok(())
}

/// Checks a virtual machine.
///
/// # Errors
/// One line: what is wrong.
pub fn check_vm(vm: &Vm, manifest: &Manifest) -> Result<(), String> {
    let missing = |file: &&GuestFile| match file {
        GuestFile::Image(name) => !manifest.files.iter().any(|file| file.name == *name),
        GuestFile::Store { store, path } => store.is_empty() || path.is_empty(),
    };
    if vm.memory == 0 || !vm.memory.is_multiple_of(2 << 20) || vm.memory > MAX_RAM {
        return Err(format!("{} bytes are no size of memory", vm.memory));
    }
    if !(1..=8).contains(&vm.vcpus) {
        return Err(format!("{} virtual processors", vm.vcpus));
    }
    if vm.disks.len() > MAX_DISKS || vm.disks.iter().any(|disk| disk.serial.len() > 20) {
        return Err("it has too many disks, or one with a serial number of more than 20 bytes".into());
    }
    // A group address, or none at all.
    let bad = |mac: &[u8; 6]| mac[0] & 1 != 0 || *mac == [0; 6];
    if vm.nics.len() > MAX_NICS || vm.nics.iter().any(|nic| bad(&nic.mac)) {
        return Err("it has too many network cards, or one whose address is no station's".into());
    }
    if vm.passthrough.len() > MAX_PASSED {
        return Err(format!("it has more than {MAX_PASSED} PCI functions of the host"));
    }
    if vm.boot_order.len() > MAX_BOOT_ORDER {
        return Err(format!("its boot order has more than {MAX_BOOT_ORDER} entries"));
    }
    if let Some(GuestFile::Image(_)) = &vm.variables {
        return Err("the variables of its firmware cannot be kept in the image".into());
    }
    if let Some(file) = [Some(&vm.kernel), vm.initramfs.as_ref(), vm.cdrom.as_ref(), vm.variables.as_ref()]
        .into_iter()
        .flatten()
        .find(missing)
    {
        return Err(match file {
            GuestFile::Image(name) => format!("its kernel, firmware, initial RAM disk or CD-ROM `{name}` is not in the image"),
            GuestFile::Store { .. } => "its kernel, initial RAM disk, CD-ROM or file of variables has no name".into(),
        });
    }
    if !(1..=10_000).contains(&vm.weight) {
        return Err(format!("{} is no weight, 1 to 10000 is", vm.weight));
    }
    if !(100..=10_000_000).contains(&vm.period_us) || vm.budget_us > vm.period_us {
        return Err(format!("a budget of {} µs in a period of {} µs", vm.budget_us, vm.period_us));
    }
    if vm.command_line.len() > 4096 {
        return Err("its command line is too long".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_manifest::{File, Grant, MANIFEST_VERSION, ProgramSegment, Restart};

    fn good() -> Manifest {
        let segment = |address, offset, rights: u8| ProgramSegment {
            address,
            offset,
            file_length: PAGE,
            memory_length: PAGE,
            rights,
        };
        Manifest {
            version: MANIFEST_VERSION,
            programs: vec![Program {
                name: "shell".into(),
                entry: 0x40_0000,
                segments: vec![segment(0x40_0000, PAGE, 5), segment(0x40_1000, 2 * PAGE, 3)],
            }],
            files: vec![File {
                name: "kernel".into(),
                offset: 3 * PAGE,
                length: 100,
            }],
            switches: Vec::new(),
            endpoints: vec!["console".into()],
            servers: vec![Server {
                name: "shell".into(),
                program: "shell".into(),
                per_vm: false,
                priority: 48,
                weight: 100,
                budget_us: 0,
                period_us: 0,
                cpu: None,
                no_fpu: false,
                heap: 1 << 20,
                screen_heap: 1 << 20,
                stack: 1 << 16,
                untyped: 0,
                vcpu_untyped: 0,
                device_memory: 0,
                slots: 256,
                restart: Restart::Always,
                grants: vec![Grant {
                    name: "ports".into(),
                    resource: Resource::IoPorts { first: 0x3f8, count: 8 },
                }],
                arguments: vec![],
            }],
            vms: vec![Vm {
                name: "debian".into(),
                memory: 256 << 20,
                vcpus: 1,
                firmware: None,
                kernel: GuestFile::Image("kernel".into()),
                initramfs: None,
                command_line: String::new(),
                display: false,
                cdrom: None,
                variables: None,
                boot_order: Vec::new(),
                boot_menu_ms: 0,
                watchdog: None,
                autostart: true,
                passthrough: Vec::new(),
                weight: 100,
                budget_us: 0,
                period_us: 10_000,
                disks: vec![],
                nics: vec![],
            }],
            ..Manifest::default()
        }
    }

    #[test]
    fn a_good_manifest_passes() {
        assert_eq!(check(&good(), 4 * PAGE), Ok(()));
        assert!(check(&good(), 3 * PAGE).unwrap_err().contains("kernel"));
    }

    #[test]
    fn each_mistake_is_found() {
        type Mistake = fn(&mut Manifest);
        let disk = tessera_manifest::VmDisk {
            backing: tessera_manifest::DiskBacking::Device {
                device: "nvme0".into(),
                partition: 0,
            },
            read_only: false,
            serial: String::new(),
            controller: tessera_manifest::DiskController::Virtio,
        };
        let mut ordered = good();
        ordered.vms[0].boot_order = vec![tessera_manifest::BootDevice::Cdrom; MAX_BOOT_ORDER + 1];
        assert!(check(&ordered, 4 * PAGE).unwrap_err().contains("boot order"));
        ordered = good();
        ordered.vms[0].variables = Some(GuestFile::Image("kernel".into()));
        assert!(check(&ordered, 4 * PAGE).unwrap_err().contains("variables"));
        ordered = good();
        let passed = tessera_manifest::PassedFunction {
            which: tessera_manifest::PciWhich::Class(tessera_manifest::PciClass::Network),
            index: 0,
        };
        ordered.vms[0].passthrough = vec![passed; MAX_PASSED + 1];
        assert!(check(&ordered, 4 * PAGE).unwrap_err().contains("PCI functions"));
        let mut crowded = good();
        crowded.vms[0].disks = vec![disk; MAX_DISKS + 1];
        assert!(check(&crowded, 4 * PAGE).unwrap_err().contains("too many disks"));
        let card = |first| tessera_manifest::VmNic {
            port_group: "net".into(),
            mac: [first, 0, 0, 0, 0, 1],
            model: tessera_manifest::NicModel::Virtio,
        };
        for (nics, good) in [
            (vec![card(2)], true),
            (vec![card(2); MAX_NICS], true),
            (vec![card(2); MAX_NICS + 1], false),
            (vec![card(1)], false),
        ] {
            let mut carded = super::tests::good();
            carded.vms[0].nics = nics;
            assert_eq!(check(&carded, 4 * PAGE).is_ok(), good);
        }
        let mistakes: [(Mistake, &str); 12] = [
            (|m| m.programs[0].segments[0].rights = 7, "writable and executable"),
            (|m| m.programs[0].segments[0].address = 0x1000, "program's part"),
            (|m| m.programs[0].segments[0].offset = u64::MAX - PAGE + 1, "outside the bundle"),
            (|m| m.programs[0].segments[0].memory_length = 2 * PAGE, "longer than its file"),
            (|m| m.programs[0].segments[1].file_length = 2 * PAGE, "bad lengths"),
            (|m| m.servers[0].program = "none".into(), "no program"),
            (|m| m.servers[0].slots = 100, "slots"),
            (|m| m.servers[0].priority = 64, "priority"),
            (
                |m| m.servers[0].grants[0].resource = Resource::Use { endpoint: "none".into() },
                "names nothing",
            ),
            (
                |m| m.servers[0].grants[0].resource = Resource::IoPorts { first: 0xffff, count: 2 },
                "names nothing",
            ),
            (|m| m.vms[0].memory = 1 << 20, "size of memory"),
            (|m| m.vms[0].vcpus = 9, "virtual processors"),
        ];
        for (mistake, words) in mistakes {
            let mut manifest = good();
            mistake(&mut manifest);
            let text = check(&manifest, 4 * PAGE).unwrap_err();
            assert!(text.contains(words), "{text}");
        }
    }
}
