//! What devices can reach, served by init. Only servers to which the manifest grants it (`iommu` = use of `init`) are heard.

use crate::{Page, declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Whose IOMMU a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IommuKind {
    /// None: devices reach all memory.
    None,
    /// Intel VT-d.
    Vtd,
    /// AMD-Vi.
    Amd,
}

/// The machine's IOMMU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IommuInfo {
    /// Whose.
    pub kind: IommuKind,
    /// Why there is none in use; empty if there is.
    pub reason: String,
    /// Units.
    pub units: u32,
    /// Bits of addresses that it translates.
    pub address_bits: u8,
    /// A device can raise only the interrupts that it was given.
    pub interrupts_remapped: bool,
    /// Pages that its tables take.
    pub table_pages: u64,
    /// Accesses that it refused since boot, as far as it told.
    pub faults: u64,
}

/// What a server's functions reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainInfo {
    /// The server.
    pub server: String,
    /// Bytes lent for its devices.
    pub device_memory: u64,
    /// Bytes of guests' RAM that it has borrowed.
    pub guest_memory: u64,
    /// Bytes that the firmware reserves for its devices.
    pub reserved: u64,
    /// Pages of page tables.
    pub table_pages: u64,
    /// Addresses of its functions.
    #[serde(with = "wire::list")]
    pub functions: Vec<String>,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessKind {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// An interrupt.
    Interrupt,
    /// The IOMMU does not say.
    Unknown,
}

/// Accesses that were refused, alike and in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultInfo {
    /// TSC of the last of them, as far as is known.
    pub tsc: u64,
    /// Address of the function; empty: the IOMMU does not say.
    pub function: String,
    /// The server that held it; empty: none.
    pub server: String,
    /// The memory's address, as far as the IOMMU says it.
    pub address: Option<u64>,
    /// What was tried.
    pub kind: AccessKind,
    /// The IOMMU's number for the reason.
    pub reason: u8,
    /// How many.
    pub count: u64,
}

interface! {
    /// Which memory devices reach, and what they were refused.
    iommu = 16;

    /// The machine's IOMMU.
    0 idempotent fn info() -> IommuInfo;
    /// What each server's functions reach, from the `first`th server on.
    1 idempotent fn domains(first: u32) -> Page<DomainInfo>;
    /// The last accesses that were refused, oldest first, from the `first`th on.
    2 idempotent fn faults(first: u32) -> Page<FaultInfo>;
}
