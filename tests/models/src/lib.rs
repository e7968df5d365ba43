//! Models of the kernel's protocols. A model checker visits every state that any interleaving reaches and looks for one in which a promise is broken.
//!
//! A step of a model is what the kernel does at once under its lock; what lies between two steps is open to everybody else. The promises are those of the
//! interface: no reply goes to the wrong caller or gets lost, no caller waits for a dead server, revoking leaves no descendants.
#![forbid(unsafe_code)]

pub mod capabilities;
pub mod ipc;
