//! Puts the machine together from what init granted.

use super::boot_file;
use super::cdrom::CdRom;
use super::console::RingConsole;
use super::control::{Control, VcpuHandle};
use super::devices::{Devices, Link, Surroundings};
use super::flash::Variables;
use super::host::{Kernel, Threads};
use super::local::Local;
use super::net::Nics;
use super::passthrough::{self, Functions};
use super::screen;
use super::storage::Disks;
use super::suspend;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::apic::ApicPage;
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::vcpu::VcpuState;
use tessera_abi::{Error, PAGE_SIZE};
use tessera_manifest::{BootDevice, DiskController, NicModel, StartVm, VmDisk, WatchdogAction};
use tessera_proto::guest_disk::BootFile;
use tessera_rt::{
    AddressSpace, CNode, Frame, GuestSpace, Notification, Thread, Untyped, Vcpu as VcpuCap, require, slots, start, start_info, sys, thread,
    vm,
};
use tessera_vmm::MAX_VCPUS;
use tessera_vmm::apic::Interrupts;
use tessera_vmm::boot::firmware;
use tessera_vmm::boot::order::{Device, Order};
use tessera_vmm::clock::Clock;
use tessera_vmm::cpuid::{CpuidTable, Policy};
use tessera_vmm::devices::ahci::{Ahci, Seat};
use tessera_vmm::devices::e1000e::{self, E1000e};
use tessera_vmm::devices::pci::FIRST_DEVICE;
use tessera_vmm::devices::vga::WINDOW;
use tessera_vmm::devices::virtio::{driver, fair_queues};
use tessera_vmm::devices::watchdog;
use tessera_vmm::machine::Machine;
use tessera_vmm::memory::GuestMemory;
use tessera_vmm::vcpu::Vcpu;

/// Bytes of a vCPU thread's stack. Decoding an instruction is the deepest it gets.
const STACK: usize = 24 << 10;
/// Pages of the nested page tables' pool beside one for each GiB: root, one table of each level, and some of the last level for frames that are not aligned.
const TABLES: u64 = 12;

/// The bit that all signals here set; what they mean is looked up.
const WAKE: u64 = 1;

/// A notification's capability for signalling: only one with a badge has bits to set.
pub fn signaller(notification: Notification) -> Result<Notification, String> {
    let slot = slots::take().map_err(failed("a notification cannot be marked"))?;
    CNode::OWN
        .copy(slot, CNode::OWN, notification.slot(), Rights::SEND, WAKE)
        .map_err(failed("a notification cannot be marked"))?;
    Ok(Notification::new(slot))
}

pub fn failed(what: &str) -> impl FnOnce(Error) -> String {
    move |error| format!("{what}: {}", error.text())
}

