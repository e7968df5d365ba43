//! The boot bundle: header page, the root server as it will stand in memory, programs, files, manifest. Everything begins on a page. The layout of
//! the header is `tessera_abi::bundle`'s, the manifest is `tessera_manifest`'s.

use crate::{
    program::{PAGE, Program},
    system::{Backing, Disk, Need, Nic, Server, System},
};
use anyhow::{Context, ensure};
use std::path::Path;
use tessera_abi::{
    ABI_VERSION, PAGE_SIZE,
    bundle::{BundleHeader, MAGIC, MAX_SEGMENTS},
    object::Rights,
};
use tessera_manifest as manifest;

/// A finished bundle.
pub struct Bundle {
    /// Its bytes, whole pages.
    pub bytes: Vec<u8>,
    /// The manifest inside.
    pub manifest: manifest::Manifest,
    /// Bytes of the files of guests among them.
    pub file_bytes: u64,
}

struct RootSegment {
    address: u64,
    offset: u64,
    length: u64,
    rights: Rights,
}

/// Appends, padded with zeros to whole pages; answers where.
fn append(bytes: &mut Vec<u8>, data: &[u8]) -> u64 {
    let offset = bytes.len();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
    offset as u64
}

/// Puts a bundle together from a checked system. `step` is told what comes next.
///
/// # Errors
/// A program or file cannot be read or used.
pub fn build(system: &System, programs: &Path, step: &mut dyn FnMut(&str)) -> anyhow::Result<Bundle> {
    let mut bytes = vec![0; PAGE_SIZE];
    step(&system.root.value);
    let root_path = programs.join(&system.root.value);
    let root = Program::read(&root_path)?;
    ensure!(
        root.segments.len() <= MAX_SEGMENTS,
        "{}: the root server has {} segments, the kernel takes {MAX_SEGMENTS}",
        root_path.display(),
        root.segments.len()
    );
    let mut root_segments = Vec::new();
    for segment in &root.segments {
        // The kernel maps these pages where they lie, so zero-initialised memory is part of them.
        let mut expanded = segment.bytes.clone();
        expanded.resize(usize::try_from(segment.memory_length)?, 0);
        let offset = append(&mut bytes, &expanded);
        root_segments.push(RootSegment {
            address: segment.address,
            offset,
            length: segment.memory_length,
            rights: segment.rights,
        });
    }
    let mut listed = Vec::new();
    for name in system.programs() {
        step(&name.value);
        let program = Program::read(&programs.join(&name.value))?;
        let segments = program
            .segments
            .iter()
            .map(|segment| manifest::ProgramSegment {
                address: segment.address,
                offset: append(&mut bytes, &segment.bytes),
                file_length: segment.bytes.len() as u64,
                memory_length: segment.memory_length,
                rights: segment.rights.bits(),
            })
            .collect();
        listed.push(manifest::Program {
            name: name.value.clone(),
            entry: program.entry,
            segments,
        });
    }
    let files_at = bytes.len();
    let mut files = Vec::new();
    for (name, path) in &system.files {
        step(&name.value);
        let path = &path.value;
        let content = std::fs::read(path).with_context(|| {
            format!(
                "{}: the file `{}` cannot be read; `make setup` fetches the guests' files",
                path.display(),
                name.value
            )
        })?;
        ensure!(!content.is_empty(), "{}: the file `{}` is empty", path.display(), name.value);
        files.push(manifest::File {
            name: name.value.clone(),
            offset: append(&mut bytes, &content),
            length: content.len() as u64,
        });
    }
    let file_bytes = (bytes.len() - files_at) as u64;
    step("manifest");
    let manifest = to_manifest(system, listed, files);
    let encoded = postcard::to_allocvec(&manifest).context("the manifest cannot be encoded")?;
    let manifest_offset = append(&mut bytes, &encoded);
    let header = encode_header(
        bytes.len() as u64,
        root.entry,
        manifest_offset,
        encoded.len() as u64,
        &root_segments,
    )?;
    bytes[..header.len()].copy_from_slice(&header);
    Ok(Bundle {
        bytes,
        manifest,
        file_bytes,
    })
}

/// [`BundleHeader`] as bytes: fields in order, little-endian, without gaps (asserted below).
fn encode_header(length: u64, entry: u64, manifest_offset: u64, manifest_length: u64, segments: &[RootSegment]) -> anyhow::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(size_of::<BundleHeader>());
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&ABI_VERSION.to_le_bytes());
    header.extend_from_slice(&u32::try_from(segments.len())?.to_le_bytes());
    for value in [length, entry, manifest_offset, manifest_length] {
        header.extend_from_slice(&value.to_le_bytes());
    }
    for segment in segments {
        for value in [segment.address, segment.offset, segment.length, u64::from(segment.rights.bits())] {
            header.extend_from_slice(&value.to_le_bytes());
        }
    }
    Ok(header)
}

