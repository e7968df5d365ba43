//! Guests' network cards: virtio network devices whose queues the network server serves from the guest's memory.

use super::Case;
use crate::{
    Context, Failure, Outcome, Result, ensure,
    linux::succeeds,
    machine::{Config, Emulator, Forward, Model, Network, Nic},
    shell::Host,
    systems::{Guest, Probe, System},
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "guest-net/two-guests",
        about: "two guests reach each other with IPv4, IPv6, large segments and jumbo frames, with one queue, and with four to one",
        minutes: 4,
        bochs: Some(11),
        run: two_guests,
    },
    Case {
        name: "guest-net/outside",
        about: "a guest gets an address by DHCP from outside, fetches a page there, and serves one to a client outside",
        minutes: 3,
        bochs: Some(2),
        run: outside,
    },
    Case {
        name: "guest-net/e1000e",
        about: "a guest with an 82574L gets an address by DHCP from outside, fetches a page there and serves one, and reaches the outside again each time the network server was killed",
        minutes: 3,
        bochs: Some(9),
        run: e1000e,
    },
    Case {
        name: "guest-net/uplinks",
        about: "a guest fetches a page from outside with IPv4 and IPv6 through each model of network card",
        minutes: 4,
        bochs: Some(2),
        run: uplinks,
    },
    Case {
        name: "guest-net/kill-net",
        about: "an open TCP connection between guests carries every byte while the network server is killed again and again",
        minutes: 5,
        bochs: Some(8),
        run: kill_net,
    },
    Case {
        name: "guest-net/hostile-queues",
        about: "a guest that breaks every rule of its card's queues harms neither host nor neighbours, and its card works after each reset",
        minutes: 5,
        bochs: Some(8),
        run: hostile_queues,
    },
    Case {
        name: "guest-net/host-port",
        about: "a server of the host reaches the outside through a port of its own, also after the network server was killed",
        minutes: 2,
        bochs: Some(5),
        run: host_port,
    },
    Case {
        name: "guest-net/no-group",
        about: "a guest's card whose port group does not exist has no link, and the log says which port groups there are",
        minutes: 2,
        bochs: Some(2),
        run: no_group,
    },
    Case {
        name: "guest-net/memory-comes-back",
        about: "ending the network server and the machine in any order gives all memory back to the page",
        minutes: 4,
        bochs: Some(6),
        run: memory_comes_back,
    },
];

/// Bytes of the files that are sent.
const LENGTH: usize = 4 << 20;
/// Times that the network server is killed.
const KILLS: usize = 10;

/// The description's file with the RAM disk that has the drivers.
const RAM_DISK: &str = "debian-net-initramfs";

/// The delivered system without its machines, with that RAM disk.
pub(super) fn system(context: &Context) -> Result<System> {
    let path = context.guest_file("initramfs-net.cpio").map_err(Failure::new)?;
    Ok(context.product()?.without_machines().file(RAM_DISK, &path))
}

/// A guest of the RAM disk with a network card.
pub(super) fn guest(name: &str) -> Guest {
    let mut guest = Guest::debian(name, "");
    guest.initramfs = Some(RAM_DISK);
    guest.nics = vec!["{ port-group = \"VM Network\" }".into()];
    guest
}

/// Gives the machine a network card behind which the emulator's user network is, with these ports forwarded.
fn add_card(config: &mut Config, forwards: &[Forward]) {
    // As with the hostile disk: with a second processor QEMU 7.2 loses exits.
    config.cpus = 1;
    config.nics.push(Nic::usual(config.emulator, Network::User(forwards.into())));
}

/// Runs a command in a guest; its console is opened and left.
pub(super) fn run(host: &mut Host, guest: &str, line: &str) -> Result<String> {
    host.start_command(&format!("vm console {guest}"))?;
    let text = after_scrollback(host, line)?;
    host.leave_console()?;
    Ok(text)
}

