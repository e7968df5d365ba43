//! What a fault message of the kernel says, for people.

use alloc::{format, string::String, vec::Vec};
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

/// Names of the registers in the order in which the kernel gives them.
const NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "flags",
];

/// General registers, four to a line.
#[must_use]
pub fn registers(values: &[u64; 16]) -> Vec<String> {
    let pair = |(name, value): (&&str, &u64)| format!("{name:>5} {value:016x}");
    NAMES
        .chunks(4)
        .zip(values.chunks(4))
        .map(|(names, values)| names.iter().zip(values).map(pair).collect::<Vec<_>>().join(""))
        .collect()
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

    #[test]
    fn registers_stand_four_to_a_line() {
        let lines = registers(&core::array::from_fn(|index| index as u64));
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[1],
            "  rsi 0000000000000004  rdi 0000000000000005  rbp 0000000000000006   r8 0000000000000007"
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
