//! Devices reach what was lent to their server, and nothing else.

use super::Case;
use super::storage::{SECTORS, SIZE, check_image, compare, disks, one_line, pattern};
use crate::{
    Context, Outcome, Result, ensure,
    machine::{Bus, Disk, Iommu},
    shell::Host,
    systems::{Guest, Probe},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "iommu/vtd-disks",
        about: "behind Intel's IOMMU the disks of every driver are read and written, and nothing is refused",
        minutes: 2,
        bochs: None,
        run: |context| works(context, Iommu::Vtd),
    },
    Case {
        name: "iommu/amd-disks",
        about: "behind AMD's IOMMU the disks of every driver are read and written, and nothing is refused",
        minutes: 2,
        bochs: None,
        run: |context| works(context, Iommu::Amd),
    },
    Case {
        name: "iommu/vtd-stray",
        about: "a controller that is pointed at foreign memory is refused by Intel's IOMMU, named in log and shell, and nothing else changes",
        minutes: 1,
        bochs: None,
        run: |context| stray(context, Some(Iommu::Vtd)),
    },
    Case {
        name: "iommu/amd-stray",
        about: "a controller that is pointed at foreign memory is refused by AMD's IOMMU, and nothing else changes",
        minutes: 1,
        bochs: None,
        run: |context| stray(context, Some(Iommu::Amd)),
    },
    Case {
        name: "iommu/vtd-guest",
        about: "behind Intel's IOMMU a guest's disk works in its RAM, which is out of reach again when the guest has ended",
        minutes: 3,
        bochs: None,
        run: |context| super::guest_disk::read_and_write_behind(context, Some(Iommu::VtdWide)),
    },
    Case {
        name: "iommu/amd-guest",
        about: "behind AMD's IOMMU a guest's disk works in its RAM, which is out of reach again when the guest has ended",
        minutes: 3,
        bochs: None,
        run: |context| super::guest_disk::read_and_write_behind(context, Some(Iommu::Amd)),
    },
    Case {
        name: "iommu/vtd-ends",
        about: "behind Intel's IOMMU servers and machines that end under load, in any order, give all memory back, and no device is late",
        minutes: 4,
        bochs: None,
        run: |context| super::guest_disk::memory_comes_back_behind(context, Some(Iommu::VtdWide)),
    },
    Case {
        name: "iommu/amd-ends",
        about: "behind AMD's IOMMU servers and machines that end under load, in any order, give all memory back, and no device is late",
        minutes: 4,
        bochs: None,
        run: |context| super::guest_disk::memory_comes_back_behind(context, Some(Iommu::Amd)),
    },
    Case {
        name: "iommu/none",
        about: "without an IOMMU the log and the shell say so, and a controller that is pointed at foreign memory changes it",
        minutes: 1,
        bochs: None,
        run: |context| stray(context, None),
    },
];

fn name(iommu: Iommu) -> &'static str {
    match iommu {
        Iommu::Vtd | Iommu::VtdWide => "Intel VT-d",
        Iommu::Amd => "AMD-Vi",
    }
}

/// The log and the shell say which IOMMU there is.
fn named(host: &mut Host, iommu: Iommu) -> Result<()> {
    let log = one_line(host, "log")?;
    let line = format!("IOMMU: {}", name(iommu));
    ensure!(log.contains(&line), "the log does not name the IOMMU:\n{log}");
    let text = host.neat_command("iommu")?;
    ensure!(text.contains(name(iommu)), "the shell does not name the IOMMU:\n{text}");
    ensure!(
        text.contains("a device raises only its own"),
        "interrupts are not remapped:\n{text}"
    );
    Ok(())
}

