//! An emulated machine: QEMU with AMD-V emulated, its serial ports in our hands.

use crate::{Failure, Result, serial::Serial};
use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

/// Firmware that starts the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// What the machine is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the test, for the log files.
    pub name: String,
    /// Disk image, ISO (`.iso`), or Linux kernel (for the harness's own tests).
    pub boot: PathBuf,
    /// Firmware.
    pub firmware: Firmware,
    /// Processors.
    pub cpus: u32,
    /// RAM in MiB.
    pub memory: u32,
    /// One instruction is one nanosecond and one TSC tick; all processors run on one host thread.
    pub icount: bool,
    /// A second serial port, on which test servers report.
    pub second_port: bool,
    /// The machine may restart itself; else a restart ends it.
    pub restarts: bool,
    /// More arguments for QEMU.
    pub extra: Vec<String>,
}

impl Config {
    /// Two processors, 2 GiB, BIOS.
    #[must_use]
    pub fn new(name: &str, boot: &Path) -> Self {
        Self {
            name: name.into(),
            boot: boot.into(),
            firmware: Firmware::Bios,
            cpus: 2,
            memory: 2048,
            icount: false,
            second_port: false,
            restarts: false,
            extra: Vec::new(),
        }
    }
}

/// A running machine. It ends with this value, and with this process.
pub struct Machine {
    child: Child,
    /// COM1.
    pub serial: Serial,
    /// COM2.
    pub second: Option<Serial>,
}

const OVMF: [&str; 3] = [
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/ovmf/OVMF.fd",
    "/usr/share/edk2/x64/OVMF_CODE.fd",
];

/// OVMF's code image, if it is installed.
#[must_use]
pub fn ovmf() -> Option<&'static str> {
    OVMF.into_iter().find(|path| Path::new(path).exists())
}

impl Machine {
    /// Starts the machine; logs go to `logs`, and every wait ends at `deadline`.
    pub fn start(config: &Config, logs: &Path, deadline: Instant) -> Result<Self> {
        let file_stem = config.name.replace('/', "-");
        // The kernel ends the emulator when the thread that started it ends, however that happens.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-nodefaults", "-no-user-config"]);
        command.args(["-machine", "q35", "-cpu", "max,+svm,+npt", "-display", "none", "-nic", "none"]);
        command.args(["-smp", &config.cpus.to_string(), "-m", &config.memory.to_string()]);
        if config.icount {
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
        } else {
            command.args(["-accel", "tcg"]);
        }
        if config.firmware == Firmware::Uefi {
            let code = ovmf().ok_or_else(|| Failure::new("OVMF is not installed (Debian package ovmf)"))?;
            command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
        }
        let boot = config.boot.display();
        match config.boot.extension().and_then(|e| e.to_str()) {
            Some("iso") => command.args(["-cdrom", &boot.to_string(), "-boot", "d"]),
            Some("img" | "raw") => command.args([
                "-drive",
                &format!("file={boot},format=raw,if=none,id=boot,snapshot=on"),
                "-device",
                "ide-hd,drive=boot,bus=ide.0",
            ]),
            _ => command.args(["-kernel", &boot.to_string()]),
        };
        if !config.restarts {
            command.arg("-no-reboot");
        }
        command.args(["-chardev", "stdio,id=com1,signal=off,mux=off", "-serial", "chardev:com1"]);
        let listener = if config.second_port {
            // A socket path has to be short (108 bytes), and the build folder may be deep.
            let path = std::env::temp_dir().join(format!("tessera-{}-{file_stem}.sock", std::process::id()));
            let _ = fs::remove_file(&path);
            command.args([
                "-chardev",
                &format!("socket,id=com2,path={}", path.display()),
                "-serial",
                "chardev:com2",
            ]);
            Some((UnixListener::bind(&path)?, path))
        } else {
            None
        };
        command.args(&config.extra);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(fs::File::create(logs.join(format!("{file_stem}.qemu.log")))?);
        let mut child = command
            .spawn()
            .map_err(|e| Failure::new(format!("cannot start setpriv and qemu-system-x86_64: {e} (run `make setup`)")))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("QEMU started without pipes"));
        };
        let serial = Serial::new(
            "serial",
            Box::new(output),
            Box::new(input),
            &logs.join(format!("{file_stem}.log")),
            deadline,
        );
        let mut machine = Self {
            child,
            serial: serial?,
            second: None,
        };
        if let Some((listener, path)) = listener {
            listener.set_nonblocking(true)?;
            let stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                        if let Some(status) = machine.child.try_wait()? {
                            return Err(Failure::new(format!("QEMU ended at once ({status}); see {file_stem}.qemu.log")));
                        }
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    Err(e) => return Err(e.into()),
                }
            };
            let _ = fs::remove_file(path);
            stream.set_nonblocking(false)?;
            let log = logs.join(format!("{file_stem}.com2.log"));
            let reader = Box::new(stream.try_clone()?);
            machine.second = Some(Serial::new("second serial port", reader, Box::new(stream), &log, deadline)?);
        }
        Ok(machine)
    }

    /// The second serial port.
    pub fn com2(&mut self) -> Result<&mut Serial> {
        self.second
            .as_mut()
            .ok_or_else(|| Failure::new("this machine was started without a second serial port"))
    }

    /// Whether the emulator still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; then both calls have nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
