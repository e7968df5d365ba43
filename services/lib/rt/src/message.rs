//! The message buffer of the running thread, lent out to one user at a time.

use crate::sys::{self, Words};
use core::ptr;
use tessera_abi::syscall::{MAX_CAPS, MAX_MESSAGE, REGISTER_BYTES};
use tessera_abi::utcb::Utcb;

/// The runtime's marks in the `reserved` part of the buffer's head: first byte, the message is lent out.
const LENT: usize = 0;

/// The message part of the thread's buffer while nobody else has it.
pub struct Message {
    utcb: *mut Utcb,
}

impl Message {
    /// Takes the buffer.
    ///
    /// # Panics
    /// When this thread already has it, which would be a call made while another is being encoded or decoded.
    #[must_use]
    pub fn take() -> Self {
        let utcb = sys::utcb();
        // SAFETY: the buffer is this thread's and mapped as long as the thread lives; nobody holds a reference to this byte.
        let lent = unsafe { ptr::replace(&raw mut (*utcb).reserved[LENT], 1) };
        assert!(lent == 0, "a message was sent while another was being encoded or decoded");
        Self { utcb }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8; MAX_MESSAGE] {
        // SAFETY: `take` made sure that this is the only way to the bytes for as long as `self` lives; the kernel writes them only during a system
        // call, which no borrow of them can span, since the calls below take `self` too.
        unsafe { &mut (*self.utcb).message }
    }

    /// The first 48 bytes as they travel in registers, those past `length` as zeros, so that nothing of an earlier message goes along.
    #[must_use]
    pub fn load(&mut self, length: usize) -> Words {
        let bytes = self.bytes();
        if length < REGISTER_BYTES {
            bytes[length..REGISTER_BYTES].fill(0);
        }
        let mut words = [0; 6];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        words
    }

    /// Puts the words that came in registers before the rest of the message.
    pub fn store(&mut self, words: &Words) {
        for (chunk, word) in self.bytes().as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
    }

    /// Names the capabilities that go along with the next message; at most [`MAX_CAPS`], further ones are ignored. Returns how many.
    pub fn send_caps(&mut self, slots: &[u32]) -> usize {
        let count = slots.len().min(MAX_CAPS);
        for (index, slot) in slots.iter().take(MAX_CAPS).enumerate() {
            // SAFETY: as in `bytes`; `index` is below MAX_CAPS.
            unsafe { (&raw mut (*self.utcb).send_caps[index]).write(*slot) };
        }
        count
    }

    /// Says where capabilities that come with the next message are to be put; a count of 0 refuses them.
    pub fn receive_caps(&mut self, first: u32, count: u32) {
        // SAFETY: as in `bytes`.
        unsafe {
            (&raw mut (*self.utcb).receive_slot).write(first);
            (&raw mut (*self.utcb).receive_count).write(count);
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: as in `take`.
        unsafe { (&raw mut (*self.utcb).reserved[LENT]).write(0) };
    }
}

/// Breaks the loan, for the panic handler: whoever had the buffer will not run again.
#[cfg(target_os = "tessera")]
pub(crate) fn reclaim() {
    // SAFETY: as in `Message::take`.
    unsafe { (&raw mut (*sys::utcb()).reserved[LENT]).write(0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What is loaded is the message, and nothing of what stood in the buffer before.
        #[test]
        fn nothing_of_an_earlier_message_goes_along(earlier in any::<[u8; 48]>(), bytes in proptest::collection::vec(any::<u8>(), 0..=48)) {
            let mut message = Message::take();
            message.bytes()[..48].copy_from_slice(&earlier);
            message.bytes()[..bytes.len()].copy_from_slice(&bytes);
            let words = message.load(bytes.len());
            let mut expected = [0; 48];
            expected[..bytes.len()].copy_from_slice(&bytes);
            let loaded: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(&loaded[..], &expected[..]);
        }

        #[test]
        fn stored_words_stand_before_the_rest(words in any::<[u64; 6]>(), rest in any::<u8>()) {
            let mut message = Message::take();
            message.bytes()[48] = rest;
            message.store(&words);
            prop_assert_eq!(message.load(48), words);
            prop_assert_eq!(message.bytes()[48], rest);
        }
    }

    #[test]
    fn no_more_capabilities_are_sent_than_a_message_takes() {
        let mut message = Message::take();
        assert_eq!(message.send_caps(&[1, 2, 3, 4, 5, 6]), MAX_CAPS);
        assert_eq!(message.send_caps(&[]), 0);
    }
}
