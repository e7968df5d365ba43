//! Network cards of guests, Tessera's beside the peer's: instructions that the whole machine executes for what the same guests send each other and outside, in one run.
//!
//! The guests' own work is in the figures of both. A job runs short and long; the difference is the cost of what is sent alone, without the programs' start and the console.

mod memory;

use super::{
    Figure, Goal, HOST_MEMORY,
    machines::{Machines, rate},
    peer,
};
use crate::{
    Context, Failure, Result,
    initramfs::virtio_card,
    linux::succeeds,
    machine::{Config, Machine},
    systems::Guest,
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    thread,
    time::Duration,
};

/// RAM of a guest in MiB.
const GUEST_MEMORY: u32 = 128;
/// Their RAM disk.
const RAM_DISK: &str = "initramfs-net.cpio";
/// Addresses of their cards.
const MACS: [&str; 2] = ["02:54:00:09:00:01", "02:54:00:09:00:02"];
/// Modules of the peer's host beside those of the machine's own card: the bridge, and taps with vhost.
const MODULES: [&str; 8] = ["llc", "stp", "bridge", "tun", "tap", "vhost_iotlb", "vhost", "vhost_net"];
/// The commands that make the peer's bridge, with the machine's card, and the script that puts taps on it.
const PEER_BRIDGE: &str = "busybox brctl addbr br0 && ip link set br0 up && ip link set eth0 up && busybox brctl addif br0 eth0 || echo PEER-FAULT there is no bridge\n\
     printf '#!/bin/sh\\nip link set $1 up; busybox brctl addif br0 $1\\n' > /up; busybox chmod +x /up\n";
/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(100);

/// What is sent.
struct Job {
    name: &'static str,
    unit: &'static str,
    /// The short and the long run.
    counts: (u64, u64),
    /// Tessera's goal: the peer's figure times this.
    goal: u64,
    /// The guest's command; the second argument is the port of this machine's program.
    command: fn(u64, u16) -> String,
    /// What counts is what arrived.
    lossy: bool,
}

const JOBS: [Job; 4] = [
    Job {
        name: "stream-guest",
        unit: "bytes/10⁹",
        counts: (4 << 20, 68 << 20),
        goal: 2,
        command: |count, _| format!("netload stream 10.9.0.2 {count}"),
        lossy: false,
    },
    Job {
        name: "stream-outside",
        unit: "bytes/10⁹",
        counts: (1 << 20, 17 << 20),
        goal: 2,
        command: |count, port| format!("netload stream 10.0.2.2:{port} {count}"),
        lossy: false,
    },
    Job {
        name: "request-response",
        unit: "transactions/10⁹",
        counts: (200, 1200),
        goal: 2,
        command: |count, _| format!("netload ask 10.9.0.2 {count}"),
        lossy: false,
    },
    Job {
        name: "packets",
        unit: "packets/10⁹",
        counts: (1000, 9000),
        goal: 3,
        command: |count, _| format!("/tests/packets {} {count}", MACS[1]),
        lossy: true,
    },
];

/// The program outside that takes streams as `netload serve` does; it ends with this process.
fn outside() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut client = client;
                let mut block = vec![0; 1 << 17];
                // The first byte says what the connection is for.
                let Ok(()) = client.read_exact(&mut block[..1]) else { return };
                let mut total = 0_u64;
                while let Ok(count @ 1..) = client.read(&mut block) {
                    total += count as u64;
                }
                // Who went away wants no number.
                let _ = client.write_all(&total.to_le_bytes());
            });
        }
    });
    Ok(port)
}

/// Packets that the second guest has got.
fn received(machine: &mut Machine) -> Result<u64> {
    let text = succeeds(&mut machine.serial, "netload received 10.9.0.2")?;
    let number = text.split_whitespace().rev().find_map(|word| word.parse().ok());
    number.ok_or_else(|| Failure::new(format!("the second guest does not count: {text}")))
}

/// Runs a job once.
fn run(machine: &mut Machine, job: &Job, port: u16) -> Result<u64> {
    let mut measure = |count| -> Result<(u64, u64)> {
        machine.serial.wait_at_most(PATIENCE);
        let before = if job.lossy { received(machine)? } else { 0 };
        let begin = machine.counter()?.when_idle()?;
        machine.counter()?.keep(&format!("{}-begin", job.name))?;
        machine.serial.wait_at_most(PATIENCE);
        succeeds(&mut machine.serial, &(job.command)(count, port))?;
        let instructions = machine.counter()?.when_idle()?.saturating_sub(begin);
        machine.counter()?.keep(&format!("{}-end", job.name))?;
        let arrived = if job.lossy {
            received(machine)?.saturating_sub(before)
        } else {
            count
        };
        Ok((instructions, arrived))
    };
    let (short, long) = (measure(job.counts.0)?, measure(job.counts.1)?);
    Ok(rate(long.0.saturating_sub(short.0), long.1.saturating_sub(short.1)))
}

/// Has a machine that stands still tell of itself in its log, for people; it is not used any more.
fn tell(machine: &mut Machine) {
    const WORDS: [&str; 8] = [
        "\x03",
        "cat /proc/interrupts\n",
        "ip -s link show eth0\n",
        "ping -c 2 -W 2 10.9.0.2\n",
        "\x1d",
        "ps\r",
        "vm exits one\r",
        "vm exits two\r",
    ];
    for words in WORDS {
        // It may not even hear this.
        let _ = machine.serial.send(words.as_bytes());
        thread::sleep(Duration::from_secs(3));
    }
}

