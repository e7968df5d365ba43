//! The command-line client, from an empty host to a machine with a past.

use super::{
    Case,
    management::{Client, PASSWORD, moves},
    management_settings::{clock_follows, servers},
    management_state::boot_with,
};
use crate::{Context, Failure, Outcome, Result, disks::Scratch, ensure, machine::Date};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/command-line",
    about: "with the client `tessera`, from an empty host: log-in, datastore, uploads, machine, console, counters, snapshot, settings, a reader",
    minutes: 3,
    bochs: None,
    run: by_command_line,
}];

/// Exit code of what is not allowed, as the client documents it.
const NOT_ALLOWED: i32 = 3;
/// Exit code of what does not exist.
const NOT_FOUND: i32 = 4;
/// Password of the account that may only read.
const READERS: &str = "a reader's password";

/// The client, as one who is logged in with a settings file of its own.
struct Tessera<'a> {
    context: &'a Context<'a>,
    program: PathBuf,
    settings: PathBuf,
}

impl<'a> Tessera<'a> {
    fn new(context: &'a Context<'a>, who: &str) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("tessera");
        ensure!(
            program.is_file(),
            "{} is missing: cargo build --release -p tessera-cli",
            program.display()
        );
        let settings = context.environment.logs.join("command-line").join(who).with_extension("json");
        let _ = std::fs::remove_file(&settings);
        Ok(Self {
            context,
            program,
            settings,
        })
    }

    /// Exit code, standard output and standard error.
    fn run(&self, words: &[&str], input: &str) -> Result<(i32, String, String)> {
        ensure!(
            Instant::now() < self.context.deadline,
            "no time is left for `tessera {}`",
            words.join(" ")
        );
        let mut child = Command::new(&self.program)
            .args(words)
            .env("TESSERA_CONFIG", &self.settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    /// What it prints when it has to succeed.
    fn does(&self, words: &[&str]) -> Result<String> {
        let (code, out, err) = self.run(words, "")?;
        ensure!(code == 0, "`tessera {}` ends with {code}: {out}{err}", words.join(" "));
        Ok(out)
    }

    /// The same, as JSON.
    fn json(&self, words: &[&str]) -> Result<Value> {
        let out = self.does(&[&["--json"], words].concat())?;
        serde_json::from_str(&out).map_err(|error| Failure::new(format!("`tessera --json {}` prints {out}: {error}", words.join(" "))))
    }

    fn call(&self, operation: &str, body: &Value) -> Result<Value> {
        self.json(&["call", operation, "--body", &body.to_string()])
    }

    fn refuses(&self, words: &[&str], code: i32) -> Result<()> {
        let (found, out, err) = self.run(words, "")?;
        ensure!(
            found == code,
            "`tessera {}` ends with {found}, not {code}: {out}{err}",
            words.join(" ")
        );
        ensure!(
            err.starts_with("tessera: "),
            "`tessera {}` does not say why: {err}",
            words.join(" ")
        );
        Ok(())
    }

    fn log_in(&self, url: &str, user: &str, password: &str) -> Result<()> {
        let (code, out, err) = self.run(&["login", url, "--user", user], &format!("{password}\n"))?;
        ensure!(code == 0, "{user} is not let in: {out}{err}");
        Ok(())
    }

    /// A line typed at a machine's serial console, and what is shown until nothing comes any more.
    fn type_at(&self, machine: &str, line: &str) -> Result<String> {
        let (code, out, err) = self.run(&["vm", "console", machine], &format!("{line}\n"))?;
        ensure!(code == 0, "the console ends with {code}: {err}");
        Ok(out)
    }

    /// Types a line until `wanted` is shown: a machine that starts takes no lines yet.
    fn shows(&self, machine: &str, line: &str, wanted: &str) -> Result<()> {
        loop {
            let out = self.type_at(machine, line)?;
            if out.contains(wanted) {
                return Ok(());
            }
            ensure!(Instant::now() < self.context.deadline, "`{line}` does not show {wanted}: {out}");
        }
    }
}

/// An identifier of what is called `name` in a list.
fn id_of(list: &Value, name: &str) -> Result<String> {
    let found = list.as_array().into_iter().flatten().find(|one| one["name"] == name);
    let id = found.and_then(|one| one["id"].as_str());
    id.map(str::to_owned)
        .ok_or_else(|| Failure::new(format!("there is no {name} in {list}")))
}

fn by_command_line(context: &Context) -> Result<Outcome> {
    let files = ["cloud/vmlinuz", "initramfs-disk.cpio"].map(|name| context.guest_file(name));
    let [Ok(kernel), Ok(initramfs)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let servers = match servers(context)? {
        Ok(servers) => servers,
        Err(missing) => return Outcome::skip(missing),
    };
    let disk = Scratch::empty(&context.environment.logs, context.name, 4 << 30)?;
    let (host, client) = boot_with(context, disk.path(), Some(Date::PAST))?;
    let root = Tessera::new(context, "root")?;
    root.refuses(&["vm", "list"], NOT_ALLOWED)?;
    first_contact(&root, &client)?;
    machine(&root, kernel, initramfs)?;
    past(&root)?;
    settings(context, &root)?;
    reader(context, &root, &client)?;
    root.does(&["vm", "delete", "web"])?;
    root.refuses(&["vm", "show", "web"], NOT_FOUND)?;
    root.does(&["logout"])?;
    root.refuses(&["vm", "list"], NOT_ALLOWED)?;
    drop((host, servers));
    Ok(Outcome::Passed)
}

/// Log-in, with the host's key remembered, and a password that is wrong.
fn first_contact(root: &Tessera<'_>, client: &Client) -> Result<()> {
    let url = client.address();
    let (code, _, _) = root.run(&["login", url], "wrong\n")?;
    ensure!(code == NOT_ALLOWED, "a wrong password ends with {code}");
    let (code, _, err) = root.run(&["login", url, "--trust", &"0".repeat(64)], &format!("{PASSWORD}\n"))?;
    ensure!(
        code == 1 && err.contains("certificate"),
        "another certificate ends with {code}: {err}"
    );
    root.log_in(url, "root", PASSWORD)?;
    let host = root.json(&["host"])?;
    ensure!(host["product"]["name"] == "Tessera", "the host is {host}");
    // A renewed certificate has the key that is remembered.
    let before = root.json(&["call", "getCertificate"])?;
    root.does(&["call", "renewCertificate"])?;
    let after = root.json(&["call", "getCertificate"])?;
    ensure!(
        before["fingerprint"] != after["fingerprint"],
        "the certificate was not renewed: {after}"
    );
    Ok(())
}

/// A datastore on the empty disk, files in it, a machine of them, its console and its counters.
fn machine(root: &Tessera<'_>, kernel: &Path, initramfs: &Path) -> Result<()> {
    let devices = root.json(&["call", "listDevices"])?;
    let device = devices["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|device| device["size"] == 4_u64 << 30);
    let device = device.and_then(|device| device["name"].as_str()).unwrap_or_default();
    root.call("createDatastore", &json!({ "name": "main", "device": device }))?;
    while root.json(&["datastores"])?.as_array().is_none_or(Vec::is_empty) {
        ensure!(Instant::now() < root.context.deadline, "no datastore comes");
        thread::sleep(Duration::from_millis(200));
    }
    for (file, name) in [(kernel, "vmlinuz"), (initramfs, "initramfs")] {
        root.does(&["file", "upload", &file.display().to_string(), "main", name])?;
    }
    let listed = root.json(&["file", "list", "main"])?;
    let length = std::fs::metadata(kernel)?.len();
    let there = listed
        .as_array()
        .into_iter()
        .flatten()
        .any(|file| file["name"] == "vmlinuz" && file["size"] == length);
    ensure!(there, "the kernel of {length} bytes is listed as {listed}");
    let back = root.settings.with_file_name("kernel-back");
    let _ = std::fs::remove_file(&back);
    root.does(&["file", "download", "main", "vmlinuz", &back.display().to_string()])?;
    ensure!(
        std::fs::read(&back)? == std::fs::read(kernel)?,
        "the kernel that comes back is another one"
    );
    std::fs::remove_file(&back)?;
    // By its operation's name too, which answers with something else than JSON.
    let store = root.json(&["datastores"])?[0]["id"].as_str().unwrap_or_default().to_owned();
    let (code, out, error) = root.run(
        &[
            "call",
            "downloadFile",
            "--set",
            &format!("datastore={store}"),
            "--set",
            "path=vmlinuz",
        ],
        "",
    )?;
    ensure!(
        code == 0 && out.contains("HdrS"),
        "`tessera call downloadFile` ends with {code}: {} bytes, no kernel, {error}",
        out.len()
    );
    root.does(&[
        "vm",
        "create",
        "web",
        "--memory",
        "256",
        "--kernel",
        "[main] vmlinuz",
        "--initramfs",
        "[main] initramfs",
        "--command-line",
        "console=ttyS0",
        "--disk",
        "main:1",
        "--network",
        "VM Network",
    ])?;
    root.refuses(&["vm", "start", "nobody"], NOT_FOUND)?;
    root.does(&["vm", "start", "web"])?;
    root.shows("web", "echo up and $((40 + 2))", "up and 42")?;
    let shown = root.json(&["vm", "show", "web"])?;
    ensure!(shown["powerState"] == "poweredOn", "the machine is {shown}");
    let entity = format!("entity={}", shown["id"].as_str().unwrap_or_default());
    loop {
        let counters = root.json(&["call", "getCounters", "--set", &entity])?;
        if moves(&counters) {
            return Ok(());
        }
        ensure!(
            Instant::now() < root.context.deadline,
            "no counter of the processor moves: {counters}"
        );
        thread::sleep(Duration::from_secs(1));
    }
}

/// A snapshot, a change of the disk, and back; then other memory.
fn past(root: &Tessera<'_>) -> Result<()> {
    let write = |text: &str| format!("echo {text} | dd of=/dev/vda conv=fsync 2> /dev/null; head -c 6 /dev/vda; echo :is on it");
    root.shows("web", &write("before"), "before:is on it")?;
    root.does(&["vm", "snapshot", "web", "first"])?;
    let snapshots = root.json(&["vm", "snapshots", "web"])?;
    id_of(&snapshots, "first")?;
    root.shows("web", &write("behind"), "behind:is on it")?;
    root.refuses(&["vm", "revert", "web", "second"], NOT_FOUND)?;
    root.does(&["vm", "stop", "web"])?;
    root.does(&["vm", "revert", "web", "first"])?;
    root.does(&["vm", "set", "web", "--memory", "320"])?;
    root.does(&["vm", "start", "web"])?;
    root.shows("web", "head -c 6 /dev/vda; echo :is on it", "before:is on it")?;
    root.shows(
        "web",
        "echo $(($(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo) > 270000)) is more",
        "1 is more",
    )?;
    Ok(())
}

/// Names by dnsmasq and time by chrony.
fn settings(context: &Context, root: &Tessera<'_>) -> Result<()> {
    let dns = json!({ "hostName": "seven", "domain": "", "servers": ["10.0.2.2"], "searchDomains": ["lab.example"], "dhcp": false });
    root.call("setDns", &dns)?;
    let found = root.call("resolve", &json!({ "name": "both" }))?;
    ensure!(found["addresses"] == json!(["192.0.2.6", "2001:db8::6"]), "both is {found}");
    root.call("setTime", &json!({ "servers": ["time.lab.example"], "enabled": true }))?;
    clock_follows(context, || root.json(&["call", "getTime"])).map(drop)
}

/// One who may read and nothing else.
fn reader(context: &Context, root: &Tessera<'_>, client: &Client) -> Result<()> {
    root.call("createUser", &json!({ "name": "reader", "password": READERS, "role": "readOnly" }))?;
    let reader = Tessera::new(context, "reader")?;
    reader.log_in(client.address(), "reader", READERS)?;
    let list = reader.does(&["vm", "list"])?;
    ensure!(list.contains("web") && list.contains("poweredOn"), "the reader sees {list}");
    for words in [
        &["vm", "stop", "web"][..],
        &["vm", "delete", "web"],
        &["vm", "snapshot", "web", "of the reader"],
        &["vm", "console", "web"],
        &["file", "delete", "main", "vmlinuz"],
        &["call", "createUser", "--body", r#"{"name":"other","password":"some password"}"#],
        &["call", "rebootHost"],
    ] {
        reader.refuses(words, NOT_ALLOWED)?;
    }
    root.does(&["vm", "stop", "web"])?;
    Ok(())
}
