//! The host's own interface: how it is set, and that a setting which cuts everybody off does not last.

use super::Answer;
use alloc::{boxed::Box, rc::Rc, vec};
use core::cell::RefCell;
use tessera_hostd::{
    host::{Failure, HostError, InterfaceSpec},
    net::{Stack, setting::Setting},
    platform::Platform,
    state::{Change, StateStore},
};
use tessera_rt::log;

/// Key of the state.
const KEY: &str = "interface";
/// Milliseconds until a change is made: its answer gets out first.
const BEFORE_MS: u64 = 1000;
/// Milliseconds in which somebody has to be heard.
const TRIAL_MS: u64 = 60_000;

/// A change that nobody came through yet.
struct Trial {
    new: Setting,
    /// It was made.
    made: bool,
    number: u64,
}

#[derive(Default)]
struct State {
    kept: Setting,
    trial: Option<Trial>,
    trials: u64,
}

/// The interface.
pub struct Interface {
    stack: Stack,
    platform: Rc<dyn Platform>,
    store: Rc<dyn StateStore>,
    state: RefCell<State>,
}

impl Interface {
    /// The interface as the state has it.
    pub fn open(stack: &Stack, platform: &Rc<dyn Platform>, store: &Rc<dyn StateStore>) -> Rc<Self> {
        let kept = store.get(KEY).and_then(|kept| serde_json::from_slice::<Setting>(&kept).ok());
        let interface = Self {
            stack: stack.clone(),
            platform: platform.clone(),
            store: store.clone(),
            state: RefCell::default(),
        };
        let setting = kept.unwrap_or_else(Setting::dhcp);
        if setting != Setting::dhcp() {
            interface.make(&setting);
        }
        interface.state.borrow_mut().kept = setting;
        Rc::new(interface)
    }

    /// As it is now.
    pub fn setting(&self) -> Setting {
        let state = self.state.borrow();
        let made = state.trial.as_ref().filter(|trial| trial.made);
        made.map_or_else(|| state.kept.clone(), |trial| trial.new.clone())
    }

    fn make(&self, setting: &Setting) {
        match setting.addresses() {
            Ok(addresses) => {
                self.stack.set_ipv4(addresses.ipv4);
                self.stack.set_ipv6(&addresses.ipv6);
            }
            // It was checked before it was kept.
            Err(text) => log::error!("the interface is not set: {text}"),
        }
    }

    /// Tries another setting.
    pub fn change(self: &Rc<Self>, spec: &InterfaceSpec) -> Answer<()> {
        let new = Setting::of(spec, &spec.ipv6);
        new.addresses().map_err(|text| HostError::new(Failure::Invalid, text))?;
        let mut state = self.state.borrow_mut();
        if state.trial.is_some() {
            let text = "A change of the interface is being tried: log in at its new address, or wait until it is taken back";
            return Err(HostError::new(Failure::Busy, text));
        }
        if new == state.kept {
            return Ok(());
        }
        state.trials += 1;
        let number = state.trials;
        state.trial = Some(Trial { new, made: false, number });
        self.platform.spawn(Box::pin(self.clone().try_out(number)));
        Ok(())
    }

    /// The setting of a trial that is not over.
    fn tried(&self, number: u64) -> Option<Setting> {
        let state = self.state.borrow();
        let trial = state.trial.as_ref().filter(|trial| trial.number == number);
        trial.map(|trial| trial.new.clone())
    }

    async fn try_out(self: Rc<Self>, number: u64) {
        self.platform.sleep(BEFORE_MS).await;
        let Some(new) = self.tried(number) else { return };
        log::info!(
            "the interface is set anew; if nobody logs in within {} s it is set back",
            TRIAL_MS / 1000
        );
        self.make(&new);
        if let Some(trial) = &mut self.state.borrow_mut().trial {
            trial.made = true;
        }
        self.platform.sleep(TRIAL_MS).await;
        if self.tried(number).is_some() {
            let kept = self.state.borrow().kept.clone();
            log::warn!("nobody reached the host by its new address: the interface is set back");
            self.make(&kept);
            self.state.borrow_mut().trial = None;
        }
    }

    /// Somebody who is logged in was heard: what is being tried holds.
    pub fn reached(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if !state.trial.as_ref().is_some_and(|trial| trial.made) {
            return;
        }
        let Some(trial) = state.trial.take() else { return };
        state.kept = trial.new.clone();
        let own = self.clone();
        self.platform.spawn(Box::pin(async move {
            let kept = serde_json::to_vec(&trial.new).unwrap_or_default();
            match own.store.commit(vec![Change::Put(KEY.into(), kept)]).await {
                Ok(()) => log::info!("the interface's setting holds"),
                Err(error) => log::error!("the interface's setting is lost with a restart: {error:?}"),
            }
        }));
    }
}
