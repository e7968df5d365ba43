//! The virtual switch with frames of real Linux guests: VLANs, policies, limits, uplinks that fail, floods, mirrors, captures.

use super::{
    Case,
    guest_net::{guest, run, system},
};
use crate::{
    Context, Failure, Outcome, Result, ensure,
    linux::succeeds,
    machine::Emulator,
    outside::{Outside, Seen},
    shell::Host,
    systems::{Guest, System},
};
use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "net-switch/vlans",
        about: "port groups keep VLANs apart, a trunk carries all, tagged frames of others are dropped, and a change holds at once and over a kill",
        minutes: 4,
        bochs: Some(6),
        run: vlans,
    },
    Case {
        name: "net-switch/policies",
        about: "promiscuous mode, forged transmits and changed addresses are refused by default, and allowed by policy",
        minutes: 5,
        bochs: Some(4),
        run: policies,
    },
    Case {
        name: "net-switch/shaping",
        about: "what a guest sends keeps to its limit within 2 % over 10 seconds",
        minutes: 3,
        bochs: Some(4),
        run: shaping,
    },
    Case {
        name: "net-switch/failover",
        about: "the standby uplink stands in when the active one has no link, and back; guests notice nothing of the link",
        minutes: 3,
        bochs: None,
        run: failover,
    },
    Case {
        name: "net-switch/flood",
        about: "a guest that sends from hundreds of addresses does not blind the switch for another",
        minutes: 5,
        bochs: Some(3),
        run: flood,
    },
    Case {
        name: "net-switch/watch",
        about: "a mirror and a capture see what a port sends and is given; pcapng is read by tcpdump; a port's link can be taken down",
        minutes: 4,
        bochs: Some(4),
        run: watch,
    },
    Case {
        name: "net-switch/changes",
        about: "switches and port groups are made, used and removed while guests run; what is in use is not removed, mistakes are named",
        minutes: 4,
        bochs: Some(6),
        run: changes,
    },
];

const ONE: &str = "02:54:00:00:01:01";
const TWO: &str = "02:54:00:00:01:02";

fn mac(text: &str) -> [u8; 6] {
    let mut mac = [0; 6];
    for (byte, digits) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    mac
}

/// Boots a system with these guests, each with a card in a port group, and networks outside.
fn boot(context: &Context, switch: &str, guests: &[(&str, &str, &str)], outside: &[&Outside]) -> Result<Result<Host, String>> {
    if let Err(missing) = context.guest_file("cloud/modules/virtio_net.ko") {
        return Ok(Err(missing));
    }
    let mut system: System = system(context)?.with(switch);
    for (name, mac, group) in guests {
        system = system.guest(&Guest {
            nics: vec![format!("{{ port-group = \"{group}\", mac = \"{mac}\" }}")],
            ..guest(name)
        });
    }
    let nics = outside.iter().map(|outside| outside.nic(context.emulator)).collect::<Result<_>>()?;
    let mut host = context.boot(&system.into(), |config| {
        config.cpus = 1;
        config.monitor = true;
        config.nics = nics;
    })?;
    for (number, (name, ..)) in (1..).zip(guests) {
        host.console(name, "Type commands")?;
        succeeds(
            host.serial(),
            &format!(
                "for m in llc stp garp mrp 8021q; do insmod /modules/$m.ko || break; done && ip link set eth0 up && ip addr add 10.9.0.{number}/24 dev eth0"
            ),
        )?;
        host.leave_console()?;
    }
    Ok(Ok(host))
}

/// Whether an address answers a guest.
fn reaches(host: &mut Host, guest: &str, address: &str) -> Result<bool> {
    // The first request may be lost while addresses are asked for.
    let line = format!("ping -c 3 -W 2 {address} > /dev/null && echo it is\" \"there || echo it is\" \"away");
    let text = run(host, guest, &line)?;
    Ok(text.contains("it is there"))
}

fn must_reach(host: &mut Host, guest: &str, address: &str, there: bool) -> Result<()> {
    if reaches(host, guest, address)? == there {
        return Ok(());
    }
    let (ports, one) = (host.command("port")?, host.command(&format!("port show {guest}.0"))?);
    let word = if there { "does not reach" } else { "reaches" };
    Err(Failure::new(format!("{guest} {word} {address}:\n{ports}\n{one}")))
}

