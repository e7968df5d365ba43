//! The host's certificate and key: made at first boot (RFC 5280), kept as PEM (RFC 7468), replaceable.

use crate::{key_exchange::p256_secret, random};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{fmt, net::IpAddr, str::FromStr, time::Duration};
use p256::{
    SecretKey,
    ecdsa::{DerSignature, SigningKey},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding},
};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate, TbsCertificate,
    builder::{Builder, CertificateBuilder, profile::BuilderProfile},
    der::{Decode, Encode, EncodePem, asn1::GeneralizedTime, asn1::Ia5String, asn1::OctetString, asn1::UtcTime},
    ext::{
        Extension, ToExtension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, name::GeneralName},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{ObjectIdentifier, SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef},
    time::{Time, Validity},
};

/// id-kp-serverAuth (RFC 5280, 4.2.1.12).
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// Years are counted in UTCTime until 2049 (RFC 5280, 4.1.2.5).
const YEAR_2050: u64 = 2_524_608_000;
/// Certificates of a chain, and bytes of its text: enough for every real one.
const MOST_CERTIFICATES: usize = 8;
const MOST_BYTES: usize = 64 << 10;

/// Why an identity cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificates are not PEM or not X.509.
    Certificate,
    /// The key is none on P-256, the only curve that this host signs with.
    Key,
    /// The first certificate is not of the key.
    Mismatch,
    /// More than 8 certificates or 64 KiB.
    TooLong,
    /// A certificate could not be made.
    Making,
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "the certificate chain is not a sequence of X.509 certificates in PEM",
            Self::Key => {
                "the private key is not an unencrypted key on the curve P-256 in PEM (PKCS #8 or SEC 1); other kinds are not supported"
            }
            Self::Mismatch => "the first certificate of the chain does not belong to the private key",
            Self::TooLong => "the certificate chain has more than 8 certificates or 64 KiB",
            Self::Making => "the certificate could not be made",
        })
    }
}

impl core::error::Error for IdentityError {}

/// A chain of certificates, the server's own first, and its private key.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: SecretKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// What the first certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
}

struct SelfSigned {
    name: Name,
    names: Vec<GeneralName>,
}

impl BuilderProfile for SelfSigned {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let subject = tbs.subject().clone();
        let mut extensions: Vec<Extension> = Vec::new();
        extensions.push(SubjectAltName(self.names.clone()).to_extension(&subject, &extensions)?);
        // Not an authority: who trusts this certificate trusts this host and nothing that it might sign.
        let basic = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        extensions.push(basic.to_extension(&subject, &extensions)?);
        extensions.push(KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(&subject, &extensions)?);
        extensions.push(ExtendedKeyUsage(vec![SERVER_AUTH]).to_extension(&subject, &extensions)?);
        Ok(extensions)
    }
}

fn time(seconds: u64) -> Result<Time, IdentityError> {
    let since = Duration::from_secs(seconds);
    if seconds < YEAR_2050 {
        UtcTime::from_unix_duration(since)
            .map(Time::UtcTime)
            .map_err(|_| IdentityError::Making)
    } else {
        Ok(Time::GeneralTime(
            GeneralizedTime::from_unix_duration(since).map_err(|_| IdentityError::Making)?,
        ))
    }
}

