//! Holds the kernel to its bound in lines of code.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

const BOUND: usize = 9000;

/// Lines of code: not blank, not a comment, not built for tests only. It goes by how rustfmt lays code out: an item ends with a line that is as far left as its first.
fn lines_of_code(source: &str) -> usize {
    let mut count = 0;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let text = line.trim();
        if text == "#[cfg(test)]" {
            let indentation = &line[..line.len() - line.trim_start().len()];
            let item = lines.by_ref().find(|line| !line.trim_start().starts_with("#["));
            if item.is_some_and(|item| item.trim_end().ends_with('{')) {
                let end = format!("{indentation}}}");
                lines.by_ref().find(|line| *line == end).expect("the test's end");
            }
        } else if !text.is_empty() && !text.starts_with("//") {
            count += 1;
        }
    }
    count
}

/// Lines of all Rust files under a folder, without files of tests.
fn lines_under(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += lines_under(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            count += lines_of_code(&fs::read_to_string(&path).unwrap());
        }
    }
    count
}

#[test]
fn counts_code_and_nothing_else() {
    let source = "//! About.\n\nuse x;\n\n/// Doc.\nfn f() {\n    // Why.\n    g(); // Here.\n    #[cfg(test)]\n    check();\n}\n\n#[cfg(test)]\n#[path = \"t.rs\"]\nmod other;\n\
                  #[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\nconst A: u8 = 1;\n";
    assert_eq!(lines_of_code(source), 5);
}

#[test]
fn the_kernel_is_below_its_bound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../microkernel");
    let [kernel, boot, interface] = ["src", "boot/src", "abi/src"].map(|part| lines_under(&folder.join(part)));
    println!("kernel {kernel}, boot {boot}, interface {interface} lines of code");
    assert!(kernel > 1000 && boot > 100, "the count found no kernel");
    assert!(kernel < BOUND, "the kernel has {kernel} lines of code; it must stay below {BOUND}");
}
