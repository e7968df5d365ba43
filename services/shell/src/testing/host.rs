//! A system in memory.

use crate::{
    host::{Answer, Change, CpuCounters, Host, IrqCounters, Machine, Reset},
    shared::{LogText, TraceRing},
};
use core::sync::atomic::AtomicU64;
use std::collections::VecDeque;
use tessera_abi::{Error, virt::VirtFeatures};
use tessera_proto::{
    FailureKind,
    datastore::{ChangedRanges, DatastoreInfo, EntryInfo, EntryKind},
    init::Level,
    iommu::{AccessKind, DomainInfo, FaultInfo, IommuInfo, IommuKind},
    network::{Exercise, Link, NicInfo, NicOffloads, NicState, NicStatistics},
    storage::{DiskEvent, DiskHealth, DiskInfo, DiskState, DiskStatistics, PartitionInfo},
    supervisor::{
        CapabilityInfo, EndpointInfo, LogChunk, LogLine, MemoryInfo, PciFunction, PciInterrupts, PciRange, ServerInfo, ServerState,
        SystemInfo, ThreadInfo, ThreadState, WriteExecute,
    },
    vm_console::ConsoleChunk,
    vm_control::{ExitCount, Registers, RunState, SegmentRegister, VcpuExits, VcpuRunState, VmInfo, VmMemory},
    vm_manager::{FilePlace, PassedInfo, VmConfig, VmState, VmSummary},
    vm_media::Medium,
    vm_memory::{DiskConfig, DiskController, DiskPlace, NicConfig, NicModel},
    vm_screen::ScreenInfo,
};

/// A system whose parts tests change.
pub struct FakeHost {
    pub now: u64,
    pub servers: Vec<ServerInfo>,
    pub vms: Vec<VmSummary>,
    pub log: Vec<LogLine>,
    pub panic: String,
    /// Guests that run sleep.
    pub asleep: bool,
    pub backend: u64,
    pub wx: WriteExecute,
    pub ring: Vec<AtomicU64>,
    pub kernel_log: Vec<AtomicU64>,
    /// What commands did.
    pub done: Vec<String>,
    /// Every question is answered with this.
    pub broken: Option<Error>,
    /// What the guest prints, piece by piece: one is there at each read.
    pub console: VecDeque<Vec<u8>>,
    pub printed: Vec<u8>,
    pub typed: Vec<u8>,
    /// How much of each write the guest takes; everything when used up.
    pub takes: VecDeque<usize>,
    /// After so many reads the machine is gone.
    pub console_reads: Option<u32>,
    /// So many console calls time out first.
    pub console_late: u32,
}

fn server(id: u64, name: &str) -> ServerInfo {
    ServerInfo {
        id,
        name: name.into(),
        state: ServerState::Running,
        restarts: id as u32,
        pages: 300 * id,
        priority: 48,
        threads: 1,
        cpu_ticks: 250_000 * id,
        started_tsc: 1_000_000,
        vm: None,
        last_end: String::new(),
    }
}

pub fn vm(name: &str, state: VmState) -> VmSummary {
    VmSummary {
        name: name.into(),
        state,
        memory: 256 << 20,
        vcpus: 2,
        overhead_pages: 400,
        starts: 3,
        started_tsc: 2_000_000,
        reason: if state == VmState::Failed {
            "triple fault at rip 0xffffffff81000000 with a long story behind it".into()
        } else {
            String::new()
        },
    }
}

fn entry(id: u32, kind: EntryKind, name: &str, origin: Option<u32>) -> EntryInfo {
    EntryInfo {
        id,
        kind,
        name: name.into(),
        size: u64::MAX,
        used: u64::MAX,
        shared: 1 << 40,
        thick: id == 3,
        checksums: true,
        modified: 1_700_000_000,
        origin,
    }
}

