//! PCI functions of the host that machines of the management's own have for themselves.

use super::{
    Case,
    guest_disk::empty_disk,
    management::{Client, PASSWORD, boot_served, power},
    management_state::items,
};
use crate::{
    Context, Outcome, Result,
    disks::Scratch,
    ensure,
    linux::succeeds,
    machine::{Bus, Disk, Iommu, Model, Nic},
    shell::Host,
    systems::System,
};
use serde_json::{Value, json};
use std::{fs, path::Path, thread, time::Duration, time::Instant};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/passthrough",
    about: "by the API a machine gets an NVMe controller and a spare network card that the host drives until the machine starts; its guest uses the disk, before and after a restart of the host; what the host needs is refused",
    minutes: 4,
    bochs: None,
    run: passthrough,
}];

/// Where the guest's first function is.
const PLACE: &str = "0000:00:19.0";

fn boot(context: &Context, iommu: Option<Iommu>, initramfs: &Path, store: &Path, passed: &Path) -> Result<(Host, Client)> {
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .file("debian-disk-initramfs", initramfs);
    let (host, port) = boot_served(context, system, |config| {
        config.iommu = iommu;
        // QEMU's virtio cards could be nobody's: they cannot be reset by themselves.
        config.nics.push(Nic::new(Model::E1000e));
        config.nics.iter_mut().for_each(|card| card.model = Model::E1000e);
        config.disks.push(Disk::usual(context.emulator, store, "STORE"));
        config.disks.push(Disk::new(Bus::Nvme, passed, "PASSED"));
    })?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    Ok((host, client))
}

/// The host's first function that is as wanted.
fn device(client: &Client, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let all = items(client, "host/pci-devices")?;
    let found = all.iter().find(|one| wanted(one)).cloned();
    found.ok_or_else(|| crate::Failure::new(format!("what is wanted is not among {all:?}")))
}

fn has(one: &Value, key: &str, part: &str) -> bool {
    one[key].as_str().is_some_and(|text| text.contains(part))
}

fn path_of(client: &Client, name: &str) -> Result<String> {
    let vms = items(client, "vms")?;
    let vm = vms.iter().find(|vm| vm["config"]["name"] == name);
    let id = vm.and_then(|vm| vm["id"].as_str()).unwrap_or_default();
    Ok(format!("/api/v1/vms/{id}"))
}

fn machine(name: &str, functions: &[&Value]) -> Value {
    let boot = json!({
        "firmware": "direct", "kernel": "[image] debian-kernel", "initramfs": "[image] debian-disk-initramfs", "commandLine": "console=ttyS0 quiet",
    });
    json!({ "name": name, "vcpus": 1, "memory": 256u64 << 20, "boot": boot, "passthrough": functions, "autostart": true })
}

/// What is refused at once, and why.
fn refused(client: &Client, path: &str, body: &Value, why: &str) -> Result<()> {
    let (status, answer) = client.ask(path, &["--data", &body.to_string()])?;
    ensure!(
        status == 409 && answer.contains(why),
        "{path} is {status}, not refused for `{why}`: {answer}"
    );
    Ok(())
}

/// The guest, whose console is shown, has the controller and does with it what `line` says.
fn in_guest(host: &mut Host, line: &str) -> Result<()> {
    host.console("web", "Type commands")?;
    let serial = succeeds(host.serial(), "cat /sys/block/nvme0n1/device/serial")?;
    ensure!(serial.contains("PASSED"), "it is another disk: {serial}");
    let place = succeeds(host.serial(), "readlink -f /sys/block/nvme0n1/device")?;
    ensure!(place.contains(PLACE), "the disk is elsewhere on the bus: {place}");
    succeeds(host.serial(), line)?;
    host.leave_console()?;
    Ok(())
}

