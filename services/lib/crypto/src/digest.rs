//! SHA-2 and HMAC for the key schedule (RFC 8446, 7.1) and the transcript.

use alloc::boxed::Box;
use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::{
    hash::{Context, Hash, HashAlgorithm, Output},
    hmac as tls_hmac,
};
use sha2::Digest;

macro_rules! digest {
    ($hash:ident, $hmac:ident, $algorithm:ident, $bytes:literal) => {
        /// Transcript's hash.
        pub struct $hash;

        impl Hash for $hash {
            fn start(&self) -> Box<dyn Context> {
                Box::new(Running(sha2::$hash::new()))
            }

            fn hash(&self, data: &[u8]) -> Output {
                Output::new(&sha2::$hash::digest(data))
            }

            fn output_len(&self) -> usize {
                $bytes
            }

            fn algorithm(&self) -> HashAlgorithm {
                HashAlgorithm::$algorithm
            }
        }

        impl Context for Running<sha2::$hash> {
            fn fork_finish(&self) -> Output {
                Output::new(&self.0.clone().finalize())
            }

            fn fork(&self) -> Box<dyn Context> {
                Box::new(Running(self.0.clone()))
            }

            fn finish(self: Box<Self>) -> Output {
                Output::new(&self.0.finalize())
            }

            fn update(&mut self, data: &[u8]) {
                self.0.update(data);
            }
        }

        /// HMAC with it (RFC 2104).
        pub struct $hmac;

        impl tls_hmac::Hmac for $hmac {
            fn with_key(&self, key: &[u8]) -> Box<dyn tls_hmac::Key> {
                // PANIC: HMAC takes keys of every length.
                Box::new(Keyed(Hmac::<sha2::$hash>::new_from_slice(key).expect("any length")))
            }

            fn hash_output_len(&self) -> usize {
                $bytes
            }
        }

        impl tls_hmac::Key for Keyed<Hmac<sha2::$hash>> {
            fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> tls_hmac::Tag {
                let mut mac = self.0.clone();
                mac.update(first);
                for part in middle {
                    mac.update(part);
                }
                mac.update(last);
                tls_hmac::Tag::new(&mac.finalize().into_bytes())
            }

            fn tag_len(&self) -> usize {
                $bytes
            }
        }
    };
}

struct Running<H>(H);
struct Keyed<M>(M);

digest!(Sha256, HmacSha256, SHA256, 32);
digest!(Sha384, HmacSha384, SHA384, 48);
