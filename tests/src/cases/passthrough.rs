//! PCI functions of the host that a guest has for itself.

use super::{
    Case,
    guest_disk::{add_disk, device, empty_disk, with_disk_initramfs},
    guest_net::{exchange_pages, free_port, pc_guest, with_pc_drivers},
};
use crate::{
    Context, Outcome, Result, ensure,
    linux::{self, PLAIN, succeeds},
    machine::{Bus, Disk, Forward, Iommu, Model, Monitor, Network, Nic},
    shell::Host,
    systems::Guest,
};
use std::{fs, path::PathBuf};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "passthrough/nvme",
        about: "behind Intel's IOMMU Debian in a guest drives an NVMe controller of the host: file system, verified writes, a reset of the guest, another start",
        minutes: 5,
        bochs: None,
        run: |context| nvme(context, Iommu::VtdWide),
    },
    Case {
        name: "passthrough/nvme-amd",
        about: "the same behind AMD's IOMMU",
        minutes: 5,
        bochs: None,
        run: |context| nvme(context, Iommu::Amd),
    },
    Case {
        name: "passthrough/nic",
        about: "behind Intel's IOMMU a guest with Debian's kernel drives an 82574L of the host: an address by DHCP, pages fetched and served",
        minutes: 3,
        bochs: None,
        run: |context| nic(context, Iommu::Vtd),
    },
    Case {
        name: "passthrough/nic-amd",
        about: "the same behind AMD's IOMMU",
        minutes: 3,
        bochs: None,
        run: |context| nic(context, Iommu::Amd),
    },
    Case {
        name: "passthrough/foreign-memory",
        about: "a guest that points its NVMe controller at memory that is not its own is refused, log and shell name function and machine, and nothing else changes",
        minutes: 2,
        bochs: None,
        run: foreign_memory,
    },
    Case {
        name: "passthrough/no-iommu",
        about: "without an IOMMU a machine that is to have a function of the host does not start, and says why",
        minutes: 1,
        bochs: None,
        run: no_iommu,
    },
];

/// QEMU's NVMe controller, in a machine's description.
const NVME: &str = "passthrough = [{ pci = \"1b36:0010\" }]";
/// Where the guest finds its first function.
const PLACE: &str = "0000:00:19.0";

/// The line of `pci` about a kind of function: its address, and the whole line.
fn function(host: &mut Host, what: &str) -> Result<(String, String)> {
    let pci = host.command("pci")?;
    let line = pci.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned();
    let address = line.split_ascii_whitespace().next().unwrap_or_default().to_owned();
    ensure!(!address.is_empty(), "there is no {what}:\n{pci}");
    Ok((address, line))
}

/// The shell says who has the function, and nothing was refused.
fn held(host: &mut Host, what: &str) -> Result<()> {
    let (address, line) = function(host, what)?;
    ensure!(line.contains("vmm.guest"), "`pci` does not say that the guest has it: {line}");
    let shown = host.neat_command("vm show guest")?;
    ensure!(shown.contains(&format!("{address} of the host")), "`vm show` says:\n{shown}");
    let domains = host.neat_command("iommu")?;
    let domain = domains.lines().find(|line| line.contains("vmm.guest")).unwrap_or_default();
    ensure!(domain.contains(&address), "`iommu` does not show what it reaches:\n{domains}");
    ensure!(domain.contains("256"), "its guest's RAM is not what it reaches:\n{domains}");
    let faults = host.command("iommu faults")?;
    ensure!(faults.contains("No device was refused anything"), "{faults}");
    Ok(())
}

