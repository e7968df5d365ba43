//! Machines.

use crate::{
    console,
    host::{find, list, work},
    http::{Place, Refusal},
    show,
};
use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};

/// What can be done with machines.
#[derive(Subcommand)]
pub enum Vm {
    /// All machines.
    List,
    /// One machine.
    Show { name: String },
    /// Start.
    Start { name: String },
    /// Stop as if its power failed.
    Stop { name: String },
    /// Ask the guest to shut down.
    Shutdown { name: String },
    /// Reset.
    Reset { name: String },
    /// Stop and keep the memory.
    Suspend { name: String },
    /// Go on.
    Resume { name: String },
    /// Make a machine.
    Create {
        name: String,
        /// Virtual processors.
        #[arg(long, default_value_t = 1)]
        vcpus: u32,
        /// Memory in MiB.
        #[arg(long, default_value_t = 256)]
        memory: u64,
        /// `[datastore] path` of a kernel.
        #[arg(long)]
        kernel: Option<String>,
        /// Without a kernel it starts by UEFI, not by a BIOS.
        #[arg(long, conflicts_with = "kernel")]
        uefi: bool,
        /// `[datastore] path` of what is in the CD drive.
        #[arg(long)]
        cdrom: Option<String>,
        /// `[datastore] path` of an initial RAM disk.
        #[arg(long)]
        initramfs: Option<String>,
        /// The kernel's command line.
        #[arg(long)]
        command_line: Option<String>,
        /// `DATASTORE:GIB` for each disk.
        #[arg(long)]
        disk: Vec<String>,
        /// Port group for each network card.
        #[arg(long)]
        network: Vec<String>,
    },
    /// Remove a machine with its disks.
    Delete { name: String },
    /// Clone a machine.
    Clone { name: String, to: String },
    /// Set memory (MiB) or processors of a machine that is off.
    Set {
        name: String,
        #[arg(long)]
        memory: Option<u64>,
        #[arg(long)]
        vcpus: Option<u32>,
    },
    /// The serial console in this terminal; Ctrl-] leaves it.
    Console {
        /// Name or identifier.
        name: String,
    },
    /// Take a snapshot.
    Snapshot { name: String, snapshot: String },
    /// Snapshots.
    Snapshots { name: String },
    /// Make a machine what it was at a snapshot.
    Revert { name: String, snapshot: String },
}

/// Does it.
///
/// # Errors
/// The host refused, or was not reached.
pub fn run(place: &Place, command: Vm, json_wanted: bool) -> Result<()> {
    let id = |name: &str| find(place, "/vms", name);
    let begin = |name: &str, method: &str, rest: &str, body: Option<Value>| -> Result<()> {
        let task = work(place, method, &format!("/vms/{}{rest}", id(name)?), body.as_ref(), json_wanted)?;
        if json_wanted {
            println!("{task}");
        }
        Ok(())
    };
    match command {
        Vm::List => show::list(
            &list(place, "/vms")?,
            &[
                "id",
                "config.name",
                "powerState",
                "config.vcpus",
                "config.memory",
                "usage.cpuMhz",
                "addresses",
            ],
            json_wanted,
        ),
        Vm::Show { name } => show::one(&place.json("GET", &format!("/api/v1/vms/{}", id(&name)?), None)?, json_wanted),
        Vm::Console { name } => console::run(place, &id(&name)?, &name)?,
        Vm::Start { name } => begin(&name, "POST", "/start", None)?,
        Vm::Stop { name } => begin(&name, "POST", "/stop", None)?,
        Vm::Shutdown { name } => begin(&name, "POST", "/shutdown", None)?,
        Vm::Reset { name } => begin(&name, "POST", "/reset", None)?,
        Vm::Suspend { name } => begin(&name, "POST", "/suspend", None)?,
        Vm::Resume { name } => begin(&name, "POST", "/resume", None)?,
        Vm::Delete { name } => begin(&name, "DELETE", "", None)?,
        Vm::Clone { name, to } => begin(&name, "POST", "/clone", Some(json!({ "name": to })))?,
        Vm::Set { name, memory, vcpus } => begin(
            &name,
            "PATCH",
            "",
            Some(json!({ "memory": memory.map(|mib| mib << 20), "vcpus": vcpus })),
        )?,
        Vm::Snapshot { name, snapshot } => begin(&name, "POST", "/snapshots", Some(json!({ "name": snapshot })))?,
        Vm::Snapshots { name } => show::list(
            &flat(&list(place, &format!("/vms/{}/snapshots", id(&name)?))?),
            &["id", "name", "created", "current"],
            json_wanted,
        ),
        Vm::Revert { name, snapshot } => {
            let all = flat(&list(place, &format!("/vms/{}/snapshots", id(&name)?))?);
            let found = all
                .iter()
                .find(|one| one["id"] == *snapshot || one["name"] == *snapshot)
                .and_then(|one| one["id"].as_str());
            let found = found.ok_or_else(|| Refusal {
                status: 404,
                message: format!("{name} has no snapshot {snapshot}"),
            })?;
            begin(&name, "POST", &format!("/snapshots/{found}/revert"), None)?;
        }
        Vm::Create {
            name,
            vcpus,
            memory,
            kernel,
            uefi,
            cdrom,
            initramfs,
            command_line,
            disk,
            network,
        } => {
            let mut disks = Vec::new();
            for one in disk {
                let (store, gib) = one.rsplit_once(':').context("a disk is DATASTORE:GIB")?;
                disks.push(json!({ "datastore": find(place, "/datastores", store)?, "size": gib.parse::<u64>().context("a disk is DATASTORE:GIB")? << 30 }));
            }
            let mut nics = Vec::new();
            for one in network {
                nics.push(json!({ "network": find(place, "/networks/port-groups", &one)? }));
            }
            let firmware = match (&kernel, uefi) {
                (Some(_), _) => "direct",
                (None, true) => "uefi",
                (None, false) => "bios",
            };
            let boot = json!({ "firmware": firmware, "kernel": kernel, "initramfs": initramfs, "commandLine": command_line });
            let body =
                json!({ "name": name, "vcpus": vcpus, "memory": memory << 20, "disks": disks, "nics": nics, "cdrom": cdrom, "boot": boot });
            let task = work(place, "POST", "/vms", Some(&body), json_wanted)?;
            println!(
                "{}",
                if json_wanted {
                    task.to_string()
                } else {
                    task["result"].as_str().unwrap_or("").to_string()
                }
            );
        }
    }
    Ok(())
}

/// A tree of snapshots as a list.
fn flat(tree: &[Value]) -> Vec<Value> {
    tree.iter()
        .flat_map(|one| std::iter::once(one.clone()).chain(flat(one["children"].as_array().map_or(&[], Vec::as_slice))))
        .collect()
}
