//! What the agent in a guest does for management: qemu-guest-agent, as Debian has it.

use super::{
    Case,
    datastore::store_with_debian,
    management::{Client, PASSWORD, boot_served, power},
    management_state::items,
};
use crate::{
    Context, Outcome, Result, ensure,
    linux::{FULL, log_in, succeeds},
    machine::Disk,
    shell::Host,
    systems::System,
};
use serde_json::json;
use std::{thread, time::Duration};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/guest-agent",
    about: "Debian's agent tells a guest's addresses, also after it was suspended, brings its file systems to rest for a snapshot, and shuts it down",
    minutes: 5,
    bochs: None,
    run: agent,
}];

/// How often is looked whether something is as wanted.
const LOOK: Duration = Duration::from_millis(500);

/// Whether the kernel had to recover the root file system when it was mounted: it was in the middle of something.
const RECOVERED: &str = "dmesg | grep -q 'EXT4-fs (vda): recovery complete' && echo it was re\"\"covered || echo it was at r\"\"est";

/// Waits until the API shows an address of the machine.
fn shows(context: &Context, client: &Client, vm: &str, address: &str) -> Result<()> {
    loop {
        let addresses = client.get(vm, &[])?["addresses"].clone();
        if addresses.as_array().is_some_and(|all| all.iter().any(|one| one == address)) {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < context.deadline,
            "the guest's addresses are {addresses}, without {address}"
        );
        thread::sleep(LOOK);
    }
}

/// Starts the machine, and says what its shell answers to a line.
fn start_and_ask(host: &mut Host, client: &Client, vm: &str, line: &str) -> Result<String> {
    power(client, vm, "start")?;
    host.start_command("vm console web")?;
    log_in(host.serial())?;
    let answer = succeeds(host.serial(), line)?;
    host.leave_console()?;
    Ok(answer)
}

fn agent(context: &Context) -> Result<Outcome> {
    let files = ["initramfs-disk.cpio", "debian/disk.img"].map(|file| context.guest_file(file));
    let [Ok(initramfs), Ok(disk)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .file("debian-disk-initramfs", initramfs);
    let store = store_with_debian(context, disk)?;
    let (mut host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"));
    })?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let (stores, groups) = (items(&client, "datastores")?, items(&client, "networks/port-groups")?);
    let boot = json!({ "firmware": "direct", "kernel": "[image] debian-kernel", "initramfs": "[image] debian-disk-initramfs", "commandLine": FULL });
    let machine = json!({
        "name": "web", "vcpus": 1, "memory": 512u64 << 20, "boot": boot,
        "disks": [{ "datastore": stores.first().map(|one| one["id"].clone()), "path": "debian" }],
        "nics": [{ "network": groups.first().map(|one| one["id"].clone()) }],
    });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let vms = items(&client, "vms")?;
    let vm = format!("/api/v1/vms/{}", vms.first().and_then(|vm| vm["id"].as_str()).unwrap_or_default());
    let up = "card=$(ls /sys/class/net | grep -v lo) && ip link set $card up && ip addr add 10.0.2.77/24 dev $card && \
              until systemctl is-active qemu-guest-agent; do sleep 1; done";
    start_and_ask(&mut host, &client, &vm, up)?;
    shows(context, &client, &vm, "10.0.2.77")?;
    power(&client, &vm, "suspend")?;
    power(&client, &vm, "resume")?;
    shows(context, &client, &vm, "10.0.2.77")?;
    // One snapshot as the disk is, one of file systems at rest.
    for (name, quiesce) in [("as it is", false), ("at rest", true)] {
        let wanted = json!({ "name": name, "quiesce": quiesce });
        client.done(&client.post(&format!("{vm}/snapshots"), &wanted)?)?;
    }
    host.console("web", "returns to the shell.")?;
    // It can be written to again; and nobody but the agent shuts it down.
    let alone = "echo more > /root/more && sync && mkdir -p /run/systemd/logind.conf.d && \
                 printf '[Login]\\nHandlePowerKey=ignore\\n' > /run/systemd/logind.conf.d/key.conf && systemctl restart systemd-logind";
    succeeds(host.serial(), alone)?;
    host.leave_console()?;
    power(&client, &vm, "shutdown")?;
    while client.get(&vm, &[])?["powerState"] != "poweredOff" {
        ensure!(std::time::Instant::now() < context.deadline, "the guest does not shut down");
        thread::sleep(LOOK);
    }
    let tree = client.get(&format!("{vm}/snapshots"), &[])?;
    let first = &tree["items"][0];
    for (snapshot, wanted) in [(&first["children"][0]["id"], "it was at rest"), (&first["id"], "it was recovered")] {
        power(&client, &vm, &format!("snapshots/{}/revert", snapshot.as_str().unwrap_or_default()))?;
        let said = start_and_ask(&mut host, &client, &vm, RECOVERED)?;
        ensure!(said.contains(wanted), "{wanted} is not what the guest says: {said}");
        power(&client, &vm, "stop")?;
    }
    Ok(Outcome::Passed)
}
