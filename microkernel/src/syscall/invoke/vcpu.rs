//! Operations on vCPUs, but for running them.

use tessera_abi::layout::{USER_BOTTOM, USER_TOP};
use tessera_abi::object::{ObjectKind, Rights, vcpu as op};
use tessera_abi::{Error, PAGE_SIZE};

use super::{Request, Results};
use crate::arch::memory::virt_to_phys;
use crate::arch::percpu;
use crate::kref::Ref;
use crate::object::cnode;
use crate::object::destroy;
use crate::object::page_tables::{self, Mapping};
use crate::object::space::Space;
use crate::object::vcpu::Vcpu;
use crate::virt;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let vcpu: Ref<Vcpu> = request.target();
    request.rights_by_operation(&[op::INFO])?;
    match request.operation {
        op::CONFIGURE => configure(request, vcpu),
        op::SYNC => {
            if percpu::all().any(|cpu| cpu.running_vcpu.get() == Some(vcpu)) {
                return Err(Error::BadState);
            }
            let here = request.exclusive.cpu();
            // One that never ran has nothing that is not in the page.
            if let Some(home) = vcpu.cpu.get() {
                if usize::from(home) != here.index.get() {
                    request.exclusive.give_up(&vcpu);
                }
                // SAFETY: the area and the page belong to this vCPU, which is not running and in no other processor; interrupts are off.
                unsafe { virt::store_full(vcpu.area(), &here.virt) };
            }
            Ok([0; 6])
        }
        op::INFO => Ok([vcpu.runs.get(), vcpu.internal_exits.get(), vcpu.doorbells.get(), vcpu.guest_ticks.get(), 0, 0]),
        _ => Err(Error::UnknownOperation),
    }
}

fn configure(request: &Request<'_>, vcpu: Ref<Vcpu>) -> Result<Results, Error> {
    let [guest, space, address, ..] = request.words;
    if vcpu.configured.get() || vcpu.mapped_in.get() != 0 {
        return Err(Error::BadState);
    }
    if address % PAGE_SIZE as u64 != 0 || !(USER_BOTTOM..=USER_TOP - Vcpu::SHARED_PAGES * PAGE_SIZE as u64).contains(&address) {
        return Err(Error::BadArgument);
    }
    let guest_slot = request.own(guest)?.require(ObjectKind::GuestSpace, Rights::WRITE)?;
    let space: Ref<Space> = request.object(space, ObjectKind::AddressSpace, Rights::WRITE)?;
    let mapping = Mapping { pages: Vcpu::SHARED_PAGES, ..Mapping::shared_page(address, virt_to_phys(vcpu.state())) };
    page_tables::map(&*space, space.root.get(), &mapping)?;
    destroy::delete(request.exclusive, &vcpu.space);
    cnode::copy(guest_slot, &vcpu.space, Rights::all(), 0)?;
    vcpu.mapped_in.set(space.identity.get());
    vcpu.mapped_at.set(address);
    vcpu.configured.set(true);
    Ok([0; 6])
}
