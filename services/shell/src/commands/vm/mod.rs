//! `vm`: virtual machines.

mod exits;
mod list;
mod make;
mod media;
mod memory;
mod regs;
mod screen;
mod suspend;

use super::{Command, Context, Doing, Failure, machine, number, shorten, vm_names, words};
use crate::{console, host::Host, suggest};
use alloc::{format, string::String, vec::Vec};
use tessera_proto::vm_control::RunState;
use tessera_proto::vm_manager::{VmState, VmSummary};

/// The command.
pub struct Vm;

/// What can be done with a machine.
const VERBS: [&str; 20] = [
    "list", "start", "stop", "console", "info", "exits", "regs", "memory", "power", "reset", "nmi", "show", "create", "remove", "screen",
    "type", "media", "suspend", "resume", "wake",
];

impl Command for Vm {
    fn name(&self) -> &'static str {
        "vm"
    }

    fn summary(&self) -> &'static str {
        "list, start, stop, inspect virtual machines; open a console"
    }

    fn usage(&self) -> &'static [&'static str] {
        &[
            "vm list",
            "vm start NAME",
            "vm stop NAME",
            "vm suspend NAME [STORE]",
            "vm resume NAME",
            "vm console NAME",
            "vm info NAME",
            "vm exits NAME [VCPU]",
            "vm regs NAME [VCPU]",
            "vm memory NAME [MIB]",
            "vm media NAME [insert FILE|eject]",
            "vm power NAME",
            "vm wake NAME",
            "vm reset NAME",
            "vm nmi NAME [VCPU]",
            "vm screen NAME",
            "vm type NAME TEXT",
            "vm show NAME",
            "vm create NAME MEMORY KERNEL [initramfs FILE] [vcpus N] [display on] [cdrom FILE] [variables FILE] [boot-order WHAT,WHAT...] [boot-menu SECONDS] [watchdog reset|power-off] [disk|ahci DISK]... [nic GROUP [e1000e]]... [-- COMMAND-LINE]",
            "vm remove NAME",
        ]
    }

    fn help(&self) -> &'static str {
        "list: all virtual machines with their state. OVERHEAD is the host memory a machine takes beyond its RAM.\nstart, stop: a stop is as if the machine's power failed; power presses its power button, reset its reset button. wake wakes a guest that put itself to sleep with its memory kept (ACPI S3), as its power button does.\nsuspend: writes the state of a running machine to the file NAME.vmss in the datastore of its first disk or the named one, and ends it; resume or start has it go on where it was, also when the host was restarted meanwhile. Its clocks stand still in between; the time of day is told by its hardware clock. A suspended machine that is stopped gives its state up, and its file is removed.\nconsole: the machine's serial console with what it printed so far. Everything typed goes to the guest; Ctrl-] returns here.\ninfo: state of the machine and its virtual processors, and why it ended if it could not go on.\nexits: how often a virtual processor left the guest, and why. regs: its registers at its last exit.\nmemory: what the guest says of its memory, which takes a balloon driver; with MIB it is asked to do without so much.\nmedia: what is in the CD-ROM drive, which a machine with firmware has; insert and eject change it, also while the machine runs, then with a file of a datastore.\nnmi: sends a non-maskable interrupt to a virtual processor, so that a guest that is stuck shows where.\nscreen: mode and size of its screen, a number made of its pixels, and its text. type: types at its keyboard, which has US layout.\nshow: how a machine is made up. create makes one, until the host restarts: KERNEL and FILE are image:NAME for a file in the image or STORE:PATH for one in a datastore, with KERNEL bios or uefi firmware boots from disk or CD-ROM, and UEFI's variables are kept in a file of a datastore, WHAT it boots from is cdrom, disk, nic, or disk.1 for the second disk, DISK is STORE:PATH, device:NAME or device:NAME/PARTITION, which the guest reaches by virtio, or with ahci in the place of disk by a SATA host adapter, GROUP is the port group that a network card is connected to, in double quotes if its name has spaces, which is virtio, or Intel's 82574L with e1000e behind it. remove forgets one that is stopped; its disks stay."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&VERBS),
            [verb] if !matches!(*verb, "list" | "create") && VERBS.contains(verb) => vm_names(host),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        let Some((verb, rest)) = arguments.split_first() else {
            return Err(Failure::usage(
                self,
                format!("`vm` needs to be told what to do: {}", VERBS.join(", ")),
            ));
        };
        if !VERBS.contains(verb) {
            let what = format!("`vm` knows no `{}`", shorten(verb));
            return Err(match suggest::nearest(verb, VERBS) {
                Some(known) => Failure::new(what, format!("Did you mean `vm {known}`?")),
                None => Failure::usage(self, what),
            });
        }
        match (*verb, rest) {
            ("list", []) => list::list(context),
            ("list", _) => Err(Failure::usage(self, "`vm list` takes no argument")),
            ("create", words) => make::create(context, self, words),
            (_, []) => Err(Failure::usage(self, format!("`vm {verb}` needs the name of a machine"))),
            ("type", [_]) => Err(Failure::usage(self, "`vm type` needs a text")),
            ("type", [name, words @ ..]) => {
                running(&machine(context, name)?)?;
                screen::type_text(context, name, words)
            }
            ("media", [name]) => media::show(context, name),
            ("media", [name, "eject"]) => media::change(context, name, None),
            ("media", [name, "insert", file]) => media::change(context, name, Some(file)),
            ("media", _) => Err(Failure::usage(
                self,
                "`vm media` takes the name of a machine, then `insert` and a file, or `eject`",
            )),
            ("suspend", [name]) => suspend::suspend(context, name, None),
            ("suspend", [name, store]) => suspend::suspend(context, name, Some(store)),
            ("resume", [name]) => suspend::resume(context, name),
            ("memory", [name]) => memory::memory(context, self, name, None),
            ("memory", [name, mib]) => memory::memory(context, self, name, Some(mib)),
            ("exits" | "regs" | "nmi", [name, vcpu]) => {
                let vcpu = number(self, "the virtual processor", vcpu)?;
                inspect(context, verb, name, Some(vcpu))
            }
            ("exits" | "regs" | "nmi", [name]) => inspect(context, verb, name, None),
            (_, [name]) => act(context, verb, name),
            _ => Err(Failure::usage(self, format!("too many arguments for `vm {verb}`"))),
        }
    }
}

