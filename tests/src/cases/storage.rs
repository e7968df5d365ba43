//! The storage server on real disks, as the emulators have them: content, writing, errors of the medium, removal, and what it must never hold.

use super::Case;
use crate::{
    Context, Failure, Outcome, Result, ensure, fail,
    machine::{Bus, Disk, Emulator},
    shell::Host,
    systems::Probe,
};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "storage/read",
        about: "the disks of every driver are listed, and their sectors are those of the images",
        minutes: 1,
        bochs: Some(2),
        run: read,
    },
    Case {
        name: "storage/write",
        about: "what is written through every driver is read back, and stands in the images",
        minutes: 2,
        bochs: Some(3),
        run: write,
    },
    Case {
        name: "storage/media-error",
        about: "a bad sector is an error that names it; the disk goes on",
        minutes: 1,
        bochs: None,
        run: media_error,
    },
    Case {
        name: "storage/removal",
        about: "a disk that warns, and is pulled out while it works, is an event; the others go on",
        minutes: 1,
        bochs: None,
        run: removal,
    },
    Case {
        name: "storage/kill",
        about: "a storage server that is killed at work comes back with its disks, and no write is lost",
        minutes: 2,
        bochs: Some(3),
        run: kill,
    },
    Case {
        name: "storage/must-never",
        about: "the storage server holds no network card, no configuration space and no memory of others",
        minutes: 1,
        bochs: None,
        run: must_never,
    },
];

/// Bytes of a test's disk: whole cylinders of 16 heads and 63 sectors, as Bochs wants them.
pub(super) const SIZE: u64 = 128 * 16 * 63 * 512;
/// Sectors of 512 bytes that tests look at.
pub(super) const SECTORS: [u64; 5] = [0, 1, 77, 2048, SIZE / 512 - 1];

/// Words of SplitMix64, begun anew in each sector from seed and sector number: what `disk exercise` writes.
pub(super) fn pattern(seed: u64, sector: u64, size: usize) -> Vec<u8> {
    let mut state = seed ^ sector.wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut bytes = Vec::with_capacity(size);
    for _ in 0..size / 8 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ word >> 31).to_le_bytes());
    }
    bytes
}

/// Makes an image whose sectors that are looked at have content of their own.
pub(super) fn image(context: &Context, name: &str, seed: u64) -> Result<PathBuf> {
    let stem = format!("{}.{}.{name}.raw", context.name.replace('/', "-"), context.emulator);
    let path = context.environment.logs.join(stem);
    // Bochs marks images that it uses, and leaves the mark when it is ended.
    let _ = fs::remove_file(path.with_extension("raw.lock"));
    let file = fs::File::create(&path)?;
    file.set_len(SIZE)?;
    for sector in SECTORS {
        file.write_all_at(&pattern(seed, sector, 512), sector * 512)?;
    }
    // A CD-ROM's sectors are longer.
    file.write_all_at(&pattern(seed, 16, 2048), 16 * 2048)?;
    Ok(path)
}