/// A counter of a guest's card.
fn counter(host: &mut Host, guest: &str, name: &str) -> Result<u64> {
    let line = format!("echo count\"er\" $(cat /sys/class/net/eth0/statistics/{name}).");
    let text = run(host, guest, &line)?;
    let number = text.rsplit("counter ").next().and_then(|rest| rest.split('.').next());
    number
        .and_then(|number| number.trim().parse().ok())
        .ok_or_else(|| Failure::new(format!("no counter in {text}")))
}

fn done(host: &mut Host, line: &str) -> Result<()> {
    let text = host.command(line)?;
    ensure!(text.contains("Done."), "`{line}`: {text}");
    Ok(())
}

/// What `port show` says, in one line with single spaces.
fn show(host: &mut Host, port: &str) -> Result<String> {
    let text = host.neat_command(&format!("port show {port}"))?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

macro_rules! booted {
    ($booted:expr) => {
        match $booted? {
            Ok(host) => host,
            Err(missing) => return Outcome::skip(missing),
        }
    };
}

const GROUPS: &str = "
[[switch]]
name = \"vSwitch0\"
[[switch.port-group]]
name = \"VM Network\"
[[switch.port-group]]
name = \"Lab\"
vlan = 100
[[switch.port-group]]
name = \"Trunk\"
vlan = \"trunk\"
";

fn vlans(context: &Context) -> Result<Outcome> {
    let outside = Outside::new(1)?;
    let guests = [("one", ONE, "Lab"), ("two", TWO, "Trunk")];
    let mut host = booted!(boot(context, GROUPS, &guests, &[&outside]));
    // Outside, one's frames have the tag of its port group, and no others.
    run(&mut host, "one", "ip addr add 10.9.100.1/24 dev eth0")?;
    must_reach(&mut host, "one", "10.9.100.254", true)?;
    let seen = outside.take();
    let own: Vec<&Seen> = seen.iter().filter(|seen| seen.source == mac(ONE)).collect();
    ensure!(!own.is_empty(), "nothing of one arrived outside");
    let other = own.iter().find(|seen| seen.vlan != Some(100));
    ensure!(other.is_none(), "a frame of one has another tag: {other:?}");
    // A trunk's guest is in all of them by its own tags.
    let tagged =
        "ip link add link eth0 name eth0.$id type vlan id $id && ip link set eth0.$id up && ip addr add 10.9.$id.2/24 dev eth0.$id";
    run(&mut host, "two", &format!("for id in 100 200; do {tagged}; done"))?;
    must_reach(&mut host, "two", "10.9.200.254", true)?;
    must_reach(&mut host, "two", "10.9.100.1", true)?;
    // Without a tag it is in a network of its own, where one is not, though both have addresses there.
    must_reach(&mut host, "two", "10.9.0.1", false)?;
    // What one tags by itself is dropped, and counted.
    outside.take();
    run(&mut host, "one", &format!("id=200; {}", tagged.replace(".2/24", ".1/24")))?;
    must_reach(&mut host, "one", "10.9.200.254", false)?;
    let foreign = outside
        .take()
        .into_iter()
        .find(|seen| seen.source == mac(ONE) && seen.vlan != Some(100));
    ensure!(foreign.is_none(), "a frame of one left its VLAN: {foreign:?}");
    let shown = show(&mut host, "one.0")?;
    ensure!(shown.contains("with a VLAN tag that the port group does not carry"), "{shown}");
    // Another VLAN holds at once, and after a kill.
    done(&mut host, "switch group set Lab vlan 200")?;
    run(&mut host, "one", "ip link del eth0.200; ip addr add 10.9.200.1/24 dev eth0")?;
    must_reach(&mut host, "one", "10.9.200.254", true)?;
    must_reach(&mut host, "one", "10.9.100.254", false)?;
    host.neat_command("kill net")?;
    host.wait_until_runs("net")?;
    must_reach(&mut host, "one", "10.9.200.254", true)?;
    must_reach(&mut host, "two", "10.9.200.1", true)?;
    let groups = host.neat_command("switch groups")?;
    let lab = groups.lines().find(|line| line.starts_with("Lab")).unwrap_or_default();
    ensure!(lab.contains("200"), "{groups}");
    Ok(Outcome::Passed)
}

fn policies(context: &Context) -> Result<Outcome> {
    let outside = Outside::new(1)?;
    let guests = [("one", ONE, "Trunk"), ("two", TWO, "VM Network")];
    let mut host = booted!(boot(context, GROUPS, &guests, &[&outside]));
    must_reach(&mut host, "one", "10.9.0.254", true)?;
    // A VLAN interface with an address of its own sends under a foreign one.
    let forged = "ip link add link eth0 name eth0.100 type vlan id 100 && ip link set eth0.100 address 02:54:00:00:02:01 && \
        ip link set eth0.100 up && ip addr add 10.9.100.1/24 dev eth0.100";
    run(&mut host, "one", forged)?;
    must_reach(&mut host, "one", "10.9.100.254", false)?;
    let shown = show(&mut host, "one.0")?;
    ensure!(shown.contains("from another address than the port's"), "{shown}");
    let foreign = outside.take().into_iter().find(|seen| seen.source == mac("02:54:00:00:02:01"));
    ensure!(foreign.is_none(), "a forged frame left: {foreign:?}");
    done(&mut host, "switch group set Trunk forged-transmits yes")?;
    must_reach(&mut host, "one", "10.9.100.254", true)?;
    let known = host.neat_command("switch addresses vSwitch0")?;
    ensure!(
        known.contains("02:54:00:00:02:01"),
        "what a port may send from is not learned:\n{known}"
    );
    // Another address of the card itself.
    run(
        &mut host,
        "two",
        "ip link set eth0 down && ip link set eth0 address 02:54:00:00:02:02 && ip link set eth0 up",
    )?;
    must_reach(&mut host, "two", "10.9.0.254", false)?;
    let shown = show(&mut host, "two.0")?;
    ensure!(shown.contains("link blocked"), "{shown}");
    done(&mut host, "switch group set \"VM Network\" mac-changes yes")?;
    must_reach(&mut host, "two", "10.9.0.254", true)?;
    done(&mut host, "switch group set \"VM Network\" mac-changes inherit")?;
    must_reach(&mut host, "two", "10.9.0.254", false)?;
    run(
        &mut host,
        "two",
        &format!("ip link set eth0 down && ip link set eth0 address {TWO} && ip link set eth0 up"),
    )?;
    must_reach(&mut host, "two", "10.9.0.254", true)?;
    // A card that listens to everything hears what is its own, unless the policy lets it.
    run(&mut host, "two", "ip link set eth0 promisc on")?;
    for allowed in [false, true] {
        if allowed {
            done(&mut host, "switch set vSwitch0 promiscuous yes")?;
        }
        must_reach(&mut host, "one", "10.9.0.254", true)?;
        let before = counter(&mut host, "two", "rx_packets")?;
        run(&mut host, "one", "ping -c 20 -i 0.1 10.9.0.254 > /dev/null")?;
        let heard = counter(&mut host, "two", "rx_packets")? - before;
        ensure!(
            (heard >= 40) == allowed && (allowed || heard < 10),
            "promiscuous mode is {}, and two heard {heard} frames",
            if allowed { "allowed" } else { "refused" }
        );
    }
    Ok(Outcome::Passed)
}

fn shaping(context: &Context) -> Result<Outcome> {
    /// Bits in a second.
    const RATE: u64 = 2_000_000;
    const SECONDS: u64 = 10;
    let outside = Outside::new(1)?;
    let mut host = booted!(boot(context, "", &[("one", ONE, "VM Network")], &[&outside]));
    must_reach(&mut host, "one", "10.9.0.254", true)?;
    // The burst is short beside the 10 seconds, and long beside what the test's machine is held up.
    let limits = format!("{}/{}/32", RATE / 1000, RATE / 250);
    done(&mut host, &format!("switch group set \"VM Network\" sent {limits}"))?;
    // More than that, all the time. Who is outside is known for good: questions for it would wait behind everything else.
    let load = "arp -s 10.9.0.254 52:54:00:99:00:01 && (netload flood 10.9.0.254 1400 & true)";
    run(&mut host, "one", load)?;
    if context.emulator == Emulator::Bochs {
        return shaped_by_the_guests_clock(&mut host, RATE);
    }
    // The burst is over, and what the guest has queued keeps the limit busy from here on.
    std::thread::sleep(Duration::from_secs(3));
    outside.take();
    std::thread::sleep(Duration::from_secs(SECONDS) + Duration::from_millis(500));
    let seen: Vec<Seen> = outside.take().into_iter().filter(|seen| seen.source == mac(ONE)).collect();
    let Some(first) = seen.first() else {
        return Err(Failure::new("nothing of one arrived outside"));
    };
    // Exactly so long, from one frame's arrival on.
    let end = first.at + Duration::from_secs(SECONDS);
    let bytes: u64 = seen[1..].iter().filter(|seen| seen.at <= end).map(|seen| seen.length as u64).sum();
    let last = seen.last().map_or(first.at, |last| last.at);
    ensure!(
        last + Duration::from_millis(250) > end,
        "the guest stopped sending after {} frames in {:?}",
        seen.len(),
        last - first.at
    );
    let (wanted, got) = (RATE * SECONDS, bytes * 8);
    ensure!(
        got.abs_diff(wanted) * 50 <= wanted,
        "{got} bits in {SECONDS} s, the limit lets {wanted} pass"
    );
    Ok(Outcome::Passed)
}

/// The same where seconds are not those of the world outside: by the guest's clock and its counter of what was taken from it.
fn shaped_by_the_guests_clock(host: &mut Host, rate: u64) -> Result<Outcome> {
    let line = "now() { cut -d' ' -f1 /proc/uptime; }; sent() { cat /sys/class/net/eth0/statistics/tx_bytes; }; \
                sleep 3; a=$(now); b=$(sent); sleep 10; echo took\"\"_ $a $(now) $b $(sent) _";
    let text = run(host, "one", line)?;
    let numbers: Vec<f64> = text
        .rsplit("took_")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [from, to, before, after] = numbers[..] else {
        return Err(Failure::new(format!("the guest told something else: {text}")));
    };
    let (wanted, got) = (rate as f64 * (to - from), (after - before) * 8.0);
    ensure!(
        to - from >= 10.0 && (got - wanted).abs() * 50.0 <= wanted,
        "{got} bits in {} s of the guest's, the limit lets {wanted} pass",
        to - from
    );
    Ok(Outcome::Passed)
}

fn failover(context: &Context) -> Result<Outcome> {
    const TEAM: &str = "
[[switch]]
name = \"vSwitch0\"
uplinks = [\"nic0\", \"nic1\"]
teaming = { balance = \"order\", standby = [\"nic1\"] }
[[switch.port-group]]
name = \"VM Network\"
";
    let (left, right) = (Outside::new(1)?, Outside::new(2)?);
    let mut host = booted!(boot(context, TEAM, &[("one", ONE, "VM Network")], &[&left, &right]));
    let of_one = |outside: &Outside| outside.take().iter().filter(|seen| seen.source == mac(ONE)).count();
    for (round, (state, active, idle)) in [("on", &left, &right), ("off", &right, &left), ("on", &left, &right)]
        .into_iter()
        .enumerate()
    {
        if round > 0 {
            let Some(monitor) = &host.machine.monitor else {
                return Err(Failure::new("the machine has no monitor"));
            };
            monitor.command(&format!("set_link nic0 {state}"))?;
            let up = state == "on";
            host.poll_command("nic list", |text| {
                text.lines().any(|line| line.starts_with("nic0") && line.contains("down") != up)
            })?;
            // The other station has another address.
            run(&mut host, "one", "ip neigh flush dev eth0; true")?;
        }
        of_one(&left);
        of_one(&right);
        must_reach(&mut host, "one", "10.9.0.254", true)?;
        let (some, none) = (of_one(active), of_one(idle));
        ensure!(
            some > 0 && none == 0,
            "round {round}: {some} frames by the one in use, {none} by the other"
        );
        let uplink = if round == 1 { "uplink nic1" } else { "uplink nic0" };
        let shown = show(&mut host, "one.0")?;
        ensure!(shown.contains(uplink), "round {round}: {shown}");
        // As everywhere with virtual switches: the guest's own cable is still plugged in.
        let carrier = run(&mut host, "one", "echo link $(cat /sys/class/net/eth0/carrier).")?;
        ensure!(carrier.contains("link 1."), "round {round}: {carrier}");
    }
    Ok(Outcome::Passed)
}

fn flood(context: &Context) -> Result<Outcome> {
    let outside = Outside::new(1)?;
    let guests = [("one", ONE, "Trunk"), ("two", TWO, "VM Network")];
    let mut host = booted!(boot(context, GROUPS, &guests, &[&outside]));
    done(&mut host, "switch group set Trunk forged-transmits yes")?;
    must_reach(&mut host, "two", "10.9.0.254", true)?;
    let before = counter(&mut host, "two", "rx_packets")?;
    // Each from another address; tagged with VLAN 7, so that the card's own address stays.
    let flood = "ip link add link eth0 name eth0.7 type vlan id 7 && ip link set eth0.7 up && ip addr add 10.9.7.1/24 dev eth0.7 && \
        for i in 1 2 3 4; do for j in $(seq 10 99); do ip link set eth0.7 address 02:66:00:00:0$i:$j; arping -c 1 -w 1 -q -U -I eth0.7 10.9.7.1; done; done; true";
    let start = Instant::now();
    run(&mut host, "one", &flood.replace("-w 1 -q", "-q"))?;
    let sources = outside
        .take()
        .into_iter()
        .filter(|seen| seen.vlan == Some(7))
        .map(|seen| seen.source);
    let sources: std::collections::BTreeSet<_> = sources.collect();
    ensure!(
        sources.len() > 200,
        "only {} addresses flooded in {:?}",
        sources.len(),
        start.elapsed()
    );
    // Few of them are known, and two is where it was.
    let known = host.neat_command("switch addresses vSwitch0")?;
    let learned = known.lines().filter(|line| line.starts_with("02:66")).count();
    ensure!((1..=128).contains(&learned), "{learned} addresses were learned:\n{known}");
    ensure!(known.contains(TWO) && known.contains(ONE), "{known}");
    must_reach(&mut host, "two", "10.9.0.254", true)?;
    must_reach(&mut host, "one", "10.9.0.2", true)?;
    // What is for two comes to two, and nothing of the flood did.
    let heard = counter(&mut host, "two", "rx_packets")? - before;
    ensure!(heard < 60, "two heard {heard} frames");
    Ok(Outcome::Passed)
}

/// The bytes between the markers of `capture read`.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::new();
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("-----") && !line.is_empty());
    for line in lines {
        let (mut word, mut bits) = (0_u32, 0);
        for value in line.bytes().filter_map(digit) {
            word = word << 6 | value;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push((word >> bits) as u8);
            }
        }
    }
    bytes
}

