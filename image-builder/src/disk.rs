//! A GPT disk image that boots through BIOS and UEFI: a partition with GRUB's core image for BIOS, and an EFI system partition with everything else.

use crate::{
    fat,
    grub::{self, Grub, Platform, SECTOR},
    payload::{FOLDER, Payload},
};
use anyhow::{Context, ensure};
use gpt::{GptConfig, disk::LogicalBlockSize, mbr::ProtectiveMBR, partition::Partition, partition_types};
use std::{collections::BTreeMap, io::Cursor};

/// First sector of the BIOS boot partition: the first after the partition table.
const CORE_SECTOR: u64 = 34;
/// First sector of the EFI system partition, at 1 MiB.
const ESP_SECTOR: u64 = 2048;
/// Sectors after the last partition, for the table's copy.
const TAIL: u64 = 34;

/// Makes the image.
///
/// # Errors
/// GRUB is missing, or something does not fit.
pub fn build(payload: &Payload, grub: &Grub) -> anyhow::Result<Vec<u8>> {
    let volume_id = payload.volume_id();
    let early = grub::early_script(&fat::uuid_text(volume_id));
    let mut core = grub.core(Platform::BiosDisk, &early)?;
    grub::place_core(&mut core, CORE_SECTOR)?;
    ensure!(
        core.len() as u64 <= (ESP_SECTOR - CORE_SECTOR) * SECTOR as u64,
        "GRUB's core image has {} bytes, which is too much",
        core.len()
    );
    let uefi = grub.core(Platform::Uefi, &early)?;
    let configuration = grub::configuration(&payload.product, FOLDER, &payload.command_line);
    let esp = fat::build(
        &[
            ("EFI/BOOT/BOOTX64.EFI", &uefi),
            ("boot/grub/grub.cfg", configuration.as_bytes()),
            ("tessera/kernel", &payload.kernel),
            ("tessera/bundle", &payload.bundle),
            ("NOTICE.txt", payload.notices.as_bytes()),
        ],
        volume_id,
    )?;
    let esp_sectors = (esp.len() / SECTOR) as u64;
    let total = (ESP_SECTOR + esp_sectors + TAIL).next_multiple_of(2048);
    let mut image = vec![0_u8; usize::try_from(total)? * SECTOR];
    put(&mut image, CORE_SECTOR, &core)?;
    put(&mut image, ESP_SECTOR, &esp)?;

    let mut disk = Cursor::new(image);
    let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(total - 1).unwrap_or(u32::MAX));
    mbr.set_bootcode(grub::boot_code(&grub.bios_file("boot.img")?, CORE_SECTOR)?);
    mbr.overwrite_lba0(&mut disk).context("the boot sector cannot be written")?;
    let partition = |part_type_guid, name: &str, first_lba, sectors: u64| Partition {
        part_type_guid,
        part_guid: payload.uuid(name),
        first_lba,
        last_lba: first_lba + sectors - 1,
        flags: 0,
        name: name.to_string(),
    };
    let partitions = BTreeMap::from([
        (1, partition(partition_types::BIOS, "bios", CORE_SECTOR, ESP_SECTOR - CORE_SECTOR)),
        (2, partition(partition_types::EFI, "system", ESP_SECTOR, esp_sectors)),
    ]);
    let mut table = GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb512)
        .create_from_device(disk, Some(payload.uuid("disk")))
        .context("the partition table cannot be made")?;
    table.update_partitions(partitions).context("the partitions do not fit")?;
    Ok(table.write().context("the partition table cannot be written")?.into_inner())
}

fn put(image: &mut [u8], sector: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let start = usize::try_from(sector)? * SECTOR;
    image
        .get_mut(start..start + bytes.len())
        .context("a partition reaches past the end of the disk")?
        .copy_from_slice(bytes);
    Ok(())
}
