//! Management as people use it: over HTTPS, from this machine.

use super::{Case, guest_net::free_port};
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Bus, Config, Disk},
    shell::Host,
    systems::System,
};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/first-steps",
    about: "over HTTPS: pages, log-in, a kernel uploaded, a machine made, started, stopped and removed; hostd comes back when it is killed",
    minutes: 4,
    bochs: None,
    run: first_steps,
}];

/// The first password of the test's host.
pub(super) const PASSWORD: &str = "test-of-the-host";
/// Seconds of one request.
const PATIENCE: &str = "120";

/// Speaks with the host by curl, which is not ours.
pub(super) struct Client {
    base: String,
    /// What it says who it is with; empty: nobody.
    pub(super) token: String,
}

impl Client {
    /// Nobody yet, for the host whose port 443 is forwarded to `port`.
    pub(super) fn new(port: u16) -> Self {
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
    pub(super) fn ask(&self, path: &str, arguments: &[&str]) -> Result<(u16, String)> {
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
    pub(super) fn get(&self, path: &str, arguments: &[&str]) -> Result<Value> {
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

    pub(super) fn log_in(&mut self, password: &str) -> Result<u16> {
        self.token.clear();
        let body = json!({ "user": "root", "password": password, "bearer": true }).to_string();
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
                Some("queued" | "running") => std::thread::sleep(std::time::Duration::from_millis(100)),
                _ => return Err(Failure::new(format!("a task failed: {task}"))),
            }
        }
    }
}

/// Boots a system that has the tests' first password and a network card, and waits until hostd serves: at a port of this machine.
pub(super) fn boot_served(context: &Context, system: System, change: impl FnOnce(&mut Config)) -> Result<(Host, u16)> {
    let port = free_port()?;
    let mut host = context.boot(&system.first_password(PASSWORD).into(), |config| {
        // As with guests' cards: with a second processor QEMU 7.2 loses exits.
        config.cpus = 1;
        let network = format!("user,id=out,hostfwd=tcp:127.0.0.1:{port}-:443");
        let arguments = ["-netdev", &network, "-device", "virtio-net-pci,netdev=out"];
        config.extra.extend(arguments.map(Into::into));
        change(config);
    })?;
    host.poll_command("log", |log| {
        log.contains("served at port 443") && log.contains("management address 10.0.2.15")
    })?;
    Ok((host, port))
}

fn first_steps(context: &Context) -> Result<Outcome> {
    let files = ["cloud/vmlinuz", "initramfs.cpio"].map(|name| context.guest_file(name));
    let [Ok(kernel), Ok(initramfs)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 512 << 20)?;
    let path = scratch.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let system = System::delivered(&context.environment.root)?.without_machines();
    let (mut host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::new(Bus::Nvme, scratch.path(), "STORE"));
    })?;
    let mut client = Client::new(port);
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
    machine(&mut host, &client, kernel, initramfs)?;
    host.neat_command("kill hostd")?;
    host.poll_command("log", |text| text.matches("served at port 443").count() >= 2)?;
    ensure!(client.log_in(PASSWORD)? == 200, "nobody can log in after hostd was killed");
    Ok(Outcome::Passed)
}

/// Makes a machine of files that are uploaded, and looks at it from the debug shell.
fn machine(host: &mut crate::shell::Host, client: &Client, kernel: &Path, initramfs: &Path) -> Result<()> {
    let stores = client.get("/api/v1/datastores", &[])?;
    let store = stores["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    client.post(&format!("/api/v1/datastores/{store}/folders"), &json!({ "path": "boot" }))?;
    for (name, file) in [("vmlinuz", kernel), ("initramfs", initramfs)] {
        let path = format!("/api/v1/datastores/{store}/files/boot/{name}");
        let answer = client.get(&path, &["--upload-file", &file.display().to_string()])?;
        let length = std::fs::metadata(file)?.len();
        ensure!(answer["size"] == length, "{name} of {length} bytes was uploaded as {answer}");
    }
    let groups = client.get("/api/v1/networks/port-groups", &[])?;
    let groups = groups["items"].as_array().cloned().unwrap_or_default();
    let group = groups
        .iter()
        .find(|group| group["name"] == "VM Network")
        .cloned()
        .unwrap_or_default();
    let machine = json!({
        "name": "web", "vcpus": 1, "memory": 256u64 << 20,
        "boot": { "firmware": "direct", "kernel": "[main] boot/vmlinuz", "initramfs": "[main] boot/initramfs", "commandLine": "console=ttyS0" },
        "disks": [{ "datastore": store, "size": 64u64 << 20 }],
        "nics": [{ "network": group["id"] }],
    });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let id = client.get("/api/v1/vms", &[])?["items"][0]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let vm = format!("/api/v1/vms/{id}");
    client.done(&client.get(&format!("{vm}/start"), &["--request", "POST"])?)?;
    ensure!(client.get(&vm, &[])?["powerState"] == "poweredOn", "the machine is not on");
    host.console("web", "Type commands")?;
    host.leave_console()?;
    client.done(&client.get(&format!("{vm}/stop"), &["--request", "POST"])?)?;
    client.get(&vm, &["--request", "DELETE"])?;
    host.poll_command("vm list", |text| !text.contains("web"))?;
    Ok(())
}
