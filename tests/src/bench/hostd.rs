//! What management costs: how much the machine executes from power-on until the log-in page is served, for a page beside the same page of nginx in a Debian guest, and for an upload
//! beside the same bytes through a plain TCP stream; and the memory of hostd with 100 machines and 20 clients.

use super::{
    Figure, Goal, HOST_MEMORY,
    machines::{self, rate},
};
use crate::{
    Context, Failure, Result,
    disks::Scratch,
    ensure,
    linux::{self, succeeds},
    machine::{Disk, Machine},
    shell::Host,
    systems::{Guest, System},
};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

/// The first password of the machine's host.
const PASSWORD: &str = "measured-by-bench";
/// How long the machine's start may take, and a job.
const PATIENCE: Duration = Duration::from_secs(600);
/// Inventory and clients of the figure for memory.
const MACHINES: u32 = 100;
const CLIENTS: u32 = 20;
/// Requests of all clients together while memory is looked at.
const LISTS: u32 = 60;
/// Pages of the short and the long run.
const PAGES: (u64, u64) = (20, 220);
/// A measurement is taken so often, and the median counts.
const RUNS: usize = 3;
/// Bytes of the short and the long run of a stream.
const BYTES: (u64, u64) = (1 << 20, 9 << 20);
/// The guest that takes plain streams: its RAM disk, its address in the emulator's network, and the port of `netload serve`.
const RAM_DISK: &str = "initramfs-net.cpio";
const GUEST_ADDRESS: &str = "10.0.2.20";
const GUEST_PORT: u16 = 5001;
/// The guest with nginx.
const NGINX_ADDRESS: &str = "10.0.2.21";
/// The page that both serve, and where it is in the project.
const PAGE: &str = "favicon.svg";
const PAGE_FOLDER: &str = "hostd-server/web/public";
/// What nginx is told beside its certificate: TLS and HTTP as hostd speaks them.
const NGINX: &str = "server { listen 443 ssl; ssl_protocols TLSv1.3; ssl_certificate /etc/nginx/own.pem; ssl_certificate_key /etc/nginx/own.key; root /var/www/html; access_log off; }";

/// What is asked for by curl, which is not ours.
fn curl(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "300"])
        .args(arguments)
        .output()?)
}

/// A body, of an answer that is a good one.
fn ask(arguments: &[&str]) -> Result<Value> {
    let output = curl(&[&["--fail-with-body"], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "curl: {} {text}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|e| Failure::new(format!("{text} is no JSON: {e}")))
}

/// Ports of this machine that lead to hostd, to the guest that takes streams, and to nginx.
struct Ports {
    hostd: u16,
    sink: u16,
    nginx: u16,
}

/// Free ones.
fn ports() -> Result<Ports> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All at once, so that none is given twice.
    let listeners = (listen()?, listen()?, listen()?);
    Ok(Ports {
        hostd: listeners.0.local_addr()?.port(),
        sink: listeners.1.local_addr()?.port(),
        nginx: listeners.2.local_addr()?.port(),
    })
}

/// A host that is managed from here.
struct Managed<'a> {
    base: &'a str,
    token: String,
}

impl Managed<'_> {
    fn log_in(base: &str) -> Result<Managed<'_>> {
        let body = json!({ "user": "root", "password": PASSWORD, "bearer": true }).to_string();
        let answer = ask(&["--json", &body, &format!("{base}/api/v1/session")])?;
        let token = format!("Authorization: Bearer {}", answer["token"].as_str().unwrap_or_default());
        Ok(Managed { base, token })
    }

    fn get(&self, path: &str) -> Result<Value> {
        ask(&["--header", &self.token, &format!("{}/api/v1{path}", self.base)])
    }

    /// Waits for the end of the task that this begins, which has to be a good one.
    fn does(&self, path: &str, body: &Value) -> Result<()> {
        let task = ask(&[
            "--header",
            &self.token,
            "--json",
            &body.to_string(),
            &format!("{}/api/v1{path}", self.base),
        ])?;
        loop {
            let now = self.get(&format!("/tasks/{}", task["id"].as_str().unwrap_or_default()))?;
            match now["state"].as_str() {
                Some("success") => return Ok(()),
                Some("queued" | "running") => thread::sleep(Duration::from_millis(100)),
                _ => return Err(Failure::new(format!("a task failed: {now}"))),
            }
        }
    }
}

