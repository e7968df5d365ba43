//! Asks a gateway for its address, over and over, through the server's own port on the switch; the network server may be killed meanwhile.

use crate::report::{line, verdict};
use tessera_host_port::{FRAME, HostPort};
use tessera_rt::{Notification, time};

/// The bit that frames set.
const CAME: u64 = 1;
/// Milliseconds until a request is sent again, and how often.
const AGAIN_MS: u64 = 200;
const TRIES: u32 = 100;
/// QEMU's gateway, and an address of the same network.
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const OWN: [u8; 4] = [10, 0, 2, 77];

/// An ARP request (RFC 826) for the gateway's address.
fn request(mac: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&OWN);
    frame[38..42].copy_from_slice(&GATEWAY);
    frame
}

fn is_reply(frame: &[u8], mac: [u8; 6]) -> bool {
    frame.get(..6) == Some(&mac)
        && frame.get(12..14) == Some(&[8, 6])
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&GATEWAY)
}

/// Waits for the reply. False: it did not come in time.
fn answered(port: &mut HostPort) -> bool {
    let deadline = time::after(time::milliseconds(AGAIN_MS));
    let mut frame = [0; FRAME];
    loop {
        while let Some(length) = port.receive(&mut frame) {
            if is_reply(&frame[..length], port.mac()) {
                return true;
            }
        }
        if Notification::FIRST.wait(Some(deadline)).is_err() {
            return false;
        }
    }
}

/// Asks `rounds` times.
pub fn run(rounds: u64) {
    let mut port = match HostPort::open("Management Network", CAME) {
        Ok(port) => port,
        Err(error) => return verdict("port", Some(format_args!("{error}"))),
    };
    let mut lost = 0;
    for round in 0..rounds {
        let mut tries = 0;
        loop {
            port.send(&request(port.mac()));
            port.flush();
            if answered(&mut port) {
                break;
            }
            lost += 1;
            tries += 1;
            if tries == TRIES {
                return verdict("port", Some(format_args!("no reply in round {round}")));
            }
        }
        line(format_args!("probe: port: round {round} is done, {lost} requests were lost"));
    }
    verdict("port", None);
}