/// Runs a command on a console that was just opened: what was printed before comes first, with the ends of earlier commands in it.
pub(super) fn after_scrollback(host: &mut Host, line: &str) -> Result<String> {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let number = RUN.fetch_add(1, Ordering::Relaxed);
    host.serial().send_line(&format!("echo be\"\"gin {number}."))?;
    host.serial().expect(&format!("begin {number}."))?;
    succeeds(host.serial(), line)
}

/// Boots two guests and gives them addresses.
fn pair(context: &Context, vcpus: u32, card: bool) -> Result<Result<Host, String>> {
    pair_and(context, vcpus, card, |system| system)
}

/// The same with others beside them.
fn pair_and(context: &Context, vcpus: u32, card: bool, others: impl FnOnce(System) -> System) -> Result<Result<Host, String>> {
    if let Err(missing) = context.guest_file("cloud/modules/virtio_net.ko") {
        return Ok(Err(missing));
    }
    let mut system = system(context)?;
    for name in ["one", "two"] {
        let mut guest = guest(name);
        // Several processors in both are more than QEMU 7.2 does reliably.
        guest.vcpus = if name == "one" { vcpus } else { 1 };
        system = system.guest(&guest);
    }
    let mut host = context.boot(&others(system).into(), |config| {
        config.cpus = 1;
        if card {
            add_card(config, &[]);
        }
    })?;
    for (number, name) in [(1, "one"), (2, "two")] {
        host.console(name, "Type commands")?;
        let up =
            format!("ip link set eth0 up mtu 9000 && ip addr add 10.9.0.{number}/24 dev eth0 && ip addr add fd09::{number}/64 dev eth0");
        succeeds(host.serial(), &up)?;
        host.leave_console()?;
    }
    Ok(Ok(host))
}

fn two_guests(context: &Context) -> Result<Outcome> {
    for vcpus in [1, 4] {
        let mut host = match pair(context, vcpus, true)? {
            Ok(host) => host,
            Err(missing) => return Outcome::skip(missing),
        };
        let queues = run(&mut host, "one", "echo queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l).")?;
        let right = queues.contains(&format!("queues {vcpus}."));
        ensure!(right, "with {vcpus} processors: {queues}");
        for line in [
            "ping -c 3 10.9.0.2",
            "ping -c 2 -s 8900 10.9.0.2",
            "ping6 -c 2 fd09::2",
            "ping6 -c 2 -s 8900 fd09::2",
        ] {
            let text = run(&mut host, "one", line)?;
            ensure!(text.contains(" 0% packet loss"), "`{line}`: {text}");
        }
        // Through TCP with large segments and checksums that nobody fills in.
        run(&mut host, "two", "nc -l -p 5000 > /tmp/got & true")?;
        let sent = run(
            &mut host,
            "one",
            &format!(
                "dd if=/dev/urandom of=/tmp/sent bs=64k count={} 2>&1 && nc 10.9.0.2 5000 < /tmp/sent && busybox sha256sum /tmp/sent",
                LENGTH >> 16
            ),
        )?;
        let got = run(&mut host, "two", "sleep 1; busybox sha256sum /tmp/got")?;
        let (sent, got) = (digest(&sent), digest(&got));
        ensure!(sent.is_some() && sent == got, "sent {sent:?}, got {got:?}");
        let ps = host.neat_command("ps")?;
        ensure!(ps.contains("net"), "`ps` says:\n{ps}");
    }
    Ok(Outcome::Passed)
}

/// The digest that `sha256sum` printed.
fn digest(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    words
        .find(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(Into::into)
}

/// A port of this machine that nobody uses now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn outside(context: &Context) -> Result<Outcome> {
    if let Err(missing) = context.guest_file("cloud/modules/virtio_net.ko") {
        return Outcome::skip(missing);
    }
    let system = system(context)?.guest(&guest("one"));
    let port = free_port()?;
    let mut host = context.boot(&system.into(), |config| add_card(config, &[Forward::new(port, 80)]))?;
    host.console("one", "Type commands")?;
    exchange_pages(&mut host, port)?;
    Ok(Outcome::Passed)
}

