//! Descriptors as the processor reads them (Intel SDM volume 3, 3.4.5, 6.14.1, 8.2.3).

/// The global table: nothing, the kernel's code and data, user level's data and code, and the task state segment at `tss`, which takes two places.
#[must_use]
pub const fn table(tss: u64, limit: u64) -> [u64; 8] {
    // Available 64-bit TSS: base in three pieces, limit.
    let low = 0x0000_8900_0000_0000 | (tss & 0x00ff_ffff) << 16 | (tss >> 24 & 0xff) << 56 | limit;
    [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, low, tss >> 32, 0]
}

/// An interrupt gate to a handler in the segment `selector`, on stack `ist` of the task state segment (0: as it comes), open to instructions of `ring` and below.
#[must_use]
pub const fn gate(handler: u64, selector: u16, ist: u64, ring: u64) -> [u64; 2] {
    let low = handler & 0xffff | (selector as u64) << 16 | ist << 32 | 0x8e00 << 32 | ring << 45 | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_names_its_handler_stack_and_ring() {
        assert_eq!(gate(0x1122_3344_5566_7788, 8, 2, 3), [0x5566_ee02_0008_7788, 0x1122_3344]);
        assert_eq!(gate(0xffff, 8, 0, 0), [0x0000_8e00_0008_ffff, 0]);
    }

    #[test]
    fn the_table_ends_with_the_task_state_segment() {
        let table = table(0xffff_8000_1234_5678, 103);
        assert_eq!(table[5..], [0x1200_8934_5678_0067, 0xffff_8000, 0]);
        assert_eq!(table[0], 0, "the first descriptor is never used");
    }
}