/// A ring of four records, six of which were written.
fn ring() -> Vec<AtomicU64> {
    let mut words = vec![6, 4, 0, 0];
    for (tsc, event, a, b) in [
        (5_400_000, 1, 0x10, 0x20),
        (5_500_000, 8, 0x11, 9),
        (5_200_000, 5, 0x30, 5),
        (5_300_000, 0, 0x10, 0x11),
    ] {
        words.extend([tsc, event, a, b]);
    }
    words.into_iter().map(AtomicU64::new).collect()
}

impl Default for FakeHost {
    fn default() -> Self {
        let text = *b"kernel: \x1b[1mhello\n";
        let mut kernel_log = vec![18, 24];
        let mut padded = text.to_vec();
        padded.resize(24, 0);
        kernel_log.extend(padded.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())));
        Self {
            now: 6_000_000,
            servers: vec![
                server(0, "init"),
                server(1, "shell"),
                server(2, "vmx.debian"),
                server(3, "vmm.debian"),
            ],
            vms: vec![
                vm("debian", VmState::Running),
                vm("broken", VmState::Failed),
                vm("idle", VmState::Stopped),
            ],
            log: (0..30)
                .map(|index| LogLine {
                    tsc: 1_500_000 + index,
                    server: "init".into(),
                    level: if index == 7 { Level::Error } else { Level::Info },
                    text: format!("line {index} {}", "long ".repeat(if index == 3 { 40 } else { 1 })),
                })
                .collect(),
            panic: String::new(),
            asleep: false,
            backend: 2,
            wx: WriteExecute {
                pages: 123,
                violations: 0,
                first: 0,
            },
            ring: ring(),
            kernel_log: kernel_log.into_iter().map(AtomicU64::new).collect(),
            done: Vec::new(),
            broken: None,
            console: VecDeque::new(),
            printed: Vec::new(),
            typed: Vec::new(),
            takes: VecDeque::new(),
            console_reads: None,
            console_late: 0,
        }
    }
}

impl FakeHost {
    pub(super) fn act(&mut self, what: &str) -> Answer<()> {
        self.done.push(what.into());
        self.answer(())
    }

    pub(super) fn answer<T>(&self, value: T) -> Answer<T> {
        match self.broken {
            Some(Error::NoRight) => Err(tessera_proto::CallError::Failed(FailureKind::NotAllowed.into())),
            Some(error) => Err(error.into()),
            None => Ok(value),
        }
    }
}

impl Host for FakeHost {
    fn now(&mut self) -> u64 {
        self.now += 1000;
        self.now
    }

    fn own_name(&self) -> &str {
        "shell"
    }

    fn system(&mut self) -> Answer<SystemInfo> {
        self.answer(SystemInfo {
            product: "Tessera 0.1.0".into(),
            abi_version: 1,
            cpus: 2,
            tsc_hz: 1_000_000,
            boot_tsc: 1_000_000,
            features: 0x13,
            ram_bytes: 2 << 30,
            wall_clock: 1_795_381_500,
            command_line: "panic=reboot ".repeat(12),
        })
    }

    fn servers(&mut self) -> Answer<Vec<ServerInfo>> {
        self.answer(self.servers.clone())
    }

    fn threads(&mut self, server: u64) -> Answer<Vec<ThreadInfo>> {
        self.answer(vec![ThreadInfo {
            slot: 3,
            object: 0x10 + server,
            state: if server == 3 {
                ThreadState::Faulted
            } else {
                ThreadState::AwaitingReply
            },
            priority: 63,
            cpu: 31,
            no_fpu: server == 3,
            cpu_ticks: u64::MAX,
            switches: 1 << 40,
            rip: 0x7fff_ffff_ffff,
        }])
    }

    fn capabilities(&mut self, _server: u64) -> Answer<Vec<CapabilityInfo>> {
        self.answer(
            (0..40)
                .map(|slot| CapabilityInfo {
                    slot,
                    name: format!("a long name of a capability {slot}"),
                    kind: slot as u8,
                    rights: slot as u8,
                    badge: u64::MAX >> slot,
                    object: 0x20 + u64::from(slot),
                    size: u64::MAX >> slot,
                    copies: u64::from(slot),
                })
                .collect(),
        )
    }