const _: () = {
    use std::mem::offset_of;
    assert!(
        offset_of!(BundleHeader, magic) == 0 && offset_of!(BundleHeader, abi_version) == 8 && offset_of!(BundleHeader, segment_count) == 12
    );
    assert!(offset_of!(BundleHeader, length) == 16 && offset_of!(BundleHeader, entry) == 24);
    assert!(offset_of!(BundleHeader, manifest_offset) == 32 && offset_of!(BundleHeader, manifest_length) == 40);
    assert!(offset_of!(BundleHeader, segments) == 48 && size_of::<tessera_abi::bundle::Segment>() == 32);
    assert!(size_of::<BundleHeader>() as u64 <= PAGE);
};

/// The manifest of a system. Programs and files are listed with their places in the bundle.
#[must_use]
pub fn to_manifest(system: &System, programs: Vec<manifest::Program>, files: Vec<manifest::File>) -> manifest::Manifest {
    manifest::Manifest {
        version: manifest::MANIFEST_VERSION,
        product: system.product.clone(),
        programs,
        files,
        endpoints: system.endpoints().into_iter().map(str::to_string).collect(),
        servers: system.servers.iter().map(to_server).collect(),
        vms: system
            .vms
            .iter()
            .map(|vm| manifest::Vm {
                name: vm.name.value.clone(),
                memory: vm.memory.value,
                vcpus: vm.vcpus,
                firmware: vm.firmware,
                kernel: manifest::GuestFile::Image(vm.kernel.value.clone()),
                initramfs: vm.initramfs.as_ref().map(|file| manifest::GuestFile::Image(file.value.clone())),
                command_line: vm.command_line.value.clone(),
                display: vm.display,
                cdrom: vm.cdrom.as_ref().map(to_file),
                variables: vm.variables.as_ref().map(to_file),
                boot_order: vm.boot_order.clone(),
                boot_menu_ms: vm.boot_menu_ms,
                watchdog: vm.watchdog,
                autostart: vm.autostart,
                weight: vm.weight,
                budget_us: vm.budget_us.value,
                period_us: vm.period_us,
                disks: vm.disks.iter().map(to_disk).collect(),
                nics: vm.nics.iter().map(to_nic).collect(),
                passthrough: vm.passthrough.iter().map(|passed| passed.value).collect(),
            })
            .collect(),
        switches: system.switches.iter().map(|switch| switch.switch.clone()).collect(),
    }
}

/// A file of the image, or `STORE:PATH`.
fn to_file(file: &crate::source::Located<String>) -> manifest::GuestFile {
    match file.value.split_once(':') {
        Some((store, path)) => manifest::GuestFile::Store {
            store: store.into(),
            path: path.into(),
        },
        None => manifest::GuestFile::Image(file.value.clone()),
    }
}

fn to_disk(disk: &Disk) -> manifest::VmDisk {
    manifest::VmDisk {
        backing: match disk.backing.clone() {
            Backing::Device(device, partition) => manifest::DiskBacking::Device { device, partition },
            Backing::Store(store, disk) => manifest::DiskBacking::Store { store, disk },
        },
        read_only: disk.read_only,
        controller: disk.controller,
        serial: disk.serial.value.clone(),
    }
}

fn to_nic(nic: &Nic) -> manifest::VmNic {
    manifest::VmNic {
        port_group: nic.port_group.value.clone(),
        mac: nic.mac.value,
        model: nic.model,
    }
}

fn to_server(server: &Server) -> manifest::Server {
    manifest::Server {
        name: server.name.value.clone(),
        program: server.program.value.clone(),
        per_vm: server.per_vm,
        priority: server.priority.value,
        weight: server.weight,
        budget_us: server.budget_us.value,
        period_us: server.period_us,
        cpu: server.cpu.as_ref().map(|cpu| cpu.value),
        no_fpu: !server.fpu,
        heap: server.heap.value,
        screen_heap: server.screen_heap.value,
        stack: server.stack.value,
        untyped: server.memory.value,
        vcpu_untyped: server.vcpu_memory.value,
        device_memory: server.device_memory.value,
        slots: server.slots.value,
        restart: server.restart,
        grants: server
            .grants
            .iter()
            .map(|grant| manifest::Grant {
                name: grant.name.value.clone(),
                resource: match &grant.need {
                    Need::Provide(endpoint) => manifest::Resource::Provide {
                        endpoint: endpoint.clone(),
                    },
                    Need::Use(endpoint) => manifest::Resource::Use {
                        endpoint: endpoint.clone(),
                    },
                    Need::IoPorts(first, count) => manifest::Resource::IoPorts {
                        first: *first,
                        count: *count,
                    },
                    Need::Irq(line) => manifest::Resource::Irq { line: *line },
                    Need::Mmio(address, length) => manifest::Resource::Mmio {
                        address: *address,
                        length: *length,
                    },
                    Need::Share(server, length) => manifest::Resource::Share {
                        server: server.clone(),
                        length: *length,
                    },
                    Need::File(file) => manifest::Resource::File { file: file.clone() },
                    Need::KernelLog => manifest::Resource::KernelLog,
                    Need::Trace => manifest::Resource::Trace,
                    Need::IrqStatistics => manifest::Resource::IrqStatistics,
                    Need::Pci(class) => manifest::Resource::Pci { class: *class },
                },
            })
            .collect(),
        arguments: server.arguments.iter().map(|word| word.value.clone()).collect(),
    }
}
