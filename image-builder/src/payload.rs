//! What is put on a medium: kernel, bundle, notices, and the identity that follows from them.

use uuid::Uuid;

/// Where kernel and bundle stand on a medium.
pub const FOLDER: &str = "/tessera";

/// The content of an image.
pub struct Payload {
    /// Product name and version.
    pub product: String,
    /// The kernel's executable.
    pub kernel: Vec<u8>,
    /// Its command line.
    pub command_line: String,
    /// The boot bundle.
    pub bundle: Vec<u8>,
    /// Licences and notices of what is inside.
    pub notices: String,
    identity: Uuid,
}

impl Payload {
    /// Puts the content together. Its identity follows from all of it, so that equal images are equal to the byte and different ones are told apart
    /// by the boot loader when both are attached.
    #[must_use]
    pub fn new(product: String, kernel: Vec<u8>, command_line: String, bundle: Vec<u8>, notices: String) -> Self {
        let mut identity = Uuid::new_v5(&Uuid::NAMESPACE_OID, product.as_bytes());
        for part in [&kernel, command_line.as_bytes(), &bundle, notices.as_bytes()] {
            identity = Uuid::new_v5(&identity, part);
        }
        Self {
            product,
            kernel,
            command_line,
            bundle,
            notices,
            identity,
        }
    }

    /// An identity for a part of the image.
    #[must_use]
    pub fn uuid(&self, part: &str) -> Uuid {
        Uuid::new_v5(&self.identity, part.as_bytes())
    }

    /// The file system's serial number.
    #[must_use]
    pub fn volume_id(&self) -> u32 {
        let [a, b, c, d, ..] = *self.uuid("volume").as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}
