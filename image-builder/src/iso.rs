//! A hybrid ISO: boots as a CD or DVD and, written to a USB stick, as a disk, each through BIOS and UEFI. xorriso writes it.

use crate::{
    fat,
    grub::{self, Grub, Platform},
    payload::{FOLDER, Payload},
};
use anyhow::Context;
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;

/// The time of all files and of the volume: the image is the same whenever it is made.
const TIME: &str = "2000010100000000";

/// Makes the image at `output`.
///
/// # Errors
/// GRUB or xorriso is missing or fails.
pub fn build(payload: &Payload, grub: &Grub, output: &Path) -> anyhow::Result<()> {
    let work = TempDir::new().context("no temporary folder")?;
    let root = work.path().join("root");
    let marker = marker(payload);
    let early = grub::early_script_by_file(&marker);
    // For BIOS from a CD: GRUB's first stage for El Torito, then the core image.
    let mut torito = grub.bios_file("cdboot.img")?;
    torito.extend(grub.core(Platform::BiosCd, &early)?);
    let uefi = grub.core(Platform::Uefi, &early)?;
    let esp = fat::build(&[("EFI/BOOT/BOOTX64.EFI", &uefi)], payload.volume_id())?;
    let configuration = grub::configuration(&payload.product, FOLDER, &payload.command_line);
    let esp_path = work.path().join("efi.img");
    fs::write(&esp_path, &esp)?;
    for (path, bytes) in [
        ("boot/grub/eltorito.img", torito.as_slice()),
        ("boot/grub/grub.cfg", configuration.as_bytes()),
        ("tessera/kernel", &payload.kernel),
        ("tessera/bundle", &payload.bundle),
        ("NOTICE.txt", payload.notices.as_bytes()),
        (&marker, b"Tessera boots from the medium that has this file.\n"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a path without folder")?)?;
        fs::write(path, bytes)?;
    }
    if output.exists() {
        // xorriso would add a session to what is there.
        fs::remove_file(output).with_context(|| format!("{}: cannot be replaced", output.display()))?;
    }
    let mut command = Command::new("xorriso");
    command.env("SOURCE_DATE_EPOCH", "946684800").env("TZ", "UTC");
    command.args(["-as", "mkisofs", "-quiet", "-r", "-V", "TESSERA"]);
    command
        .arg(format!("--modification-date={TIME}"))
        .args(["--set_all_file_dates", TIME]);
    command.args([
        "-graft-points",
        "-b",
        "boot/grub/eltorito.img",
        "-no-emul-boot",
        "-boot-load-size",
        "4",
        "-boot-info-table",
        "--grub2-boot-info",
    ]);
    command
        .arg("--grub2-mbr")
        .arg(grub.bios_path("boot_hybrid.img"))
        .args(["--protective-msdos-label", "-partition_offset", "16"]);
    command
        .args(["-append_partition", "2", "0xef"])
        .arg(&esp_path)
        .args(["-appended_part_as_gpt", "--gpt_disk_guid"]);
    command.arg(payload.uuid("disk").simple().to_string());
    command.args(["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]);
    command.arg("-o").arg(output).arg(&root);
    grub::run(&mut command, "xorriso")?;
    Ok(())
}

/// A file by which GRUB finds this medium among others.
fn marker(payload: &Payload) -> String {
    format!("boot/{}.id", payload.uuid("iso").simple())
}
