//! Management as people use it: over HTTPS, from this machine.

use super::{
    Case,
    guest_net::free_port,
    management_settings::{names, servers, time},
    management_state::{boot_with, items},
};
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Config, Date, Disk, Forward, Network, Nic},
    shell::Host,
    systems::System,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/first-steps",
    about: "by the API alone, from an empty host: pages, log-in, datastore, uploads, machine, console, counters, snapshot, settings, a reader; hostd is killed",
    minutes: 4,
    bochs: Some(9),
    run: first_steps,
}];

/// The first password of the test's host.
pub(crate) const PASSWORD: &str = "test-of-the-host";
/// Seconds of one request.
const PATIENCE: &str = "120";

/// Speaks with the host by curl, which is not ours.
pub(crate) struct Client {
    base: String,
    /// What it says who it is with; empty: nobody.
    pub(crate) token: String,
}

impl Client {
    /// Nobody yet, for the host whose port 443 is forwarded to `port`.
    pub(crate) fn new(port: u16) -> Self {
        Self {
            base: format!("https://127.0.0.1:{port}"),
            token: String::new(),
        }
    }

    /// What the pages' addresses begin with.
    pub(super) fn address(&self) -> &str {
        &self.base
    }

    /// Status and body.
    pub(crate) fn ask(&self, path: &str, arguments: &[&str]) -> Result<(u16, String)> {
        let mut command = Command::new("curl");
        // The certificate is of the host's own making.
        command.args(["--silent", "--show-error", "--insecure", "--compressed", "--max-time", PATIENCE]);
        command.args(["--write-out", "\n%{http_code}", "--header", "content-type: application/json"]);
        if !self.token.is_empty() {
            command.args(["--header", &format!("Authorization: Bearer {}", self.token)]);
        }
        let output = command.args(arguments).arg(format!("{}{path}", self.base)).output()?;
        ensure!(
            output.status.success(),
            "curl {path}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or_default();
        Ok((
            status.parse().map_err(|_| Failure::new(format!("{path}: no status")))?,
            body.to_owned(),
        ))
    }

    /// What is answered in JSON to a request that has to succeed.
    pub(crate) fn get(&self, path: &str, arguments: &[&str]) -> Result<Value> {
        let (status, body) = self.ask(path, arguments)?;
        ensure!((200..300).contains(&status), "{path} is answered with {status}: {body}");
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&body).map_err(|e| Failure::new(format!("{path} is answered with {body}: {e}")))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.get(path, &["--data", &body.to_string()])
    }

    pub(crate) fn log_in(&mut self, password: &str) -> Result<u16> {
        self.log_in_as("root", password)
    }

    fn log_in_as(&mut self, user: &str, password: &str) -> Result<u16> {
        self.token.clear();
        let body = json!({ "user": user, "password": password, "bearer": true }).to_string();
        let (status, answer) = self.ask("/api/v1/session", &["--data", &body])?;
        if status == 200 {
            let answer: Value = serde_json::from_str(&answer).map_err(|e| Failure::new(e.to_string()))?;
            self.token = answer["token"].as_str().unwrap_or_default().to_owned();
        }
        Ok(status)
    }

    /// Waits for a task's end, which has to be a good one.
    pub(super) fn done(&self, task: &Value) -> Result<()> {
        let id = task["id"].as_str().unwrap_or_default();
        loop {
            let task = self.get(&format!("/api/v1/tasks/{id}"), &[])?;
            match task["state"].as_str() {
                Some("success") => return Ok(()),
                Some("queued" | "running") => thread::sleep(Duration::from_millis(100)),
                _ => return Err(Failure::new(format!("a task failed: {task}"))),
            }
        }
    }
}

/// Boots a system that has the tests' first password and a network card, and waits until hostd serves: at a port of this machine.
pub(crate) fn boot_served(context: &Context, system: System, change: impl FnOnce(&mut Config)) -> Result<(Host, u16)> {
    let port = free_port()?;
    let mut host = context.boot(&system.first_password(PASSWORD).into(), |config| {
        // As with guests' cards: with a second processor QEMU 7.2 loses exits.
        config.cpus = 1;
        config
            .nics
            .push(Nic::usual(context.emulator, Network::User(vec![Forward::new(port, 443)])));
        change(config);
    })?;
    host.poll_command("log", |log| {
        log.contains("served at port 443") && log.contains("management address 10.0.2.15")
    })?;
    Ok((host, port))
}

