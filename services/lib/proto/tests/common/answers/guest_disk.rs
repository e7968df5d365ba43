//! Answers of `guest_disk`.

use super::super::*;

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
