//! The first thread: loads the guest, serves `vm_control`, carries out what the guest asks of the machine.

use super::boot_file;
use super::cdrom::CdRom;
use super::devices;
use super::devices::Devices;
use super::host::Kernel;
use super::local::Local;
use super::passthrough;
use super::setup::Page;
use super::suspend::{self, Saved, refuse};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::vcpu::{ExitReason, VcpuState};
use tessera_manifest::{GuestFile, SUSPENDED, StartVm};
use tessera_proto::guest_disk::BootFile;
use tessera_proto::vm_control::{
    self, AgentOutput, ExitCount, MAX_AGENT_DATA, Registers, RunState, SegmentRegister, VcpuExits, VcpuRunState, VmInfo, VmMemory,
    WATCHDOG_OFF,
};
use tessera_proto::vm_manager::FilePlace;
use tessera_proto::vm_media::{self, Medium};
use tessera_proto::{Call, Failure, FailureKind, interface_of};
use tessera_rt::{Vcpu, exit, log, server::Service, sys, time};
use tessera_vmm::apic::{Delivery, Message};
use tessera_vmm::boot::{self, File, Start, wake};
use tessera_vmm::emulator::MAX_INSTRUCTION;
use tessera_vmm::machine::{Activity, Machine, Phase};
use tessera_vmm::vcpu::code_at;

/// A vCPU from outside.
pub struct VcpuHandle {
    /// The capability, for its counters.
    pub vcpu: Vcpu,
    /// Its state page.
    pub page: Page,
}

/// The machine and what is needed to start it anew.
pub struct Control {
    machine: &'static Machine<Kernel>,
    vm: &'static StartVm,
    kernel: Box<dyn File + Send>,
    initramfs: Box<dyn File + Send>,
    vcpus: Vec<VcpuHandle>,
    devices: Vec<&'static dyn Devices>,
    local: &'static Local,
    drive: Option<&'static CdRom>,
    started: u64,
    failure_logged: bool,
    /// The machine sleeps, and its devices have no power.
    asleep: bool,
    /// Panics and watchdog timeouts that were logged.
    incidents: (u32, u32),
    /// State to go on with.
    saved: Option<Saved>,
    /// Why it was not suspended.
    trouble: String,
}

/// Does `act` while all devices are paused.
fn paused(devices: &[&dyn Devices], act: &mut dyn FnMut()) {
    match devices {
        [first, others @ ..] => first.paused(&mut || paused(others, act)),
        [] => act(),
    }
}

/// Does `act` while no server serves any of the devices.
fn stopped(devices: &[&dyn Devices], act: &mut dyn FnMut()) {
    match devices {
        [first, others @ ..] => first.stopped(&mut || stopped(others, act)),
        [] => act(),
    }
}

impl Control {
    /// A machine that is not loaded.
    pub fn new(
        machine: &'static Machine<Kernel>,
        vm: &'static StartVm,
        [kernel, initramfs]: [Box<dyn File + Send>; 2],
        vcpus: Vec<VcpuHandle>,
        devices: Vec<&'static dyn Devices>,
        local: &'static Local,
        drive: Option<&'static CdRom>,
    ) -> Self {
        Self {
            machine,
            vm,
            kernel,
            initramfs,
            vcpus,
            devices,
            local,
            drive,
            started: 0,
            failure_logged: false,
            asleep: false,
            saved: None,
            trouble: String::new(),
            incidents: (0, 0),
        }
    }

    /// The same machine, which goes on from a state, if there is one.
    #[must_use]
    pub fn resuming(mut self, saved: Option<Saved>) -> Self {
        self.saved = saved;
        self
    }

    /// Puts the guest into its RAM and lets it run.
    pub fn load_and_start(&mut self) {
        let config = &self.vm.config;
        let memory = &self.machine.memory;
        // What the guest wrote to its flash memory, or what was kept of it, is there already.
        let kept = self.machine.chipset().flash().map_or(0, |flash| flash.length());
        let loaded = if config.firmware.is_some() {
            boot::firmware::load(memory, &*self.kernel, kept)
        } else {
            boot::load(memory, &*self.kernel, &*self.initramfs, &config.command_line, self.machine.vcpus())
        };
        match loaded {
            Ok(start) => {
                log::info!(
                    "{}: {} MiB RAM, {} vCPU, entering the guest at {:#x}",
                    config.name,
                    self.machine.memory.end() >> 20,
                    self.machine.vcpus(),
                    start.entry()
                );
                self.started = sys::tsc();
                self.machine.start(start);
            }
            Err(error) => {
                self.machine.fail_to_load(format_args!("{error}"));
                self.report();
            }
        }
    }