/// Starts the host with an empty disk, and guests that do not run yet; waits until it serves. Instructions that were executed until then are put into `served`.
fn start(context: &Context, ports: &Ports, disk: &Scratch, served: &Cell<u64>) -> Result<Machine> {
    let path = context.guest_file(RAM_DISK).map_err(Failure)?;
    let mut guest = Guest::debian("sink", "");
    (guest.memory, guest.initramfs, guest.autostart) = (128, Some("net-initramfs"), false);
    guest.command_line = "console=ttyS0 quiet".into();
    guest.nics = vec!["{ port-group = \"VM Network\" }".into()];
    let mut web = Guest::debian("nginx", "");
    (web.memory, web.initramfs, web.autostart) = (256, Some("disk-initramfs"), false);
    web.command_line = linux::PLAIN.into();
    web.disks = vec![format!("{{ device = \"{}\" }}", Disk::usual_name(context.emulator, 1))];
    web.nics = vec!["{ port-group = \"VM Network\" }".into()];
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .first_password(PASSWORD)
        .file("net-initramfs", &path)
        .file("disk-initramfs", &context.guest_file("initramfs-disk.cpio").map_err(Failure)?)
        .guest(&guest)
        .guest(&web);
    let mut config = context.config(&system.into())?;
    (config.cpus, config.memory, config.counted) = (1, HOST_MEMORY, true);
    config.disks.push(Disk::usual(context.emulator, disk.path(), "STORE"));
    let mut debian = Disk::usual(context.emulator, &context.guest_file("debian/disk.img").map_err(Failure)?, "DEBIAN");
    debian.vanishes = true;
    config.disks.push(debian);
    let user = format!(
        "user,id=out,hostfwd=tcp:127.0.0.1:{}-10.0.2.15:443,hostfwd=tcp:127.0.0.1:{}-{GUEST_ADDRESS}:{GUEST_PORT},hostfwd=tcp:127.0.0.1:{}-{NGINX_ADDRESS}:443",
        ports.hostd, ports.sink, ports.nginx
    );
    let card = ["-netdev", &user, "-device", "virtio-net-pci,netdev=out,mac=52:54:00:00:00:01"];
    config.extra.extend(card.map(Into::into));
    let machine = context.start(&config)?;
    let page = format!("https://127.0.0.1:{}/", ports.hostd);
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let output = curl(&["--compressed", "--fail", "--connect-timeout", "5", &page])?;
        if output.status.success() {
            ensure!(
                String::from_utf8_lossy(&output.stdout).contains("<title>"),
                "the first page is no page"
            );
            served.set(machine.counter()?.instructions()?);
            return Ok(machine);
        }
        ensure!(std::time::Instant::now() < end, "nothing is served at {page}");
        thread::sleep(Duration::from_millis(200));
    }
}

/// Instructions of what is done, from rest to rest.
fn instructions(machine: &Machine, name: &str, mut does: impl FnMut() -> Result<()>) -> Result<u64> {
    let begin = machine.counter()?.when_idle()?;
    machine.counter()?.keep(&format!("{name}-begin"))?;
    does()?;
    let end = machine.counter()?.when_idle()?;
    machine.counter()?.keep(&format!("{name}-end"))?;
    Ok(end.saturating_sub(begin))
}

/// What is done in 10⁹ instructions, from the difference between much of it and little.
fn repeated(name: &str, unit: &str, machine: &Machine, counts: (u64, u64), run: &dyn Fn(u64) -> Result<()>) -> Result<Figure> {
    let mut found = Vec::new();
    for _ in 0..RUNS {
        let short = instructions(machine, name, || run(counts.0))?;
        let long = instructions(machine, name, || run(counts.1))?;
        found.push(rate(long.saturating_sub(short), counts.1 - counts.0));
    }
    Ok(machines::figure(name, found, unit))
}

