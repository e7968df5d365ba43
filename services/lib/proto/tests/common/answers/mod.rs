//! What the servers answer, one file per interface.

mod capture;
mod datastore;
mod guest_disk;
mod guest_net;
mod host_port;
mod hostd;
mod init;
mod iommu;
mod network;
mod storage;
mod supervisor;
mod switch;
mod vm_console;
mod vm_control;
mod vm_manager;
mod vm_media;
mod vm_memory;
mod vm_screen;

pub use switch::{group, settings};
pub use vm_manager::vm_config;