/// A guest, at whose shell this is, gets an address, fetches a page from this machine and serves it to it: its port 80 is `port` here.
pub(super) fn exchange_pages(host: &mut Host, port: u16) -> Result<()> {
    let script = "printf '#!/bin/sh\\n[ $1 != bound ] || (ip addr add $ip/24 dev $interface; ip route add default via $router)\\n' > /tmp/lease && chmod +x /tmp/lease";
    succeeds(host.serial(), script)?;
    succeeds(
        host.serial(),
        "ip link set eth0 up && udhcpc -i eth0 -n -q -s /tmp/lease && ip addr show eth0 | grep 10.0.2.15",
    )?;
    // A page of this machine, which the guest reaches as 10.0.2.2.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let page: Vec<u8> = (0..LENGTH).map(|place| (place * 7 + place / 251) as u8).collect();
    let served = listener.local_addr()?.port();
    let body = page.clone();
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut request = [0; 1024];
        let _ = client.read(&mut request)?;
        write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
        client.write_all(&body)
    });
    succeeds(
        host.serial(),
        &format!("mkdir -p /www && wget -q -O /www/page http://10.0.2.2:{served}/page"),
    )?;
    server.join().map_err(|_| crate::Failure::new("the page's server panicked"))??;
    // And back, from the guest's server to a client outside.
    succeeds(host.serial(), "httpd -p 80 -h /www")?;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    client.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    ensure!(answer.ends_with(&page), "{} bytes came back, not the page", answer.len());
    Ok(())
}

/// A system with `generic-kernel`, for the one for clouds has no drivers of a PC's devices, and with `pc-initramfs`, which loads them.
pub(super) fn with_pc_drivers(context: &Context) -> Result<System, String> {
    let [kernel, initramfs] = ["generic/vmlinuz", "initramfs-pc.cpio"].map(|file| context.guest_file(file));
    let product = context.product().map_err(|error| error.to_string())?;
    let system = product.without_machines().file("generic-kernel", &kernel?);
    Ok(system.file("pc-initramfs", &initramfs?))
}

/// Debian's generic kernel with that RAM disk.
pub(super) fn pc_guest(name: &str) -> Guest {
    Guest {
        kernel: "generic-kernel",
        initramfs: Some("pc-initramfs"),
        memory: 256,
        ..Guest::debian(name, "")
    }
}

fn e1000e(context: &Context) -> Result<Outcome> {
    let system = match with_pc_drivers(context) {
        Ok(system) => system,
        Err(missing) => return Outcome::skip(missing),
    };
    let guest = Guest {
        nics: vec!["{ port-group = \"VM Network\", model = \"e1000e\" }".into()],
        ..pc_guest("one")
    };
    let port = free_port()?;
    let mut host = context.boot(&system.guest(&guest).into(), |config| add_card(config, &[Forward::new(port, 80)]))?;
    host.console("one", "Type commands")?;
    let driver = succeeds(host.serial(), "readlink /sys/class/net/eth0/device/driver; ip link set eth0 up")?;
    ensure!(driver.contains("e1000e"), "the card's driver is {driver}");
    exchange_pages(&mut host, port)?;
    // Packets are cut, and checksums filled in, on the host.
    let told = succeeds(
        host.serial(),
        "cat /sys/class/net/eth0/speed /sys/class/net/eth0/duplex /sys/class/net/eth0/statistics/rx_crc_errors",
    )?;
    ensure!(told.contains("1000") && told.contains("full"), "the card says: {told}");
    for _ in 0..KILLS {
        host.leave_console()?;
        host.neat_command("kill net")?;
        host.wait_until_runs("net")?;
        run(&mut host, "one", "ping -c 1 -w 10 10.0.2.2")?;
        host.start_command("vm console one")?;
    }
    // The driver resets the card, and sets it up anew.
    succeeds(
        host.serial(),
        "ip link set eth0 down && ip link set eth0 up && until ping -c 1 -w 5 10.0.2.2; do sleep 1; done",
    )?;
    Ok(Outcome::Passed)
}

