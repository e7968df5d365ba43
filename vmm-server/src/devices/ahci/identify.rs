//! What a hard disk tells of itself: IDENTIFY DEVICE (ATA8-ACS, 7.16), SMART READ DATA (7.53.6), logs (annex A).

use crate::devices::virtio::block;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of each.
const PAGE: usize = 512;
/// Most blocks of ranges of one DATA SET MANAGEMENT.
pub const TRIM_BLOCKS: u16 = 8;
/// Log of the error of a queued command.
const NCQ_ERROR_LOG: u8 = 0x10;

/// Puts text into words, of which the upper byte is the first, filled with blanks.
pub fn put_text(words: &mut [u16], text: &str) {
    let mut bytes = text.bytes().chain(core::iter::repeat(b' '));
    for word in words {
        *word = [bytes.next(), bytes.next()]
            .iter()
            .fold(0, |word, byte| word << 8 | u16::from(byte.unwrap_or(b' ')));
    }
}

/// Sets the last byte so that all of a page add up to 0.
fn seal(page: &mut [u8]) {
    if let [content @ .., last] = page {
        *last = content.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    }
}

/// Bytes of a logical sector.
pub fn sector_bytes(disk: &block::Disk) -> u32 {
    // Larger ones are for the host to know.
    if disk.block_size >= 4096 { 4096 } else { 512 }
}

/// Logical sectors.
pub fn sectors(disk: &block::Disk) -> u64 {
    (disk.sectors / u64::from(sector_bytes(disk) / 512)).min((1 << 48) - 1)
}

/// The answer to IDENTIFY DEVICE.
pub fn device(disk: &block::Disk, serial: &str, write_cache: bool) -> Vec<u8> {
    let mut words = [0u16; 256];
    let (sectors, bytes) = (sectors(disk), sector_bytes(disk));
    // Not removable. Geometry of old: 16 heads of 63 sectors.
    words[0] = 0x40;
    words[1] = (sectors / (16 * 63)).min(16383) as u16;
    (words[3], words[6]) = (16, 63);
    put_text(&mut words[10..20], serial);
    put_text(&mut words[23..27], "1.0");
    put_text(&mut words[27..47], "TESSERA DISK");
    // Up to 16 sectors between interrupts of the commands that have them; DMA, logical addresses.
    words[47] = 0x8010;
    (words[49], words[50]) = (0x0f00, 0x4000);
    words[53] = 6;
    words[59] = 0x0110;
    let low = sectors.min(0x0fff_ffff);
    (words[60], words[61]) = (low as u16, (low >> 16) as u16);
    // Modes of DMA, and times in nanoseconds.
    (words[63], words[64]) = (7, 3);
    words[65..69].copy_from_slice(&[120, 120, 120, 120]);
    // 32 queued commands; SATA at 1.5 Gbit/s.
    (words[75], words[76]) = (31, 1 << 8 | 1 << 1);
    // ATA/ATAPI-4 to ATA8-ACS.
    words[80] = 0x1f0;
    // SMART, power management, write cache, look-ahead; FLUSH CACHE (EXT), 48 bits; logs, writes past the cache. Then what of it is switched on.
    let (plain, cache) = (1 | 1 << 3 | 1 << 6, 1 << 5);
    let (wide, logs) = (1 << 13 | 1 << 12 | 1 << 10, 1 << 14 | 1 << 6 | 1 << 5);
    words[82..85].copy_from_slice(&[plain | cache, 1 << 14 | wide, logs]);
    words[85..88].copy_from_slice(&[plain | if write_cache { cache } else { 0 }, wide, logs]);
    words[88] = 0x203f;
    for (place, word) in words[100..104].iter_mut().enumerate() {
        *word = (sectors >> (16 * place)) as u16;
    }
    words[106] = 1 << 14;
    if bytes > 512 {
        words[106] |= 1 << 12;
        words[117] = (bytes / 2) as u16;
    }
    if disk.discard && !disk.read_only {
        (words[105], words[169]) = (TRIM_BLOCKS, 1);
    }
    // Nothing turns.
    words[217] = 1;
    let mut page: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    page[510] = 0xa5;
    seal(&mut page);
    page
}

/// The answer to SMART READ DATA, and to the thresholds: a disk without attributes.
pub fn smart() -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[0] = 1;
    seal(&mut page);
    page
}

/// A page of a log; `failed` is the last queued command that failed: its slot, error register and sector. `None`: there is no such log.
pub fn log(number: u8, failed: Option<(u8, u8, u64)>) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE];
    match number {
        // The directory: its version, and that the other has one page.
        0 => {
            page[0] = 1;
            page[usize::from(NCQ_ERROR_LOG) * 2] = 1;
        }
        NCQ_ERROR_LOG => {
            match failed {
                Some((slot, error, sector)) => {
                    let [a, b, c, d, e, f, ..] = sector.to_le_bytes();
                    page[..4].copy_from_slice(&[slot, 0, 0x51, error]);
                    page[4..8].copy_from_slice(&[a, b, c, 0x40]);
                    page[8..11].copy_from_slice(&[d, e, f]);
                }
                // No queued one.
                None => page[0] = 0x80,
            }
            seal(&mut page);
        }
        _ => return None,
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(page: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([page[2 * at], page[2 * at + 1]])
    }

    fn sum(page: &[u8]) -> u8 {
        page.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn a_disk_tells_what_it_is() {
        let mut disk = block::Disk {
            sectors: 0x1_2345_6789,
            block_size: 512,
            read_only: false,
            discard: true,
            queues: 1,
            segments: 126,
        };
        let page = device(&disk, "ROOT-DISK", true);
        assert_eq!((page.len(), sum(&page)), (512, 0));
        assert_eq!(&page[20..30], b"ORTOD-SI K");
        assert_eq!(
            (
                word(&page, 60),
                word(&page, 61),
                word(&page, 100),
                word(&page, 101),
                word(&page, 102)
            ),
            (0xffff, 0xfff, 0x6789, 0x2345, 1)
        );
        assert_eq!((word(&page, 85) & 0x20, word(&page, 106), word(&page, 169)), (0x20, 0x4000, 1));
        (disk.block_size, disk.read_only) = (4096, true);
        let page = device(&disk, "", false);
        assert_eq!(
            (word(&page, 85) & 0x20, word(&page, 106), word(&page, 117), word(&page, 169)),
            (0, 0x5000, 2048, 0)
        );
        assert_eq!(sectors(&disk), 0x1_2345_6789 / 8);
    }

    #[test]
    fn logs_add_up() {
        assert_eq!(sum(&smart()), 0);
        let page = log(0x10, Some((5, 0x40, 0x1234_5678_9abc))).unwrap();
        assert_eq!(
            (sum(&page), &page[..12]),
            (0, &[5, 0, 0x51, 0x40, 0xbc, 0x9a, 0x78, 0x40, 0x56, 0x34, 0x12, 0][..])
        );
        assert_eq!(log(0x10, None).unwrap()[0], 0x80);
        assert_eq!(log(0, None).unwrap()[0x20], 1);
        assert_eq!(log(4, None), None);
    }
}
