//! Servers that answer with examples, and a transport that reaches them in memory and writes down what travels.

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

impl init::Server for Example {
    fn log(&mut self, _: &mut Call, level: Level, text: &str) -> Result<(), Failure> {
        self.note(format!("log {level} {text}"))
    }
    fn exit(&mut self, _: &mut Call, code: i32, reason: &str) -> Result<(), Failure> {
        self.note(format!("exit {code} {reason}"))
    }
    fn panicked(&mut self, _: &mut Call, text: &str) -> Result<(), Failure> {
        self.note(format!("panicked {text}"))
    }
    fn ready(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("ready")
    }
    fn bus_master(&mut self, _: &mut Call, device: u32) -> Result<(), Failure> {
        self.note(format!("bus_master {device}"))
    }
    fn no_bus_master(&mut self, _: &mut Call, device: u32) -> Result<(), Failure> {
        self.note(format!("no_bus_master {device}"))
    }
    fn reset_device(&mut self, _: &mut Call, device: u32, begin: bool) -> Result<u32, Failure> {
        self.note(format!("reset_device {device} {begin}"))?;
        Ok(20)
    }
    fn device_memory(&mut self, call: &mut Call, pages: u32) -> Result<(), Failure> {
        self.note(format!("device_memory {pages}"))?;
        call.give(36);
        Ok(())
    }
    fn video_memory(&mut self, call: &mut Call, piece: u32, make: bool) -> Result<(), Failure> {
        self.note(format!("video_memory {piece} {make}"))?;
        call.give(37);
        Ok(())
    }
}

