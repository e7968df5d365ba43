//! `vm suspend`, `vm resume`.

use super::{Context, Failure, machine, running};
use crate::commands::Doing;
use alloc::format;
use alloc::string::String;
use tessera_proto::vm_manager::{FilePlace, VmState};
use tessera_proto::vm_memory::DiskPlace;

/// Has a machine's state written into a datastore: the named one, or that of its first disk.
pub fn suspend(context: &mut Context<'_>, name: &str, store: Option<&str>) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    running(&vm)?;
    let what = format!("suspend {name}");
    let config = context.host.vm_config(name).doing(&what)?;
    let mut of_disks = config.disks.into_iter().filter_map(|disk| match disk.place {
        DiskPlace::Store { store, .. } => Some(store),
        DiskPlace::Device { .. } => None,
    });
    let mut store = store.map(String::from);
    let first = of_disks.next();
    if let (Some(first), Some(wanted)) = (&first, &store)
        && first != wanted
        && !of_disks.any(|known| known == *wanted)
    {
        // Who has the disks has the state, so it is never gone on with on disks that have moved on.
        return Err(Failure::new(
            format!("{name} has no disk in {wanted}"),
            format!("Its state belongs where its disks are: `vm suspend {name}` writes it to {first}."),
        ));
    }
    let store = store.take().or(first).ok_or_else(|| {
        Failure::new(
            format!("{name} has no disk in a datastore, where its state could be"),
            format!("`vm suspend {name} STORE` names one; `datastore list` shows all."),
        )
    })?;
    let path = format!("{name}.vmss");
    let text = format!("{store}:{path}");
    context.host.vm_suspend(name, FilePlace::Store { store, path }).doing(&what)?;
    let line = format!(
        "{name} stands still while its state is written to {text}; `vm info {name}` shows how far that is, `vm resume {name}` has it go on."
    );
    context.out.prose(&line, 0);
    Ok(())
}

/// Has it go on.
pub fn resume(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    if vm.state != VmState::Suspended {
        return Err(Failure::new(
            format!("{name} is not suspended"),
            format!("`vm start {name}` starts a machine that is stopped."),
        ));
    }
    context.host.vm_resume(name).doing(&format!("resume {name}"))?;
    context.out.line(&format!("{name} goes on; `vm console {name}` opens its console."));
    Ok(())
}
