//! Network cards of guests that run Debian from a disk, with the programs that people use: iperf3, nginx.

use super::{Case, guest_net::free_port};
use crate::{
    Context, Outcome, Result, ensure,
    linux::{self, succeeds},
    machine::{Config, Disk, Forward, Network, Nic},
    shell::Host,
    systems::Guest,
};
use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "debian-net/kill-under-load",
        about: "connections between Debian guests survive that the network server is killed under iperf3 again and again (TESSERA_KILLS times, 10)",
        minutes: 6,
        bochs: Some(15),
        run: kill_under_load,
    },
    Case {
        name: "debian-net/nginx",
        about: "nginx on a Debian guest serves a page to a client outside of the host",
        minutes: 4,
        bochs: Some(8),
        run: nginx,
    },
];

/// Boots Debian guests of these names, each from a disk of its own, logs in on the console of each and runs `up` there, in which `{}` is its number.
fn boot(context: &Context, names: &[&str], up: &str, change: impl FnOnce(&mut Config)) -> Result<Result<Host, String>> {
    let (disk, initramfs) = match (context.guest_file("debian/disk.img"), context.guest_file("initramfs-disk.cpio")) {
        (Ok(disk), Ok(initramfs)) => (disk, initramfs),
        (Err(missing), _) | (_, Err(missing)) => return Ok(Err(missing)),
    };
    let mut system = context.product()?.without_machines().file("disk-initramfs", &initramfs);
    for (number, name) in names.iter().enumerate() {
        let mut guest = Guest::debian(name, "");
        (guest.memory, guest.initramfs) = (256, Some("disk-initramfs"));
        guest.command_line = linux::PLAIN.into();
        guest.disks = vec![format!("{{ device = \"{}\" }}", Disk::usual_name(context.emulator, number))];
        guest.nics = vec!["{ port-group = \"VM Network\" }".into()];
        system = system.guest(&guest);
    }
    let mut host = context.boot(&system.into(), |config| {
        // With a second processor QEMU 7.2 loses exits.
        config.cpus = 1;
        for number in 0..names.len() {
            let mut disk = Disk::usual(context.emulator, &disk, &format!("disk{number}"));
            disk.vanishes = true;
            config.disks.push(disk);
        }
        change(config);
    })?;
    for (number, name) in names.iter().enumerate() {
        host.start_command(&format!("vm console {name}"))?;
        linux::log_in(host.serial())?;
        succeeds(host.serial(), "stty cols 1000")?;
        succeeds(host.serial(), &up.replace("{}", &(number + 1).to_string()))?;
        host.leave_console()?;
    }
    Ok(Ok(host))
}

/// Runs a command in a guest; its console is opened and left.
fn run(host: &mut Host, guest: &str, line: &str) -> Result<String> {
    host.start_command(&format!("vm console {guest}"))?;
    // The scrollback, with the ends of earlier commands in it, is over when this comes.
    let text = super::guest_net::after_scrollback(host, line)?;
    host.leave_console()?;
    Ok(text)
}

/// Times that the network server is killed.
fn kills() -> u32 {
    let wanted = std::env::var("TESSERA_KILLS").ok().and_then(|kills| kills.parse().ok());
    wanted.unwrap_or(10)
}

fn kill_under_load(context: &Context) -> Result<Outcome> {
    let up = "ip link set lo up; ip link set eth0 up && ip addr add 10.9.0.{}/24 dev eth0";
    let mut host = match boot(context, &["one", "two"], up, |_| ())? {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    let echo = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 6000, Listen => 1); $c = $s->accept; $c->autoflush(1); while (<$c>) { print $c $_ }'";
    run(&mut host, "two", &format!("iperf3 -s -D && ({echo} &) && sleep 1"))?;
    run(&mut host, "one", "exec 3<>/dev/tcp/10.9.0.2/6000")?;
    let kills = kills();
    // It goes on until it is ended, which has to be by us.
    let load = "(iperf3 -c 10.9.0.2 -t 86400 -i 1 --forceflush > /tmp/iperf 2>&1; echo ended $? >> /tmp/iperf) & sleep 2; true";
    run(&mut host, "one", load)?;
    let mut log = String::new();
    for kill in 1..=kills {
        host.neat_command("kill net")?;
        host.wait_until_runs("net")?;
        // The open connection answers, and the load goes on: bytes are sent in an interval after the kill.
        let ask = format!(
            "echo question {kill} >&3 && read -t 120 -u 3 answer && test \"$answer\" = 'question {kill}' && \
             wc -l < /tmp/iperf > /tmp/lines && until tail -n +$(($(cat /tmp/lines) + 2)) /tmp/iperf | grep -q 'MBytes\\|KBytes\\|GBytes'; do sleep 1; done; \
             ! grep ended /tmp/iperf"
        );
        let text = run(&mut host, "one", &ask)?;
        // Writing to a String does not fail.
        let _ = writeln!(log, "{text}");
    }
    let sum = run(&mut host, "one", "pkill -INT iperf3; sleep 2; tail -n 8 /tmp/iperf")?;
    ensure!(sum.contains("sender"), "iperf3 does not sum up: {sum}\n{log}");
    Ok(Outcome::Passed)
}

fn nginx(context: &Context) -> Result<Outcome> {
    let port = free_port()?;
    let up = "ip link set lo up; ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2";
    let booted = boot(context, &["web"], up, |config| {
        config
            .nics
            .push(Nic::usual(context.emulator, Network::User(vec![Forward::new(port, 80)])));
    })?;
    let mut host = match booted {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    run(&mut host, "web", "seq 1 400000 > /var/www/html/page && nginx && sleep 1")?;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    client.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, page) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    ensure!(head.contains("200 OK") && head.contains("Server: nginx"), "{head}");
    let right = page.lines().zip(1..).all(|(line, number)| line == number.to_string()) && page.lines().count() == 400_000;
    ensure!(right, "the page came with {} lines, or changed", page.lines().count());
    Ok(Outcome::Passed)
}