impl supervisor::Server for Example {
    fn system(&mut self, _: &mut Call) -> Result<SystemInfo, Failure> {
        self.note("system")?;
        Ok(SystemInfo {
            product: "Tessera".into(),
            abi_version: 1,
            cpus: 2,
            tsc_hz: 3_000_000_000,
            boot_tsc: 4,
            features: 5,
            ram_bytes: 6 << 30,
            wall_clock: 7,
            command_line: "a=b".into(),
        })
    }
    fn servers(&mut self, _: &mut Call, first: u32) -> Result<Page<ServerInfo>, Failure> {
        self.note(format!("servers {first}"))?;
        let info = ServerInfo {
            id: 1,
            name: "shell".into(),
            state: ServerState::Running,
            restarts: 2,
            pages: 300,
            priority: 48,
            threads: 3,
            cpu_ticks: 4000,
            started_tsc: 5,
            vm: Some("debian".into()),
            last_end: "killed".into(),
        };
        Ok(Page {
            items: vec![info],
            next: Some(9),
        })
    }
    fn threads(&mut self, _: &mut Call, server: u64, first: u32) -> Result<Page<ThreadInfo>, Failure> {
        self.note(format!("threads {server} {first}"))?;
        let info = ThreadInfo {
            slot: 3,
            object: 0xffff_8000_0000_1000,
            state: ThreadState::AwaitingReply,
            priority: 20,
            cpu: 1,
            no_fpu: true,
            cpu_ticks: 70,
            switches: 8,
            rip: 0x40_1000,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn capabilities(&mut self, _: &mut Call, server: u64, first: u32) -> Result<Page<CapabilityInfo>, Failure> {
        self.note(format!("capabilities {server} {first}"))?;
        let info = CapabilityInfo {
            slot: 16,
            name: "com1".into(),
            kind: 14,
            rights: 3,
            badge: 0x3f8,
            object: 1,
            size: 8,
            copies: 2,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn endpoints(&mut self, _: &mut Call, first: u32) -> Result<Page<EndpointInfo>, Failure> {
        self.note(format!("endpoints {first}"))?;
        let info = EndpointInfo {
            name: "block".into(),
            provider: "storage".into(),
            calls: 1000,
            callers_waiting: 2,
            receivers_waiting: 1,
            latency_ticks: 300,
            latency_count: 4,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn memory(&mut self, _: &mut Call) -> Result<MemoryInfo, Failure> {
        self.note("memory")?;
        Ok(MemoryInfo {
            total: 1000,
            kernel: 1,
            bundle: 2,
            init: 3,
            servers: 4,
            guests: 5,
            free: 985,
            largest_free: 512,
            zeroed: 256,
        })
    }
    fn kill(&mut self, _: &mut Call, server: &str) -> Result<(), Failure> {
        self.note(format!("kill {server}"))
    }
    fn restart(&mut self, _: &mut Call, server: &str) -> Result<(), Failure> {
        self.note(format!("restart {server}"))
    }
    fn log(&mut self, _: &mut Call, cursor: u64) -> Result<LogChunk, Failure> {
        self.note(format!("log from {cursor}"))?;
        let line = LogLine {
            tsc: 77,
            server: "net".into(),
            level: Level::Warn,
            text: "link down".into(),
        };
        Ok(LogChunk {
            next: 5,
            lost: 1,
            lines: vec![line],
        })
    }
    fn follow_log(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.note(format!("follow_log {:?}", call.cap(0)))
    }
    fn check_wx(&mut self, _: &mut Call, server: u64) -> Result<WriteExecute, Failure> {
        self.note(format!("check_wx {server}"))?;
        Ok(WriteExecute {
            pages: 100,
            violations: 1,
            first: 0x40_0000,
        })
    }
    fn pci(&mut self, _: &mut Call, first: u32) -> Result<Page<PciFunction>, Failure> {
        self.note(format!("pci {first}"))?;
        let info = PciFunction {
            address: "0000:00:04.0".into(),
            vendor: 0x1b36,
            device: 0x10,
            subsystem: (0x1af4, 0x1100),
            class: (1, 8, 2),
            revision: 3,
            present: true,
            bus_master: false,
            ranges: vec![PciRange {
                bar: 5,
                ports: true,
                address: 0xc000,
                length: 32,
            }],
            interrupts: PciInterrupts::Table { used: 6, offered: 65 },
            holder: "storage".into(),
        };
        Ok(Page {
            items: vec![info],
            next: Some(7),
        })
    }

    fn end_machine(&mut self, _: &mut Call, restart: bool) -> Result<(), Failure> {
        self.note(format!("end_machine {restart}"))
    }
}

fn settings() -> Settings {
    Settings {
        name: "vSwitch0".into(),
        mtu: 1500,
        security: Security {
            promiscuous: true,
            forged_transmits: false,
            mac_changes: true,
        },
        shaping: Shaping {
            sent: Some(Limits {
                average: 8_000_000,
                peak: 16_000_000,
                burst: 65_536,
            }),
            received: None,
        },
        teaming: teaming(),
    }
}

fn teaming() -> Teaming {
    Teaming {
        balance: Balance::Order,
        active: vec!["nic0".into()],
        standby: vec!["nic1".into(), "nic2".into()],
    }
}

fn group() -> Group {
    Group {
        name: "VM Network".into(),
        vlan: 100,
        security: Some(Security::default()),
        shaping: None,
        teaming: Some(teaming()),
    }
}

impl switch::Server for Example {
    fn switches(&mut self, _: &mut Call, first: u32) -> Result<Page<SwitchInfo>, Failure> {
        self.note(format!("switches {first}"))?;
        let info = SwitchInfo {
            settings: settings(),
            uplinks: vec!["nic0".into(), "nic1".into()],
            mirrors: vec![Mirror {
                from: "debian.0".into(),
                to: "watcher.0".into(),
            }],
            groups: 3,
            ports: 4,
        };
        Ok(Page {
            items: vec![info],
            next: Some(1),
        })
    }
    fn groups(&mut self, _: &mut Call, first: u32) -> Result<Page<GroupInfo>, Failure> {
        self.note(format!("groups {first}"))?;
        let Settings { security, shaping, .. } = settings();
        let info = GroupInfo {
            switch: "vSwitch0".into(),
            group: group(),
            security,
            shaping,
            teaming: teaming(),
            ports: 2,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn ports(&mut self, _: &mut Call, first: u32) -> Result<Page<PortInfo>, Failure> {
        self.note(format!("ports {first}"))?;
        let info = PortInfo {
            name: "debian.0".into(),
            kind: PortKind::Guest,
            switch: "vSwitch0".into(),
            group: "VM Network".into(),
            vlan: 100,
            mac: [2, 3, 4, 5, 6, 7],
            link: true,
            blocked: false,
            uplink: "nic1".into(),
            received: Traffic { frames: 1, bytes: 2 },
            sent: Traffic { frames: 3, bytes: 4 },
            multicast: 5,
            dropped: vec![Dropped {
                reason: DropReason::Forged,
                frames: 6,
            }],
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn addresses(&mut self, _: &mut Call, switch: &str, first: u32) -> Result<Page<AddressInfo>, Failure> {
        self.note(format!("addresses {switch} {first}"))?;
        let info = AddressInfo {
            mac: [2, 3, 4, 5, 6, 7],
            vlan: 100,
            port: "debian.0".into(),
            age_ms: Some(1500),
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn create_switch(&mut self, _: &mut Call, settings: Settings) -> Result<(), Failure> {
        self.note(format!("create_switch {settings:?}"))
    }
    fn change_switch(&mut self, _: &mut Call, settings: Settings) -> Result<(), Failure> {
        self.note(format!("change_switch {settings:?}"))
    }
    fn remove_switch(&mut self, _: &mut Call, switch: &str) -> Result<(), Failure> {
        self.note(format!("remove_switch {switch}"))
    }
    fn create_group(&mut self, _: &mut Call, switch: &str, group: Group) -> Result<(), Failure> {
        self.note(format!("create_group {switch} {group:?}"))
    }
    fn change_group(&mut self, _: &mut Call, group: Group) -> Result<(), Failure> {
        self.note(format!("change_group {group:?}"))
    }
    fn remove_group(&mut self, _: &mut Call, group: &str) -> Result<(), Failure> {
        self.note(format!("remove_group {group}"))
    }
    fn link(&mut self, _: &mut Call, switch: &str, nic: &str) -> Result<(), Failure> {
        self.note(format!("link {switch} {nic}"))
    }
    fn unlink(&mut self, _: &mut Call, switch: &str, nic: &str) -> Result<(), Failure> {
        self.note(format!("unlink {switch} {nic}"))
    }
    fn mirror(&mut self, _: &mut Call, switch: &str, from: &str, to: Option<&str>) -> Result<(), Failure> {
        self.note(format!("mirror {switch} {from} {to:?}"))
    }
    fn set_link(&mut self, _: &mut Call, port: &str, up: bool) -> Result<(), Failure> {
        self.note(format!("set_link {port} {up}"))
    }
}

impl capture::Server for Example {
    fn captures(&mut self, _: &mut Call, first: u32) -> Result<Page<CaptureInfo>, Failure> {
        self.note(format!("captures {first}"))?;
        let info = CaptureInfo {
            id: 7,
            port: "debian.0".into(),
            snap: 128,
            room: 65_536,
            waiting: 9,
            frames: 10,
            lost: 11,
            running: true,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn start(&mut self, _: &mut Call, port: &str, snap: u32, room: u32) -> Result<u32, Failure> {
        self.note(format!("start {port} {snap} {room}"))?;
        Ok(7)
    }
    fn read(&mut self, _: &mut Call, id: u32, from: u64) -> Result<CaptureChunk, Failure> {
        self.note(format!("read {id} {from}"))?;
        Ok(CaptureChunk {
            bytes: vec![10, 13, 13, 10],
            end: true,
        })
    }
    fn peek(&mut self, _: &mut Call, id: u32, from: u64) -> Result<CaptureChunk, Failure> {
        self.note(format!("peek {id} {from}"))?;
        Ok(CaptureChunk {
            bytes: vec![10, 13, 13],
            end: false,
        })
    }
    fn stop(&mut self, _: &mut Call, id: u32) -> Result<(), Failure> {
        self.note(format!("stop {id}"))
    }
    fn remove(&mut self, _: &mut Call, id: u32) -> Result<(), Failure> {
        self.note(format!("remove {id}"))
    }
}

impl network::Server for Example {
    fn nics(&mut self, _: &mut Call, first: u32) -> Result<Page<NicInfo>, Failure> {
        self.note(format!("nics {first}"))?;
        let info = NicInfo {
            name: "nic0".into(),
            driver: "e1000e".into(),
            model: "Intel 82574L".into(),
            address: "0000:00:05.0".into(),
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            state: NicState::Gone,
            link: Link {
                up: true,
                speed: 1000,
                full_duplex: true,
            },
            mtu: 9000,
            queues: 2,
            offloads: NicOffloads {
                checksum: true,
                tcp4: true,
                tcp6: false,
                udp: false,
                verifies: true,
                joins: false,
                vlan: true,
            },
            promiscuous: true,
            statistics: NicStatistics {
                received: 1,
                received_bytes: 2,
                received_missed: 3,
                received_errors: 4,
                sent: 5,
                sent_bytes: 6,
                sent_full: 7,
                sent_errors: 8,
                interrupts: 9,
                resets: 10,
                link_changes: 11,
            },
            last_error: "it hung".into(),
        };
        Ok(Page {
            items: vec![info],
            next: Some(19),
        })
    }
    fn exercise(&mut self, _: &mut Call, nic: &str, rounds: u32) -> Result<Exercise, Failure> {
        self.note(format!("exercise {nic} {rounds}"))?;
        Ok(Exercise {
            sent: 3,
            answered: 2,
            offered: [10, 0, 2, 15],
        })
    }
}

impl storage::Server for Example {
    fn disks(&mut self, _: &mut Call, first: u32) -> Result<Page<DiskInfo>, Failure> {
        self.note(format!("disks {first}"))?;
        let info = DiskInfo {
            name: "nvme0n1".into(),
            driver: "nvme".into(),
            address: "0000:00:04.0".into(),
            model: "QEMU NVMe Ctrl".into(),
            serial: "abc".into(),
            firmware: "1.0".into(),
            state: DiskState::Failed,
            sector_size: 512,
            sectors: 1 << 21,
            read_only: true,
            discard: false,
            write_cache: true,
            queues: 4,
            health: DiskHealth {
                temperature: Some(-3),
                used_percent: Some(5),
                power_on_hours: Some(6000),
                failing: Some(true),
            },
            statistics: DiskStatistics {
                reads: 7,
                read_bytes: 8 << 20,
                writes: 9,
                written_bytes: 10 << 20,
                flushes: 11,
                errors: 12,
                media_errors: 13,
                timeouts: 14,
                resets: 15,
            },
            last_error: "sector 16 cannot be read".into(),
        };
        Ok(Page {
            items: vec![info],
            next: Some(17),
        })
    }
    fn partitions(&mut self, _: &mut Call, disk: &str, first: u32) -> Result<Page<PartitionInfo>, Failure> {
        self.note(format!("partitions {disk} {first}"))?;
        let info = PartitionInfo {
            number: 1,
            first: 2048,
            sectors: 4096,
            kind: "0x83".into(),
            name: "data".into(),
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn read(&mut self, _: &mut Call, disk: &str, sector: u64, offset: u32, length: u32) -> Result<DiskData, Failure> {
        self.note(format!("read {disk} {sector} {offset} {length}"))?;
        Ok(DiskData { data: vec![1, 2, 3] })
    }
    fn exercise(&mut self, _: &mut Call, disk: &str, sector: u64, count: u32, seed: u64) -> Result<(), Failure> {
        self.note(format!("exercise {disk} {sector} {count} {seed}"))
    }
    fn events(&mut self, _: &mut Call, disk: &str, first: u32) -> Result<Page<DiskEvent>, Failure> {
        self.note(format!("events {disk} {first}"))?;
        let event = DiskEvent {
            at: 300,
            text: "it was taken away".into(),
        };
        Ok(Page {
            items: vec![event],
            next: Some(3),
        })
    }
    fn guest_disks(&mut self, _: &mut Call, first: u32) -> Result<Page<GuestDiskStatistics>, Failure> {
        self.note(format!("guest_disks {first}"))?;
        let item = GuestDiskStatistics {
            vm: "debian".into(),
            disk: 2,
            reads: (3, 4096),
            writes: (5, 8192),
            flushes: 6,
            errors: 7,
            interrupts: 8,
        };
        Ok(Page {
            items: vec![item],
            next: None,
        })
    }
}

fn vm_config() -> VmConfig {
    VmConfig {
        name: "web".into(),
        memory: 512 << 20,
        vcpus: 2,
        weight: 200,
        budget_us: 2000,
        period_us: 10_000,
        firmware: None,
        kernel: FilePlace::Store {
            store: "main".into(),
            path: "boot/vmlinuz".into(),
        },
        initramfs: Some(FilePlace::Image { name: "initramfs".into() }),
        command_line: "quiet".into(),
        display: true,
        variables: None,
        boot_order: vec![BootDevice::Cdrom, BootDevice::Disk(1), BootDevice::Nic(0)],
        boot_menu_ms: 5000,
        watchdog: Some(WatchdogAction::Reset),
        cdrom: None,
        disks: vec![DiskConfig {
            place: DiskPlace::Store {
                store: "main".into(),
                disk: "web.tvd".into(),
            },
            read_only: false,
            serial: "web".into(),
            controller: DiskController::Ahci,
        }],
        nics: vec![NicConfig {
            port_group: "DMZ".into(),
            mac: [2, 0x54, 9, 8, 7, 6],
            model: NicModel::E1000e,
        }],
        passthrough: vec!["0000:03:00.0".into()],
    }
}

impl vm_manager::Server for Example {
    fn functions(&mut self, _: &mut Call, first: u32) -> Result<Page<HostFunction>, Failure> {
        self.note(format!("functions {first}"))?;
        let function = HostFunction {
            address: "0000:00:05.0".into(),
            identity: (0x8086, 0x10c9),
            class: (2, 0, 0),
            confined: true,
            remapped: false,
            server: "net".into(),
            machine: "web".into(),
            kept: true,
            together: vec!["0000:00:05.1".into()],
            problem: "it cannot be reset by itself".into(),
        };
        Ok(Page::fill([(first, function)].into_iter()))
    }
    fn keep_function(&mut self, _: &mut Call, address: &str) -> Result<(), Failure> {
        self.note(format!("keep_function {address}"))
    }
    fn passthrough(&mut self, _: &mut Call, name: &str) -> Result<Vec<PassedInfo>, Failure> {
        self.note(format!("passthrough {name}"))?;
        Ok(vec![PassedInfo {
            wanted: "PCI function 1 of `network`".into(),
            address: "0000:00:05.0".into(),
            identity: (0x8086, 0x10d3),
            class: (2, 0, 1),
        }])
    }
    fn list(&mut self, _: &mut Call, first: u32) -> Result<Page<VmSummary>, Failure> {
        self.note(format!("list {first}"))?;
        let summary = VmSummary {
            name: "debian".into(),
            state: VmState::Failed,
            memory: 256 << 20,
            vcpus: 2,
            overhead_pages: 400,
            starts: 3,
            started_tsc: 4,
            reason: "triple fault".into(),
        };
        Ok(Page {
            items: vec![summary],
            next: None,
        })
    }
    fn start(&mut self, _: &mut Call, name: &str) -> Result<(), Failure> {
        self.note(format!("start {name}"))
    }
    fn stop(&mut self, _: &mut Call, name: &str) -> Result<(), Failure> {
        self.note(format!("stop {name}"))
    }
    fn connect(&mut self, call: &mut Call, name: &str, service: VmService) -> Result<(), Failure> {
        self.note(format!("connect {name} {service:?}"))?;
        call.give(33);
        Ok(())
    }
    fn config(&mut self, _: &mut Call, name: &str) -> Result<VmConfig, Failure> {
        self.note(format!("config {name}"))?;
        Ok(vm_config())
    }
    fn create(&mut self, _: &mut Call, config: VmConfig) -> Result<(), Failure> {
        self.note(format!("create {}", config.name))
    }
    fn configure(&mut self, _: &mut Call, name: &str, config: VmConfig) -> Result<(), Failure> {
        self.note(format!("configure {name} {}", config.name))
    }
    fn remove(&mut self, _: &mut Call, name: &str) -> Result<(), Failure> {
        self.note(format!("remove {name}"))
    }
    fn follow(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.note(format!("follow {:?}", call.cap(0)))
    }
    fn set_medium(&mut self, _: &mut Call, name: &str, medium: Option<FilePlace>) -> Result<(), Failure> {
        self.note(format!("set_medium {name} {medium:?}"))
    }
    fn set_state_file(&mut self, _: &mut Call, name: &str, file: Option<FilePlace>) -> Result<(), Failure> {
        self.note(format!("set_state_file {name} {file:?}"))
    }
    fn resume(&mut self, _: &mut Call, name: &str, keep: bool) -> Result<(), Failure> {
        self.note(format!("resume {name} {keep}"))
    }
    fn state_file(&mut self, _: &mut Call, name: &str) -> Result<Option<FilePlace>, Failure> {
        self.note(format!("state_file {name}"))?;
        Ok(Some(state_place()))
    }
}

impl hostd::Server for Example {
    fn ping(&mut self, _: &mut Call, to: &str, sequence: u16, bytes: u16, wait_ms: u32) -> Result<Echo, Failure> {
        self.note(format!("ping {to} {sequence} {bytes} {wait_ms}"))?;
        Ok(Echo {
            address: "192.0.2.1".into(),
            microseconds: Some(1234),
        })
    }
}

impl vm_media::Server for Example {
    fn medium(&mut self, _: &mut Call) -> Result<Medium, Failure> {
        self.note("medium")?;
        Ok(Medium {
            bytes: Some(300),
            locked: true,
        })
    }
    fn change(&mut self, _: &mut Call, place: Option<FilePlace>) -> Result<(), Failure> {
        self.note(format!("change {place:?}"))
    }
}

impl vm_control::Server for Example {
    fn agent_write(&mut self, _: &mut Call, data: &[u8]) -> Result<u32, Failure> {
        self.note(format!("agent_write {data:?}"))?;
        Ok(300)
    }
    fn agent_read(&mut self, _: &mut Call) -> Result<AgentOutput, Failure> {
        self.note("agent_read")?;
        Ok(AgentOutput {
            open: true,
            data: vec![0xff, 1, 2],
        })
    }
    fn info(&mut self, _: &mut Call) -> Result<VmInfo, Failure> {
        self.note("info")?;
        Ok(VmInfo {
            panics: 1,
            watchdog_timeouts: 2,
            state: RunState::Failed,
            vcpus: vec![VcpuRunState::Halted, VcpuRunState::WaitForStart],
            started_tsc: 1,
            resets: 2,
            report: "report".into(),
        })
    }
    fn exits(&mut self, _: &mut Call, vcpu: u32) -> Result<VcpuExits, Failure> {
        self.note(format!("exits {vcpu}"))?;
        let exits = vec![ExitCount {
            reason: 1,
            count: 200,
            ticks: 3000,
        }];
        Ok(VcpuExits {
            exits,
            in_kernel: 1,
            doorbells: 2,
            guest_ticks: 3,
            injected: 4,
        })
    }
    fn memory(&mut self, _: &mut Call) -> Result<VmMemory, Failure> {
        self.note("memory")?;
        Ok(VmMemory {
            ram: 1,
            pages: [70, 80, 90],
            target: 2,
            given_up: 3,
            free: Some(4),
            total: Some(5),
            available: None,
            caches: Some(300),
            swapped_in: None,
            swapped_out: Some(6),
            major_faults: None,
        })
    }
    fn set_balloon(&mut self, _: &mut Call, bytes: u64) -> Result<(), Failure> {
        self.note(format!("set_balloon {bytes}"))
    }
    fn suspend(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("suspend")
    }
    fn registers(&mut self, _: &mut Call, vcpu: u32) -> Result<Registers, Failure> {
        self.note(format!("registers {vcpu}"))?;
        let segment = SegmentRegister {
            selector: 0x10,
            attributes: 0xa09b,
            limit: 0xffff_ffff,
            base: 0x1000,
        };
        Ok(Registers {
            state: VcpuRunState::Running,
            gpr: core::array::from_fn(|index| index as u64),
            rip: 0x100,
            rflags: 2,
            cr0: 0x8000_0011,
            cr2: 3,
            cr3: 0x1000,
            cr4: 0x20,
            cr8: 4,
            efer: 0x500,
            segments: [segment; 8],
            gdtr: (5, 6),
            idtr: (7, 8),
            exit: 9,
            code: vec![0xf4, 0xeb, 0xfe],
        })
    }
    fn power_button(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("power_button")
    }
    fn reset(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("reset")
    }
    fn inject_nmi(&mut self, _: &mut Call, vcpu: u32) -> Result<(), Failure> {
        self.note(format!("inject_nmi {vcpu}"))
    }
}

impl vm_screen::Server for Example {
    fn info(&mut self, _: &mut Call) -> Result<ScreenInfo, Failure> {
        self.note("info")?;
        Ok(ScreenInfo {
            mode: "text".into(),
            width: 720,
            height: 400,
            columns: 80,
            rows: 25,
            hash: 1 << 40,
            viewers: 1,
        })
    }
    fn text(&mut self, _: &mut Call, first: u32) -> Result<String, Failure> {
        self.note(format!("text {first}"))?;
        Ok("SeaBIOS\n".into())
    }
    fn open(&mut self, _: &mut Call, view: View) -> Result<u64, Failure> {
        self.note(format!("open {view:?}"))?;
        Ok(300)
    }
    fn read(&mut self, _: &mut Call, view: u64, from: u64) -> Result<ViewChunk, Failure> {
        self.note(format!("read {view} {from}"))?;
        Ok(ViewChunk {
            data: b"RFB 003.008\n".to_vec(),
            last: false,
        })
    }
    fn write(&mut self, _: &mut Call, view: u64, data: &[u8]) -> Result<u32, Failure> {
        self.note(format!("write {view} {data:?}"))?;
        Ok(data.len() as u32)
    }
    fn close(&mut self, _: &mut Call, view: u64) -> Result<(), Failure> {
        self.note(format!("close {view}"))
    }
    fn press(&mut self, _: &mut Call, keys: Keys) -> Result<(), Failure> {
        self.note(format!("press {:?}", keys.codes))
    }
    fn type_text(&mut self, _: &mut Call, text: &str) -> Result<u32, Failure> {
        self.note(format!("type {text}"))?;
        Ok(text.len() as u32)
    }
}

impl vm_console::Server for Example {
    fn attach(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.note(format!("attach {:?}", call.cap(0)))
    }
    fn detach(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("detach")
    }
    fn read(&mut self, _: &mut Call, cursor: u64) -> Result<ConsoleChunk, Failure> {
        self.note(format!("read {cursor}"))?;
        Ok(ConsoleChunk {
            next: 300,
            lost: 1,
            data: b"login: ".to_vec(),
        })
    }
    fn write(&mut self, _: &mut Call, data: &[u8]) -> Result<u32, Failure> {
        self.note(format!("write {data:?}"))?;
        Ok(data.len() as u32)
    }
}

impl iommu::Server for Example {
    fn info(&mut self, _: &mut Call) -> Result<IommuInfo, Failure> {
        self.note("info")?;
        Ok(IommuInfo {
            kind: IommuKind::Vtd,
            reason: String::new(),
            units: 2,
            address_bits: 48,
            interrupts_remapped: true,
            table_pages: 300,
            faults: 7,
        })
    }
    fn domains(&mut self, _: &mut Call, first: u32) -> Result<Page<DomainInfo>, Failure> {
        self.note(format!("domains {first}"))?;
        Ok(Page {
            items: vec![DomainInfo {
                server: "storage".into(),
                device_memory: 4 << 20,
                guest_memory: 256 << 20,
                reserved: 4096,
                table_pages: 9,
                functions: vec!["0000:00:04.0".into()],
            }],
            next: None,
        })
    }
    fn faults(&mut self, _: &mut Call, first: u32) -> Result<Page<FaultInfo>, Failure> {
        self.note(format!("faults {first}"))?;
        Ok(Page {
            items: vec![FaultInfo {
                tsc: 1 << 40,
                function: "0000:00:04.0".into(),
                server: "storage".into(),
                address: Some(0x1234_5000),
                kind: AccessKind::Write,
                reason: 5,
                count: 3,
            }],
            next: Some(4),
        })
    }
}

impl vm_memory::Server for Example {
    fn machine(&mut self, _: &mut Call, server: u64) -> Result<MachineConfig, Failure> {
        self.note(format!("machine {server}"))?;
        let device = DiskPlace::Device {
            device: "nvme0".into(),
            partition: 3,
        };
        let store = DiskPlace::Store {
            store: "main".into(),
            disk: "debian.tvd".into(),
        };
        let disk = |place, read_only| DiskConfig {
            place,
            read_only,
            serial: "S1".into(),
            controller: if read_only { DiskController::Ahci } else { DiskController::Virtio },
        };
        Ok(MachineConfig {
            machine: 1 << 32 | 2,
            name: "debian".into(),
            memory: 256 << 20,
            video: 16 << 20,
            frames: 4,
            disks: vec![disk(device, true), disk(store, false)],
            files: vec![Some(vm_config().kernel), None],
            nics: vec![NicConfig {
                port_group: "VM Network".into(),
                mac: [2, 0x54, 1, 2, 3, 4],
                model: NicModel::Virtio,
            }],
        })
    }
    fn borrow_memory(&mut self, call: &mut Call, machine: u64) -> Result<(), Failure> {
        self.note(format!("borrow_memory {machine} {:?}", call.cap(0)))
    }
    fn frame(&mut self, call: &mut Call, machine: u64, number: u32) -> Result<MemoryFrame, Failure> {
        self.note(format!("frame {machine} {number}"))?;
        call.give(60);
        Ok(MemoryFrame {
            address: 64 << 20,
            length: 32 << 20,
        })
    }
    fn state(&mut self, call: &mut Call, machine: u64, kind: StateKind) -> Result<(), Failure> {
        call.give(61);
        self.note(format!("state {machine} {kind:?}"))
    }
    fn release(&mut self, _: &mut Call, machine: u64) -> Result<(), Failure> {
        self.note(format!("release {machine}"))
    }
    fn video(&mut self, call: &mut Call, machine: u64, piece: u32, make: bool) -> Result<(), Failure> {
        self.note(format!("video {machine} {piece} {make}"))?;
        call.give(38);
        Ok(())
    }
    fn found_state(&mut self, _: &mut Call, name: &str, file: FilePlace) -> Result<(), Failure> {
        self.note(format!("found_state {name} {file:?}"))
    }
    fn loans(&mut self, _: &mut Call, first: u32) -> Result<Page<Loan>, Failure> {
        self.note(format!("loans {first}"))?;
        Ok(Page {
            items: vec![Loan {
                machine: 1 << 32 | 2,
                ending: true,
            }],
            next: None,
        })
    }
}

impl guest_disk::Server for Example {
    fn keep_variables(&mut self, _: &mut Call, offset: u64, data: FileData, last: bool) -> Result<(), Failure> {
        self.note(format!("keep_variables {offset} {} {last}", data.data.len()))
    }
    fn describe(&mut self, _: &mut Call, disk: u32) -> Result<GuestDiskInfo, Failure> {
        self.note(format!("describe {disk}"))?;
        Ok(GuestDiskInfo {
            sectors: 1 << 24,
            block_size: 4096,
            read_only: false,
            discard: true,
            queues: 2,
            segments: 126,
        })
    }
    fn interrupt(&mut self, call: &mut Call, disk: u32, queue: u16) -> Result<(), Failure> {
        self.note(format!("interrupt {disk} {queue} {:?}", call.cap(0)))
    }
    fn attach(&mut self, call: &mut Call, disk: u32, features: u64, queues: GuestQueues, resume: bool) -> Result<(), Failure> {
        self.note(format!("attach {disk} {features} {} {resume}", queues.queues.len()))?;
        call.give(62);
        Ok(())
    }
    fn reset(&mut self, _: &mut Call, disk: u32) -> Result<(), Failure> {
        self.note(format!("reset disk {disk}"))
    }
    fn watch(&mut self, _: &mut Call) -> Result<GuestDiskEvent, Failure> {
        self.note("watch")?;
        Ok(GuestDiskEvent::Broken {
            disk: 1,
            reason: "a chain is a loop".into(),
        })
    }
    fn file(&mut self, _: &mut Call, file: BootFile) -> Result<u64, Failure> {
        self.note(format!("file {file:?}"))?;
        Ok(12 << 20)
    }
    fn read_file(&mut self, _: &mut Call, file: BootFile, offset: u64, length: u32) -> Result<FileData, Failure> {
        self.note(format!("read_file {file:?} {offset} {length}"))?;
        Ok(FileData {
            data: b"MZ kernel".to_vec(),
        })
    }
    fn load_file(&mut self, _: &mut Call, file: BootFile, offset: u64, length: u64, address: u64) -> Result<(), Failure> {
        self.note(format!("load_file {file:?} {offset} {length} {address:#x}"))
    }
    fn begin_state(&mut self, _: &mut Call, length: u64, check: u32) -> Result<(), Failure> {
        self.note(format!("begin_state {length} {check:#x}"))
    }
    fn write_state(&mut self, _: &mut Call, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.note(format!("write_state {offset} {data:?}"))
    }
    fn save_memory(&mut self, _: &mut Call, address: u64, length: u64) -> Result<(), Failure> {
        self.note(format!("save_memory {address:#x} {length:#x}"))
    }
    fn end_state(&mut self, _: &mut Call) -> Result<u64, Failure> {
        self.note("end_state")?;
        Ok(80 << 20)
    }
    fn abandon_state(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("abandon_state")
    }
    fn open_state(&mut self, _: &mut Call) -> Result<StateInfo, Failure> {
        self.note("open_state")?;
        Ok(StateInfo {
            state: 9000,
            length: 80 << 20,
        })
    }
    fn read_state(&mut self, _: &mut Call, offset: u64, length: u32) -> Result<FileData, Failure> {
        self.note(format!("read_state {offset} {length}"))?;
        Ok(FileData {
            data: b"processors".to_vec(),
        })
    }
    fn load_memory(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("load_memory")
    }
    fn find_state(&mut self, _: &mut Call) -> Result<bool, Failure> {
        self.note("find_state")?;
        Ok(true)
    }
    fn discard_state(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("discard_state")
    }
    fn remove_state(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("remove_state")
    }
}

impl host_port::Server for Example {
    fn open(&mut self, call: &mut Call, group: &str) -> Result<HostPortInfo, Failure> {
        self.note(format!("open {group} {:?}", call.cap(0)))?;
        call.give(64);
        Ok(HostPortInfo {
            mac: [6, 0x54, 1, 2, 3, 4],
            mtu: 1500,
        })
    }
    fn close(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("close")
    }
}

impl guest_net::Server for Example {
    fn describe(&mut self, _: &mut Call, nic: u32) -> Result<GuestNicInfo, Failure> {
        self.note(format!("describe {nic}"))?;
        Ok(GuestNicInfo {
            mac: [2, 0x54, 1, 2, 3, 4],
            mtu: 9000,
            link: true,
            speed: 10_000,
            pairs: 4,
        })
    }
    fn interrupt(&mut self, call: &mut Call, nic: u32, queue: u16) -> Result<(), Failure> {
        self.note(format!("interrupt {nic} {queue} {:?}", call.cap(0)))
    }
    fn attach(&mut self, call: &mut Call, nic: u32, features: u64, pairs: u16, queues: GuestQueues, resume: bool) -> Result<(), Failure> {
        self.note(format!("attach {nic} {features} {pairs} {} {resume}", queues.queues.len()))?;
        call.give(63);
        Ok(())
    }
    fn reset(&mut self, _: &mut Call, nic: u32) -> Result<(), Failure> {
        self.note(format!("reset nic {nic}"))
    }
    fn watch(&mut self, _: &mut Call) -> Result<GuestNetEvent, Failure> {
        self.note("watch")?;
        Ok(GuestNetEvent::Status {
            nic: 1,
            link: true,
            announce: false,
        })
    }
}

fn datastore_entry(kind: EntryKind) -> EntryInfo {
    EntryInfo {
        id: 9,
        kind,
        name: "debian.disk".into(),
        size: 10 << 30,
        used: 2 << 30,
        shared: 1 << 30,
        thick: true,
        checksums: false,
        modified: 1_700_000_001,
        origin: Some(8),
    }
}

impl datastore::Server for Example {
    fn list(&mut self, _: &mut Call, first: u32) -> Result<Page<DatastoreInfo>, Failure> {
        self.note(format!("list {first}"))?;
        Ok(Page {
            items: vec![DatastoreInfo {
                name: "main".into(),
                disk: "nvme0n1".into(),
                partition: 3,
                size: 100 << 30,
                used: 20 << 30,
                available: 70 << 30,
                reserved: 10 << 30,
                provisioned: 200 << 30,
                near_full: true,
                trouble: "its disk is gone".into(),
            }],
            next: Some(4),
        })
    }
    fn browse(&mut self, _: &mut Call, store: &str, folder: &str, first: u32) -> Result<Page<EntryInfo>, Failure> {
        self.note(format!("browse {store} {folder} {first}"))?;
        Ok(Page {
            items: vec![datastore_entry(EntryKind::Folder), datastore_entry(EntryKind::File)],
            next: None,
        })
    }
    fn stat(&mut self, _: &mut Call, store: &str, path: &str) -> Result<EntryInfo, Failure> {
        self.note(format!("stat {store} {path}"))?;
        Ok(datastore_entry(EntryKind::Disk))
    }
    fn create_folder(&mut self, _: &mut Call, store: &str, path: &str) -> Result<(), Failure> {
        self.note(format!("create_folder {store} {path}"))
    }
    fn create_file(&mut self, _: &mut Call, store: &str, path: &str) -> Result<(), Failure> {
        self.note(format!("create_file {store} {path}"))
    }
    fn create_disk(&mut self, _: &mut Call, store: &str, path: &str, options: NewDisk) -> Result<(), Failure> {
        self.note(format!("create_disk {store} {path} {options:?}"))
    }
    fn grow_disk(&mut self, _: &mut Call, store: &str, path: &str, size: u64) -> Result<(), Failure> {
        self.note(format!("grow_disk {store} {path} {size}"))
    }
    fn rename(&mut self, _: &mut Call, store: &str, from: &str, to: &str) -> Result<(), Failure> {
        self.note(format!("rename {store} {from} {to}"))
    }
    fn remove(&mut self, _: &mut Call, store: &str, path: &str) -> Result<(), Failure> {
        self.note(format!("remove {store} {path}"))
    }
    fn read(&mut self, _: &mut Call, store: &str, path: &str, offset: u64, length: u32) -> Result<FileData, Failure> {
        self.note(format!("read {store} {path} {offset} {length}"))?;
        Ok(FileData { data: vec![4, 5, 6] })
    }
    fn write(&mut self, _: &mut Call, store: &str, path: &str, offset: u64, data: &[u8]) -> Result<u64, Failure> {
        self.note(format!("write {store} {path} {offset} {data:?}"))?;
        Ok(3)
    }
    fn sync(&mut self, _: &mut Call, store: &str, life: u64) -> Result<(), Failure> {
        self.note(format!("sync {store} {life}"))
    }
    fn snapshots(&mut self, _: &mut Call, store: &str, disk: &str, first: u32) -> Result<Page<EntryInfo>, Failure> {
        self.note(format!("snapshots {store} {disk} {first}"))?;
        Ok(Page {
            items: vec![datastore_entry(EntryKind::Snapshot)],
            next: Some(1),
        })
    }
    fn create_snapshot(&mut self, _: &mut Call, store: &str, disk: &str, name: &str) -> Result<(), Failure> {
        self.note(format!("create_snapshot {store} {disk} {name}"))
    }
    fn remove_snapshot(&mut self, _: &mut Call, store: &str, disk: &str, name: &str) -> Result<(), Failure> {
        self.note(format!("remove_snapshot {store} {disk} {name}"))
    }
    fn revert(&mut self, _: &mut Call, store: &str, disk: &str, name: &str) -> Result<(), Failure> {
        self.note(format!("revert {store} {disk} {name}"))
    }
    fn clone_snapshot(&mut self, _: &mut Call, store: &str, disk: &str, name: &str, path: &str) -> Result<(), Failure> {
        self.note(format!("clone_snapshot {store} {disk} {name} {path}"))
    }
    fn change_id(&mut self, _: &mut Call, store: &str, disk: &str) -> Result<u64, Failure> {
        self.note(format!("change_id {store} {disk}"))?;
        Ok(77)
    }
    fn changed(&mut self, _: &mut Call, store: &str, disk: &str, since: u64, from: u64) -> Result<ChangedRanges, Failure> {
        self.note(format!("changed {store} {disk} {since} {from}"))?;
        Ok(ChangedRanges {
            ranges: vec![(4096, 8192), (65536, 4096)],
            next: Some(1 << 20),
        })
    }
    fn fetch(&mut self, _: &mut Call, store: &str, path: &str, offset: u64, length: u32, at: u32) -> Result<u32, Failure> {
        self.note(format!("fetch {store} {path} {offset} {length} {at}"))?;
        Ok(4096)
    }
    fn put(&mut self, _: &mut Call, store: &str, path: &str, offset: u64, length: u32, at: u32) -> Result<u64, Failure> {
        self.note(format!("put {store} {path} {offset} {length} {at}"))?;
        Ok(3)
    }
    fn format(&mut self, _: &mut Call, disk: &str, partition: u32, label: &str) -> Result<(), Failure> {
        self.note(format!("format {disk} {partition} {label}"))
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