/// Builds the machine; its processors wait.
pub fn build() -> Result<Control, String> {
    let info = start_info();
    let start_vm = info
        .vm
        .as_ref()
        .ok_or("this server was started without a virtual machine: it is a template for init")?;
    let vcpus = usize::try_from(start_vm.config.vcpus).unwrap_or(usize::MAX);
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(format!(
            "{} virtual processors are not possible, 1 to {MAX_VCPUS} are",
            start_vm.config.vcpus
        ));
    }
    let signal = Notification::new(require("vmm.signal"));
    Thread::FIRST.bind(Some(signal)).map_err(failed("vmm.signal cannot be bound"))?;
    let signal = signaller(signal)?;

    let guest = make_guest_space(start_vm)?;
    let kernel = boot_file::open(Some(&start_vm.config.kernel), BootFile::Kernel)?;
    let mut memory = map_ram(guest, start_vm.config.display)?;
    let firmware = start_vm.config.firmware.is_some();
    if firmware {
        firmware::check(&*kernel, memory.end()).map_err(|error| format!("{error}"))?;
        memory.set_flash(kernel.length());
        map_flash(guest, &memory)?;
    }
    memory.count_pages(|address| guest.lookup(address).map_or(0, |found| found.page_size));
    let config = &start_vm.config;
    let on_ahci: Vec<bool> = config.disks.iter().map(|disk| disk.controller == DiskController::Ahci).collect();
    // Behind the flash memory, which is seen at another place.
    let are_e1000e: Vec<bool> = config.nics.iter().map(|nic| nic.model == NicModel::E1000e).collect();
    let count = |which: &[bool]| which.iter().filter(|it| **it).count() as u64;
    memory.set_reserved(count(&on_ahci) * driver::LENGTH + count(&are_e1000e) * e1000e::RESERVED);
    let console = RingConsole::attach()?;
    let saved = suspend::begin(start_vm, vcpus)?;
    if let (Some(_), Some(why)) = (&saved, passthrough::keeps_from_suspending()) {
        suspend::refuse(&why);
    }
    let now = sys::tsc();
    let clock = saved
        .as_ref()
        .map_or_else(|| Clock::new(info.tsc_hz, now), |saved| saved.clock(info.tsc_hz, now));
    let uptime = now.saturating_sub(info.boot_tsc) / clock.hz();
    let wall_clock = info.wall_clock.saturating_add(uptime);
    let wall_clock = saved.as_ref().map_or(wall_clock, |saved| saved.wall_clock(wall_clock));

    // The kernel says on every state page what extended state it switches, so the vCPUs come first.
    let mut pages = Vec::new();
    for index in 0..vcpus {
        pages.push(make_vcpu(guest, index)?);
    }
    let Some(&(_, first)) = pages.first() else {
        return Err("no vCPU".into());
    };
    // SAFETY: the page was just mapped by the kernel, and nobody else uses it yet.
    let xcr0 = unsafe { (*first.0).supported_xcr0 };
    let cpuid = CpuidTable::new(
        &Policy {
            vcpus,
            tsc_khz: clock.khz(),
            xcr0,
        },
        |leaf, subleaf| {
            let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
            [answer.eax, answer.ebx, answer.ecx, answer.edx]
        },
    );
    let machine: &'static Machine<Kernel> = Box::leak(Box::new(Machine::new(
        memory,
        Interrupts::new(vcpus, Threads),
        console,
        clock,
        cpuid,
        wall_clock,
    )));
    if start_vm.config.display {
        machine.chipset().add_display(screen::attach(guest)?, saved.is_none());
    }
    if firmware {
        let devices: Vec<_> = start_vm.config.boot_order.iter().map(boot_device).collect();
        let ports: Vec<u8> = (0..).zip(&on_ahci).filter(|(_, ahci)| **ahci).map(|(disk, _)| disk).collect();
        let order = Order {
            devices: &devices,
            menu_ms: start_vm.config.boot_menu_ms,
            disks: start_vm.config.disks.len(),
            ahci: &ports,
            nics: start_vm.config.nics.len(),
        };
        let fw_cfg = firmware::describe(
            &start_vm.config.name,
            &machine.memory,
            vcpus,
            boot_file::mapped(tessera_screen::ROM)?,
            &order,
        );
        machine.chipset().add_firmware(fw_cfg, machine.memory.usable_end());
    }
    if let Some(action) = start_vm.config.watchdog {
        machine.chipset().pci().add_watchdog(match action {
            WatchdogAction::Reset => watchdog::Action::Reset,
            WatchdogAction::PowerOff => watchdog::Action::PowerOff,
        });
    }
    let mut handles = Vec::new();
    let mut threads = heapless::Vec::<Notification, MAX_VCPUS>::new();
    for (index, (vcpu, page)) in pages.into_iter().enumerate() {
        let notification = start_thread(machine, start_vm, index, vcpu, page, signal)?;
        // There are no more than the check above lets through.
        let _ = threads.push(notification);
        handles.push(VcpuHandle { vcpu, page });
    }
    let mut devices = Vec::<&'static dyn Devices>::new();
    if !info.devices.is_empty() {
        devices.push(Functions::connect(machine, guest, &threads)?);
    }
    let (disks, nics) = (start_vm.config.disks.len(), start_vm.config.nics.len());
    let around = Surroundings {
        machine,
        guest,
        threads,
        queues: fair_queues(vcpus, disks, nics, machine.chipset().pci().passed_signals() as usize),
    };
    let medium = match &start_vm.config.cdrom {
        Some(file) if firmware => Some(boot_file::open(Some(file), BootFile::Cdrom)?),
        _ => None,
    };
    let behind = add_ahci(
        machine,
        &start_vm.config.disks,
        firmware.then(|| medium.as_ref().map(|medium| medium.length())),
    );
    if disks > 0 {
        devices.push(Link::connect(Disks, &around, start_vm, &on_ahci)?);
    }
    if nics > 0 {
        add_cards(machine, start_vm, behind);
        devices.push(Link::connect(Nics, &around, start_vm, &are_e1000e)?);
    }
    let mut drive = None;
    if firmware {
        devices.extend(Variables::connect(machine, start_vm, &*kernel, saved.is_none())?.map(|variables| variables as &dyn Devices));
        let connected = CdRom::connect(machine, start_vm, medium)?;
        devices.push(connected);
        drive = Some(connected);
    }
    let local = Local::start(&around, start_vm)?;
    devices.push(local);
    let control = Control::new(
        machine,
        start_vm,
        [kernel, boot_file::open(start_vm.config.initramfs.as_ref(), BootFile::Initramfs)?],
        handles,
        devices,
        local,
        drive,
    );
    Ok(control.resuming(saved))
}