    /// Logs why the machine stopped, once.
    fn report(&mut self) {
        if core::mem::replace(&mut self.failure_logged, true) {
            return;
        }
        for line in self.machine.report().lines() {
            log::error!("{line}");
        }
    }

    /// Logs what happened to the guest since it was last looked at.
    fn tell(&mut self) {
        let now = self.machine.chipset().incidents();
        let before = core::mem::replace(&mut self.incidents, now);
        if now.0 != before.0 {
            log::warn!("the guest's kernel panicked");
        }
        if now.1 != before.1 {
            log::warn!("the guest did not come by at its watchdog in time");
        }
    }

    fn look(&mut self) {
        let request = {
            let mut chipset = self.machine.chipset();
            let request = chipset.run(self.guest_now(), &self.machine.interrupts);
            // Somebody may have pointed somewhere.
            chipset.run_hidden(&self.machine.memory, &self.machine.interrupts);
            request
        };
        if let Some(request) = request {
            self.machine.request(request);
        }
        self.tell();
        match self.machine.phase() {
            Phase::Failed => self.report(),
            Phase::PoweredOff => {
                // What it wrote to its flash memory is kept first.
                stopped(&self.devices, &mut || ());
                let late = self.machine.chipset().watchdog_switched_off();
                exit(0, if late { WATCHDOG_OFF } else { "the guest switched itself off" })
            }
            Phase::Suspending if self.machine.is_parked() => self.suspend(),
            Phase::Sleeping if self.machine.is_parked() => self.sleep(),
            Phase::Resetting if self.machine.is_parked() => {
                log::info!("the guest restarts");
                self.restart();
            }
            _ => (),
        }
    }

    /// Begins anew with the machine, whose processors are parked.
    fn restart(&mut self) {
        self.asleep = false;
        // Nothing may work in the guest's memory while it is filled anew.
        stopped(&self.devices, &mut || self.machine.reset_devices(sys::tsc()));
        self.load_and_start();
    }

    /// The guest sleeps in its RAM: takes the power from the devices, and wakes it when something asks for that.
    fn sleep(&mut self) {
        if !core::mem::replace(&mut self.asleep, true) {
            log::info!("the guest sleeps");
            stopped(&self.devices, &mut || self.machine.sleep_devices(sys::tsc()));
        }
        if !self.machine.chipset().is_woken() {
            return;
        }
        let start = if self.vm.config.firmware.is_some() {
            Some(Start::Firmware)
        } else {
            wake::vector(&self.machine.memory).map(Start::Wake)
        };
        let Some(start) = start else {
            log::warn!("the guest did not say where it goes on after its sleep: it is restarted");
            return self.restart();
        };
        log::info!("the guest wakes at {:#x}", start.entry());
        self.asleep = false;
        self.machine.wake(start, sys::tsc());
    }

    /// Writes the state of the machine, whose processors are parked, and ends; or lets it go on.
    fn suspend(&mut self) {
        let mut outcome = Err(String::new());
        paused(&self.devices, &mut || {
            outcome = suspend::save(self.machine);
            if let Ok(bytes) = outcome {
                log::info!("the machine is suspended: {} MiB of state", bytes.div_ceil(1 << 20));
                exit(SUSPENDED, "suspended");
            }
            self.machine.go_on();
        });
        if let Err(trouble) = outcome {
            log::error!("the machine is not suspended, and goes on: {trouble}");
            self.trouble = trouble;
        }
    }

    /// Takes the machine's state up again, in place of loading a guest.
    fn resume(&mut self, saved: Saved) {
        while !self.machine.is_parked() {
            let _ = sys::wait(0, Some(time::after(time::milliseconds(1))));
        }
        // As late as can be: guest time goes on from here.
        let now = self
            .machine
            .clock
            .start()
            .wrapping_add(self.machine.clock.ns_to_ticks(saved.elapsed()));
        let resumed = suspend::restore(self.machine, saved, now).and_then(|()| suspend::forget_file(self.vm.begin));
        if let Err(trouble) = resumed {
            refuse(&trouble);
        }
        log::info!("{}: goes on where it was suspended", self.vm.config.name);
        self.started = sys::tsc();
        self.machine.go_on();
        devices::wake(self.machine);
        // It may have slept.
        self.look();
    }

