//! Whether a well-formed description makes sense: names that meet, resources that only one server owns, numbers that fit together, and what no
//! program of its kind may ever hold.

use crate::{
    source::{Diagnostic, Diagnostics, Located, Span, nearest},
    system::{Backing, Grant, Kind, Need, Server, Switch, System, Vm},
    units::show_size,
};
use tessera_abi::{LARGE_PAGE_SIZE, layout};
use tessera_manifest::{Firmware, MAX_DISKS, MAX_NICS, PciClass, slots};
use tessera_vswitch::Network;

/// Longest name of anything: names appear in tables on a terminal of 80 columns.
pub const MAX_NAME: usize = 24;

/// What programs must never hold, whatever a description says, and why. A description can give less than the system needs, never more than this.
const NEVER: [(&str, &[Kind], &str); 4] = [
    (
        "vmm",
        &[Kind::IoPorts, Kind::Irq, Kind::Mmio, Kind::Pci, Kind::KernelLog, Kind::Trace],
        "a virtual machine monitor never touches host hardware",
    ),
    (
        "vmx",
        &[Kind::IoPorts, Kind::Irq, Kind::Mmio, Kind::Pci, Kind::KernelLog, Kind::Trace],
        "a virtual machine's console server never touches host hardware",
    ),
    (
        "hostd",
        &[Kind::IoPorts, Kind::Irq, Kind::Mmio, Kind::Pci],
        "the management server never touches hardware",
    ),
    (
        "dcui",
        &[Kind::Irq, Kind::Mmio, Kind::Pci, Kind::Trace],
        "the host's text console works through hostd",
    ),
];

/// Classes of PCI functions that programs must never hold, beside [`NEVER`].
const NEVER_PCI: [(&str, PciClass, &str); 2] = [
    ("storage", PciClass::Network, "the storage server never holds a network card"),
    ("net", PciClass::Storage, "the network server never holds a disk"),
];

/// Looks for everything that is wrong with a system.
pub fn check(system: &System, diagnostics: &mut Diagnostics) {
    names(system, diagnostics);
    endpoints(system, diagnostics);
    devices(system, diagnostics);
    for server in &system.servers {
        check_server(server, diagnostics);
        policy(server, diagnostics);
    }
    for vm in &system.vms {
        check_vm(vm, system, diagnostics);
    }
    shares(system, diagnostics);
    disks(system, diagnostics);
    nics(system, diagnostics);
    switches(system, diagnostics);
    files(system, diagnostics);
    templates(system, diagnostics);
}

fn names(system: &System, diagnostics: &mut Diagnostics) {
    let servers: Vec<&Located<String>> = system.servers.iter().map(|server| &server.name).collect();
    let vms: Vec<&Located<String>> = system.vms.iter().map(|vm| &vm.name).collect();
    let files: Vec<&Located<String>> = system.files.iter().map(|(name, _)| name).collect();
    for (what, list) in [("server", servers), ("virtual machine", vms), ("file", files)] {
        for (index, name) in list.iter().enumerate() {
            check_name(what, name, diagnostics);
            if let Some(first) = list[..index].iter().find(|other| other.value == name.value) {
                diagnostics.push(
                    Diagnostic::error(
                        name.span,
                        format!("two {what}s are called `{}`", name.value),
                        "again here",
                        "give one of them another name",
                    )
                    .also(first.span, "first here"),
                );
            }
        }
    }
    for server in &system.servers {
        if server.name.value == system.root.value {
            let message = format!("the root server `{}` cannot be a [[server]] too", system.root.value);
            diagnostics.error(
                server.name.span,
                message,
                "",
                "remove this table; the kernel starts the root server by itself",
            );
        }
        if server.program.value == system.root.value && server.name.value != system.root.value {
            let message = format!("server `{}` runs the root server's program", server.name.value);
            diagnostics.error(server.program.span, message, "", "only the kernel starts it; name another program");
        }
        for grant in &server.grants {
            check_name("grant", &grant.name, diagnostics);
        }
    }
}

