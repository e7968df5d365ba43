//! What a further virtual machine with a disk and a network card takes of the host's memory, beyond its RAM.

use super::{GUEST_MEMORY, MACS, MODULES, RAM_DISK, add_card, peer};
use crate::{
    Context, Failure, Result,
    disks::Scratch,
    machine::{Bus, Disk},
    shell::Host,
    systems::Guest,
};
use std::time::Duration;

/// Bytes of a disk; what is on it does not matter.
const DISK: u64 = 64 << 20;
/// RAM of a guest in KiB.
const RAM: u64 = GUEST_MEMORY as u64 * 1024;

/// KiB on the peer: what the host's kernel has free less when a second QEMU runs, whose program and libraries the first has in memory already.
pub fn of_peer(context: &Context) -> Result<u64> {
    let start = |number: usize| {
        format!(
            "{} -m {GUEST_MEMORY} -mem-prealloc -kernel /vmlinuz -initrd /{RAM_DISK} -append 'console=ttyS0 quiet' -netdev tap,id=net,vhost=on,script=/up,downscript=no \
             -device virtio-net-pci,netdev=net,mac={},romfile= -blockdev null-co,node-name=disk,size={DISK} -device virtio-blk-pci,drive=disk \
             -serial file:/tmp/{number} -monitor none </dev/null &\n\
             until grep -q 'Type commands' /tmp/{number}; do sleep 1; done; sleep 5\n\
             awk '/^MemFree/ {{ print \"bench-free\", $2 }}' /proc/meminfo\n",
            peer::QEMU,
            MACS[number]
        )
    };
    let script = format!("{}{}{}", super::PEER_BRIDGE, start(0), start(1));
    let host = peer::Host {
        modules: &MODULES,
        guest: RAM_DISK,
        files: &[],
        script: &script,
    };
    let mut machine = peer::start(context, &host, add_card)?;
    machine.serial.wait_at_most(Duration::from_secs(400));
    let mut free = || -> Result<u64> {
        let found = machine.serial.expect_line(r"^bench-free (\d+)$")?;
        found[1].parse().map_err(|e| Failure::new(format!("{}: {e}", found[1])))
    };
    let (before, after) = (free()?, free()?);
    Ok(before.saturating_sub(after).saturating_sub(RAM))
}

/// KiB on Tessera: what `mem` shows free less.
pub fn of_tessera(context: &Context) -> Result<u64> {
    let path = context.guest_file(RAM_DISK).map_err(Failure)?;
    let mut system = context.product()?.without_machines().file("net-initramfs", &path);
    for (number, name) in ["one", "two"].into_iter().enumerate() {
        let mut guest = Guest::debian(name, "");
        (guest.memory, guest.initramfs, guest.autostart) = (GUEST_MEMORY, Some("net-initramfs"), number == 0);
        guest.nics = vec!["{ port-group = \"VM Network\" }".into()];
        guest.disks = vec![format!("{{ device = \"nvme{number}\" }}")];
        system = system.guest(&guest);
    }
    let folder = context.environment.root.join("build/test-images");
    let disks = [
        Scratch::empty(&folder, "memory-one", DISK)?,
        Scratch::empty(&folder, "memory-two", DISK)?,
    ];
    let mut host = context.boot(&system.into(), |config| {
        config.cpus = 1;
        add_card(config);
        for disk in &disks {
            config
                .disks
                .push(Disk::new(Bus::Nvme, disk.path(), &format!("disk{}", config.disks.len())));
        }
    })?;
    host.serial().wait_at_most(Duration::from_secs(200));
    let up = |host: &mut Host, name: &str| -> Result<u64> {
        host.console(name, "Type commands")?;
        host.leave_console()?;
        host.free_pages()
    };
    let before = up(&mut host, "one")?;
    host.command("vm start two")?;
    let after = up(&mut host, "two")?;
    Ok((before.saturating_sub(after) * 4).saturating_sub(RAM))
}
