//! The host's own settings, against servers that are not ours: names by dnsmasq, time by chrony, certificates by OpenSSL.

use super::{
    Case,
    management::{Client, PASSWORD},
    management_state::{boot_with, items, served},
};
use crate::{Context, Failure, Outcome, Result, disks::Scratch, ensure, machine::Date, shell::Host};
use serde_json::{Value, json};
use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "management/names-and-time",
        about: "names are resolved by dnsmasq, the clock follows chrony; licences are shown, certificates made anew and replaced",
        minutes: 2,
        bochs: None,
        run: names_and_time,
    },
    Case {
        name: "management/address-and-power",
        about: "an address that cuts everybody off is taken back, one that works is kept; the host starts again and switches itself off",
        minutes: 3,
        bochs: None,
        run: address_and_power,
    },
];

/// A server of the test, on this machine's loopback, where QEMU's user network has the guest's 10.0.2.2.
pub(super) struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself already, or does now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn start(program: &Path, arguments: &[&str]) -> Result<Server> {
    let mut command = Command::new("setpriv");
    // It ends with the test, however that ends.
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Server(command.spawn()?))
}

/// A time server and a name server; their ports can be had once.
pub(super) struct Servers {
    _servers: [Server; 2],
    // The ports are free before others have their turn: fields end in order.
    _turn: MutexGuard<'static, ()>,
}

/// The servers, or why they cannot be had here.
pub(super) fn servers(context: &Context) -> Result<std::result::Result<Servers, String>> {
    static TURN: Mutex<()> = Mutex::new(());
    let (Some(chrony), Some(dnsmasq)) = (program("chronyd"), program("dnsmasq")) else {
        return Ok(Err("chronyd or dnsmasq is missing: run `make setup`".into()));
    };
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for port in [53, 123] {
        if let Err(error) = UdpSocket::bind(("127.0.0.1", port)) {
            return Ok(Err(format!("127.0.0.1:{port} cannot be had: {error}")));
        }
    }
    let folder = context.environment.logs.join("names-and-time");
    fs::create_dir_all(&folder)?;
    let (settings, pid) = (folder.join("chrony.conf"), folder.join("chrony.pid"));
    let text = format!(
        "local stratum 8\nallow 127.0.0.1\nbindaddress 127.0.0.1\ncmdport 0\nbindcmdaddress /\npidfile {}\n",
        pid.display()
    );
    fs::write(&settings, text)?;
    // It leaves this machine's clock alone.
    let time = start(&chrony, &["-x", "-d", "-u", "root", "-f", &settings.display().to_string()])?;
    let names = start(
        &dnsmasq,
        &[
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--host-record=time.lab.example,10.0.2.2",
            "--host-record=both.lab.example,192.0.2.6,2001:db8::6",
            "--cname=alias.lab.example,both.lab.example",
            "--pid-file=",
            "--user=root",
        ],
    )?;
    Ok(Ok(Servers {
        _servers: [time, names],
        _turn: turn,
    }))
}