fn check_name(what: &str, name: &Located<String>, diagnostics: &mut Diagnostics) {
    // Grants may be called like interfaces, and those have names of Rust.
    let grant = what == "grant";
    let good =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-' || (grant && character == '_');
    let problem = match name.value.as_str() {
        "" => "is empty",
        text if text.len() > MAX_NAME => "is too long",
        text if !text.chars().all(good) => "has characters other than a-z, 0-9 and -",
        text if !text.starts_with(|character: char| character.is_ascii_lowercase()) => "does not begin with a letter",
        _ => return,
    };
    let help = format!("use up to {MAX_NAME} of a-z, 0-9 and -, a letter first");
    diagnostics.error(name.span, format!("the name of a {what} {problem}: \"{}\"", name.value), "", help);
}

fn all_grants(system: &System) -> impl Iterator<Item = (&Server, &Grant)> + Clone {
    system
        .servers
        .iter()
        .flat_map(|server| server.grants.iter().map(move |grant| (server, grant)))
}

fn endpoints(system: &System, diagnostics: &mut Diagnostics) {
    let mut provided: Vec<(&str, Span)> = Vec::new();
    for (server, grant) in all_grants(system) {
        let Need::Provide(endpoint) = &grant.need else { continue };
        check_name("endpoint", &Located::new(endpoint.clone(), grant.span), diagnostics);
        if endpoint == "init" {
            diagnostics.error(
                grant.span,
                "the endpoint `init` is the root server's",
                "",
                "provide an endpoint of another name",
            );
        }
        if server.per_vm {
            let message = format!(
                "`{}` is started for each virtual machine, so it cannot provide an endpoint of the system",
                server.name.value
            );
            diagnostics.error(
                grant.span,
                message,
                "",
                "remove the grant: each instance has an endpoint `control` of its own",
            );
        }
        if let Some((_, first)) = provided.iter().find(|(name, _)| name == endpoint) {
            diagnostics.push(
                Diagnostic::error(
                    grant.span,
                    format!("two servers provide `{endpoint}`"),
                    "again here",
                    "an endpoint has one provider",
                )
                .also(*first, "first here"),
            );
        } else {
            provided.push((endpoint, grant.span));
        }
    }
    for (server, grant) in all_grants(system) {
        let Need::Use(endpoint) = &grant.need else { continue };
        if endpoint != "init" && !provided.iter().any(|(name, _)| name == endpoint) {
            let known = || provided.iter().map(|(name, _)| *name).chain(["init"]);
            let help = match nearest(endpoint, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("let a server provide it, or use one of: {}", known().collect::<Vec<_>>().join(", ")),
            };
            diagnostics.error(
                grant.span,
                format!("no server provides `{endpoint}`, which `{}` uses", server.name.value),
                "no provider",
                help,
            );
        }
    }
    let unused = provided
        .iter()
        .filter(|(name, _)| !all_grants(system).any(|(_, grant)| grant.need == Need::Use((*name).to_string())));
    for (name, span) in unused {
        diagnostics.push(Diagnostic::warning(
            *span,
            format!("nobody uses the endpoint `{name}`"),
            "",
            "grant its use to a server, or remove it",
        ));
    }
}

/// Memory is shared with a server that is there, by servers that are there once.
/// Memory is shared between servers that there are. One that shares with itself has memory that outlives it.
fn shares(system: &System, diagnostics: &mut Diagnostics) {
    for (server, grant) in all_grants(system) {
        let Need::Share(other, _) = &grant.need else { continue };
        let found = system.servers.iter().find(|server| server.name.value == *other);
        let (what, help) = match found {
            None => (
                format!("`{}` shares memory with `{other}`, which is no server", server.name.value),
                nearest(other, system.servers.iter().map(|server| server.name.value.as_str()))
                    .map_or_else(|| "name one of `[[server]]`".to_string(), |near| format!("did you mean `{near}`?")),
            ),
            Some(found) if found.per_vm || server.per_vm => (
                format!("`{}` cannot share memory with `{other}`", server.name.value),
                "servers of virtual machines come and go; share between servers that start at boot".to_string(),
            ),
            Some(_) => continue,
        };
        diagnostics.error(grant.span, what, "", help);
    }
}

