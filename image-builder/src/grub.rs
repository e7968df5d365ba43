//! GRUB, from Debian's packages: core images for BIOS and UEFI made by `grub-mkimage`, and what `grub-install` would do to a disk, done to a file.

use anyhow::{Context, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// Where Debian's packages put GRUB's modules.
const LIBRARY: &str = "/usr/lib/grub";
/// Bytes in a disk sector.
pub const SECTOR: usize = 512;

/// What every core image has: to find our file system and our files, to show progress on the serial line, and to start the kernel.
const MODULES: [&str; 10] = [
    "normal",
    "configfile",
    "multiboot2",
    "search_fs_uuid",
    "search_fs_file",
    "serial",
    "terminal",
    "echo",
    "gzio",
    "test",
];
const BIOS_DISK: [&str; 4] = ["biosdisk", "part_gpt", "part_msdos", "fat"];
const BIOS_CD: [&str; 4] = ["biosdisk", "iso9660", "part_gpt", "part_msdos"];
const UEFI: [&str; 5] = ["part_gpt", "part_msdos", "fat", "iso9660", "efi_gop"];

/// For which way of booting a core image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// BIOS, from a disk.
    BiosDisk,
    /// BIOS, from a CD or DVD (El Torito).
    BiosCd,
    /// UEFI.
    Uefi,
}

/// GRUB's tools, with a folder for what passes between them.
pub struct Grub {
    library: PathBuf,
    work: TempDir,
}

impl Grub {
    /// Finds GRUB.
    ///
    /// # Errors
    /// A package is missing; the message says which.
    pub fn find() -> anyhow::Result<Self> {
        let library = PathBuf::from(LIBRARY);
        for (folder, package) in [("i386-pc", "grub-pc-bin"), ("x86_64-efi", "grub-efi-amd64-bin")] {
            let folder = library.join(folder);
            ensure!(
                folder.join("kernel.img").exists(),
                "{}: GRUB is not there; install {package} (`make setup`)",
                folder.display()
            );
        }
        Ok(Self {
            library,
            work: TempDir::new().context("no temporary folder")?,
        })
    }

    /// One of GRUB's files for BIOS.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn bios_file(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.library.join("i386-pc").join(name);
        fs::read(&path).with_context(|| format!("{}: cannot be read; install grub-pc-bin (`make setup`)", path.display()))
    }

    /// Where one of GRUB's files for BIOS lies.
    #[must_use]
    pub fn bios_path(&self, name: &str) -> PathBuf {
        self.library.join("i386-pc").join(name)
    }

    /// Makes a core image that runs `script` (GRUB's rescue language: plain commands) first.
    ///
    /// # Errors
    /// `grub-mkimage` fails.
    pub fn core(&self, platform: Platform, script: &str) -> anyhow::Result<Vec<u8>> {
        let (format, folder, modules) = match platform {
            Platform::BiosDisk => ("i386-pc", "i386-pc", &BIOS_DISK[..]),
            Platform::BiosCd => ("i386-pc", "i386-pc", &BIOS_CD[..]),
            Platform::Uefi => ("x86_64-efi", "x86_64-efi", &UEFI[..]),
        };
        let configuration = self.work.path().join("early.cfg");
        let output = self.work.path().join("core.img");
        fs::write(&configuration, script)?;
        let mut command = Command::new("grub-mkimage");
        command
            .arg("-d")
            .arg(self.library.join(folder))
            .args(["-O", format, "-p", "/boot/grub"]);
        command
            .arg("-c")
            .arg(&configuration)
            .arg("-o")
            .arg(&output)
            .args(MODULES)
            .args(modules);
        run(&mut command, "grub-common")?;
        fs::read(&output).with_context(|| format!("{}: grub-mkimage wrote nothing", output.display()))
    }
}

/// Runs a tool to its end; its output is shown only when it fails.
///
/// # Errors
/// It is missing (the message names `package`), or it fails.
pub fn run(command: &mut Command, package: &str) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let result = command
        .output()
        .with_context(|| format!("{name}: cannot be started; install {package} (`make setup`)"))?;
    if !result.status.success() {
        bail!(
            "{name} failed ({}):\n{}{}",
            result.status,
            String::from_utf8_lossy(&result.stdout),
            String::from_utf8_lossy(&result.stderr)
        );
    }
    Ok(())
}

/// The core image's first commands: find the file system of this identity and go on with the configuration on it.
#[must_use]
pub fn early_script(file_system: &str) -> String {
    format!("search.fs_uuid {file_system} root\n{GO_ON}")
}