fn nvme(context: &Context, iommu: Iommu) -> Result<Outcome> {
    let found = with_disk_initramfs(context).and_then(|system| Ok((system, context.guest_file("debian/disk.img")?)));
    let (system, debian) = match found {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let path = empty_disk(context, 128)?;
    let mut guest = Guest::debian_on_disk("guest", "");
    guest.command_line = PLAIN.into();
    guest.disks = vec![device(context)];
    guest.more = vec![NVME.into()];
    let mut host = context.boot(&system.guest(&guest).into(), |config| {
        config.iommu = Some(iommu);
        add_disk(config, &debian, "on");
        config.disks.push(Disk::new(Bus::Nvme, &path, "PASSED"));
    })?;
    let disks = host.command("disk list")?;
    ensure!(!disks.contains("nvme"), "the host drives the disk too:\n{disks}");
    host.start_command("vm console guest")?;
    linux::log_in(host.serial())?;
    let model = succeeds(host.serial(), "cat /sys/block/nvme0n1/device/serial")?;
    ensure!(model.contains("PASSED"), "it is another disk: {model}");
    let seen = succeeds(host.serial(), "readlink -f /sys/block/nvme0n1/device")?;
    ensure!(seen.contains(PLACE), "the disk is elsewhere on the bus: {seen}");
    succeeds(host.serial(), "mkfs.ext4 -q /dev/nvme0n1 && mount /dev/nvme0n1 /mnt")?;
    let fio = "fio --name=v --directory=/mnt --size=24m --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --minimal >/tmp/fio";
    succeeds(host.serial(), fio)?;
    succeeds(host.serial(), "seq 1 100000 > /mnt/kept && umount /mnt && e2fsck -fn /dev/nvme0n1")?;
    let interrupts = succeeds(host.serial(), "grep nvme /proc/interrupts")?;
    let counted = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 50))
    };
    ensure!(
        interrupts.lines().any(|line| line.contains("MSI") && counted(line)),
        "the disk does not interrupt by messages:\n{interrupts}"
    );
    // Its guest begins anew, and the function with it.
    succeeds(host.serial(), "mount -o remount,ro /; sync")?;
    host.serial().send_line("reboot -f")?;
    check_again(&mut host)?;
    held(&mut host, "NVMe controller")?;
    let refused = host.command("vm suspend guest main")?;
    ensure!(
        refused.contains("PCI function") && refused.contains("shut the guest down"),
        "it can be suspended: {refused}"
    );
    let info = host.neat_command("vm info guest")?;
    ensure!(info.contains("1 resets"), "it did not begin anew:\n{info}");
    host.command("vm stop guest")?;
    let domains = host.neat_command("iommu")?;
    ensure!(!domains.contains("vmm.guest"), "it still reaches something:\n{domains}");
    let (_, line) = function(&mut host, "NVMe controller")?;
    ensure!(line.contains("kept for guest"), "`pci` does not say whose it is: {line}");
    let free = host.free_pages()?;
    host.command("vm start guest")?;
    host.start_command("vm console guest")?;
    check_again(&mut host)?;
    held(&mut host, "NVMe controller")?;
    // Ended while the controller writes into its memory, which comes back.
    host.start_command("vm console guest")?;
    host.serial()
        .send_line("while dd if=/dev/nvme0n1 of=/dev/null bs=1M iflag=direct 2>/dev/null; do echo read\"\"-on; done")?;
    for _ in 0..3 {
        host.serial().expect("read-on")?;
    }
    host.leave_console()?;
    host.command("vm stop guest")?;
    host.wait_for_free(free)?;
    let faults = host.command("iommu faults")?;
    ensure!(faults.contains("No device was refused anything"), "it went on: {faults}");
    drop(host);
    fs::remove_file(path)?;
    Ok(Outcome::Passed)
}

/// The guest, whose console is open, comes up and finds what it wrote.
fn check_again(host: &mut Host) -> Result<()> {
    linux::log_in(host.serial())?;
    succeeds(host.serial(), "e2fsck -fn /dev/nvme0n1 && mount -o ro /dev/nvme0n1 /mnt")?;
    succeeds(host.serial(), "seq 1 100000 | cmp - /mnt/kept && umount /mnt")?;
    host.leave_console()?;
    Ok(())
}