fn watch(context: &Context) -> Result<Outcome> {
    let outside = Outside::new(1)?;
    let guests = [("one", ONE, "VM Network"), ("two", TWO, "VM Network")];
    let mut host = booted!(boot(context, "", &guests, &[&outside]));
    must_reach(&mut host, "one", "10.9.0.254", true)?;
    run(&mut host, "two", "ip link set eth0 promisc on")?;
    for mirrored in [true, false] {
        let to = if mirrored { "two.0" } else { "off" };
        done(&mut host, &format!("switch mirror vSwitch0 one.0 {to}"))?;
        let before = counter(&mut host, "two", "rx_packets")?;
        run(&mut host, "one", "ping -c 20 -i 0.1 10.9.0.254 > /dev/null")?;
        let heard = counter(&mut host, "two", "rx_packets")? - before;
        ensure!((heard >= 40) == mirrored, "mirrored: {mirrored}, and two heard {heard} frames");
    }
    let started = host.neat_command("capture start one.0 128")?;
    ensure!(started.contains("Capture 1 of one.0"), "{started}");
    run(&mut host, "one", "ping -c 5 -s 1000 10.9.0.254 > /dev/null")?;
    host.neat_command("capture stop 1")?;
    let listed = host.neat_command("capture list")?;
    ensure!(listed.contains("ended") && listed.contains("one.0"), "{listed}");
    let file = decoded(&host.command("capture read 1")?);
    ensure!(
        file.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]),
        "no pcapng file: {:02x?}",
        file.get(..32)
    );
    let path = context.environment.logs.join("watch.pcapng");
    fs::write(&path, &file)?;
    host.neat_command("capture remove 1")?;
    // A tool that others made.
    match Command::new("tcpdump").args(["-n", "-r"]).arg(&path).output() {
        Err(_) => eprintln!("tcpdump is not installed: the file was not read by another program"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            for (word, count) in [("ICMP echo request", 5), ("ICMP echo reply", 5)] {
                let found = text
                    .lines()
                    .filter(|line| line.contains(word) && line.contains("length 1008"))
                    .count();
                ensure!(
                    found == count,
                    "tcpdump sees {found} of '{word}':\n{text}\n{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }
    // The cable is pulled, also for a successor.
    for (way, carrier) in [("down", "0"), ("up", "1")] {
        host.neat_command(&format!("port link one.0 {way}"))?;
        for killed in [false, true] {
            if killed {
                host.neat_command("kill net")?;
                host.wait_until_runs("net")?;
                host.poll_command("port list", |text| text.contains("one.0"))?;
            }
            let wait = format!("for i in 1 2 3 4 5 6; do [ $(cat /sys/class/net/eth0/carrier) = {carrier} ] && break; sleep 1; done");
            let text = run(&mut host, "one", &format!("{wait}; echo link $(cat /sys/class/net/eth0/carrier)."))?;
            ensure!(text.contains(&format!("link {carrier}.")), "{way}, killed {killed}: {text}");
            must_reach(&mut host, "one", "10.9.0.2", way == "up")?;
        }
    }
    Ok(Outcome::Passed)
}

fn changes(context: &Context) -> Result<Outcome> {
    let (left, right) = (Outside::new(1)?, Outside::new(2)?);
    let guests = [("one", ONE, "VM Network"), ("two", TWO, "Later")];
    let mut host = booted!(boot(context, "", &guests, &[&left, &right]));
    let list = host.neat_command("switch")?;
    ensure!(list.contains("vSwitch0") && list.contains("nic0 nic1"), "{list}");
    for (line, refusal) in [
        ("switch create vSwitch0", "already"),
        ("switch remove vSwitch0", "has port groups"),
        ("switch group remove \"VM Network\"", "in use by one.0"),
        ("switch group add Nowhere Later", "no switch `Nowhere`"),
        ("switch set vSwitch0 mtu 100", "the MTU is 1280 to 9000"),
        ("switch set vSwitch0 standby nic7", "no uplink of"),
        ("switch group set \"VM Network\" sent 8/8/8", "100 kbit"),
        ("switch link vSwitch0 nic7", "no network card `nic7`"),
        ("port link nic0 down", "unlink a network card"),
    ] {
        let text = host.command(line)?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains(refusal), "`{line}`: {text}");
    }
    // A second switch with the second card, and the port group that two waits for.
    done(&mut host, "switch create inside")?;
    done(&mut host, "switch unlink vSwitch0 nic1")?;
    done(&mut host, "switch link inside nic1")?;
    must_reach(&mut host, "two", "10.9.0.254", false)?;
    done(&mut host, "switch group add inside Later")?;
    let wait = "for i in 1 2 3 4 5 6; do [ $(cat /sys/class/net/eth0/carrier) = 1 ] && break; sleep 1; done; true";
    run(&mut host, "two", wait)?;
    for killed in [false, true] {
        if killed {
            host.neat_command("kill net")?;
            host.wait_until_runs("net")?;
        }
        left.take();
        right.take();
        must_reach(&mut host, "one", "10.9.0.254", true)?;
        must_reach(&mut host, "two", "10.9.0.254", true)?;
        // Though both have addresses in one network, they are at two switches.
        must_reach(&mut host, "two", "10.9.0.1", false)?;
        let of = |outside: &Outside, source: &str| outside.take().iter().any(|seen| seen.source == mac(source));
        ensure!(!of(&left, TWO) && !of(&right, ONE), "frames left through the other switch's card");
    }
    // Frames that are longer than the switch's MTU are dropped and counted.
    run(
        &mut host,
        "two",
        "ip link set eth0 mtu 4000; ping -c 2 -W 1 -s 3000 10.9.0.254; true",
    )?;
    done(&mut host, "switch set inside mtu 1500")?;
    run(&mut host, "two", "ping -c 2 -W 1 -s 3000 10.9.0.254; true")?;
    let shown = show(&mut host, "two.0")?;
    ensure!(shown.contains("longer than the switch's MTU"), "{shown}");
    // And away again.
    let text = host.command("switch group remove Later")?;
    ensure!(text.contains("in use by"), "{text}");
    host.command("vm stop two")?;
    host.poll_command("port list", |text| !text.contains("two.0"))?;
    done(&mut host, "switch group remove Later")?;
    done(&mut host, "switch remove inside")?;
    done(&mut host, "switch link vSwitch0 nic1")?;
    // Its uplink may be the other one now, and the station there is another.
    run(&mut host, "one", "ip neigh flush dev eth0; true")?;
    must_reach(&mut host, "one", "10.9.0.254", true)?;
    Ok(Outcome::Passed)
}
