//! A guest of the probe's own: 32 KiB of memory at guest-physical 0 and one vCPU in real mode.

use tessera_rt::abi::Error;
use tessera_rt::abi::object::{ObjectKind, Rights};
use tessera_rt::abi::vcpu::{Dirty, Segment, VcpuState, segment};
use tessera_rt::{AddressSpace, CNode, GuestSpace, Untyped, Vcpu, slots, vm};

/// The guest.
pub struct Guest {
    /// Its nested page tables.
    pub space: GuestSpace,
    /// Its processor.
    pub vcpu: Vcpu,
    /// The page shared with the kernel.
    pub state: *mut VcpuState,
    /// Its memory, mapped here too.
    pub memory: *mut u8,
}

impl Guest {
    /// Makes one out of the probe's memory.
    pub fn new() -> Result<Self, Error> {
        let guest = GuestSpace::new(Untyped::OWN.make(ObjectKind::GuestSpace, 8)?);
        let vcpu = Vcpu::new(Untyped::OWN.make(ObjectKind::Vcpu, 0)?);
        let state = vm::take(3 * 4096, 4096)?;
        vcpu.configure(guest, AddressSpace::OWN, state, 0)?;
        let frame = Untyped::OWN.frame(8)?;
        let slot = slots::take()?;
        let shared = frame.slice(0, 8, CNode::OWN, slot, Rights::READ | Rights::WRITE | Rights::EXECUTE)?;
        shared.map_guest(guest, 0, Rights::READ | Rights::WRITE | Rights::EXECUTE, 0)?;
        let memory = vm::map(frame, Rights::READ | Rights::WRITE, 0)?;
        Ok(Self {
            space: guest,
            vcpu,
            state: state as *mut VcpuState,
            memory: memory.as_ptr(),
        })
    }

    /// Puts code into its memory; the vCPU does not run.
    pub fn write(&self, address: usize, code: impl IntoIterator<Item = u8>) {
        for (index, byte) in code.into_iter().enumerate() {
            assert!(address + index < 0x8000, "the guest has 32 KiB");
            // SAFETY: inside the guest's memory, which is mapped here.
            unsafe { self.memory.add(address + index).write_volatile(byte) };
        }
    }

    /// Lets it start at `rip` in real mode with flat segments.
    pub fn start_at(&self, rip: usize) {
        let flat = |attributes| Segment {
            selector: 0,
            attributes,
            limit: 0xffff,
            base: 0,
            ..Segment::default()
        };
        // SAFETY: the state page is mapped and belongs to this vCPU, which does not run.
        unsafe {
            (*self.state).segments[segment::CS] = flat(0x9b);
            for data in [segment::DS, segment::ES, segment::SS] {
                (*self.state).segments[data] = flat(0x93);
            }
            (*self.state).rip = rip as u64;
            (*self.state).rflags = 2;
            (*self.state).dirty |= Dirty::SEGMENTS.bits();
        }
    }
}
