//! A server's own port on the virtual switch. Frames stand in memory that the server shares with the network server (`frames = { share = "net + 512 KiB" }` in the manifest), in a ring each way; a notification
//! each way says that there are some. The memory is init's, so either may end and come back: [`HostPort`] opens the port again.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod port;
mod ring;

pub use port::{GRANT, HostPort, SHARE, memory};
pub use ring::{FRAME, Rings, Side};
