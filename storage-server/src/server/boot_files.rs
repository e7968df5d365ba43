//! Files in datastores that virtual machines are started with.

use super::answers::{Answers, Later};
use super::datastores::{Mounted, seconds, trouble};
use super::guests::Machine;
use alloc::{format, vec, vec::Vec};
use tessera_datastore::{Info, Kind};
use tessera_proto::datastore::FileData;
use tessera_proto::guest_disk::{BootFile, MAX_READ, MAX_VARIABLES};
use tessera_proto::vm_manager::FilePlace;
use tessera_proto::{Call, Failure, FailureKind};

/// Bytes that are read at once.
const CHUNK: u64 = 256 << 10;

impl Answers {
    /// A file of a machine, as its configuration has it.
    fn boot_file(&self, machine: &Machine, file: BootFile) -> Result<(Mounted, Info), Failure> {
        let place = machine.file(file);
        let Some(FilePlace::Store { store, path }) = place else {
            let text = format_args!("{} has no such file in a datastore", machine.config().name);
            return Err(Failure::new(FailureKind::NotFound, text));
        };
        let (mounted, info) = self
            .virtual_disk(&store, &path)
            .map_err(|failure| Failure::new(failure.kind, format!("{path} in datastore {store}: {failure}")))?;
        if info.kind != Kind::File {
            let text = format_args!("{path} in datastore {store} is no file");
            return Err(Failure::new(FailureKind::BadRequest, text));
        }
        Ok((mounted, info))
    }

    /// The file of the variables is made when it is first looked for.
    fn make_variables(&self, machine: &Machine) -> Result<(), Failure> {
        if let Some(FilePlace::Store { store, path }) = machine.file(BootFile::Variables)
            && let Err(failure) = self.virtual_disk(&store, &path)
            && failure.kind == FailureKind::NotFound
        {
            self.mounted(&store)?.create_file(&path, seconds()).map_err(trouble)?;
        }
        Ok(())
    }

    /// Writes a part of the variables; the last one answers when all are safe.
    pub(super) fn keep_machine_variables(&self, call: &mut Call, offset: u64, data: Vec<u8>, last: bool) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (store, info) = self.boot_file(&machine, BootFile::Variables)?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_VARIABLES);
        let end = end.ok_or_else(|| Failure::new(FailureKind::BadRequest, "variables have at most 1 MiB"))?;
        self.later(call, async move {
            if end > info.size {
                store.set_file_size(info.id, end).await.map_err(trouble)?;
            }
            store.write(info.id, offset, &data).await.map_err(trouble)?;
            if last {
                store.flush().await.map_err(trouble)?;
            }
            machine.wrote_variables(store, last);
            Ok(())
        })
    }

    /// Its length.
    pub(super) fn boot_file_length(&self, call: &Call, file: BootFile) -> Result<u64, Failure> {
        let machine = self.guests().machine(call)?;
        self.guests().with_files_of_now(call, &machine, || {
            if file == BootFile::Variables {
                self.make_variables(&machine)?;
            }
            Ok(self.boot_file(&machine, file)?.1.size)
        })
    }

    /// A part of it.
    pub(super) fn read_boot_file(&self, call: &mut Call, file: BootFile, offset: u64, length: u32) -> Later<FileData> {
        let machine = self.guests().machine(call)?;
        let (store, info) = self.boot_file(&machine, file)?;
        let length = u64::from(length).min(MAX_READ as u64).min(info.size.saturating_sub(offset));
        self.later(call, async move {
            let mut data = vec![0; length as usize];
            store.read(info.id, offset, &mut data).await.map_err(trouble)?;
            Ok(FileData { data })
        })
    }

    /// Reads a part of it into the machine's RAM.
    pub(super) fn load_boot_file(&self, call: &mut Call, file: BootFile, offset: u64, length: u64, address: u64) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (store, info) = self.boot_file(&machine, file)?;
        if offset.checked_add(length).is_none_or(|end| end > info.size) {
            return Err(Failure::new(FailureKind::BadRequest, "the part lies outside of the file"));
        }
        if address.checked_add(length).is_none() {
            return Err(FailureKind::BadRequest.into());
        }
        self.later(call, async move {
            let ram = machine.ram();
            let mut chunk = vec![0; CHUNK.min(length) as usize];
            let mut done = 0;
            while done < length {
                let part = &mut chunk[..CHUNK.min(length - done) as usize];
                store.read(info.id, offset + done, part).await.map_err(trouble)?;
                ram.copy_in(address + done, part)
                    .ok_or_else(|| Failure::new(FailureKind::BadRequest, "the part does not fit into the machine's memory"))?;
                done += part.len() as u64;
            }
            Ok(())
        })
    }
}
