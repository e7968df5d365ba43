//! The CD-ROM drive of a virtual machine that runs, served by its VMM on the `control` endpoint.

use crate::declare::interface;
use crate::vm_manager::FilePlace;
use serde::{Deserialize, Serialize};

/// What is in the drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Bytes; none: the drive is empty, or the guest opened it.
    pub bytes: Option<u64>,
    /// The guest does not want it to be taken out now.
    pub locked: bool,
}

interface! {
    /// The CD-ROM drive of one virtual machine.
    vm_media = 18;

    /// What is in the drive.
    0 idempotent fn medium() -> Medium;
    /// Puts what `vm_manager.set_medium` last named into the drive, or takes out what is there. The place is said again, so that nobody gets what somebody else asked for meanwhile. A file of the image can only be there from the machine's start.
    1 idempotent fn change(place: Option<FilePlace>) -> ();
}
