//! The pointer of a guest's screen: a USB tablet where a driver asks it, a PS/2 mouse where none does.

use super::{
    Case,
    management::{Client, PASSWORD, boot_served, datastore, power},
    management_state::items,
};
use crate::{
    Context, Failure, Outcome, Result, disks::Scratch, ensure, linux::succeeds, machine::Disk, shell::Host, systems::System,
    viewer::Viewer, web_socket::WebSocket,
};
use regex::Regex;
use serde_json::json;

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "screen/tablet",
    about: "Debian's kernel finds the tablet, and reads where a viewer points, before and after it was suspended; when nobody reads the tablet, the mouse moves",
    minutes: 3,
    bochs: Some(6),
    run: tablet,
}];

/// What the guest's shell says when it shows its console again.
const CONSOLE: &str = "returns to the shell.";

/// A viewer of the machine.
fn viewer(client: &Client, vm: &str, port: u16) -> Result<Viewer> {
    let answer = client.get(&format!("{vm}/screen"), &["--request", "POST"])?;
    let ticket = answer["ticket"].as_str().unwrap_or_default();
    Viewer::open(WebSocket::connect(port, &format!("/api/v1/ws/screen?ticket={ticket}"))?)
}

/// Has the guest show what the device of this name tells, each event in a line of 16-bit words: eight for the time, type, code, value.
fn read_events(host: &mut Host, name: &str) -> Result<String> {
    let about = format!("awk -v RS= '/{name}/' /proc/bus/input/devices");
    let device = succeeds(
        host.serial(),
        &format!("until grep -q '{name}' /proc/bus/input/devices; do sleep 0.2; done; {about}"),
    )?;
    let node = Regex::new("H: Handlers=.*(event[0-9]+)").map_err(|e| Failure::new(e.to_string()))?;
    let node = node.captures(&device).map(|found| found[1].to_owned());
    let node = node.ok_or_else(|| Failure::new(format!("there is no event device in {device}")))?;
    // Opened here: what is told from now on is read.
    let line = format!("exec 3</dev/input/{node}; hexdump -v -e '12/2 \"%04x \" \"\\n\"' <&3 & exec 3<&-; reader=$!");
    succeeds(host.serial(), &line)?;
    Ok(device)
}

/// Waits until the guest shows an event of this type, code and value.
fn event(host: &mut Host, kind: u16, code: u16, value: i32) -> Result<()> {
    let (low, high) = (value as u16, (value >> 16) as u16);
    host.serial().expect(&format!(" {kind:04x} {code:04x} {low:04x} {high:04x}"))?;
    Ok(())
}

/// Points, and waits until the guest has read the same place.
fn point_and_read(host: &mut Host, viewer: &mut Viewer, x: u16, y: u16) -> Result<()> {
    let (width, height) = (viewer.width, viewer.height);
    viewer.point(x, y)?;
    for (axis, at, of) in [(0, x, width), (1, y, height)] {
        event(host, 3, axis, (usize::from(at) * 0x7fff / (of - 1)) as i32)?;
    }
    Ok(())
}

fn tablet(context: &Context) -> Result<Outcome> {
    let files = ["generic/vmlinuz", "initramfs-pc.cpio"].map(|file| context.guest_file(file));
    let [Ok(kernel), Ok(initramfs)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .file("generic-kernel", kernel)
        .file("pc-initramfs", initramfs);
    let scratch = Scratch::empty(&context.environment.logs, context.name, 512 << 20)?;
    let (mut host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::usual(context.emulator, scratch.path(), "STORE"));
    })?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let store = datastore(context, &client)?;
    let boot = json!({
        "firmware": "direct", "kernel": "[image] generic-kernel", "initramfs": "[image] pc-initramfs", "commandLine": "console=ttyS0 quiet",
    });
    let machine =
        json!({ "name": "pc", "vcpus": 1, "memory": 256u64 << 20, "boot": boot, "disks": [{ "datastore": store, "size": 16u64 << 20 }] });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let vms = items(&client, "vms")?;
    let id = vms.first().and_then(|vm| vm["id"].as_str()).unwrap_or_default();
    let vm = format!("/api/v1/vms/{id}");
    power(&client, &vm, "start")?;
    host.console("pc", "Type commands")?;
    let device = read_events(&mut host, "USB Tablet")?;
    for wanted in ["Vendor=0627 Product=0001", "ABS=3", "KEY=70000"] {
        ensure!(device.contains(wanted), "{wanted} is not in what the guest says of it:\n{device}");
    }
    let mut one = viewer(&client, &vm, port)?;
    point_and_read(&mut host, &mut one, 180, 300)?;
    one.point_with(1, 180, 300)?;
    event(&mut host, 1, 0x110, 1)?;
    one.point_with(4, 180, 300)?;
    event(&mut host, 1, 0x110, 0)?;
    event(&mut host, 1, 0x111, 1)?;
    one.point_with(8, 180, 300)?;
    event(&mut host, 1, 0x111, 0)?;
    event(&mut host, 2, 8, 1)?;
    // A dragged pointer tells each place.
    for step in 1..20 {
        point_and_read(&mut host, &mut one, 180 + 20 * step, 300 - 10 * step)?;
    }
    let (right, bottom) = (one.width as u16 - 1, one.height as u16 - 1);
    point_and_read(&mut host, &mut one, right, bottom)?;
    drop(one);
    host.leave_console()?;
    power(&client, &vm, "suspend")?;
    power(&client, &vm, "resume")?;
    host.console("pc", CONSOLE)?;
    let mut two = viewer(&client, &vm, port)?;
    point_and_read(&mut host, &mut two, 7, 9)?;
    // Nobody reads the tablet any more.
    succeeds(host.serial(), "kill $reader; wait")?;
    read_events(&mut host, "PS.2.*Mouse")?;
    two.point(17, 5)?;
    event(&mut host, 2, 0, 10)?;
    event(&mut host, 2, 1, -4)?;
    Ok(Outcome::Passed)
}
