//! From power-on to the debug shell: firmware, numbers of processors, image formats.

use super::Case;
use crate::{Context, Outcome, Result, ensure, image::Spec, machine::Firmware};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "boot/bios-1-cpu",
        about: "BIOS, 1 processor: to the prompt",
        minutes: 1,
        bochs: Some(1),
        run: |c| to_prompt(c, Firmware::Bios, 1, false),
    },
    Case {
        name: "boot/bios-2-cpus",
        about: "BIOS, 2 processors: to the prompt",
        minutes: 1,
        bochs: Some(1),
        run: |c| to_prompt(c, Firmware::Bios, 2, false),
    },
    Case {
        name: "boot/bios-4-cpus",
        about: "BIOS, 4 processors: to the prompt",
        minutes: 1,
        bochs: None,
        run: |c| to_prompt(c, Firmware::Bios, 4, false),
    },
    Case {
        name: "boot/uefi-1-cpu",
        about: "UEFI, 1 processor: to the prompt",
        minutes: 2,
        bochs: None,
        run: |c| to_prompt(c, Firmware::Uefi, 1, false),
    },
    Case {
        name: "boot/uefi-4-cpus",
        about: "UEFI, 4 processors: to the prompt",
        minutes: 2,
        bochs: None,
        run: |c| to_prompt(c, Firmware::Uefi, 4, false),
    },
    Case {
        name: "boot/iso-bios",
        about: "hybrid ISO by BIOS: to the prompt",
        minutes: 1,
        bochs: None,
        run: |c| to_prompt(c, Firmware::Bios, 2, true),
    },
    Case {
        name: "boot/iso-uefi",
        about: "hybrid ISO by UEFI: to the prompt",
        minutes: 2,
        bochs: None,
        run: |c| to_prompt(c, Firmware::Uefi, 2, true),
    },
];

fn to_prompt(context: &Context, firmware: Firmware, cpus: u32, iso: bool) -> Result<Outcome> {
    if let Some(reason) = context.lacks(firmware) {
        return Outcome::skip(reason);
    }
    let spec = Spec {
        iso,
        ..context.product()?.into()
    }
    .set("vm.debian.autostart=false");
    let mut host = context.boot(&spec, |config| {
        config.firmware = firmware;
        config.cpus = cpus;
    })?;
    let output = host.neat_command("cpu")?;
    let listed = output
        .lines()
        .filter(|l| l.split_whitespace().next().is_some_and(|w| w.parse::<u32>().is_ok()))
        .count();
    ensure!(
        listed == cpus as usize,
        "`cpu` lists {listed} processors, the machine has {cpus}:\n{output}"
    );
    let ps = host.neat_command("ps")?;
    ensure!(ps.contains("init") && ps.contains("shell"), "`ps` leaves out a server:\n{ps}");
    Ok(Outcome::Passed)
}
