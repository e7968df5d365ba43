//! Servers that answer with examples, and a transport that reaches them in memory and writes down what travels.

mod answers;

use answers::*;
use std::collections::VecDeque;
use tessera_abi::Error;
use tessera_proto::capture::{CaptureChunk, CaptureInfo};
use tessera_proto::datastore::{ChangedRanges, DatastoreInfo, EntryInfo, EntryKind, FileData, NewDisk};
use tessera_proto::guest_disk::{BootFile, GuestDiskEvent, GuestDiskInfo, StateInfo};
use tessera_proto::guest_net::{GuestNetEvent, GuestNicInfo};
use tessera_proto::guest_queues::{GuestQueue, GuestQueues};
use tessera_proto::host_port::HostPortInfo;
use tessera_proto::hostd::{self, Echo};
use tessera_proto::init::Level;
use tessera_proto::iommu::{AccessKind, DomainInfo, FaultInfo, IommuInfo, IommuKind};
use tessera_proto::network::{Exercise, Link, NicInfo, NicOffloads, NicState, NicStatistics};
use tessera_proto::storage::*;
use tessera_proto::supervisor::*;
use tessera_proto::switch::{
    AddressInfo, Balance, DropReason, Dropped, Group, GroupInfo, Limits, Mirror, PortInfo, PortKind, Security, Settings, Shaping,
    SwitchInfo, Teaming, Traffic,
};
use tessera_proto::vm_console::ConsoleChunk;
use tessera_proto::vm_control::*;
use tessera_proto::vm_manager::*;
use tessera_proto::vm_media::{self, Medium};
use tessera_proto::vm_memory::{DiskConfig, DiskController, DiskPlace, Loan, MachineConfig, MemoryFrame, NicConfig, NicModel, StateKind};
use tessera_proto::vm_screen::{Keys, ScreenInfo, View, ViewChunk};
use tessera_proto::*;

fn state_place() -> FilePlace {
    FilePlace::Store {
        store: "main".into(),
        path: "web.vmss".into(),
    }
}

/// Answers every operation of every interface with an example in which no two fields are alike.
#[derive(Default)]
pub struct Example {
    /// Requests that arrived, by name.
    pub seen: Vec<String>,
    /// When set, refuses everything.
    pub refuse: bool,
}

impl Example {
    fn note(&mut self, text: impl Into<String>) -> Result<(), Failure> {
        self.seen.push(text.into());
        if self.refuse {
            return Err(Failure::new(FailureKind::NotFound, "no such thing as `x`"));
        }
        Ok(())
    }
}

/// Gives a request to the interface that it names.
pub fn dispatch(server: &mut Example, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
    match interface_of(request) {
        Some(1) => init::dispatch(server, call, request, reply),
        Some(2) => supervisor::dispatch(server, call, request, reply),
        Some(3) => vm_manager::dispatch(server, call, request, reply),
        Some(4) => vm_control::dispatch(server, call, request, reply),
        Some(18) => vm_media::dispatch(server, call, request, reply),
        Some(17) => vm_screen::dispatch(server, call, request, reply),
        Some(5) => vm_console::dispatch(server, call, request, reply),
        Some(6) => storage::dispatch(server, call, request, reply),
        Some(7) => vm_memory::dispatch(server, call, request, reply),
        Some(8) => guest_disk::dispatch(server, call, request, reply),
        Some(14) => host_port::dispatch(server, call, request, reply),
        Some(11) => guest_net::dispatch(server, call, request, reply),
        Some(9) => datastore::dispatch(server, call, request, reply),
        Some(10) => network::dispatch(server, call, request, reply),
        Some(12) => switch::dispatch(server, call, request, reply),
        Some(13) => capture::dispatch(server, call, request, reply),
        Some(15) => hostd::dispatch(server, call, request, reply),
        Some(16) => iommu::dispatch(server, call, request, reply),
        _ => unknown_operation(reply),
    }
}

/// A server in the same process.
#[derive(Default)]
pub struct Loopback {
    /// The server.
    pub server: Example,
    /// Last request and reply.
    pub request: Vec<u8>,
    /// Last reply.
    pub reply: Vec<u8>,
    /// Errors to give instead of delivering, first to last.
    pub errors: VecDeque<Error>,
    /// Deliveries that were tried.
    pub attempts: usize,
}