/// Devices have one owner, and their parts do not overlap.
fn devices(system: &System, diagnostics: &mut Diagnostics) {
    let range = |need: &Need| match need {
        Need::IoPorts(first, count) => Some((Kind::IoPorts, u64::from(*first), u64::from(*first) + u64::from(*count))),
        Need::Irq(line) => Some((Kind::Irq, u64::from(*line), u64::from(*line) + 1)),
        Need::Mmio(address, length) => Some((Kind::Mmio, *address, address + length)),
        Need::Pci(class) => Some((Kind::Pci, u64::from(class.base()), u64::from(class.base()) + 1)),
        _ => None,
    };
    let mut owned: Vec<(Kind, u64, u64, &Server, &Grant)> = Vec::new();
    for (server, grant) in all_grants(system) {
        let Some((kind, start, end)) = range(&grant.need) else { continue };
        if server.per_vm {
            let message = format!(
                "`{}` is started for each virtual machine, so it cannot own a device",
                server.name.value
            );
            diagnostics.error(grant.span, message, "", "give the device to a server that is started once");
        }
        if let Some((.., other, first)) = owned
            .iter()
            .find(|(other, from, to, ..)| *other == kind && start < *to && *from < end)
        {
            let what = match kind {
                Kind::IoPorts => "I/O ports".to_string(),
                Kind::Irq => format!("interrupt line {start}"),
                Kind::Pci => "the PCI functions of a class".to_string(),
                _ => "device registers".to_string(),
            };
            let message = format!("`{}` and `{}` both own {what}", other.name.value, server.name.value);
            diagnostics.push(
                Diagnostic::error(
                    grant.span,
                    message,
                    "overlaps",
                    "a device has one owner; let the other server call it",
                )
                .also(first.span, "owned here"),
            );
        }
        owned.push((kind, start, end, server, grant));
    }
}

fn policy(server: &Server, diagnostics: &mut Diagnostics) {
    for (_, kinds, why) in NEVER.iter().filter(|(program, ..)| *program == server.program.value) {
        for grant in server.grants.iter().filter(|grant| kinds.contains(&grant.need.kind())) {
            let message = format!("`{}` must never hold {}", server.name.value, grant.need.kind().name());
            diagnostics.error(
                grant.span,
                message,
                *why,
                "remove the grant; a server that needs a device is another server",
            );
        }
    }
    for (_, class, why) in NEVER_PCI.iter().filter(|(program, ..)| *program == server.program.value) {
        for grant in server.grants.iter().filter(|grant| grant.need == Need::Pci(*class)) {
            let message = format!("`{}` must never hold {} controllers", server.name.value, class.name());
            diagnostics.error(grant.span, message, *why, "remove the grant; they are another server's");
        }
    }
}

