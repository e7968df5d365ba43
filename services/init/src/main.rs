//! The root server's program: takes over the machine, starts everything, and then answers and supervises.
#![cfg_attr(target_os = "tessera", no_std, no_main)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::format;
use core::convert::Infallible;
use core::fmt::Write;
use tessera_abi::boot::slot;
use tessera_abi::syscall::{MAX_CAPS, MAX_MESSAGE, MessageInfo, NOTIFIED};
use tessera_abi::{ABI_VERSION, Error, PAGE_SIZE};
use tessera_init::faults::{Fault, registers as registers_of};
use tessera_init::machine::Machine;
use tessera_init::root::{End, Root};
use tessera_init::{policy, service, window};
use tessera_manifest::{FAULT_BADGE, Manifest, StartInfo};
use tessera_proto::Call;
use tessera_proto::init::Level;
use tessera_rt::message::Message;
use tessera_rt::text::Line;
use tessera_rt::{CNode, Frame, IoPorts, ResetKind, Trace, Untyped, slots, stack};

tessera_rt::root_entry!(main);

/// Pages of init's stack, as a power of two.
const STACK_ORDER: u32 = 4;
/// Longest manifest in bytes: init's heap has to hold it, decoded.
const MAX_MANIFEST: u64 = 256 << 10;
/// First serial port.
const COM1: u16 = 0x3f8;

/// Writes a line on the first serial port, which is nobody else's as long as init cannot start the shell. Bounded waiting: the port may not be there.
fn print(text: &str) {
    let ports = IoPorts::new(slot::IO_PORTS);
    for byte in text.bytes().chain(*b"\r\n") {
        // Line status register, bit 5: the transmitter takes another byte.
        for _ in 0..100_000 {
            if ports.read_u8(COM1 + 5).is_ok_and(|status| status & 0x20 != 0) {
                break;
            }
        }
        let _ = ports.write_u8(COM1, byte);
    }
}

/// Without init there is no system: says why, and has the kernel leave a record of it.
fn give_up(text: &str) -> ! {
    let mut line = Line::<600>::new();
    let _ = write!(line, "init: {text}");
    print(line.as_str());
    loop {
        let _ = Trace::new(slot::TRACE).reset(ResetKind::Panic);
    }
}

fn main() -> ! {
    #[cfg(target_os = "tessera")]
    tessera_rt::panic::set_hook(give_up);
    let boot = window::boot_info();
    if boot.abi_version != ABI_VERSION {
        give_up("the kernel is of another version than init: build both anew");
    }
    let mut machine = match Machine::take_over() {
        Ok(machine) => machine,
        Err(error) => give_up(error.text()),
    };
    tessera_rt::start::set_start_info(StartInfo {
        name: "init".into(),
        tsc_hz: boot.tsc_hz,
        boot_tsc: boot.boot_tsc,
        wall_clock: boot.wall_clock,
        cpus: boot.cpu_count,
        priority: 63,
        ..StartInfo::default()
    });
    let Some(block) = machine.take(STACK_ORDER) else {
        give_up("no memory for a stack")
    };
    machine.own_pages += block.pages();
    let untyped = Untyped::new(block.slot);
    match stack::switch(untyped, block.pages() as usize * PAGE_SIZE, Box::new(move || run(machine))) {
        Err(error) => give_up(error.text()),
    }
}

fn run(machine: Machine) -> Infallible {
    let boot = window::boot_info();
    let bytes = match window::read(
        Frame::new(slot::BUNDLE),
        boot.manifest_offset,
        boot.manifest_length.min(MAX_MANIFEST),
    ) {
        Ok(bytes) => bytes,
        Err(error) => give_up(error.text()),
    };
    let Some(manifest) = Manifest::decode(&bytes) else {
        give_up("the boot manifest is damaged or of another version: build the image anew")
    };
    drop(bytes);
    if let Err(mistake) = policy::check(&manifest, boot.bundle_length) {
        give_up(&format!("the boot manifest is wrong: {mistake}"));
    }
    let mut root = match Root::new(machine, manifest) {
        Ok(root) => root,
        Err(failure) => give_up(&format!("{failure}")),
    };
    root.start_all();
    supervise(&mut root)
}

/// Waits for requests, faults and deadlines, for ever.
fn supervise(root: &mut Root) -> ! {
    let caps = match slots::take_range(MAX_CAPS as u32) {
        Ok(caps) => caps,
        Err(error) => give_up(error.text()),
    };
    let mut request = Box::new([0; MAX_MESSAGE]);
    let mut reply = Box::new([0; MAX_MESSAGE]);
    let mut pending: Option<(usize, Call)> = None;
    let mut words = [0; 6];
    loop {
        root.start_due();
        let next = root.go_on();
        let deadline = root.deadline().into_iter().chain(next).min();
        let mut message = Message::take();
        message.receive_caps(caps, MAX_CAPS as u32);
        let outcome = match pending.take() {
            // Anything due is done before the next wait, so an answer does not wait for it.
            Some((length, call)) => {
                message.bytes()[..length].copy_from_slice(&reply[..length]);
                let given = message.send_caps(call.given());
                words = message.load(length);
                root.endpoint
                    .reply_recv(root.reply, MessageInfo::new(length, given), deadline, &mut words)
            }
            None => root.endpoint.recv(root.reply, deadline, &mut words),
        };
        message.receive_caps(0, 0);
        for slot in root.sent.drain(..) {
            slots::free(slot);
        }
        match outcome.status {
            0 => {
                message.store(&words);
                let length = outcome.info.bytes().min(MAX_MESSAGE);
                request[..length].copy_from_slice(&message.bytes()[..length]);
                drop(message);
                if outcome.badge & FAULT_BADGE != 0 {
                    faulted(root, outcome.badge & !FAULT_BADGE, &request[..length]);
                    continue;
                }
                let received = outcome.info.caps().min(MAX_CAPS);
                let mut call = Call::new(outcome.badge, caps, received);
                let length = service::answer(root, &mut call, &request[..length], &mut reply[..]);
                for slot in (caps..).take(received) {
                    // BadSlot: it was kept.
                    let _ = CNode::OWN.delete(slot);
                }
                if !call.is_deferred() {
                    pending = Some((length, call));
                }
            }
            NOTIFIED => {}
            status => match Error::from_status(status) {
                Some(Error::TimedOut | Error::CapTransfer) => {}
                // The reply still holds somebody: a fault of which nothing is known. It may try again.
                Some(Error::BadState) => {
                    let _ = root.reply.send(MessageInfo::new(0, 0), &mut words);
                }
                error => give_up(error.map_or("receiving fails", Error::text)),
            },
        }
    }
}

/// A thread of a server faulted: logs what and where, and ends the server.
fn faulted(root: &mut Root, id: u64, message: &[u8]) {
    let Some(index) = root.index_of(id) else { return };
    let text = Fault::decode(message).map_or_else(|| "sent a malformed fault".into(), |fault| fault.text());
    let registers = root.faulted_registers(index);
    root.end(index, &End::Fault(text));
    for line in registers.iter().flat_map(registers_of) {
        root.say(Level::Error, &line);
    }
}