fn nic(context: &Context, iommu: Iommu) -> Result<Outcome> {
    let system = match with_pc_drivers(context) {
        Ok(system) => system,
        Err(missing) => return Outcome::skip(missing),
    };
    let guest = Guest {
        more: vec!["passthrough = [{ pci = \"network\" }]".into()],
        ..pc_guest("guest")
    };
    let port = free_port()?;
    let mut host = context.boot(&system.guest(&guest).into(), |config| {
        config.iommu = Some(iommu);
        config.nics.push(Nic {
            network: Network::User(vec![Forward::new(port, 80)]),
            ..Nic::new(Model::E1000e)
        });
    })?;
    let cards = host.command("nic list")?;
    ensure!(!cards.contains("nic0"), "the host drives the card too:\n{cards}");
    host.console("guest", "Type commands")?;
    let driver = succeeds(
        host.serial(),
        "readlink -f /sys/class/net/eth0/device; readlink /sys/class/net/eth0/device/driver",
    )?;
    ensure!(driver.contains(PLACE) && driver.contains("e1000e"), "the card is {driver}");
    let address = succeeds(host.serial(), "cat /sys/class/net/eth0/address")?;
    ensure!(address.contains(&Nic::mac(0)), "it is another card: {address}");
    exchange_pages(&mut host, port)?;
    let interrupts = succeeds(host.serial(), "grep eth0 /proc/interrupts")?;
    ensure!(interrupts.contains("MSI"), "the card does not interrupt by messages:\n{interrupts}");
    host.leave_console()?;
    held(&mut host, "thernet")?;
    Ok(Outcome::Passed)
}

/// Guest-physical addresses behind the guest's RAM, which are memory on the host.
const FOREIGN: [u64; 2] = [0x4000_0000, 0x4000_8000];

/// What the host's memory holds at a foreign address.
fn memory(monitor: Option<&Monitor>, address: u64) -> Result<String> {
    let monitor = monitor.ok_or_else(|| crate::Failure::new("QEMU has no monitor"))?;
    monitor.command(&format!("xp /16xb {address:#x}"))
}

/// A page that the guest's kernel leaves alone, and so lets its shell use.
const FREE: u64 = 0x900_0000;

/// Boots a host with two guests, of which the first has an NVMe controller that its kernel leaves alone; its shell waits for commands, of which `w` writes a register of the controller. Answers the controller's file too.
fn boot_with_idle_controller(context: &Context) -> Result<Result<(Host, PathBuf), String>> {
    let system = match with_disk_initramfs(context) {
        Ok(system) => system,
        Err(missing) => return Ok(Err(missing)),
    };
    let path = empty_disk(context, 16)?;
    let guest = Guest {
        initramfs: Some("debian-disk-initramfs"),
        memory: 256,
        command_line: format!("console=ttyS0 quiet initcall_blacklist=nvme_init memmap=64K${FREE:#x}"),
        more: vec![NVME.into()],
        ..Guest::debian("guest", "")
    };
    let system = system.guest(&guest).guest(&Guest::debian("other", ""));
    let mut host = context.boot(&system.into(), |config| {
        config.iommu = Some(Iommu::Vtd);
        config.monitor = true;
        config.disks.push(Disk::new(Bus::Nvme, &path, "PASSED"));
    })?;
    host.console("guest", "Type commands")?;
    let registers = format!(
        "cd /sys/bus/pci/devices/{PLACE} && B=$(head -n 1 resource | cut -d ' ' -f 1) && printf '\\006' | dd of=config bs=1 seek=4 conv=notrunc 2>/dev/null && w() {{ devmem $((B + $1)) 32 $2; }}"
    );
    succeeds(host.serial(), &registers)?;
    Ok(Ok((host, path)))
}

