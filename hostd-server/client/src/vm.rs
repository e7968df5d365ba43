//! Machines.

use crate::{
    console,
    host::{find, list, work},
    http::{Place, Refusal},
    show,
};
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

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
        /// `DATASTORE:GIB` for each disk, with `,ahci` behind it for one on a SATA host adapter in the place of virtio.
        #[arg(long)]
        disk: Vec<String>,
        /// Port group for each network card, with `,e1000e` behind it for Intel's 82574L in the place of virtio.
        #[arg(long)]
        network: Vec<String>,
        /// Address of a PCI function of the host that the machine has for itself, such as 0000:03:00.0; `tessera pci` lists them.
        #[arg(long)]
        passthrough: Vec<String>,
    },
    /// Remove a machine with its disks.
    Delete { name: String },
    /// Clone a machine.
    Clone { name: String, to: String },
    /// Set memory (MiB), processors or PCI functions of the host of a machine that is off.
    Set {
        name: String,
        #[arg(long)]
        memory: Option<u64>,
        #[arg(long)]
        vcpus: Option<u32>,
        /// All PCI functions of the host that it has for itself from now on.
        #[arg(long)]
        passthrough: Vec<String>,
        /// It has no PCI function of the host any more.
        #[arg(long, conflicts_with = "passthrough")]
        no_passthrough: bool,
    },
    /// Make what the guest's cloud-init is to do at its first start, and put it into the CD drive of a machine that is off.
    Seed(Seed),
    /// The serial console in this terminal; Ctrl-] leaves it.
    Console {
        /// Name or identifier.
        name: String,
    },
    /// Take a snapshot.
    Snapshot {
        name: String,
        snapshot: String,
        /// The guest's agent brings its file systems to rest meanwhile.
        #[arg(long)]
        quiesce: bool,
    },
    /// Snapshots.
    Snapshots { name: String },
    /// Make a machine what it was at a snapshot.
    Revert { name: String, snapshot: String },
}

/// What a guest's cloud-init is told.
#[derive(Args)]
pub struct Seed {
    /// Name of the machine.
    name: String,
    /// The guest's host name; left out: the machine's name.
    #[arg(long)]
    host_name: Option<String>,
    /// An account that may do everything through sudo.
    #[arg(long, required_unless_present = "user_data")]
    user: Option<String>,
    /// File with public keys for SSH, such as ~/.ssh/id_ed25519.pub.
    #[arg(long, requires = "user")]
    ssh_key: Vec<PathBuf>,
    /// File with the account's password.
    #[arg(long, requires = "user")]
    password_file: Option<PathBuf>,
    /// ADDRESS/BITS of the first network card; left out: DHCP.
    #[arg(long)]
    address: Option<String>,
    /// Gateway.
    #[arg(long, requires = "address")]
    gateway: Option<String>,
    /// DNS server.
    #[arg(long, requires = "address")]
    name_server: Vec<String>,
    /// File with user-data of your own, instead of an account.
    #[arg(long, conflicts_with_all = ["user", "ssh_key", "password_file"])]
    user_data: Option<PathBuf>,
}

/// A disk of a machine that is to be made.
#[derive(Debug, PartialEq)]
struct DiskWanted<'a> {
    store: &'a str,
    gib: u64,
    controller: &'static str,
}

/// Reads `DATASTORE:GIB` or `DATASTORE:GIB,ahci`.
fn disk_wanted(text: &str) -> Result<DiskWanted<'_>> {
    let how = || format!("a disk is DATASTORE:GIB or DATASTORE:GIB,ahci, not {text}");
    let (place, controller) = match text.strip_suffix(",ahci") {
        Some(place) => (place, "ahci"),
        None => (text, "virtio"),
    };
    let (store, gib) = place.rsplit_once(':').with_context(how)?;
    let gib = gib.parse().ok().filter(|gib| *gib <= u64::MAX >> 30).with_context(how)?;
    Ok(DiskWanted { store, gib, controller })
}

/// Reads `PORT-GROUP` or `PORT-GROUP,e1000e`: the group and the card's model.
fn card_wanted(text: &str) -> (&str, &'static str) {
    match text.strip_suffix(",e1000e") {
        Some(group) => (group, "e1000e"),
        None => (text, "virtio"),
    }
}

/// What a change says of a machine's functions: all of them, that there is none, or nothing.
fn functions_wanted(all: Vec<String>, none: bool) -> Option<Vec<String>> {
    (none || !all.is_empty()).then_some(all)
}

