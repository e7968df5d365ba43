//! What the hardware's virtualisation offers beyond the minimum: one numbering for VT-x and AMD-V. `object::trace::MACHINE` answers what was found and what of it is used.

use bitflags::bitflags;

bitflags! {
    /// Features of the virtualisation hardware.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct VirtFeatures: u64 {
        /// Nested paging.
        const NESTED_PAGING = 1 << 0;
        /// The address of the next instruction, or the instruction's length, is reported with an exit.
        const NEXT_RIP = 1 << 1;
        /// Unchanged guest state is cached between runs.
        const CLEAN_BITS = 1 << 2;
        /// One guest's translations can be flushed alone.
        const FLUSH_BY_TAG = 1 << 3;
        /// The bytes of a faulting instruction are reported.
        const DECODE_ASSISTS = 1 << 4;
        /// Spinning guests can be made to exit.
        const PAUSE_FILTER = 1 << 5;
        /// The pause filter has a threshold.
        const PAUSE_THRESHOLD = 1 << 6;
        /// Interrupts are delivered without exits.
        const VIRTUAL_APIC = 1 << 7;
        /// Guests may run their own guests' state switches without exits.
        const VIRTUAL_VMLOAD = 1 << 8;
        /// The global interrupt flag is virtualised.
        const VIRTUAL_GIF = 1 << 9;
        /// Non-maskable interrupts are virtualised.
        const VIRTUAL_NMI = 1 << 10;
        /// The TSC's rate can be scaled.
        const TSC_SCALING = 1 << 11;
        /// Extended state is managed with XSAVE.
        const XSAVE = 1 << 12;
        /// Translations are tagged with the guest they belong to.
        const TAGGED_TLB = 1 << 13;
        /// Guests run in real mode and without paging.
        const UNRESTRICTED_GUEST = 1 << 14;
        /// A deadline ends a run without an interrupt of the host's.
        const DEADLINE_TIMER = 1 << 15;
        /// Nested page tables have pages of 1 GiB.
        const HUGE_PAGES = 1 << 16;
        /// Nested page tables record accesses and writes.
        const ACCESSED_DIRTY = 1 << 17;
        /// Registers of the interrupt controller are read and written without exits.
        const APIC_REGISTERS = 1 << 18;
        /// Interrupts reach a running guest from other processors without exits.
        const POSTED_INTERRUPTS = 1 << 19;
        /// The task priority is virtualised.
        const TPR_SHADOW = 1 << 20;
        /// Written pages are logged.
        const PAGE_LOG = 1 << 21;
        /// Execution is permitted by privilege level.
        const MODE_BASED_EXECUTE = 1 << 22;
    }
}

/// A feature's name on VT-x and on AMD-V, empty where that does not know it, and what it is good for.
pub const VIRT_FEATURES: [(VirtFeatures, &str, &str, &str); 22] = [
    (VirtFeatures::NESTED_PAGING, "EPT", "nested paging", "guests own their page tables"),
    (VirtFeatures::UNRESTRICTED_GUEST, "unrestricted guest", "", "real mode and no paging without emulation"),
    (VirtFeatures::TAGGED_TLB, "VPID", "ASID", "translations survive exits; else flush"),
    (VirtFeatures::FLUSH_BY_TAG, "INVVPID", "flush by ASID", "one guest's translations flushed alone; else new tags"),
    (VirtFeatures::HUGE_PAGES, "EPT 1-GiB pages", "1-GiB pages", "fewer translations of guest RAM; else 2 MiB pages"),
    (VirtFeatures::ACCESSED_DIRTY, "EPT A/D", "nested A/D", "nested tables record what a guest read and wrote"),
    (VirtFeatures::TPR_SHADOW, "TPR shadow", "V_TPR", "task priority without exits"),
    (VirtFeatures::VIRTUAL_NMI, "virtual NMI", "virtual NMI", "NMI blocking by the processor; else IRET exits"),
    (VirtFeatures::DEADLINE_TIMER, "preemption timer", "", "deadlines without host interrupts"),
    (VirtFeatures::NEXT_RIP, "instruction length", "next RIP", "instructions skipped without decoding"),
    (VirtFeatures::DECODE_ASSISTS, "", "decode assists", "bytes of faulting instructions; else fetched"),
    (VirtFeatures::CLEAN_BITS, "", "VMCB clean bits", "unchanged state stays cached"),
    (VirtFeatures::PAUSE_FILTER, "PAUSE-loop exiting", "PAUSE filter", "spinning guests give way"),
    (VirtFeatures::PAUSE_THRESHOLD, "", "PAUSE threshold", "only tight loops count as spinning"),
    (VirtFeatures::XSAVE, "XSAVE", "XSAVE", "guests have AVX; else x87 and SSE"),
    (VirtFeatures::VIRTUAL_APIC, "virtual interrupts", "AVIC", "interrupts without exits; else injected"),
    (VirtFeatures::APIC_REGISTERS, "APIC registers", "", "APIC accesses without exits; else emulated"),
    (VirtFeatures::POSTED_INTERRUPTS, "posted interrupts", "", "interrupts to running guests; else by IPI"),
    (VirtFeatures::TSC_SCALING, "TSC scaling", "TSC rate MSR", "guests with another clock rate"),
    (VirtFeatures::VIRTUAL_VMLOAD, "", "virtual VMLOAD", "for guests' guests"),
    (VirtFeatures::VIRTUAL_GIF, "", "virtual GIF", "for guests' guests"),
    (VirtFeatures::PAGE_LOG, "page log", "", "written pages listed by the processor"),
];
