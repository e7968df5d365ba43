//! The wire format and the reference page, as files: a change of either shows in review. `TESSERA_REWRITE=1 cargo test -p tessera-proto` writes them anew; a change of `wire.txt`
//! is a change that old servers and clients do not understand.

mod common;

use common::{Loopback, call_everything};
use std::fmt::Write;
use std::path::Path;
use tessera_proto::{INTERFACES, reference};

fn compare(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("TESSERA_REWRITE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "{} is stale: run `TESSERA_REWRITE=1 cargo test -p tessera-proto` and look at the difference",
        path.display()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn the_wire_format_is_what_it_was() {
    let mut loopback = Loopback::default();
    let mut text = String::new();
    let mut calls = 0;
    call_everything(&mut loopback, &mut |name, loopback, ok| {
        assert!(ok, "{name}");
        let _ = writeln!(
            text,
            "{name}\n  request {}\n  reply   {}",
            hex(&loopback.request),
            hex(&loopback.reply)
        );
        calls += 1;
    });
    let operations: usize = INTERFACES.iter().map(|interface| interface.operations.len()).sum();
    assert_eq!(calls, operations, "an operation has no example");
    loopback.server.refuse = true;
    call_everything(&mut loopback, &mut |name, loopback, ok| {
        assert!(!ok, "{name}");
        if name == "init.ready" {
            let _ = writeln!(text, "refusal\n  reply   {}", hex(&loopback.reply));
        }
    });
    compare("tests/wire.txt", &text);
}

#[test]
fn the_reference_page_is_current() {
    compare("../../../docs/messages.md", &reference::page());
}

#[test]
fn numbers_and_names_are_unique() {
    for (index, interface) in INTERFACES.iter().enumerate() {
        for other in &INTERFACES[index + 1..] {
            assert!(interface.number != other.number && interface.name != other.name);
        }
        for (index, operation) in interface.operations.iter().enumerate() {
            assert!(!operation.doc.is_empty());
            for other in &interface.operations[index + 1..] {
                assert!(operation.number != other.number && operation.name != other.name);
            }
        }
    }
}