/// A disk of every driver that the emulator has a device for, with the name under which it will be known.
pub(super) fn disks(context: &Context) -> Result<Vec<(&'static str, Disk)>> {
    let kinds: &[(&str, Bus, &str)] = match context.emulator {
        // The first AHCI or IDE disk is the one that the machine boots from.
        Emulator::Qemu => &[
            ("nvme0", Bus::Nvme, "NVME-1"),
            ("virtio0", Bus::Virtio, "VIRTIO-2"),
            ("sata1", Bus::Ahci, "AHCI-3"),
        ],
        Emulator::Bochs => &[("ata1", Bus::Ata, "IDE-1"), ("ata2", Bus::Ata, "IDE-2")],
    };
    let make =
        |(seed, (name, bus, serial)): (u64, &(&'static str, Bus, &str))| Ok((*name, Disk::new(*bus, &image(context, name, seed)?, serial)));
    (1..).zip(kinds).map(make).collect()
}

/// A command's output as one line.
pub(super) fn one_line(host: &mut Host, command: &str) -> Result<String> {
    let text = host.command(command)?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The bytes that `disk read` prints.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut repeat = false;
    for line in text.lines() {
        if line.trim() == "*" {
            repeat = true;
            continue;
        }
        let Some((offset, rest)) = line.split_once(' ') else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        if repeat {
            let last: Vec<u8> = bytes[bytes.len().saturating_sub(16)..].to_vec();
            while bytes.len() < offset {
                bytes.extend_from_slice(&last);
            }
            repeat = false;
        }
        let numbers = rest.get(..51).unwrap_or(rest).split_ascii_whitespace();
        for number in numbers {
            bytes.push(u8::from_str_radix(number, 16).map_err(|e| Failure::new(format!("{number}: {e}")))?);
        }
    }
    Ok(bytes)
}

/// Reads a sector through the shell and compares it.
pub(super) fn compare(host: &mut Host, disk: &str, sector: u64, expected: &[u8]) -> Result<()> {
    let text = host.command(&format!("disk read {disk} {sector}"))?;
    ensure!(
        bytes_of(&text)? == expected,
        "sector {sector} of {disk} is not what stands in the image:\n{text}"
    );
    Ok(())
}

fn read(context: &Context) -> Result<Outcome> {
    let mut disks = disks(context)?;
    if context.emulator == Emulator::Qemu {
        disks.push(("cd0", Disk::new(Bus::Cd, &image(context, "cd0", 9)?, "CD-4")));
    }
    let system = context.product()?.without_guests();
    let mut host = context.boot(&system.into(), |config| {
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect()
    })?;
    let list = host.neat_command("disk list")?;
    for (name, disk) in &disks {
        let line = list.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        ensure!(line.contains("ready"), "{name} is not ready:\n{list}");
        // Bochs has no serial numbers to choose, but models.
        ensure!(
            line.contains(&disk.serial),
            "{name} has not the serial number {}:\n{list}",
            disk.serial
        );
    }
    for (seed, (name, _)) in (1..).zip(disks.iter().filter(|(name, _)| *name != "cd0")) {
        for sector in SECTORS {
            compare(&mut host, name, sector, &pattern(seed, sector, 512))?;
        }
        let past = one_line(&mut host, &format!("disk read {name} {}", SIZE / 512))?;
        ensure!(past.contains("past the device's end"), "reading past the end of {name}: {past}");
        host.neat_command(&format!("disk show {name}"))?;
    }
    if context.emulator == Emulator::Qemu {
        compare(&mut host, "cd0", 16, &pattern(9, 16, 2048))?;
    }
    // The disk that the machine boots from has partitions, the firmware's among them.
    let boot = if context.emulator == Emulator::Qemu { "sata0" } else { "ata0" };
    let partitions = host.neat_command(&format!("disk show {boot}"))?;
    ensure!(
        partitions.contains("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
        "{boot} has no partition for the firmware:\n{partitions}"
    );
    let refused = one_line(&mut host, &format!("disk exercise {} 0 1", disks[0].0))?;
    ensure!(
        refused.contains("not to be destroyed"),
        "a system that is no test's destroys disks: {refused}"
    );
    Ok(Outcome::Passed)
}

/// Whether `count` sectors of an image from `first` on are the pattern.
pub(super) fn check_image(path: &Path, seed: u64, first: u64, count: u64) -> Result<()> {
    let file = fs::File::open(path)?;
    for sector in first..first + count {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, sector * 512)?;
        ensure!(
            bytes[..] == pattern(seed, sector, 512),
            "sector {sector} of {} is not what was written",
            path.display()
        );
    }
    Ok(())
}

fn write(context: &Context) -> Result<Outcome> {
    let disks = disks(context)?;
    let system = context.product()?.without_guests().exercises_disks();
    let mut host = context.boot(&system.into(), |config| {
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect()
    })?;
    for (name, _) in &disks {
        for (sector, count, seed) in [(3, 1, 5), (1000, 3000, 6), (SIZE / 512 - 700, 700, 7)] {
            let text = host.command(&format!("disk exercise {name} {sector} {count} {seed}"))?;
            ensure!(text.contains("were written and read back"), "{name}: {text}");
        }
        let past = one_line(&mut host, &format!("disk exercise {name} {} 2", SIZE / 512 - 1))?;
        ensure!(past.contains("past the device's end"), "writing past the end of {name}: {past}");
        let show = host.neat_command(&format!("disk show {name}"))?;
        ensure!(show.contains("errors       0, of the medium 0"), "{show}");
    }
    if context.emulator == Emulator::Bochs {
        // It writes back when it ends.
        return Ok(Outcome::Passed);
    }
    for (seed, (_, disk)) in (1..).zip(&disks) {
        check_image(&disk.path, 5, 3, 1)?;
        check_image(&disk.path, 6, 1000, 3000)?;
        check_image(&disk.path, 7, SIZE / 512 - 700, 700)?;
        // What lies beside it is what it was.
        check_image(&disk.path, seed, 77, 1)?;
    }
    Ok(Outcome::Passed)
}

fn media_error(context: &Context) -> Result<Outcome> {
    const BAD: u64 = 2048;
    let mut disks = disks(context)?;
    for (_, disk) in &mut disks {
        disk.bad_sector = Some(BAD);
    }
    let system = context.product()?.without_guests();
    let mut host = context.boot(&system.into(), |config| {
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect()
    })?;
    for (seed, (name, _)) in (1..).zip(&disks) {
        let text = one_line(&mut host, &format!("disk read {name} {BAD}"))?;
        ensure!(text.contains("cannot read or write sector 2048"), "{name}: {text}");
        // The disk goes on.
        compare(&mut host, name, 77, &pattern(seed, 77, 512))?;
        let show = host.neat_command(&format!("disk show {name}"))?;
        ensure!(show.contains("ready") && show.contains("of the medium 1"), "{show}");
    }
    let log = one_line(&mut host, "log")?;
    ensure!(log.contains("Read failed"), "the log says nothing about bad sectors:\n{log}");
    Ok(Outcome::Passed)
}

fn removal(context: &Context) -> Result<Outcome> {
    let mut disks = disks(context)?;
    disks[0].1.removable = true;
    let system = context.product()?.without_guests().exercises_disks().probe(
        Probe::new("user", "disk nvme0 1000000")
            .reports()
            .grant("storage = { use = \"storage\" }"),
    );
    let mut host = context.boot(&system.into(), |config| {
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect();
        config.monitor = true;
        config.second_port = true;
    })?;
    host.com2()?.expect("round 3 is done")?;
    let Some(monitor) = &host.machine.monitor else {
        fail!("the machine has no monitor")
    };
    // Its temperature.
    monitor.command("qom-set /machine/peripheral/disk0 smart_critical_warning 2")?;
    host.poll_command("disk events nvme0", |text| text.contains("warns: its temperature"))?;
    let Some(monitor) = &host.machine.monitor else {
        fail!("the machine has no monitor")
    };
    monitor.command("device_del disk0")?;
    // Whoever used it hears of it.
    let groups = host.com2()?.expect_line(r"probe: disk FAILED (.*)$")?;
    ensure!(groups[1].contains("gone"), "the user of the disk hears: {}", &groups[1]);
    let list = host.poll_command("disk list", |text| {
        text.lines().any(|line| line.starts_with("nvme0") && line.contains("gone"))
    })?;
    ensure!(list.lines().filter(|line| line.contains("ready")).count() >= 3, "{list}");
    let log = one_line(&mut host, "log")?;
    ensure!(
        log.contains("the controller is gone"),
        "the log says nothing about the removal:\n{log}"
    );
    let events = host.neat_command("disk events nvme0")?;
    ensure!(events.contains("it was taken away"), "its events are:\n{events}");
    for (seed, (name, _)) in (1..).zip(&disks).skip(1) {
        compare(&mut host, name, 77, &pattern(seed, 77, 512))?;
    }
    let pci = host.neat_command("pci")?;
    ensure!(pci.contains("gone"), "`pci` shows the controller as if it were there:\n{pci}");
    Ok(Outcome::Passed)
}

fn kill(context: &Context) -> Result<Outcome> {
    const ROUNDS: u64 = 12;
    let disks = disks(context)?;
    let user = format!("disk {} {ROUNDS}", disks[0].0);
    let system = context
        .product()?
        .without_guests()
        .exercises_disks()
        .probe(Probe::new("user", &user).reports().grant("storage = { use = \"storage\" }"));
    let mut host = context.boot(&system.into(), |config| {
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect();
        config.second_port = true;
    })?;
    for round in 1..4 {
        host.com2()?.expect(&format!("round {round} is done"))?;
        host.command("kill storage")?;
    }
    super::isolation::verdicts(&mut host, "disk")?;
    let list = host.neat_command("disk list")?;
    for (name, _) in &disks {
        let line = list.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        ensure!(line.contains("ready"), "{name} did not come back:\n{list}");
    }
    let ps = host.neat_command("ps storage")?;
    ensure!(ps.contains('3'), "the storage server was not started three times again:\n{ps}");
    for (seed, (name, _)) in (1..).zip(&disks).skip(1) {
        compare(&mut host, name, 77, &pattern(seed, 77, 512))?;
    }
    if context.emulator == Emulator::Qemu {
        // The last round's sectors, and of the others those that no later one has written.
        for round in 0..ROUNDS {
            let count = if round + 1 == ROUNDS { 2048 } else { 128 };
            check_image(&disks[0].1.path, round, 64 + round * 128, count)?;
        }
    }
    Ok(Outcome::Passed)
}

fn must_never(context: &Context) -> Result<Outcome> {
    let disks = disks(context)?;
    let system = context.product()?.without_guests().without_cards();
    let mut host = context.boot(&system.into(), |config| {
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect();
        config.extra.extend(["-device".into(), "e1000e,mac=52:54:00:12:34:56".into()]);
    })?;
    let pci = host.neat_command("pci")?;
    let card = pci.lines().find(|line| line.contains("Ethernet controller")).unwrap_or_default();
    ensure!(
        !card.is_empty() && !card.contains("storage"),
        "the network card is the storage server's:\n{pci}"
    );
    let address = card.split_ascii_whitespace().next().unwrap_or_default().to_owned();
    let show = host.neat_command(&format!("pci show {address}"))?;
    ensure!(
        show.contains("may access memory by itself: no"),
        "nobody's network card may access memory:\n{show}"
    );
    let ranges: Vec<u64> = show
        .split("memory 0x")
        .skip(1)
        .filter_map(|rest| u64::from_str_radix(rest.split(',').next()?, 16).ok())
        .collect();
    ensure!(!ranges.is_empty(), "the network card has no registers:\n{show}");
    let caps = host.neat_command("caps storage")?;
    // Kinds of capabilities with which it could reach more than was given.
    for kind in ["irq-control", "trace", "guest-space", "vcpu"] {
        ensure!(
            !caps.contains(kind),
            "the storage server holds a capability of the kind {kind}:\n{caps}"
        );
    }
    for line in caps.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // Its frames are named by their physical addresses.
        if words.get(1) == Some(&"frame") {
            for range in &ranges {
                let named = words.iter().any(|word| u64::from_str_radix(word, 16) == Ok(*range));
                ensure!(!named, "the storage server holds registers of the network card:\n{line}");
            }
            // Configuration space, which QEMU's firmware puts here.
            ensure!(
                !words.contains(&"b0000000"),
                "the storage server holds configuration space:\n{line}"
            );
        }
        if words.get(1) == Some(&"io-ports") {
            ensure!(
                !line.contains("0xcf8") && !line.contains("0xcfc"),
                "the storage server holds configuration space:\n{line}"
            );
        }
    }
    // Controllers of disks, and nothing else, are its own.
    for line in pci.lines().filter(|line| line.trim_end().ends_with("storage")) {
        ensure!(
            ["NVMe controller", "AHCI controller", "SCSI controller", "IDE controller"]
                .iter()
                .any(|kind| line.contains(kind)),
            "the storage server holds what is no disk:\n{line}"
        );
    }
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_bytes_are_read() {
        let text = "sector 1 of x\n0000   00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  ................\n*\n0020   41 42 43 44 45 46 47 48  49 4a 4b 4c 4d 4e 4f 50  ABCDEFGHIJKLMNOP\n";
        let bytes = bytes_of(text).unwrap();
        assert_eq!(bytes.len(), 48);
        assert_eq!((bytes[17], bytes[32]), (1, 0x41));
    }
}