fn kill_net(context: &Context) -> Result<Outcome> {
    // QEMU's user network takes frames that are for others, and refuses their connections.
    let mut host = match pair(context, 1, false)? {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    // A program of its own takes the bytes: nc would read the console, which stops it there.
    let take =
        "printf '#!/bin/sh\\ncat > /tmp/got; echo done > /tmp/over\\n' > /tmp/take && chmod +x /tmp/take && (nc -l -p 5000 -e /tmp/take &)";
    run(&mut host, "two", take)?;
    // Slow enough to last longer than the kills.
    let send = "(for i in $(seq 200); do dd if=/dev/urandom bs=16k count=1 2>/dev/null | tee -a /tmp/sent; sleep 0.1; done | nc 10.9.0.2 5000; echo done > /tmp/over) & true";
    run(&mut host, "one", &send.replace("tee -a /tmp/sent", "busybox tee -a /tmp/sent"))?;
    for _ in 0..KILLS {
        host.neat_command("kill net")?;
        host.wait_until_runs("net")?;
        run(&mut host, "one", "ping -c 1 -w 5 10.9.0.2")?;
    }
    run(&mut host, "one", "while [ ! -f /tmp/over ]; do sleep 1; done")?;
    let sent = run(&mut host, "one", "wc -c /tmp/sent; busybox sha256sum /tmp/sent")?;
    let got = run(
        &mut host,
        "two",
        "while [ ! -f /tmp/over ]; do sleep 1; done; wc -c /tmp/got; busybox sha256sum /tmp/got",
    )?;
    ensure!(digest(&sent).is_some() && digest(&sent) == digest(&got), "sent {sent}, got {got}");
    Ok(Outcome::Passed)
}

/// Serves a page once, to a client of this machine.
fn serve_page(address: std::net::IpAddr, page: &'static [u8]) -> Result<u16> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || -> std::io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let mut request = [0; 1024];
        let _ = client.read(&mut request)?;
        write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", page.len())?;
        client.write_all(page)
    });
    Ok(port)
}

fn uplinks(context: &Context) -> Result<Outcome> {
    if let Err(missing) = context.guest_file("cloud/modules/virtio_net.ko") {
        return Outcome::skip(missing);
    }
    let models = match context.emulator {
        Emulator::Qemu => &[Model::Virtio, Model::E1000, Model::E1000e, Model::Igb][..],
        Emulator::Bochs => &[Model::E1000],
    };
    for &model in models {
        if context.emulator == Emulator::Qemu && !model.is_known() {
            continue;
        }
        let mut host = context.boot(&system(context)?.guest(&guest("one")).into(), |config| {
            config.cpus = 1;
            config.nics.push(Nic {
                network: Network::User(Vec::new()),
                ..Nic::new(model)
            });
        })?;
        host.console("one", "Type commands")?;
        // The emulator's user network gives these addresses, and reaches this machine's own under 10.0.2.2 and fec0::2.
        let up = "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip addr add fec0::15/64 dev eth0";
        succeeds(host.serial(), up)?;
        for (address, outside) in [(Ipv4Addr::LOCALHOST.into(), "10.0.2.2"), (Ipv6Addr::LOCALHOST.into(), "[fec0::2]")] {
            let port = serve_page(address, b"a page from outside")?;
            let text = succeeds(host.serial(), &format!("wget -q -O - http://{outside}:{port}/page && echo"))?;
            ensure!(text.contains("a page from outside"), "{} {outside}: {text}", model.name());
        }
    }
    Ok(Outcome::Passed)
}

