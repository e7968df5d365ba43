//! What a guest's cloud-init finds: the image is made through the API, and a guest reads it as cloud-init does, from the CD with the label `cidata`.

use super::{
    Case,
    management::PASSWORD,
    management_state::{boot_with, items},
};
use crate::{Context, Outcome, Result, disks::Scratch, ensure, linux::succeeds};
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/cloud-init",
    about: "an image for cloud-init is made through the API; a guest finds the CD by its label and reads host name, account, key, the password's hash and address",
    minutes: 4,
    bochs: None,
    run: cloud_init,
}];

/// Drivers of the CD-ROM drive and of what is on it, in the order in which they are loaded.
const MODULES: [&str; 8] = ["scsi_common", "scsi_mod", "libata", "libahci", "ahci", "cdrom", "sr_mod", "isofs"];
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDummyDummyDummy admin@desk";

fn cloud_init(context: &Context) -> Result<Outcome> {
    let medium = match crate::medium::bootable(context, "generic", &MODULES)? {
        Ok(medium) => medium,
        Err(missing) => return Outcome::skip(missing),
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let (store, medium_path) = (scratch.path().display().to_string(), medium.display().to_string());
    let images = &context.environment.images;
    images.datastore(&["create", &store, "--label", "main"])?;
    images.datastore(&["import", "--quiet", "--format", "raw", &store, &medium_path, "boot"])?;
    fs::remove_file(medium)?;
    let (mut host, mut client) = boot_with(context, scratch.path(), None)?;
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let store = items(&client, "datastores")?
        .first()
        .map_or(Value::Null, |store| store["id"].clone());
    let machine = json!({ "name": "seeded", "vcpus": 1, "memory": 256 << 20, "disks": [{ "datastore": store, "path": "boot" }], "boot": { "firmware": "bios" } });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let id = items(&client, "vms")?.first().map_or(Value::Null, |vm| vm["id"].clone());
    let vm = format!("/api/v1/vms/{}", id.as_str().unwrap_or_default());
    let form = json!({ "hostName": "web-1", "user": "admin", "sshKeys": [KEY], "password": "correct horse",
        "network": { "address": "192.0.2.10", "prefixLength": 24, "gateway": "192.0.2.1", "nameServers": ["192.0.2.2"] } });
    client.done(&client.post(&format!("{vm}/seed"), &form)?)?;
    client.done(&client.get(&format!("{vm}/start"), &["--request", "POST"])?)?;
    host.start_command("vm console seeded")?;
    host.serial().wait_at_most(Duration::from_secs(200));
    host.serial().expect("Type commands")?;
    succeeds(host.serial(), "stty cols 1000 2>/dev/null; true")?;
    for module in MODULES {
        succeeds(host.serial(), &format!("insmod /modules/{module}.ko"))?;
    }
    // Drives are looked for in the background. The label is in bytes 41 to 72 of the first descriptor (ECMA-119, 8.4.9), which is sector 16.
    succeeds(host.serial(), "until [ -b /dev/sr0 ]; do sleep 1; done")?;
    let label = succeeds(host.serial(), "dd if=/dev/sr0 bs=1 skip=32808 count=32 2>/dev/null")?;
    ensure!(
        label.lines().last().is_some_and(|label| label.trim() == "cidata"),
        "the CD's label is {label:?}"
    );
    succeeds(host.serial(), "busybox mkdir -p /seed && mount -t iso9660 -o ro /dev/sr0 /seed")?;
    let mut read = |name: &str, parts: &[&str]| -> Result<()> {
        let text = succeeds(host.serial(), &format!("cat /seed/{name}"))?;
        for part in parts {
            ensure!(text.contains(part), "{name} has no {part}:\n{text}");
        }
        ensure!(!text.contains("correct horse"), "{name} has the password:\n{text}");
        Ok(())
    };
    read("meta-data", &["\"local-hostname\": \"web-1\"", "\"instance-id\": \"vm-"])?;
    read("user-data", &["#cloud-config", "\"name\": \"admin\"", KEY, "\"passwd\": \"$6$"])?;
    read("network-config", &["192.0.2.10/24", "\"via\": \"192.0.2.1\"", "192.0.2.2"])?;
    host.leave_console()?;
    client.done(&client.get(&format!("{vm}/stop"), &["--request", "POST"])?)?;
    Ok(Outcome::Passed)
}