    /// Lets the guest run: from its kernel or firmware on, or from where it was suspended.
    pub fn begin(&mut self) {
        match self.saved.take() {
            Some(saved) => self.resume(saved),
            None => self.load_and_start(),
        }
    }

    fn guest_now(&self) -> u64 {
        self.machine.clock.ns(sys::tsc())
    }

    fn handle(&self, vcpu: u32) -> Result<(usize, &VcpuHandle), Failure> {
        let index = vcpu as usize;
        let handle = self.vcpus.get(index);
        handle.map(|handle| (index, handle)).ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format_args!("the machine has {} virtual processors", self.vcpus.len()),
            )
        })
    }

    fn drive(&self) -> Result<&'static CdRom, Failure> {
        let none = || {
            Failure::new(
                FailureKind::BadState,
                "the machine has no CD-ROM drive: only one that begins with firmware has",
            )
        };
        self.drive.ok_or_else(none)
    }

    fn running(&self) -> Result<(), Failure> {
        match self.machine.phase() {
            Phase::Running => Ok(()),
            Phase::Sleeping => Err(Failure::new(
                FailureKind::BadState,
                "the guest sleeps: its power button or a key at its keyboard wakes it",
            )),
            _ => Err(Failure::new(FailureKind::BadState, "the machine does not run")),
        }
    }

    /// The machine runs, or sleeps.
    fn on(&self) -> Result<(), Failure> {
        if self.machine.phase() == Phase::Sleeping {
            return Ok(());
        }
        self.running()
    }
}

fn run_state(activity: Activity) -> VcpuRunState {
    match activity {
        Activity::WaitForStart => VcpuRunState::WaitForStart,
        Activity::Running => VcpuRunState::Running,
        Activity::Halted => VcpuRunState::Halted,
        Activity::Parked => VcpuRunState::Stopped,
    }
}

impl vm_control::Server for Control {
    fn info(&mut self, _call: &mut Call) -> Result<VmInfo, Failure> {
        let (panics, watchdog_timeouts) = self.machine.chipset().incidents();
        Ok(VmInfo {
            panics,
            watchdog_timeouts,
            state: match self.machine.phase() {
                Phase::Loading | Phase::Resetting => RunState::Loading,
                Phase::Running => RunState::Running,
                Phase::Sleeping => RunState::Sleeping,
                Phase::Failed => RunState::Failed,
                Phase::PoweredOff => RunState::PoweredOff,
                Phase::Suspending | Phase::Saving | Phase::Restoring => RunState::Suspending,
            },
            vcpus: (0..self.machine.vcpus())
                .map(|index| run_state(self.machine.statistics(index).activity()))
                .collect(),
            started_tsc: self.started,
            resets: self.machine.resets(),
            report: if self.trouble.is_empty() {
                self.machine.report()
            } else {
                format!("not suspended: {}", self.trouble)
            },
        })
    }

    fn exits(&mut self, _call: &mut Call, vcpu: u32) -> Result<VcpuExits, Failure> {
        let (index, handle) = self.handle(vcpu)?;
        let statistics = self.machine.statistics(index);
        let kernel = handle
            .vcpu
            .info()
            .map_err(|error| Failure::new(FailureKind::Internal, error.text()))?;
        let exits = (0..ExitReason::COUNT)
            .map(|reason| ExitCount {
                reason: reason as u8,
                count: statistics.exits(reason),
                ticks: statistics.ticks(reason),
            })
            .filter(|exit| exit.count > 0)
            .collect();
        Ok(VcpuExits {
            exits,
            in_kernel: kernel.in_kernel,
            doorbells: kernel.doorbells,
            guest_ticks: kernel.guest_ticks,
            injected: statistics.injected(),
        })
    }

    fn registers(&mut self, _call: &mut Call, vcpu: u32) -> Result<Registers, Failure> {
        let (index, handle) = self.handle(vcpu)?;
        // SAFETY: the page is mapped for the life of the process and consists of integers. Its thread may be writing it, so fields can be from different exits: this is for people to look at.
        let state: VcpuState = unsafe { handle.page.0.read_volatile() };
        let mut bytes = [0; MAX_INSTRUCTION];
        let length = code_at(&state, &self.machine.memory, &mut bytes);
        Ok(Registers {
            state: run_state(self.machine.statistics(index).activity()),
            gpr: state.gpr,
            rip: state.rip,
            rflags: state.rflags,
            cr0: state.cr0,
            cr2: state.cr2,
            cr3: state.cr3,
            cr4: state.cr4,
            cr8: state.cr8,
            efer: state.efer,
            segments: state.segments.map(|segment| SegmentRegister {
                selector: segment.selector,
                attributes: segment.attributes,
                limit: segment.limit,
                base: segment.base,
            }),
            gdtr: (state.gdtr.base, state.gdtr.limit),
            idtr: (state.idtr.base, state.idtr.limit),
            exit: state.reason as u8,
            code: bytes[..length].to_vec(),
        })
    }

