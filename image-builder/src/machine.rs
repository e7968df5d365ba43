//! Whether a machine will do, before anything is installed on it: read off what Linux says of its processors, from any installed or live system.

use std::{collections::BTreeSet, fmt::Write};

/// What Linux says of the first processor (`/proc/cpuinfo`), as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Model name.
    pub model: String,
    /// Processors in all.
    pub count: usize,
    /// Words of the line `flags`.
    pub flags: BTreeSet<String>,
    /// Words of the line `vmx flags`.
    pub vmx_flags: BTreeSet<String>,
}

/// The longest file that is looked at: a thousand processors have fewer bytes.
const MOST: usize = 16 << 20;

impl Processor {
    /// Reads `/proc/cpuinfo`.
    ///
    /// # Errors
    /// The text is not one of an x86 machine's.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MOST {
            return Err(format!("the file is longer than {} MiB: name a copy of /proc/cpuinfo", MOST >> 20));
        }
        let mut found = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key.trim() {
                "processor" => found.count += 1,
                "model name" if found.model.is_empty() => value.trim().clone_into(&mut found.model),
                "flags" if found.flags.is_empty() => found.flags = words(),
                "vmx flags" if found.vmx_flags.is_empty() => found.vmx_flags = words(),
                _ => {}
            }
        }
        if found.flags.is_empty() {
            return Err("there is no line 'flags': name the /proc/cpuinfo of an x86-64 machine that runs Linux".into());
        }
        Ok(found)
    }
}

/// Linux's word for something, and ours.
type Flag = (&'static str, &'static str);

/// What the host needs to boot.
const HOST: &[Flag] = &[
    ("lm", "64-bit mode"),
    ("nx", "pages that cannot be executed"),
    ("syscall", "SYSCALL"),
    ("fsgsbase", "FSGSBASE (Intel since Ivy Bridge, AMD since Steamroller)"),
    ("apic", "a local APIC"),
    ("pge", "global pages"),
    ("pat", "page attributes"),
    ("fxsr", "FXSAVE"),
    ("tsc", "a time stamp counter"),
];
/// What the host uses where it is there.
const HOST_WANTED: &[Flag] = &[
    ("x2apic", "x2APIC"),
    ("tsc_deadline_timer", "TSC deadline"),
    ("constant_tsc", "constant TSC"),
    ("smep", "SMEP"),
    ("smap", "SMAP"),
    ("umip", "UMIP"),
    ("pdpe1gb", "1-GiB pages"),
];
/// What guests need on VT-x, in the words of the line `vmx flags`.
const VMX: &[Flag] = &[
    ("ept", "EPT"),
    ("unrestricted_guest", "unrestricted guest"),
    ("vnmi", "virtual NMIs"),
    ("vtpr", "the TPR shadow"),
    ("tsc_offset", "a TSC offset"),
];
const VMX_WANTED: &[Flag] = &[
    ("vpid", "VPID"),
    ("preemption_timer", "preemption timer"),
    ("ept_ad", "EPT A/D"),
    ("ept_1gb", "EPT 1-GiB pages"),
    ("ple", "PAUSE-loop exiting"),
];
/// What guests need on AMD-V.
const SVM: &[Flag] = &[("npt", "nested paging")];
const SVM_WANTED: &[Flag] = &[
    ("nrip_save", "next RIP"),
    ("decodeassists", "decode assists"),
    ("pausefilter", "PAUSE filter"),
    ("pfthreshold", "PAUSE threshold"),
];

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For people, in lines of at most 80 columns as far as names allow.
    pub text: String,
    /// The host boots.
    pub boots: bool,
    /// It runs virtual machines.
    pub runs_guests: bool,
}

