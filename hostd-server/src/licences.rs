//! The list of what the image is made of, as image-builder writes it: sections with a heading that is underlined, and lines `name version: licence  address`.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

/// More lines than any list has.
const MOST: usize = 4096;

fn line(line: &str) -> Option<(String, String, String)> {
    let (component, rest) = line.split_once(": ")?;
    let licence = rest.split("  ").next()?.trim();
    let (name, version) = match component.rsplit_once(' ') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => (name, version),
        _ => (component, ""),
    };
    let plain = !name.is_empty() && !licence.is_empty() && !name.starts_with(' ');
    plain.then(|| (name.to_string(), version.to_string(), licence.to_string()))
}

/// Component, version and licence of each, up to where the licences' texts begin.
#[must_use]
pub fn parse(text: &str) -> Vec<(String, String, String)> {
    let list = text.split("\n---- ").next().unwrap_or_default();
    let own = ("Tessera".to_string(), String::new(), "Apache-2.0 OR MIT".to_string());
    core::iter::once(own).chain(list.lines().filter_map(line)).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn components_are_listed_and_texts_are_not() {
        let text = "Tessera\n=======\n\nTessera's own code is under both.\n\nCrates\n======\n\nacpi_tables 0.2.1: Apache-2.0  https://a.example/b\n\
            core, alloc (the Rust project): MIT OR Apache-2.0  https://c.example\n\n---- acpi_tables 0.2.1 ----\n\nLicence: no entry\n";
        let all = parse(text);
        let shown: Vec<(&str, &str, &str)> = all.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("Tessera", "", "Apache-2.0 OR MIT"),
                ("acpi_tables", "0.2.1", "Apache-2.0"),
                ("core, alloc (the Rust project)", "", "MIT OR Apache-2.0"),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_text(text: String) {
            let _ = parse(&text);
        }
    }
}
