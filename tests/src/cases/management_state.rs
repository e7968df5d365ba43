//! What management keeps: everything that was acknowledged is there after hostd was killed and after the power was cut.

use super::{
    Case,
    management::{Client, PASSWORD, boot_served},
};
use crate::{
    Context, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Date, Disk},
    shell::Host,
    systems::System,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "management/state",
        about: "what was acknowledged is there after hostd was killed (TESSERA_KILLS, 5) and the power was cut (TESSERA_CUTS, 1) during a stream of changes",
        minutes: 4,
        bochs: None,
        run: state,
    },
    Case {
        name: "management/no-disk",
        about: "without a disk the host says that nothing is kept; when a datastore is made, what there is moves there and is there after a restart",
        minutes: 2,
        bochs: None,
        run: no_disk,
    },
];

/// Seconds of one change.
const PATIENCE: &str = "4";

/// How often, unless the environment says otherwise.
fn times(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn boot(context: &Context, disk: &Path) -> Result<(Host, Client)> {
    boot_with(context, disk, None)
}

/// Boots the system without machines of its own, with a disk and at a date of its own, and waits until it serves.
pub(super) fn boot_with(context: &Context, disk: &Path, date: Option<Date>) -> Result<(Host, Client)> {
    let system = System::delivered(&context.environment.root)?.without_machines();
    let (host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::usual(context.emulator, disk, "STORE"));
        config.date = date;
        config.restarts = true;
    })?;
    Ok((host, Client::new(port)))
}

/// How often hostd has begun to serve.
pub(super) fn served(log: &str) -> usize {
    log.matches("served at port 443").count()
}

pub(super) fn items(client: &Client, path: &str) -> Result<Vec<Value>> {
    let answer = client.get(&format!("/api/v1/{path}?limit=1000"), &[])?;
    Ok(answer["items"].as_array().cloned().unwrap_or_default())
}

/// Makes roles and accounts until it is told to end, and says which were acknowledged: names with what belongs to them.
fn change(client: &Client, round: u32, end: &AtomicBool) -> Vec<(String, bool)> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        // An account and its permission are one change; so is a role, which takes less time.
        let account = number % 8 == 7;
        let name = format!("r{round}-{number}");
        let (path, body) = if account {
            ("users", json!({ "name": name, "password": "a password", "role": "admin" }))
        } else {
            ("roles", json!({ "name": name, "privileges": ["System.Read", "Host.Power"] }))
        };
        // Whoever was asked and is no more does not say so.
        let answer = client.get(&format!("/api/v1/{path}"), &["--max-time", PATIENCE, "--data", &body.to_string()]);
        if answer.is_ok() {
            acknowledged.push((name, account));
        } else {
            thread::sleep(Duration::from_millis(50));
        }
    }
    acknowledged
}

fn check(client: &Client, acknowledged: &[(String, bool)]) -> Result<()> {
    let (roles, users) = (items(client, "roles")?, items(client, "users")?);
    for (name, account) in acknowledged {
        let all = if *account { &users } else { &roles };
        ensure!(all.iter().any(|one| one["name"] == **name), "{name} was acknowledged and is gone");
    }
    for role in roles.iter().filter(|role| role["builtIn"] == false) {
        ensure!(
            role["privileges"].as_array().is_some_and(|privileges| privileges.len() == 2),
            "half a role: {role}"
        );
    }
    for user in users.iter().filter(|user| user["name"] != "root") {
        ensure!(user["role"] == "admin", "half an account: {user}");
    }
    Ok(())
}

fn power_state(client: &Client) -> Result<Value> {
    Ok(items(client, "vms")?.first().map_or(Value::Null, |vm| vm["powerState"].clone()))
}

