//! Virtual switches that management made, over a restart of the whole host: the network server's own memory of them is gone then.

use super::{
    Case,
    management::{Client, PASSWORD, boot_served},
    management_settings::started_again,
    management_state::items,
};
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Disk, Network, Nic},
    shell::Host,
    systems::System,
};
use serde_json::{Value, json};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/switches-stay",
    about: "switches, port groups, VLANs, security, limits, orders of uplinks and mirrors that were made over the API are the network server's after a restart of the host",
    minutes: 2,
    bochs: None,
    run: switches_stay,
}];

const SWITCHES: &str = "networks/switches";
const GROUPS: &str = "networks/port-groups";
/// What the shell shows of what [`change`] makes.
const SHOWN: [(&str, &[&str]); 3] = [
    (
        "switch show vSwitch0",
        &[
            "uplinks nic0 nic1",
            "allowed MAC changes",
            "sent 400000 kbit/s, peak 500000 kbit/s, burst 1 MiB",
            "received no limit",
            "teaming by order; active: nic0; standby: nic1",
            "mirror nic1 to host-",
            "mirror later.0 to nic1",
            "Management Network VLAN -, ports: 1 allowed promiscuous, MAC changes",
            "sent no limit received 300000 kbit/s, peak 300000 kbit/s, burst 2 MiB",
        ],
    ),
    (
        "switch show Lab",
        &[
            "MTU 1400",
            "uplinks nic2",
            "allowed promiscuous, forged transmits",
            "Lab 20 VLAN 20, ports: 0",
            "allowed forged transmits",
            "teaming by source-mac; active: nic2; standby: none",
            "Lab trunk VLAN trunk, ports: 0",
        ],
    ),
    ("switch groups", &["Lab 20 Lab 20 0", "Lab trunk Lab trunk 0"]),
];
/// A port group of the image, which was removed.
const REMOVED: &str = "VM Network";

/// What stands there, whatever the terminal's width made of it.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the shell shows of switches now.
fn shown(host: &mut Host) -> Result<Vec<String>> {
    SHOWN
        .iter()
        .map(|(command, _)| host.neat_command(command).map(|text| words(&text)))
        .collect()
}

/// What the API says of them.
fn told(client: &Client) -> Result<Vec<Value>> {
    Ok([items(client, SWITCHES)?, items(client, GROUPS)?].concat())
}

/// The path of the object of that name.
fn path(client: &Client, list: &str, name: &str) -> Result<String> {
    let all = items(client, list)?;
    let id = all.iter().find(|one| one["name"] == name).and_then(|one| one["id"].as_str());
    id.map(|id| format!("/api/v1/{list}/{id}"))
        .ok_or_else(|| Failure::new(format!("{list} has no {name}: {all:?}")))
}

fn patch(client: &Client, list: &str, name: &str, change: &Value) -> Result<()> {
    client.get(&path(client, list, name)?, &["--request", "PATCH", "--data", &change.to_string()])?;
    Ok(())
}

fn security(promiscuous: bool, mac_changes: bool, forged_transmits: bool) -> Value {
    json!({ "promiscuous": promiscuous, "macChanges": mac_changes, "forgedTransmits": forged_transmits })
}

fn limit(average: u64, peak: u64, burst: u64) -> Value {
    json!({ "average": average * 1_000_000, "peak": peak * 1_000_000, "burst": burst << 20 })
}

fn teaming(balance: &str, active: &[&str], standby: &[&str]) -> Value {
    json!({ "balance": balance, "active": active, "standby": standby })
}

/// Makes and changes switches and port groups; the host stays within reach, by its first card and without a VLAN.
fn change(client: &Client) -> Result<()> {
    let ports = items(client, "networks/ports")?;
    let own = ports.iter().find(|port| port["kind"] == "host").map(|port| port["name"].clone());
    let own = own.ok_or_else(|| Failure::new(format!("the host has no port: {ports:?}")))?;
    // The image has all cards at its one switch. A machine's port may be mirrored before there is the machine.
    let first = json!({
        "uplinks": ["nic0", "nic1"],
        "security": security(false, true, false),
        "shaping": { "sent": limit(400, 500, 1), "received": null },
        "teaming": teaming("order", &["nic0"], &["nic1"]),
        "mirrors": [{ "from": "nic1", "to": own }, { "from": "later.0", "to": "nic1" }],
    });
    patch(client, SWITCHES, "vSwitch0", &first)?;
    let management = json!({
        "security": security(true, true, false),
        "shaping": { "sent": null, "received": limit(300, 300, 2) },
    });
    patch(client, GROUPS, "Management Network", &management)?;
    client.get(&path(client, GROUPS, REMOVED)?, &["--request", "DELETE"])?;
    let lab = json!({ "name": "Lab", "mtu": 1400, "uplinks": ["nic2"], "security": security(true, false, true) });
    let lab = client.post(&format!("/api/v1/{SWITCHES}"), &lab)?["id"].clone();
    let tagged = json!({
        "name": "Lab 20", "switch": lab, "vlan": 20, "security": security(false, false, true), "teaming": teaming("sourceMac", &["nic2"], &[]),
    });
    client.post(&format!("/api/v1/{GROUPS}"), &tagged)?;
    let trunk = json!({ "name": "Lab trunk", "switch": lab, "vlan": 4095 });
    client.post(&format!("/api/v1/{GROUPS}"), &trunk)?;
    Ok(())
}

/// Every setting is what was asked for, and what was removed is gone.
fn check(now: &[String], when: &str) -> Result<()> {
    for ((command, wanted), text) in SHOWN.iter().zip(now) {
        for one in *wanted {
            ensure!(text.contains(one), "{when}, `{command}` has no '{one}': {text}");
        }
        ensure!(!text.contains(REMOVED), "{when}, {REMOVED} is there, which was removed: {text}");
    }
    Ok(())
}

fn switches_stay(context: &Context) -> Result<Outcome> {
    let disk = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let file = disk.path().display().to_string();
    context.environment.images.datastore(&["create", &file, "--label", "main"])?;
    let system = System::delivered(&context.environment.root)?.without_machines();
    let (mut host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::usual(context.emulator, disk.path(), "STORE"));
        config.nics.extend([0; 2].map(|_| Nic::usual(context.emulator, Network::Own)));
        config.restarts = true;
    })?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    change(&client)?;
    let (before, said) = (shown(&mut host)?, told(&client)?);
    check(&before, "before the restart")?;
    client.get("/api/v1/host/reboot", &["--request", "POST"])?;
    // A prompt alone could be one that was drawn again.
    host.machine.serial.expect("microkernel")?;
    host = started_again(host)?;
    // It serves after it has made its switches what was kept, or has said in its log that it could not.
    let after = shown(&mut host)?;
    check(&after, "after the restart")?;
    ensure!(
        after == before,
        "the shell showed {before:?} before the restart and shows {after:?} after it"
    );
    let log = host.poll_command("log", |log| log.contains("management address 10.0.2.15"))?;
    ensure!(
        !log.contains("as it was kept"),
        "the host could not make its switches what was kept: {log}"
    );
    ensure!(
        client.log_in(PASSWORD)? == 200,
        "the first password does not log in after the restart"
    );
    let now = told(&client)?;
    ensure!(now == said, "the API said {said:?} before the restart and says {now:?} after it");
    Ok(Outcome::Passed)
}