/// Starts the guest that takes plain streams.
fn with_sink(shell: &mut Host) -> Result<()> {
    shell.neat_command("vm start sink")?;
    shell.start_command("vm console sink")?;
    shell.serial().wait_at_most(PATIENCE);
    shell.serial().expect("Type commands")?;
    succeeds(shell.serial(), "stty cols 1000 2>/dev/null; true")?;
    let up =
        format!("ip link set lo up; ip link set eth0 up && ip addr add {GUEST_ADDRESS}/24 dev eth0 && ip route add default via 10.0.2.2");
    succeeds(shell.serial(), &up)?;
    succeeds(
        shell.serial(),
        "(netload serve >/dev/null 2>&1 &) ; until netload received 127.0.0.1; do sleep 1; done",
    )?;
    shell.leave_console()?;
    Ok(())
}

/// Starts the guest with nginx, which serves the page with a certificate of the kind that hostd has (P-256), made here.
fn with_nginx(context: &Context, shell: &mut Host, scratch: &std::path::Path) -> Result<()> {
    let (key, certificate) = (scratch.with_extension("key"), scratch.with_extension("pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=nginx",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    shell.neat_command("vm start nginx")?;
    shell.start_command("vm console nginx")?;
    shell.serial().wait_at_most(PATIENCE);
    linux::log_in(shell.serial())?;
    succeeds(shell.serial(), "stty cols 1000")?;
    let page = context.environment.root.join(PAGE_FOLDER).join(PAGE);
    let files = [
        (page, format!("/var/www/html/{PAGE}")),
        (key, "/etc/nginx/own.key".into()),
        (certificate, "/etc/nginx/own.pem".into()),
    ];
    for (from, to) in files {
        // A line at a time: what is typed is taken in bit by bit.
        succeeds(shell.serial(), &format!(": > {to}"))?;
        for line in fs::read_to_string(from)?.lines() {
            succeeds(shell.serial(), &format!("echo '{line}' >> {to}"))?;
        }
    }
    succeeds(
        shell.serial(),
        &format!("rm -f /etc/nginx/sites-enabled/*; echo '{NGINX}' > /etc/nginx/conf.d/own.conf"),
    )?;
    let up = format!(
        "ip link set lo up; ip link set eth0 up && ip addr add {NGINX_ADDRESS}/24 dev eth0 && ip route add default via 10.0.2.2 && nginx"
    );
    succeeds(shell.serial(), &up)?;
    shell.leave_console()?;
    Ok(())
}

/// Pages over one connection.
fn pages(base: &str, count: u64) -> Result<()> {
    let output = curl(&["--fail", "--output", "/dev/null", &format!("{base}/{PAGE}?[1-{count}]")])?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Bytes into a file of a datastore.
fn upload(host: &Managed<'_>, store: &str, bytes: u64, scratch: &std::path::Path) -> Result<()> {
    fs::File::create(scratch)?.set_len(bytes)?;
    let url = format!("{}/api/v1/datastores/{store}/files/upload-{bytes}", host.base);
    let from = scratch.display().to_string();
    ask(&["--header", &host.token, "--upload-file", &from, &url]).map(drop)
}

/// Bytes through a plain connection to the guest, which throws them away and says how many came.
fn stream(port: u16, bytes: u64) -> Result<()> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(b"s")?;
    let block = vec![0; 1 << 17];
    for _ in 0..bytes / block.len() as u64 {
        client.write_all(&block)?;
    }
    client.shutdown(std::net::Shutdown::Write)?;
    let mut came = [0; 8];
    client.read_exact(&mut came)?;
    ensure!(u64::from_le_bytes(came) == bytes, "{came:?} of {bytes} bytes came");
    Ok(())
}

/// Memory of hostd in KiB, as `ps` shows it.
fn used(ps: &str) -> Option<u64> {
    let line = ps.lines().find(|line| line.split_whitespace().nth(1) == Some("hostd"))?;
    let mut words = line.split_whitespace().rev();
    let (unit, number) = (words.next()?, words.next()?.parse::<f64>().ok()?);
    let factor = match unit {
        "KiB" => 1.0,
        "MiB" => 1024.0,
        _ => return None,
    };
    Some((number * factor) as u64)
}

/// The most memory of hostd while clients list all machines.
fn memory(host: &Managed<'_>, shell: &mut Host) -> Result<u64> {
    for number in 0..MACHINES {
        let boot = json!({ "firmware": "direct", "kernel": "[image] debian-kernel" });
        let body = json!({ "name": format!("many-{number}"), "vcpus": 1, "memory": 64 << 20, "boot": boot });
        host.does("/vms", &body)?;
    }
    let clients = CLIENTS.to_string();
    let mut lists = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--insecure",
            "--fail",
            "--output",
            "/dev/null",
            "--max-time",
            "600",
        ])
        .args([
            "--parallel",
            "--parallel-immediate",
            "--parallel-max",
            &clients,
            "--http1.1",
            "--header",
            &host.token,
        ])
        .arg(format!("{}/api/v1/vms?limit=[{}-1000]", host.base, 1001 - LISTS))
        .stdout(Stdio::null())
        // It draws its progress, whatever it is told.
        .stderr(Stdio::null())
        .spawn()?;
    let mut most = 0;
    loop {
        let ps = shell.command("ps")?;
        most = most.max(used(&ps).ok_or_else(|| Failure::new(format!("`ps` has no hostd:\n{ps}")))?);
        if let Some(status) = lists.try_wait()? {
            ensure!(status.success(), "the clients' lists failed");
            return Ok(most);
        }
    }
}