/// The same for a file system that is known by a file on it.
#[must_use]
pub fn early_script_by_file(path: &str) -> String {
    format!("search.file /{path} root\n{GO_ON}")
}

const GO_ON: &str = "set prefix=($root)/boot/grub\nconfigfile ($root)/boot/grub/grub.cfg\n";

/// `grub.cfg`. `folder` holds the kernel and the bundle.
#[must_use]
pub fn configuration(product: &str, folder: &str, command_line: &str) -> String {
    let command_line = quote(command_line);
    let product = quote(product);
    format!(
        "# UEFI's console has the serial line already, where there is one.\n\
         if [ \"$grub_platform\" != efi ]; then\n\
         \tserial --unit=0 --speed=115200\n\
         \tterminal_input serial console\n\
         \tterminal_output serial console\n\
         fi\n\
         set timeout=0\n\
         set default=0\n\
         menuentry {product} {{\n\
         \techo 'Loading the kernel ...'\n\
         \tmultiboot2 {folder}/kernel {command_line}\n\
         \techo 'Loading the system ...'\n\
         \tmodule2 {folder}/bundle bundle\n\
         }}\n"
    )
}

/// One word of GRUB's language, or none for an empty text.
fn quote(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Offsets in `boot.img`, the boot sector (GRUB: include/grub/i386/pc/boot.h).
mod boot_sector {
    /// First sector of the core image, 8 bytes.
    pub const KERNEL_SECTOR: usize = 0x5c;
    /// A jump that is replaced by two `nop` on hard disks, to work around BIOSes that pass the wrong drive.
    pub const DRIVE_CHECK: usize = 0x66;
    /// The code ends here; then come disk signature and partition table.
    pub const CODE_END: usize = 440;
}

/// The code of the boot sector for a core image at sector `core`.
///
/// # Errors
/// `boot_image` is not GRUB's `boot.img`.
pub fn boot_code(boot_image: &[u8], core: u64) -> anyhow::Result<[u8; boot_sector::CODE_END]> {
    ensure!(
        boot_image.len() == SECTOR,
        "boot.img has {} bytes, not {SECTOR}: an unknown version of GRUB",
        boot_image.len()
    );
    let mut code = [0; boot_sector::CODE_END];
    code.copy_from_slice(&boot_image[..boot_sector::CODE_END]);
    code[boot_sector::KERNEL_SECTOR..boot_sector::KERNEL_SECTOR + 8].copy_from_slice(&core.to_le_bytes());
    code[boot_sector::DRIVE_CHECK..boot_sector::DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

/// Tells a BIOS core image where its own sectors lie: its first sector ends with a list of (sector, count, segment), the last entry first
/// (GRUB: `struct grub_boot_blocklist`).
///
/// # Errors
/// `core` is no core image.
pub fn place_core(core: &mut Vec<u8>, sector: u64) -> anyhow::Result<()> {
    core.resize(core.len().next_multiple_of(SECTOR), 0);
    let sectors = core.len() / SECTOR;
    ensure!(sectors >= 2, "the core image has only {} bytes", core.len());
    let rest = u16::try_from(sectors - 1).context("the core image is too large for a boot partition")?;
    let entry = SECTOR - 12;
    core[entry..entry + 8].copy_from_slice(&(sector + 1).to_le_bytes());
    core[entry + 8..entry + 10].copy_from_slice(&rest.to_le_bytes());
    // The segment that the second sector is loaded to: 0x8200 / 16.
    core[entry + 10..entry + 12].copy_from_slice(&0x820_u16.to_le_bytes());
    Ok(())
}

/// Writes a file only if its content changes, so that time stamps say something.
///
/// # Errors
/// The file cannot be written.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_quotes_what_it_is_given() {
        let text = configuration("It's", "/tessera", "a=b $x '`");
        assert!(text.contains("menuentry 'It'\\''s' {"));
        assert!(text.contains("multiboot2 /tessera/kernel 'a=b $x '\\''`'"));
        assert!(configuration("T", "/tessera", "").contains("kernel \n"));
    }

    #[test]
    fn the_core_image_knows_its_sectors() {
        let mut core = vec![7; 1300];
        place_core(&mut core, 40).expect("place");
        assert_eq!(core.len(), 1536);
        assert_eq!(core[500..512], [41, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0x20, 8]);
        assert!(place_core(&mut vec![1; 100], 40).is_err());
    }

    #[test]
    fn boot_code_needs_a_boot_sector() {
        assert!(boot_code(&[0; 100], 34).is_err());
        let code = boot_code(&[1; SECTOR], 0x22).expect("code");
        assert_eq!(code[0x5c..0x64], [0x22, 0, 0, 0, 0, 0, 0, 0]);
    }
}
