//! The peer: Debian's cloud kernel with KVM, and Debian's QEMU as the monitor, in the same emulated machine as Tessera. Its root is a RAM disk with busybox, the modules and QEMU.

use crate::{
    Context, Failure, Result, initramfs,
    machine::{Config, Emulator, Machine},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// QEMU on the peer's host, with KVM and without devices. What follows says what the guest is.
pub const QEMU: &str = "/qemu/lib/ld-linux-x86-64.so.2 --library-path /qemu/lib /qemu/qemu -L /qemu/share -enable-kvm -cpu host -nodefaults -no-reboot -display none";
const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";
/// ROMs that QEMU needs to boot a kernel, and the folders in which Debian has them.
const ROMS: [&str; 3] = ["bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin"];
const ROM_FOLDERS: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];
/// Modules of each host, in the order in which they are loaded.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

/// What a host of the peer does.
pub struct Host<'a> {
    /// Modules beside those of KVM, in the order in which they are loaded.
    pub modules: &'a [&'a str],
    /// The RAM disk of its guests, out of build/guests.
    pub guest: &'a str,
    /// More files of its RAM disk: names there, and where they are.
    pub files: &'a [(String, PathBuf)],
    /// What the shell of its RAM disk is to do. The guests' kernel is /vmlinuz, their RAM disk stands beside it.
    pub script: &'a str,
}

impl Host<'_> {
    fn modules(&self) -> impl Iterator<Item = &str> {
        MODULES.iter().chain(self.modules).copied()
    }

    /// The host's first program. KVM does not wait in a loop for an interrupt that is to come (halt_poll_ns), which would only count instructions.
    fn init(&self) -> String {
        let load: String = self.modules().map(|module| format!("insmod /modules/{module}.ko\n")).collect();
        format!(
            "#!/bin/busybox sh\n\
             export PATH=/bin\n\
             mount -t proc proc /proc\nmount -t sysfs sys /sys\nmount -t devtmpfs dev /dev\n\
             echo 1 > /proc/sys/kernel/printk\n\
             {load}\
             [ -c /dev/kvm ] || echo PEER-FAULT there is no /dev/kvm\n\
             echo 0 > /sys/module/kvm/parameters/halt_poll_ns\n\
             {}\n\
             echo PEER-END\npoweroff -f\n",
            self.script
        )
    }
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

/// Unpacks modules out of the kernel's package into a folder of their own.
fn unpack(package: &Path, host: &Host<'_>, folder: &Path) -> Result<()> {
    // From an earlier run, if it is there.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    let names: Vec<String> = host.modules().map(|name| format!("'./lib/modules/*/{name}.ko'")).collect();
    let script = format!(
        "dpkg-deb --fsys-tarfile '{}' | tar -x -C '{}' --wildcards --transform 's#.*/##' {}",
        package.display(),
        folder.display(),
        names.join(" ")
    );
    let output = Command::new("sh").args(["-c", &script]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::new(format!("{}: {}", package.display(), reason.trim())))
}

/// The host's RAM disk.
fn archive(context: &Context, host: &Host<'_>) -> Result<Vec<u8>> {
    let guests = context.environment.root.join("build/guests");
    let package = String::from_utf8_lossy(&read(&guests.join("cloud/package"))?).into_owned();
    let package = package.split_whitespace().collect::<Vec<_>>().join("_");
    let package = guests.join(format!("packages/{package}_amd64.deb"));
    let mut archive = initramfs::begin(Path::new("/bin/busybox"), host.init().as_bytes())?;
    for folder in ["modules", "qemu", "qemu/lib", "qemu/share", "qemu/share/keymaps"] {
        archive.directory(folder);
    }
    let modules = context.environment.logs.join("peer-modules");
    unpack(&package, host, &modules)?;
    for name in host.modules() {
        archive.program(&format!("modules/{name}.ko"), &read(&modules.join(format!("{name}.ko")))?);
    }
    archive.program("qemu/qemu", &read(Path::new(PROGRAM))?);
    for library in libraries(PROGRAM)? {
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
    archive.program(host.guest, &read(&guests.join(host.guest))?);
    for (name, path) in host.files {
        archive.program(name, &read(path)?);
    }
    Ok(archive.finish())
}

/// Starts the peer on one processor; waits for nothing.
pub fn start(context: &Context, host: &Host<'_>, change: impl FnOnce(&mut Config)) -> Result<Machine> {
    let guests = context.environment.root.join("build/guests");
    let ram_disk = context.environment.logs.join("peer.cpio");
    fs::write(&ram_disk, archive(context, host)?)?;
    let mut config = Config::new(context.name, Emulator::Qemu, &guests.join("cloud/vmlinuz"));
    (config.cpus, config.memory, config.counted) = (1, super::HOST_MEMORY, true);
    config.extra = vec![
        "-initrd".into(),
        ram_disk.display().to_string(),
        "-append".into(),
        "console=ttyS0 quiet".into(),
    ];
    change(&mut config);
    let mut machine = context.start(&config)?;
    machine.serial.fatal("PEER-");
    Ok(machine)
}
