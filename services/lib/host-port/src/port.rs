//! The port from the side of the server that has it.

use crate::ring::{Rings, Side};
use tessera_device::{DmaBuffer, platform};
use tessera_proto::host_port::Client;
use tessera_proto::{CallError, Failure, FailureKind, Slots};
use tessera_rt::{Connection, Endpoint, Notification, log, slots, start};

/// Name of the grant that names the network server.
pub const GRANT: &str = "net";
/// Name of the grant that shares the memory.
pub const SHARE: &str = "frames";

/// An open port.
#[derive(Debug)]
pub struct HostPort {
    endpoint: Endpoint,
    rings: Rings,
    /// The port group that it is connected to.
    group: &'static str,
    /// Bits of the server's own notification that are set when frames have come.
    bits: u64,
    /// Tells the network server that there are frames.
    kick: Option<Notification>,
    mac: [u8; 6],
    mtu: u16,
    /// There are frames of which the network server was not told.
    unsaid: bool,
}

/// The memory that a grant shares, mapped here.
///
/// # Errors
/// For people: it is not granted, or cannot be mapped.
pub fn memory(grant: &str) -> Result<DmaBuffer, Failure> {
    platform::shared(grant).ok_or_else(|| {
        Failure::new(
            FailureKind::NotAllowed,
            format_args!("no memory is shared for frames as `{grant}`: grant it `frames = {{ share = \"net + 512 KiB\" }}`"),
        )
    })
}

impl HostPort {
    /// Opens the port of this server in a port group. Bits `bits` of its own notification are set when frames have come.
    ///
    /// # Errors
    /// The manifest does not grant it, or the network server refuses.
    pub fn open(group: &'static str, bits: u64) -> Result<Self, CallError> {
        let none = || {
            Failure::new(
                FailureKind::NotAllowed,
                "no way to the network server: grant it `net = { use = \"net\" }`",
            )
        };
        let endpoint = Endpoint::new(start::find(GRANT).ok_or_else(none)?.slot);
        let memory = memory(SHARE)?;
        let short = || Failure::new(FailureKind::BadRequest, "the memory for frames is too short");
        let mut port = Self {
            endpoint,
            rings: Rings::new(&memory, Side::Client).ok_or_else(short)?,
            group,
            bits,
            kick: None,
            mac: [0; 6],
            mtu: 0,
            unsaid: false,
        };
        port.connect()?;
        Ok(port)
    }

    fn connect(&mut self) -> Result<(), CallError> {
        if let Some(old) = self.kick.take() {
            slots::free(old.slot());
        }
        let signal = platform::signal(self.bits)?;
        let slot = slots::take().inspect_err(|_| slots::free(signal.slot()))?;
        let mut client = Client(Connection::new(self.endpoint));
        let opened = client.open([signal.slot()], self.group, Slots(slot));
        slots::free(signal.slot());
        let info = opened.inspect_err(|_| slots::free(slot))?;
        self.kick = Some(Notification::new(slot));
        self.mac = info.mac;
        self.mtu = info.mtu;
        Ok(())
    }

    /// Its address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Longest payload of a frame.
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Copies the next frame that came into `frame` and answers its length.
    pub fn receive(&mut self, frame: &mut [u8]) -> Option<usize> {
        self.rings.receive(frame)
    }

    /// Whether a frame could be sent now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.rings.has_room()
    }

    /// Sends a frame with the next [`Self::flush`]. False: there is no room.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        let sent = self.rings.send(frame);
        self.unsaid |= sent;
        sent
    }

    /// Tells the network server of what was sent.
    pub fn flush(&mut self) {
        if core::mem::take(&mut self.unsaid) {
            self.check();
        }
    }

    /// Notices that the network server was restarted, and opens the port again. To be called now and then, for who only waits is not told.
    pub fn check(&mut self) {
        if self.kick.is_some_and(|kick| kick.signal().is_ok()) {
            return;
        }
        match self.connect() {
            Ok(()) => {
                log::info!("the network port is open again");
                if let Some(kick) = self.kick {
                    let _ = kick.signal();
                }
            }
            Err(error) => log::warn!("the network port cannot be opened again: {error}"),
        }
    }
}