fn check_server(server: &Server, diagnostics: &mut Diagnostics) {
    if !server.slots.value.is_power_of_two() {
        let help = format!("the next is {}", server.slots.value.next_power_of_two());
        diagnostics.error(
            server.slots.span,
            format!("`slots` must be a power of two, {} is not", server.slots.value),
            "",
            help,
        );
    }
    let needed = u64::from(slots::GRANTS) + server.grants.len() as u64;
    if needed > u64::from(server.slots.value) {
        let message = format!("`{}` has {} slots, its grants need {needed}", server.name.value, server.slots.value);
        diagnostics.error(
            server.slots.span,
            message,
            "too few",
            format!("write `slots = {}`", needed.next_power_of_two()),
        );
    }
    for (name, bytes, most) in [
        ("heap", &server.heap, layout::DYNAMIC_BASE - layout::HEAP_BASE),
        ("screen-heap", &server.screen_heap, layout::DYNAMIC_BASE - layout::HEAP_BASE),
        ("stack", &server.stack, 8 << 20),
        ("memory", &server.memory, 1 << 30),
        ("vcpu-memory", &server.vcpu_memory, 16 << 20),
        ("device-memory", &server.device_memory, 1 << 30),
    ] {
        if bytes.value > most {
            let message = format!("`{name}` of `{}` cannot be {}", server.name.value, show_size(bytes.value));
            diagnostics.error(bytes.span, message, "too much", format!("the most is {}", show_size(most)));
        }
    }
    if !server.per_vm && server.screen_heap.value != server.heap.value {
        let message = format!("`{}` is started once, for no machine that could have a display", server.name.value);
        diagnostics.error(server.screen_heap.span, message, "", "write `heap` alone");
    }
    if !server.per_vm && server.vcpu_memory.value != 0 {
        let message = format!(
            "`{}` is started once, for no machine that has virtual processors",
            server.name.value
        );
        diagnostics.error(server.vcpu_memory.span, message, "", "write `memory` alone");
    }
    if server.stack.value == 0 {
        diagnostics.error(
            server.stack.span,
            format!("`{}` needs a stack", server.name.value),
            "",
            "write `stack = \"64 KiB\"`",
        );
    }
    budget(
        &format!("server `{}`", server.name.value),
        &server.budget_us,
        server.period_us,
        diagnostics,
    );
}

fn budget(what: &str, budget_us: &Located<u64>, period_us: u64, diagnostics: &mut Diagnostics) {
    if !(100..=10_000_000).contains(&period_us) {
        diagnostics.error(
            budget_us.span,
            format!("the period of {what} cannot be {period_us} us"),
            "",
            "write a period from 100 us to 10 s",
        );
    } else if budget_us.value > period_us {
        let message = format!("{what} has a budget of {} us in a period of {period_us} us", budget_us.value);
        diagnostics.error(
            budget_us.span,
            message,
            "longer than the period",
            "shorten the budget, or leave it out: then there is no limit",
        );
    }
}

fn check_vm(vm: &Vm, system: &System, diagnostics: &mut Diagnostics) {
    let step = LARGE_PAGE_SIZE as u64;
    let bytes = vm.memory.value;
    if bytes == 0 || !bytes.is_multiple_of(step) {
        let message = format!("`{}` cannot have {} of memory", vm.name.value, show_size(bytes));
        let help = format!(
            "a multiple of {}, such as \"{} MiB\"",
            show_size(step),
            bytes.div_ceil(step).max(1) * 2
        );
        diagnostics.error(vm.memory.span, message, "not a multiple of 2 MiB", help);
    } else if bytes < 32 << 20 {
        let message = format!("`{}` has only {} of memory", vm.name.value, show_size(bytes));
        diagnostics.push(Diagnostic::warning(vm.memory.span, message, "", "Linux needs some 48 MiB to start"));
    }
    if vm.command_line.value.len() > 2047 || vm.command_line.value.contains('\0') {
        let message = format!("the command line of `{}` is too long or has a zero byte", vm.name.value);
        diagnostics.error(vm.command_line.span, message, "", "Linux takes up to 2047 bytes");
    }
    let cdrom = vm.cdrom.as_ref().filter(|file| !file.value.contains(':'));
    for file in [Some(&vm.kernel), vm.initramfs.as_ref(), cdrom].into_iter().flatten() {
        known_file(file, system, diagnostics);
    }
    budget(
        &format!("virtual machine `{}`", vm.name.value),
        &vm.budget_us,
        vm.period_us,
        diagnostics,
    );
}

/// Endpoint of the server that serves disks.
const STORAGE: &str = "storage";