/// The machine's own card, with QEMU's user network behind it.
fn add_card(config: &mut Config) {
    let arguments = [
        "-netdev",
        "user,id=out",
        "-device",
        "virtio-net-pci,netdev=out,mac=52:54:00:00:00:01",
    ];
    config.extra.extend(arguments.map(Into::into));
}

/// Waits for the first guest and for the second to answer it.
fn with_guests(mut machine: Machine) -> Result<Machine> {
    machine.serial.wait_at_most(Duration::from_secs(400));
    machine.serial.fatal("GUEST-FAULT");
    machine.serial.expect("Type commands")?;
    // Long commands stay on one line.
    succeeds(&mut machine.serial, "stty cols 1000 2>/dev/null; true")?;
    let up = "ip link set eth0 up && ip addr add 10.9.0.1/24 dev eth0 && ip addr add 10.0.2.15/24 dev eth0";
    succeeds(&mut machine.serial, up)?;
    succeeds(&mut machine.serial, "until netload received 10.9.0.2; do sleep 1; done")?;
    Ok(machine)
}

/// The command line of a guest: the second serves the first.
fn command_line(guest: usize) -> &'static str {
    if guest == 0 {
        "console=ttyS0 quiet"
    } else {
        "console=ttyS0 quiet guest.test=net-serve"
    }
}

/// The peer with both guests, each on a tap with vhost, and a bridge that the machine's card is on too.
fn peer_machine(context: &Context) -> Result<Machine> {
    let guest = |number: usize, rest: &str| {
        format!(
            "{} -m {GUEST_MEMORY} -kernel /vmlinuz -initrd /{RAM_DISK} -append '{}' -netdev tap,id=net,vhost=on,script=/up,downscript=no \
             -device virtio-net-pci,netdev=net,mac={},romfile= {rest}",
            peer::QEMU,
            command_line(number),
            MACS[number]
        )
    };
    // One after the other: two that start at once on one processor stand still more often.
    let script = format!(
        "{PEER_BRIDGE}\
         {} &\n\
         until grep -q GUEST-UP /tmp/two; do sleep 1; done\n\
         setsid cttyhack {}",
        guest(1, "-serial file:/tmp/two -monitor none </dev/null"),
        guest(0, "-serial stdio -monitor none")
    );
    let modules = [&MODULES[..], &virtio_card()].concat();
    let host = peer::Host {
        modules: &modules,
        guest: RAM_DISK,
        files: &[],
        script: &script,
    };
    peer::start(context, &host, add_card)
}

/// Tessera with both guests.
fn tessera_machine(context: &Context) -> Result<Machine> {
    let path = context.guest_file(RAM_DISK).map_err(Failure)?;
    let mut system = context.product()?.without_machines().file("net-initramfs", &path);
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let mut guest = Guest::debian(name, "");
        (guest.memory, guest.initramfs) = (GUEST_MEMORY, Some("net-initramfs"));
        guest.command_line = command_line(number).into();
        guest.nics = vec![format!("{{ port-group = \"VM Network\", mac = \"{}\" }}", MACS[number])];
        system = system.guest(&guest);
    }
    let mut config = context.config(&system.into())?;
    (config.cpus, config.memory, config.counted) = (1, HOST_MEMORY, true);
    add_card(&mut config);
    let mut host = crate::shell::Host::new(context.start(&config)?)?;
    host.start_command("vm console one")?;
    Ok(host.machine)
}

/// Both sides, or the one that is asked for; goals are known when both are.
pub fn measure(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let port = outside()?;
    let wanted = |name: &str| name.starts_with(prefix) || prefix.starts_with(name);
    let side = |side: &str, start: &dyn Fn(&Context) -> Result<Machine>| -> Result<Vec<Figure>> {
        // Logs of their own.
        let name = format!("{}-{side}", context.name);
        let context = Context { name: &name, ..*context };
        let start = || with_guests(start(&context)?);
        let mut machines = Machines::new(&start);
        let mut figures = Vec::new();
        for job in &JOBS {
            let name = format!("net.{side}.{}", job.name);
            if wanted(&name) {
                let run = |machine: &mut Machine| run(machine, job, port).inspect_err(|_| tell(machine));
                figures.push(machines.measure(&name, job.unit, run)?);
            }
        }
        Ok(figures)
    };
    let mut figures = side("peer", &peer_machine)?;
    let memory = |name: &str, measure: &dyn Fn(&Context) -> Result<u64>| -> Result<Vec<Figure>> {
        if !wanted(name) {
            return Ok(vec![]);
        }
        let context = Context {
            name: "bench-net-memory",
            ..*context
        };
        Ok(vec![Figure::single(name, measure(&context)?, "KiB", None)])
    };
    figures.append(&mut memory("net.peer.memory", &memory::of_peer)?);
    let mut ours = side("tessera", &tessera_machine)?;
    for figure in &mut ours {
        let job = JOBS.iter().find(|job| figure.name.ends_with(job.name));
        let peer = figures.iter().find(|peer| peer.name == figure.name.replace(".tessera.", ".peer."));
        if let (Some(job), Some(peer)) = (job, peer) {
            figure.goal = Some(Goal::AtLeast(peer.median * job.goal));
        }
    }
    for mut figure in memory("net.tessera.memory", &memory::of_tessera)? {
        let peer = figures.iter().find(|peer| peer.name == "net.peer.memory");
        figure.goal = peer.map(|peer| Goal::AtMost(peer.median / 10));
        ours.push(figure);
    }
    figures.append(&mut ours);
    Ok(figures)
}
