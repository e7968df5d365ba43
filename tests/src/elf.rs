//! The little that tests need to know about executables (System V ABI, ELF-64 object file format).

/// `PT_LOAD`.
const LOAD: usize = 1;
/// `PT_INTERP`: a program that needs a dynamic linker.
const INTERPRETER: usize = 3;
/// `PF_X`.
const EXECUTABLE: usize = 1;

fn word(elf: &[u8], at: usize, length: usize) -> Option<usize> {
    let bytes = elf.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

/// Type, flags and length in the file of each program header; none for what is no ELF-64 file.
fn headers(elf: &[u8]) -> Vec<(usize, usize, usize)> {
    let table = || Some((word(elf, 32, 8)?, word(elf, 54, 2)?, word(elf, 56, 2)?));
    let Some((start, size, count)) = table().filter(|_| elf.starts_with(b"\x7fELF\x02")) else {
        return Vec::new();
    };
    let header = |index: usize| {
        let at = start.checked_add(index * size)?;
        Some((
            word(elf, at, 4)?,
            word(elf, at.checked_add(4)?, 4)?,
            word(elf, at.checked_add(32)?, 8)?,
        ))
    };
    (0..count).map_while(header).collect()
}

/// Whether it needs a dynamic linker.
#[must_use]
pub fn is_dynamic(elf: &[u8]) -> bool {
    headers(elf).iter().any(|&(kind, ..)| kind == INTERPRETER)
}

/// Bytes that are loaded from the file, and how many of them are executable.
#[must_use]
pub fn loaded(elf: &[u8]) -> (usize, usize) {
    let loaded = headers(elf).into_iter().filter(|&(kind, ..)| kind == LOAD);
    loaded.fold((0, 0), |(all, text), (_, flags, length)| {
        (all.saturating_add(length), text + if flags & EXECUTABLE != 0 { length } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_program_is_understood() {
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let (all, text) = loaded(&elf);
        assert!(text > 100_000 && all > text && all < elf.len());
        assert!(is_dynamic(&elf));
    }

    proptest! {
        #[test]
        fn noise_does_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (place, byte) in bytes.iter_mut().zip(*b"\x7fELF\x02") {
                *place = byte;
            }
            let _ = is_dynamic(&bytes);
            prop_assert!(headers(&bytes).len() <= usize::from(u16::MAX));
        }
    }
}