/// Compares a machine with what Tessera needs and uses.
#[must_use]
pub fn judge(processor: &Processor) -> Verdict {
    let mut text = format!("{}, {} processors\n", processor.model, processor.count);
    let boots = lines(&mut text, "to boot", &processor.flags, HOST, HOST_WANTED);
    let has = |flag: &str| processor.flags.contains(flag);
    let guests = if has("vmx") {
        if processor.vmx_flags.is_empty() {
            text.push_str("  virtual machines: VT-x, but this Linux does not tell its features: look with 5.11 or newer\n");
            false
        } else {
            lines(&mut text, "virtual machines on VT-x", &processor.vmx_flags, VMX, VMX_WANTED)
        }
    } else if has("svm") {
        lines(&mut text, "virtual machines on AMD-V", &processor.flags, SVM, SVM_WANTED)
    } else {
        text.push_str("  virtual machines: neither VT-x nor AMD-V; if the processor has one, switch it on in the firmware\n");
        false
    };
    // Guests' extended state is managed with it.
    let guests = guests
        && lines(
            &mut text,
            "their extended state",
            &processor.flags,
            &[("xsave", "XSAVE")],
            &[("avx", "AVX")],
        );
    text.push_str(match (boots, boots && guests) {
        (true, true) => "This machine will do.\n",
        (true, false) => "This machine boots, but runs no virtual machines.\n",
        _ => "This machine does not boot.\n",
    });
    Verdict {
        text,
        boots,
        runs_guests: boots && guests,
    }
}

/// A line for what is needed and one for each thing that is only wanted and missing; whether all that is needed is there.
fn lines(text: &mut String, what: &str, flags: &BTreeSet<String>, needed: &[Flag], wanted: &[Flag]) -> bool {
    let missing = |list: &[Flag]| -> Vec<&'static str> {
        let absent = list.iter().filter(|(flag, _)| !flags.contains(*flag));
        absent.map(|&(_, name)| name).collect()
    };
    let (needed, wanted) = (missing(needed), missing(wanted));
    let state = if needed.is_empty() {
        "all there".to_owned()
    } else {
        format!("missing: {}", needed.join(", "))
    };
    // Writing to a String does not fail.
    let _ = writeln!(text, "  {what}: {state}");
    if !wanted.is_empty() {
        let _ = writeln!(text, "    does without: {}", wanted.join(", "));
    }
    needed.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTEL: &str = "processor\t: 0\nmodel name\t: A processor\nflags\t\t: lm nx syscall fsgsbase apic pge pat fxsr tsc vmx xsave avx x2apic\n\
                         vmx flags\t: vnmi ept unrestricted_guest vtpr tsc_offset vpid\n\nprocessor\t: 1\nflags\t\t: other\n";

    fn verdict(text: &str) -> Verdict {
        judge(&Processor::parse(text).unwrap())
    }

    #[test]
    fn a_good_machine_will_do() {
        let verdict = verdict(INTEL);
        assert!(verdict.boots && verdict.runs_guests, "{}", verdict.text);
        assert!(verdict.text.starts_with("A processor, 2 processors\n"));
        assert!(verdict.text.contains("does without: TSC deadline, constant TSC, SMEP"));
        assert!(verdict.text.contains("does without: preemption timer, EPT A/D"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = verdict(&INTEL.replace(" vmx ", " "));
        assert!(
            none.boots && !none.runs_guests && none.text.contains("neither VT-x nor AMD-V"),
            "{}",
            none.text
        );
        let old = verdict(&INTEL.replace(" unrestricted_guest", ""));
        assert!(
            !old.runs_guests && old.text.contains("VT-x: missing: unrestricted guest"),
            "{}",
            old.text
        );
        let silent = verdict(&INTEL.replace("vmx flags", "other"));
        assert!(!silent.runs_guests && silent.text.contains("does not tell"), "{}", silent.text);
        let older = verdict(&INTEL.replace(" fsgsbase", ""));
        assert!(!older.boots && older.text.contains("missing: FSGSBASE"), "{}", older.text);
        let amd = verdict(&INTEL.replace(" vmx ", " svm "));
        assert!(
            !amd.runs_guests && amd.text.contains("AMD-V: missing: nested paging"),
            "{}",
            amd.text
        );
        let amd = verdict(&INTEL.replace(" vmx ", " svm npt "));
        assert!(amd.runs_guests, "{}", amd.text);
        assert!(Processor::parse("model name: an Arm").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,400}") {
            if let Ok(processor) = Processor::parse(&text) {
                let verdict = judge(&processor);
                prop_assert!(verdict.boots || !verdict.runs_guests);
            }
        }
    }
}
