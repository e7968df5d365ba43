//! Answers of `storage`.

use super::super::*;

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
