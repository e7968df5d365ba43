//! Load for guests' network cards, the same program in Tessera's guests and in those of the peer; linked statically, because their RAM disks have no libraries.
//!
//! `netload serve` answers on a TCP port; the first byte of a connection says what it is for. `netload stream`, `netload ask` and `netload received` are its clients. `netload flood` sends UDP to anybody until it is ended.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
    time::Duration,
};

/// Where `serve` listens.
const PORT: u16 = 5001;
/// Bytes of a write, and of a read: as `iperf3` has them.
const BLOCK: usize = 128 << 10;
/// What a connection is for.
const STREAM: u8 = b's';
const ASK: u8 = b'a';
const RECEIVED: u8 = b'r';
/// Numbers of errors (errno(3)).
const ENOBUFS: i32 = 105;
const ECONNREFUSED: i32 = 111;
const USAGE: &str = "usage: netload serve | stream HOST BYTES | ask HOST COUNT | received HOST | flood HOST BYTES";

fn serve() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    for client in listener.incoming() {
        let client = client?;
        thread::spawn(move || {
            if let Err(error) = answer(client) {
                eprintln!("netload: {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> io::Result<()> {
    let mut purpose = [0];
    client.read_exact(&mut purpose)?;
    match purpose[0] {
        STREAM => {
            let mut block = vec![0; BLOCK];
            let mut total = 0_u64;
            loop {
                match client.read(&mut block)? {
                    0 => break,
                    count => total += count as u64,
                }
            }
            client.write_all(&total.to_le_bytes())
        }
        ASK => {
            client.set_nodelay(true)?;
            let mut byte = [0];
            while client.read(&mut byte)? == 1 {
                client.write_all(&byte)?;
            }
            Ok(())
        }
        RECEIVED => {
            let text = fs::read_to_string("/sys/class/net/eth0/statistics/rx_packets")?;
            let count: u64 = text.trim().parse().map_err(io::Error::other)?;
            client.write_all(&count.to_le_bytes())
        }
        _ => Err(io::Error::other("a connection for nothing that is known")),
    }
}

fn connect(host: &str, purpose: u8) -> io::Result<TcpStream> {
    // A port of its own may be named, for a program outside that listens elsewhere.
    let address = if host.contains(':') {
        host.into()
    } else {
        format!("{host}:{PORT}")
    };
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[purpose])?;
    Ok(stream)
}

fn number(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn stream(host: &str, bytes: u64) -> io::Result<()> {
    let mut stream = connect(host, STREAM)?;
    let block = vec![0x5a; BLOCK];
    let mut left = bytes;
    while left > 0 {
        let here = left.min(BLOCK as u64);
        stream.write_all(&block[..here as usize])?;
        left -= here;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let got = number(&mut stream)?;
    if got != bytes {
        return Err(io::Error::other(format!("{bytes} bytes were sent, {got} arrived")));
    }
    Ok(())
}

fn ask(host: &str, count: u64) -> io::Result<()> {
    let mut stream = connect(host, ASK)?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    for _ in 0..count {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}

/// Sends datagrams of so many bytes to the port for what is thrown away (RFC 863), as fast as they are taken.
fn flood(host: &str, bytes: usize) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((host, 9))?;
    let datagram = vec![0x5a; bytes];
    loop {
        match socket.send(&datagram) {
            // Nobody listens there, and the card's queue may be full.
            Err(error) if !matches!(error.raw_os_error(), Some(ECONNREFUSED | ENOBUFS)) => return Err(error),
            _ => {}
        }
    }
}

/// QEMU 7.2's AMD-V forgets at an entry that STI holds interrupts back for one more instruction. A guest that was just about to halt then takes its interrupt before the HLT and sleeps until the
/// next one, however much there is to do. So one comes soon.
fn wake_now_and_then() {
    thread::spawn(|| {
        loop {
            thread::sleep(Duration::from_millis(20));
        }
    });
}

fn main() -> ExitCode {
    wake_now_and_then();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let result = match words[..] {
        ["serve"] => serve(),
        ["stream", host, bytes] => count(bytes).and_then(|bytes| stream(host, bytes)),
        ["ask", host, number] => count(number).and_then(|number| ask(host, number)),
        ["flood", host, bytes] => count(bytes).and_then(|bytes| flood(host, bytes as usize)),
        ["received", host] => connect(host, RECEIVED)
            .and_then(|mut stream| number(&mut stream))
            .map(|number| println!("received {number} packets")),
        _ => Err(io::Error::other(USAGE)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netload: {error}");
            ExitCode::FAILURE
        }
    }
}