    fn endpoints(&mut self) -> Answer<Vec<EndpointInfo>> {
        let endpoint = |name: &str, count| EndpointInfo {
            name: name.into(),
            provider: if count == 0 { String::new() } else { "init".into() },
            calls: 1 << 50,
            callers_waiting: 3,
            receivers_waiting: count,
            latency_ticks: 1000,
            latency_count: count,
        };
        self.answer(vec![endpoint("init", 1), endpoint(&"storage".repeat(9), 0)])
    }

    fn pci(&mut self) -> Answer<Vec<PciFunction>> {
        let function = |address: &str, class, interrupts, holder: &str| PciFunction {
            address: address.into(),
            vendor: 0x1b36,
            device: 0xffff,
            subsystem: (0xffff, 0xffff),
            class,
            revision: 0xff,
            present: !holder.is_empty(),
            bus_master: true,
            ranges: [(false, u64::MAX - 1), (true, 0xc000), (false, 0)]
                .map(|(ports, address)| PciRange {
                    bar: 5,
                    ports,
                    address,
                    length: 1 << 40,
                })
                .into(),
            interrupts,
            holder: holder.into(),
        };
        self.answer(vec![
            function(
                "0000:00:04.0",
                (1, 8, 2),
                PciInterrupts::Table { used: 8, offered: 2048 },
                &"storage".repeat(9),
            ),
            function("0000:00:1f.2", (12, 3, 0x30), PciInterrupts::Line(255), ""),
        ])
    }

    fn iommu(&mut self) -> Answer<IommuInfo> {
        self.answer(IommuInfo {
            kind: if self.backend == 0 { IommuKind::None } else { IommuKind::Vtd },
            reason: "the firmware names none".into(),
            units: 4,
            address_bits: 48,
            interrupts_remapped: false,
            table_pages: u64::MAX,
            faults: u64::MAX,
        })
    }

    fn iommu_domains(&mut self) -> Answer<Vec<DomainInfo>> {
        self.answer(vec![DomainInfo {
            server: "storage".repeat(9),
            device_memory: 1 << 50,
            guest_memory: 1 << 50,
            reserved: 4096,
            table_pages: 9,
            functions: vec!["0000:00:04.0".into(); 30],
        }])
    }

    fn iommu_faults(&mut self) -> Answer<Vec<FaultInfo>> {
        let fault = |function: &str, address| FaultInfo {
            tsc: 5,
            function: function.into(),
            server: function.repeat(5),
            address,
            kind: AccessKind::Interrupt,
            reason: 255,
            count: u64::MAX,
        };
        self.answer(vec![fault("0000:00:04.0", Some(u64::MAX)), fault("", None)])
    }

    fn disks(&mut self) -> Answer<Vec<DiskInfo>> {
        let disk = |name: &str, state, last_error: &str| DiskInfo {
            name: name.into(),
            driver: "virtio-blk".into(),
            address: "0000:00:04.0".into(),
            model: "a model with a long name ".repeat(2),
            serial: "12345678901234567890".into(),
            firmware: "1.0".into(),
            state,
            sector_size: 4096,
            sectors: u64::MAX,
            read_only: true,
            discard: true,
            write_cache: true,
            queues: 4,
            health: DiskHealth {
                temperature: Some(-300),
                used_percent: Some(255),
                power_on_hours: Some(u64::MAX),
                failing: Some(state == DiskState::Ready),
            },
            statistics: DiskStatistics {
                reads: u64::MAX,
                errors: u64::MAX,
                ..DiskStatistics::default()
            },
            last_error: last_error.into(),
        };
        self.answer(vec![
            disk("nvme0", DiskState::Ready, &"the disk is tired ".repeat(8)),
            disk("sata0", DiskState::Gone, ""),
        ])
    }

