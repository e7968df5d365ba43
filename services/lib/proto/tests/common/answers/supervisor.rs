//! Answers of `supervisor`.

use super::super::*;

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
