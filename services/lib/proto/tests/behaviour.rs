//! Clients, dispatch and decoding: what they do when things go wrong, and with bytes from anywhere.

mod common;

use common::{Example, Loopback, call_everything, dispatch};
use proptest::prelude::*;
use tessera_abi::Error;
use tessera_proto::supervisor::{CapabilityInfo, LogChunk, ServerInfo};
use tessera_proto::vm_console::ConsoleChunk;
use tessera_proto::*;

#[test]
fn every_operation_arrives_with_its_arguments() {
    let mut loopback = Loopback::default();
    call_everything(&mut loopback, &mut |_, _, _| {});
    let seen = &loopback.server.seen;
    for expected in [
        "log info hello",
        "exit -2 no disk",
        "threads 2 3",
        "kill net",
        "follow_log Some(40)",
        "connect debian Console",
        "write [108, 115, 13]",
    ] {
        assert!(seen.iter().any(|line| line == expected), "{expected} is not in {seen:?}");
    }
}

#[test]
fn idempotent_requests_are_repeated_others_are_not() {
    let mut loopback = Loopback::default();
    loopback.errors.extend([Error::ServerDied, Error::ServerDied]);
    assert_eq!(vm_console::Client(&mut loopback).read(5).unwrap().data, b"login: ");
    assert_eq!(loopback.attempts, 3);

    let mut loopback = Loopback::default();
    loopback.errors.push_back(Error::ServerDied);
    assert_eq!(
        vm_console::Client(&mut loopback).write(b"x"),
        Err(CallError::Kernel(Error::ServerDied))
    );
    assert_eq!((loopback.attempts, loopback.server.seen.len()), (1, 0));
}

#[test]
fn repeating_ends() {
    let mut loopback = Loopback::default();
    loopback.errors.extend([Error::ServerDied; 100]);
    assert_eq!(init::Client(&mut loopback).ready(), Err(CallError::Kernel(Error::ServerDied)));
    assert!(loopback.attempts < 10);
}

#[test]
fn other_errors_are_not_repeated() {
    let mut loopback = Loopback::default();
    loopback.errors.push_back(Error::TimedOut);
    assert_eq!(init::Client(&mut loopback).ready(), Err(CallError::Kernel(Error::TimedOut)));
    assert_eq!(loopback.attempts, 1);
}

#[test]
fn a_refusal_takes_no_capability_along() {
    let mut loopback = Loopback::default();
    loopback.server.refuse = true;
    let refused = vm_manager::Client(&mut loopback).connect("x", vm_manager::VmService::Control, Slots(9));
    assert_eq!(
        refused,
        Err(CallError::Failed(Failure::new(FailureKind::NotFound, "no such thing as `x`")))
    );
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let mut loopback = Loopback::default();
    let text = "x".repeat(MAX_MESSAGE);
    assert_eq!(
        init::Client(&mut loopback).log(init::Level::Info, &text),
        Err(CallError::RequestTooLarge)
    );
    assert!(loopback.server.seen.is_empty());
}

#[test]
fn capabilities_that_no_operation_takes_are_refused() {
    let mut server = Example::default();
    let mut reply = vec![0; MAX_MESSAGE];
    let length = init::dispatch(&mut server, &mut Call::new(1, 40, 1), &[1, 3], &mut reply);
    let answer: Result<(), Failure> = wire::decode_owned(&reply[..length]).unwrap();
    assert_eq!(answer.unwrap_err().kind, FailureKind::BadRequest);
    assert!(server.seen.is_empty());
}

#[test]
fn bytes_that_are_left_over_are_refused() {
    let mut reply = vec![0; MAX_MESSAGE];
    let length = init::dispatch(&mut Example::default(), &mut Call::default(), &[1, 3, 0], &mut reply);
    let answer: Result<(), Failure> = wire::decode_owned(&reply[..length]).unwrap();
    assert_eq!(answer.unwrap_err().kind, FailureKind::BadRequest);
}

#[test]
fn traces_find_names() {
    assert_eq!(name_of(&[5, 2, 0]), Some(("vm_console", "read")));
    assert_eq!(name_of(&[5, 99]), None);
    assert_eq!(name_of(&[5]), None);
}

#[test]
fn pages_split_a_long_list_without_loss() {
    let names: Vec<String> = (0..500).map(|number| format!("server-{number}")).collect();
    let fetch = |first: u32| {
        let page = Page::fill((0..).zip(names.iter().cloned()).skip(first as usize));
        assert!(wire::size(&Ok::<_, Failure>(page.clone())) <= MAX_MESSAGE);
        Ok::<_, ()>(page)
    };
    assert_eq!(collect(10_000, fetch).unwrap(), names);
    assert_eq!(collect(7, fetch).unwrap(), names[..7]);
}

#[test]
fn a_server_that_never_ends_its_list_is_left() {
    let mut calls = 0;
    let endless = collect(100, |first| {
        calls += 1;
        Ok::<_, ()>(Page {
            items: vec![first],
            next: Some(first),
        })
    });
    assert_eq!((endless.unwrap(), calls), (vec![0], 1));
}

proptest! {
    #[test]
    fn no_request_brings_a_server_down(request in proptest::collection::vec(any::<u8>(), 0..MAX_MESSAGE), interface in 0u8..7, operation in 0u8..12, caps in 0usize..5) {
        let mut request = request;
        // Most random bytes name no operation; these do.
        if let [first, second, ..] = &mut request[..] {
            (*first, *second) = (interface, operation);
        }
        let mut reply = vec![0; MAX_MESSAGE];
        let mut call = Call::new(1, 40, caps);
        let length = dispatch(&mut Example::default(), &mut call, &request, &mut reply);
        prop_assert!(length > 0 && length <= MAX_MESSAGE);
    }

    #[test]
    fn no_reply_brings_a_client_down(reply in proptest::collection::vec(any::<u8>(), 0..MAX_MESSAGE)) {
        let _ = wire::decode_owned::<Result<Page<ServerInfo>, Failure>>(&reply);
        let _ = wire::decode_owned::<Result<Page<CapabilityInfo>, Failure>>(&reply);
        let _ = wire::decode_owned::<Result<ConsoleChunk, Failure>>(&reply);
        let chunk = wire::decode_owned::<Result<LogChunk, Failure>>(&reply);
        // A length that is announced and not there must not be believed: what was decoded is no longer than what came.
        if let Some(Ok(chunk)) = chunk {
            prop_assert!(chunk.lines.len() <= reply.len());
        }
    }

    #[test]
    fn an_announced_length_is_not_believed(count in 4000u64..u64::MAX / 2) {
        // A list of `count` items of which none is there.
        let mut reply = vec![0, 0, 0];
        let mut count = count;
        while count >= 0x80 {
            reply.push(count as u8 | 0x80);
            count >>= 7;
        }
        reply.push(count as u8);
        prop_assert_eq!(wire::decode_owned::<Result<LogChunk, Failure>>(&reply), None);
    }
}