    fn partitions(&mut self, disk: &str) -> Answer<Vec<PartitionInfo>> {
        let one = PartitionInfo {
            number: 128,
            first: u64::MAX,
            sectors: u64::MAX,
            kind: "0fc63daf-8483-4772-8e79-3d69d8477de4".into(),
            name: disk.repeat(20),
        };
        self.answer(vec![one])
    }

    fn disk_events(&mut self, disk: &str) -> Answer<Vec<DiskEvent>> {
        let event = |at, text: &str| DiskEvent { at, text: text.into() };
        self.answer(vec![event(1_234, "it was taken away"), event(u64::MAX, &disk.repeat(40))])
    }

    fn disk_read(&mut self, _disk: &str, sector: u64, offset: u32, length: u32) -> Answer<Vec<u8>> {
        let bytes = (offset..offset + length).map(|place| if sector == 0 { 0 } else { (place * 7) as u8 });
        self.answer(bytes.collect())
    }

    fn disk_exercise(&mut self, disk: &str, sector: u64, count: u32, seed: u64) -> Answer<()> {
        self.act(&format!("exercise {disk} {sector} {count} {seed}"))
    }

    fn nics(&mut self) -> Answer<Vec<NicInfo>> {
        let nic = |name: &str, state, up, last_error: &str| NicInfo {
            name: name.into(),
            driver: "virtio-net".into(),
            model: "a model with a long name ".repeat(2),
            address: "0000:00:04.0".into(),
            mac: [0xff; 6],
            state,
            link: Link {
                up,
                speed: u32::MAX,
                full_duplex: false,
            },
            mtu: u32::MAX,
            queues: u16::MAX,
            offloads: NicOffloads {
                checksum: true,
                tcp4: true,
                tcp6: true,
                udp: true,
                verifies: true,
                joins: true,
                vlan: true,
            },
            promiscuous: true,
            statistics: NicStatistics {
                received: u64::MAX,
                received_bytes: u64::MAX,
                received_missed: u64::MAX,
                received_errors: u64::MAX,
                sent: u64::MAX,
                sent_bytes: u64::MAX,
                sent_full: u64::MAX,
                sent_errors: u64::MAX,
                interrupts: u64::MAX,
                resets: u64::MAX,
                link_changes: u64::MAX,
            },
            last_error: last_error.into(),
        };
        self.answer(vec![
            nic("nic0", NicState::Ready, true, ""),
            nic("nic1", NicState::Gone, false, &"it was pulled out ".repeat(8)),
        ])
    }

    fn nic_exercise(&mut self, nic: &str, rounds: u32) -> Answer<Exercise> {
        self.act(&format!("exercise {nic} {rounds}"))?;
        Ok(Exercise {
            sent: rounds,
            answered: rounds / 2,
            offered: [10, 0, 2, 15],
        })
    }

    fn datastores(&mut self) -> Answer<Vec<DatastoreInfo>> {
        let store = |name: &str, partition, near_full, trouble: &str| DatastoreInfo {
            name: name.into(),
            disk: "nvme0n1".into(),
            partition,
            size: u64::MAX,
            used: u64::MAX,
            available: 1 << 30,
            reserved: 0,
            provisioned: u64::MAX,
            near_full,
            trouble: trouble.into(),
        };
        self.answer(vec![
            store("main", 3, false, ""),
            store("a-name-of-24-characters-", 128, true, ""),
            store("lost", 0, false, &"its disk is gone for a reason ".repeat(4)),
        ])
    }

    fn datastore_browse(&mut self, _store: &str, folder: &str) -> Answer<Vec<EntryInfo>> {
        let empty = folder == "empty";
        let all = vec![
            entry(1, EntryKind::Folder, "iso", None),
            entry(2, EntryKind::File, &"long name ".repeat(25), None),
            entry(3, EntryKind::Disk, "debian", Some(5)),
        ];
        self.answer(if empty { Vec::new() } else { all })
    }

    fn datastore_stat(&mut self, _store: &str, path: &str) -> Answer<EntryInfo> {
        let kind = if path == "iso" { EntryKind::Folder } else { EntryKind::Disk };
        self.answer(entry(3, kind, path, Some(5)))
    }

