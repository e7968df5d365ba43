//! Records' encryption (RFC 8446, 5.2) with any AEAD of a 12-byte nonce and a 16-byte tag.

use aes_gcm::aead::{AeadInPlace, KeyInit, consts::U12, consts::U16};
use alloc::boxed::Box;
use core::marker::PhantomData;
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    crypto::cipher::{
        AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce, OutboundOpaqueMessage,
        OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm, UnsupportedOperationError, make_tls13_aad,
    },
};

const TAG: usize = 16;

/// An AEAD as rustls wants it.
pub struct Aead<A>(PhantomData<fn() -> A>);

impl<A> Aead<A> {
    pub const NEW: Self = Self(PhantomData);
}

struct Cipher<A> {
    aead: A,
    iv: Iv,
}

impl<A> Tls13AeadAlgorithm for Aead<A>
where
    A: AeadInPlace<NonceSize = U12, TagSize = U16> + KeyInit + Send + Sync + 'static,
{
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(cipher::<A>(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(cipher::<A>(&key, iv))
    }

    fn key_len(&self) -> usize {
        A::key_size()
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

fn cipher<A: KeyInit>(key: &AeadKey, iv: Iv) -> Cipher<A> {
    // PANIC: rustls asked `key_len` and derives keys of that length.
    let aead = A::new_from_slice(key.as_ref()).expect("a key of the length that was asked for");
    Cipher { aead, iv }
}

impl<A: AeadInPlace<NonceSize = U12, TagSize = U16> + Send + Sync> MessageEncrypter for Cipher<A> {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let total = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(total);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let nonce = Nonce::new(&self.iv, sequence).0;
        let tag = self
            .aead
            .encrypt_in_place_detached(&nonce.into(), &make_tls13_aad(total), payload.as_mut())
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(&tag);
        // The version field is frozen (5.1).
        Ok(OutboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            payload,
        ))
    }

    fn encrypted_payload_len(&self, payload: usize) -> usize {
        payload + 1 + TAG
    }
}

impl<A: AeadInPlace<NonceSize = U12, TagSize = U16> + Send + Sync> MessageDecrypter for Cipher<A> {
    fn decrypt<'a>(&mut self, mut message: InboundOpaqueMessage<'a>, sequence: u64) -> Result<InboundPlainMessage<'a>, Error> {
        let total = message.payload.len();
        let text = total.checked_sub(TAG).ok_or(Error::DecryptError)?;
        let nonce = Nonce::new(&self.iv, sequence).0;
        let (bytes, tag) = message.payload.split_at_mut(text);
        let tag = <[u8; TAG]>::try_from(&*tag).map_err(|_| Error::DecryptError)?;
        self.aead
            .decrypt_in_place_detached(&nonce.into(), &make_tls13_aad(total), bytes, &tag.into())
            .map_err(|_| Error::DecryptError)?;
        message.payload.truncate(text);
        message.into_tls13_unpadded_message()
    }
}