/// Disks have a server that reaches them and a way to it, and one writer each.
fn disks(system: &System, diagnostics: &mut Diagnostics) {
    let mut seen: Vec<(&Backing, bool, Span)> = Vec::new();
    for vm in &system.vms {
        let Some(first) = vm.disks.first() else { continue };
        let name = &vm.name.value;
        let monitor = system.servers.iter().find(|server| server.per_vm && server.name.value == "vmm");
        if monitor.is_some_and(|server| !server.grants.iter().any(|grant| grant.need == Need::Use(STORAGE.into()))) {
            let message = format!("`{name}` has disks, but the server `vmm` has no way to them");
            let help = "add `storage = { use = \"storage\" }` to the grants of `vmm`, and a server that provides `storage`";
            diagnostics.error(first.span, message, "cannot be served", help);
        }
        if let Some(extra) = vm.disks.get(MAX_DISKS) {
            let message = format!("`{name}` has {} disks", vm.disks.len());
            diagnostics.error(extra.span, message, "one too many", format!("the most is {MAX_DISKS}"));
        }
        for disk in &vm.disks {
            let serial = &disk.serial;
            if serial.value.len() > 20 || !serial.value.bytes().all(|byte| byte.is_ascii_graphic()) {
                let message = format!("`serial` cannot be \"{}\"", serial.value);
                diagnostics.error(serial.span, message, "", "use up to 20 characters of ASCII without blanks");
            }
            let clash = |(other, read_only, _): &&(&Backing, bool, Span)| overlap(other, &disk.backing) && !(*read_only && disk.read_only);
            if let Some((.., first)) = seen.iter().find(clash) {
                diagnostics.push(
                    Diagnostic::error(
                        disk.span,
                        "two disks of virtual machines are the same bytes",
                        "again here",
                        "a disk has one writer: give each its own, or make all of them `read-only = true`",
                    )
                    .also(*first, "first here"),
                );
            }
            seen.push((&disk.backing, disk.read_only, disk.span));
        }
    }
    if !seen.is_empty() {
        lent(STORAGE, "disks", system, diagnostics);
    }
}

/// Endpoint of the server that serves network cards.
const NET: &str = "net";

/// Network cards have a server and a way to it, and an address each.
fn nics(system: &System, diagnostics: &mut Diagnostics) {
    let mut seen: Vec<&Located<[u8; 6]>> = Vec::new();
    for vm in &system.vms {
        let Some(first) = vm.nics.first() else { continue };
        let name = &vm.name.value;
        let monitor = system.servers.iter().find(|server| server.per_vm && server.name.value == "vmm");
        if monitor.is_some_and(|server| !server.grants.iter().any(|grant| grant.need == Need::Use(NET.into()))) {
            let message = format!("`{name}` has network cards, but the server `vmm` has no way to them");
            let help = "add `net = { use = \"net\" }` to the grants of `vmm`, and a server that provides `net`";
            diagnostics.error(first.span, message, "cannot be served", help);
        }
        if let Some(extra) = vm.nics.get(MAX_NICS) {
            let message = format!("`{name}` has {} network cards", vm.nics.len());
            diagnostics.error(extra.span, message, "one too many", format!("the most is {MAX_NICS}"));
        }
        for nic in &vm.nics {
            if let Some(first) = seen.iter().find(|other| other.value == nic.mac.value) {
                diagnostics.push(
                    Diagnostic::error(
                        nic.mac.span,
                        "two network cards have the same address",
                        "again here",
                        "give each a `mac` of its own, or leave it out",
                    )
                    .also(first.span, "first here"),
                );
            }
            seen.push(&nic.mac);
        }
    }
    if !seen.is_empty() {
        lent(NET, "network cards", system, diagnostics);
    }
}

