//! What a fault message of the kernel says, for people.

use alloc::{format, string::String};
use tessera_abi::fault::vector_name;

/// A fault message: the six words of [`tessera_abi::fault`].
#[derive(Clone, Copy, Debug)]
pub struct Fault(pub [u64; 6]);

impl Fault {
    /// Reads the message; `None` if it is not one.
    #[must_use]
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (chunks, []) = message.as_chunks::<8>() else { return None };
        let chunks: &[[u8; 8]; 6] = chunks.try_into().ok()?;
        Some(Self(chunks.map(u64::from_le_bytes)))
    }

    /// One line: what happened and where.
    #[must_use]
    pub fn text(&self) -> String {
        let [what, address, rip, rsp, ..] = self.0;
        let (kind, vector, code) = (what as u8, (what >> 8) as u8, (what >> 32) as u32);
        match kind {
            1 => {
                // Error code bits: SDM volume 3, 4.7.
                let access = if code & 16 != 0 {
                    "execute"
                } else if code & 2 != 0 {
                    "write"
                } else {
                    "read"
                };
                let why = if code & 1 != 0 { "not allowed" } else { "not mapped" };
                format!("page fault: {access} at {address:#x} {why}, instruction {rip:#x}, stack {rsp:#x}")
            }
            3 => format!("used the FPU although declared not to, instruction {rip:#x}"),
            _ => format!(
                "{} (vector {vector}, code {code:#x}), instruction {rip:#x}, stack {rsp:#x}",
                vector_name(vector)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_access_and_reason() {
        let mut message = Vec::new();
        for word in [1 | 14 << 8 | 2 << 32, 0xdead_b000_u64, 0x40_1234, 0x11ff_ff00, 0x202, 48] {
            message.extend(word.to_le_bytes());
        }
        let text = Fault::decode(&message).unwrap().text();
        assert_eq!(
            text,
            "page fault: write at 0xdeadb000 not mapped, instruction 0x401234, stack 0x11ffff00"
        );
    }

    proptest! {
        #[test]
        fn any_message_is_survived(message in proptest::collection::vec(any::<u8>(), 0..64)) {
            let fault = Fault::decode(&message);
            prop_assert_eq!(fault.is_some(), message.len() == 48);
            if let Some(fault) = fault {
                prop_assert!(fault.text().len() < 160);
            }
        }
    }
}
