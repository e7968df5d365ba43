//! What `switch` changes.

use super::{find, find_group};
use crate::{
    commands::{Command, Context, Doing, Failure, shorten},
    host::NetworkChange,
};
use alloc::{format, string::String, vec::Vec};
use tessera_proto::switch::{Balance, Group, Limits, Security, Settings, Shaping, TRUNK, Teaming};

/// Changes what the words say.
pub fn change(command: &dyn Command, context: &mut Context<'_>, words: &[&str]) -> Result<(), Failure> {
    let change = match *words {
        ["create", name] => NetworkChange::CreateSwitch(Settings::new(name)),
        ["set", name, key, value] => {
            let mut settings = find(context, name)?.settings;
            set_switch(command, &mut settings, key, value)?;
            NetworkChange::ChangeSwitch(settings)
        }
        ["remove", name] => NetworkChange::RemoveSwitch(name),
        ["link", switch, nic] => NetworkChange::Link { switch, nic },
        ["unlink", switch, nic] => NetworkChange::Unlink { switch, nic },
        ["mirror", switch, from, "off"] => NetworkChange::Mirror { switch, from, to: None },
        ["mirror", switch, from, to] => NetworkChange::Mirror {
            switch,
            from,
            to: Some(to),
        },
        ["group", "add", switch, name] => NetworkChange::CreateGroup {
            switch,
            group: new_group(name, 0),
        },
        ["group", "add", switch, name, number] => NetworkChange::CreateGroup {
            switch,
            group: new_group(name, vlan(command, number)?),
        },
        ["group", "set", name, key, value] => {
            let mut info = find_group(context, name)?;
            let inherited = find(context, &info.switch)?.settings;
            set_group(command, &mut info.group, &inherited, key, value)?;
            NetworkChange::ChangeGroup(info.group)
        }
        ["group", "remove", name] => NetworkChange::RemoveGroup(name),
        [other, ..] => {
            let what = format!("`switch {}` is not complete, or no form of `switch`", shorten(other));
            return Err(Failure::usage(command, what));
        }
        [] => return Ok(()),
    };
    let doing = change.doing();
    context.host.network_change(change).doing(doing)?;
    context.out.line("Done.");
    Ok(())
}

fn new_group(name: &str, vlan: u16) -> Group {
    Group {
        name: name.into(),
        vlan,
        ..Group::default()
    }
}

fn wrong<T>(command: &dyn Command, key: &str, wanted: &str, value: &str) -> Result<T, Failure> {
    Err(Failure::usage(command, format!("{key} is {wanted}, not `{}`", shorten(value))))
}

fn vlan(command: &dyn Command, value: &str) -> Result<u16, Failure> {
    match value.parse() {
        _ if value == "trunk" => Ok(TRUNK),
        Ok(number) if number < TRUNK => Ok(number),
        _ => wrong(command, "a VLAN", "0 to 4094, or `trunk`", value),
    }
}

fn yes(command: &dyn Command, key: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => wrong(command, key, "`yes` or `no`", value),
    }
}

/// `AVERAGE[/PEAK[/BURST]]` in kbit/s and KiB, or `none`.
fn limits(command: &dyn Command, key: &str, value: &str) -> Result<Option<Limits>, Failure> {
    if value == "none" {
        return Ok(None);
    }
    let numbers: Option<Vec<u64>> = value.split('/').map(|part| part.parse().ok()).collect();
    let (average, peak, burst) = match numbers.as_deref() {
        Some([average]) => (*average, *average, 64),
        Some([average, peak]) => (*average, *peak, 64),
        Some([average, peak, burst]) => (*average, *peak, *burst),
        _ => return wrong(command, key, "`AVERAGE[/PEAK[/BURST]]` in kbit/s and KiB, or `none`", value),
    };
    // What is too much is refused by who knows the bounds.
    Ok(Some(Limits {
        average: average.saturating_mul(1000),
        peak: peak.saturating_mul(1000),
        burst: burst.saturating_mul(1024),
    }))
}

fn names(value: &str) -> Vec<String> {
    if value == "none" {
        return Vec::new();
    }
    value.split(',').map(Into::into).collect()
}

/// One of the settings that switches and groups have alike. False: it is none of them.
fn set_common(
    command: &dyn Command,
    (security, shaping, teaming): (&mut Security, &mut Shaping, &mut Teaming),
    key: &str,
    value: &str,
) -> Result<bool, Failure> {
    match key {
        "promiscuous" => security.promiscuous = yes(command, key, value)?,
        "forged-transmits" => security.forged_transmits = yes(command, key, value)?,
        "mac-changes" => security.mac_changes = yes(command, key, value)?,
        "sent" => shaping.sent = limits(command, key, value)?,
        "received" => shaping.received = limits(command, key, value)?,
        "balance" => match Balance::ALL.into_iter().find(|balance| balance.name() == value) {
            Some(balance) => teaming.balance = balance,
            None => return wrong(command, key, "`port`, `source-mac` or `order`", value),
        },
        "active" => teaming.active = names(value),
        "standby" => teaming.standby = names(value),
        _ => return Ok(false),
    }
    Ok(true)
}

fn unknown(command: &dyn Command, what: &str, key: &str) -> Failure {
    Failure::usage(command, format!("a {what} has no `{}`", shorten(key)))
}

fn set_switch(command: &dyn Command, settings: &mut Settings, key: &str, value: &str) -> Result<(), Failure> {
    if key == "mtu" {
        return match value.parse() {
            Ok(mtu) => {
                settings.mtu = mtu;
                Ok(())
            }
            Err(_) => wrong(command, "an MTU", "a number of bytes", value),
        };
    }
    let parts = (&mut settings.security, &mut settings.shaping, &mut settings.teaming);
    match set_common(command, parts, key, value)? {
        true => Ok(()),
        false => Err(unknown(command, "switch", key)),
    }
}

fn set_group(command: &dyn Command, group: &mut Group, switch: &Settings, key: &str, value: &str) -> Result<(), Failure> {
    if key == "vlan" {
        group.vlan = vlan(command, value)?;
        return Ok(());
    }
    if value == "inherit" {
        match key {
            "promiscuous" | "forged-transmits" | "mac-changes" => group.security = None,
            "sent" | "received" => group.shaping = None,
            "balance" | "active" | "standby" => group.teaming = None,
            _ => return Err(unknown(command, "port group", key)),
        }
        return Ok(());
    }
    let mut security = group.security.unwrap_or(switch.security);
    let mut shaping = group.shaping.unwrap_or(switch.shaping);
    let mut teaming = group.teaming.clone().unwrap_or_else(|| switch.teaming.clone());
    if !set_common(command, (&mut security, &mut shaping, &mut teaming), key, value)? {
        return Err(unknown(command, "port group", key));
    }
    // Only what was set becomes the group's own.
    match key {
        "sent" | "received" => group.shaping = Some(shaping),
        "balance" | "active" | "standby" => group.teaming = Some(teaming),
        _ => group.security = Some(security),
    }
    Ok(())
}
