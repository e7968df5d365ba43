//! All virtual switches, as they are configured: by the manifest at first, by messages afterwards. What was changed outlives the server in memory that it shares with nobody (`keep` in the manifest).

use super::{
    card::Card,
    guests::Nic,
    vswitch::{End, Port, VSwitch, guest},
};
use alloc::{
    rc::{Rc, Weak},
    string::{String, ToString},
    vec::Vec,
};
use tessera_device::platform;
use tessera_net::{keep::Keep, switch::Slot};
use tessera_proto::{Failure, FailureKind};
use tessera_rt::{log, start::start_info};
use tessera_vswitch::{Network, Refused, State};

/// Name of the grant with the memory that outlives the server.
const KEEP: &str = "keep";
/// Most cards whose link is remembered to be down.
const MOST_DOWN: usize = 256;

/// Where a port is: in which switch, and where there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The switch's place.
    pub switch: usize,
    /// The port's.
    pub slot: Slot,
}

/// A guest's card without a port: what it sends is lost, but what its driver asks for is still done.
pub struct Waiting {
    /// The card.
    pub nic: Weak<Nic>,
    name: String,
    mac: [u8; 6],
    group: String,
}

/// All switches.
pub struct Fabric {
    /// The switches; their places stay.
    pub switches: Vec<Option<VSwitch>>,
    /// Guests' cards whose port group does not exist.
    pub waiting: Vec<Waiting>,
    state: State,
    keep: Option<Keep>,
}

/// A refusal for callers.
pub fn refused(refused: Refused) -> Failure {
    match refused {
        Refused::NotFound(text) => Failure::new(FailureKind::NotFound, text),
        Refused::Invalid(text) => Failure::new(FailureKind::BadRequest, text),
        Refused::Conflict(text) => Failure::new(FailureKind::BadState, text),
    }
}

/// What the manifest says, or what is usual.
fn configured() -> Network {
    let switches = start_info().switches.clone();
    if switches.is_empty() {
        return Network::default();
    }
    let network = Network { switches };
    match network.check() {
        Ok(()) => network,
        Err(problem) => {
            log::error!("the manifest's switches make no sense, there is the usual one instead: {problem}");
            Network::default()
        }
    }
}

impl Fabric {
    /// The switches that an earlier server had, or those of the manifest.
    pub fn new(cards: &mut [Card], now: u64) -> Self {
        let keep = platform::shared(KEEP).and_then(|memory| Keep::new(&memory));
        if keep.is_none() {
            log::warn!("changes of switches end with this server: grant it `keep = {{ share = \"net + 64 KiB\" }}`");
        }
        let kept = keep.as_ref().and_then(Keep::get);
        let state = kept.and_then(|bytes| State::decode(&bytes)).unwrap_or_else(|| State {
            network: configured(),
            down: Vec::new(),
        });
        let mut new = Self {
            switches: Vec::new(),
            waiting: Vec::new(),
            state,
            keep,
        };
        let names: Vec<_> = cards.iter().map(|card| card.name().to_string()).collect();
        new.state.network.resolve(&names);
        new.apply(cards, now);
        new
    }

    /// The configuration.
    pub const fn network(&self) -> &Network {
        &self.state.network
    }

    /// All switches that there are.
    pub fn all(&self) -> impl Iterator<Item = (usize, &VSwitch)> {
        self.switches
            .iter()
            .enumerate()
            .filter_map(|(place, switch)| Some((place, switch.as_ref()?)))
    }

    /// The switch at a place.
    pub fn get(&self, place: usize) -> Option<&VSwitch> {
        self.switches.get(place)?.as_ref()
    }