impl Transport for &mut Loopback {
    fn exchange(
        &mut self,
        send: &[u32],
        _receive: u32,
        receive_count: u32,
        encode: &mut dyn FnMut(&mut [u8]) -> Result<usize, CallError>,
        decode: &mut dyn FnMut(&[u8], Delivery),
    ) -> Result<(), CallError> {
        self.attempts += 1;
        let mut buffer = vec![0; MAX_MESSAGE];
        let length = encode(&mut buffer)?;
        self.request = buffer[..length].to_vec();
        if let Some(error) = self.errors.pop_front() {
            return Err(error.into());
        }
        let mut call = Call::new(7, 40, send.len());
        let mut reply = vec![0; MAX_MESSAGE];
        let length = dispatch(&mut self.server, &mut call, &self.request.clone(), &mut reply);
        self.reply = reply[..length].to_vec();
        assert!(
            call.given().len() <= receive_count as usize || self.reply[0] != 0,
            "more capabilities than the client offers slots for"
        );
        decode(
            &self.reply,
            Delivery {
                bytes: length,
                caps: call.given().len(),
            },
        );
        Ok(())
    }
}

/// What [`call_everything`] tells about each call: its name, the transport after it, and whether it succeeded.
pub type Witness<'a> = &'a mut dyn FnMut(&str, &Loopback, bool);

