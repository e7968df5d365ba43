//! The port on the virtual switch, as the stack wants it.

use alloc::rc::Rc;
use core::cell::RefCell;
use tessera_host_port::HostPort;
use tessera_hostd::net::Port;
use tessera_proto::CallError;
use tessera_rt::time;

/// The port group of management.
const GROUP: &str = "Management Network";
/// The bit that frames set.
const CAME: u64 = 1;
/// Milliseconds between two looks whether the network server is still there.
const CHECK_MS: u64 = 1000;

struct Inner {
    port: HostPort,
    checked: u64,
}

/// The port. Copies are the same.
#[derive(Clone)]
pub struct SwitchPort(Rc<RefCell<Inner>>);

impl SwitchPort {
    /// Opens it.
    pub fn open() -> Result<Self, CallError> {
        let port = HostPort::open(GROUP, CAME)?;
        let checked = time::now();
        Ok(Self(Rc::new(RefCell::new(Inner { port, checked }))))
    }

    /// Has what was sent go on its way.
    pub fn flush(&self) {
        let inner = &mut *self.0.borrow_mut();
        inner.port.flush();
        let now = time::now();
        if time::from_ticks(now.saturating_sub(inner.checked), 1000, time::hz()) >= CHECK_MS {
            inner.checked = now;
            inner.port.check();
        }
    }
}

impl Port for SwitchPort {
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.0.borrow_mut().port.receive(buffer)
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.0.borrow_mut().port.send(frame)
    }

    fn mac(&self) -> [u8; 6] {
        self.0.borrow().port.mac()
    }

    fn mtu(&self) -> usize {
        self.0.borrow().port.mtu().into()
    }
}
