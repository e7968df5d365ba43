//! `passthrough` of a `[[vm]]`: a list of tables, each a PCI function of the host that the machine has for itself.

use super::server::narrow;
use crate::{
    reader::{Reader, parsed},
    source::{Diagnostics, Located},
};
use tessera_manifest::{MAX_PASSED, PassedFunction};

/// The list, of a machine's table.
pub(super) fn from_reader(reader: &mut Reader<'_>, owner: &str, diagnostics: &mut Diagnostics) -> Vec<Located<PassedFunction>> {
    let mut all: Vec<Located<PassedFunction>> = Vec::new();
    for (place, mut function) in reader.tables("passthrough", diagnostics).into_iter().enumerate() {
        function.rename(format!("PCI function {place} of virtual machine `{owner}`"));
        let Some(function) = one(function, diagnostics) else { continue };
        if all.iter().any(|known| known.value == function.value) {
            let message = format!("`{owner}` has {} twice", function.value);
            diagnostics.error(function.span, message, "again here", "leave it out, or give it another `index`");
        } else if all.len() == MAX_PASSED {
            let message = format!("`{owner}` has more PCI functions of the host than {MAX_PASSED}");
            diagnostics.error(function.span, message, "one too many", "give it to another machine");
        } else {
            all.push(function);
        }
    }
    all
}

/// `pci`: an address, a vendor and a device, or a class as in grants. `index`: which of those; default 0.
fn one(mut reader: Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Located<PassedFunction>> {
    let span = reader.span();
    let which = |text: &str| {
        let unknown = "an address as \"0000:00:05.0\", vendor and device as \"8086:10d3\", \"storage\" or \"network\" are PCI functions";
        text.parse().map_err(|()| unknown.into())
    };
    let pci = reader
        .require("pci", "\"8086:10d3\"", diagnostics)
        .and_then(|node| parsed(node, "pci", which, "8086:10d3", diagnostics));
    let index = reader.number("index", 0..=255, diagnostics).map_or(0, |index| narrow(index.value));
    reader.finish(diagnostics);
    Some(Located::new(PassedFunction { which: pci?.value, index }, span))
}