impl Identity {
    /// A new key and a certificate that it signs itself, for these names and addresses, from a day before `now` (seconds since 1970; clocks
    /// differ) for `days` days.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn self_signed(host: &str, names: &[&str], addresses: &[IpAddr], now: u64, days: u32) -> Result<Self, IdentityError> {
        Self::signed_by(p256_secret(), host, names, addresses, now, days)
    }

    /// Another certificate of the same key, as [`Identity::self_signed`] makes it: who remembers the key knows the host by it.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn renewed(&self, host: &str, names: &[&str], addresses: &[IpAddr], now: u64, days: u32) -> Result<Self, IdentityError> {
        Self::signed_by(self.key.clone(), host, names, addresses, now, days)
    }

    fn signed_by(key: SecretKey, host: &str, names: &[&str], addresses: &[IpAddr], now: u64, days: u32) -> Result<Self, IdentityError> {
        let signer = SigningKey::from(&key);
        let making = |_| IdentityError::Making;
        let mut serial = [0; 16];
        random::fill(&mut serial);
        // Positive, and of full length (RFC 5280, 4.1.2.2).
        serial[0] = serial[0] & 0x7f | 0x40;
        let from = now.saturating_sub(86_400);
        let validity = Validity::new(time(from)?, time(from + u64::from(days) * 86_400)?);
        let public = key.public_key().to_public_key_der().map_err(|_| IdentityError::Making)?;
        let public = SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).map_err(making)?;
        let mut alternatives = Vec::new();
        for name in core::iter::once(&host).chain(names) {
            alternatives.push(GeneralName::DnsName(Ia5String::new(name.as_bytes()).map_err(making)?));
        }
        for address in addresses {
            let bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            alternatives.push(GeneralName::IpAddress(OctetString::new(bytes).map_err(making)?));
        }
        // What would have a meaning in a distinguished name has none in a host's.
        let clean: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
        let profile = SelfSigned {
            name: Name::from_str(&format!("CN={clean},O=Tessera")).map_err(making)?,
            names: alternatives,
        };
        let serial = SerialNumber::new(&serial).map_err(making)?;
        let builder = CertificateBuilder::new(profile, serial, validity, public).map_err(|_| IdentityError::Making)?;
        let certificate = builder.build::<_, DerSignature>(&signer).map_err(|_| IdentityError::Making)?;
        Ok(Self {
            chain: vec![CertificateDer::from(certificate.to_der().map_err(making)?)],
            key,
        })
    }

    /// Reads a chain and a key.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, IdentityError> {
        if chain.len() > MOST_BYTES || key.len() > MOST_BYTES {
            return Err(IdentityError::TooLong);
        }
        let certificates = Certificate::load_pem_chain(chain.trim().as_bytes()).map_err(|_| IdentityError::Certificate)?;
        let first = certificates.first().ok_or(IdentityError::Certificate)?;
        if certificates.len() > MOST_CERTIFICATES {
            return Err(IdentityError::TooLong);
        }
        let key = key.trim();
        let key = SecretKey::from_pkcs8_pem(key)
            .ok()
            .or_else(|| SecretKey::from_sec1_pem(key).ok())
            .ok_or(IdentityError::Key)?;
        let public = key.public_key().to_public_key_der().map_err(|_| IdentityError::Key)?;
        let theirs = first.tbs_certificate().subject_public_key_info().to_der();
        if theirs.as_deref() != Ok(public.as_bytes()) {
            return Err(IdentityError::Mismatch);
        }
        let chain = certificates
            .iter()
            .map(|certificate| certificate.to_der().map(CertificateDer::from))
            .collect::<Result<_, _>>()
            .map_err(|_| IdentityError::Certificate)?;
        Ok(Self { chain, key })
    }

    /// The chain as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        let pem = |der: &CertificateDer<'_>| Certificate::from_der(der).and_then(|certificate| certificate.to_pem(LineEnding::LF));
        self.chain.iter().filter_map(|der| pem(der).ok()).collect()
    }

    /// The key as PEM, a secret.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.to_pkcs8_pem(LineEnding::LF).map(|pem| pem.to_string()).unwrap_or_default()
    }

    /// What the first certificate says.
    #[must_use]
    pub fn describe(&self) -> Description {
        let der: &[u8] = self.chain.first().map_or(&[], |der| der);
        let mut fingerprint = String::new();
        for byte in Sha256::digest(der) {
            fingerprint += &format!("{byte:02x}");
        }
        let certificate = Certificate::from_der(der).ok();
        let tbs = certificate.as_ref().map(Certificate::tbs_certificate);
        let seconds = |time: Time| time.to_unix_duration().as_secs();
        Description {
            subject: tbs.map(|tbs| tbs.subject().to_string()).unwrap_or_default(),
            issuer: tbs.map(|tbs| tbs.issuer().to_string()).unwrap_or_default(),
            not_before: tbs.map_or(0, |tbs| seconds(tbs.validity().not_before)),
            not_after: tbs.map_or(0, |tbs| seconds(tbs.validity().not_after)),
            fingerprint,
        }
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn key(&self) -> &SecretKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_is_another_one_of_the_same_key() {
        random::seed([8; 32]);
        let first = Identity::self_signed("host-1", &[], &[], 1_800_000_000, 397).unwrap();
        let next = first.renewed("host-1", &[], &[], 1_830_000_000, 397).unwrap();
        assert_ne!(next.describe().fingerprint, first.describe().fingerprint);
        assert!(next.describe().not_after > first.describe().not_after);
        assert_eq!(next.key_pem(), first.key_pem());
        assert!(Identity::from_pem(&next.chain_pem(), &first.key_pem()).is_ok());
        let public = |identity: &Identity| {
            Certificate::from_der(&identity.chain[0])
                .unwrap()
                .tbs_certificate()
                .subject_public_key_info()
                .clone()
        };
        assert_eq!(public(&next), public(&first));
    }

    #[test]
    fn an_identity_is_kept_and_foreign_keys_are_refused() {
        random::seed([7; 32]);
        let make = || Identity::self_signed("host-1", &["localhost"], &["127.0.0.1".parse().unwrap()], 1_800_000_000, 3650).unwrap();
        let (one, two) = (make(), make());
        let again = Identity::from_pem(&one.chain_pem(), &one.key_pem()).unwrap();
        assert_eq!(again.describe(), one.describe());
        assert_eq!(again.describe().subject, again.describe().issuer);
        assert_eq!(again.describe().not_before, 1_800_000_000 - 86_400);
        assert_ne!(one.describe().fingerprint, two.describe().fingerprint);
        assert_eq!(
            Identity::from_pem(&one.chain_pem(), &two.key_pem()).unwrap_err(),
            IdentityError::Mismatch
        );
        assert_eq!(
            Identity::from_pem("nonsense", &one.key_pem()).unwrap_err(),
            IdentityError::Certificate
        );
        assert_eq!(
            Identity::from_pem(&one.chain_pem(), &one.chain_pem()).unwrap_err(),
            IdentityError::Key
        );
        let long = one.chain_pem().repeat(9);
        assert_eq!(Identity::from_pem(&long, &one.key_pem()).unwrap_err(), IdentityError::TooLong);
    }
}
