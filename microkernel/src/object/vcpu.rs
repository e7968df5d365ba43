//! Virtual processors: the capability's side. What runs the guest is in [`crate::virt`].

use core::cell::Cell;

use tessera_abi::apic::ApicPage;
use tessera_abi::object::{ObjectKind, size};
use tessera_abi::vcpu::VcpuState;

use super::Header;
use super::slot::Slot;
use super::thread::Thread;
use crate::kref::Ref;
use crate::virt::{AREA_SIZE, VcpuArea};

/// First page of the object; the backend's area follows, then the shared pages.
#[repr(C)]
#[derive(Default)]
pub struct Vcpu {
    /// Header.
    pub header: Header,
    /// The guest space it runs in, a capability of its own.
    pub space: Slot,
    /// The thread that runs it. Extended state may stay in the registers while that thread, which uses none, works.
    pub thread: Cell<Option<Ref<Thread>>>,
    /// The processor it runs on, once it ran: its extended state may be in the registers there.
    pub cpu: Cell<Option<u8>>,
    /// Identity of the address space in which the shared page is mapped, 0: nowhere.
    pub mapped_in: Cell<u64>,
    /// Where.
    pub mapped_at: Cell<u64>,
    /// It has a guest space and is initialised.
    pub configured: Cell<bool>,
    /// Times it was run.
    pub runs: Cell<u64>,
    /// Exits that the kernel handled by itself.
    pub internal_exits: Cell<u64>,
    /// Doorbells rung.
    pub doorbells: Cell<u64>,
    /// Ticks in the guest, measured while tracing.
    pub guest_ticks: Cell<u64>,
}

const AREA_OFFSET: usize = 4096;
const STATE_OFFSET: usize = AREA_OFFSET + AREA_SIZE;
const _: () = assert!(size_of::<Vcpu>() <= AREA_OFFSET);
const _: () = assert!(STATE_OFFSET + size_of::<(VcpuState, ApicPage)>() <= size::VCPU);

impl Vcpu {
    /// Pages shared with the VMM.
    pub const SHARED_PAGES: u64 = 3;

    /// One that is not configured.
    #[must_use]
    pub fn new() -> Self {
        Self { header: Header::new(ObjectKind::Vcpu), ..Self::default() }
    }

    /// The backend's area.
    #[inline(always)]
    pub fn area(&self) -> *mut VcpuArea {
        (core::ptr::from_ref(self) as usize + AREA_OFFSET) as *mut VcpuArea
    }

    /// The first of the pages shared with the VMM.
    #[inline(always)]
    pub fn state(&self) -> *mut VcpuState {
        (core::ptr::from_ref(self) as usize + STATE_OFFSET) as *mut VcpuState
    }

    /// The second and third.
    pub fn apic(&self) -> &ApicPage {
        // SAFETY: it belongs to this object, and all of it is atomic.
        unsafe { &*self.state().wrapping_add(1).cast() }
    }
}