    fn datastore_snapshots(&mut self, _store: &str, _disk: &str) -> Answer<Vec<EntryInfo>> {
        self.answer(vec![
            entry(4, EntryKind::Snapshot, "installed", None),
            entry(5, EntryKind::Snapshot, &"configured ".repeat(20), Some(4)),
            // Two that go on from each other cannot be, and must not be followed for ever.
            entry(6, EntryKind::Snapshot, "odd", Some(7)),
            entry(7, EntryKind::Snapshot, "odder", Some(6)),
        ])
    }

    fn datastore_change_id(&mut self, _store: &str, _disk: &str) -> Answer<u64> {
        self.answer(u64::MAX)
    }

    fn datastore_changed(&mut self, _store: &str, _disk: &str, _since: u64, from: u64) -> Answer<ChangedRanges> {
        self.answer(ChangedRanges {
            ranges: vec![(from, 4096), (u64::MAX, u64::MAX)],
            next: (from < 2).then_some(from + 1),
        })
    }

    fn datastore_change(&mut self, change: &Change<'_>) -> Answer<()> {
        self.act(&format!("{change:?}"))
    }

    fn memory(&mut self) -> Answer<MemoryInfo> {
        self.answer(MemoryInfo {
            total: 1000,
            kernel: 100,
            bundle: 50,
            init: 50,
            servers: 200,
            guests: 300,
            free: 300,
            largest_free: 256,
            zeroed: 128,
        })
    }

    fn kill(&mut self, server: &str) -> Answer<()> {
        self.act(&format!("kill {server}"))
    }

    fn restart(&mut self, server: &str) -> Answer<()> {
        self.act(&format!("restart {server}"))
    }

    fn log(&mut self, cursor: u64) -> Answer<LogChunk> {
        let start = (cursor as usize).min(self.log.len());
        let lines: Vec<LogLine> = self.log[start..].iter().take(7).cloned().collect();
        self.answer(LogChunk {
            next: (start + lines.len()) as u64,
            lost: if cursor == 0 { 2 } else { 0 },
            lines,
        })
    }

    fn follow_log(&mut self) -> Answer<()> {
        self.answer(())
    }

    fn vms(&mut self) -> Answer<Vec<VmSummary>> {
        self.answer(self.vms.clone())
    }

    fn vm_passthrough(&mut self, _: &str) -> Answer<Vec<PassedInfo>> {
        let passed = |wanted: &str, address: &str| PassedInfo {
            wanted: wanted.into(),
            address: address.into(),
            identity: (0x8086, 0x10d3),
            class: (2, 0, 0),
        };
        self.answer(vec![
            passed("PCI function 1 of `network`", "0000:00:05.0"),
            passed("PCI function 0000:00:09.0", ""),
        ])
    }

    fn vm_config(&mut self, name: &str) -> Answer<VmConfig> {
        self.answer(VmConfig {
            name: name.into(),
            memory: 512 << 20,
            vcpus: 2,
            weight: 100,
            budget_us: 2000,
            period_us: 10_000,
            firmware: None,
            kernel: FilePlace::Store {
                store: "main".into(),
                path: "boot/vmlinuz".into(),
            },
            initramfs: Some(FilePlace::Image { name: "initramfs".into() }),
            command_line: "console=ttyS0".into(),
            display: false,
            cdrom: None,
            variables: None,
            boot_order: Vec::new(),
            boot_menu_ms: 0,
            watchdog: None,
            disks: vec![DiskConfig {
                place: DiskPlace::Store {
                    store: "main".into(),
                    disk: "debian.tvd".into(),
                },
                read_only: true,
                serial: String::new(),
                controller: DiskController::Ahci,
            }],
            nics: vec![NicConfig {
                port_group: "VM Network".into(),
                mac: [2, 0x54, 0, 0x12, 0x34, 0x56],
                model: NicModel::E1000e,
            }],
            passthrough: Vec::new(),
        })
    }

