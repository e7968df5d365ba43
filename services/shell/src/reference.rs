//! The reference page of the commands, generated from the command objects.

use crate::commands::COMMANDS;
use alloc::{format, string::String};

/// The page, in Markdown.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# The serial debug shell\n\n\
         <!-- Generated from the commands' own help: `UPDATE_REFERENCE=1 cargo test -p tessera-shell reference`. -->\n\n\
         The shell answers on the first serial port (COM1, 115200 8N1) with the prompt `tessera> `. Lines are edited with the keys of\n\
         readline: arrows, Home, End, Delete, Ctrl-A, Ctrl-E, Ctrl-B, Ctrl-F, Ctrl-K, Ctrl-U, Ctrl-W, Ctrl-Y, Ctrl-T, Alt-B, Alt-F; Up and Down recall\n\
         lines, Ctrl-R searches them; Tab completes commands, servers and machines, a second Tab lists what is possible; Ctrl-L clears\n\
         the screen; Ctrl-C gives up a line or a running command. Output fits 80 columns. Colours are used on terminals that answer a\n\
         device status report.\n\n\
         On a machine's console (`vm console NAME`) every key goes to the guest except Ctrl-], which returns to the prompt.\n\n\
         | command | |\n|---|---|\n",
    );
    for command in COMMANDS {
        page.push_str(&format!("| [`{0}`](#{0}) | {1} |\n", command.name(), command.summary()));
    }
    for command in COMMANDS {
        page.push_str(&format!("\n## {}\n\n", command.name()));
        for form in command.usage() {
            page.push_str(&format!("    {form}\n"));
        }
        for paragraph in command.help().split('\n') {
            page.push_str(&format!("\n{paragraph}\n"));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/shell.md");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/shell.md is stale: run `UPDATE_REFERENCE=1 cargo test -p tessera-shell reference`"
        );
    }
}