const fn boot_device(device: &BootDevice) -> Device {
    match *device {
        BootDevice::Cdrom => Device::Cdrom,
        BootDevice::Disk(number) => Device::Disk(number),
        BootDevice::Nic(number) => Device::Nic(number),
    }
}

/// Adds the host adapter for SATA where there is something behind it: a drive, empty or with a medium of so many bytes, or hard disks. The disks' devices are the first on the bus, in order. Answers where what it has of the reserved RAM ends.
fn add_ahci(machine: &Machine<Kernel>, disks: &[VmDisk], drive: Option<Option<u64>>) -> u64 {
    let mut queue = machine.memory.usable_end();
    let mut seats = Vec::new();
    for (place, disk) in disks.iter().enumerate().filter(|(_, disk)| disk.controller == DiskController::Ahci) {
        seats.push(Seat {
            place,
            serial: if disk.serial.is_empty() {
                format!("TD{place}")
            } else {
                disk.serial.clone()
            },
            queue,
        });
        queue += driver::LENGTH;
    }
    if drive.is_some() || !seats.is_empty() {
        let mut chipset = machine.chipset();
        let pci = chipset.pci();
        pci.add_ahci(Ahci::new(pci.board(), drive, seats));
    }
    queue
}

/// Adds the network cards that are no virtio devices, each in the place on the bus that its virtio device would have: behind the disks. `memory` is where what they have of the reserved RAM begins.
fn add_cards(machine: &Machine<Kernel>, vm: &StartVm, mut memory: u64) {
    for (place, nic) in (vm.config.disks.len()..).zip(&vm.config.nics) {
        if nic.model == NicModel::E1000e {
            let seat = e1000e::Seat {
                place,
                slot: FIRST_DEVICE + place as u8,
                mac: nic.mac,
                memory,
            };
            machine.chipset().pci().add_card(E1000e::new(seat));
            memory += e1000e::RESERVED;
        }
    }
}

fn make_guest_space(vm: &StartVm) -> Result<GuestSpace, String> {
    let passed = start_info().devices.len() as u64 * passthrough::TABLES;
    let pool = TABLES + vm.config.memory.div_ceil(1 << 30) + passed;
    let slot = Untyped::OWN
        .make(ObjectKind::GuestSpace, pool)
        .map_err(failed("the nested page tables cannot be made"))?;
    Ok(GuestSpace::new(slot))
}

/// Maps part of a frame into the guest: `pages` pages from the `first`th on.
fn map_part(guest: GuestSpace, frame: Frame, first: u64, pages: u64, address: u64) -> Result<(), String> {
    // A capability is mapped once.
    let slot = slots::take().map_err(failed("RAM cannot be mapped"))?;
    let part = frame
        .slice(first, pages, CNode::OWN, slot, Rights::all())
        .map_err(failed("RAM cannot be mapped"))?;
    part.map_guest(guest, address, Rights::READ | Rights::WRITE | Rights::EXECUTE, 0)
        .map_err(failed("RAM cannot be mapped into the guest"))
}

