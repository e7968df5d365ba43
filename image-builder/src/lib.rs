//! From the description of a system (`system.toml`) to images that boot.
//!
//! [`system`] reads the description, [`check`] looks for mistakes in it, [`program`] takes executables apart, [`bundle`] puts everything into the one
//! file that the kernel is given, [`disk`] and [`iso`] make media of it, and [`graph`] draws who may reach what.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod check;
pub mod datastore;
pub mod disk;
pub mod document;
pub mod fat;
pub mod graph;
pub mod grub;
pub mod iso;
pub mod machine;
pub mod notices;
pub mod payload;
pub mod program;
pub mod reader;
pub mod source;
pub mod system;
pub mod units;
