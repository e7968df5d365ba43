//! What a viewer of a scrolling text console costs, Tessera's beside the peer's: how many bytes it gets for a picture, and how many instructions the whole machine executes for one beside those that the
//! guest takes to scroll. The guest writes without a pause, so nobody waits, and it does the same with a viewer and without.

use super::{Figure, HOST_MEMORY, machines::figure, peer, storage::touches};
use crate::{
    Context, Failure, Result,
    cases::{
        guest_net::free_port,
        management::{Client, PASSWORD, boot_served},
    },
    ensure,
    initramfs::virtio_card,
    linux::succeeds,
    machine::Machine,
    systems::{Guest, System},
    viewer::{Viewer, Wire, ZRLE},
    web_socket::WebSocket,
};
use std::{
    net::{Ipv4Addr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Measured so often, and the median counts.
const RUNS: usize = 3;
/// RAM of the guest in MiB.
const GUEST_MEMORY: u32 = 128;
/// Lines that the guest writes.
const LINES: u32 = 5_000;
/// Where the peer's QEMU serves its screen.
const PEER_PORT: u16 = 5900;
const COMMAND_LINE: &str = "console=ttyS0 quiet";
/// What the guest says when its shell waits.
const READY: &str = "Type commands";
const RAM_DISK: &str = "initramfs.cpio";
const PATIENCE: Duration = Duration::from_secs(300);

/// Pictures and bytes that a viewer got, which looks as quickly as it can until it is told to end.
#[derive(Default)]
struct Seen {
    pictures: AtomicU64,
    bytes: AtomicU64,
    end: AtomicBool,
}

fn watch<W: Wire>(mut viewer: Viewer<W>, seen: &Seen) {
    // It ends with its connection at the latest.
    while !seen.end.load(Ordering::Relaxed) && viewer.update().is_ok() {
        seen.pictures.fetch_add(1, Ordering::Relaxed);
        seen.bytes.store(viewer.received, Ordering::Relaxed);
    }
}

/// Has the guest scroll while something is done beside it; instructions, and what that gave.
fn scroll<T>(machine: &mut Machine, beside: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    const END: &str = "scrolled";
    let begin = machine.counter()?.when_idle()?;
    machine.counter()?.keep("frames-begin")?;
    machine.serial.wait_at_most(PATIENCE);
    // Its echo does not end the wait.
    machine.serial.send_line(&format!("seq {LINES} > /dev/tty1; echo \"\"{END}"))?;
    let given = beside()?;
    machine.serial.expect(&format!("\n{END}"))?;
    let end = machine.counter()?.instructions()?;
    machine.counter()?.keep("frames-end")?;
    Ok((end.saturating_sub(begin), given))
}

/// Bytes and instructions of a picture.
fn measured<W: Wire + Send + 'static>(side: &str, machine: &mut Machine, open: impl Fn() -> Result<Viewer<W>>) -> Result<Vec<Figure>> {
    let (mut bytes, mut instructions) = (Vec::new(), Vec::new());
    // The first time writes to memory that nobody touched yet.
    scroll(machine, || Ok(()))?;
    for _ in 0..RUNS {
        let (alone, ()) = scroll(machine, || Ok(()))?;
        let seen = Arc::new(Seen::default());
        // Not before: when a counted machine idles, its clock runs away, and whoever looks is taken for gone.
        let (watched, watcher) = scroll(machine, || {
            let (viewer, seen) = (open()?, seen.clone());
            Ok(thread::spawn(move || watch(viewer, &seen)))
        })?;
        let (pictures, received) = (seen.pictures.load(Ordering::Relaxed), seen.bytes.load(Ordering::Relaxed));
        seen.end.store(true, Ordering::Relaxed);
        // What it waits for.
        succeeds(&mut machine.serial, "echo end > /dev/tty1")?;
        ensure!(watcher.join().is_ok() && pictures > 1, "the viewer saw nothing");
        eprintln!("frames.{side}: {pictures} pictures, {received} bytes, {watched} instructions, {alone} without a viewer");
        bytes.push(received / pictures);
        instructions.push(watched.saturating_sub(alone) / pictures);
    }
    Ok(vec![
        figure(&format!("frames.{side}.bytes"), bytes, "bytes"),
        figure(&format!("frames.{side}.instructions"), instructions, "instructions"),
    ])
}

fn of_tessera(context: &Context) -> Result<Vec<Figure>> {
    let mut guest = Guest::debian("pc", "");
    (guest.memory, guest.display, guest.command_line) = (GUEST_MEMORY, true, COMMAND_LINE.into());
    let system = System::delivered(&context.environment.root)?.without_machines().guest(&guest);
    let (mut host, port) = boot_served(context, system, |config| (config.memory, config.counted) = (HOST_MEMORY, true))?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let vms = client.get("/api/v1/vms", &[])?;
    let screen = format!("/api/v1/vms/{}/screen", vms["items"][0]["id"].as_str().unwrap_or_default());
    host.machine.serial.wait_at_most(PATIENCE);
    host.start_command("vm console pc")?;
    host.serial().expect(READY)?;
    measured("tessera", &mut host.machine, || {
        let answer = client.get(&screen, &["--request", "POST"])?;
        let ticket = answer["ticket"].as_str().unwrap_or_default();
        Viewer::open_with(WebSocket::connect(port, &format!("/api/v1/ws/screen?ticket={ticket}"))?, ZRLE)
    })
}

fn of_peer(context: &Context) -> Result<Vec<Figure>> {
    let port = free_port()?;
    let script = format!(
        "ip link set lo up\nip link set eth0 up\nip addr add 10.0.2.15/24 dev eth0\nip route add default via 10.0.2.2\n\
         setsid cttyhack {} -m {GUEST_MEMORY} -vga std -vnc 0.0.0.0:0 -serial stdio -monitor none -kernel /vmlinuz -initrd /{RAM_DISK} -append '{}'",
        peer::QEMU.replace(" -display none", ""),
        COMMAND_LINE
    );
    // QEMU serves no screen without a keyboard's layout.
    let files = [
        ("vgabios-stdvga.bin", "/usr/share/seabios/vgabios-stdvga.bin"),
        ("keymaps/en-us", "/usr/share/qemu/keymaps/en-us"),
    ];
    let files = files.map(|(name, path)| (format!("qemu/share/{name}"), path.into()));
    let host = peer::Host {
        modules: &virtio_card(),
        guest: RAM_DISK,
        files: &files,
        script: &script,
    };
    let mut machine = peer::start(context, &host, |config| {
        let network = format!("user,id=out,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{PEER_PORT}");
        config
            .extra
            .extend(["-netdev".into(), network, "-device".into(), "virtio-net-pci,netdev=out".into()]);
    })?;
    machine.serial.wait_at_most(PATIENCE);
    machine.serial.expect(READY)?;
    measured("peer", &mut machine, || {
        let connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Viewer::open_with(connection, ZRLE)
    })
}

/// Both sides, or the one that is asked for.
pub fn measure(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if touches("frames.peer", prefix) {
        figures.extend(of_peer(context).map_err(|failure| Failure::new(format!("the peer: {failure}")))?);
    }
    if touches("frames.tessera", prefix) {
        figures.extend(of_tessera(context)?);
    }
    Ok(figures)
}