/// Switches make sense, each and together, and there are the port groups that cards are connected to.
fn switches(system: &System, diagnostics: &mut Diagnostics) {
    let help = "`[[switch]]` has name, mtu, uplinks, teaming, shaping and `[[switch.port-group]]`: see docs/network.md";
    let mut network = Network::default();
    if !system.switches.is_empty() {
        network.switches.clear();
    }
    for Switch { span, switch, .. } in &system.switches {
        let alone = switch.check();
        network.switches.push(switch.clone());
        if let Err(problem) = alone.and_then(|()| network.check()) {
            diagnostics.error(
                *span,
                format!("switch `{}`: {problem}", switch.settings.name),
                "in this switch",
                help,
            );
            return;
        }
    }
    let groups = network.switches.iter().flat_map(|switch| &switch.groups);
    for nic in system.vms.iter().flat_map(|vm| &vm.nics) {
        let name = nic.port_group.value.as_str();
        if network.group(name).is_none() {
            let known = nearest(name, groups.clone().map(|group| group.name.as_str()));
            diagnostics.push(Diagnostic::warning(
                nic.port_group.span,
                format!("there is no port group `{name}`"),
                "the card has no link until it is made",
                known.map_or_else(
                    || "add a `[[switch.port-group]]`".to_string(),
                    |known| format!("did you mean `{known}`?"),
                ),
            ));
        }
    }
}

/// The server that provides `endpoint`, which serves guests' devices, has to be lent the memory of guests.
fn lent(endpoint: &str, what: &str, system: &System, diagnostics: &mut Diagnostics) {
    let serves = |server: &&Server| server.grants.iter().any(|grant| grant.need == Need::Provide(endpoint.into()));
    let reaches = |server: &Server| {
        let guests = |grant: &Grant| grant.name.value == "guests" && grant.need == Need::Use("init".into());
        server.grants.iter().any(guests)
    };
    if let Some(server) = system.servers.iter().find(serves).filter(|server| !reaches(server)) {
        let message = format!("`{}` serves {what}, but is not lent the memory of guests", server.name.value);
        let help = "add `guests = { use = \"init\" }` to its grants";
        diagnostics.error(server.name.span, message, "cannot serve", help);
    }
}

/// Whether two disks share bytes.
fn overlap(one: &Backing, other: &Backing) -> bool {
    match (one, other) {
        (Backing::Device(one, part), Backing::Device(other, other_part)) => {
            one == other && (part == other_part || *part == 0 || *other_part == 0)
        }
        _ => one == other,
    }
}

fn known_file(file: &Located<String>, system: &System, diagnostics: &mut Diagnostics) {
    let known = || system.files.iter().map(|(name, _)| name.value.as_str());
    if known().any(|name| name == file.value) {
        return;
    }
    let help = match nearest(&file.value, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add `{} = \"PATH\"` to [files]", file.value),
    };
    diagnostics.error(file.span, format!("there is no file `{}`", file.value), "not in [files]", help);
}

fn files(system: &System, diagnostics: &mut Diagnostics) {
    for (_, grant) in all_grants(system) {
        if let Need::File(file) = &grant.need {
            known_file(&Located::new(file.clone(), grant.span), system, diagnostics);
        }
    }
    for (name, _) in &system.files {
        let by_vm = system
            .vms
            .iter()
            .any(|vm| vm.kernel.value == name.value || [&vm.initramfs, &vm.cdrom].into_iter().flatten().any(|file| file.value == name.value))
            // A machine that is made later may begin with it.
            || [Firmware::Bios, Firmware::Uefi].iter().any(|firmware| firmware.file() == name.value)
            || name.value == "vga-bios";
        if !by_vm && !all_grants(system).any(|(_, grant)| grant.need == Need::File(name.value.clone())) {
            let message = format!("nobody uses the file `{}`", name.value);
            diagnostics.push(Diagnostic::warning(
                name.span,
                message,
                "",
                "it only makes the image larger; remove it",
            ));
        }
    }
}

fn templates(system: &System, diagnostics: &mut Diagnostics) {
    let Some(vm) = system.vms.first() else { return };
    for name in ["vmm", "vmx"] {
        if !system.servers.iter().any(|server| server.per_vm && server.name.value == name) {
            let message = format!("there are virtual machines, but no server `{name}` to be started for each of them");
            diagnostics.error(
                vm.name.span,
                message,
                "cannot start",
                format!("add a [[server]] with name = \"{name}\" and per-vm = true"),
            );
        }
    }
}
