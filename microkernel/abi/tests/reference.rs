//! docs/kernel.md is made from the declarations and their comments. `UPDATE_DOCS=1 cargo test -p tessera-abi` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

const FILES: [(&str, &str); 9] = [
    ("System calls", "syscall.rs"),
    ("Objects and operations", "object.rs"),
    ("Errors", "error.rs"),
    ("The message buffer", "utcb.rs"),
    ("Faults", "fault.rs"),
    ("Virtual processors", "vcpu.rs"),
    ("Interrupts of virtual processors", "apic.rs"),
    ("What init starts with", "boot.rs"),
    ("Trace rings", "trace.rs"),
];

/// The name and value that a declaration line declares.
fn item(line: &str) -> Option<String> {
    let line = line.trim().trim_end_matches('{').trim_end_matches(';').trim();
    for start in ["pub const fn ", "pub fn ", "impl", "use ", "macro_rules", "const _"] {
        if line.starts_with(start) {
            return None;
        }
    }
    if let Some(module) = line.strip_prefix("pub mod ") {
        return Some(format!("### {module}\n"));
    }
    if let Some(constant) = line.strip_prefix("pub const ").or_else(|| line.strip_prefix("const ")) {
        let (name, rest) = constant.split_once([':', '='])?;
        let value = rest.rsplit_once('=').map_or(rest, |(_, value)| value).trim();
        return Some(format!("- `{}` = `{value}`", name.trim()));
    }
    for start in ["pub enum ", "pub struct "] {
        if let Some(name) = line.strip_prefix(start) {
            return Some(format!("**{}**", name.split(['(', '{', ' ']).next()?));
        }
    }
    if let Some(field) = line.strip_prefix("pub ") {
        return Some(format!("- `{}`", field.trim_end_matches(',')));
    }
    let variant = line.trim_end_matches(',');
    let (name, value) = variant.split_once(" = ")?;
    let value = value.split(',').next()?;
    name.chars().all(char::is_alphanumeric).then(|| format!("- `{name}` = {value}"))
}

fn section(source: &str, out: &mut String) {
    let mut comment = String::new();
    for line in source.lines() {
        let trimmed = line.trim();
        if let Some(text) = trimmed.strip_prefix("//!") {
            let _ = writeln!(out, "{}", text.strip_prefix(' ').unwrap_or(text));
        } else if let Some(text) = trimmed.strip_prefix("///") {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(text.trim());
        } else if !trimmed.starts_with("#[") && !comment.is_empty() {
            if let Some(name) = item(trimmed) {
                let heading = name.starts_with("###") || name.starts_with("**");
                let _ = if heading { writeln!(out, "\n{name} {comment}\n") } else { writeln!(out, "{name}: {comment}") };
            }
            comment.clear();
        }
    }
}

/// Links between declarations are for the documentation tool; here they are names.
fn plain(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`").replace("crate::", "").replace("super::", "")
}

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut out = String::from("# The kernel interface\n\nMade from the declarations in `microkernel/abi`; do not edit.\n");
    for (title, file) in FILES {
        let source = std::fs::read_to_string(root.join(file)).expect("the interface's sources stand beside this test");
        let _ = writeln!(out, "\n## {title}\n");
        section(&source, &mut out);
    }
    plain(&out).replace("###", "\n###")
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kernel.md");
    let page = page();
    assert!(
        page.contains("`RETYPE` = `0`") && page.contains("`ServerDied` = 11") && page.contains("`Call` = 1"),
        "declarations are missing:\n{page}"
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/ can be written");
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(current == page, "docs/kernel.md is stale: run UPDATE_DOCS=1 cargo test -p tessera-abi");
}