    fn vm_create(&mut self, config: VmConfig) -> Answer<()> {
        let groups: Vec<_> = config.nics.iter().map(|nic| (&*nic.port_group, nic.model)).collect();
        self.act(&format!("create {} {groups:?} {}", config.name, config.command_line))
    }

    fn vm_remove(&mut self, name: &str) -> Answer<()> {
        self.act(&format!("remove {name}"))
    }

    fn vm_start(&mut self, name: &str) -> Answer<()> {
        self.act(&format!("start {name}"))
    }

    fn vm_stop(&mut self, name: &str) -> Answer<()> {
        self.act(&format!("stop {name}"))
    }

    fn vm_info(&mut self, _name: &str) -> Answer<VmInfo> {
        self.answer(VmInfo {
            panics: 0,
            watchdog_timeouts: 0,
            state: if self.asleep { RunState::Sleeping } else { RunState::Running },
            vcpus: vec![VcpuRunState::Running, VcpuRunState::WaitForStart],
            started_tsc: 0,
            resets: 1,
            report: "rip 0 ".repeat(40),
        })
    }

    fn vm_exits(&mut self, _name: &str, vcpu: u32) -> Answer<VcpuExits> {
        let exit = |reason, count| ExitCount {
            reason,
            count,
            ticks: count / 2,
        };
        self.answer(VcpuExits {
            exits: vec![exit(5, 10), exit(1, u64::MAX), exit(200, u64::from(vcpu))],
            in_kernel: u64::MAX,
            doorbells: 5,
            guest_ticks: u64::MAX,
            injected: 7,
        })
    }

    fn vm_memory(&mut self, _name: &str) -> Answer<VmMemory> {
        self.answer(VmMemory {
            ram: u64::MAX,
            pages: [u64::MAX; 3],
            target: 1 << 20,
            total: Some(200 << 20),
            major_faults: Some(u64::MAX),
            ..VmMemory::default()
        })
    }

    fn vm_set_balloon(&mut self, _name: &str, _bytes: u64) -> Answer<()> {
        self.answer(())
    }

    fn vm_registers(&mut self, _name: &str, _vcpu: u32) -> Answer<Registers> {
        self.answer(Registers {
            state: VcpuRunState::Halted,
            gpr: core::array::from_fn(|index| u64::MAX - index as u64),
            rip: u64::MAX,
            rflags: u64::MAX,
            cr0: u64::MAX,
            cr2: u64::MAX,
            cr3: u64::MAX,
            cr4: u64::MAX,
            cr8: u64::MAX,
            efer: u64::MAX,
            segments: [SegmentRegister {
                selector: 0xffff,
                attributes: u32::MAX,
                limit: u32::MAX,
                base: u64::MAX,
            }; 8],
            gdtr: (u64::MAX, u64::MAX),
            idtr: (u64::MAX, u64::MAX),
            exit: 5,
            code: vec![0xf4; 64],
        })
    }

    fn vm_medium(&mut self, _name: &str) -> Answer<Medium> {
        self.answer(Medium {
            bytes: Some(600 << 20),
            locked: true,
        })
    }

    fn vm_set_medium(&mut self, name: &str, medium: Option<FilePlace>, running: bool) -> Answer<()> {
        self.act(&format!("medium {name} {medium:?} {running}"))
    }

    fn vm_suspend(&mut self, name: &str, file: FilePlace) -> Answer<()> {
        self.act(&format!("suspend {name} {file:?}"))
    }

    fn vm_resume(&mut self, name: &str) -> Answer<()> {
        self.act(&format!("resume {name}"))
    }

    fn vm_reset(&mut self, name: &str) -> Answer<()> {
        self.act(&format!("reset {name}"))
    }

    fn vm_power_button(&mut self, name: &str) -> Answer<()> {
        self.act(&format!("power {name}"))
    }

