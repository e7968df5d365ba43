//! The server on the running system.

mod console;
mod screen;

use console::Console;
use screen::Screen;
use tessera_proto::{Call, FailureKind, interface_of, refuse, vm_console, vm_screen};
use tessera_rt::{
    Endpoint, Frame, Reply,
    abi::{Error, object::Rights},
    exit, log, require,
    server::{Service, serve},
    start, vm,
};

/// What one machine's people are served with.
struct Vmx {
    console: Console,
    screen: Option<Screen>,
}

impl Service for Vmx {
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        if interface_of(request) != Some(vm_screen::INTERFACE.number) {
            return vm_console::dispatch(&mut self.console, call, request, reply);
        }
        match &mut self.screen {
            Some(screen) => vm_screen::dispatch(screen, call, request, reply),
            None => refuse(FailureKind::Unsupported, reply),
        }
    }

    fn notified(&mut self, _bits: u64) {
        self.console.look();
    }
}

/// Maps what init granted.
fn map(name: &str, rights: Rights) -> vm::Mapping {
    match vm::map(Frame::new(require(name)), rights, 0) {
        Ok(mapping) => mapping,
        Err(error) => fail(name, error),
    }
}

fn fail(what: &str, error: Error) -> ! {
    log::error!("{what}: {}", error.text());
    exit(1, "the console cannot be set up")
}

/// The program. init has bound `vmx.signal` to its thread.
pub fn run() {
    let mut vmx = Vmx {
        console: Console::attach(),
        screen: Screen::attach(),
    };
    start::ready();
    if let Err(error) = serve(Endpoint::new(require("control")), Reply::FIRST, &mut vmx) {
        fail("the control endpoint cannot be served", error);
    }
}
