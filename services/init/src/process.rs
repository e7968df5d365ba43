//! Making and ending processes. A process is a capability table, an address space and a first thread, all made from memory of its own: taking that memory back ends it and
//! everything that it made.

use crate::arrange::{Item, arrange};
use crate::buddy::Block;
use crate::machine::Machine;
use crate::tables::Tables;
use crate::window;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use tessera_abi::boot::slot;
use tessera_abi::object::{ObjectKind, Rights, thread};
use tessera_abi::{Error, PAGE_SIZE, layout};
use tessera_manifest::{FAULT_BADGE, Program, Server, StartDevice, StartGrant, StartInfo, StartVm, slots as fixed};
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::{
    AddressSpace, CNode, Endpoint, Frame, IoPorts, Notification, SchedContext, Thread, ThreadConfig, Untyped, slots, start_info,
};
use tessera_screen::VIDEO_BYTES;
use tessera_vswitch::Switch;

const PAGE: u64 = PAGE_SIZE as u64;
const BUNDLE: Frame = Frame::new(slot::BUNDLE);
const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);
/// What every process has.
const OBJECTS: [ObjectKind; 6] = [
    ObjectKind::CNode,
    ObjectKind::AddressSpace,
    ObjectKind::Thread,
    ObjectKind::SchedContext,
    ObjectKind::Reply,
    ObjectKind::Notification,
];

/// Where a granted capability comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A copy of one of init's own, with at most these rights and a badge.
    Copy {
        /// Slot.
        slot: u32,
        /// Rights.
        rights: Rights,
        /// Badge, or 0.
        badge: u64,
    },
    /// Part of all I/O ports.
    Ports {
        /// First port.
        first: u16,
        /// Number.
        count: u32,
    },
    /// Part of device memory.
    Device {
        /// The memory.
        untyped: Untyped,
        /// Offset in bytes.
        offset: u64,
        /// Length in pages.
        pages: u64,
    },
    /// Part of the boot bundle, read-only.
    Bundle {
        /// First page.
        first: u64,
        /// Length in pages.
        pages: u64,
    },
}

/// A capability to be granted.
#[derive(Clone, Debug)]
pub struct Granted {
    /// Name in `StartInfo`.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Bytes, where it is memory.
    pub length: u64,
    /// It is memory that is mapped with large pages.
    pub large: bool,
}

/// What a process is to be.
#[derive(Debug)]
pub struct Spec<'a> {
    /// What the manifest says.
    pub server: &'a Server,
    /// Bytes of its heap.
    pub heap: u64,
    /// Bytes of memory that it makes objects of.
    pub untyped: u64,
    /// Its program.
    pub program: &'a Program,
    /// Name of the instance.
    pub name: String,
    /// Its number.
    pub id: u64,
    /// Earlier starts.
    pub restarts: u32,
    /// Processor of the first thread.
    pub cpu: u32,
    /// Capabilities, in the order of their slots.
    pub grants: Vec<Granted>,
    /// PCI functions among them.
    pub devices: Vec<StartDevice>,
    /// Virtual switches, if it drives network cards.
    pub switches: &'a [Switch],
    /// The virtual machine.
    pub vm: Option<StartVm>,
    /// The notification to bind to the first thread instead of one of its own; it outlives the process.
    pub notification: Option<Notification>,
    /// init's endpoint.
    pub init: Endpoint,
    /// Bytes of RAM of virtual machines that it may map.
    pub lent: u64,
}

/// Machines that run at once in a server's page tables.
const MACHINES: u64 = 256;
/// Bytes of addresses for their state frames.
const STATE_FRAMES: u64 = 32 << 20;

/// A process.
#[derive(Debug)]
pub struct Process {
    blocks: Vec<Block>,
    slots: Vec<u32>,
    /// Slots of its first objects, in the order of [`OBJECTS`].
    objects: [u32; OBJECTS.len()],
    /// Pages of its memory.
    pub pages: u64,
    /// Its capability table.
    pub cnode: CNode,
    /// Its address space.
    pub space: AddressSpace,
    /// Its first thread.
    pub thread: Thread,
    /// What it was granted.
    pub grants: Vec<StartGrant>,
}

/// A kernel error as a failure: what was being done, and why it did not work.
pub fn trouble(doing: &str) -> impl Fn(Error) -> Failure + '_ {
    move |error| {
        let kind = if error == Error::NoMemory {
            FailureKind::Exhausted
        } else {
            FailureKind::Internal
        };
        Failure::new(kind, format_args!("{doing}: {}", error.text()))
    }
}

/// What a frame of the process is for.
#[derive(Clone, Copy)]
enum Content<'a> {
    /// Zeros.
    Empty,
    /// Bytes from the bundle: offset and length.
    Bundle(u64, u64),
    /// These bytes.
    Bytes(&'a [u8]),
}

