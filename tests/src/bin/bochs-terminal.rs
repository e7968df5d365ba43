//! Boots an image in Bochs with its serial port on this terminal: what `make run MACHINE=bochs` runs.
#![forbid(unsafe_code)]

use clap::Parser;
use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{self, Sender},
    thread,
};
use tessera_tests::{
    Failure, Result,
    escape::{Escape, Typed},
    machine::{
        Config, Emulator,
        bochs::{self, Clock, Connected},
    },
};

/// Boots an image in Bochs. Ctrl-A, then x quits; Ctrl-A twice sends one.
#[derive(Parser)]
struct Arguments {
    /// Disk image or ISO; it is not written to.
    image: PathBuf,
    /// Processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// RAM: MiB, or with a unit (512M, 2G).
    #[arg(long, default_value = "2G", value_parser = mebibytes)]
    memory: u32,
    /// Folder for the emulator's logs.
    #[arg(long, default_value = "build/run-logs")]
    logs: PathBuf,
}

/// Reads an amount of memory as QEMU writes it.
fn mebibytes(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let number: u32 = digits
        .parse()
        .map_err(|_| format!("'{text}' is no amount of memory; write it as 512M or 2G"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is too much memory"))
}

/// What ends a session.
enum End {
    Quit,
    Machine,
}

/// The terminal in raw mode, so that every key reaches the machine; as it was before when this value goes.
struct RawTerminal {
    settings: Option<String>,
}

impl RawTerminal {
    /// Does nothing when standard input is no terminal.
    fn enter() -> Self {
        let settings = stty(&["-g"]).filter(|_| stty(&["raw", "-echo"]).is_some());
        Self { settings }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            stty(&[settings]);
        }
    }
}

/// Runs `stty` on this terminal and returns what it printed; `None` when it failed.
fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(arguments)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Copies what the machine sends to the terminal until it ends.
fn show(mut serial: TcpStream, end: &Sender<End>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = serial.read(&mut buffer) {
        let mut terminal = io::stdout().lock();
        if terminal.write_all(&buffer[..count]).and_then(|()| terminal.flush()).is_err() {
            break;
        }
    }
    // Nobody listens any more when the session has ended otherwise.
    let _ = end.send(End::Machine);
}

/// Copies what is typed to the machine until somebody quits.
fn type_in(mut serial: TcpStream, end: &Sender<End>) {
    let mut escape = Escape::default();
    let mut buffer = [0; 256];
    // At the end of its input the machine goes on, as it does when nobody types.
    while let Ok(count @ 1..) = io::stdin().lock().read(&mut buffer) {
        let Typed { bytes, quit } = escape.push(&buffer[..count]);
        if quit {
            let _ = end.send(End::Quit);
            return;
        }
        if serial.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn session(arguments: &Arguments) -> Result<()> {
    let mut config = Config::new("run", Emulator::Bochs, &arguments.image);
    (config.cpus, config.memory, config.restarts) = (arguments.cpus, arguments.memory, true);
    if !arguments.image.exists() {
        return Err(Failure::new(format!(
            "{} does not exist: run `make image`",
            arguments.image.display()
        )));
    }
    fs::create_dir_all(&arguments.logs).map_err(|e| Failure::new(format!("cannot make {}: {e}", arguments.logs.display())))?;
    let Connected { process, serial } = bochs::connect(&config, Clock::Host, &arguments.logs)?;
    let [serial] = &serial[..] else {
        return Err(Failure::new("Bochs has no serial port"));
    };
    let (sender, ends) = mpsc::channel();
    let terminal = RawTerminal::enter();
    let (output, input, also) = (serial.try_clone()?, serial.try_clone()?, sender.clone());
    thread::spawn(move || show(output, &sender));
    thread::spawn(move || type_in(input, &also));
    let end = ends.recv();
    drop(process);
    drop(terminal);
    match end {
        Ok(End::Machine) => println!(
            "\nThe machine has ended; the emulator's log is {}.",
            arguments.logs.join("run.bochs.emulator.log").display()
        ),
        _ => println!(),
    }
    Ok(())
}

fn main() -> ExitCode {
    match session(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bochs-terminal: {failure}");
            ExitCode::FAILURE
        }
    }
}
