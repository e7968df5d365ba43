//! Who may do what: accounts, roles, permissions, sessions, keys, and what guessers run into.

mod guesses;
mod password;
mod privilege;
mod session;

pub(crate) use guesses::{Guesses, Outcome};
pub(crate) use password::{NoMemory, PasswordHash};
pub(crate) use privilege::{PRIVILEGES, built_in_roles};
pub use session::Identity;
pub(crate) use session::{SessionRecord, WHOLE_MS, digest, hex};