/// What the host takes.
fn seed(form: &Seed) -> Result<Value> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
    let mut seed = json!({ "hostName": form.host_name.as_ref().unwrap_or(&form.name) });
    if let Some(path) = &form.user_data {
        seed["userData"] = json!(read(path)?);
    }
    if let Some(user) = &form.user {
        let mut keys = Vec::new();
        for path in &form.ssh_key {
            let lines = read(path)?;
            let found = lines
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            keys.extend(found.map(String::from));
        }
        seed["user"] = json!(user);
        seed["sshKeys"] = json!(keys);
    }
    if let Some(path) = &form.password_file {
        seed["password"] = json!(read(path)?.trim_end_matches(['\r', '\n']));
    }
    if let Some(address) = &form.address {
        let (address, bits) = address
            .split_once('/')
            .context("--address takes ADDRESS/BITS, such as 192.0.2.10/24")?;
        let bits: u8 = bits.parse().context("--address takes ADDRESS/BITS, such as 192.0.2.10/24")?;
        seed["network"] = json!({ "address": address, "prefixLength": bits, "nameServers": form.name_server });
        if let Some(gateway) = &form.gateway {
            seed["network"]["gateway"] = json!(gateway);
        }
    }
    Ok(seed)
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
                "guestState",
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
        Vm::Set {
            name,
            memory,
            vcpus,
            passthrough,
            no_passthrough,
        } => {
            let functions = functions_wanted(passthrough, no_passthrough);
            let body = json!({ "memory": memory.map(|mib| mib << 20), "vcpus": vcpus, "passthrough": functions });
            begin(&name, "PATCH", "", Some(body))?;
        }
        Vm::Seed(form) => begin(&form.name, "POST", "/seed", Some(seed(&form)?))?,
        Vm::Snapshot { name, snapshot, quiesce } => {
            let body = json!({ "name": snapshot, "quiesce": quiesce });
            begin(&name, "POST", "/snapshots", Some(body))?;
        }
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
            passthrough,
        } => {
            let mut disks = Vec::new();
            for one in disk {
                let wanted = disk_wanted(&one)?;
                let store = find(place, "/datastores", wanted.store)?;
                disks.push(json!({ "datastore": store, "size": wanted.gib << 30, "controller": wanted.controller }));
            }
            let mut nics = Vec::new();
            for one in network {
                let (group, model) = card_wanted(&one);
                nics.push(json!({ "network": find(place, "/networks/port-groups", group)?, "model": model }));
            }
            let firmware = match (&kernel, uefi) {
                (Some(_), _) => "direct",
                (None, true) => "uefi",
                (None, false) => "bios",
            };
            let boot = json!({ "firmware": firmware, "kernel": kernel, "initramfs": initramfs, "commandLine": command_line });
            let body = json!({
                "name": name, "vcpus": vcpus, "memory": memory << 20, "disks": disks, "nics": nics, "passthrough": passthrough, "cdrom": cdrom, "boot": boot,
            });
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        seed: Seed,
    }

    fn parse(words: &str) -> Result<Value> {
        seed(&Line::try_parse_from(words.split(' '))?.seed)
    }

    #[test]
    fn disks_and_cards_are_virtio_unless_said_otherwise() {
        let disk = |store, gib, controller| DiskWanted { store, gib, controller };
        assert_eq!(disk_wanted("main:8").unwrap(), disk("main", 8, "virtio"));
        assert_eq!(disk_wanted("a:b:8,ahci").unwrap(), disk("a:b", 8, "ahci"));
        for wrong in ["main", "main:", "main:x", "main:8,ide", "main:17179869184"] {
            assert!(disk_wanted(wrong).is_err(), "{wrong}");
        }
        assert_eq!(card_wanted("VM Network"), ("VM Network", "virtio"));
        assert_eq!(card_wanted("VM Network,e1000e"), ("VM Network", "e1000e"));
    }

    #[test]
    fn functions_change_only_if_something_is_said_of_them() {
        let all = vec!["0000:03:00.0".to_owned()];
        assert_eq!(functions_wanted(all.clone(), false), Some(all));
        assert_eq!(functions_wanted(Vec::new(), true), Some(Vec::new()));
        assert_eq!(functions_wanted(Vec::new(), false), None);
    }

    #[test]
    fn a_seed_is_what_its_options_say() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let keys = file("keys", "# mine\nssh-ed25519 AAAA me\n\nssh-rsa BBBB\n");
        let password = file("password", "correct horse\n");
        let own = file("own", "#!/bin/sh\n");
        assert_eq!(
            parse(&format!(
                "seed web --user admin --ssh-key {keys} --password-file {password} --address 10.0.0.5/24 --gateway 10.0.0.1 --name-server 10.0.0.2"
            ))
            .unwrap(),
            json!({ "hostName": "web", "user": "admin", "sshKeys": ["ssh-ed25519 AAAA me", "ssh-rsa BBBB"], "password": "correct horse",
                "network": { "address": "10.0.0.5", "prefixLength": 24, "gateway": "10.0.0.1", "nameServers": ["10.0.0.2"] } })
        );
        assert_eq!(
            parse(&format!("seed web --host-name other --user-data {own}")).unwrap(),
            json!({ "hostName": "other", "userData": "#!/bin/sh\n" })
        );
        for wrong in [
            "seed web".into(),
            format!("seed web --user a --user-data {own}"),
            format!("seed web --ssh-key {keys} --user-data {own}"),
            "seed web --user a --gateway 10.0.0.1".into(),
            "seed web --user a --address 10.0.0.5".into(),
            "seed web --user a --ssh-key /there/is/none".into(),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }
}