pub(super) fn put(client: &Client, path: &str, body: &Value) -> Result<Value> {
    client.get(path, &["--request", "PUT", "--data", &body.to_string()])
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds since 1970 of `2026-11-25T22:35:51.000Z`, by a program that is not ours.
fn seconds_of(text: &str) -> Result<i64> {
    let output = Command::new("date").args(["--utc", "--date", text, "+%s"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(|_| Failure::new(format!("date says {text}")))
}

pub(super) fn names(client: &Client) -> Result<()> {
    let resolve = |name: &str| client.ask("/api/v1/host/dns/resolve", &["--data", &json!({ "name": name }).to_string()]);
    let settings = json!({ "hostName": "seven", "domain": "", "servers": ["10.0.2.2"], "searchDomains": ["lab.example"], "dhcp": false });
    put(client, "/api/v1/host/dns", &settings)?;
    for (name, wanted) in [
        ("time.lab.example", json!(["10.0.2.2"])),
        ("time", json!(["10.0.2.2"])),
        ("both", json!(["192.0.2.6", "2001:db8::6"])),
        ("alias.lab.example", json!(["192.0.2.6", "2001:db8::6"])),
        ("192.0.2.1", json!(["192.0.2.1"])),
    ] {
        let (status, body) = resolve(name)?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        ensure!(status == 200 && answer["addresses"] == wanted, "{name} is {status} {body}");
    }
    let (status, body) = resolve("nobody.lab.example")?;
    ensure!(status == 404, "a name that is none is {status} {body}");
    Ok(())
}

/// Waits until the host's clock follows, which `ask` tells, and compares it with this machine's.
pub(super) fn clock_follows(context: &Context, ask: impl Fn() -> Result<Value>) -> Result<Value> {
    let mut now = ask()?;
    while now["synchronized"] != true {
        ensure!(Instant::now() < context.deadline, "the clock does not follow: {now}");
        thread::sleep(Duration::from_millis(300));
        now = ask()?;
    }
    let off = seconds_of(now["now"].as_str().unwrap_or_default())? - unix_seconds();
    ensure!(off.abs() <= 2, "the clock is {off} s off: {now}");
    Ok(now)
}

pub(super) fn time(context: &Context, client: &Client) -> Result<()> {
    let wrong = client.get("/api/v1/host/time", &[])?;
    let off = seconds_of(wrong["now"].as_str().unwrap_or_default())? - unix_seconds();
    ensure!(off.abs() > 86_400, "the clock was right already: {wrong}");
    put(
        client,
        "/api/v1/host/time",
        &json!({ "servers": ["time.lab.example"], "enabled": true }),
    )?;
    let now = clock_follows(context, || client.get("/api/v1/host/time", &[]))?;
    ensure!(now["server"] == "time.lab.example", "the clock follows another server: {now}");
    put(client, "/api/v1/host/time", &json!({ "servers": ["10.0.2.2"], "enabled": false }))?;
    ensure!(
        client.get("/api/v1/host/time", &[])?["synchronized"] == false,
        "a clock that runs free follows"
    );
    Ok(())
}

pub(super) fn openssl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("openssl").args(arguments).output()?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn certificates(context: &Context, client: &Client) -> Result<()> {
    let path = "/api/v1/host/certificate";
    let shown = || Ok::<_, Failure>(client.get(path, &[])?["fingerprint"].clone());
    let first = shown()?;
    client.get(&format!("{path}/renew"), &["--request", "POST"])?;
    let second = shown()?;
    ensure!(first != second, "the certificate was not made anew");
    let folder = context.environment.logs.join("names-and-time");
    let file = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=seven.example -keyout";
    let mut words: Vec<&str> = make.split(' ').collect();
    words.extend([key.as_str(), "-out", &certificate]);
    openssl(&words)?;
    let text = |path: &str| fs::read_to_string(path);
    let body = json!({ "certificate": text(&certificate)?, "key": text(&key)? });
    let other = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    let wrong = json!({ "certificate": text(&certificate)?, "key": other });
    let (status, answer) = client.ask(path, &["--request", "PUT", "--data", &wrong.to_string()])?;
    ensure!(status == 400, "a key that does not belong to its certificate is {status} {answer}");
    ensure!(shown()? == second, "a certificate that was refused is in use");
    put(client, path, &body)?;
    let made = openssl(&["x509", "-in", &certificate, "-noout", "-fingerprint", "-sha256"])?;
    let made = made.rsplit('=').next().unwrap_or_default().replace(':', "").to_lowercase();
    ensure!(shown()? == json!(made), "the certificate is not the one that was given");
    // The next connection begins with it.
    let answer = client.ask("/api/v1/about", &["--verbose", "--stderr", "-"])?.1;
    ensure!(
        answer.contains("CN=seven.example"),
        "connections begin with another certificate: {answer}"
    );
    Ok(())
}

fn log_in(client: &mut Client) -> Result<()> {
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    Ok(())
}

fn names_and_time(context: &Context) -> Result<Outcome> {
    let servers = match servers(context)? {
        Ok(servers) => servers,
        Err(missing) => return Outcome::skip(missing),
    };
    let disk = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let path = disk.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let (host, mut client) = boot_with(context, disk.path(), Some(Date::PAST))?;
    log_in(&mut client)?;
    names(&client)?;
    time(context, &client)?;
    let licences = items(&client, "licences")?;
    for name in ["Tessera", "rustls", "smoltcp"] {
        ensure!(
            licences.iter().any(|one| one["component"] == name),
            "{name} is not among {} licences",
            licences.len()
        );
    }
    certificates(context, &client)?;
    for one in items(&client, "servers/storage/capabilities")? {
        ensure!(
            one["object"].as_u64().is_some_and(|object| object < 1 << 53),
            "a number that JSON cannot hold: {one}"
        );
    }
    drop((host, servers));
    Ok(Outcome::Passed)
}

fn wait_for(context: &Context, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    while !done()? {
        ensure!(Instant::now() < context.deadline, "{what}");
        thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn reachable(client: &Client) -> bool {
    client
        .ask("/api/v1/about", &["--max-time", "3"])
        .is_ok_and(|(status, _)| status == 200)
}

/// Sets an address by hand.
fn set(client: &Client, address: &str) -> Result<()> {
    let change = json!({ "dhcp": false, "ipv4": address, "netmask": "255.255.255.0", "gateway": "10.0.2.2", "ipv6": ["2001:db8::5/64"] });
    let path = "/api/v1/networks/interfaces/vmk0";
    client.get(path, &["--request", "PATCH", "--data", &change.to_string()])?;
    Ok(())
}

fn interface(client: &Client) -> Result<Value> {
    let all = items(client, "networks/interfaces")?;
    all.into_iter().next().ok_or_else(|| Failure::new("the host has no interface"))
}

/// What came on the serial port until the machine had started again and its shell waits.
pub(super) fn started_again(mut host: Host) -> Result<Host> {
    host.machine.serial.expect(crate::shell::PROMPT)?;
    host.poll_command("log", |text| served(text) >= 1)?;
    Ok(host)
}

fn address_and_power(context: &Context) -> Result<Outcome> {
    let disk = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let path = disk.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let (mut host, mut client) = boot_with(context, disk.path(), None)?;
    log_in(&mut client)?;
    // QEMU forwards to 10.0.2.15 alone.
    set(&client, "10.0.2.77")?;
    wait_for(context, "the address does not change", || Ok(!reachable(&client)))?;
    wait_for(context, "the address is not taken back", || Ok(reachable(&client)))?;
    ensure!(host.command("log")?.contains("set back"), "the log does not tell of it");
    let now = interface(&client)?;
    ensure!(now["dhcp"] == true, "it came back, but not to DHCP: {now}");
    set(&client, "10.0.2.15")?;
    wait_for(context, "an address that works is not kept", || {
        // Whoever is logged in and gets through keeps it.
        let _ = interface(&client);
        Ok(host.command("log")?.contains("setting holds"))
    })?;
    client.get("/api/v1/host/reboot", &["--request", "POST"])?;
    host = started_again(host)?;
    client.token.clear();
    wait_for(context, "the host cannot be reached any more", || Ok(reachable(&client)))?;
    log_in(&mut client)?;
    let now = interface(&client)?;
    ensure!(
        now["dhcp"] == false && now["ipv4"] == "10.0.2.15" && now["gateway"] == "10.0.2.2" && now["ipv6"][0] == "2001:db8::5/64",
        "the address that was set is forgotten: {now}"
    );
    let tasks = items(&client, "tasks")?;
    ensure!(
        tasks.iter().any(|task| task["name"] == "host.reboot" && task["state"] == "success"),
        "the restart is not among the tasks: {tasks:?}"
    );
    client.get("/api/v1/host/shutdown", &["--request", "POST"])?;
    wait_for(context, "the host does not switch itself off", || Ok(!host.machine.is_running()))?;
    Ok(Outcome::Passed)
}
