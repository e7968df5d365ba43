//! A guest's screen, keyboard and mouse: through the debug shell, and by viewers over HTTPS.

use super::{
    Case,
    management::{Client, PASSWORD, boot_served},
    screen_memory,
};
use crate::{
    Context, Outcome, Result, ensure,
    systems::{Guest, System},
    viewer::Viewer,
    web_socket::WebSocket,
};
use serde_json::json;

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "screen/shell",
        about: "a guest's text and graphics are on its screen, what is typed arrives, also after its VMX was killed",
        minutes: 2,
        bochs: Some(3),
        run: shell,
    },
    Case {
        name: "screen/viewers",
        about: "two viewers with tickets see a guest's text and graphics, type and move; a ticket is good once; a killed VMX costs a blink",
        minutes: 4,
        bochs: Some(3),
        run: viewers,
    },
];

/// What the guest shows first.
pub(super) const HELLO: &str = "This is the screen of a guest";

pub(super) fn guest() -> Guest {
    Guest {
        display: true,
        ..Guest::other("picture", "screen-guest", "")
    }
}

/// The line that `vm screen` begins with.
pub(super) fn first(output: &str) -> &str {
    output.lines().next().unwrap_or("")
}

fn shell(context: &Context) -> Result<Outcome> {
    let path = match context.guest_file("screen-guest") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let system: System = context.product()?.without_guests().file("screen-guest", &path).guest(&guest());
    let mut host = context.boot(&system.into(), |_| ())?;
    host.neat_command("vm start picture")?;
    let output = host.poll_command("vm screen picture", |text| text.contains(HELLO))?;
    ensure!(
        first(&output).starts_with("text 80x25, 720 x 400 pixels"),
        "the screen is '{}'",
        first(&output)
    );
    let taken = screen_memory::overhead(&mut host, "picture")?;
    ensure!(taken <= 6 << 10, "a machine with text on its screen takes {taken} KiB");
    host.command("vm type picture hello [from] the shell;")?;
    host.poll_command("vm screen picture", |text| text.contains("hello [from] the shell;"))?;
    host.neat_command("kill vmx.picture")?;
    host.wait_until_runs("vmx.picture")?;
    let output = host.neat_command("vm screen picture")?;
    ensure!(output.contains(HELLO), "another VMX does not see the screen: {output}");
    host.command("vm type picture a")?;
    host.poll_command("vm screen picture", |text| text.contains("the shell;a"))?;
    // Into graphics, where each key adds a square.
    host.command("vm type picture g")?;
    let wanted = "32 bits, 640 x 480 pixels";
    host.poll_command("vm screen picture", |text| text.starts_with(wanted))?;
    let mut last = String::new();
    // The picture is drawn when it does not change any more.
    let drawn = host.poll_command("vm screen picture", |text| std::mem::replace(&mut last, text.to_owned()) == text)?;
    host.command("vm type picture x")?;
    host.poll_command("vm screen picture", |text| first(text) != first(&drawn))?;
    host.neat_command("vm reset picture")?;
    host.poll_command("vm screen picture", |text| text.contains(HELLO))?;
    Ok(Outcome::Passed)
}

/// Whether the picture is the guest's pattern.
fn is_pattern(viewer: &Viewer) -> bool {
    let expected = |x: usize, y: usize| (x / 4 % 256) << 16 | (y / 2 % 256) << 8 | if (x ^ y) & 32 == 0 { 0 } else { 0xff };
    (viewer.width, viewer.height) == (640, 480)
        && (0..460)
            .step_by(7)
            .all(|y| (0..640).step_by(11).all(|x| viewer.pixel(x, y) as usize == expected(x, y)))
}

fn viewers(context: &Context) -> Result<Outcome> {
    let path = match context.guest_file("screen-guest") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .file("screen-guest", &path);
    let (mut host, port) = boot_served(context, system, |_| ())?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let machine = json!({
        "name": "picture", "vcpus": 1, "memory": 64u64 << 20,
        "boot": { "firmware": "direct", "kernel": "[image] screen-guest" },
    });
    client.done(&client.post("/api/v1/vms", &machine)?)?;
    let vms = client.get("/api/v1/vms", &[])?;
    let vm = format!("/api/v1/vms/{}", vms["items"][0]["id"].as_str().unwrap_or_default());
    client.done(&client.get(&format!("{vm}/start"), &["--request", "POST"])?)?;
    let ticket = || -> Result<String> {
        let answer = client.get(&format!("{vm}/screen"), &["--request", "POST"])?;
        Ok(format!(
            "/api/v1/ws/screen?ticket={}",
            answer["ticket"].as_str().unwrap_or_default()
        ))
    };
    ensure!(
        WebSocket::connect(port, "/api/v1/ws/screen?ticket=00").is_err(),
        "no ticket lets somebody in"
    );
    let path = ticket()?;
    let mut one = Viewer::open(WebSocket::connect(port, &path)?)?;
    ensure!(WebSocket::connect(port, &path).is_err(), "a ticket lets two in");
    let mut two = Viewer::open(WebSocket::connect(port, &ticket()?)?)?;
    for viewer in [&mut one, &mut two] {
        // The line is white on blue: something of both is in its first cell.
        viewer.until(|view| view.width == 720 && view.pixels[..9 * 720].contains(&0x0000_00aa))?;
    }
    let before = one.pixels.clone();
    one.press('k')?;
    two.until(|view| view.pixels[33 * 720..47 * 720] != before[33 * 720..47 * 720])?;
    host.poll_command("vm screen picture", |text| text.lines().nth(3).is_some_and(|line| line == "k"))?;
    one.point(100, 100)?;
    one.point(105, 98)?;
    host.poll_command("vm screen picture", |text| text.contains("0005 0002 0000"))?;
    two.press('g')?;
    for viewer in [&mut one, &mut two] {
        viewer.until(is_pattern)?;
    }
    let picture = context.environment.logs.join("screen-viewers.png");
    let arguments = ["--output", &picture.display().to_string()];
    client.get(&format!("{vm}/screenshot?divisor=2"), &arguments)?;
    let bytes = std::fs::read(&picture)?;
    ensure!(
        bytes.starts_with(b"\x89PNG") && bytes[16..24] == [0, 0, 1, 0x40, 0, 0, 0, 0xf0],
        "the screenshot is no picture of 320 by 240"
    );
    host.neat_command("kill vmx.picture")?;
    ensure!(one.ends()? && two.ends()?, "a view outlives its VMX");
    let mut again = Viewer::open(WebSocket::connect(port, &ticket()?)?)?;
    again.until(is_pattern)?;
    Ok(Outcome::Passed)
}