/// A frame of the process, which may come in several pieces.
struct Memory<'a> {
    address: u64,
    rights: Rights,
    content: Content<'a>,
    /// Pages that are made already.
    done: u64,
}

/// Bytes of start information are cut into pages behind their length.
fn start_page(info: &StartInfo) -> Result<Vec<u8>, Failure> {
    let bytes = info
        .encode()
        .map_err(|_| Failure::new(FailureKind::Internal, "the start information cannot be encoded"))?;
    let mut page = Vec::with_capacity(8 + bytes.len());
    page.extend((bytes.len() as u64).to_le_bytes());
    page.extend(bytes);
    Ok(page)
}

impl Process {
    /// Makes a process and starts it.
    ///
    /// # Errors
    /// Memory or slots are used up, or the manifest asks for what cannot be; nothing is left behind then.
    pub fn start(machine: &mut Machine, spec: &Spec<'_>) -> Result<Self, Failure> {
        let mut process = Self {
            blocks: Vec::new(),
            slots: Vec::new(),
            objects: [0; OBJECTS.len()],
            pages: 0,
            cnode: CNode::new(0),
            space: AddressSpace::new(0),
            thread: Thread::new(0),
            grants: Vec::new(),
        };
        match process.build(machine, spec) {
            Ok(()) => Ok(process),
            Err(failure) => {
                process.end(machine);
                Err(failure)
            }
        }
    }

    /// Ends it wherever it is and takes everything back.
    pub fn end(self, machine: &mut Machine) {
        if self.thread.slot() != 0 {
            // Spares the kernel from stopping it in the middle of the revocation.
            let _ = self.thread.stop();
        }
        machine.reclaim(self.blocks);
        for slot in self.slots {
            slots::free(slot);
        }
    }

    fn slot(&mut self) -> Result<u32, Failure> {
        let slot = slots::take().map_err(trouble("init has no slot left"))?;
        self.slots.push(slot);
        Ok(slot)
    }

    fn build(&mut self, machine: &mut Machine, spec: &Spec<'_>) -> Result<(), Failure> {
        let server = spec.server;
        let grants: Vec<StartGrant> = (fixed::GRANTS..)
            .zip(&spec.grants)
            .map(|(slot, grant)| StartGrant {
                name: grant.name.clone(),
                slot,
                length: grant.length,
            })
            .collect();
        let first_free = fixed::GRANTS + grants.len() as u32;
        if first_free >= server.slots {
            return Err(Failure::new(
                FailureKind::Exhausted,
                format_args!(
                    "{} slots are too few for {} grants: raise `slots` in the manifest",
                    server.slots,
                    grants.len()
                ),
            ));
        }
        let own = start_info();
        let page = start_page(&StartInfo {
            name: spec.name.clone(),
            id: spec.id,
            restarts: spec.restarts,
            heap: spec.heap.next_multiple_of(PAGE),
            first_free_slot: first_free,
            slots: server.slots,
            tsc_hz: own.tsc_hz,
            boot_tsc: own.boot_tsc,
            wall_clock: own.wall_clock,
            cpus: machine.cpus,
            priority: server.priority,
            grants: grants.clone(),
            arguments: server.arguments.clone(),
            vm: spec.vm.clone(),
            devices: spec.devices.clone(),
            switches: spec.switches.to_vec(),
        })?;
        self.grants = grants;
        let stack = server.stack.next_multiple_of(PAGE).max(PAGE);
        let mut memory = vec![
            (
                page.len() as u64,
                Memory {
                    address: layout::START_INFO,
                    rights: Rights::READ,
                    content: Content::Bytes(&page),
                    done: 0,
                },
            ),
            (
                stack,
                Memory {
                    address: layout::STACK_TOP - stack,
                    rights: READ_WRITE,
                    content: Content::Empty,
                    done: 0,
                },
            ),
            (
                spec.heap,
                Memory {
                    address: layout::HEAP_BASE,
                    rights: READ_WRITE,
                    content: Content::Empty,
                    done: 0,
                },
            ),
        ];
        for segment in spec
            .program
            .segments
            .iter()
            .filter(|segment| segment.rights & Rights::WRITE.bits() != 0)
        {
            let content = Content::Bundle(segment.offset, segment.file_length);
            memory.push((
                segment.memory_length,
                Memory {
                    address: segment.address,
                    rights: READ_WRITE,
                    content,
                    done: 0,
                },
            ));
        }
        memory.retain(|(length, _)| *length > 0);

        let sizes = [u64::from(server.slots.ilog2()), page_tables(spec, stack), 0, 0, 0, 0];
        let mut items: Vec<Item> = OBJECTS.iter().zip(sizes).map(|(kind, size)| Item::new(*kind, size)).collect();
        items.extend(memory.iter().map(|(length, _)| Item::new(ObjectKind::Frame, length.div_ceil(PAGE))));
        if spec.untyped > 0 {
            items.push(Item::new(ObjectKind::Untyped, spec.untyped.div_ceil(PAGE)));
        }
        self.make(machine, &items, &mut memory, server)?;
        self.map_program(spec.program)?;
        self.fill_table(spec)?;
        self.run(spec)
    }

