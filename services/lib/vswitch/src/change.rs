//! Changes of the switches of a running host. Each leaves them as they were when it is refused.

use crate::{Group, Mirror, Network, Settings, Switch};
use alloc::{format, string::String, vec::Vec};

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was named does not exist.
    NotFound(String),
    /// It makes no sense.
    Invalid(String),
    /// It is there already, or in use.
    Conflict(String),
}

type Result<T = ()> = core::result::Result<T, Refused>;

impl Network {
    fn place(&self, name: &str) -> Result<usize> {
        let place = self.switches.iter().position(|switch| switch.settings.name == name);
        place.ok_or_else(|| {
            let names: Vec<_> = self.switches.iter().map(|switch| switch.settings.name.as_str()).collect();
            Refused::NotFound(format!("there is no switch `{name}`: there are `{}`", names.join("`, `")))
        })
    }

    fn group_place(&self, name: &str) -> Result<(usize, usize)> {
        let found = self.switches.iter().enumerate().find_map(|(place, switch)| {
            let group = switch.groups.iter().position(|group| group.name == name)?;
            Some((place, group))
        });
        found.ok_or_else(|| Refused::NotFound(self.no_group(name)))
    }

    /// Says that there is no such port group, and which there are.
    #[must_use]
    pub fn no_group(&self, name: &str) -> String {
        let names: Vec<_> = self
            .switches
            .iter()
            .flat_map(|switch| &switch.groups)
            .map(|group| group.name.as_str())
            .collect();
        format!("there is no port group `{name}`: there are `{}`", names.join("`, `"))
    }

    /// Makes a change, unless what comes of it makes no sense.
    fn change(&mut self, change: impl FnOnce(&mut Self) -> Result) -> Result {
        let mut changed = self.clone();
        change(&mut changed)?;
        changed.check().map_err(Refused::Invalid)?;
        *self = changed;
        Ok(())
    }

    /// Adds a switch without uplinks and port groups.
    ///
    /// # Errors
    /// There is one of that name, or the settings make no sense.
    pub fn create_switch(&mut self, settings: Settings) -> Result {
        if self.place(&settings.name).is_ok() {
            return Err(Refused::Conflict(format!("there is a switch `{}` already", settings.name)));
        }
        self.change(|network| {
            network.switches.push(Switch {
                settings,
                uplinks: Some(Vec::new()),
                groups: Vec::new(),
                mirrors: Vec::new(),
            });
            Ok(())
        })
    }

    /// Changes the settings of the switch of that name.
    ///
    /// # Errors
    /// There is none, or the settings make no sense.
    pub fn change_switch(&mut self, settings: Settings) -> Result {
        let place = self.place(&settings.name)?;
        self.change(|network| {
            network.switches[place].settings = settings;
            Ok(())
        })
    }

    /// Removes a switch.
    ///
    /// # Errors
    /// There is none, or it has port groups.
    pub fn remove_switch(&mut self, name: &str) -> Result {
        let place = self.place(name)?;
        if !self.switches[place].groups.is_empty() {
            return Err(Refused::Conflict(format!("`{name}` has port groups: remove them first")));
        }
        self.switches.remove(place);
        Ok(())
    }

    /// Adds a port group to a switch.
    ///
    /// # Errors
    /// There is no such switch, there is a group of that name, or it makes no sense.
    pub fn create_group(&mut self, switch: &str, group: Group) -> Result {
        let place = self.place(switch)?;
        if self.group(&group.name).is_some() {
            return Err(Refused::Conflict(format!("there is a port group `{}` already", group.name)));
        }
        self.change(|network| {
            network.switches[place].groups.push(group);
            Ok(())
        })
    }

    /// Changes the port group of that name.
    ///
    /// # Errors
    /// There is none, or what it is to be makes no sense.
    pub fn change_group(&mut self, group: Group) -> Result {
        let (place, number) = self.group_place(&group.name)?;
        self.change(|network| {
            network.switches[place].groups[number] = group;
            Ok(())
        })
    }

    /// Removes a port group. Whoever calls has made sure that nobody is connected to it.
    ///
    /// # Errors
    /// There is none.
    pub fn remove_group(&mut self, name: &str) -> Result {
        let (place, number) = self.group_place(name)?;
        self.switches[place].groups.remove(number);
        Ok(())
    }

    /// Makes a network card an uplink of a switch.
    ///
    /// # Errors
    /// There is no such switch, or the card is an uplink of one.
    pub fn link(&mut self, switch: &str, card: &str) -> Result {
        let place = self.place(switch)?;
        let owner = self
            .switches
            .iter()
            .find(|one| one.uplinks.iter().flatten().any(|uplink| uplink == card));
        match owner {
            Some(owner) if owner.settings.name == switch => return Ok(()),
            Some(owner) => return Err(Refused::Conflict(format!("`{card}` is an uplink of `{}`", owner.settings.name))),
            None => {}
        }
        self.change(|network| {
            network.switches[place].uplinks.get_or_insert_default().push(card.into());
            Ok(())
        })
    }

    /// Takes an uplink from a switch; orders of uplinks forget it.
    ///
    /// # Errors
    /// There is no such switch, or the card is not its uplink.
    pub fn unlink(&mut self, switch: &str, card: &str) -> Result {
        let place = self.place(switch)?;
        let switch = &mut self.switches[place];
        let uplinks = switch.uplinks.get_or_insert_default();
        let Some(number) = uplinks.iter().position(|uplink| uplink == card) else {
            return Err(Refused::NotFound(format!("`{card}` is no uplink of `{}`", switch.settings.name)));
        };
        uplinks.remove(number);
        let own = switch.groups.iter_mut().filter_map(|group| group.teaming.as_mut());
        for teaming in own.chain([&mut switch.settings.teaming]) {
            teaming.active.retain(|uplink| uplink != card);
            teaming.standby.retain(|uplink| uplink != card);
        }
        Ok(())
    }

    /// Has a port's traffic copied to another port, or to none any more.
    ///
    /// # Errors
    /// There is no such switch, or it makes no sense.
    pub fn mirror(&mut self, switch: &str, from: &str, to: Option<&str>) -> Result {
        let place = self.place(switch)?;
        self.change(|network| {
            let mirrors = &mut network.switches[place].mirrors;
            mirrors.retain(|mirror| mirror.from != from);
            mirrors.extend(to.map(|to| Mirror {
                from: from.into(),
                to: to.into(),
            }));
            Ok(())
        })
    }
}