    fn vm_nmi(&mut self, name: &str, vcpu: u32) -> Answer<()> {
        self.act(&format!("nmi {name} {vcpu}"))
    }

    fn vm_screen(&mut self, name: &str) -> Answer<ScreenInfo> {
        self.act(&format!("screen {name}"))?;
        Ok(ScreenInfo {
            mode: "text 80x25".into(),
            width: 720,
            height: 400,
            columns: 80,
            rows: 25,
            hash: 0x1234_5678_9abc_def0,
            viewers: 1,
        })
    }

    fn vm_screen_text(&mut self, name: &str, first: u32) -> Answer<String> {
        self.act(&format!("text {name} {first}"))?;
        Ok("line\n".repeat(16))
    }

    fn vm_type(&mut self, name: &str, text: &str) -> Answer<u32> {
        self.act(&format!("type {name} {text}"))?;
        Ok(text.len() as u32)
    }

    fn console_open(&mut self, name: &str) -> Answer<()> {
        if let Some(rest) = self.console_late.checked_sub(1) {
            self.console_late = rest;
            return Err(Error::TimedOut.into());
        }
        self.act(&format!("open {name}"))
    }

    fn console_read(&mut self, cursor: u64) -> Answer<ConsoleChunk> {
        if let Some(reads) = &mut self.console_reads {
            *reads = reads.checked_sub(1).ok_or(Error::Deleted)?;
        }
        self.printed.extend(self.console.pop_front().unwrap_or_default());
        let data = self.printed[(cursor as usize).min(self.printed.len())..].to_vec();
        self.answer(ConsoleChunk {
            next: self.printed.len() as u64,
            lost: 0,
            data,
        })
    }

    fn console_write(&mut self, data: &[u8]) -> Answer<usize> {
        let taken = self.takes.pop_front().unwrap_or(data.len()).min(data.len());
        self.typed.extend_from_slice(&data[..taken]);
        self.answer(taken)
    }

    fn console_close(&mut self) {
        self.done.push("close".into());
    }

    fn machine(&mut self) -> Answer<Machine> {
        self.answer(Machine {
            features: 0x7fd,
            tsc_hz: 1_000_000,
            cpus: 2,
            backend: self.backend,
            virt_found: VirtFeatures::NESTED_PAGING | VirtFeatures::TAGGED_TLB | VirtFeatures::NEXT_RIP | VirtFeatures::VIRTUAL_GIF,
            virt_used: VirtFeatures::NESTED_PAGING | VirtFeatures::TAGGED_TLB | VirtFeatures::NEXT_RIP,
        })
    }

    fn cpu(&mut self, cpu: u32) -> Answer<Option<CpuCounters>> {
        let tsc = self.now();
        self.answer((cpu < 2).then_some(CpuCounters {
            apic: cpu,
            idle: 1_000_000 * u64::from(cpu),
            interrupts: u64::MAX,
            switches: 5,
            tsc,
            shootdowns: 9,
        }))
    }

    fn irq(&mut self, index: u32) -> Answer<Option<IrqCounters>> {
        self.answer((index < 20).then_some(IrqCounters {
            used: index.is_multiple_of(4),
            count: u64::MAX,
            line: (index == 4).then_some(4),
            cpu: 1,
            masked: index == 4,
        }))
    }

    fn check_wx(&mut self, _server: u64) -> Answer<WriteExecute> {
        self.answer(self.wx)
    }

    fn reset(&mut self, how: Reset) -> Answer<()> {
        self.act(&format!("{how:?}"))
    }

    fn trace_mask(&mut self, mask: u64) -> Answer<()> {
        self.act(&format!("mask {mask:#x}"))
    }

    fn trace_ring(&self, cpu: u32) -> Option<TraceRing<'_>> {
        if cpu == 0 { TraceRing::new(&self.ring) } else { None }
    }

    fn kernel_log(&self) -> Option<LogText<'_>> {
        LogText::new(&self.kernel_log)
    }

    fn panic_record(&self) -> String {
        self.panic.clone()
    }
}