fn works(context: &Context, iommu: Iommu) -> Result<Outcome> {
    let disks = disks(context)?;
    let system = context.product()?.without_guests().exercises_disks();
    let mut host = context.boot(&system.into(), |config| {
        config.iommu = Some(iommu);
        config.disks = disks.iter().map(|(_, disk)| disk.clone()).collect();
    })?;
    named(&mut host, iommu)?;
    for (seed, (name, _)) in (1..).zip(&disks) {
        for sector in SECTORS {
            compare(&mut host, name, sector, &pattern(seed, sector, 512))?;
        }
        for (sector, count, seed) in [(1000, 3000, 6), (SIZE / 512 - 700, 700, 7)] {
            let text = host.command(&format!("disk exercise {name} {sector} {count} {seed}"))?;
            ensure!(text.contains("were written and read back"), "{name}: {text}");
        }
    }
    // A new instance gets memory of its own, in a new domain.
    host.command("kill storage")?;
    let (first, _) = &disks[0];
    host.poll_command("disk list", |text| {
        text.lines().any(|line| line.starts_with(first) && line.contains("ready"))
    })?;
    for (name, _) in &disks {
        let text = host.command(&format!("disk exercise {name} 5000 500 8"))?;
        ensure!(text.contains("were written and read back"), "{name}: {text}");
    }
    let faults = one_line(&mut host, "iommu faults")?;
    ensure!(faults.contains("No device was refused anything"), "{faults}");
    let domains = host.neat_command("iommu")?;
    let line = domains
        .lines()
        .find(|line| line.trim_start().starts_with("storage"))
        .unwrap_or_default();
    ensure!(
        line.contains("0000:00:"),
        "`iommu` does not show the storage server's functions:\n{domains}"
    );
    for (_, disk) in &disks {
        check_image(&disk.path, 6, 1000, 3000)?;
        check_image(&disk.path, 7, SIZE / 512 - 700, 700)?;
        check_image(&disk.path, 8, 5000, 500)?;
    }
    Ok(Outcome::Passed)
}

fn stray(context: &Context, iommu: Option<Iommu>) -> Result<Outcome> {
    let disk = Disk::new(Bus::Nvme, &super::storage::image(context, "nvme0", 1)?, "NVME-1");
    if let Err(reason) = context.guest_file("initramfs.cpio") {
        return Ok(Outcome::Skipped(reason));
    }
    let system = context
        .product()?
        .without_machines()
        .without_disks()
        .guest(&Guest::debian("guest", ""))
        .probe(Probe::new("stray", "stray").reports().grant("disks = { pci = \"storage\" }"));
    let mut host = context.boot(&system.into(), |config| {
        config.iommu = iommu;
        config.disks = vec![disk];
        config.second_port = true;
    })?;
    let groups = host
        .com2()?
        .expect_line(r"stray: at (0x[0-9a-f]+), status (.*), memory (changed|unchanged)$")?;
    // What the controller says of it shows nothing: QEMU's claims to have written.
    let (address, memory) = (groups[1].clone(), groups[3].clone());
    super::isolation::verdicts(&mut host, "stray")?;
    let Some(iommu) = iommu else {
        ensure!(
            memory == "changed",
            "without an IOMMU the controller wrote nothing: the test shows nothing"
        );
        let log = one_line(&mut host, "log")?;
        ensure!(log.contains("IOMMU: none"), "the log does not say that there is no IOMMU:\n{log}");
        let text = one_line(&mut host, "iommu")?;
        ensure!(text.contains("devices reach all memory"), "{text}");
        return Ok(Outcome::Passed);
    };
    ensure!(memory == "unchanged", "the controller wrote into foreign memory");
    named(&mut host, iommu)?;
    let faults = host.poll_command("iommu faults", |text| !text.contains("No device was refused"))?;
    let log = one_line(&mut host, "log")?;
    ensure!(log.contains("refused"), "the log says nothing of the refusal:\n{log}");
    if iommu == Iommu::Vtd {
        // QEMU's AMD-Vi names nobody before version 10.1.
        let pci = host.command("pci")?;
        let controller = pci.lines().find(|line| line.contains("NVMe controller")).unwrap_or_default();
        let function = controller.split_ascii_whitespace().next().unwrap_or("no NVMe controller");
        let line = faults.lines().find(|line| line.contains(function)).unwrap_or_default();
        for part in ["stray", "write", &address] {
            ensure!(line.contains(part), "`{part}` is not in the fault:\n{faults}");
        }
        let said = format!("PCI function {function} (of stray) tried to write {address}");
        ensure!(log.contains(&said), "the log does not say `{said}`:\n{log}");
    }
    // Everything else goes on.
    let text = host.console("guest", "GUEST-UP")?;
    ensure!(!text.is_empty(), "the guest says nothing");
    host.leave_console()?;
    let servers = host.neat_command("ps")?;
    for server in ["shell", "storage", "stray", "vmm.guest"] {
        let line = servers.lines().find(|line| line.contains(server)).unwrap_or_default();
        ensure!(!line.is_empty() && !line.contains("ended"), "{server} does not run:\n{servers}");
    }
    Ok(Outcome::Passed)
}
