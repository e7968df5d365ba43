//! The peer: Debian's cloud kernel with KVM, and Debian's QEMU as the monitor, in the same emulated machine as Tessera. Its root is a RAM disk with busybox, the modules and QEMU.

use super::storage::Drive;
use crate::{
    Context, Failure, Result, initramfs, linux,
    machine::{Config, Emulator, Machine},
};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// ROMs that QEMU needs to boot a kernel, and the folders in which Debian has them.
const ROMS: [&str; 3] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];
const ROM_FOLDERS: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];
/// Modules of the host, in the order in which they are loaded.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

/// The host's first program. The guest has the host's serial port; Ctrl-A, then c changes to QEMU's monitor and back. KVM does not wait in a loop for an interrupt that is to
/// come (halt_poll_ns), which would only count instructions.
fn init(guest: &[Drive]) -> String {
    let mut text = String::from(
        "#!/bin/busybox sh\n\
         export PATH=/bin\n\
         mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n\
         echo 1 > /proc/sys/kernel/printk\n",
    );
    // Writing to a String does not fail.
    for module in MODULES {
        let _ = writeln!(text, "insmod /modules/{module}.ko");
    }
    text.push_str("[ -c /dev/kvm ] || echo PEER-FAULT there is no /dev/kvm\necho 0 > /sys/module/kvm/parameters/halt_poll_ns\n");
    let _ = write!(
        text,
        "setsid cttyhack /qemu/lib/ld-linux-x86-64.so.2 --library-path /qemu/lib /qemu/qemu -L /qemu/share -enable-kvm -cpu host -nodefaults -no-reboot -display none \
         -m {} -serial mon:stdio -kernel /vmlinuz -initrd /initramfs-disk.cpio -append '{}' -object iothread,id=io",
        super::storage::GUEST_MEMORY,
        linux::PLAIN
    );
    for (number, drive) in guest.iter().enumerate() {
        let _ = write!(
            text,
            " -drive file=/dev/nvme{number}n1,format={},if=none,id=disk{number},cache=none,aio=native,discard=unmap -device virtio-blk-pci,drive=disk{number},iothread=io",
            drive.format
        );
    }
    text.push_str("\necho PEER-END\npoweroff -f\n");
    text
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Failure::new(format!("cannot read {}: {e} (run `make setup`)", path.display())))
}

/// Libraries that a program is linked with, the loader among them.
fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// A module out of the kernel's package.
fn module(package: &Path, name: &str) -> Result<Vec<u8>> {
    let script = format!(
        "dpkg-deb --fsys-tarfile '{}' | tar -xO --wildcards './lib/modules/*/{name}.ko'",
        package.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output()?;
    if output.stdout.is_empty() {
        return Err(Failure::new(format!("{} has no module {name}", package.display())));
    }
    Ok(output.stdout)
}

/// The host's RAM disk.
fn archive(context: &Context, guest: &[Drive]) -> Result<Vec<u8>> {
    let guests = context.environment.root.join("build/guests");
    let package = String::from_utf8_lossy(&read(&guests.join("cloud/package"))?).into_owned();
    let package = package.split_whitespace().collect::<Vec<_>>().join("_");
    let package = guests.join(format!("packages/{package}_amd64.deb"));
    let mut archive = initramfs::begin(Path::new("/bin/busybox"), init(guest).as_bytes())?;
    for folder in ["modules", "qemu", "qemu/lib", "qemu/share"] {
        archive.directory(folder);
    }
    for name in MODULES {
        archive.program(&format!("modules/{name}.ko"), &module(&package, name)?);
    }
    archive.program("qemu/qemu", &read(Path::new(QEMU))?);
    for library in libraries(QEMU)? {
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.program(&format!("qemu/lib/{name}"), &read(&library)?);
    }
    for rom in ROMS {
        let path = ROM_FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(rom))
            .find(|path| path.exists());
        let path = path.ok_or_else(|| Failure::new(format!("QEMU's ROM {rom} is missing (run `make setup`)")))?;
        archive.program(&format!("qemu/share/{rom}"), &read(&path)?);
    }
    archive.program("vmlinuz", &read(&guests.join("cloud/vmlinuz"))?);
    archive.program("initramfs-disk.cpio", &read(&guests.join("initramfs-disk.cpio"))?);
    Ok(archive.finish())
}

/// Starts the peer with a guest that has these disks; waits for nothing.
pub fn start(context: &Context, guest: &[Drive]) -> Result<Machine> {
    let guests = context.environment.root.join("build/guests");
    let ram_disk = context.environment.logs.join("peer.cpio");
    fs::write(&ram_disk, archive(context, guest)?)?;
    let mut config = Config::new(context.name, Emulator::Qemu, &guests.join("cloud/vmlinuz"));
    (config.cpus, config.memory, config.counted) = (1, super::storage::HOST_MEMORY, true);
    config.extra = vec![
        "-initrd".into(),
        ram_disk.display().to_string(),
        "-append".into(),
        "console=ttyS0 quiet".into(),
    ];
    for drive in guest {
        drive.attach(&mut config);
    }
    let mut machine = context.start(&config)?;
    machine.serial.fatal("PEER-");
    Ok(machine)
}