/// Calls every operation of every interface once. `see` is told of each.
pub fn call_everything(loopback: &mut Loopback, see: Witness<'_>) {
    macro_rules! call {
        ($interface:ident.$operation:ident($($argument:expr),*)) => {
            let ok = $interface::Client(&mut *loopback).$operation($($argument),*).is_ok();
            see(concat!(stringify!($interface), ".", stringify!($operation)), loopback, ok);
        };
    }
    call!(init.log(Level::Info, "hello"));
    call!(init.exit(-2, "no disk"));
    call!(init.panicked("lib.rs:1: oh"));
    call!(init.ready());
    call!(init.bus_master(3));
    call!(init.device_memory(16, Slots(55)));
    call!(init.no_bus_master(3));
    call!(init.reset_device(3, true));
    call!(init.video_memory(2, true, Slots(56)));
    call!(supervisor.system());
    call!(supervisor.servers(300));
    call!(supervisor.threads(2, 3));
    call!(supervisor.capabilities(2, 17));
    call!(supervisor.endpoints(4));
    call!(supervisor.memory());
    call!(supervisor.kill("net"));
    call!(supervisor.restart("net"));
    call!(supervisor.log(1000));
    call!(supervisor.follow_log([21]));
    call!(supervisor.check_wx(u64::MAX));
    call!(supervisor.pci(5));
    call!(supervisor.end_machine(true));
    call!(vm_manager.list(0));
    call!(vm_manager.start("debian"));
    call!(vm_manager.stop("debian"));
    call!(vm_manager.connect("debian", VmService::Console, Slots(50)));
    call!(vm_manager.config("debian"));
    call!(vm_manager.create(vm_config()));
    call!(vm_manager.configure("debian", vm_config()));
    call!(vm_manager.remove("debian"));
    call!(vm_manager.follow([24]));
    let medium = FilePlace::Store {
        store: "main".into(),
        path: "iso/one.iso".into(),
    };
    call!(vm_manager.set_medium("debian", Some(medium.clone())));
    call!(vm_manager.set_state_file("debian", Some(medium.clone())));
    call!(vm_manager.resume("debian", true));
    call!(vm_manager.state_file("debian"));
    call!(vm_manager.passthrough("debian"));
    call!(vm_manager.functions(2));
    call!(vm_manager.keep_function("0000:00:05.0"));
    call!(hostd.ping("2001:db8::1", 3, 56, 1000));
    call!(vm_media.medium());
    call!(vm_media.change(Some(medium)));
    call!(vm_control.info());
    call!(vm_control.exits(1));
    call!(vm_control.registers(1));
    call!(vm_control.power_button());
    call!(vm_control.reset());
    call!(vm_control.inject_nmi(3));
    call!(vm_control.memory());
    call!(vm_control.set_balloon(1 << 20));
    call!(vm_control.suspend());
    call!(vm_control.agent_write(b"{}"));
    call!(vm_control.agent_read());
    call!(vm_console.attach([21]));
    call!(vm_console.detach());
    call!(vm_console.read(299));
    call!(vm_console.write(b"ls\r"));
    call!(vm_screen.info());
    call!(vm_screen.text(3));
    call!(vm_screen.open(View::Picture { divisor: 4 }));
    call!(vm_screen.read(300, 12));
    call!(vm_screen.write(300, b"RFB"));
    call!(vm_screen.close(300));
    call!(vm_screen.press(Keys { codes: vec![0x1d, 0xe053] }));
    call!(vm_screen.type_text("root"));
    call!(network.nics(3));
    call!(network.exercise("nic0", 5));
    call!(switch.switches(1));
    call!(switch.groups(2));
    call!(switch.ports(3));
    call!(switch.addresses("vSwitch0", 4));
    call!(switch.create_switch(settings()));
    call!(switch.change_switch(settings()));
    call!(switch.remove_switch("vSwitch0"));
    call!(switch.create_group("vSwitch0", group()));
    call!(switch.change_group(group()));
    call!(switch.remove_group("VM Network"));
    call!(switch.link("vSwitch0", "nic1"));
    call!(switch.unlink("vSwitch0", "nic1"));
    call!(switch.mirror("vSwitch0", "debian.0", Some("watcher.1")));
    call!(switch.set_link("debian.0", true));
    call!(capture.captures(1));
    call!(capture.start("debian.0", 128, 65_536));
    call!(capture.read(7, 4096));
    call!(capture.stop(7));
    call!(capture.remove(7));
    call!(capture.peek(7, 4096));
    call!(storage.disks(2));
    call!(storage.partitions("nvme0n1", 1));
    call!(storage.read("nvme0n1", 300, 512, 1024));
    call!(storage.exercise("nvme0n1", 300, 8, 1));
    call!(storage.guest_disks(2));
    call!(storage.events("nvme0n1", 2));
    call!(vm_memory.machine(9));
    call!(vm_memory.borrow_memory([22], 4));
    call!(vm_memory.frame(4, 1, Slots(51)));
    call!(vm_memory.state(4, StateKind::Nics, Slots(52)));
    call!(vm_memory.release(4));
    call!(vm_memory.loans(0));
    call!(vm_memory.found_state("web", state_place()));
    call!(vm_memory.video(4, 2, true, Slots(53)));
    call!(iommu.info());
    call!(iommu.domains(2));
    call!(iommu.faults(3));
    let queue = GuestQueue {
        index: 1,
        size: 256,
        descriptors: 0x1000,
        available: 0x2000,
        used: 0x3000,
    };
    let queues = GuestQueues { queues: vec![queue] };
    call!(guest_disk.describe(0));
    call!(guest_disk.interrupt([23], 0, 1));
    call!(guest_disk.attach(0, 1 << 32, queues.clone(), true, Slots(53)));
    call!(guest_disk.reset(0));
    call!(guest_disk.watch());
    call!(guest_disk.file(BootFile::Kernel));
    call!(guest_disk.read_file(BootFile::Initramfs, 512, 1024));
    call!(guest_disk.load_file(BootFile::Kernel, 512, 1 << 20, 0x100_0000));
    call!(guest_disk.begin_state(9000, 0x1234_5678));
    call!(guest_disk.write_state(3000, b"bytes"));
    call!(guest_disk.save_memory(16 << 20, 16 << 20));
    call!(guest_disk.end_state());
    call!(guest_disk.abandon_state());
    call!(guest_disk.open_state());
    call!(guest_disk.read_state(3000, 3000));
    call!(guest_disk.load_memory());
    call!(guest_disk.remove_state());
    call!(guest_disk.keep_variables(4096, FileData { data: vec![1, 2, 3] }, true));
    call!(guest_disk.find_state());
    call!(guest_disk.discard_state());
    call!(host_port.open([25], "Management Network", Slots(55)));
    call!(host_port.close());
    call!(guest_net.describe(2));
    call!(guest_net.interrupt([24], 2, 8));
    call!(guest_net.attach(2, 1 << 32, 4, queues.clone(), true, Slots(54)));
    call!(guest_net.reset(2));
    call!(guest_net.watch());
    call!(datastore.list(3));
    call!(datastore.browse("main", "iso", 1));
    call!(datastore.stat("main", "debian.disk"));
    call!(datastore.create_folder("main", "iso"));
    call!(datastore.create_file("main", "iso/debian.iso"));
    let new = NewDisk {
        size: 10 << 30,
        thick: true,
        checksums: true,
    };
    call!(datastore.create_disk("main", "debian.disk", new));
    call!(datastore.grow_disk("main", "debian.disk", 20 << 30));
    call!(datastore.rename("main", "a", "b"));
    call!(datastore.remove("main", "b"));
    call!(datastore.read("main", "iso/debian.iso", 300, 16));
    call!(datastore.write("main", "iso/debian.iso", 300, b"bytes"));
    call!(datastore.sync("main", 3));
    call!(datastore.snapshots("main", "debian.disk", 0));
    call!(datastore.create_snapshot("main", "debian.disk", "before"));
    call!(datastore.remove_snapshot("main", "debian.disk", "before"));
    call!(datastore.revert("main", "debian.disk", "before"));
    call!(datastore.clone_snapshot("main", "debian.disk", "before", "copy.disk"));
    call!(datastore.change_id("main", "debian.disk"));
    call!(datastore.changed("main", "debian.disk", 77, 4096));
    call!(datastore.format("nvme0n1", 3, "main"));
    call!(datastore.fetch("main", "iso/debian.iso", 300, 4096, 512));
    call!(datastore.put("main", "iso/debian.iso", 300, 4096, 512));
}
