//! Connections spoken to by real clients: curl and OpenSSL; and by clients that mean harm.

mod machine;
mod scan;
mod socket;

use machine::{Machine, listen};
use std::{
    future::poll_fn,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    rc::Rc,
    sync::mpsc,
    thread,
    time::Duration,
};
use tessera_crypto::Identity;
use tessera_hostd::http::{Body, Message, Response, Service};

/// Answers a body with itself; `/socket` is a WebSocket that does so too.
fn echo() -> Service {
    Rc::new(|mut request| {
        Box::pin(async move {
            if request.path == "/socket" {
                let mut response = Response::new(101);
                response.upgrade = Some(Box::new(|mut socket| {
                    Box::pin(async move {
                        while let Some(message) = poll_fn(|context| socket.poll_receive(context)).await {
                            let end = message == Message::Text("end".into());
                            if end || !poll_fn(|context| socket.poll_ready(context)).await {
                                break;
                            }
                            socket.send(message);
                        }
                    })
                }));
                return response;
            }
            if request.path == "/ignore" {
                return Response::new(204);
            }
            let body = std::mem::replace(&mut request.body, Body::Empty);
            if request.path == "/count" {
                let (mut count, mut buffer) = (0, [0; 1000]);
                if let Body::Stream(mut source) = body {
                    loop {
                        match poll_fn(|context| source.poll_read(context, &mut buffer)).await {
                            Ok(0) => break,
                            Ok(more) => count += more,
                            Err(_) => return Response::new(400),
                        }
                    }
                }
                return Response::new(200).with_body("text/plain", Body::Bytes(count.to_string().into_bytes()));
            }
            Response::new(200).with_body("application/octet-stream", body)
        })
    })
}

/// Serves on a thread that lasts as long as the test.
fn server(tls: bool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, wait) = mpsc::channel();
    thread::spawn(move || {
        let machine = Machine::new().unwrap();
        let localhost = [Ipv4Addr::LOCALHOST.into()];
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let identity = Identity::self_signed("tessera", &["localhost"], &localhost, now, 397).unwrap();
        let config = tls.then(|| tessera_crypto::server_config(&identity).unwrap());
        listen(&machine, listener, config, echo()).unwrap();
        ready.send(()).unwrap();
        machine.run()
    });
    wait.recv().unwrap();
    address
}

fn curl(address: SocketAddr, path: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "60"])
        .args(arguments)
        .arg(format!("https://{address}{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "curl: {}", output.status);
    output.stdout
}

#[test]
fn curl_uploads_and_gets_the_same_back() {
    let address = server(true);
    let data: Vec<u8> = (0..1_500_000u32).map(|at| ((at * 7) >> 3) as u8).collect();
    // curl sends chunks, since it does not know the length; and the answer has the framing of the request.
    assert!(curl(address, "/", &["-T", "-"], &data) == data, "chunked");
    assert!(
        curl(address, "/", &["--data-binary", "@-"], &data) == data,
        "with a length, after 100 Continue"
    );
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        for curve in ["X25519", "P-256"] {
            let choice = ["--tls13-ciphers", suite, "--curves", curve, "--data-binary", "@-"];
            assert_eq!(curl(address, "/", &choice, b"hello"), b"hello", "{suite} {curve}");
        }
    }
    // Whatever the client names first, the server takes what costs it least.
    let quick = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    let (taken, first) = if quick {
        ("TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")
    } else {
        ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
    };
    let verbose = Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--verbose",
            "--tls13-ciphers",
            &format!("{first}:{taken}"),
        ])
        .arg(format!("https://{address}/"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&verbose.stderr);
    assert!(told.contains(&format!("TLSv1.3 / {taken}")), "{told}");
    let head = String::from_utf8(curl(address, "/", &["--head"], b"")).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nDate: ") && head.contains("Content-Length: 0"),
        "{head}"
    );
}

fn s_client(address: SocketAddr, arguments: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-alpn", "http/1.1"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn openssl_agrees_on_tls_1_3_and_on_nothing_older() {
    let address = server(true);
    let said = s_client(address, &["-tls1_3"], b"Q\n");
    assert!(said.contains("TLSv1.3") && said.contains("ALPN protocol: http/1.1"), "{said}");
    let said = s_client(address, &["-tls1_2"], b"Q\n");
    assert!(said.contains("alert protocol version"), "{said}");
}

fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_follow_each_other_and_nothing_is_smuggled() {
    let address = server(false);
    let two = exchange(
        address,
        b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(two.matches("HTTP/1.1 200 OK").count(), 2, "{two}");
    assert!(two.contains("\r\n\r\n3HTTP/1.1"), "{two}");
    // A body that nobody read is not taken for a request.
    let one = exchange(
        address,
        b"POST /ignore HTTP/1.1\r\nHost: x\r\nContent-Length: 41\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n",
    );
    assert!(one.starts_with("HTTP/1.1 204") && one.matches("HTTP/1.1").count() == 1, "{one}");
    assert!(one.contains("Connection: close"), "{one}");
    // Bodies of a wrong size.
    assert!(
        exchange(
            address,
            b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        )
        .starts_with("HTTP/1.1 400")
    );
    assert!(exchange(address, b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 501"));
}

#[test]
fn a_web_socket_echoes_and_ends() {
    let address = server(false);
    let mut request = b"GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_vec();
    // Masked with zeroes: "hi", a ping, "end".
    request.extend_from_slice(b"\x81\x82\0\0\0\0hi\x89\x81\0\0\0\0p\x81\x83\0\0\0\0end");
    let said = exchange(address, &request);
    assert!(
        said.starts_with("HTTP/1.1 101") && said.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        "{said}"
    );
    let frames = said.split_once("\r\n\r\n").unwrap().1;
    assert!(frames.contains("\x02hi") && frames.contains("\x01p"), "{frames:?}");
    let wrong = String::from_utf8(request).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    assert!(exchange(address, wrong.replace("Version: 13", "Version: 8").as_bytes()).starts_with("HTTP/1.1 426"));
}

#[test]
fn who_is_slow_is_answered_and_others_are_served_meanwhile() {
    let address = server(true);
    let plain = server(false);
    let mut held = Vec::new();
    for number in 0..300 {
        let mut socket = TcpStream::connect(address).unwrap();
        if number % 2 == 0 {
            // The start of a ClientHello that never goes on.
            socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
        }
        held.push(socket);
    }
    assert_eq!(curl(address, "/", &["--data-binary", "@-"], b"meanwhile"), b"meanwhile");
    let slow = exchange(plain, b"GET / HTTP/1.1\r\nHost: x\r\n");
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
    // They are gone by now.
    for mut socket in held {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        let ended = socket.read_to_end(&mut rest);
        assert!(
            !matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "{ended:?}"
        );
    }
}

#[test]
fn garbage_in_tls_ends_its_connection_alone() {
    let address = server(true);
    let mut state = 1u64;
    for _ in 0..200 {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = vec![0x16, 3, 1, 0, 200];
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((state >> 56) as u8);
        }
        // A handshake message that could be a ClientHello.
        bytes[5..9].copy_from_slice(&[1, 0, 0, 196]);
        let _ = socket.write_all(&bytes);
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[0] == 0x15, "an alert: {rest:?}");
    }
    assert_eq!(curl(address, "/", &["--data-binary", "@-"], b"still there"), b"still there");
}