    /// Makes all objects, and maps the frames.
    fn make(&mut self, machine: &mut Machine, items: &[Item], memory: &mut [(u64, Memory<'_>)], server: &Server) -> Result<(), Failure> {
        let arrangement = arrange(items);
        for pages in &arrangement.blocks {
            let Some(block) = machine.take(pages.ilog2()) else {
                let (free, largest) = machine.free();
                let wanted = arrangement.pages();
                let text = format_args!("{wanted} pages are needed, {free} are free, {largest} in one piece");
                return Err(Failure::new(FailureKind::Exhausted, text));
            };
            self.blocks.push(block);
        }
        self.pages = arrangement.pages();
        // Pieces of frames in the order in which they lie in the process: they can be mapped when the address space is there.
        let mut pieces = Vec::new();
        let mut untyped = None;
        for placement in &arrangement.placements {
            let slot = self.slot()?;
            let kind = items[placement.item].kind;
            Untyped::new(self.blocks[placement.block].slot)
                .retype(kind, placement.size, CNode::OWN, slot, 1)
                .map_err(trouble("making its objects"))?;
            match (kind, self.objects.get_mut(placement.item)) {
                (_, Some(place)) => *place = slot,
                (ObjectKind::Untyped, None) => untyped = Some(slot),
                (_, None) => pieces.push((placement.item - OBJECTS.len(), slot, placement.size)),
            }
        }
        let [cnode, space, thread, sched, reply, notification] = self.objects;
        self.cnode = CNode::new(cnode);
        self.space = AddressSpace::new(space);
        self.thread = Thread::new(thread);
        for (index, slot, pages) in pieces {
            let Some((_, memory)) = memory.get_mut(index) else { continue };
            fill(Frame::new(slot), memory, pages).map_err(trouble("filling its memory"))?;
            let address = memory.address + memory.done * PAGE;
            Frame::new(slot)
                .map(self.space, address, memory.rights, 0)
                .map_err(trouble("mapping its memory"))?;
            memory.done += pages;
        }
        if let Some(slot) = untyped {
            // Moved, not copied: memory has one owner.
            self.cnode
                .take(fixed::UNTYPED, CNode::OWN, slot)
                .map_err(trouble("giving it memory"))?;
        }
        SchedContext::new(sched)
            .configure(server.budget_us, server.period_us, server.weight.into())
            .map_err(trouble("setting its processor time"))?;
        let own = [
            (fixed::CNODE, cnode, READ_WRITE),
            (fixed::ADDRESS_SPACE, space, READ_WRITE),
            (fixed::THREAD, thread, READ_WRITE),
            // A server may look at its own share, not change it.
            (fixed::SCHED_CONTEXT, sched, Rights::READ),
            (fixed::REPLY, reply, Rights::all()),
            (fixed::NOTIFICATION, notification, Rights::all()),
        ];
        for (place, slot, rights) in own {
            self.cnode
                .copy(place, CNode::OWN, slot, rights, 0)
                .map_err(trouble("filling its capability table"))?;
        }
        Ok(())
    }

    /// Maps what of the program nobody writes, from the bundle itself.
    fn map_program(&mut self, program: &Program) -> Result<(), Failure> {
        for segment in program.segments.iter().filter(|segment| segment.rights & Rights::WRITE.bits() == 0) {
            let rights = Rights::from_bits_truncate(segment.rights) & (Rights::READ | Rights::EXECUTE);
            let slot = self.slot()?;
            BUNDLE
                .slice(segment.offset / PAGE, segment.memory_length / PAGE, CNode::OWN, slot, rights)
                .and_then(|part| part.map(self.space, segment.address, rights, 0))
                .map_err(trouble("mapping its program"))?;
        }
        Ok(())
    }

    fn fill_table(&mut self, spec: &Spec<'_>) -> Result<(), Failure> {
        let table = self.cnode;
        table
            .copy(fixed::INIT, CNode::OWN, spec.init.slot(), Rights::SEND | Rights::GRANT, spec.id)
            .map_err(trouble("granting init"))?;
        if let Some(notification) = spec.notification {
            // Takes the place of the process's own.
            table
                .delete(fixed::NOTIFICATION)
                .and_then(|()| table.copy(fixed::NOTIFICATION, CNode::OWN, notification.slot(), Rights::all(), 0))
                .map_err(trouble("granting its notification"))?;
        }
        for (grant, placed) in spec.grants.iter().zip(&self.grants) {
            let outcome = match grant.source {
                Source::Copy { slot, rights, badge } => table.copy(placed.slot, CNode::OWN, slot, rights, badge),
                Source::Ports { first, count } => IoPorts::new(slot::IO_PORTS)
                    .slice(first, count, table, placed.slot, READ_WRITE)
                    .map(|_| ()),
                Source::Device { untyped, offset, pages } => untyped.frame_at(offset, pages, table, placed.slot).map(|_| ()),
                Source::Bundle { first, pages } => BUNDLE.slice(first, pages, table, placed.slot, Rights::READ).map(|_| ()),
            };
            outcome.map_err(|error| trouble(&format!("granting `{}`", grant.name))(error))?;
        }
        Ok(())
    }

    /// Starts the first thread.
    fn run(&mut self, spec: &Spec<'_>) -> Result<(), Failure> {
        let server = spec.server;
        let fault = self.slot()?;
        CNode::OWN
            .copy(
                fault,
                CNode::OWN,
                spec.init.slot(),
                Rights::SEND | Rights::GRANT,
                spec.id | FAULT_BADGE,
            )
            .and_then(|()| self.cnode.copy(fixed::FAULT, CNode::OWN, fault, Rights::SEND | Rights::GRANT, 0))
            .map_err(trouble("granting its fault handler"))?;
        let [.., sched, _, own] = self.objects;
        self.thread
            .bind(Some(spec.notification.unwrap_or(Notification::new(own))))
            .map_err(trouble("binding its notification"))?;
        self.thread
            .configure(&ThreadConfig {
                cnode: self.cnode,
                space: self.space,
                fault: Some(Endpoint::new(fault)),
                sched_context: SchedContext::new(sched),
                priority: server.priority,
                cpu: spec.cpu,
                flags: if server.no_fpu { thread::NO_FPU } else { 0 },
                utcb: layout::UTCB_BASE,
            })
            .and_then(|()| self.thread.start(spec.program.entry, layout::STACK_TOP, 0))
            .map_err(trouble("starting its first thread"))
    }
}

/// Writes what a piece of memory starts with.
fn fill(frame: Frame, memory: &Memory<'_>, pages: u64) -> Result<(), Error> {
    let (start, end) = (memory.done * PAGE, (memory.done + pages) * PAGE);
    match memory.content {
        Content::Empty => Ok(()),
        Content::Bytes(bytes) => {
            let length = bytes.len() as u64;
            window::fill(frame, &bytes[start.min(length) as usize..end.min(length) as usize])
        }
        Content::Bundle(offset, length) if start < length => {
            window::fill(frame, &window::read(BUNDLE, offset + start, end.min(length) - start)?)
        }
        Content::Bundle(..) => Ok(()),
    }
}

/// Keeps the Notification that came along with a request. The slot is the caller's to free.
///
/// # Errors
/// None came along, or no slot is left.
pub fn keep_notification(call: &Call) -> Result<u32, Failure> {
    let from = call.cap(0).ok_or(Failure::from(FailureKind::BadRequest))?;
    let slot = slots::take().map_err(trouble("init has no slot left"))?;
    if let Err(error) = CNode::OWN.take(slot, CNode::OWN, from) {
        slots::free(slot);
        return Err(trouble("keeping the notification")(error));
    }
    Ok(slot)
}

/// Page tables that the process will need.
fn page_tables(spec: &Spec<'_>, stack: u64) -> u64 {
    let mut tables = Tables::new();
    for segment in &spec.program.segments {
        tables.fixed(segment.address, segment.memory_length);
    }
    tables.fixed(layout::START_INFO, PAGE);
    tables.fixed(layout::UTCB_BASE, PAGE);
    tables.fixed(layout::STACK_TOP - stack, stack);
    tables.fixed(layout::HEAP_BASE, spec.heap);
    for grant in spec.grants.iter().filter(|grant| grant.length > 0) {
        if grant.large {
            tables.large(grant.length)
        } else {
            tables.small(grant.length)
        }
    }
    // Pieces of the video RAM are no grants: they come when they are needed.
    if spec.vm.as_ref().is_some_and(|vm| vm.config.display) {
        tables.large(VIDEO_BYTES);
    }
    // What it makes itself it may map: threads' stacks and message buffers, and a page for each vCPU.
    tables.small(spec.untyped);
    tables.small(spec.server.device_memory);
    if spec.lent > 0 {
        tables.large(spec.lent);
        for _ in 0..MACHINES {
            // What lies between two of them; state frames lie side by side in what is left there.
            tables.large(0);
        }
        tables.small(STATE_FRAMES);
    }
    tables.pages()
}
