//! Machines that are suspended into a file of a datastore and resumed.

use super::Case;
use super::datastore::store_with_debian;
use super::guest_net::{after_scrollback, free_port};
use crate::disks::Scratch;
use crate::linux::{PLAIN, log_in, succeeds};
use crate::machine::{Disk, Network, Nic};
use crate::shell::Host;
use crate::systems::Guest;
use crate::{Context, Outcome, Result, ensure};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "suspend/go-on",
        about: "Debian is suspended under load and resumed: what runs goes on, its clock stands still meanwhile, a connection from outside lives, its disk is right",
        minutes: 5,
        bochs: None,
        run: |context| go_on(context, 1),
    },
    Case {
        name: "suspend/2-vcpus",
        about: "the same with two virtual processors",
        minutes: 6,
        bochs: None,
        run: |context| go_on(context, 2),
    },
];

/// Times that the machine is suspended, unless `TESSERA_SUSPENDS` says another number.
const ROUNDS: u32 = 2;
/// Answers each line that comes.
const ECHO: &str = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 80, Listen => 1, ReuseAddr => 1); $c = $s->accept; $c->autoflush(1); while (<$c>) { print $c $_ }'";
/// Writes and verifies until it is stopped.
const LOAD: &str = "(until test -e /tmp/stop; do fio --name=load --filename=/root/load --size=8M --rw=randrw --bsrange=512-64k --direct=1 --ioengine=libaio --iodepth=8 \
                    --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=10 --output=/tmp/fio.log || echo fio ended \"\"$? >> /tmp/bad; done) & true";
/// Computes with the extended state, and says when a sum is wrong.
const SUMS: &str = "(perl -e '$n = 0; while (! -e \"/tmp/stop\") { $x = 0.5; for (1..20000) { $x = $x * 1.0000001 + 0.25 } $first //= $x; print \"wrong $x\\n\" if $x != $first; \
                    open F, \">/tmp/count.new\"; print F ++$n; close F; rename \"/tmp/count.new\", \"/tmp/count\" }' >> /tmp/bad) & true";

fn run(host: &mut Host, line: &str) -> Result<String> {
    host.start_command("vm console debian")?;
    let text = after_scrollback(host, line)?;
    host.leave_console()?;
    Ok(text)
}

/// The number that a command prints between two marks.
fn number(host: &mut Host, what: &str) -> Result<f64> {
    let text = run(host, &format!("echo val\"\"ue $({what}) over"))?;
    let value = text.rsplit("value ").next().and_then(|rest| rest.split_whitespace().next());
    let value = value.and_then(|word| word.parse().ok());
    value.ok_or_else(|| crate::Failure::new(format!("`{what}` says: {text}")))
}

/// A question to the guest over the connection, and its answer.
fn ask(connection: &mut TcpStream, question: &str) -> Result<()> {
    connection.write_all(format!("{question}\n").as_bytes())?;
    let mut answer = vec![0; question.len() + 1];
    connection.read_exact(&mut answer)?;
    ensure!(
        answer.starts_with(question.as_bytes()),
        "`{question}` was answered by {:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

fn boot(context: &Context, vcpus: u32, port: u16) -> Result<Result<(Host, Scratch), String>> {
    let (disk, initramfs) = match (context.guest_file("debian/disk.img"), context.guest_file("initramfs-disk.cpio")) {
        (Ok(disk), Ok(initramfs)) => (disk, initramfs),
        (Err(missing), _) | (_, Err(missing)) => return Ok(Err(missing)),
    };
    let store = store_with_debian(context, &disk)?;
    let mut guest = Guest::debian_on_disk("debian", "");
    guest.command_line = PLAIN.into();
    guest.vcpus = vcpus;
    guest.disks = vec!["{ store = \"main\", disk = \"debian\" }".into()];
    guest.nics = vec!["{ port-group = \"VM Network\" }".into()];
    let system = context
        .product()?
        .without_machines()
        .file("debian-disk-initramfs", &initramfs)
        .guest(&guest);
    let mut host = context.boot(&system.into(), |config| {
        // With a second processor QEMU 7.2 loses exits.
        config.cpus = 1;
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"));
        config.nics.push(Nic::usual(context.emulator, Network::User(vec![(port, 80)])));
    })?;
    host.start_command("vm console debian")?;
    log_in(host.serial())?;
    succeeds(host.serial(), "stty cols 1000")?;
    let up = "ip link set lo up; ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2";
    succeeds(host.serial(), up)?;
    let listening = format!("({ECHO}) & until grep -q ':0050 ' /proc/net/tcp; do sleep 1; done");
    let counting = "until test -s /tmp/count; do test ! -s /tmp/bad || cat /tmp/bad; sleep 1; done";
    for line in [&listening, LOAD, SUMS, counting, "mark=4711"] {
        succeeds(host.serial(), line)?;
    }
    host.leave_console()?;
    Ok(Ok((host, store)))
}

fn go_on(context: &Context, vcpus: u32) -> Result<Outcome> {
    let port = free_port()?;
    let (mut host, store) = match boot(context, vcpus, port)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    ask(&mut connection, "before")?;
    let rounds = std::env::var("TESSERA_SUSPENDS").ok().and_then(|rounds| rounds.parse().ok());
    for round in 1..=rounds.unwrap_or(ROUNDS) {
        let (count, uptime) = (
            number(&mut host, "cat /tmp/count")?,
            number(&mut host, "cut -d' ' -f1 /proc/uptime")?,
        );
        host.neat_command("vm suspend debian")?;
        let list = host.poll_command("vm list", |text| !text.contains("running"))?;
        ensure!(
            list.contains("suspended"),
            "round {round}, after `vm suspend`:\n{list}\n{}",
            host.command("log -n 20")?
        );
        if round == 1 {
            let refused = host.command("vm start debian")?;
            ensure!(refused.contains("resume it"), "a suspended machine was started:\n{refused}");
            let shown = host.neat_command("datastore ls main")?;
            ensure!(shown.contains("debian.vmss"), "`datastore ls main` says:\n{shown}");
            // Guest time stands still in these.
            std::thread::sleep(Duration::from_secs(10));
        }
        host.neat_command("vm resume debian")?;
        let again = number(&mut host, "cut -d' ' -f1 /proc/uptime")?;
        ensure!(
            again.total_cmp(&uptime).is_ge(),
            "round {round}: the clock went back from {uptime} to {again}"
        );
        run(&mut host, "test $mark = 4711")?;
        ask(&mut connection, &format!("round {round}"))?;
        let goes_on = format!(
            "until test $(cat /tmp/count) -gt {}; do sleep 1; done; test ! -s /tmp/bad || (cat /tmp/bad; false)",
            count + 1.0
        );
        run(&mut host, &goes_on)?;
        if round == 1 {
            let shown = host.neat_command("datastore ls main")?;
            ensure!(!shown.contains("debian.vmss"), "the file is there still:\n{shown}");
        }
        println!("round {round}: {uptime} s, {again} s");
    }
    run(
        &mut host,
        "touch /tmp/stop; wait %2 %3; grep 'err= 0' /tmp/fio.log && test ! -s /tmp/bad",
    )?;
    host.start_command("vm console debian")?;
    host.serial().send_line("sync; poweroff -f")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    drop(host);
    context
        .environment
        .images
        .datastore(&["check", &store.path().display().to_string()])?;
    Ok(Outcome::Passed)
}
