//! Guests whose drivers break the rules of their network cards: a million queues of chance, with headers, frames and commands of chance in them, and drivers that change all of it while it is read.
//!
//! Whatever a driver does, its device keeps to the driver's own memory, offers only packets that the others can do something with, gives back what it took, and stops with a reason; the neighbour
//! who is sent what comes out goes on.

mod common;

use common::{Guest, NEIGHBOUR, Neighbour, hostile_attachment};
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    task::{Context, Poll, Waker},
};
use tessera_device::testing::Random;
use tessera_net::{
    guest::{Device, Dropped, GuestPacket, Sent, Token},
    offload,
    packet::{LONGEST, Packet},
};

/// What was seen in a run; a run that saw little says little.
#[derive(Default)]
struct Seen {
    queues: u64,
    packets: u64,
    frames: u64,
    received: u64,
    refused: u64,
    /// Rules that were broken, and how often.
    broken: BTreeMap<String, u64>,
}

/// What others do with a packet: look at every byte, send it, finish it in software, give it to a guest.
fn use_packet(packet: &GuestPacket<'_>, guest: &Guest, neighbour: &Neighbour, scratch: &mut offload::Scratch, seen: &mut Seen) {
    let length = packet.length();
    assert!((14..=LONGEST).contains(&length), "{length} bytes");
    let mut visited = 0;
    packet.visit(&mut |piece| visited += piece.length());
    assert_eq!(visited, length as usize);
    if let Some(segments) = packet.segments() {
        assert!(segments.iter().all(|segment| guest.is_physical(*segment)), "{segments:?}");
        assert_eq!(segments.iter().map(|segment| segment.length).sum::<u32>(), length);
    }
    let offload = packet.offload();
    if let Some((start, offset)) = offload.checksum {
        assert!(u32::from(start) + u32::from(offset) + 2 <= length);
    }
    let _ = offload::finish(packet, scratch, &mut |frame| {
        assert!(frame.length() <= LONGEST);
        seen.frames += 1;
        Ok::<(), ()>(())
    });
    let _ = neighbour.device.receive(packet, None);
    seen.packets += 1;
}

/// Serves a driver that did its worst, until it is reset.
fn serve(guest: &Guest, neighbour: &mut Neighbour, random: &Random, stale: &mut Vec<Token>, seen: &mut Seen) {
    let device = &guest.device;
    let mut scratch = offload::Scratch::default();
    let mut held = Vec::new();
    let mut now = random.below(1 << 20);
    for _ in 0..1 + random.below(3) {
        now += random.below(1 << 18);
        for _ in 0..random.below(4) {
            device.rang();
        }
        device.transmit(64, now, &mut |packet, pair, token| {
            assert!(pair < 4);
            use_packet(packet, guest, neighbour, &mut scratch, seen);
            match random.below(8) {
                0 => Sent::Later,
                1 | 2 => {
                    held.push(token);
                    Sent::Held
                }
                _ => Sent::Done,
            }
        });
        for _ in 0..random.below(4) {
            let tag = (random.below(4) == 0).then_some(random.next() as u16);
            match device.receive(&neighbour.frame(random, guest.mac()), tag) {
                Ok(()) => seen.received += 1,
                Err(_) => seen.refused += 1,
            }
        }
        if random.below(2) == 0 {
            held.drain(..).for_each(|token| device.complete(token));
        }
        // Of an earlier driver: nothing of this one's.
        stale.drain(..).for_each(|token| device.complete(token));
        device.settle(now);
        if let Some(reason) = device.take_news().broken {
            // Without its numbers.
            let rule = reason.split_once(": ").map_or(&*reason, |(_, rule)| rule);
            let rule: String = rule.chars().filter(|letter| !letter.is_ascii_digit()).collect();
            *seen.broken.entry(rule).or_default() += 1;
            assert!(!device.transmit(64, now, &mut |_, _, _| panic!("a broken device offers a packet")));
            let outcome = device.receive(&neighbour.frame(random, guest.mac()), None);
            assert_eq!(outcome, Err(Dropped::NotRunning), "after {reason}");
            break;
        }
    }
    reset(device, &mut held, stale);
}

/// Ends the device's use: it waits for what is held, and for nothing else.
fn reset(device: &Device, held: &mut Vec<Token>, stale: &mut Vec<Token>) {
    let mut context = Context::from_waker(Waker::noop());
    let mut stop = pin!(device.stop());
    let outcome = stop.as_mut().poll(&mut context);
    assert_eq!(outcome.is_pending(), !held.is_empty());
    stale.extend(held.iter().copied());
    held.drain(..).for_each(|token| device.complete(token));
    device.settle(0);
    if outcome.is_pending() {
        assert_eq!(stop.as_mut().poll(&mut context), Poll::Ready(()));
    }
    assert!(!device.is_attached());
}

/// Attaches drivers until they had so many queues.
fn run(guest: &Guest, queues: u64, seed: u64) -> Seen {
    let random = Random::new(seed);
    let mut neighbour = Neighbour::new();
    let (mut seen, mut stale) = (Seen::default(), Vec::new());
    while seen.queues < queues {
        let attachment = hostile_attachment(guest, &random);
        seen.queues += attachment.queues.iter().flatten().count() as u64;
        match guest.device.attach(&attachment, random.below(8) == 0) {
            Ok(()) => serve(guest, &mut neighbour, &random, &mut stale, &mut seen),
            Err(violation) => {
                *seen
                    .broken
                    .entry(format!("attach {:?}", std::mem::discriminant(&violation)))
                    .or_default() += 1;
                assert!(!guest.device.is_attached());
            }
        }
        neighbour.goes_on();
        assert!(guest.guards_are_whole(), "the device wrote outside of the guest's memory");
    }
    seen
}

#[test]
fn a_million_queues() {
    let guest = Guest::new();
    let seen = run(&guest, 1_000_000, 0x7e5_5e7a);
    let Seen {
        packets,
        frames,
        received,
        refused,
        broken,
        ..
    } = &seen;
    println!("{packets} packets, {frames} frames, {received} received, {refused} refused, {broken:?}");
    // Otherwise the queues were not hostile, or not good, enough to say anything.
    assert!(*packets > 100_000 && *frames > 100_000);
    assert!(*received > 10_000 && *refused > 10_000);
    assert!(broken.len() >= 10);
}

#[test]
fn a_driver_that_changes_everything_while_it_is_read() {
    let guest = Guest::new();
    let (address, length) = guest.memory();
    let over = AtomicBool::new(false);
    /// Ends the other thread, also when this one fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let random = Random::new(3);
            while !over.load(Ordering::Relaxed) {
                let place = address + 2 * random.below(length as u64 / 2) as usize;
                // SAFETY: inside of the guest's memory, which is never freed and no Rust object, aligned; the device reads it as memory that somebody else changes.
                let word = unsafe { AtomicU16::from_ptr(place as *mut u16) };
                let value = if random.below(2) == 0 { random.below(64) } else { random.next() };
                word.store(value as u16, Ordering::Relaxed);
            }
        });
        let _over = Over(&over);
        let seen = run(&guest, 100_000, 11);
        assert!(
            seen.packets > 1000 && seen.broken.len() >= 8,
            "{} packets, {:?}",
            seen.packets,
            seen.broken
        );
    });
    assert_ne!(guest.mac(), NEIGHBOUR);
}