fn first_steps(context: &Context) -> Result<Outcome> {
    let files = ["cloud/vmlinuz", "initramfs-disk.cpio"].map(|name| context.guest_file(name));
    let [Ok(kernel), Ok(initramfs)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let servers = match servers(context)? {
        Ok(servers) => servers,
        Err(missing) => return Outcome::skip(missing),
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 512 << 20)?;
    let (mut host, mut client) = boot_with(context, scratch.path(), Some(Date::PAST))?;
    ping(&mut host)?;
    let (status, page) = client.ask("/", &[])?;
    ensure!(status == 200 && page.contains("<title>"), "the first page is {status}: {page}");
    let description = client.get("/api/openapi.json", &[])?;
    ensure!(
        description["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "no OpenAPI description"
    );
    ensure!(client.ask("/api/v1/vms", &[])?.0 == 401, "machines are listed for nobody");
    ensure!(client.log_in("wrong")? == 401, "a wrong password logs in");
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let about = client.get("/api/v1/host", &[])?;
    ensure!(about["product"]["name"] == "Tessera", "the host is {about}");
    let store = datastore(context, &client)?;
    let vm = machine(&client, &store, kernel, initramfs)?;
    power(&client, &vm, "start")?;
    console(&mut host, "Type commands", "echo up and $((40 + 2))", "up and 42")?;
    counters(context, &client, &vm)?;
    pc(&mut host, &client, &store)?;
    past(&mut host, &client, &vm)?;
    names(&client)?;
    time(context, &client)?;
    reader(&mut client, &vm)?;
    host.neat_command("kill hostd")?;
    host.poll_command("log", |text| text.matches("served at port 443").count() >= 2)?;
    ensure!(client.log_in(PASSWORD)? == 200, "nobody can log in after hostd was killed");
    ensure!(client.get(&vm, &[])?["powerState"] == "poweredOn", "the machine went with hostd");
    power(&client, &vm, "stop")?;
    client.get(&vm, &["--request", "DELETE"])?;
    host.poll_command("vm list", |text| !text.contains("web"))?;
    drop(servers);
    Ok(Outcome::Passed)
}

/// Makes a datastore on the empty disk.
pub(super) fn datastore(context: &Context, client: &Client) -> Result<String> {
    let devices = items(client, "storage/devices")?;
    let device = devices
        .iter()
        .find(|device| device["name"] == Disk::usual_name(context.emulator, 0))
        .map(|device| device["name"].clone());
    ensure!(device.is_some(), "the empty disk is not among {devices:?}");
    client.done(&client.post("/api/v1/datastores", &json!({ "name": "main", "device": device }))?)?;
    let stores = items(client, "datastores")?;
    Ok(stores.first().and_then(|store| store["id"].as_str()).unwrap_or_default().to_owned())
}

/// QEMU's user network answers echo requests to its own addresses.
fn ping(host: &mut Host) -> Result<()> {
    for (to, count) in [("10.0.2.2", 3), ("fe80::2", 2)] {
        let answer = host.neat_command(&format!("ping {to} {count}"))?;
        let all = format!("{count} requests, {count} answers; least ");
        ensure!(
            answer.contains(&all) && answer.contains(&format!("{to} answered request {count} in ")),
            "{answer}"
        );
    }
    let silent = host.neat_command("ping 10.0.2.99 1")?;
    ensure!(
        silent.contains("1 requests, 0 answers") && silent.contains("did not answer"),
        "{silent}"
    );
    let own = host.neat_command("ping 10.0.2.15")?;
    ensure!(own.contains("it is an address of this host"), "{own}");
    Ok(())
}

/// Makes a machine of files that are uploaded; its address in the API.
fn machine(client: &Client, store: &str, kernel: &Path, initramfs: &Path) -> Result<String> {
    client.post(&format!("/api/v1/datastores/{store}/folders"), &json!({ "path": "boot" }))?;
    for (name, file) in [("vmlinuz", kernel), ("initramfs", initramfs)] {
        let path = format!("/api/v1/datastores/{store}/files/boot/{name}");
        let answer = client.get(&path, &["--upload-file", &file.display().to_string()])?;
        let length = std::fs::metadata(file)?.len();
        ensure!(answer["size"] == length, "{name} of {length} bytes was uploaded as {answer}");
    }
    let groups = items(client, "networks/port-groups")?;
    let group = groups
        .iter()
        .find(|group| group["name"] == "VM Network")
        .map(|group| group["id"].clone());
    let machine = json!({
        "name": "web", "vcpus": 1, "memory": 256u64 << 20,
        "boot": { "firmware": "direct", "kernel": "[main] boot/vmlinuz", "initramfs": "[main] boot/initramfs", "commandLine": "console=ttyS0" },
        "disks": [{ "datastore": store, "size": 64u64 << 20 }],
        "nics": [{ "network": group }],
    });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let vms = items(client, "vms")?;
    let id = vms.first().and_then(|vm| vm["id"].as_str()).unwrap_or_default();
    Ok(format!("/api/v1/vms/{id}"))
}

/// A machine whose disk is behind a SATA host adapter and whose card is an 82574L is that after an edit that says nothing of them, and to its guest.
fn pc(host: &mut Host, client: &Client, store: &str) -> Result<()> {
    let groups = items(client, "networks/port-groups")?;
    let group = groups.first().map(|group| group["id"].clone());
    let machine = json!({
        "name": "legacy", "vcpus": 1, "memory": 192u64 << 20,
        "boot": { "firmware": "direct", "kernel": "[main] boot/vmlinuz", "initramfs": "[main] boot/initramfs", "commandLine": "console=ttyS0" },
        "disks": [{ "datastore": store, "size": 64u64 << 20, "controller": "ahci" }],
        "nics": [{ "network": group, "model": "e1000e" }],
    });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let vms = items(client, "vms")?;
    let id = vms.iter().find(|vm| vm["config"]["name"] == "legacy").map(|vm| vm["id"].clone());
    let pc = format!("/api/v1/vms/{}", id.as_ref().and_then(Value::as_str).unwrap_or_default());
    let edit = json!({
        "memory": 256u64 << 20,
        "disks": [{ "id": "disk-1", "datastore": store, "size": 96u64 << 20 }],
        "nics": [{ "id": "nic-1", "network": group }],
    });
    client.done(&client.get(&pc, &["--request", "PATCH", "--data", &edit.to_string()])?)?;
    let config = client.get(&pc, &[])?["config"].clone();
    let (disk, nic) = (&config["disks"][0], &config["nics"][0]);
    ensure!(
        disk["controller"] == "ahci" && nic["model"] == "e1000e",
        "the edit changed {config}"
    );
    power(client, &pc, "start")?;
    host.console("legacy", "Type commands")?;
    // Serial ATA with AHCI by its class, the card by its number; neither a disk nor a card of virtio.
    let found = "echo $(cat /sys/bus/pci/devices/*/class | grep -c 0x010601) $(cat /sys/bus/pci/devices/*/device | grep -c 0x10d3) \
                 $(cat /sys/bus/pci/devices/*/device | grep -c -e 0x1041 -e 0x1042) of them";
    host.serial().send_line(found)?;
    host.serial().expect("1 1 0 of them")?;
    host.leave_console()?;
    power(client, &pc, "stop")?;
    client.get(&pc, &["--request", "DELETE"])?;
    host.poll_command("vm list", |text| !text.contains("legacy"))?;
    Ok(())
}

pub(super) fn power(client: &Client, vm: &str, operation: &str) -> Result<()> {
    client.done(&client.get(&format!("{vm}/{operation}"), &["--request", "POST"])?)
}

/// Types a line at the machine's console when `ready` was seen there, and waits for what it shows.
fn console(host: &mut Host, ready: &str, line: &str, wanted: &str) -> Result<()> {
    host.console("web", ready)?;
    host.serial().send_line(line)?;
    host.serial().expect(wanted)?;
    host.leave_console()?;
    Ok(())
}

/// Whether a page of counters has one of a processor that moves.
pub(super) fn moves(page: &Value) -> bool {
    page["items"].as_array().into_iter().flatten().any(|series| {
        let mut samples = series["samples"].as_array().into_iter().flatten();
        series["counter"].as_str().is_some_and(|name| name.starts_with("cpu"))
            && samples.any(|sample| sample["value"].as_f64().is_some_and(|value| value > 0.0))
    })
}

/// Waits until a counter of the machine's processor moves.
fn counters(context: &Context, client: &Client, vm: &str) -> Result<()> {
    let id = vm.rsplit('/').next().unwrap_or_default();
    loop {
        let series = client.get(&format!("/api/v1/counters?entity={id}&limit=1000"), &[])?;
        if moves(&series) {
            return Ok(());
        }
        ensure!(Instant::now() < context.deadline, "no counter of the processor moves: {series}");
        thread::sleep(Duration::from_secs(1));
    }
}

/// A snapshot, a change of the disk, and back; then other memory.
fn past(host: &mut Host, client: &Client, vm: &str) -> Result<()> {
    let write = |text: &str| format!("echo {text} | dd of=/dev/vda conv=fsync 2> /dev/null; head -c 6 /dev/vda; echo :is on it");
    console(host, "Type commands", &write("before"), "before:is on it")?;
    client.done(&client.post(&format!("{vm}/snapshots"), &json!({ "name": "first" }))?)?;
    let snapshots = client.get(&format!("{vm}/snapshots"), &[])?;
    let snapshot = snapshots["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    console(host, "Type commands", &write("behind"), "behind:is on it")?;
    power(client, vm, "stop")?;
    power(client, vm, &format!("snapshots/{snapshot}/revert"))?;
    let change = json!({ "memory": 320_u64 << 20 }).to_string();
    client.done(&client.get(vm, &["--request", "PATCH", "--data", &change])?)?;
    power(client, vm, "start")?;
    console(host, "Type commands", "head -c 6 /dev/vda; echo :is on it", "before:is on it")?;
    let more = "echo $(($(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) > 270000)) is more";
    console(host, "Type commands", more, "1 is more")?;
    suspended(host, client, vm, &write)
}

/// What the shell says when it shows a console.
const CONSOLE: &str = "returns to the shell.";

/// The machine is suspended and goes on; a snapshot with memory is taken while it runs, and it is back there afterwards.
fn suspended(host: &mut Host, client: &Client, vm: &str, write: &impl Fn(&str) -> String) -> Result<()> {
    let state = |wanted: &str| {
        let state = client.get(vm, &[])?["powerState"].clone();
        ensure!(state == wanted, "the machine is {state}, not {wanted}");
        Ok(())
    };
    console(host, CONSOLE, "mark=47; echo $((mark + 1)) is set", "48 is set")?;
    power(client, vm, "suspend")?;
    state("suspended")?;
    power(client, vm, "resume")?;
    state("poweredOn")?;
    // The console of this start has not shown anything yet.
    console(host, CONSOLE, "echo $((mark + 2)) goes on", "49 goes on")?;
    let wanted = json!({ "name": "with memory", "withMemory": true });
    client.done(&client.post(&format!("{vm}/snapshots"), &wanted)?)?;
    state("poweredOn")?;
    console(
        host,
        CONSOLE,
        &format!("mark=80; {}; echo $((mark + 3)) is other", write("behind")),
        "83 is other",
    )?;
    let tree = client.get(&format!("{vm}/snapshots"), &[])?;
    let snapshot = tree["items"][0]["children"][0]["id"].as_str().unwrap_or_default().to_owned();
    power(client, vm, &format!("snapshots/{snapshot}/revert"))?;
    state("poweredOn")?;
    let line = "echo $((mark + 4)) is back; head -c 6 /dev/vda; echo :is on it";
    console(host, CONSOLE, line, "51 is back")?;
    client
        .get(&format!("{vm}/snapshots/{snapshot}"), &["--request", "DELETE"])
        .and_then(|task| client.done(&task))?;
    asleep(host, client, vm)
}

/// Its guest puts it to sleep, which the API tells; a start wakes it.
fn asleep(host: &mut Host, client: &Client, vm: &str) -> Result<()> {
    let state = || client.get(vm, &[]).map(|vm| vm["guestState"].clone());
    ensure!(state()? == "running", "its guest is {}", state()?);
    host.console("web", CONSOLE)?;
    host.serial()
        .send_line("echo mem > /sys/power/state; echo $((mark + 5)) is awake")?;
    host.leave_console()?;
    let end = Instant::now() + Duration::from_secs(60);
    while state()? != "standby" {
        ensure!(Instant::now() < end, "its guest is {} instead of sleeping", state()?);
        thread::sleep(Duration::from_millis(100));
    }
    let (status, answer) = client.ask(&format!("{vm}/shutdown"), &["--request", "POST"])?;
    ensure!(
        status == 409 && answer.contains("asleep"),
        "a guest that sleeps was to shut down: {status} {answer}"
    );
    // The host may suspend it all the same.
    power(client, vm, "suspend")?;
    power(client, vm, "resume")?;
    ensure!(state()? == "standby", "its guest is {} after it was suspended asleep", state()?);
    power(client, vm, "start")?;
    host.console("web", "52 is awake")?;
    host.leave_console()?;
    ensure!(state()? == "running", "its guest is {}", state()?);
    Ok(())
}

/// One who may read and nothing else.
fn reader(client: &mut Client, vm: &str) -> Result<()> {
    const READERS: &str = "a reader's password";
    let account = json!({ "name": "reader", "password": READERS, "role": "readOnly" });
    client.post("/api/v1/users", &account)?;
    let all = client.token.clone();
    ensure!(client.log_in_as("reader", READERS)? == 200, "the reader is not let in");
    ensure!(
        client.get(vm, &[])?["powerState"] == "poweredOn",
        "the reader does not see the machine"
    );
    for (method, path, body) in [
        ("POST", format!("{vm}/stop"), "{}"),
        ("DELETE", vm.to_owned(), "{}"),
        ("PATCH", vm.to_owned(), r#"{"memory":268435456}"#),
        ("POST", format!("{vm}/snapshots"), r#"{"name":"second"}"#),
        ("POST", "/api/v1/users".to_owned(), r#"{"name":"other","password":"some password"}"#),
        ("POST", "/api/v1/host/reboot".to_owned(), "{}"),
    ] {
        let (status, answer) = client.ask(&path, &["--request", method, "--data", body])?;
        ensure!(status == 403, "the reader's {method} {path} is {status}: {answer}");
    }
    client.token = all;
    Ok(())
}
