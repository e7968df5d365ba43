//! From power-on to the debug shell: firmware, numbers of processors, image formats.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure,
    image::Spec,
    machine::{Emulator, Firmware},
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
    /// Its processors are of this model.
    Model(&'static str),
    /// The firmware locked VT-x.
    Permission,
}

/// An option ROM that locks IA32_FEATURE_CONTROL with VMX off, as firmware does whose set-up says so.
fn locking_rom() -> Vec<u8> {
    // mov ecx, 0x3a; mov eax, 1; xor edx, edx; wrmsr; retf
    const CODE: &[u8] = &[
        0x66, 0xb9, 0x3a, 0, 0, 0, 0x66, 0xb8, 1, 0, 0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xcb,
    ];
    let mut rom = [&[0x55, 0xaa, 4], CODE].concat();
    rom.resize(2048, 0);
    let sum = rom.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    rom[2047] = sum.wrapping_neg();
    rom
}

fn no_virtualisation(context: &Context) -> Result<Outcome> {
    // What no machine can leave out is tried on `Capabilities` alone.
    let machines: &[(Lack, &str)] = match context.emulator {
        Emulator::Qemu => &[
            (Lack::Feature("svm"), "neither AMD-V nor VT-x"),
            (Lack::Feature("npt"), "AMD-V without nested paging"),
        ],
        Emulator::Bochs => &[
            (Lack::Feature("vmx"), "neither AMD-V nor VT-x"),
            (Lack::Model("core2_penryn_t9600"), "no EPT"),
            (Lack::Model("corei5_lynnfield_750"), "no unrestricted guest"),
            (Lack::Permission, "VT-x is disabled by firmware"),
        ],
    };
    for &(feature, missing) in machines {
        let rom = context.environment.logs.join("no-vmx.rom");
        fs::write(&rom, locking_rom())?;
        let mut host = context.boot(&context.product()?.into(), |config| match feature {
            Lack::Feature(name) => config.lacks.push(name),
            Lack::Model(name) => config.processor = Some(name),
            Lack::Permission => config.option_rom = Some(rom),
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