/// All of them, or those whose names begin with the prefix.
pub fn measure(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let wanted = |name: &str| name.starts_with(prefix) || prefix.starts_with(name);
    let disk = Scratch::empty(&context.environment.root.join("build/test-images"), "bench-hostd", 1 << 30)?;
    let ports = ports()?;
    let base = format!("https://127.0.0.1:{}", ports.hostd);
    let served = Cell::new(0);
    let mut shell = Host::new(start(context, &ports, &disk, &served)?)?;
    let mut figures = vec![Figure::single("hostd.login-page", served.get(), "instructions", None)];
    let host = Managed::log_in(&base)?;
    host.does(
        "/datastores",
        &json!({ "name": "main", "device": Disk::usual_name(context.emulator, 0) }),
    )?;
    let stores = host.get("/datastores")?;
    let store = stores["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    if wanted("hostd.page") || wanted("hostd.nginx-page") {
        let ours = repeated("hostd.page", "pages/10⁹", &shell.machine, PAGES, &|count| pages(&base, count))?;
        let scratch = context.environment.logs.join("bench-hostd-nginx");
        with_nginx(context, &mut shell, &scratch)?;
        let peer = format!("https://127.0.0.1:{}", ports.nginx);
        let theirs = repeated("hostd.nginx-page", "pages/10⁹", &shell.machine, PAGES, &|count| {
            pages(&peer, count)
        })?;
        shell.neat_command("vm stop nginx")?;
        figures.extend([theirs, ours]);
    }
    if wanted("hostd.upload") || wanted("hostd.plain-stream") {
        with_sink(&mut shell)?;
        let plain = repeated("hostd.plain-stream", "bytes/10⁹", &shell.machine, BYTES, &|bytes| {
            stream(ports.sink, bytes)
        })?;
        let scratch = context.environment.logs.join("bench-hostd-upload");
        let send = |bytes| upload(&host, &store, bytes, &scratch);
        let mut uploads = repeated("hostd.upload", "bytes/10⁹", &shell.machine, BYTES, &send)?;
        fs::remove_file(scratch)?;
        uploads.goal = Some(Goal::AtLeast(plain.median * 4 / 5));
        figures.extend([plain, uploads]);
        shell.neat_command("vm stop sink")?;
    }
    if wanted("hostd.memory") {
        let most = memory(&host, &mut shell)?;
        figures.push(Figure::single("hostd.memory", most, "KiB", Some(Goal::AtMost(32 << 10))));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::used;

    #[test]
    fn memory_of_hostd_is_found() {
        let ps = "ID  NAME        STATE    PRIO    CPU      TIME  THREADS  RESTARTS   MEMORY\n 4  hostd       running    20  11.6%    773 ms        3         7   33 MiB\n";
        assert_eq!(used(ps), Some(33 << 10));
        assert_eq!(used("ID  NAME\n"), None);
    }
}
