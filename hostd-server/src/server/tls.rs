//! The host's certificate: kept with the state, replaced while connections are open.

use alloc::{format, rc::Rc, string::String, sync::Arc, vec, vec::Vec};
use core::{cell::RefCell, net::IpAddr};
use tessera_crypto::{Identity, IdentityError, rustls::ServerConfig};
use tessera_hostd::{
    host::{Failure, HostError},
    state::{Change, StateStore},
};
use tessera_rt::log;

/// Days that a certificate of the host's own making is good: browsers and scanners take no longer ones (398 days by the CA/Browser Forum's baseline requirements, 6.3.2).
const DAYS: u32 = 397;
/// Days before its end at which it is made anew.
const RENEW_DAYS: u64 = 30;
/// Keys of the state.
const CHAIN: &str = "tls-chain";
const KEY: &str = "tls-key";

/// Makes a certificate. One of the host's own making is followed by another of the same key, by which clients know the host; a key that was brought is not used for
/// what nobody but the host signed.
///
/// # Errors
/// The name cannot stand in one.
pub fn self_signed(old: Option<&Identity>, name: &str, addresses: &[IpAddr], now: u64) -> Result<Identity, IdentityError> {
    let mut all = vec![IpAddr::from([127, 0, 0, 1])];
    all.extend_from_slice(addresses);
    let mut names = vec!["tessera", "localhost"];
    names.retain(|other| *other != name);
    match old.filter(|old| is_own(old)) {
        Some(old) => old.renewed(name, &names, &all, now, DAYS),
        None => Identity::self_signed(name, &names, &all, now, DAYS),
    }
}

/// What connections begin with.
pub struct Tls(RefCell<(Rc<Identity>, Arc<ServerConfig>)>);

fn config(identity: &Identity) -> Result<Arc<ServerConfig>, HostError> {
    tessera_crypto::server_config(identity)
        .map_err(|error| HostError::new(Failure::Invalid, format!("TLS cannot begin with the certificate: {error}")))
}

fn changes(identity: &Identity) -> Vec<Change> {
    let put = |key: &str, value: String| Change::Put(key.into(), value.into_bytes());
    vec![put(CHAIN, identity.chain_pem()), put(KEY, identity.key_pem())]
}

/// It is of the host's own making.
fn is_own(identity: &Identity) -> bool {
    let known = identity.describe();
    known.subject == known.issuer
}

/// It is of the host's own making and ends soon. What others signed is theirs to renew.
fn is_due(identity: &Identity, now: u64) -> bool {
    is_own(identity) && identity.describe().not_after <= now + RENEW_DAYS * 86_400
}

impl Tls {
    /// The certificate of the state, or a new one if there is none, or it is the host's own and about to end.
    ///
    /// # Errors
    /// None can be made.
    pub async fn open(store: &dyn StateStore, now: u64) -> Result<Self, HostError> {
        let text = |key| String::from_utf8(store.get(key)?).ok();
        let kept = text(CHAIN).zip(text(KEY)).and_then(|(chain, key)| {
            Identity::from_pem(&chain, &key)
                .inspect_err(|error| log::error!("the certificate in the state: {error}"))
                .ok()
        });
        let identity = match kept {
            Some(identity) if !is_due(&identity, now) => identity,
            kept => {
                let made = self_signed(kept.as_ref(), "tessera", &[], now)
                    .map_err(|error| HostError::new(Failure::Failed, format!("the host's certificate: {error}")))?;
                // What cannot be kept serves until the next start.
                if store.commit(changes(&made)).await.is_err() {
                    log::error!("the host's certificate cannot be kept");
                }
                made
            }
        };
        log::info!("certificate with the fingerprint {}", identity.describe().fingerprint);
        let config = config(&identity)?;
        Ok(Self(RefCell::new((Rc::new(identity), config))))
    }

    /// It has to be made anew at `now` (seconds since 1970).
    pub fn is_due(&self, now: u64) -> bool {
        is_due(&self.0.borrow().0, now)
    }

    /// The certificate.
    pub fn identity(&self) -> Rc<Identity> {
        self.0.borrow().0.clone()
    }

    /// What the next connection begins with.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.borrow().1.clone()
    }

    /// Keeps another certificate and goes on with it.
    ///
    /// # Errors
    /// It cannot be used, or not be kept; the old one stays.
    pub async fn take(&self, identity: Identity, store: &dyn StateStore) -> Result<(), HostError> {
        let config = config(&identity)?;
        store
            .commit(changes(&identity))
            .await
            .map_err(|_| HostError::new(Failure::Unavailable, "The certificate cannot be kept"))?;
        log::warn!("certificate with the fingerprint {}", identity.describe().fingerprint);
        self.0.replace((Rc::new(identity), config));
        Ok(())
    }
}