/// Polls until the machine that starts with the host runs.
fn starts(context: &Context, client: &Client) -> Result<()> {
    while power_state(client)? != "poweredOn" {
        ensure!(Instant::now() < context.deadline, "the machine does not start with the host");
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

fn state(context: &Context) -> Result<Outcome> {
    if let Err(missing) = context.guest_file("cloud/vmlinuz") {
        return Outcome::skip(missing);
    }
    let disk = Scratch::empty(&context.environment.logs, context.name, 512 << 20)?;
    let path = disk.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let (mut host, mut client) = boot(context, disk.path())?;
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    ensure!(
        client.get("/api/v1/host", &[])?["statePersistent"] == true,
        "the host says that it keeps nothing"
    );
    let key = client.post("/api/v1/api-keys", &json!({ "name": "of the test" }))?["key"].clone();
    let key = key.as_str().unwrap_or_default().to_owned();
    client.token.clone_from(&key);
    let names =
        json!({ "hostName": "seven", "domain": "example.org", "servers": ["10.0.2.3"], "searchDomains": [], "dhcp": false }).to_string();
    client.get("/api/v1/host/dns", &["--request", "PUT", "--data", &names])?;
    let machine = json!({
        "name": "first", "vcpus": 1, "memory": 128u64 << 20, "autostart": true,
        "boot": { "firmware": "direct", "kernel": "[image] debian-kernel", "initramfs": "[image] debian-initramfs", "commandLine": "console=ttyS0 quiet" },
    });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    ensure!(power_state(&client)? == "poweredOff", "a machine is on that nobody started");
    let certificate = client.get("/api/v1/host/certificate", &[])?["fingerprint"].clone();
    let mut acknowledged = Vec::new();
    // Killed again and again.
    let end = AtomicBool::new(false);
    let (kills, cuts) = (times("TESSERA_KILLS", 5), times("TESSERA_CUTS", 1));
    acknowledged.extend(thread::scope(|scope| -> Result<_> {
        let changes = scope.spawn(|| change(&client, 0, &end));
        let killed = (0..kills).try_for_each(|_| {
            let before = served(&host.command("log")?);
            thread::sleep(Duration::from_millis(700));
            host.command("restart hostd")?;
            // The log is a ring: with many kills the number of lines in it stays the same some day.
            let patience = Instant::now() + Duration::from_secs(20);
            host.poll_command("log", |text| served(text) > before || Instant::now() > patience)?;
            Ok(())
        });
        end.store(true, Ordering::Relaxed);
        let made = changes.join().unwrap_or_default();
        killed.map(|()| made)
    })?);
    ensure!(acknowledged.len() > 5, "only {} changes were acknowledged", acknowledged.len());
    check(&client, &acknowledged)?;
    // The power is cut.
    for round in 1..=cuts {
        let end = AtomicBool::new(false);
        acknowledged.extend(thread::scope(|scope| {
            let changes = scope.spawn(|| change(&client, round, &end));
            thread::sleep(Duration::from_millis(2500));
            drop(host);
            end.store(true, Ordering::Relaxed);
            changes.join().unwrap_or_default()
        }));
        (host, client) = boot(context, disk.path())?;
        client.token.clone_from(&key);
        check(&client, &acknowledged)?;
        starts(context, &client)?;
    }
    ensure!(
        client.get("/api/v1/host/certificate", &[])?["fingerprint"] == certificate,
        "the certificate is another one"
    );
    let names = client.get("/api/v1/host/dns", &[])?;
    ensure!(names["hostName"] == "seven", "the host's name is {names}");
    let tasks = items(&client, "tasks")?;
    ensure!(
        tasks.iter().any(|task| task["name"] == "vm.create" && task["state"] == "success"),
        "the task is forgotten: {tasks:?}"
    );
    let events = items(&client, "events")?;
    ensure!(events.iter().any(|event| event["kind"] == "session.begun"), "events are forgotten");
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in any more");
    let hidden = client.get("/api/v1/datastores", &[])?["items"][0]["id"].clone();
    let files = items(&client, &format!("datastores/{}/files", hidden.as_str().unwrap_or_default()))?;
    ensure!(
        files.iter().all(|file| file["name"] != ".tessera"),
        "the state is shown among files: {files:?}"
    );
    drop(host);
    Ok(Outcome::Passed)
}

fn no_disk(context: &Context) -> Result<Outcome> {
    let disk = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let (mut host, mut client) = boot(context, disk.path())?;
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    ensure!(
        client.get("/api/v1/host", &[])?["statePersistent"] == false,
        "the host says that it keeps something, without a datastore"
    );
    let role = json!({ "name": "before", "privileges": ["System.Read"] });
    client.post("/api/v1/roles", &role)?;
    let device = items(&client, "storage/devices")?
        .first()
        .map_or(Value::Null, |device| device["name"].clone());
    client.done(&client.post("/api/v1/datastores", &json!({ "name": "late", "device": device }))?)?;
    while client.get("/api/v1/host", &[])?["statePersistent"] == false {
        ensure!(Instant::now() < context.deadline, "the state does not move to the datastore");
        thread::sleep(Duration::from_millis(300));
    }
    drop(host);
    (host, client) = boot(context, disk.path())?;
    ensure!(client.log_in(PASSWORD)? == 200, "the password does not log in after a restart");
    let roles = items(&client, "roles")?;
    ensure!(roles.iter().any(|role| role["name"] == "before"), "the role is gone: {roles:?}");
    drop(host);
    Ok(Outcome::Passed)
}
