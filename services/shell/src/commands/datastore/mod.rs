//! `datastore`: datastores and what is in them.

mod list;
mod show;
pub mod size;

use super::{Command, Context, Doing, Failure, number, shorten, words};
use crate::{
    host::{Change, Host},
    suggest,
};
use alloc::{format, string::String, vec::Vec};
use tessera_proto::datastore::{EntryInfo, EntryKind, NewDisk};

/// The command.
pub struct Datastore;

/// Its forms: the command, what can be done, and the arguments of that.
const FORMS: [&str; 14] = [
    "datastore list",
    "datastore ls STORE [FOLDER]",
    "datastore show STORE PATH",
    "datastore mkdir STORE FOLDER",
    "datastore disk STORE PATH SIZE [thick] [checksums]",
    "datastore grow STORE DISK SIZE",
    "datastore move STORE FROM TO",
    "datastore remove STORE PATH",
    "datastore snapshot STORE DISK NAME",
    "datastore unsnapshot STORE DISK NAME",
    "datastore revert STORE DISK NAME",
    "datastore clone STORE DISK NAME PATH",
    "datastore changed STORE DISK [SINCE]",
    "datastore format DISK PARTITION LABEL",
];

fn verbs() -> impl Iterator<Item = &'static str> {
    FORMS.iter().filter_map(|form| form.split(' ').nth(1))
}

impl Command for Datastore {
    fn name(&self) -> &'static str {
        "datastore"
    }

    fn summary(&self) -> &'static str {
        "list datastores, make virtual disks, take snapshots"
    }

    fn usage(&self) -> &'static [&'static str] {
        &FORMS
    }

    fn help(&self) -> &'static str {
        "list: datastores with their space. ls: what is in a folder. show: everything about one thing; for a disk, its tree of snapshots.\ndisk: makes a virtual disk that reads as zeros. SIZE is a number of bytes, or one with K, M, G or T behind it. A thin disk takes space as it is written, a thick one has it set aside from the start. With checksums, data that went bad is found when it is read.\ngrow works while a guest uses the disk. snapshot keeps what the disk is now; unsnapshot forgets it and gives back what only it needed; revert makes the disk what it was; clone makes a new disk of it.\nchanged: without SINCE, a number for later; with it, what of the disk was written since then.\nformat makes a datastore on a partition, or on a whole disk (PARTITION 0), and DESTROYS what is there."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => verbs().map(String::from).collect(),
            ["format"] => host
                .disks()
                .map_or_else(|_| Vec::new(), |disks| disks.into_iter().map(|disk| disk.name).collect()),
            ["list" | "format", ..] => Vec::new(),
            [_] => host
                .datastores()
                .map_or_else(|_| Vec::new(), |stores| stores.into_iter().map(|store| store.name).collect()),
            [_, store] => host
                .datastore_browse(store, "")
                .map_or_else(|_| Vec::new(), |entries| entries.into_iter().map(|entry| entry.name).collect()),
            ["unsnapshot" | "revert" | "clone", store, disk] => host
                .datastore_snapshots(store, disk)
                .map_or_else(|_| Vec::new(), |all| all.into_iter().map(|snapshot| snapshot.name).collect()),
            ["disk", _, _, _, ..] => words(&["thick", "checksums"]),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] | ["list"] => list::stores(context),
            ["ls", store] => list::folder(context, store, ""),
            ["ls", store, folder] => list::folder(context, store, folder),
            ["show", store, path] => show::show(context, store, path),
            ["changed", store, disk] => show::change_id(context, store, disk),
            ["changed", store, disk, since] => {
                let since = since
                    .parse()
                    .map_err(|_| Failure::usage(self, format!("SINCE must be a number, not `{}`", shorten(since))))?;
                show::changed(context, store, disk, since)
            }
            ["mkdir", store, path] => act(context, &Change::Folder { store, path }, &format!("Made folder {path}")),
            ["disk", store, path, size, rest @ ..] => {
                let mut options = NewDisk {
                    size: self.size(size)?,
                    ..NewDisk::default()
                };
                for word in rest {
                    match *word {
                        "thick" => options.thick = true,
                        "checksums" => options.checksums = true,
                        other => return Err(Failure::usage(self, format!("a disk cannot be `{}`", shorten(other)))),
                    }
                }
                act(context, &Change::Disk { store, path, options }, &format!("Made disk {path}"))
            }
            ["grow", store, path, size] => {
                let size = self.size(size)?;
                act(context, &Change::Grow { store, path, size }, &format!("{path} is larger now"))
            }
            ["move", store, from, to] => act(context, &Change::Move { store, from, to }, &format!("{from} is {to} now")),
            ["remove", store, path] => act(context, &Change::Remove { store, path }, &format!("Removed {path}")),
            ["snapshot", store, disk, name] => act(context, &Change::Snapshot { store, disk, name }, &format!("Took snapshot {name}")),
            ["unsnapshot", store, disk, name] => act(context, &Change::Forget { store, disk, name }, &format!("Removed snapshot {name}")),
            ["revert", store, disk, name] => act(
                context,
                &Change::Revert { store, disk, name },
                &format!("{disk} is what it was at {name}"),
            ),
            ["clone", store, disk, name, path] => act(context, &Change::Clone { store, disk, name, path }, &format!("Made disk {path}")),
            ["format", disk, partition, label] => {
                let partition = number(self, "the partition", partition)?;
                act(
                    context,
                    &Change::Format { disk, partition, label },
                    &format!("Made datastore {label}"),
                )
            }
            [verb, ..] => Err(match FORMS.iter().find(|form| form.split(' ').nth(1) == Some(verb)) {
                Some(form) => Failure::usage(self, format!("the form is `{form}`")),
                None => {
                    let what = format!("`datastore` knows no `{}`", shorten(verb));
                    match suggest::nearest(verb, verbs()) {
                        Some(known) => Failure::new(what, format!("Did you mean `datastore {known}`?")),
                        None => Failure::usage(self, what),
                    }
                }
            }),
        }
    }
}

impl Datastore {
    fn size(&self, word: &str) -> Result<u64, Failure> {
        size::parse(word).ok_or_else(|| Failure::usage(self, format!("SIZE must be a number such as 512M or 10G, not `{}`", shorten(word))))
    }
}

fn act(context: &mut Context<'_>, change: &Change<'_>, done: &str) -> Result<(), Failure> {
    context.host.datastore_change(change).doing(change.doing())?;
    context.out.line(&format!("{done}."));
    Ok(())
}

/// What something is, in a word.
fn kind(entry: &EntryInfo) -> &'static str {
    match entry.kind {
        EntryKind::Folder => "folder",
        EntryKind::File => "file",
        EntryKind::Disk if entry.thick => "thick disk",
        EntryKind::Disk => "disk",
        EntryKind::Snapshot => "snapshot",
    }
}
