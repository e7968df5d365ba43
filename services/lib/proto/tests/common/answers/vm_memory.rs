//! Answers of `vm_memory`.

use super::super::*;

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
