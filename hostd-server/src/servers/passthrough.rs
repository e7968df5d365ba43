//! PCI functions of the host that machines can have: init knows them, the servers that drive them know what they are for.

use super::{
    Answer, LIST, failed,
    machines::{PATIENCE, manager},
    network::Network,
    server,
};
use alloc::{format, string::String, vec::Vec};
use tessera_hostd::host::{Failure, FunctionFacts, HostError};
use tessera_proto::{
    collect, datastore, storage,
    vm_manager::{HostFunction, VmConfig},
    vm_memory::DiskPlace,
};

/// How long the storage server may take.
const DISK_PATIENCE: u64 = 120_000;

/// How machines are made up.
fn configs() -> Answer<Vec<VmConfig>> {
    let mut manager = manager(PATIENCE)?;
    let all = collect(LIST, |first| manager.list(first)).map_err(|error| failed("The machines cannot be listed", &error))?;
    // One that is removed meanwhile uses nothing.
    Ok(all.into_iter().filter_map(|vm| manager.config(&vm.name).ok()).collect())
}

/// What the disks at functions are used for: addresses and uses.
fn disk_uses() -> Answer<Vec<(String, String)>> {
    let mut drives = storage::Client(server("storage", DISK_PATIENCE)?);
    let disks = collect(LIST, |first| drives.disks(first)).map_err(|error| failed("The disks cannot be listed", &error))?;
    let mut stores = datastore::Client(server("storage", DISK_PATIENCE)?);
    let stores = collect(LIST, |first| stores.list(first)).map_err(|error| failed("The datastores cannot be listed", &error))?;
    let configs = configs()?;
    let mut uses = Vec::new();
    for disk in disks {
        let named = |config: &&VmConfig| {
            config
                .disks
                .iter()
                .any(|own| matches!(&own.place, DiskPlace::Device { device, .. } if *device == disk.name))
        };
        if let Some(store) = stores.iter().find(|store| store.disk == disk.name) {
            uses.push((disk.address, format!("the datastore {} is on its disk {}", store.name, disk.name)));
        } else if let Some(config) = configs.iter().find(named) {
            uses.push((disk.address, format!("its disk {} is one of {}", disk.name, config.name)));
        }
    }
    Ok(uses)
}

/// The same of network cards. They are called by their places: with one fewer, those behind it have other names.
fn card_uses() -> Answer<Vec<(String, String)>> {
    let (cards, switches) = (Network.cards()?, Network.switches()?);
    let uplink = |name: &String| switches.iter().find(|switch| switch.uplinks.contains(name));
    let use_of = |place: usize| {
        let (card, behind) = cards[place..].split_first()?;
        if let Some(switch) = uplink(&card.name) {
            return Some(format!(
                "it is the uplink {} of {}: take it out there first",
                card.name, switch.name
            ));
        }
        let (other, switch) = behind.iter().find_map(|other| Some((&other.name, uplink(&other.name)?)))?;
        Some(format!(
            "{other}, an uplink of {}, would have another name without it: take that out there first",
            switch.name
        ))
    };
    let all = (0..cards.len()).filter_map(|place| Some((cards[place].address.clone(), use_of(place)?)));
    Ok(all.collect())
}

/// PCI functions but for bridges.
pub fn functions() -> Answer<Vec<FunctionFacts>> {
    let mut manager = manager(PATIENCE)?;
    let all = collect(LIST, |first| manager.functions(first)).map_err(|error| failed("The PCI functions cannot be listed", &error))?;
    let uses = [("storage", disk_uses()), ("net", card_uses())];
    let used = |function: &HostFunction| {
        let Some((_, uses)) = uses.iter().find(|(server, _)| *server == function.server) else {
            return match function.server.as_str() {
                "" => String::new(),
                other => format!("{other} drives it, of which nobody knows what for"),
            };
        };
        match uses {
            Ok(uses) => {
                let mut own = uses.iter().filter(|(address, _)| *address == function.address);
                own.next().map(|(_, what)| what.clone()).unwrap_or_default()
            }
            Err(error) => format!("{} drives it, and does not tell what for: {}", function.server, error.message),
        }
    };
    let facts = |function: HostFunction| FunctionFacts {
        used: used(&function),
        address: function.address,
        identity: function.identity,
        class: function.class,
        confined: function.confined,
        remapped: function.remapped,
        server: function.server,
        machine: function.machine,
        kept: function.kept,
        together: function.together,
        problem: function.problem,
    };
    Ok(all.into_iter().map(facts).collect())
}

/// Before a machine starts: has the servers give up those of its functions that they drive for nothing.
pub fn claim(name: &str) -> Answer<()> {
    let what = format!("{name} did not start");
    let config = manager(PATIENCE)?.config(name).map_err(|error| failed(&what, &error))?;
    if config.passthrough.is_empty() {
        return Ok(());
    }
    let all = functions()?;
    // What cannot be a machine's at all is init's to say.
    let fits = |function: &&FunctionFacts| config.passthrough.contains(&function.address) && function.problem.is_empty() && !function.kept;
    let wanted: Vec<&FunctionFacts> = all.iter().filter(fits).collect();
    if let Some(used) = wanted.iter().find(|function| !function.used.is_empty()) {
        let text = format!("{what}: the host needs the PCI function {}: {}", used.address, used.used);
        return Err(HostError::new(Failure::Busy, text));
    }
    let mut manager = manager(PATIENCE)?;
    for function in wanted {
        let kept = manager.keep_function(&function.address);
        kept.map_err(|error| failed(&what, &error))?;
    }
    Ok(())
}
