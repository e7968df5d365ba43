//! Licences and notices of what an image contains.

/// The notices for an image.
#[must_use]
pub fn text() -> String {
    include_str!("../notices/NOTICE.txt").to_string()
}
