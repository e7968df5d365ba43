//! Why an entry into the guest was refused, in words: the kernel says what it refused itself; of the processor, VT-x says the kind of the refusal only, so the
//! field is looked for among the checks that it makes (Intel SDM volume 3, 27.3.1), in its order.

use core::fmt;
use tessera_abi::vcpu::{SEGMENT_UNUSABLE, Segment, VcpuState, segment};

/// Raw reason: the kernel refused.
const BY_KERNEL: u64 = u64::MAX;
/// Raw reasons of VT-x: guest state, MSR; and instruction errors, in the lower half.
const GUEST_STATE: u64 = 0x8000_0021;
const MSR: u64 = 0x8000_0022;
const INSTRUCTION: u64 = 1 << 32;

/// The refusal behind an `EntryFailed` exit.
pub struct Refusal<'a>(pub &'a VcpuState);

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [raw, detail, ..] = self.0.info;
        match raw {
            BY_KERNEL => match detail {
                0 => formatter.write_str("refused by the processor, which does not say why"),
                _ => write!(formatter, "refused by the kernel: {}", by_kernel(detail)),
            },
            GUEST_STATE => write!(
                formatter,
                "refused by the processor: {}",
                first_wrong(self.0).unwrap_or("guest state, but no field that is known to be wrong")
            ),
            MSR => write!(
                formatter,
                "refused by the processor: {} cannot be loaded with its value",
                switched_msr(detail)
            ),
            _ if raw & INSTRUCTION != 0 => {
                let number = raw & 0xffff_ffff;
                write!(
                    formatter,
                    "refused by the processor: {} (instruction error {number})",
                    instruction(number)
                )
            }
            _ => write!(formatter, "refused by the processor: raw reason {raw:#x}, {detail:#x}"),
        }
    }
}

/// What the kernel found wrong, by its number.
const fn by_kernel(detail: u64) -> &'static str {
    match detail {
        1 => "CR0 has reserved bits, paging without protection, or no write-through with the cache on",
        2 => "CR3 has reserved bits",
        3 => "CR4 has reserved bits",
        4 => "EFER has reserved bits, or long mode without PAE",
        5 => "XCR0 is no combination that XSETBV takes",
        6 => "DR6 or DR7 has an upper half",
        7 => "the event to inject is of a reserved type, or no exception",
        8 => "CS is 64-bit and 32-bit code at once",
        _ => "unknown",
    }
}

/// The MSRs of the list that an entry loads, counted from 1.
const fn switched_msr(place: u64) -> &'static str {
    match place {
        1 => "STAR",
        2 => "LSTAR",
        3 => "CSTAR",
        4 => "SFMASK",
        5 => "KERNEL_GS_BASE",
        _ => "an MSR",
    }
}

/// VM-instruction errors (SDM volume 3, table 31-1) that an entry can meet.
const fn instruction(number: u64) -> &'static str {
    match number {
        0 => "no VMCS is current",
        4 => "VMLAUNCH of a VMCS that was launched",
        5 => "VMRESUME of a VMCS that was not launched",
        7 => "a control, or the event to inject",
        8 => "the host's state",
        26 => "events are blocked by MOV SS",
        _ => "unknown",
    }
}

const fn canonical(address: u64) -> bool {
    (address << 16) as i64 >> 16 == address as i64
}

