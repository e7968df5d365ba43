//! Cryptography for TLS 1.3 (RFC 8446) as rustls asks for it, out of crates that need no operating system, and the host's certificate.
//!
//! A crate of its own, since it is worth to be optimised for speed where its users are not.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod aead;
mod digest;
mod identity;
mod key;
mod key_exchange;
mod random;

pub use identity::{Description, Identity, IdentityError};
pub use random::{fill, seed};
pub use rustls;

use alloc::{sync::Arc, vec, vec::Vec};
use core::time::Duration;
use rustls::{
    CipherSuite, CipherSuiteCommon, ServerConfig, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, tls13::HkdfUsingHmac},
    pki_types::UnixTime,
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};

static AES_128: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
        hash_provider: &digest::Sha256,
        confidentiality_limit: 1 << 24,
    },
    hkdf_provider: &HkdfUsingHmac(&digest::HmacSha256),
    aead_alg: &aead::Aead::<aes_gcm::Aes128Gcm>::NEW,
    quic: None,
};

static AES_256: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_AES_256_GCM_SHA384,
        hash_provider: &digest::Sha384,
        confidentiality_limit: 1 << 24,
    },
    hkdf_provider: &HkdfUsingHmac(&digest::HmacSha384),
    aead_alg: &aead::Aead::<aes_gcm::Aes256Gcm>::NEW,
    quic: None,
};

static CHACHA20: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        hash_provider: &digest::Sha256,
        confidentiality_limit: u64::MAX,
    },
    hkdf_provider: &HkdfUsingHmac(&digest::HmacSha256),
    aead_alg: &aead::Aead::<chacha20poly1305::ChaCha20Poly1305>::NEW,
    quic: None,
};

cpufeatures::new!(aes_gcm_instructions, "aes", "pclmulqdq");

/// The cipher suites, what is quick on this processor first: AES-GCM without the instructions made for it takes many times what ChaCha20-Poly1305 does.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    let suites = if aes_gcm_instructions::get() {
        [&AES_128, &AES_256, &CHACHA20]
    } else {
        [&CHACHA20, &AES_128, &AES_256]
    };
    suites.into_iter().map(SupportedCipherSuite::Tls13).collect()
}

/// The cipher suites and groups of this crate. Random numbers come from [`seed`], which must have been called before.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        // The first that the client has too is taken.
        cipher_suites: cipher_suites(),
        kx_groups: vec![&key_exchange::X25519, &key_exchange::P256],
        // Clients are known by passwords and keys of the API, not by certificates.
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &random::Random,
        key_provider: &key::Keys,
    }
}

/// Tickets for later sessions are the only use that a server has for time, and none are given out.
#[derive(Debug)]
struct NoTime;

impl TimeProvider for NoTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::ZERO))
    }
}

/// What a server of HTTP/1.1 over TLS 1.3 with this identity offers.
///
/// # Errors
/// When rustls finds that the parts do not fit together.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let key = CertifiedKey::new(identity.chain().to_vec(), key::signing_key(identity.key()));
    let mut config = ServerConfig::builder_with_details(Arc::new(provider()), Arc::new(NoTime))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    // Clients name first what is quick on their processor; what is slow on the host's would be so for everybody.
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}