/// Has the controller look for a command at one address and say elsewhere that it is done. Registers (NVM Express 2.0, 3.1.3): off; both admin queues of 32 entries; where they are; on; one command was submitted.
fn submit(host: &mut Host, submission: u64, completion: u64) -> Result<()> {
    let line = format!(
        "w 0x14 0 && w 0x24 0x1f001f && w 0x28 {submission} && w 0x2c 0 && w 0x30 {completion} && w 0x34 0 && w 0x14 0x460001 && until [ $((`devmem $((B + 0x1c))` & 1)) = 1 ]; do :; done && w 0x1000 1"
    );
    succeeds(host.serial(), &line)?;
    Ok(())
}

fn foreign_memory(context: &Context) -> Result<Outcome> {
    let (mut host, path) = match boot_with_idle_controller(context)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let before = [
        memory(host.machine.monitor.as_ref(), FOREIGN[0])?,
        memory(host.machine.monitor.as_ref(), FOREIGN[1])?,
    ];
    host.leave_console()?;
    let (address, _) = function(&mut host, "NVMe controller")?;
    // One after the other: a unit keeps one fault of a function until it is fetched (Intel VT-d, primary fault logging).
    for (submission, completion, kind, foreign) in [
        (FOREIGN[0], FOREIGN[0] + 0x1000, "read", FOREIGN[0]),
        (FREE, FOREIGN[1], "write", FOREIGN[1]),
    ] {
        host.start_command("vm console guest")?;
        submit(&mut host, submission, completion)?;
        succeeds(host.serial(), "echo the guest goes on")?;
        host.leave_console()?;
        let named = |text: &str| {
            let mut lines = text.lines();
            lines.any(|line| {
                [&address, "vmm.guest", kind, &format!("{foreign:#x}")]
                    .iter()
                    .all(|part| line.contains(*part))
            })
        };
        host.poll_command("iommu faults", named)?;
    }
    let log = super::storage::one_line(&mut host, "log")?;
    let said = format!("PCI function {address} (of vmm.guest) tried to read {:#x}", FOREIGN[0]);
    ensure!(log.contains(&said), "the log does not say `{said}`:\n{log}");
    for (foreign, before) in FOREIGN.into_iter().zip(before) {
        ensure!(
            memory(host.machine.monitor.as_ref(), foreign)? == before,
            "the host's memory changed at {foreign:#x}"
        );
    }
    // Everything else goes on.
    let machines = host.neat_command("vm list")?;
    ensure!(
        machines.lines().filter(|line| line.contains("running")).count() == 2,
        "a machine ended:\n{machines}"
    );
    host.console("other", "GUEST-UP")?;
    host.leave_console()?;
    drop(host);
    fs::remove_file(path)?;
    Ok(Outcome::Passed)
}

fn no_iommu(context: &Context) -> Result<Outcome> {
    if let Err(reason) = context.guest_file("initramfs.cpio") {
        return Ok(Outcome::Skipped(reason));
    }
    let path = empty_disk(context, 16)?;
    let passed = Guest {
        more: vec![NVME.into()],
        ..Guest::debian("guest", "")
    };
    let system = context
        .product()?
        .without_machines()
        .guest(&passed)
        .guest(&Guest::debian("other", ""));
    let mut host = context.boot(&system.into(), |config| {
        config.disks.push(Disk::new(Bus::Nvme, &path, "PASSED"));
    })?;
    let why = "PCI function 0 of `1b36:0010` of the host, which would reach all memory: there is no IOMMU";
    let log = super::storage::one_line(&mut host, "log")?;
    ensure!(
        log.contains(&format!("virtual machine guest does not start: it is to have {why}")),
        "the log says:\n{log}"
    );
    let refused = super::storage::one_line(&mut host, "vm start guest")?;
    ensure!(refused.contains(why), "`vm start` says: {refused}");
    let (_, line) = function(&mut host, "NVMe controller")?;
    ensure!(line.contains("kept for guest"), "somebody else has it: {line}");
    host.console("other", "GUEST-UP")?;
    host.leave_console()?;
    drop(host);
    fs::remove_file(path)?;
    Ok(Outcome::Passed)
}