    fn power_button(&mut self, _call: &mut Call) -> Result<(), Failure> {
        self.on()?;
        self.machine
            .chipset()
            .press_power_button(self.guest_now(), &self.machine.interrupts);
        self.look();
        Ok(())
    }

    fn reset(&mut self, _call: &mut Call) -> Result<(), Failure> {
        self.on()?;
        if self.asleep && self.machine.phase() == Phase::Sleeping {
            self.restart();
        } else {
            // The last processor to park wakes this thread, which then starts the machine anew.
            self.machine.stop(Phase::Resetting);
        }
        Ok(())
    }

    fn inject_nmi(&mut self, _call: &mut Call, vcpu: u32) -> Result<(), Failure> {
        self.running()?;
        let (index, _) = self.handle(vcpu)?;
        let message = Message {
            destination: 0,
            logical: false,
            wide: true,
            delivery: Delivery::Nmi,
            vector: 2,
            level: false,
        };
        self.machine.interrupts.deliver(1 << index, &message, None);
        Ok(())
    }

    fn memory(&mut self, _call: &mut Call) -> Result<VmMemory, Failure> {
        let memory = self.local.memory();
        Ok(VmMemory {
            ram: self.machine.memory.end(),
            pages: self.machine.memory.pages(),
            target: memory.target,
            given_up: memory.given_up,
            free: memory.told.free,
            total: memory.told.total,
            available: memory.told.available,
            caches: memory.told.caches,
            swapped_in: memory.told.swapped_in,
            swapped_out: memory.told.swapped_out,
            major_faults: memory.told.major_faults,
        })
    }

    fn set_balloon(&mut self, _call: &mut Call, bytes: u64) -> Result<(), Failure> {
        self.running()?;
        let ram = self.machine.memory.end();
        if bytes > ram {
            return Err(Failure::new(
                FailureKind::BadRequest,
                format_args!(
                    "the machine has {} MiB of memory and cannot do without {} MiB",
                    ram >> 20,
                    bytes >> 20
                ),
            ));
        }
        self.local.set_target(bytes);
        Ok(())
    }

    fn agent_write(&mut self, _call: &mut Call, data: &[u8]) -> Result<u32, Failure> {
        self.running()?;
        Ok(self.local.send_to_agent(data) as u32)
    }

    fn agent_read(&mut self, _call: &mut Call) -> Result<AgentOutput, Failure> {
        let (data, open) = self.local.take_from_agent(MAX_AGENT_DATA);
        Ok(AgentOutput { open, data })
    }

    fn suspend(&mut self, _call: &mut Call) -> Result<(), Failure> {
        self.on()?;
        if let Some(why) = passthrough::keeps_from_suspending() {
            return Err(Failure::new(FailureKind::Unsupported, why));
        }
        self.trouble.clear();
        // The last processor to park wakes this thread, which then writes the state.
        self.machine.suspend();
        Ok(())
    }
}

impl vm_media::Server for Control {
    fn medium(&mut self, _call: &mut Call) -> Result<Medium, Failure> {
        let (bytes, locked) = self.drive()?.medium();
        Ok(Medium { bytes, locked })
    }

    fn change(&mut self, _call: &mut Call, place: Option<FilePlace>) -> Result<(), Failure> {
        let drive = self.drive()?;
        let medium = match place {
            None => None,
            Some(FilePlace::Store { store, path }) => {
                let file = GuestFile::Store { store, path };
                Some(boot_file::open(Some(&file), BootFile::Cdrom).map_err(|text| Failure::new(FailureKind::NotFound, text))?)
            }
            Some(FilePlace::Image { .. }) => {
                let text = "a file of the image can only be in the drive from the machine's start on: name one in a datastore";
                return Err(Failure::new(FailureKind::Unsupported, text));
            }
        };
        drive.change(medium);
        Ok(())
    }
}

impl Service for Control {
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        if interface_of(request) == Some(vm_media::INTERFACE.number) {
            return vm_media::dispatch(self, call, request, reply);
        }
        vm_control::dispatch(self, call, request, reply)
    }

    fn notified(&mut self, _bits: u64) {
        self.look();
    }
}
