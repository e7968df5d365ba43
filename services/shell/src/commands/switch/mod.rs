//! `switch`: virtual switches and their port groups.

mod change;
mod show;

use super::{Command, Context, Doing, Failure, shorten, words};
use crate::{host::Host, suggest};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::switch::{GroupInfo, SwitchInfo};

/// The command.
pub struct Switch;

/// What `set` takes.
const KEYS: &[&str] = &[
    "mtu",
    "vlan",
    "promiscuous",
    "forged-transmits",
    "mac-changes",
    "sent",
    "received",
    "balance",
    "active",
    "standby",
];

impl Command for Switch {
    fn name(&self) -> &'static str {
        "switch"
    }

    fn summary(&self) -> &'static str {
        "show and change virtual switches and port groups"
    }

    fn usage(&self) -> &'static [&'static str] {
        &[
            "switch [list]",
            "switch show SWITCH",
            "switch groups",
            "switch addresses SWITCH",
            "switch create SWITCH",
            "switch set SWITCH KEY VALUE",
            "switch remove SWITCH",
            "switch link SWITCH NIC",
            "switch unlink SWITCH NIC",
            "switch mirror SWITCH PORT TO",
            "switch group add SWITCH GROUP [VLAN]",
            "switch group set GROUP KEY VALUE",
            "switch group remove GROUP",
        ]
    }

    fn help(&self) -> &'static str {
        "Shows virtual switches with uplinks, port groups and settings, and changes them; names with spaces stand in double quotes. Changes hold at once, outlive the network server, and are forgotten when the host restarts: its management keeps what is to stay.\nKEY is `mtu`; `promiscuous`, `forged-transmits`, `mac-changes` (`yes` or `no`); `sent`, `received`, the limits of a port as its owner sees it, in kbit/s and KiB (`AVERAGE[/PEAK[/BURST]]`, or `none`); `balance` (`port`, `source-mac`, `order`), `active`, `standby` (network cards separated by commas, or `none`); and for a group `vlan` (1 to 4094, 0 for none, or `trunk`). What a group does not say is as its switch has it; the value `inherit` goes back to that.\n`mirror` copies what a port sends and is given to the port TO; with TO `off` not any more. `addresses` lists where the switch knows addresses to be."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&[
                "list",
                "show",
                "groups",
                "addresses",
                "create",
                "set",
                "remove",
                "link",
                "unlink",
                "mirror",
                "group",
            ]),
            ["show" | "addresses" | "set" | "remove" | "link" | "unlink" | "mirror"] | ["group", "add"] => {
                let names = host.switches().unwrap_or_default();
                names.into_iter().map(|switch| quoted(&switch.settings.name)).collect()
            }
            ["group"] => words(&["add", "set", "remove"]),
            ["group", "set" | "remove"] => {
                let names = host.port_groups().unwrap_or_default();
                names.into_iter().map(|group| quoted(&group.group.name)).collect()
            }
            ["set", _] | ["group", "set", _] => words(KEYS),
            ["link" | "unlink", _] => host.nics().unwrap_or_default().into_iter().map(|nic| nic.name).collect(),
            ["mirror", _] | ["mirror", _, _] => {
                let ports = host.ports().unwrap_or_default();
                ports.into_iter().map(|port| port.name).chain(["off".to_string()]).collect()
            }
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        let arguments = super::unquote(self, arguments)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments[..] {
            [] | ["list"] => show::list(context),
            ["groups"] => show::groups(context),
            ["show", name] => {
                let switch = find(context, name)?;
                show::show(context, &switch)
            }
            ["addresses", name] => {
                let switch = find(context, name)?;
                show::addresses(context, &switch)
            }
            _ => change::change(self, context, &arguments),
        }
    }
}

/// A name as it is typed.
fn quoted(name: &str) -> String {
    if name.contains(' ') { format!("\"{name}\"") } else { name.into() }
}

/// The switch of that name.
fn find(context: &mut Context<'_>, name: &str) -> Result<SwitchInfo, Failure> {
    let all = context.host.switches().doing("list switches")?;
    let known = suggest::nearest(name, all.iter().map(|switch| &*switch.settings.name));
    let hint = known.map_or("`switch list` shows them.".into(), |known| format!("Did you mean `{known}`?"));
    all.into_iter()
        .find(|switch| switch.settings.name == name)
        .ok_or_else(|| Failure::new(format!("there is no switch `{}`", shorten(name)), hint))
}

/// The port group of that name.
fn find_group(context: &mut Context<'_>, name: &str) -> Result<GroupInfo, Failure> {
    let all = context.host.port_groups().doing("list port groups")?;
    let known = suggest::nearest(name, all.iter().map(|group| &*group.group.name));
    let hint = known.map_or("`switch groups` shows them.".into(), |known| format!("Did you mean `{known}`?"));
    all.into_iter()
        .find(|group| group.group.name == name)
        .ok_or_else(|| Failure::new(format!("there is no port group `{}`", shorten(name)), hint))
}
