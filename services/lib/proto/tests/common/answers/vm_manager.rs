//! Answers of `vm_manager`.

use super::super::*;

pub fn vm_config() -> VmConfig {
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
