//! How much of the host's memory a screen takes: of its video RAM as much as its guest uses.

use super::{
    Case,
    management::{Client, PASSWORD, boot_served},
    screen,
};
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    linux::succeeds,
    machine::Disk,
    medium::{self, Medium},
    shell::Host,
    systems::{Guest, System},
    viewer::Viewer,
    web_socket::WebSocket,
};
use regex::Regex;
use std::path::PathBuf;

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "screen/memory",
    about: "a machine with a screen takes 8 MiB beyond its RAM at most, with Linux' console in 1024 by 768 pixels of 32 bits, and less with text; all of the picture is there, after a VMX's end and a suspension too",
    minutes: 6,
    bochs: None,
    run: memory,
}];

/// Most KiB that a machine takes beyond its RAM.
const MOST: u64 = 8 << 10;
/// Pixels of the screen.
const PIXELS: usize = 1024 * 768;

/// KiB that a machine takes beyond its RAM.
pub(crate) fn overhead(host: &mut Host, name: &str) -> Result<u64> {
    let info = host.neat_command(&format!("vm info {name}"))?;
    let line = Regex::new(r"overhead +([0-9.]+) ([KM])iB").map_err(|e| Failure::new(e.to_string()))?;
    let found = line.captures(&info);
    let found = found.ok_or_else(|| Failure::new(format!("`vm info` does not say what it takes:\n{info}")))?;
    let number: f64 = found[1].parse().map_err(|e| Failure::new(format!("{}: {e}", &found[1])))?;
    Ok(if &found[2] == "M" { number * 1024.0 } else { number } as u64)
}

/// Has every byte of the screen be this one, as octal digits.
fn paint(host: &mut Host, byte: &str) -> Result<()> {
    let line = format!("head -c {} /dev/zero | tr '\\000' '\\{byte}' > /dev/fb0", 4 * PIXELS);
    succeeds(host.serial(), &line)?;
    Ok(())
}

/// Adds two machines to a system: `picture`, which shows text, and `pc`, in which SeaBIOS boots Linux from a medium with its console in graphics. The file is the medium. The inner error: what is missing for it.
pub(crate) fn with_screens(context: &Context, system: System) -> Result<Result<(System, PathBuf), String>> {
    let text = context.guest_file("screen-guest");
    let medium = medium::make(
        context,
        &Medium {
            graphics: Some("1024x768x32"),
            ..Medium::new("generic")
        },
    )?;
    let (text, medium) = match (text, medium) {
        (Ok(text), Ok(medium)) => (text, medium),
        (Err(missing), _) | (_, Err(missing)) => return Ok(Err(missing)),
    };
    let pc = Guest {
        memory: 256,
        display: true,
        cdrom: Some("medium"),
        ..Guest::other("pc", "bios", "")
    };
    let system = system.file("screen-guest", &text).file("medium", &medium);
    Ok(Ok((system.guest(&screen::guest()).guest(&pc), medium)))
}

/// Starts the machine with text and waits until it shows it.
pub(crate) fn show_text(host: &mut Host) -> Result<()> {
    host.neat_command("vm start picture")?;
    host.poll_command("vm screen picture", |text| text.contains(screen::HELLO))?;
    Ok(())
}

/// Starts the machine with graphics and waits until all of its picture is white.
pub(crate) fn show_graphics(host: &mut Host) -> Result<()> {
    host.neat_command("vm start pc")?;
    host.console("pc", "Type commands")?;
    succeeds(host.serial(), "dmesg -n 1")?;
    paint(host, "377")?;
    host.leave_console()?;
    let first = host.neat_command("vm screen pc")?;
    ensure!(
        first.starts_with("32 bits, 1024 x 768 pixels"),
        "the screen is '{}'",
        screen::first(&first)
    );
    Ok(())
}

fn memory(context: &Context) -> Result<Outcome> {
    let system = System::delivered(&context.environment.root)?.without_machines();
    let (system, medium) = match with_screens(context, system)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 512 << 20)?;
    let store = scratch.path().display().to_string();
    context.environment.images.datastore(&["create", &store, "--label", "main"])?;
    let (mut host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::usual(context.emulator, scratch.path(), "STORE"));
    })?;
    show_text(&mut host)?;
    let in_text = overhead(&mut host, "picture")?;
    host.neat_command("vm stop picture")?;
    let before = host.free_pages()?;
    show_graphics(&mut host)?;
    let in_graphics = overhead(&mut host, "pc")?;
    ensure!(
        in_text < in_graphics && in_graphics <= MOST,
        "{in_text} KiB are taken with text, {in_graphics} with graphics"
    );
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let vms = client.get("/api/v1/vms", &[])?;
    let id = vms["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|vm| vm["config"]["name"] == "pc");
    let vm = format!("/api/v1/vms/{}", id.and_then(|vm| vm["id"].as_str()).unwrap_or_default());
    let open = || -> Result<Viewer> {
        let answer = client.get(&format!("{vm}/screen"), &["--request", "POST"])?;
        let ticket = answer["ticket"].as_str().unwrap_or_default();
        Viewer::open(WebSocket::connect(port, &format!("/api/v1/ws/screen?ticket={ticket}"))?)
    };
    // The cursor blinks somewhere.
    let is_all = |viewer: &Viewer, colour: u32| {
        viewer.pixels.len() == PIXELS && viewer.pixels.iter().filter(|pixel| **pixel != colour).count() <= 16 * 32
    };
    let mut viewer = open()?;
    viewer.until(|viewer| is_all(viewer, 0x00ff_ffff))?;
    drop(viewer);
    // Another VMX finds all pieces.
    host.neat_command("kill vmx.pc")?;
    host.wait_until_runs("vmx.pc")?;
    open()?.until(|viewer| is_all(viewer, 0x00ff_ffff))?;
    host.neat_command("vm suspend pc main")?;
    host.poll_command("vm list", |list| list.contains("suspended"))?;
    let suspended = host.free_pages()?;
    ensure!(
        suspended.abs_diff(before) < 256,
        "{before} pages were free before the machine ran and {suspended} are when it is suspended"
    );
    host.neat_command("vm resume pc")?;
    host.poll_command("vm screen pc", |text| text.starts_with("32 bits, 1024 x 768 pixels"))?;
    let mut viewer = open()?;
    viewer.until(|viewer| is_all(viewer, 0x00ff_ffff))?;
    let again = overhead(&mut host, "pc")?;
    ensure!(
        again <= in_graphics,
        "{in_graphics} KiB were taken before the machine was suspended, {again} after"
    );
    host.start_command("vm console pc")?;
    paint(&mut host, "125")?;
    viewer.until(|viewer| is_all(viewer, 0x0055_5555))?;
    // As people see it.
    succeeds(host.serial(), "clear > /dev/tty0; dmesg | tail -n 40 > /dev/tty0")?;
    host.leave_console()?;
    let picture = context.environment.logs.join("screen-memory.png");
    client.get(&format!("{vm}/screenshot"), &["--output", &picture.display().to_string()])?;
    let bytes = std::fs::read(&picture)?;
    ensure!(
        bytes.starts_with(b"\x89PNG") && bytes[16..24] == [0, 0, 4, 0, 0, 0, 3, 0],
        "the screenshot is no picture of 1024 by 768"
    );
    std::fs::remove_file(medium)?;
    Ok(Outcome::Passed)
}