    /// The switch at a place.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut VSwitch> {
        self.switches.get_mut(place)?.as_mut()
    }

    /// Where the port of that name is.
    pub fn find(&self, name: &str) -> Option<At> {
        self.all().find_map(|(switch, one)| one.find(name).map(|slot| At { switch, slot }))
    }

    /// Makes the switches what the configuration says.
    fn apply(&mut self, cards: &mut [Card], now: u64) {
        let Self { switches, state, .. } = self;
        for place in switches.iter_mut() {
            let gone = place.take_if(|switch| !state.network.switches.iter().any(|one| one.settings.name == switch.name));
            for (_, port) in gone.iter().flat_map(VSwitch::ports) {
                if let End::Uplink { place, .. } = port.end
                    && let Some(card) = cards.get_mut(place)
                {
                    card.connect(None);
                }
            }
        }
        // A card that goes from one switch to another is lost by the first before the second has it.
        let (mut lost, mut got) = (Vec::new(), Vec::new());
        for to in &state.network.switches {
            let known = |one: &Option<VSwitch>| one.as_ref().is_some_and(|one| one.name == to.settings.name);
            let place = switches
                .iter()
                .position(known)
                .or_else(|| switches.iter().position(Option::is_none));
            let place = place.unwrap_or_else(|| {
                switches.push(None);
                switches.len() - 1
            });
            let switch = switches[place].get_or_insert_with(|| VSwitch::new(&to.settings.name));
            let (less, more) = switch.configure(to, cards, now);
            lost.extend(less);
            got.extend(more.into_iter().map(|(card, slot)| (card, At { switch: place, slot })));
        }
        let all = lost
            .into_iter()
            .map(|card| (card, None))
            .chain(got.into_iter().map(|(card, at)| (card, Some(at))));
        for (card, at) in all {
            if let Some(card) = cards.get_mut(card) {
                card.connect(at);
            }
        }
    }

    /// Puts the state where a successor finds it.
    ///
    /// # Errors
    /// It has become too large.
    fn store(&self, state: &State) -> Result<(), Failure> {
        let Some(keep) = &self.keep else { return Ok(()) };
        let stored = state.encode().is_some_and(|bytes| keep.put(&bytes));
        stored.then_some(()).ok_or_else(|| {
            let text = format_args!("there is room for {} bytes of switches and port groups: remove some", keep.room()).to_string();
            Failure::new(FailureKind::Exhausted, text)
        })
    }

    /// Changes the configuration, and the switches with it.
    ///
    /// # Errors
    /// The change is refused, and nothing has changed.
    pub fn change(
        &mut self,
        cards: &mut [Card],
        now: u64,
        change: impl FnOnce(&mut Network) -> Result<(), Refused>,
    ) -> Result<(), Failure> {
        let mut state = self.state.clone();
        change(&mut state.network).map_err(refused)?;
        self.store(&state)?;
        self.state = state;
        self.apply(cards, now);
        for waiting in core::mem::take(&mut self.waiting) {
            let Some(nic) = waiting.nic.upgrade() else { continue };
            if self.connect_guest(&nic, &waiting.name, waiting.mac, &waiting.group, now).is_ok() {
                log::info!("{} is connected to `{}` now", waiting.name, waiting.group);
            }
        }
        Ok(())
    }

    /// Names of the ports in a group, among them cards that wait for it.
    pub fn members(&self, group: &str) -> Vec<String> {
        let connected = self
            .all()
            .flat_map(|(_, switch)| switch.ports())
            .filter(|(_, port)| port.group == group);
        connected.map(|(_, port)| port.name.clone()).collect()
    }

    fn connect(&mut self, port: Port, mac: [u8; 6], now: u64) -> Result<At, Failure> {
        let Self { switches, state, .. } = self;
        let network = &state.network;
        let (to, group) = network
            .group(&port.group)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, network.no_group(&port.group)))?;
        let found = switches.iter_mut().enumerate();
        let mut found = found.filter_map(|(place, switch)| Some((place, switch.as_mut()?)));
        let full = Failure::new(FailureKind::Exhausted, "the switch has no free port");
        let (switch, one) = found.find(|(_, one)| one.name == to.settings.name).ok_or(full.clone())?;
        let slot = one.connect(port, mac, to, group, now).ok_or(full)?;
        Ok(At { switch, slot })
    }

    /// Connects a guest's card, which has this configured address. One whose port group does not exist waits for it.
    ///
    /// # Errors
    /// There is no such port group, or no free port.
    pub fn connect_guest(&mut self, nic: &Rc<Nic>, name: &str, mac: [u8; 6], group: &str, now: u64) -> Result<(), Failure> {
        let at = match self.connect(guest(nic, name.into(), mac, group), mac, now) {
            Ok(at) => at,
            Err(failure) => {
                self.waiting.push(Waiting {
                    nic: Rc::downgrade(nic),
                    name: name.into(),
                    mac,
                    group: group.into(),
                });
                return Err(failure);
            }
        };
        let up = !self.state.down.contains(&nic.of);
        if let Some(switch) = self.get_mut(at.switch) {
            switch.switch.set_connected(at.slot, up);
        }
        nic.set_link(up);
        Ok(())
    }

    /// Connects a server of the host.
    ///
    /// # Errors
    /// There is no such port group, or no free port.
    pub fn connect_host(&mut self, place: usize, name: &str, mac: [u8; 6], group: &str, now: u64) -> Result<At, Failure> {
        let port = Port {
            end: End::Host { place, mac },
            name: name.into(),
            group: group.into(),
        };
        self.connect(port, mac, now)
    }

    /// The port group that a port is connected to.
    pub fn group_of(&self, at: At) -> Option<&str> {
        self.get(at.switch)?.port(at.slot).map(|port| port.group.as_str())
    }

    /// The longest payload of frames in a port group, in bytes.
    pub fn mtu(&self, group: &str) -> Option<u16> {
        self.network().group(group).map(|(switch, _)| switch.settings.mtu)
    }

    /// Takes a port away.
    pub fn disconnect(&mut self, at: At) {
        if let Some(switch) = self.get_mut(at.switch) {
            switch.disconnect(at.slot);
        }
    }

    /// Takes the link of a guest's port down or up.
    ///
    /// # Errors
    /// There is no such port, it is no guest's, or too many are down.
    pub fn set_link(&mut self, port: &str, up: bool) -> Result<(), Failure> {
        let missing = || Failure::new(FailureKind::NotFound, format_args!("there is no port `{port}`").to_string());
        let at = self.find(port).ok_or_else(missing)?;
        let nic = match self.get(at.switch).and_then(|switch| switch.end(at.slot)) {
            Some(End::Guest { nic, .. }) => nic.upgrade().ok_or_else(missing)?,
            _ => {
                let text = "only links of virtual machines' cards can be taken down: unlink a network card from its switch";
                return Err(Failure::new(FailureKind::BadRequest, text));
            }
        };
        let mut state = self.state.clone();
        state.down.retain(|of| *of != nic.of);
        if !up {
            // Machines that have ended are the oldest.
            if state.down.len() >= MOST_DOWN {
                state.down.remove(0);
            }
            state.down.push(nic.of);
        }
        self.store(&state)?;
        self.state = state;
        if let Some(switch) = self.get_mut(at.switch) {
            switch.switch.set_connected(at.slot, up);
        }
        nic.set_link(up);
        Ok(())
    }

    /// Takes up what has changed at the ends of all ports.
    pub fn follow(&mut self, cards: &[Card]) {
        self.switches.iter_mut().flatten().for_each(|switch| switch.follow(cards));
    }
}