/// The first field that VT-x's checks of guest state would not let pass.
#[must_use]
pub fn first_wrong(state: &VcpuState) -> Option<&'static str> {
    const PE: u64 = 1;
    const PG: u64 = 1 << 31;
    const LMA: u64 = 1 << 10;
    const VM: u64 = 1 << 17;
    const IF: u64 = 1 << 9;
    let protected = state.cr0 & PE != 0;
    let long_mode = state.efer & LMA != 0;
    let code_64 = long_mode && state.segments[segment::CS].attributes & 1 << 13 != 0;
    let flags = state.rflags;
    let pat = state.pat.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7));
    let checks = [
        (state.cr0 & PG != 0 && !protected, "CR0: paging without protection"),
        (state.dr7 >> 32 != 0, "DR7: upper half"),
        (
            !canonical(state.sysenter_esp) || !canonical(state.sysenter_eip),
            "SYSENTER_ESP or SYSENTER_EIP: not canonical",
        ),
        (!pat, "PAT: reserved memory type"),
        (state.efer & !0xd01 != 0, "EFER: reserved bits"),
    ];
    let wrong = checks.into_iter().find(|(wrong, _)| *wrong).map(|(_, name)| name);
    let virtual_8086 = flags & VM != 0;
    wrong
        .or_else(|| {
            if virtual_8086 {
                segments_of_virtual_8086(state)
            } else {
                segments(state, protected)
            }
        })
        .or_else(|| special_segments(state))
        .or_else(|| {
            let tables = [&state.gdtr, &state.idtr];
            let bad = tables.iter().any(|table| !canonical(table.base) || table.limit > 0xffff);
            bad.then_some("GDTR or IDTR: base not canonical, or limit above 0xffff")
        })
        .or_else(|| (!code_64 && state.rip >> 32 != 0).then_some("RIP: upper half outside 64-bit code"))
        .or_else(|| (code_64 && !canonical(state.rip)).then_some("RIP: not canonical"))
        .or_else(|| (flags & 2 == 0 || flags & !0x3f_7fd7 != 0 || flags & 0x8028 != 0).then_some("RFLAGS: reserved bits"))
        .or_else(|| (virtual_8086 && (long_mode || !protected)).then_some("RFLAGS: VM outside protected mode"))
        .or_else(|| {
            let interrupt = state.inject >> 31 != 0 && state.inject & 0x700 == 0;
            (interrupt && flags & IF == 0).then_some("RFLAGS: an interrupt is injected with IF clear")
        })
}

/// SDM volume 3, 27.3.1.2: all are as real mode would have them.
fn segments_of_virtual_8086(state: &VcpuState) -> Option<&'static str> {
    let good = |it: &Segment| it.base == u64::from(it.selector) << 4 && it.limit == 0xffff && it.attributes == 0xf3;
    let bad = state.segments[..6].iter().any(|it| !good(it));
    bad.then_some("a segment register: not as virtual-8086 mode has it")
}

fn segments(state: &VcpuState, protected: bool) -> Option<&'static str> {
    const NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];
    state.segments[..6].iter().zip(NAMES).enumerate().find_map(|(index, (it, name))| {
        let rights = it.attributes;
        let unusable = rights & SEGMENT_UNUSABLE != 0 || rights & 1 << 7 == 0;
        if index == segment::CS && unusable {
            return Some("CS: unusable");
        }
        if unusable {
            return None;
        }
        let kind = rights & 0xf;
        let bad_kind = match index {
            segment::CS => (protected || kind != 3) && !matches!(kind, 9 | 11 | 13 | 15),
            segment::SS => !matches!(kind, 3 | 7),
            _ => kind & 8 != 0 && kind & 2 == 0,
        };
        let upper = !matches!(index, segment::FS | segment::GS) && it.base >> 32 != 0;
        let bad = bad_kind || rights & 1 << 4 == 0 || rights & 0xf00 != 0 || upper || !canonical(it.base);
        bad.then_some(match name {
            "CS" => "CS: type, reserved bits or base",
            "SS" => "SS: type, reserved bits or base",
            "DS" => "DS: type, reserved bits or base",
            "ES" => "ES: type, reserved bits or base",
            "FS" => "FS: type, reserved bits or base",
            _ => "GS: type, reserved bits or base",
        })
    })
}