fn hostile_queues(context: &Context) -> Result<Outcome> {
    let bare = match context.guest_file("bare-guest") {
        Ok(bare) => bare,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut hostile = Guest::bare("virtio-net");
    hostile.nics = vec!["{ port-group = \"VM Network\" }".into()];
    let others = |system: System| system.file("bare-guest", &bare).guest(&hostile);
    let mut host = match pair_and(context, 1, true, others)? {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    run(&mut host, "two", "(netload serve &) ; true")?;
    let work = "(while netload stream 10.9.0.2 1000000; do echo x >> /tmp/streams; done; echo neighbour\"\" failed) & true";
    run(&mut host, "one", work)?;
    host.neat_command("vm start virtio-net")?;
    host.start_command("vm console virtio-net")?;
    let verdict = host.serial().expect_line("BARE virtio end (.*)$")?;
    ensure!(verdict[1].trim() == "ok", "in the hostile guest: {}", verdict[1]);
    host.leave_console()?;
    host.wait_until_runs("net")?;
    let log = host.command("log")?;
    ensure!(!log.contains("init: net (server"), "the network server ended:\n{log}");
    // The neighbours do not only wait.
    let streams = run(
        &mut host,
        "one",
        "rm /tmp/streams; while [ ! -s /tmp/streams ]; do sleep 1; done; jobs",
    )?;
    ensure!(
        !streams.contains("neighbour failed") && streams.contains("Running"),
        "the neighbours: {streams}"
    );
    Ok(Outcome::Passed)
}

fn memory_comes_back(context: &Context) -> Result<Outcome> {
    let mut host = match pair(context, 1, true)? {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    host.command("vm stop two")?;
    host.command("vm stop one")?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    let before = host.free_pages()?;
    for end in [
        &["vm stop one"][..],
        &["kill vmm.one"],
        &["kill net", "vm stop one"],
        &["vm stop one", "kill net"],
    ] {
        host.neat_command("vm start one")?;
        host.console("one", "Type commands")?;
        succeeds(host.serial(), "ip link set eth0 up && ip addr add 10.9.0.1/24 dev eth0")?;
        host.serial().send_line("ping -A -b 10.9.0.255 > /dev/null & echo under\"\" way")?;
        host.serial().expect("under way")?;
        host.leave_console()?;
        for command in end {
            host.command(command)?;
        }
        host.poll_command("vm list", |text| !text.contains("running"))?;
        host.wait_until_runs("net")?;
        host.wait_for_free(before)?;
    }
    Ok(Outcome::Passed)
}

fn no_group(context: &Context) -> Result<Outcome> {
    if let Err(missing) = context.guest_file("cloud/modules/virtio_net.ko") {
        return Outcome::skip(missing);
    }
    let mut guest = guest("one");
    guest.nics = vec!["{ port-group = \"Nowhere\" }".into()];
    let system = system(context)?.guest(&guest);
    let mut host = context.boot(&system.into(), |config| add_card(config, &[]))?;
    host.console("one", "Type commands")?;
    let script = "ip link set eth0 up; sleep 1; echo link $(cat /sys/class/net/eth0/carrier).";
    let carrier = succeeds(host.serial(), script)?;
    ensure!(carrier.contains("link 0."), "the card has a link: {carrier}");
    host.leave_console()?;
    host.poll_command("log", |text| {
        // Lines are broken where the terminal ends.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        text.contains("no port group `Nowhere`") && text.contains("VM Network") && text.contains("Management Network")
    })?;
    Ok(Outcome::Passed)
}

fn host_port(context: &Context) -> Result<Outcome> {
    let system = context.product()?.without_guests().probe(
        Probe::new("user", "port 20")
            .reports()
            .grant("net = { use = \"net\" }")
            .grant("frames = { share = \"net + 256 KiB\" }"),
    );
    let mut host = context.boot(&system.into(), |config| {
        add_card(config, &[]);
        config.second_port = true;
    })?;
    for round in [3, 8] {
        host.com2()?.expect(&format!("round {round} is done"))?;
        host.command("kill net")?;
    }
    super::isolation::verdicts(&mut host, "port")?;
    Ok(Outcome::Passed)
}
