//! Writes the reference page of all messages from their declarations.

use crate::{INTERFACES, Operation};
use alloc::{format, string::String, vec::Vec};
use core::fmt::Write;

/// The text of `docs/messages.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Messages\n\nGenerated from the declarations in `services/lib/proto/src`; a test fails when this page is stale. \
         Rewrite it with `TESSERA_REWRITE=1 cargo test -p tessera-proto`.\n\n\
         A request starts with two bytes, interface and operation; arguments follow in postcard. A reply is a postcard `Result<T, Failure>`.\n\
         A client repeats an idempotent operation by itself when the server ended before it answered; any other then gives `ServerDied`.\n",
    );
    for interface in INTERFACES {
        let _ = write!(
            page,
            "\n## {}: interface {}\n\n{}\n\n",
            interface.name,
            interface.number,
            text(interface.doc)
        );
        page.push_str("| operation | request | result | capabilities | idempotent | |\n|---|---|---|---|---|---|\n");
        for operation in interface.operations {
            let _ = writeln!(page, "{}", row(operation));
        }
    }
    page
}

fn text(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn row(operation: &Operation) -> String {
    let arguments = operation
        .arguments
        .iter()
        .map(|argument| format!("`{}: {}`", argument.name, argument.kind))
        .collect::<Vec<_>>()
        .join(", ");
    let capabilities = match (operation.takes, operation.gives) {
        (0, 0) => String::new(),
        (takes, 0) => format!("{takes} with the request"),
        (0, gives) => format!("{gives} with the reply"),
        (takes, gives) => format!("{takes} with the request, {gives} with the reply"),
    };
    let idempotent = if operation.idempotent { "yes" } else { "no" };
    format!(
        "| {} `{}` | {} | `{}` | {} | {} | {} |",
        operation.number,
        operation.name,
        arguments,
        operation.result,
        capabilities,
        idempotent,
        text(operation.doc)
    )
}
