//! From what the manifest grants to capabilities that init holds.

use crate::process::{Granted, Source, trouble};
use crate::root::Root;
use crate::window::boot_info;
use alloc::{format, string::ToString, vec::Vec};
use tessera_abi::PAGE_SIZE;
use tessera_abi::boot::slot;
use tessera_abi::object::Rights;
use tessera_manifest::{Grant, Resource, StartDevice};
use tessera_proto::{Failure, FailureKind};
use tessera_rt::{CNode, Endpoint, Frame, Irq, IrqControl, slots};

const PAGE: u64 = PAGE_SIZE as u64;

impl Root {
    /// Everything that a server is to get, in the order of its slots.
    ///
    /// # Errors
    /// What the manifest names is not there, or an interrupt line is taken.
    pub fn resolve(&mut self, index: usize) -> Result<(Vec<Granted>, Vec<StartDevice>), Failure> {
        let record = &self.servers[index];
        let (server, vm) = (record.server, record.vm);
        let (mut granted, mut devices) = (Vec::new(), Vec::new());
        for place in 0..self.manifest.servers[server].grants.len() {
            let grant = self.manifest.servers[server].grants[place].clone();
            match grant.resource {
                Resource::Pci { class } => self.resolve_pci(&grant.name, class, index, &mut granted, &mut devices),
                _ => self.resolve_one(&grant, index as u64 + 1, &mut granted)?,
            }
        }
        if vm.is_none() {
            self.resolve_shares(index, &mut granted)?;
        }
        if let Some(vm) = vm {
            let name = &self.manifest.servers[server];
            let vmm = self.machines.is_vmm(&self.manifest, server);
            granted.extend(self.machines.grants(vm, &self.manifest, name)?);
            if vmm {
                self.resolve_passthrough(vm, index, &mut granted, &mut devices)?;
            }
        }
        Ok((granted, devices))
    }

    fn endpoint_of(&self, name: &str) -> Result<Endpoint, Failure> {
        if name == "init" {
            return Ok(self.endpoint);
        }
        let found = self.endpoints.iter().find(|known| known.name == name);
        found
            .map(|known| known.endpoint)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("there is no endpoint `{name}`")))
    }

    fn resolve_one(&mut self, grant: &Grant, id: u64, granted: &mut Vec<Granted>) -> Result<(), Failure> {
        let copy = |slot: u32, rights: Rights, badge: u64| Source::Copy { slot, rights, badge };
        let mut add = |name: &str, source: Source, length: u64| {
            granted.push(Granted {
                name: name.to_string(),
                source,
                length,
                large: false,
            });
        };
        let call = Rights::SEND | Rights::GRANT;
        let provide = Rights::RECEIVE | Rights::GRANT | Rights::READ;
        match &grant.resource {
            Resource::Provide { endpoint } => add(&grant.name, copy(self.endpoint_of(endpoint)?.slot(), provide, 0), 0),
            Resource::Use { endpoint } => add(&grant.name, copy(self.endpoint_of(endpoint)?.slot(), call, id), 0),
            Resource::IoPorts { first, count } => add(
                &grant.name,
                Source::Ports {
                    first: *first,
                    count: *count,
                },
                0,
            ),
            Resource::Irq { line } => {
                let slot = self.line(*line)?;
                add(&grant.name, copy(slot, Rights::READ | Rights::WRITE, 0), 0);
            }
            Resource::Mmio { address, length } => {
                let (untyped, offset) = self
                    .machine
                    .device(*address, *length)
                    .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("{address:#x} is not all device memory")))?;
                add(
                    &grant.name,
                    Source::Device {
                        untyped,
                        offset,
                        pages: length / PAGE,
                    },
                    *length,
                );
            }
            Resource::File { file } => {
                let (source, length) = file_source(&self.manifest, file)?;
                add(&grant.name, source, length);
            }
            Resource::KernelLog => {
                add(
                    "kernel.log",
                    copy(slot::KERNEL_LOG, Rights::READ, 0),
                    frame_length(slot::KERNEL_LOG),
                );
                add(
                    "kernel.panic",
                    copy(slot::PANIC_RECORD, Rights::READ, 0),
                    frame_length(slot::PANIC_RECORD),
                );
                for cpu in 0..self.machine.cpus {
                    let ring = slot::TRACE_RINGS + cpu;
                    add(
                        &format!("trace.{cpu}"),
                        copy(ring, Rights::READ, 0),
                        u64::from(boot_info().trace_ring_pages) * PAGE,
                    );
                }
            }
            Resource::Trace => add(&grant.name, copy(slot::TRACE, Rights::READ | Rights::WRITE, 0), 0),
            Resource::IrqStatistics => add(&grant.name, copy(slot::IRQ_CONTROL, Rights::READ, 0), 0),
            // Functions are resolved all together.
            Resource::Pci { .. } | Resource::Share { .. } => {}
        }
        Ok(())
    }

    /// The slot of an interrupt line's capability. init takes each line once and keeps it, so that a server that is started again gets the same.
    pub(crate) fn line(&mut self, line: u32) -> Result<u32, Failure> {
        if let Some((_, slot)) = self.lines.iter().find(|(known, _)| *known == line) {
            return Ok(*slot);
        }
        let slot = slots::take().map_err(trouble("init has no slot left"))?;
        let remapped = self.protection.remaps_interrupts();
        let taken = IrqControl::new(slot::IRQ_CONTROL).line(line, CNode::OWN, slot, remapped);
        let routed = taken
            .map_err(trouble(&format!("taking interrupt line {line}")))
            .and_then(|level| self.route_line(Irq::new(slot), level));
        if let Err(failure) = routed {
            slots::free(slot);
            return Err(failure);
        }
        self.lines.push((line, slot));
        Ok(slot)
    }
}

/// A file of the bundle: where it is and how long.
///
/// # Errors
/// `NotFound`.
pub fn file_source(manifest: &tessera_manifest::Manifest, name: &str) -> Result<(Source, u64), Failure> {
    let file = manifest
        .files
        .iter()
        .find(|file| file.name == name)
        .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("there is no file `{name}` in the image")))?;
    Ok((
        Source::Bundle {
            first: file.offset / PAGE,
            pages: file.length.div_ceil(PAGE),
        },
        file.length,
    ))
}

fn frame_length(slot: u32) -> u64 {
    Frame::new(slot).info().map_or(0, |info| info.pages * PAGE)
}
