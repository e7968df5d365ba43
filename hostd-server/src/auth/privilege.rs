//! What can be allowed, and the roles that are always there.

use alloc::{string::String, vec::Vec};

/// Reading everything but secrets.
pub(crate) const READ: &str = "System.Read";

/// Every privilege, by name.
pub(crate) const PRIVILEGES: &[&str] = &[
    READ,
    "Authorization.Manage",
    "Datastore.Browse",
    "Datastore.Config",
    "Datastore.FileManagement",
    "Global.CancelTask",
    "Global.Diagnostics",
    "Host.Config",
    "Host.Maintenance",
    "Host.Power",
    "Network.Config",
    "VirtualMachine.Config",
    "VirtualMachine.Console",
    "VirtualMachine.Create",
    "VirtualMachine.Delete",
    "VirtualMachine.Power",
    "VirtualMachine.Snapshot",
];

/// Identifier, name, privileges.
pub(crate) fn built_in_roles() -> [(&'static str, &'static str, Vec<String>); 3] {
    [
        ("admin", "Administrator", PRIVILEGES.iter().map(|name| (*name).into()).collect()),
        ("readOnly", "Read-only", [READ, "Datastore.Browse"].map(String::from).into()),
        ("noAccess", "No access", Vec::new()),
    ]
}
