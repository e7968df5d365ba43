//! TLS as scanners and fuzzers see it.

use crate::{curl, server};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

/// What OpenSSL's client says first.
fn client_hello() -> Vec<u8> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &listener.local_addr().unwrap().to_string(), "-tls1_3"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let (mut socket, _) = listener.accept().unwrap();
    let mut head = [0; 5];
    socket.read_exact(&mut head).unwrap();
    let mut hello = head.to_vec();
    hello.resize(5 + usize::from(u16::from_be_bytes([head[3], head[4]])), 0);
    socket.read_exact(&mut hello[5..]).unwrap();
    drop(socket);
    client.wait().unwrap();
    hello
}

#[test]
fn a_changed_client_hello_ends_its_connection_alone() {
    let (address, hello) = (server(true), client_hello());
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut answered = 0;
    for round in 0..300 {
        let mut bytes = hello.clone();
        for _ in 0..round % 5 {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = random(256) as u8,
                _ => bytes.truncate(at.max(6)),
            }
        }
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(
            rest.is_empty() || [0x15, 0x16].contains(&rest[0]),
            "neither alert nor handshake: {rest:?}"
        );
        answered += usize::from(rest.first() == Some(&0x16));
    }
    assert!(answered >= 60, "{answered} of the unchanged ones were answered");
    assert_eq!(curl(address, "/", &["--data-binary", "@-"], b"still there"), b"still there");
}

/// Takes minutes: `cargo test -p tessera-hostd --test https -- --ignored testssl`.
#[test]
#[ignore = "takes minutes"]
fn testssl_finds_nothing_at_or_above_medium() {
    let report = std::env::temp_dir().join(format!("testssl-{}.json", std::process::id()));
    let _ = std::fs::remove_file(&report);
    let scan = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--severity", "MEDIUM", "--jsonfile"])
        .args([report.as_os_str(), server(true).to_string().as_ref()])
        .output()
        .expect("testssl.sh is installed");
    let output = String::from_utf8_lossy(&scan.stdout);
    assert!(output.contains("TLS 1.3"), "testssl did not come far: {output}");
    let found = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(&report).unwrap();
    // Nobody signs for a certificate that the host makes itself, so nobody can revoke it. Headers of pages are not those of this test's service.
    let known = [
        "cert_chain_of_trust",
        "cert_trust",
        "cert_revocation",
        "security_headers",
        "overall_grade",
    ];
    let wrong: Vec<&str> = found
        .split('{')
        .skip(1)
        .filter(|finding| !known.iter().any(|name| finding.contains(name)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
