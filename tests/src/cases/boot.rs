//! From power-on to the debug shell: firmware, numbers of processors, image formats.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure,
    image::Spec,
    machine::{Emulator, Firmware, bochs},
};
use std::fs;

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
        bochs: Some(2),
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
    Case {
        name: "boot/no-virtualisation",
        about: "a processor without what virtual machines need: the host boots to its shell, names what is missing, and refuses to start one",
        minutes: 1,
        bochs: Some(1),
        run: no_virtualisation,
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

/// Why a machine cannot run guests.
#[derive(Clone, Copy, Debug)]
enum Lack {
    /// Its processors lack this.
    Feature(&'static str),
    /// The firmware locked VT-x.
    Permission,
}

/// Bochs' BIOS as one whose set-up says that there is to be no VT-x: on each processor it locks IA32_FEATURE_CONTROL without bit 2, VMX outside of SMX.
fn locking_bios() -> Result<Vec<u8>> {
    // or eax, 5; wrmsr
    const ALLOWS: &[u8] = &[0x83, 0xc8, 0x05, 0x0f, 0x30];
    let mut bios = fs::read(bochs::BIOS)?;
    let places: Vec<usize> = (0..bios.len()).filter(|&at| bios[at..].starts_with(ALLOWS)).collect();
    ensure!(places.len() == 2, "{} allows VMX in {} places", bochs::BIOS, places.len());
    for at in places {
        bios[at + 2] = 1;
    }
    Ok(bios)
}

fn no_virtualisation(context: &Context) -> Result<Outcome> {
    let machines: &[(Lack, &str)] = match context.emulator {
        Emulator::Qemu => &[
            (Lack::Feature("svm"), "neither AMD-V nor VT-x"),
            (Lack::Feature("npt"), "AMD-V without nested paging"),
        ],
        Emulator::Bochs => &[
            (Lack::Feature("vmx"), "neither AMD-V nor VT-x"),
            (Lack::Permission, "VT-x is disabled by firmware"),
            (Lack::Feature("ept"), "no EPT"),
            (Lack::Feature("unrestricted"), "no unrestricted guest"),
        ],
    };
    for &(feature, missing) in machines {
        let bios = context.environment.logs.join("no-vmx.bios");
        if matches!(feature, Lack::Permission) {
            fs::write(&bios, locking_bios()?)?;
        }
        let mut host = context.boot(&context.product()?.into(), |config| match feature {
            Lack::Feature(name) => config.lacks.push(name),
            Lack::Permission => config.bios = Some(bios),
        })?;
        ensure!(
            host.boot_text
                .lines()
                .any(|line| line.contains(missing) && line.contains("virtual machines cannot run")),
            "with {feature:?} the kernel says:\n{}",
            host.boot_text
        );
        let cpu = host.neat_command("cpu")?;
        ensure!(cpu.contains("No virtual machine can run"), "with {feature:?} `cpu` says:\n{cpu}");
        host.command("vm start debian")?;
        // Its monitor is started, and ends when it finds that it gets no processor.
        host.poll_command("vm list", |text| {
            text.lines().any(|line| line.contains("debian") && !line.contains("running"))
        })?;
    }
    Ok(Outcome::Passed)
}
