//! Machines that are suspended into a file of a datastore and resumed.

use super::Case;
use super::datastore::store_with_debian;
use super::guest_net::{after_scrollback, free_port};
use super::screen;
use crate::disks::Scratch;
use crate::linux::{PLAIN, log_in, succeeds};
use crate::machine::{Disk, Forward, Network, Nic};
use crate::shell::Host;
use crate::systems::{Guest, System};
use crate::{Context, Outcome, Result, ensure};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "suspend/host-restart",
        about: "a machine with a screen is suspended and still is when the host's power failed: it goes on where it was, also when it is started; what was given up is not gone on with",
        minutes: 2,
        bochs: Some(5),
        run: host_restart,
    },
    Case {
        name: "suspend/typed",
        about: "what is typed while a machine resumes reaches its guest, which does nothing else",
        minutes: 2,
        bochs: Some(5),
        run: typed,
    },
    Case {
        name: "suspend/go-on",
        about: "Debian is suspended under load and resumed: what runs goes on, its clock stands still meanwhile, a connection from outside lives, its disk is right",
        minutes: 5,
        bochs: Some(5),
        run: |context| go_on(context, 1),
    },
    Case {
        name: "suspend/2-vcpus",
        about: "the same with two virtual processors",
        minutes: 6,
        bochs: Some(10),
        run: |context| go_on(context, 2),
    },
];

/// Times that the machine is suspended, unless `TESSERA_SUSPENDS` says another number.
const ROUNDS: u32 = 2;
/// Answers each line that comes.
pub(super) const ECHO: &str = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 80, Listen => 1, ReuseAddr => 1); $c = $s->accept; $c->autoflush(1); while (<$c>) { print $c $_ }'";
/// Writes and verifies until it is stopped.
const LOAD: &str = "(until test -e /tmp/stop; do fio --name=load --filename=/root/load --size=8M --rw=randrw --bsrange=512-64k --direct=1 --ioengine=libaio --iodepth=8 \
                    --verify=crc32c --verify_fatal=1 --verify_backlog=64 --time_based --runtime=10 --output=/tmp/fio.log || echo fio ended \"\"$? >> /tmp/bad; done) & true";
/// Computes with the extended state, and says when a sum is wrong.
const SUMS: &str = "(perl -e '$n = 0; while (! -e \"/tmp/stop\") { $x = 0.5; for (1..20000) { $x = $x * 1.0000001 + 0.25 } $first //= $x; print \"wrong $x\\n\" if $x != $first; \
                    open F, \">/tmp/count.new\"; print F ++$n; close F; rename \"/tmp/count.new\", \"/tmp/count\" }' >> /tmp/bad) & true";

/// A machine whose guest keeps what is typed, with a disk in a datastore.
fn with_screen(context: &Context, store: &Scratch) -> Result<Result<System, String>> {
    let path = match context.guest_file("screen-guest") {
        Ok(path) => path,
        Err(missing) => return Ok(Err(missing)),
    };
    let (images, store) = (&context.environment.images, store.path().display().to_string());
    images.datastore(&["create", &store, "--label", "main"])?;
    images.datastore(&["disk-create", &store, "data", "--size", "1M"])?;
    let guest = Guest {
        disks: vec!["{ store = \"main\", disk = \"data\" }".into()],
        ..screen::guest()
    };
    Ok(Ok(context.product()?.without_guests().file("screen-guest", &path).guest(&guest)))
}

fn is_suspended(list: &str) -> bool {
    list.contains("suspended")
}

/// Suspends the machine, and shows that its file is there.
fn suspend(host: &mut Host) -> Result<()> {
    host.neat_command("vm suspend picture")?;
    host.poll_command("vm list", is_suspended)?;
    let files = host.neat_command("datastore ls main")?;
    ensure!(files.contains("picture.vmss"), "its state is not there:\n{files}");
    Ok(())
}

fn host_restart(context: &Context) -> Result<Outcome> {
    let store = Scratch::empty(&context.environment.logs, context.name, 192 << 20)?;
    let system = match with_screen(context, &store)? {
        Ok(system) => system,
        Err(missing) => return Outcome::skip(missing),
    };
    let spec = system.into();
    let boot = || {
        context.boot(&spec, |config| {
            config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"))
        })
    };
    let mut host = boot()?;
    host.neat_command("vm start picture")?;
    host.poll_command("vm screen picture", |text| text.contains(screen::HELLO))?;
    // Graphics, where each key adds a square: video RAM, palette and registers are the picture.
    host.command("vm type picture gabc")?;
    host.poll_command("vm screen picture", |text| text.starts_with("32 bits, 640 x 480 pixels"))?;
    let mut last = String::new();
    let drawn = host.poll_command("vm screen picture", |text| std::mem::replace(&mut last, text.to_owned()) == text)?;
    suspend(&mut host)?;
    // The host's power fails.
    drop(host);
    let mut host = boot()?;
    let list = host.poll_command("vm list", is_suspended)?;
    ensure!(list.contains("picture"), "after the host's restart:\n{list}");
    let refused = host.command("vm remove picture")?;
    ensure!(refused.contains("suspended"), "a suspended machine was removed:\n{refused}");
    host.neat_command("vm start picture")?;
    let shown = host.poll_command("vm screen picture", |text| text.starts_with("32 bits"))?;
    ensure!(
        screen::first(&shown) == screen::first(&drawn),
        "the picture was '{}' and is '{}'",
        screen::first(&drawn),
        screen::first(&shown)
    );
    host.command("vm type picture x")?;
    host.poll_command("vm screen picture", |text| screen::first(text) != screen::first(&drawn))?;
    let files = host.neat_command("datastore ls main")?;
    ensure!(!files.contains("picture.vmss"), "its state is there still:\n{files}");
    // What is given up is gone, and the machine begins anew.
    suspend(&mut host)?;
    host.neat_command("vm stop picture")?;
    let files = host.neat_command("datastore ls main")?;
    ensure!(!files.contains("picture.vmss"), "what was given up is there still:\n{files}");
    host.neat_command("vm start picture")?;
    host.poll_command("vm screen picture", |text| text.contains(screen::HELLO))?;
    // What is damaged is told, and the machine does not begin beside it.
    suspend(&mut host)?;
    drop(host);
    damage(store.path(), b"TSRvmss\n")?;
    let mut host = boot()?;
    host.poll_command("vm list", is_suspended)?;
    host.command("vm start picture")?;
    host.poll_command("vm info picture", |text| text.contains("damaged"))?;
    host.neat_command("vm stop picture")?;
    host.neat_command("vm start picture")?;
    host.poll_command("vm screen picture", |text| text.contains(screen::HELLO))?;
    Ok(Outcome::Passed)
}

