//! The page that a panic leaves for the next boot: magic, checksum, length, then text. RAM keeps it over a warm restart; whether it did is what
//! the checksum tells.

/// Bytes of the page.
pub const RECORD_BYTES: usize = tessera_abi::PAGE_SIZE;
const MAGIC: u64 = u64::from_le_bytes(*b"TESSPANI");
const TEXT: usize = 24;
/// Bytes of text that fit, leaving one for the zero that ends it for its reader.
pub const MAX_TEXT: usize = RECORD_BYTES - TEXT - 1;

/// FNV-1a, 64 bits: chance corruption shows, and no table is needed.
fn checksum(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Writes text into the page and seals it. The text is cut at [`MAX_TEXT`].
pub fn store(page: &mut [u8; RECORD_BYTES], text: &[u8]) {
    let text = &text[..text.len().min(MAX_TEXT)];
    page.fill(0);
    page[TEXT..TEXT + text.len()].copy_from_slice(text);
    page[8..16].copy_from_slice(&checksum(text).to_le_bytes());
    page[16..24].copy_from_slice(&(text.len() as u64).to_le_bytes());
    page[..8].copy_from_slice(&MAGIC.to_le_bytes());
}

/// The text of a page, if a panic sealed it and nothing changed since. What is not UTF-8 at the end (text cut inside a character) is left out.
#[must_use]
pub fn load(page: &[u8; RECORD_BYTES]) -> Option<&str> {
    let word = |at: usize| page.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    if word(0)? != MAGIC {
        return None;
    }
    let length = usize::try_from(word(16)?).ok().filter(|&length| length <= MAX_TEXT)?;
    let text = &page[TEXT..TEXT + length];
    if word(8)? != checksum(text) {
        return None;
    }
    match core::str::from_utf8(text) {
        Ok(text) => Some(text),
        Err(error) => core::str::from_utf8(&text[..error.valid_up_to()]).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn brings_text_over(text in ".{0,5000}") {
            let mut page = [0xa5; RECORD_BYTES];
            store(&mut page, text.as_bytes());
            let loaded = load(&page).unwrap();
            prop_assert!(text.starts_with(loaded));
            prop_assert!(loaded.len() + 4 > text.len().min(MAX_TEXT));
        }

        #[test]
        fn sees_any_changed_bit(text in ".{1,100}", at in 0usize..1000, bit in 0u8..8) {
            let mut page = [0; RECORD_BYTES];
            store(&mut page, text.as_bytes());
            page[at % (TEXT + text.len())] ^= 1 << bit;
            prop_assert_eq!(load(&page), None);
        }

        #[test]
        fn survives_any_page(bytes in proptest::collection::vec(any::<u8>(), 64), length in any::<u64>()) {
            let mut page = [0; RECORD_BYTES];
            page[..64].copy_from_slice(&bytes);
            page[..8].copy_from_slice(&MAGIC.to_le_bytes());
            page[16..24].copy_from_slice(&length.to_le_bytes());
            let _ = load(&page);
        }
    }
}
