//! The monitor on the running system: the first thread serves `vm_control` and decides about the whole machine, one thread more runs each vCPU.

mod boot_file;
mod cdrom;
mod console;
mod control;
mod devices;
mod flash;
mod host;
mod local;
mod net;
mod passthrough;
mod screen;
mod setup;
mod storage;
mod suspend;

use console::RingConsole;
use tessera_rt::{Endpoint, Reply, exit, log, require, server::serve, start};

/// The program.
pub fn run() {
    let control = match setup::build() {
        Ok(control) => control,
        Err(reason) => {
            log::error!("{reason}");
            exit(1, "the virtual machine cannot be set up")
        }
    };
    let mut control = control;
    control.begin();
    start::ready();
    if let Err(error) = serve(Endpoint::new(require("control")), Reply::FIRST, &mut control) {
        log::error!("the control endpoint cannot be served: {}", error.text());
        exit(1, "the control endpoint cannot be served")
    }
}
