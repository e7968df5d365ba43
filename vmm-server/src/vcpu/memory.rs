//! Accesses outside RAM: the local APIC's page, and the devices.

use super::{Stop, Vcpu};
use crate::apic::lapic::BASE_ADDRESS;
use crate::emulator::{self, Bus};
use crate::machine::Host;
use tessera_abi::vcpu::{ACCESS_EXECUTE, ACCESS_PAGE_WALK, Dirty, VcpuState};

impl<H: Host> Vcpu<'_, H> {
    /// The guest touched an address without RAM.
    pub(super) fn memory(&mut self, state: &mut VcpuState) -> Result<(), Stop> {
        let (address, access) = (state.info[0], state.info[1]);
        if self.machine.memory.contains(address, 1) && !self.machine.memory.is_flash(address) {
            return Err("RAM that is not mapped: the nested page tables contradict the memory map");
        }
        // Only a machine with a screen has a hole in its RAM.
        if access & ACCESS_EXECUTE == 0 && self.machine.memory.has_hole() && self.machine.chipset().touch(address) {
            return Ok(());
        }
        if access & ACCESS_PAGE_WALK != 0 {
            return Err("the guest's page tables are outside its RAM");
        }
        if access & ACCESS_EXECUTE != 0 {
            return Err("the guest executes where it has no RAM");
        }
        if Self::was_vectoring(state) {
            return Err("the delivery of an event touched an address outside RAM");
        }
        self.lapic.set_task_priority(state.cr8 as u8);
        let before = self.lapic.task_priority();
        let machine = self.machine;
        let outcome = emulator::emulate(state, &machine.memory, &mut VcpuBus { vcpu: self });
        if self.lapic.task_priority() != before {
            self.show_task_priority(state);
        }
        self.settle(state, outcome)
    }

    /// The APIC's task priority changed: CR8 shows it.
    pub(super) fn show_task_priority(&self, state: &mut VcpuState) {
        state.cr8 = u64::from(self.lapic.task_priority());
        state.dirty |= Dirty::TPR.bits();
    }
}

/// What an emulated instruction of this processor reaches.
pub(super) struct VcpuBus<'v, 'm, H: Host> {
    pub(super) vcpu: &'v mut Vcpu<'m, H>,
}

impl<H: Host> VcpuBus<'_, '_, H> {
    /// The offset in the local APIC's page, if that is where the access goes.
    fn local(&self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(BASE_ADDRESS);
        (offset < 0x1000 && self.vcpu.lapic.is_xapic()).then_some(offset)
    }

    fn now(&self) -> u64 {
        self.vcpu.machine.clock.ns(H::now())
    }
}

impl<H: Host> Bus for VcpuBus<'_, '_, H> {
    fn memory_read(&mut self, address: u64, width: u8) -> u64 {
        match self.local(address) {
            Some(offset) => {
                self.vcpu.withdraw_skip();
                // Registers are 32 bits wide; parts of one can be read.
                u64::from(self.vcpu.lapic.read_page(offset & !3, H::now())) >> ((offset & 3) * 8)
            }
            None => {
                let (machine, now) = (self.vcpu.machine, self.now());
                machine.chipset().memory_read(address, width, now, &machine.interrupts)
            }
        }
    }

    fn memory_write(&mut self, address: u64, width: u8, value: u64) {
        match self.local(address) {
            Some(offset) => {
                if width < 4 {
                    return;
                }
                self.vcpu.withdraw_skip();
                let effect = self.vcpu.lapic.write_page(offset, value as u32, H::now());
                self.vcpu.apply(effect);
                self.vcpu.update_deadline();
            }
            None => {
                let (machine, now) = (self.vcpu.machine, self.now());
                let mut chipset = machine.chipset();
                if machine.memory.is_flash(address) {
                    let command = chipset.flash_write(address, value as u8, &machine.memory, &machine.interrupts);
                    drop(chipset);
                    if let Some(command) = command {
                        machine.wait_for_flash(command);
                    }
                } else {
                    chipset.memory_write(address, width, value, now, &machine.interrupts);
                    chipset.run_hidden(&machine.memory, &machine.interrupts);
                }
            }
        }
    }

    fn port_read(&mut self, port: u16, width: u8) -> u32 {
        let now = self.now();
        let machine = self.vcpu.machine;
        machine.chipset().port_read(port, width, now, &machine.interrupts)
    }

    fn port_write(&mut self, port: u16, width: u8, value: u32) -> bool {
        let now = self.now();
        let machine = self.vcpu.machine;
        let request = machine.chipset().port_write(port, width, value, now, &machine.interrupts);
        if let Some(request) = request {
            machine.request(request);
            self.vcpu.attention = true;
        }
        request.is_some()
    }
}
