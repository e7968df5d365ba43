//! Guests' disks behind a SATA host adapter, as systems find them that know nothing of virtio.

use super::{
    Case,
    datastore::store_with_debian,
    guest_disk::{begin_load, end_load, kill_storage},
    guest_net::{after_scrollback, free_port, with_pc_drivers},
    sleep::{ALARM, DEEP},
    suspend::{ECHO, ask},
};
use crate::{
    Context, Outcome, Result,
    disks::Scratch,
    ensure,
    linux::{PROMPT, succeeds},
    machine::{Disk, Forward, Network, Nic},
    shell::Host,
    systems::Guest,
};

use std::{
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "guest-disk/ahci",
        about: "Debian runs from a disk behind a SATA host adapter, with native queueing, and verifies what it writes while the storage server is killed again and again and the machine is suspended, with an open connection through an 82574L",
        minutes: 8,
        bochs: Some(9),
        run: ahci,
    },
    Case {
        name: "sleep/ahci",
        about: "Debian with a disk behind a SATA host adapter and an 82574L sleeps in its RAM under load, and goes on with both",
        minutes: 5,
        bochs: None,
        run: sleeps,
    },
];

/// The table of a guest's disk, behind a SATA host adapter.
pub(super) fn on_ahci(disk: &str) -> String {
    disk.replace(" }", ", controller = \"ahci\" }")
}

/// Boots it, with a server for the connection that is handed out. The inner error: what is missing for it.
fn start(context: &Context) -> Result<Result<(Host, TcpStream, Scratch), String>> {
    let found = with_pc_drivers(context).and_then(|system| Ok((system, context.guest_file("debian/disk.img")?)));
    let (system, disk) = match found {
        Ok(found) => found,
        Err(missing) => return Ok(Err(missing)),
    };
    let store = store_with_debian(context, &disk)?;
    let mut guest = Guest::debian_on_disk("guest", "");
    guest.kernel = "generic-kernel";
    guest.initramfs = Some("pc-initramfs");
    guest.command_line = "console=ttyS0 quiet root=/dev/sda guest.fsck init=/usr/local/sbin/plain-init".into();
    guest.disks = vec![on_ahci("{ store = \"main\", disk = \"debian\", serial = \"ROOT-DISK\" }")];
    guest.nics = vec!["{ port-group = \"VM Network\", model = \"e1000e\" }".into()];
    let system = system.guest(&guest);
    let port = free_port()?;
    let mut host = context.boot(&system.into(), |config| {
        config.cpus = 1;
        config
            .nics
            .push(Nic::usual(context.emulator, Network::User(vec![Forward::new(port, 80)])));
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"));
    })?;
    let shown = host.neat_command("vm show guest")?;
    ensure!(shown.contains("on AHCI"), "`vm show` says:\n{shown}");
    host.start_command("vm console guest")?;
    let checked = host.serial().expect_line("GUEST-FSCK /dev/sda ended with ([0-9]+)")?;
    ensure!(checked[1] == "0", "its file system is not right: {}", checked[0]);
    host.serial().expect(PROMPT)?;
    for (what, wanted) in [
        ("cat /sys/block/sda/device/queue_depth", "32"),
        ("cat /sys/block/sda/device/model", "TESSERA DISK"),
        ("cat /sys/block/sda/device/vpd_pg80 | tr -d '\\000'", "ROOT-DISK"),
        (
            "test $(cat /sys/block/sda/queue/discard_max_bytes) -gt 0 && echo it can discard",
            "it can discard",
        ),
        ("cat /sys/block/sda/queue/write_cache", "write back"),
    ] {
        let text = succeeds(host.serial(), what)?;
        ensure!(text.contains(wanted), "`{what}` says {text}, not {wanted}");
    }
    succeeds(host.serial(), "fstrim /")?;
    let up = "ip link set lo up; ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2";
    succeeds(host.serial(), up)?;
    let listening = format!("({ECHO}) & until grep -q ':0050 ' /proc/net/tcp; do sleep 1; done");
    succeeds(host.serial(), &listening)?;
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    ask(&mut connection, "before")?;
    Ok(Ok((host, connection, store)))
}

/// Ends it, and looks at its datastore.
fn end(context: &Context, mut host: Host, store: &Scratch) -> Result<Outcome> {
    host.start_command("vm console guest")?;
    host.serial().send_line("sync; poweroff -f")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    drop(host);
    let store = store.path().display().to_string();
    context.environment.images.datastore(&["check", &store])?;
    Ok(Outcome::Passed)
}

fn sleeps(context: &Context) -> Result<Outcome> {
    let (mut host, mut connection, store) = match start(context)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    succeeds(host.serial(), DEEP)?;
    succeeds(host.serial(), "mark=4711")?;
    begin_load(&mut host)?;
    for round in 1..=3 {
        host.start_command("vm console guest")?;
        after_scrollback(&mut host, "sync")?;
        succeeds(host.serial(), &format!("{ALARM}; echo mem > /sys/power/state"))?;
        succeeds(
            host.serial(),
            "test $mark = 4711 && dd if=/dev/sda of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null && date > /root/awake && sync",
        )?;
        ask(&mut connection, "awake")?;
        host.leave_console()?;
        let log = host.command("log -n 40")?;
        ensure!(log.matches("the guest wakes").count() >= round, "it did not sleep:\n{log}");
    }
    drop(connection);
    end_load(&mut host)?;
    end(context, host, &store)
}

fn ahci(context: &Context) -> Result<Outcome> {
    let (mut host, mut connection, store) = match start(context)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    begin_load(&mut host)?;
    kill_storage(context, &mut host, "/dev/sda")?;
    // Under the same load.
    host.neat_command("vm suspend guest")?;
    host.poll_command("vm list", |text| text.contains("suspended"))?;
    host.neat_command("vm resume guest")?;
    host.start_command("vm console guest")?;
    host.serial()
        .send_line("dd if=/dev/sda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null && echo it goes\"\" on")?;
    host.serial().expect("it goes on")?;
    ask(&mut connection, "behind")?;
    drop(connection);
    host.leave_console()?;
    end_load(&mut host)?;
    end(context, host, &store)
}
