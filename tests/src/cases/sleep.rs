//! Guests that put themselves to sleep with their RAM kept (ACPI S3), and what wakes them.

use super::Case;
use super::firmware::{guest, with_medium};
use super::guest_disk::{attach, device};
use super::guest_net::{after_scrollback, free_port};
use super::suspend::{self, ask, run};
use crate::linux::succeeds;
use crate::machine::Emulator;
use crate::shell::Host;
use crate::{Context, Outcome, Result, ensure};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "sleep/debian",
        about: "Debian sleeps in its RAM, woken by its clock's alarm, by the power button, and after the host suspended it meanwhile: what ran goes on, with its disk, its card and the right time",
        minutes: 4,
        bochs: Some(6),
        run: |context| debian(context, 1),
    },
    Case {
        name: "sleep/2-vcpus",
        about: "the same with two virtual processors",
        minutes: 5,
        bochs: Some(6),
        run: |context| debian(context, 2),
    },
    Case {
        name: "sleep/bios",
        about: "a guest that SeaBIOS booted sleeps, and goes on through the firmware",
        minutes: 3,
        bochs: Some(6),
        run: |context| behind_firmware(context, "bios"),
    },
    Case {
        name: "sleep/uefi",
        about: "a guest that OVMF booted sleeps, and goes on through the firmware",
        minutes: 6,
        bochs: Some(6),
        run: |context| behind_firmware(context, "uefi"),
    },
];

/// The kernel's own word for this sleep; and an alarm in so many seconds.
pub(super) const DEEP: &str = "grep -q '\\[deep\\]' /sys/power/mem_sleep";
pub(super) const ALARM: &str = "echo 0 > /sys/class/rtc/rtc0/wakealarm; echo +4 > /sys/class/rtc/rtc0/wakealarm";

/// How far the guest's clock may be off, in seconds: what the questions take.
const LATE: f64 = 3.0;

/// Compares the seconds that passed in the guest since `before` with those outside.
fn clock(context: &Context, host: &mut Host, before: (f64, Instant)) -> Result<()> {
    let now = suspend::number(host, "date +%s.%N")?;
    // Bochs skips what is slept.
    if context.emulator == Emulator::Bochs {
        ensure!(
            now.total_cmp(&before.0).is_gt(),
            "the guest's clock went back from {} to {now}",
            before.0
        );
        return Ok(());
    }
    let (inside, outside) = (now - before.0, before.1.elapsed().as_secs_f64());
    println!("{inside:.1} s passed in the guest, {outside:.1} s outside");
    ensure!(
        (inside - outside).abs().total_cmp(&LATE).is_lt(),
        "{inside} s passed in the guest's clock, and {outside} s outside"
    );
    Ok(())
}

fn works(host: &mut Host, connection: &mut TcpStream, vcpus: u32, question: &str) -> Result<()> {
    let line = format!(
        "test $mark = 4711 && test $(nproc) = {vcpus} && dd if=/dev/vda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null && date > /root/{question} && sync"
    );
    run(host, &line)?;
    ask(connection, question)
}

/// Has it sleep until somebody wakes it. When it is awake it says the word.
fn falls_asleep(host: &mut Host, word: &str) -> Result<()> {
    host.start_command("vm console debian")?;
    after_scrollback(host, "sync")?;
    host.serial()
        .send_line(&format!("echo mem > /sys/power/state; echo awake-\"\"{word}"))?;
    host.leave_console()?;
    host.poll_command("vm info debian", |text| text.contains("sleeps"))?;
    Ok(())
}

/// Wakes it, and waits until it listens: what is typed while the driver sets the serial port up is lost, as on any PC.
fn wakes(host: &mut Host, word: &str) -> Result<()> {
    host.neat_command("vm wake debian")?;
    host.console("debian", &format!("awake-{word}"))?;
    host.leave_console()?;
    Ok(())
}

fn debian(context: &Context, vcpus: u32) -> Result<Outcome> {
    let port = free_port()?;
    let (mut host, store) = match suspend::boot(context, vcpus, port)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    ask(&mut connection, "before")?;
    succeeds(host.serial(), DEEP)?;
    host.leave_console()?;
    let before = (suspend::number(&mut host, "date +%s.%N")?, Instant::now());
    let awake = host.command("vm wake debian")?;
    ensure!(awake.contains("does not sleep"), "a machine that is awake was woken:\n{awake}");

    run(&mut host, &format!("{ALARM}; echo mem > /sys/power/state"))?;
    let log = host.command("log -n 20")?;
    ensure!(log.contains("the guest wakes"), "it did not sleep:\n{log}");
    works(&mut host, &mut connection, vcpus, "alarm")?;
    clock(context, &mut host, before)?;

    falls_asleep(&mut host, "button")?;
    wakes(&mut host, "button")?;
    works(&mut host, &mut connection, vcpus, "button")?;
    clock(context, &mut host, before)?;

    // Its state on disk, while it sleeps.
    falls_asleep(&mut host, "resumed")?;
    host.neat_command("vm suspend debian")?;
    host.poll_command("vm list", |text| text.contains("suspended"))?;
    host.neat_command("vm resume debian")?;
    host.poll_command("vm info debian", |text| text.contains("sleeps"))?;
    wakes(&mut host, "resumed")?;
    works(&mut host, &mut connection, vcpus, "resumed")?;

    // A reset is one, also of a guest that sleeps.
    falls_asleep(&mut host, "never")?;
    host.neat_command("vm reset debian")?;
    host.start_command("vm console debian")?;
    host.serial().expect("echo awake-\"\"never")?;
    host.serial().expect("GUEST-LOGIN ")?;
    host.serial().expect(crate::linux::PROMPT)?;
    succeeds(host.serial(), "ls /root/alarm /root/button /root/resumed")?;
    suspend::end(context, host, &store)
}

fn behind_firmware(context: &Context, firmware: &'static str) -> Result<Outcome> {
    let (system, medium) = match with_medium(context, firmware)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut guest = guest(firmware);
    guest.disks.push(device(context));
    let mut host = context.boot(&system.guest(&guest).into(), |config| attach(config, &medium, true))?;
    host.neat_command("vm start pc")?;
    host.start_command("vm console pc")?;
    host.serial().expect("Type commands")?;
    succeeds(host.serial(), DEEP)?;
    succeeds(host.serial(), "mark=4711")?;
    for round in 1..=2 {
        succeeds(host.serial(), &format!("{ALARM}; echo mem > /sys/power/state"))?;
        succeeds(host.serial(), "test $mark = 4711")?;
        host.leave_console()?;
        let log = host.command("log -n 20")?;
        ensure!(log.matches("the guest wakes").count() >= round, "it did not sleep:\n{log}");
        host.start_command("vm console pc")?;
        after_scrollback(&mut host, "date")?;
    }
    fs::remove_file(medium)?;
    Ok(Outcome::Passed)
}
