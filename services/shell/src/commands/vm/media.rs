//! `vm media`: what is in a machine's CD-ROM drive.

use super::{
    Context, Failure,
    make::{file, file_text},
};
use crate::{
    commands::{Doing, machine, shorten},
    format,
};
use alloc::{format, string::String};
use tessera_proto::vm_manager::VmState;

/// Shows it.
pub fn show(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    let what = format!("look into the drive of {name}");
    let config = context.host.vm_config(name).doing(&what)?;
    let place = config.cdrom.as_ref().map_or_else(|| String::from("nothing"), file_text);
    if vm.state != VmState::Running {
        context.out.line(&format!("{place}; the machine does not run"));
        return Ok(());
    }
    let medium = context.host.vm_medium(name).doing(&what)?;
    let seen = match medium.bytes {
        Some(bytes) => format!("{} in the drive", format::bytes(bytes)),
        None if config.cdrom.is_some() => "the guest opened the drive".into(),
        None => "the drive is empty".into(),
    };
    let locked = if medium.locked { ", the guest wants to keep it" } else { "" };
    context.out.line(&format!("{place}; {seen}{locked}"));
    Ok(())
}

/// Puts a file into the drive; none takes out what is there.
pub fn change(context: &mut Context<'_>, name: &str, word: Option<&str>) -> Result<(), Failure> {
    let vm = machine(context, name)?;
    let place = match word {
        None => None,
        Some(word) => Some(file(word).ok_or_else(|| {
            Failure::new(
                format!("`{}` is no file", shorten(word)),
                "Write STORE:PATH for one in a datastore, image:NAME for one in the image.",
            )
        })?),
    };
    let text = place.as_ref().map_or_else(|| String::from("nothing"), file_text);
    context
        .host
        .vm_set_medium(name, place, vm.state == VmState::Running)
        .doing(&format!("change the medium of {name}"))?;
    context.out.line(&format!("{text} is in the drive of {name}."));
    Ok(())
}
