//! Requests to a host: one connection each, over TLS with the host that was seen at the first log-in, or plainly to this machine.

use anyhow::{Context, Result, bail};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Bytes both ways.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Where a host is, and who it must be.
#[derive(Clone, Default)]
pub struct Place {
    /// `https://host:port`.
    pub url: String,
    /// SHA-256 of its key or of its certificate, in hexadecimal digits; `None`: any, to be looked at.
    pub pin: Option<String>,
    /// Token or key.
    pub token: Option<String>,
}

/// An answer's head; its body is still to be read.
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The connection, at the body's begin.
    pub stream: BufReader<Box<dyn Stream>>,
    /// The same connection, to say how long is waited for it.
    pub socket: TcpStream,
    /// Who the host showed itself to be.
    pub shown: Option<Shown>,
}

/// What a host is known by, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// SHA-256 of its certificate, which ends and is renewed.
    pub certificate: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, as RFC 7469, section 2.4), which stays.
    pub key: String,
}

impl Shown {
    fn of(certificate: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        let digits = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self {
            certificate: digits(certificate),
            key: digits(&parsed.subject_public_key_info()),
        })
    }

    /// It is what was remembered, or what was told to be trusted.
    fn is(&self, pin: &str) -> bool {
        self.key == pin || self.certificate == pin
    }
}

#[derive(Debug)]
struct Pinned {
    pin: Option<String>,
    seen: Arc<Mutex<Option<Shown>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Shown::of(end)?;
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Some(found.clone());
        }
        match &self.pin {
            Some(pin) if !found.is(pin) => Err(rustls::Error::General(format!(
                "the host's key is not the one of the first log-in, {pin}. If it was replaced, compare its certificate's fingerprint with what the host's console shows, and log in with --trust {}",
                found.certificate
            ))),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Place {
    /// Sends a request; the body comes from `body`, of `length` bytes.
    ///
    /// # Errors
    /// The host cannot be reached, or is another one.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        length: u64,
        body: &mut dyn Read,
        mut progress: impl FnMut(u64),
    ) -> Result<Answer> {
        let (secure, rest) = match self.url.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) if ["127.0.0.1", "localhost", "[::1]"].iter().any(|own| rest.starts_with(own)) => (false, rest),
            Some(("http", _)) => bail!("without TLS only this machine is spoken to: use https://"),
            _ => bail!("{} is no address of a host: use https://HOST:PORT", self.url),
        };
        let authority = rest.trim_end_matches('/');
        let default = format!("{authority}:443");
        let address = if authority.rsplit(']').next().unwrap_or("").contains(':') {
            authority
        } else {
            &default
        };
        let socket = TcpStream::connect(address).with_context(|| format!("{address} cannot be reached"))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let own = socket.try_clone()?;
        let seen = Arc::new(Mutex::new(None));
        let mut stream: Box<dyn Stream> = if secure {
            let provider = Arc::new(ring::default_provider());
            let verifier = Pinned {
                pin: self.pin.clone(),
                seen: seen.clone(),
                provider: provider.clone(),
            };
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            let host = address
                .rsplit_once(':')
                .map_or(address, |(host, _)| host)
                .trim_matches(['[', ']'])
                .to_string();
            let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), ServerName::try_from(host)?)?, socket);
            tls.flush()?;
            Box::new(tls)
        } else {
            Box::new(socket)
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\n");
        if !headers.iter().any(|(name, _)| *name == "Connection") {
            head.push_str("Connection: close\r\n");
        }
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        let (mut buffer, mut sent) = (vec![0; 64 << 10], 0);
        while sent < length {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                bail!("the file became shorter while it was sent");
            }
            stream.write_all(&buffer[..count])?;
            sent += count as u64;
            progress(sent);
        }
        stream.flush()?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.by_ref().take(8192).read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .context("the host's answer is not HTTP")?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            stream.by_ref().take(8192).read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        let shown = seen.lock().ok().and_then(|seen| seen.clone());
        Ok(Answer {
            status,
            headers,
            stream,
            socket: own,
            shown,
        })
    }

    /// Sends JSON, if any, and takes JSON.
    ///
    /// # Errors
    /// As [`Place::send`], and what the host refused, in its words.
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.ask(method, path, body)?.json()
    }

    /// Sends JSON, if any; the answer may be of any kind.
    ///
    /// # Errors
    /// As [`Place::send`].
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let bytes = body.map_or_else(String::new, Value::to_string);
        let kind = [("Content-Type", "application/json".to_string())];
        let headers: &[(&str, String)] = if body.is_some() { &kind } else { &[] };
        self.send(method, path, headers, bytes.len() as u64, &mut bytes.as_bytes(), |_| ())
    }
}

/// The host refused.
#[derive(Debug)]
pub struct Refusal {
    /// Status code.
    pub status: u16,
    /// What happened and what to do.
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl Answer {
    /// A header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is something else than JSON, such as a picture. What is refused is told in JSON.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.header("content-type")
            .is_some_and(|kind| !kind.starts_with("application/json"))
    }

    /// The whole body.
    ///
    /// # Errors
    /// The connection broke.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.header("content-length").and_then(|length| length.parse::<u64>().ok()) {
            Some(length) => {
                self.stream.by_ref().take(length).read_to_end(&mut bytes)?;
                if bytes.len() as u64 != length {
                    bail!("the connection broke in the middle of the answer");
                }
            }
            None if self.status == 204 => {}
            None => loop {
                let mut line = String::new();
                self.stream.by_ref().take(64).read_line(&mut line)?;
                let size = u64::from_str_radix(line.trim(), 16).context("the answer's framing is broken")?;
                self.stream.by_ref().take(size).read_to_end(&mut bytes)?;
                self.stream.read_line(&mut String::new())?;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(bytes)
    }

    /// The body as JSON, or the refusal.
    ///
    /// # Errors
    /// What the host refused, in its words.
    pub fn json(mut self) -> Result<Value> {
        let bytes = self.bytes()?;
        let value: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).context("the answer is not JSON")?
        };
        if self.status >= 400 {
            let text = |name: &str| value[name].as_str().unwrap_or("").to_string();
            return Err(Refusal {
                status: self.status,
                message: format!("{}. {}", text("message"), text("hint")),
            }
            .into());
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    use tessera_crypto::Identity;

    fn shown(identity: &Identity) -> Shown {
        Shown::of(&CertificateDer::from_pem_slice(identity.chain_pem().as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_host_is_the_same_with_a_renewed_certificate_and_another_one_with_another_key() {
        tessera_crypto::seed([9; 32]);
        let first = Identity::self_signed("tessera", &[], &[], 1_800_000_000, 397).unwrap();
        let renewed = first.renewed("tessera", &[], &[], 1_830_000_000, 397).unwrap();
        let other = Identity::self_signed("tessera", &[], &[], 1_830_000_000, 397).unwrap();
        let known = shown(&first);
        assert_ne!(shown(&renewed).certificate, known.certificate);
        assert!(shown(&renewed).is(&known.key));
        assert!(!shown(&other).is(&known.key));
        // What the console shows is a certificate's.
        assert!(known.is(&first.describe().fingerprint));
        assert!(!shown(&renewed).is(&first.describe().fingerprint));
    }

    #[test]
    fn what_is_no_certificate_is_nobody() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x82, 0xff, 0xff, 0], &[0; 300]] {
            assert!(Shown::of(&CertificateDer::from(bytes)).is_err());
        }
    }
}
