//! `[server.grants]`: what a server may reach, one line each, `NAME = { KIND = VALUE }` or `NAME = "KIND"` where the kind needs no value.

use crate::{
    document::{Node, Table, Value},
    reader::{number, parsed, text},
    source::{Diagnostics, Located, Span, nearest},
    units,
};
use tessera_manifest::PciClass;

/// A grant.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Name by which the program asks for it.
    pub name: Located<String>,
    /// What is granted.
    pub need: Need,
    /// Where the value stands.
    pub span: Span,
}

/// What a grant gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// `{ provide = "ENDPOINT" }`: receive there. Nobody else may.
    Provide(String),
    /// `{ use = "ENDPOINT" }`: call there; `init` is the root server's.
    Use(String),
    /// `{ io-ports = "0x3f8-0x3ff" }`: first port and how many.
    IoPorts(u16, u32),
    /// `{ irq = 4 }`: an interrupt line.
    Irq(u32),
    /// `{ mmio = "0xfed00000 + 4 KiB" }`: device registers, address and length.
    Mmio(u64, u64),
    /// `{ share = "SERVER + 256 KiB" }`: memory that this server shares with another.
    Share(String, u64),
    /// `{ file = "NAME" }`: one of `[files]`, read-only.
    File(String),
    /// `"kernel-log"`: the kernel's log, panic record and trace rings, read-only.
    KernelLog,
    /// `"trace"`: event mask, statistics, restart of the machine.
    Trace,
    /// `"irq-statistics"`: counts of interrupts.
    IrqStatistics,
    /// `{ pci = "storage" }`: every PCI function of a class.
    Pci(PciClass),
}

/// Kinds of grants, for rules that speak about all of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Need::Provide`]
    Provide,
    /// [`Need::Use`]
    Use,
    /// [`Need::IoPorts`]
    IoPorts,
    /// [`Need::Irq`]
    Irq,
    /// [`Need::Mmio`]
    Mmio,
    /// [`Need::Share`]
    Share,
    /// [`Need::File`]
    File,
    /// [`Need::KernelLog`]
    KernelLog,
    /// [`Need::Trace`]
    Trace,
    /// [`Need::IrqStatistics`]
    IrqStatistics,
    /// [`Need::Pci`]
    Pci,
}

impl Kind {
    /// The kind as it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provide => "provide",
            Self::Use => "use",
            Self::IoPorts => "io-ports",
            Self::Irq => "irq",
            Self::Mmio => "mmio",
            Self::Share => "share",
            Self::File => "file",
            Self::KernelLog => "kernel-log",
            Self::Trace => "trace",
            Self::IrqStatistics => "irq-statistics",
            Self::Pci => "pci",
        }
    }
}

impl Need {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Provide(_) => Kind::Provide,
            Self::Use(_) => Kind::Use,
            Self::IoPorts(..) => Kind::IoPorts,
            Self::Irq(_) => Kind::Irq,
            Self::Mmio(..) => Kind::Mmio,
            Self::Share(..) => Kind::Share,
            Self::File(_) => Kind::File,
            Self::KernelLog => Kind::KernelLog,
            Self::Trace => Kind::Trace,
            Self::IrqStatistics => Kind::IrqStatistics,
            Self::Pci(_) => Kind::Pci,
        }
    }
}

const WITH_VALUE: [&str; 8] = ["provide", "use", "io-ports", "irq", "mmio", "share", "file", "pci"];
const BARE: [&str; 3] = ["kernel-log", "trace", "irq-statistics"];

impl Grant {
    /// Reads one line.
    pub fn from_entry(name: &Located<String>, node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let need = match &node.value {
            Value::String(kind) => bare(kind, node.span, diagnostics),
            Value::Table(table) => with_value(table, node.span, diagnostics),
            other => {
                let help = "write `com1 = { io-ports = \"0x3f8-0x3ff\" }` or `log = \"kernel-log\"`";
                diagnostics.error(
                    node.span,
                    format!("the grant `{}` cannot be {}", name.value, other.kind()),
                    "",
                    help,
                );
                None
            }
        }?;
        Some(Self {
            name: name.clone(),
            need,
            span: node.span,
        })
    }
}

fn bare(kind: &str, span: Span, diagnostics: &mut Diagnostics) -> Option<Need> {
    match kind {
        "kernel-log" => Some(Need::KernelLog),
        "trace" => Some(Need::Trace),
        "irq-statistics" => Some(Need::IrqStatistics),
        known if WITH_VALUE.contains(&known) => {
            diagnostics.error(
                span,
                format!("a grant of `{known}` needs a value"),
                "no value",
                format!("write `{{ {known} = ... }}`"),
            );
            None
        }
        unknown => {
            diagnostics.error(
                span,
                format!("there is no kind of grant `{unknown}`"),
                "unknown kind",
                suggest(unknown),
            );
            None
        }
    }
}

fn suggest(unknown: &str) -> String {
    match nearest(unknown, BARE.into_iter().chain(WITH_VALUE)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("with a value: {}; without: {}", WITH_VALUE.join(", "), BARE.join(", ")),
    }
}

fn with_value(table: &Table, span: Span, diagnostics: &mut Diagnostics) -> Option<Need> {
    let [(kind, value)] = table.as_slice() else {
        diagnostics.error(
            span,
            "a grant gives one thing",
            format!("this has {} keys", table.len()),
            "write one line for each thing",
        );
        return None;
    };
    match kind.value.as_str() {
        "provide" => text(value, "provide", diagnostics).map(|endpoint| Need::Provide(endpoint.value)),
        "use" => text(value, "use", diagnostics).map(|endpoint| Need::Use(endpoint.value)),
        "file" => text(value, "file", diagnostics).map(|file| Need::File(file.value)),
        "irq" => number(value, "irq", 0..=1023, diagnostics).map(|line| Need::Irq(u32::try_from(line.value).unwrap_or(u32::MAX))),
        "io-ports" => {
            parsed(value, "io-ports", units::ports, "0x3f8-0x3ff", diagnostics).map(|ports| Need::IoPorts(ports.value.0, ports.value.1))
        }
        "mmio" => parsed(value, "mmio", units::registers, "0xfed00000 + 4 KiB", diagnostics)
            .map(|registers| Need::Mmio(registers.value.0, registers.value.1)),
        "share" => {
            parsed(value, "share", units::share, "storage + 256 KiB", diagnostics).map(|share| Need::Share(share.value.0, share.value.1))
        }
        "pci" => text(value, "pci", diagnostics).and_then(|class| pci_class(&class, diagnostics)),
        known if BARE.contains(&known) => {
            diagnostics.error(
                kind.span,
                format!("a grant of `{known}` has no value"),
                "",
                format!("write `\"{known}\"` alone"),
            );
            None
        }
        unknown => {
            diagnostics.error(
                kind.span,
                format!("there is no kind of grant `{unknown}`"),
                "unknown kind",
                suggest(unknown),
            );
            None
        }
    }
}

fn pci_class(class: &Located<String>, diagnostics: &mut Diagnostics) -> Option<Need> {
    let known = PciClass::ALL.into_iter().find(|known| known.name() == class.value);
    if known.is_none() {
        let names = PciClass::ALL.map(PciClass::name);
        let help = match nearest(&class.value, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the classes are: {}", names.join(", ")),
        };
        diagnostics.error(
            class.span,
            format!("there is no class of PCI functions `{}`", class.value),
            "unknown class",
            help,
        );
    }
    known.map(Need::Pci)
}