/// Maps the frames `ram.0`, `ram.1` and so on into the guest, one after the other from address 0, and here. With a screen, its legacy window is left out.
fn map_ram(guest: GuestSpace, screen: bool) -> Result<GuestMemory, String> {
    let mut memory = GuestMemory::new();
    for number in 0.. {
        let name = format!("ram.{number}");
        let Some(grant) = start::find(&name) else { break };
        let frame = Frame::new(grant.slot);
        let here = vm::map(frame, Rights::READ | Rights::WRITE, 0).map_err(failed("RAM cannot be mapped"))?;
        let (pages, window) = ((here.length / PAGE_SIZE) as u64, WINDOW);
        if screen && memory.end() == 0 && here.length as u64 > window.end {
            let (first, behind) = (window.start / PAGE_SIZE as u64, window.end / PAGE_SIZE as u64);
            map_part(guest, frame, 0, first, 0)?;
            map_part(guest, frame, behind, pages - behind, window.end)?;
            memory.set_hole(window.start, window.end);
        } else {
            map_part(guest, frame, 0, pages, memory.end())?;
        }
        // SAFETY: the mapping stays for the life of the process and is used through `GuestMemory` only.
        unsafe { memory.push(here.as_ptr(), here.length as u64) }?;
    }
    if memory.end() == 0 {
        return Err("the virtual machine was given no RAM".into());
    }
    Ok(memory)
}

/// Maps the last of the guest's RAM once more, as its flash memory.
fn map_flash(guest: GuestSpace, memory: &GuestMemory) -> Result<(), String> {
    let failed = |error| failed("flash memory cannot be mapped into the guest")(error);
    let mut frame_start = 0;
    for number in 0.. {
        let Some(grant) = start::find(&format!("ram.{number}")) else {
            break;
        };
        let frame = Frame::new(grant.slot);
        let length = frame.info().map_err(failed)?.pages * PAGE_SIZE as u64;
        let first = memory.flash_backing().saturating_sub(frame_start).min(length);
        if first < length {
            let slot = slots::take().map_err(failed)?;
            let pages = (length - first) / PAGE_SIZE as u64;
            let part = frame
                .slice(first / PAGE_SIZE as u64, pages, CNode::OWN, slot, Rights::all())
                .map_err(failed)?;
            let address = memory.flash() + (frame_start + first - memory.flash_backing());
            // What the guest writes there is for a device.
            part.map_guest(guest, address, Rights::READ | Rights::EXECUTE, 0).map_err(failed)?;
        }
        frame_start += length;
    }
    Ok(())
}

/// The address of a state page. Its vCPU's thread uses it; others read it to report.
#[derive(Clone, Copy)]
pub struct Page(pub *mut VcpuState);

// SAFETY: an address; who follows it says why that is sound.
unsafe impl Send for Page {}

fn make_vcpu(guest: GuestSpace, index: usize) -> Result<(VcpuCap, Page), String> {
    let slot = Untyped::OWN.make(ObjectKind::Vcpu, 0).map_err(failed("a vCPU cannot be made"))?;
    let vcpu = VcpuCap::new(slot);
    let address = vm::take(3 * PAGE_SIZE as u64, PAGE_SIZE as u64).map_err(failed("a vCPU's pages cannot be mapped"))?;
    vcpu.configure(guest, AddressSpace::OWN, address, index as u32)
        .map_err(failed("this machine cannot run virtual processors"))?;
    Ok((vcpu, Page(address as *mut VcpuState)))
}

fn start_thread(
    machine: &'static Machine<Kernel>,
    vm: &StartVm,
    index: usize,
    vcpu: VcpuCap,
    page: Page,
    control: Notification,
) -> Result<Notification, String> {
    let options = thread::Options {
        priority: vm.vcpu_priority,
        cpu: vm.cpus.get(index).copied().unwrap_or(0),
        stack: STACK,
        flags: thread::NO_FPU,
        budget_us: vm.config.budget_us,
        period_us: vm.config.period_us,
        weight: vm.config.weight,
    };
    let handle = thread::spawn(&options, move |handle| {
        let page = page;
        // SAFETY: mapped for the life of the process; this thread alone writes it, and the kernel while the thread is in a system call.
        let state = unsafe { &mut *page.0 };
        let mut host = Kernel {
            vcpu,
            notification: handle.notification,
            control,
        };
        // SAFETY: the page behind it, mapped and used likewise; all of it is atomic.
        let apic = unsafe { &*page.0.add(1).cast::<ApicPage>() };
        Vcpu::new(machine, index, apic).live(&mut host, state)
    })
    .map_err(failed("a vCPU's thread cannot be started"))?;
    Threads::set(index, signaller(handle.notification)?);
    Ok(handle.notification)
}