fn act(context: &mut Context<'_>, verb: &str, name: &str) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    match verb {
        "start" => {
            if vm.state == VmState::Running {
                return Err(Failure::new(
                    format!("{name} runs already"),
                    format!("`vm console {name}` opens its console."),
                ));
            }
            context.host.vm_start(name).doing(&format!("start {name}"))?;
            context.out.line(&format!("{name} started; `vm console {name}` opens its console."));
        }
        "stop" => {
            if vm.state != VmState::Suspended {
                running(&vm)?;
            }
            context.host.vm_stop(name).doing(&format!("stop {name}"))?;
            context.out.line(&format!("{name} stopped, its memory is free again."));
        }
        "console" => {
            running(&vm)?;
            return console::attach(context, name);
        }
        "power" => {
            running(&vm)?;
            context
                .host
                .vm_power_button(name)
                .doing(&format!("press the power button of {name}"))?;
            context.out.line(&format!(
                "The power button of {name} was pressed; the guest may take its time or ignore it."
            ));
        }
        "wake" => {
            running(&vm)?;
            let what = format!("wake {name}");
            // The button of a guest that is awake means something else.
            if context.host.vm_info(name).doing(&what)?.state != RunState::Sleeping {
                return Err(Failure::new(
                    format!("{name} does not sleep"),
                    format!("`vm info {name}` shows what it does; `vm power {name}` presses its power button."),
                ));
            }
            context.host.vm_power_button(name).doing(&what)?;
            context.out.line(&format!("{name} wakes; `vm console {name}` opens its console."));
        }
        "reset" => {
            running(&vm)?;
            context.host.vm_reset(name).doing(&format!("reset {name}"))?;
            context.out.line(&format!("{name} was reset."));
        }
        "screen" => {
            running(&vm)?;
            return screen::show(context, name);
        }
        "show" => return make::show(context, name),
        "remove" => return make::remove(context, name),
        _ => return list::info(context, &vm),
    }
    Ok(())
}

/// A machine's VMM answers only while it runs.
fn running(vm: &VmSummary) -> Result<(), Failure> {
    if vm.state == VmState::Running {
        return Ok(());
    }
    let mut what = format!("{} does not run", vm.name);
    if !vm.reason.is_empty() {
        what.push_str(": ");
        what.push_str(&vm.reason);
    }
    let verb = if vm.state == VmState::Suspended { "resume" } else { "start" };
    Err(Failure::new(what, format!("`vm {verb} {}` starts it.", vm.name)))
}

fn inspect(context: &mut Context<'_>, verb: &str, name: &str, vcpu: Option<u32>) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    running(&vm)?;
    if let Some(vcpu) = vcpu
        && vcpu >= vm.vcpus
    {
        return Err(Failure::new(
            format!("{name} has no virtual processor {vcpu}"),
            format!("It has {}, counted from 0.", vm.vcpus),
        ));
    }
    match verb {
        "exits" => exits::exits(context, &vm, vcpu),
        "regs" => regs::registers(context, name, vcpu.unwrap_or(0)),
        _ => {
            let vcpu = vcpu.unwrap_or(0);
            context.host.vm_nmi(name, vcpu).doing(&format!("send an interrupt to {name}"))?;
            context
                .out
                .line(&format!("Sent a non-maskable interrupt to virtual processor {vcpu} of {name}."));
            Ok(())
        }
    }
}
