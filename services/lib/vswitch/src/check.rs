//! What is wrong with a description of switches.

use crate::{
    Group, Limits, MAX_GROUPS, MAX_MIRRORS, MAX_NAME, MAX_SWITCHES, MAX_UPLINKS, MTU, Network, Settings, Shaping, Switch, TRUNK, Teaming,
};
use alloc::{format, string::String};

/// Bits in a second that a limit may have: less lets no full frame pass in a second.
const RATE: core::ops::RangeInclusive<u64> = 100_000..=1_000_000_000_000;
/// Bytes of a burst.
const BURST: core::ops::RangeInclusive<u64> = 1_024..=1 << 30;

type Result = core::result::Result<(), String>;

fn name(what: &str, name: &str) -> Result {
    let problem = match name {
        "" => "is empty",
        name if name.len() > MAX_NAME => "is longer than 64 bytes",
        name if name.chars().any(char::is_control) => "has control characters",
        name if name.trim() != name => "begins or ends with a space",
        _ => return Ok(()),
    };
    Err(format!("the name of a {what} {problem}"))
}

fn limits(which: &str, limits: &Limits) -> Result {
    if !RATE.contains(&limits.average) || !RATE.contains(&limits.peak) {
        return Err(format!("the rates of `{which}` are 100 kbit to 1 Tbit in a second"));
    }
    if limits.peak < limits.average {
        return Err(format!("the peak of `{which}` is below its average"));
    }
    if !BURST.contains(&limits.burst) {
        return Err(format!("the burst of `{which}` is 1 KiB to 1 GiB"));
    }
    Ok(())
}

fn shaping(shaping: &Shaping) -> Result {
    let both = [("sent", &shaping.sent), ("received", &shaping.received)];
    both.into_iter()
        .try_for_each(|(which, one)| one.as_ref().map_or(Ok(()), |one| limits(which, one)))
}

fn twice<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Option<&'a String> {
    names
        .clone()
        .enumerate()
        .find(|(place, one)| names.clone().take(*place).any(|other| other == *one))
        .map(|(_, one)| one)
}

fn teaming(teaming: &Teaming, switch: &Switch) -> Result {
    let all = teaming.active.iter().chain(&teaming.standby);
    if let Some(name) = twice(all.clone()) {
        return Err(format!("`{name}` stands twice among active and standby uplinks"));
    }
    let known = |name: &&String| switch.uplinks.as_ref().is_none_or(|uplinks| uplinks.contains(name));
    match all.clone().find(|name| !known(name)) {
        Some(name) => Err(format!(
            "`{name}` is active or on standby, but no uplink of `{}`",
            switch.settings.name
        )),
        None if all.count() > MAX_UPLINKS => Err(format!("there are more than {MAX_UPLINKS} active and standby uplinks")),
        None => Ok(()),
    }
}

impl Settings {
    /// # Errors
    /// What is wrong with it, in one line.
    fn check(&self, switch: &Switch) -> Result {
        name("switch", &self.name)?;
        if !MTU.contains(&self.mtu) {
            return Err(format!("the MTU is {} to {}, not {}", MTU.start(), MTU.end(), self.mtu));
        }
        shaping(&self.shaping)?;
        teaming(&self.teaming, switch)
    }
}

impl Group {
    fn check(&self, switch: &Switch) -> Result {
        name("port group", &self.name)?;
        if self.vlan > TRUNK {
            return Err(format!("port group `{}`: VLANs are 0 to 4094, and {TRUNK} for all", self.name));
        }
        let own = || {
            shaping(&self.shaping.unwrap_or_default())?;
            self.teaming.as_ref().map_or(Ok(()), |own| teaming(own, switch))
        };
        own().map_err(|problem| format!("port group `{}`: {problem}", self.name))
    }
}

impl Switch {
    /// Looks at a switch by itself.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub fn check(&self) -> Result {
        self.settings.check(self)?;
        let uplinks = self.uplinks.as_deref().unwrap_or_default();
        if uplinks.len() > MAX_UPLINKS {
            return Err(format!("a switch has {MAX_UPLINKS} uplinks at most"));
        }
        uplinks.iter().try_for_each(|uplink| name("network card", uplink))?;
        if let Some(uplink) = twice(uplinks.iter()) {
            return Err(format!("`{uplink}` stands twice among the uplinks"));
        }
        self.groups.iter().try_for_each(|group| group.check(self))?;
        if self.mirrors.len() > MAX_MIRRORS {
            return Err(format!("a switch has {MAX_MIRRORS} mirrors at most"));
        }
        for mirror in &self.mirrors {
            name("port", &mirror.from)?;
            name("port", &mirror.to)?;
            if mirror.from == mirror.to {
                return Err(format!("`{}` cannot mirror itself", mirror.from));
            }
        }
        match twice(self.mirrors.iter().map(|mirror| &mirror.from)) {
            Some(from) => Err(format!("`{from}` is mirrored twice")),
            None => Ok(()),
        }
    }
}

impl Network {
    /// Looks at all switches together.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub fn check(&self) -> Result {
        if self.switches.len() > MAX_SWITCHES {
            return Err(format!("there are {MAX_SWITCHES} switches at most"));
        }
        self.switches.iter().try_for_each(Switch::check)?;
        if let Some(name) = twice(self.switches.iter().map(|switch| &switch.settings.name)) {
            return Err(format!("two switches are called `{name}`"));
        }
        let groups = self.switches.iter().flat_map(|switch| &switch.groups);
        if groups.clone().count() > MAX_GROUPS {
            return Err(format!("there are {MAX_GROUPS} port groups at most"));
        }
        if let Some(name) = twice(groups.map(|group| &group.name)) {
            return Err(format!("two port groups are called `{name}`"));
        }
        if let Some(name) = twice(self.switches.iter().flat_map(|switch| switch.uplinks.iter().flatten())) {
            return Err(format!("`{name}` is an uplink of two switches"));
        }
        if self.switches.iter().filter(|switch| switch.uplinks.is_none()).count() > 1 {
            return Err("two switches name no uplinks: only one can have all the rest".into());
        }
        Ok(())
    }
}