fn passthrough(context: &Context) -> Result<Outcome> {
    let initramfs = match context.guest_file("initramfs-disk.cpio") {
        Ok(initramfs) => initramfs,
        Err(missing) => return Outcome::skip(missing),
    };
    let store = Scratch::empty(&context.environment.logs, context.name, 512 << 20)?;
    context
        .environment
        .images
        .datastore(&["create", &store.path().display().to_string(), "--label", "main"])?;
    let (passed, iommu) = (empty_disk(context, 16)?, Some(Iommu::VtdWide));
    let (mut host, client) = boot(context, iommu, &initramfs, store.path(), &passed)?;
    // What the host drives for nothing can be a machine's, what it needs cannot.
    let nvme = device(&client, |one| has(one, "name", "NVMe controller") && one["problem"].is_null())?;
    let (function, now) = (&nvme["address"], || device(&client, |one| one["address"] == nvme["address"]));
    ensure!(nvme["server"] == "storage" && nvme["confined"] == true, "the controller is {nvme}");
    let disks = host.command("disk list")?;
    ensure!(disks.contains("PASSED"), "the host does not drive the disk:\n{disks}");
    let card = device(&client, |one| has(one, "problem", "it is the uplink"))?;
    let disk = device(&client, |one| has(one, "problem", "the datastore main"))?;
    for (function, why) in [
        (&card["address"], "uplink"),
        (&disk["address"], "the datastore main"),
        (&json!("0000:7f:1f.7"), "has no PCI function"),
    ] {
        refused(&client, "/api/v1/vms", &machine("web", &[function]), why)?;
    }
    // A switch has all cards as its uplinks, unless it is told otherwise.
    let switches = items(&client, "networks/switches")?;
    let switch = switches.first().and_then(|switch| switch["id"].as_str()).unwrap_or_default();
    let uplinks = json!({ "uplinks": ["nic0"] }).to_string();
    client.get(
        &format!("/api/v1/networks/switches/{switch}"),
        &["--request", "PATCH", "--data", &uplinks],
    )?;
    let spare = device(&client, |one| has(one, "name", "Ethernet") && one["problem"].is_null())?;
    for (name, functions) in [("web", &[function, &spare["address"]][..]), ("other", &[function])] {
        client.done(&client.post("/api/v1/vms", &machine(name, functions))?)?;
    }
    let (web, other) = (path_of(&client, "web")?, path_of(&client, "other")?);
    let edit = json!({ "autostart": false }).to_string();
    client.done(&client.get(&other, &["--request", "PATCH", "--data", &edit])?)?;
    // The host gives it up, and keeps what it needs.
    power(&client, &web, "start")?;
    in_guest(
        &mut host,
        "dd if=/dev/urandom of=/written bs=64k count=64 && dd if=/written of=/dev/nvme0n1 bs=64k conv=fsync && md5sum < /written > /sum && echo 3 > /proc/sys/vm/drop_caches && \
                         dd if=/dev/nvme0n1 bs=64k count=64 | md5sum | cmp - /sum && printf kept | dd of=/dev/nvme0n1 bs=1 seek=8388608 conv=notrunc,fsync",
    )?;
    let given = now()?;
    ensure!(given["vm"] == "web" && given["server"].is_null(), "the controller is {given}");
    let disks = host.command("disk list")?;
    ensure!(
        !disks.contains("PASSED") && disks.contains("STORE"),
        "the host drives the disk too, or nothing:\n{disks}"
    );
    let cards = host.command("nic list")?;
    ensure!(cards.contains("nic0") && !cards.contains("nic1"), "the host's cards are:\n{cards}");
    let pci = host.command("pci")?;
    let line = pci
        .lines()
        .find(|line| line.starts_with(function.as_str().unwrap_or("?")))
        .unwrap_or_default();
    ensure!(line.contains("vmm.web"), "`pci` does not say that the machine has it: {line}");
    let stores = items(&client, "datastores")?;
    let store_is = stores.first().map_or(Value::Null, |store| store["name"].clone());
    ensure!(store_is == "main", "the datastore went with the controller: {stores:?}");
    // It is one machine's, and what it knows cannot be kept.
    let failed = power(&client, &other, "start")
        .err()
        .map(|failure| failure.to_string())
        .unwrap_or_default();
    ensure!(
        failed.contains("virtual machine web has it"),
        "another machine starts with it: {failed}"
    );
    refused(&client, "/api/v1/vms", &machine("third", &[function]), "is web's, which runs")?;
    for (operation, body) in [("suspend", json!({})), ("snapshots", json!({ "name": "now", "withMemory": true }))] {
        refused(&client, &format!("{web}/{operation}"), &body, "whose state stays in it")?;
    }
    // After the power was cut the machine starts with the host, and has the controller again.
    drop(host);
    let (mut host, client) = boot(context, iommu, &initramfs, store.path(), &passed)?;
    in_guest(
        &mut host,
        "test $(dd if=/dev/nvme0n1 bs=4 skip=2097152 count=1 2> /dev/null) = kept",
    )?;
    let faults = host.command("iommu faults")?;
    ensure!(faults.contains("No device was refused anything"), "{faults}");
    power(&client, &web, "stop")?;
    let now = || device(&client, |one| one["address"] == *function);
    let kept = now()?;
    ensure!(
        kept["vm"].is_null() && kept["server"].is_null() && kept["configured"] == json!(["other", "web"]),
        "the controller is {kept}"
    );
    // Nobody is to have it any more: the host has it again when its server starts next.
    client.get(&other, &["--request", "DELETE"]).and_then(|task| client.done(&task))?;
    let edit = json!({ "passthrough": [] }).to_string();
    client.done(&client.get(&web, &["--request", "PATCH", "--data", &edit])?)?;
    client.get("/api/v1/servers/storage/restart", &["--request", "POST"])?;
    let end = Instant::now() + Duration::from_secs(60);
    while now()?["server"] != "storage" {
        ensure!(Instant::now() < end, "the host does not get its controller back");
        thread::sleep(Duration::from_millis(300));
    }
    host.poll_command("disk list", |text| text.contains("PASSED"))?;
    let edit = json!({ "passthrough": [function] }).to_string();
    client.done(&client.get(&web, &["--request", "PATCH", "--data", &edit])?)?;
    drop(host);
    without_iommu(context, &initramfs, store.path(), &passed, function)?;
    fs::remove_file(passed)?;
    Ok(Outcome::Passed)
}

/// The host's IOMMU is gone: the machine is there and says why it does not start, and does without the function.
fn without_iommu(context: &Context, initramfs: &Path, store: &Path, passed: &Path, function: &Value) -> Result<()> {
    const WHY: &str = "there is no IOMMU";
    let (mut host, client) = boot(context, None, initramfs, store, passed)?;
    let found = device(&client, |one| one["address"] == *function)?;
    ensure!(
        has(&found, "problem", WHY) && found["confined"] == false && found["server"] == "storage",
        "the controller is {found}"
    );
    refused(&client, "/api/v1/vms", &machine("third", &[function]), WHY)?;
    let web = path_of(&client, "web")?;
    let failed = power(&client, &web, "start")
        .err()
        .map(|failure| failure.to_string())
        .unwrap_or_default();
    ensure!(failed.contains(WHY), "without an IOMMU its start says: {failed}");
    let disks = host.command("disk list")?;
    ensure!(disks.contains("PASSED"), "the host gave up its disk for nothing:\n{disks}");
    let edit = json!({ "passthrough": [] }).to_string();
    client.done(&client.get(&web, &["--request", "PATCH", "--data", &edit])?)?;
    power(&client, &web, "start")?;
    host.console("web", "Type commands")?;
    host.leave_console()?;
    Ok(())
}