/// Times that a line is typed at a machine that resumes.
const TYPED: u32 = 12;

fn typed(context: &Context) -> Result<Outcome> {
    let store = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    context
        .environment
        .images
        .datastore(&["create", &store.path().display().to_string(), "--label", "main"])?;
    let mut guest = Guest::debian("idle", "");
    guest.memory = 128;
    let system = context.product()?.without_machines().guest(&guest);
    let mut host = context.boot(&system.into(), |config| {
        config.cpus = 1;
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"));
    })?;
    host.start_command("vm console idle")?;
    host.serial().expect("Type commands")?;
    host.leave_console()?;
    for round in 1..=TYPED {
        host.neat_command("vm suspend idle main")?;
        host.poll_command("vm list", is_suspended)?;
        host.neat_command("vm resume idle")?;
        // Nobody waits until it runs.
        host.start_command("vm console idle")?;
        host.serial().send_line(&format!("echo line $(({round} + 100))"))?;
        host.serial().expect(&format!("\nline {}", round + 100))?;
        host.leave_console()?;
    }
    Ok(Outcome::Passed)
}

/// Changes a byte behind each place of a disk where `mark` stands.
fn damage(disk: &Path, mark: &[u8]) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(disk)?;
    let mut block = [0; 4096];
    let mut place = 0;
    while file.read_exact(&mut block).is_ok() {
        if block.starts_with(mark) {
            file.seek(SeekFrom::Start(place + 200))?;
            file.write_all(b"!")?;
            file.seek(SeekFrom::Start(place + 4096))?;
        }
        place += 4096;
    }
    Ok(())
}

pub(super) fn run(host: &mut Host, line: &str) -> Result<String> {
    host.start_command("vm console debian")?;
    let text = after_scrollback(host, line)?;
    host.leave_console()?;
    Ok(text)
}

/// The number that a command prints between two marks.
pub(super) fn number(host: &mut Host, what: &str) -> Result<f64> {
    let text = run(host, &format!("echo val\"\"ue $({what}) over"))?;
    let value = text.rsplit("value ").next().and_then(|rest| rest.split_whitespace().next());
    let value = value.and_then(|word| word.parse().ok());
    value.ok_or_else(|| crate::Failure::new(format!("`{what}` says: {text}")))
}

/// A question to the guest over the connection, and its answer.
pub(super) fn ask(connection: &mut TcpStream, question: &str) -> Result<()> {
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

/// Boots Debian with a disk in a datastore and a card, and has it answer what comes to the port. Its console is open.
pub(super) fn boot(context: &Context, vcpus: u32, port: u16) -> Result<Result<(Host, Scratch), String>> {
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
        config
            .nics
            .push(Nic::usual(context.emulator, Network::User(vec![Forward::new(port, 80)])));
    })?;
    host.start_command("vm console debian")?;
    log_in(host.serial())?;
    succeeds(host.serial(), "stty cols 1000")?;
    let up = "ip link set lo up; ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2";
    succeeds(host.serial(), up)?;
    let listening = format!("({ECHO}) & until grep -q ':0050 ' /proc/net/tcp; do sleep 1; done");
    for line in [&listening, "mark=4711"] {
        succeeds(host.serial(), line)?;
    }
    Ok(Ok((host, store)))
}

fn go_on(context: &Context, vcpus: u32) -> Result<Outcome> {
    let port = free_port()?;
    let (mut host, store) = match boot(context, vcpus, port)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let counting = "until test -s /tmp/count; do test ! -s /tmp/bad || cat /tmp/bad; sleep 1; done";
    for line in [LOAD, SUMS, counting] {
        succeeds(host.serial(), line)?;
    }
    host.leave_console()?;
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
    end(context, host, &store)
}

/// Ends the guest, whose console is open, and the host; then its datastore is checked.
pub(super) fn end(context: &Context, mut host: Host, store: &Scratch) -> Result<Outcome> {
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