/// TR and LDTR.
fn special_segments(state: &VcpuState) -> Option<&'static str> {
    const LOCAL: u16 = 4;
    let (task, local) = (&state.segments[segment::TR], &state.segments[segment::LDTR]);
    let usable = |it: &Segment| it.attributes & SEGMENT_UNUSABLE == 0 && it.attributes & 1 << 7 != 0;
    // The kernel marks it busy.
    let kind = task.attributes & 0xf | 2;
    if !usable(task) || !matches!(kind, 3 | 11) || task.attributes & 1 << 4 != 0 {
        return Some("TR: unusable, or no task state segment");
    }
    if task.selector & LOCAL != 0 || !canonical(task.base) {
        return Some("TR: selector or base");
    }
    let bad = usable(local) && (local.attributes & 0x1f != 2 || local.selector & LOCAL != 0 || !canonical(local.base));
    bad.then_some("LDTR: type, selector or base")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::registers::tests::blank;
    use proptest::prelude::*;
    use std::string::ToString;

    /// As after reset.
    fn good() -> std::boxed::Box<VcpuState> {
        let mut state = blank();
        (state.rip, state.rflags, state.dr7, state.pat) = (0xfff0, 2, 0x400, 0x0007_0406_0007_0406);
        for index in 0..8 {
            let attributes = match index {
                segment::CS => 0x9b,
                segment::LDTR => 0x82,
                segment::TR => 0x8b,
                _ => 0x93,
            };
            state.segments[index] = Segment {
                attributes,
                limit: 0xffff,
                ..Segment::default()
            };
        }
        state
    }

    /// A name, and what makes it the first that is wrong.
    type Case = (&'static str, fn(&mut VcpuState));

    #[test]
    fn the_field_is_named() {
        assert_eq!(first_wrong(&good()), None);
        let cases: [Case; 11] = [
            ("RFLAGS: reserved bits", |s| s.rflags = 0),
            ("RFLAGS: VM outside protected mode", |s| {
                s.rflags |= 1 << 17;
                s.segments[..6].iter_mut().for_each(|it| it.attributes = 0xf3);
            }),
            ("a segment register: not as virtual-8086 mode has it", |s| s.rflags |= 1 << 17),
            ("PAT: reserved memory type", |s| s.pat = 2),
            ("TR: unusable, or no task state segment", |s| {
                s.segments[segment::TR].attributes = SEGMENT_UNUSABLE
            }),
            ("CS: type, reserved bits or base", |s| s.segments[segment::CS].attributes = 0x92),
            ("SS: type, reserved bits or base", |s| s.segments[segment::SS].base = 1 << 32),
            ("LDTR: type, selector or base", |s| s.segments[segment::LDTR].selector = 4),
            ("RIP: upper half outside 64-bit code", |s| s.rip = 1 << 32),
            ("GDTR or IDTR: base not canonical, or limit above 0xffff", |s| {
                s.gdtr.limit = 1 << 16
            }),
            ("RFLAGS: an interrupt is injected with IF clear", |s| s.inject = 1 << 31 | 0x20),
        ];
        for (name, spoil) in cases {
            let mut state = good();
            spoil(&mut state);
            state.info = [GUEST_STATE, 0, 0, 0];
            assert_eq!(first_wrong(&state), Some(name));
            assert_eq!(Refusal(&state).to_string(), std::format!("refused by the processor: {name}"));
        }
    }

    #[test]
    fn other_refusals_are_told_apart() {
        let say = |raw, detail| {
            let mut state = good();
            state.info = [raw, detail, 0, 0];
            Refusal(&state).to_string()
        };
        assert_eq!(say(u64::MAX, 2), "refused by the kernel: CR3 has reserved bits");
        assert_eq!(say(u64::MAX, 0), "refused by the processor, which does not say why");
        assert_eq!(say(MSR, 2), "refused by the processor: LSTAR cannot be loaded with its value");
        let control = say(INSTRUCTION | 7, 0);
        assert_eq!(
            control,
            "refused by the processor: a control, or the event to inject (instruction error 7)"
        );
        assert_eq!(say(0x8000_0029, 1), "refused by the processor: raw reason 0x80000029, 0x1");
    }

    proptest! {
        #[test]
        fn any_state_is_looked_at(flags: u64, rip: u64, pat: u64, rights in prop::array::uniform8(any::<u32>()), base: u64, info: [u64; 2]) {
            let mut state = good();
            (state.rflags, state.rip, state.pat) = (flags, rip, pat);
            for (segment, rights) in state.segments.iter_mut().zip(rights) {
                (segment.attributes, segment.base) = (rights, base);
            }
            state.info = [info[0], info[1], 0, 0];
            prop_assert!(!Refusal(&state).to_string().is_empty());
        }
    }
}
