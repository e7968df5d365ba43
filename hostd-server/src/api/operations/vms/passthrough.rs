//! PCI functions of the host that machines have for themselves.

use super::super::{ListQuery, page};
use super::Result;
use crate::{
    api::{ApiError, Call, data::VmRecord, route::Json},
    host::FunctionFacts,
    model::{Page, Passthrough, PciDevice},
};
use alloc::{format, string::String, vec::Vec};
use tessera_pci::{Class, class_name, vendor_name};

/// What a function is, for people.
fn name(function: &FunctionFacts) -> String {
    let (base, sub, interface) = function.class;
    let class = class_name(Class { base, sub, interface });
    match vendor_name(function.identity.0) {
        Some(vendor) => format!("{vendor} {class}"),
        None => class.into(),
    }
}

/// Why no machine can have a function; `None`: one can.
fn problem(function: &FunctionFacts) -> Option<String> {
    let text = if function.problem.is_empty() {
        &function.used
    } else {
        &function.problem
    };
    (!text.is_empty()).then(|| text.clone())
}

pub(super) async fn pci_devices(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<PciDevice>>> {
    let functions = call.api.host.functions().await?;
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let shown = |function: FunctionFacts| {
        let data = call.api.data.borrow();
        let made_up = data.vms.values().filter(|vm| vm.config.passthrough.contains(&function.address));
        let mut configured: Vec<String> = made_up.map(|vm| vm.config.name.clone()).collect();
        configured.sort();
        let (base, sub, interface) = function.class;
        PciDevice {
            vendor_id: format!("{:04x}", function.identity.0),
            device_id: format!("{:04x}", function.identity.1),
            class_id: format!("{base:02x}{sub:02x}{interface:02x}"),
            name: name(&function),
            confined: function.confined,
            interrupts_confined: function.remapped,
            server: given(&function.server),
            vm: given(&function.machine),
            configured,
            problem: problem(&function),
            together: function.together,
            address: function.address,
        }
    };
    Ok(page(functions.into_iter().map(shown).collect(), &query))
}

/// The functions that a machine is to have, if it can have those that are new.
pub(super) async fn check_functions(call: &Call, machine: &str, wanted: Passthrough, old: &[String]) -> Result<Vec<String>> {
    let wanted: Vec<String> = wanted.0.into_iter().map(|address| address.into_string()).collect();
    if wanted == old {
        return Ok(wanted);
    }
    if let Some((_, twice)) = wanted.iter().enumerate().find(|(index, one)| wanted[..*index].contains(one)) {
        return Err(ApiError::invalid(format!("The PCI function {twice} is there twice")));
    }
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let known = call.api.host.functions().await?;
    for address in &wanted {
        let found = known.iter().find(|function| function.address == *address);
        let Some(function) = found else {
            if old.contains(address) {
                continue;
            }
            return Err(ApiError::conflict(format!("This host has no PCI function {address}")));
        };
        if let Some(other) = function.together.iter().find(|other| !wanted.contains(other)) {
            return Err(ApiError::conflict(format!(
                "The PCI function {address} goes with {other} of the same device only: give the machine both"
            )));
        }
        if old.contains(address) {
            continue;
        }
        if let Some(problem) = problem(function) {
            return Err(ApiError::conflict(format!(
                "No machine can have the PCI function {address}: {problem}"
            )));
        }
        if !function.machine.is_empty() && function.machine != machine {
            return Err(ApiError::conflict(format!(
                "The PCI function {address} is {}'s, which runs: stop that machine first",
                function.machine
            )));
        }
    }
    Ok(wanted)
}

/// What a function knows is not in a machine's memory: refuses what would have to keep it.
pub(super) fn need_no_functions(record: &VmRecord, what: &str) -> Result<()> {
    match record.config.passthrough.first() {
        None => Ok(()),
        Some(address) => Err(ApiError::conflict(format!(
            "{what}: {} has the PCI function {address} of the host, whose state stays in it; shut the guest down instead",
            record.config.name
        ))),
    }
}
