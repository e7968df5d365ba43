//! Answers of `datastore`.

use super::super::*;

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
