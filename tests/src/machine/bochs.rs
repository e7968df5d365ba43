//! Bochs with VT-x emulated.

use super::{Config, Firmware, Line, Process, Started, connect, disks, nics};
use crate::{Failure, Result};
use std::{
    fmt::Write,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The BIOS of its own.
pub const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
const VGA_BIOS: &str = "/usr/share/vgabios/vgabios.bin";

/// Instructions that Bochs takes for a second. The TSC, the timers and the baud rate go by it, so it sets how much a guest gets done between two ticks of its clock; how
/// fast the machine really is depends on the developer's (about 150 million on one of 2026).
const INSTRUCTIONS_PER_SECOND: u32 = 100_000_000;

/// The model whose VT-x has most: EPT with accessed and dirty flags, virtual x2APIC, posted interrupts, TSC scaling.
const PROCESSOR: &str = "corei7_skylake_x";

/// The emulator's program.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// Debian's 2.7 has the internal debugger compiled in and needs a screen; the one of `make setup` has neither.
    packaged: bool,
}

impl Program {
    /// Finds it: `TESSERA_BOCHS`, else what `make setup` built, else the one on `PATH`, which has to be 2.7 or newer.
    pub fn find() -> Result<Self> {
        for rom in [BIOS, VGA_BIOS] {
            if !Path::new(rom).exists() {
                return Err(Failure::new(format!(
                    "{rom} is missing: run `make setup` (Debian packages bochsbios and vgabios)"
                )));
            }
        }
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/emulators/bochs");
        let own = std::env::var_os("TESSERA_BOCHS")
            .map(PathBuf::from)
            .or_else(|| built.exists().then_some(built));
        if let Some(path) = own {
            return Ok(Self { path, packaged: false });
        }
        let text = Command::new("bochs").arg("--help").output();
        let text = text.map_or_else(
            |_| String::new(),
            |o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned(),
        );
        if text.contains("Bochs x86 Emulator 2.7") || text.contains("Bochs x86 Emulator 3.") {
            return Ok(Self {
                path: "bochs".into(),
                packaged: true,
            });
        }
        Err(Failure::new("Bochs is not there: run `make setup`, which builds it"))
    }
}

/// How the machine's clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// By instructions; time in which all processors are idle is skipped. Tests wait for nothing.
    Instructions,
    /// As the host's clock, or slower where the emulator cannot keep up; never faster. For people.
    Host,
}

/// The configuration file. The serial ports connect to these ports of this host.
fn configuration(config: &Config, program: &Program, clock: Clock, serial: &[u16], logs: &Path) -> Result<String> {
    if config.firmware == Firmware::Uefi {
        return Err(Failure::new("Bochs starts machines through BIOS alone: use QEMU for UEFI"));
    }
    let stem = config.file_stem();
    let boot = config.boot.display();
    let drive = match config.boot.extension().and_then(|e| e.to_str()) {
        Some("iso") => format!("ata0-master: type=cdrom, path=\"{boot}\", status=inserted\nboot: cdrom\n"),
        // Writes go to a file that is gone with the machine.
        Some("img" | "raw") => format!(
            "ata0-master: type=disk, mode=volatile, path=\"{boot}\", journal=\"{}\"\nboot: disk\n",
            logs.join(format!("{stem}.writes")).display()
        ),
        _ => return Err(Failure::new(format!("Bochs boots disk images (.img) and ISOs (.iso), not {boot}"))),
    };
    let disks = disks::bochs(&config.disks, logs, &stem)?;
    let (nics, slots) = nics::bochs(&config.nics, logs, &stem)?;
    let display = if program.packaged { "rfb, options=\"timeout=0\"" } else { "nogui" };
    let sync = if clock == Clock::Host { "slowdown" } else { "none" };
    let lacks: Vec<&str> = config.lacks.iter().copied().filter(|name| vmx_parts(name) == 0).collect();
    let lacks = if lacks.is_empty() {
        String::new()
    } else {
        format!(", exclude_features=\"{}\"", lacks.join(","))
    };
    // With the same date every run is the same.
    let date = match config.date {
        Some(date) => date.seconds.to_string(),
        None if config.icount => "946681200".into(),
        None => "utc".into(),
    };
    let bios = config.bios.as_deref().unwrap_or_else(|| Path::new(BIOS)).display();
    let mut text = format!(
        "romimage: file={bios}, options=fastboot\n\
         vgaromimage: file={VGA_BIOS}\n\
         display_library: {display}\n\
         memory: guest={}, host={}\n\
         cpu: model={}, count={}, ips={INSTRUCTIONS_PER_SECOND}, reset_on_triple_fault={}, ignore_bad_msrs=0{lacks}\n\
         clock: sync={sync}, time0={date}\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         {drive}{disks}{nics}\
         pci: enabled=1, chipset=i440fx{slots}\n\
         mouse: enabled=0\n\
         speaker: enabled=0\n\
         log: \"{}\"\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=report\n\
         debug: action=ignore\n",
        config.memory,
        config.memory.min(2048),
        std::env::var("TESSERA_BOCHS_CPU").unwrap_or_else(|_| PROCESSOR.into()),
        config.cpus,
        u8::from(config.restarts),
        logs.join(emulator_log(config)).display(),
    );
    for (number, port) in (1..).zip(serial) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "com{number}: enabled=1, mode=socket-client, dev=127.0.0.1:{port}");
    }
    Ok(text)
}

/// The parts of VT-x that go with a feature which Bochs' own configuration cannot take away, as bits of its `cpu/cpuid.h`; 0 for other features.
fn vmx_parts(feature: &str) -> u32 {
    const UNRESTRICTED: u32 = 1 << 9;
    match feature {
        "unrestricted" => UNRESTRICTED,
        // With what needs it: EPTP switching, accessed and dirty flags, #VE, PML, mode-based execution control.
        "ept" => 1 << 7 | UNRESTRICTED | 1 << 16 | 1 << 17 | 1 << 21 | 1 << 22 | 1 << 26,
        _ => 0,
    }
}

/// Name of the emulator's log.
fn emulator_log(config: &Config) -> String {
    format!("{}.emulator.log", config.file_stem())
}

/// An emulator that was just started, and its serial ports.
pub struct Connected {
    /// Its process.
    pub process: Process,
    /// COM1, and COM2 if the machine has it.
    pub serial: Vec<TcpStream>,
}

/// Starts it with serial ports as sockets.
pub fn connect(config: &Config, clock: Clock, logs: &Path) -> Result<Connected> {
    let program = Program::find()?;
    let stem = config.file_stem();
    let listeners: Vec<TcpListener> = (0..1 + usize::from(config.second_port))
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners
        .iter()
        .map(|l| l.local_addr().map(|a| a.port()))
        .collect::<Result<_, _>>()?;
    // A Bochs that was killed, as when the host's power fails, leaves its disks locked.
    for disk in &config.disks {
        let mut lock = disk.path.clone().into_os_string();
        lock.push(".lock");
        let _ = fs::remove_file(lock);
    }
    let file = logs.join(format!("{stem}.bochsrc"));
    fs::write(&file, configuration(config, &program, clock, &ports, logs)?)?;
    // The kernel ends the emulator when the thread that started it ends, however that happens.
    let mut command = Command::new("setpriv");
    // Once a second Bochs logs its speed from a handler of SIGALRM. When the signal comes while it logs something else, it waits for itself for ever.
    command.args(["--pdeathsig", "KILL", "--", "env", "--block-signal=ALRM", "--"]);
    command.arg(&program.path).args(["-q", "-f"]).arg(&file);
    let without = config.lacks.iter().fold(0, |parts, name| parts | vmx_parts(name));
    if without != 0 {
        if program.packaged {
            return Err(Failure::new(
                "the packaged Bochs cannot leave out a part of VT-x: run `make setup`, which builds one",
            ));
        }
        command.env("BOCHS_WITHOUT_VMX", format!("{without:x}"));
    }
    if program.packaged {
        let commands = logs.join(format!("{stem}.debugger"));
        fs::write(&commands, "c\n")?;
        command.arg("-rc").arg(commands);
    }
    let output = format!("{stem}.emulator.out");
    let log = fs::File::create(logs.join(&output))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().map_err(|e| {
        Failure::new(format!(
            "cannot start setpriv and {}: {e} (run `make setup`)",
            program.path.display()
        ))
    })?;
    let mut process = Process(child);
    let mut serial = Vec::new();
    // It connects them one after the other, in this order.
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let (stream, _) = connect::accept(&mut process, &output, || listener.accept())?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        serial.push(stream);
    }
    Ok(Connected { process, serial })
}

/// Starts it for a test.
pub(super) fn start(config: &Config, logs: &Path) -> Result<Started> {
    let Connected { process, serial } = connect(config, Clock::Instructions, logs)?;
    let mut lines = serial.into_iter().map(|stream| -> Result<Line> {
        Ok(Line {
            reader: Box::new(stream.try_clone()?),
            writer: Box::new(stream),
        })
    });
    let first = lines.next().ok_or_else(|| Failure::new("Bochs has no serial port"))??;
    Ok(Started {
        process,
        first,
        second: lines.next().transpose()?,
        monitor: None,
        counter: None,
        log: emulator_log(config),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Emulator;

    fn text(boot: &str, change: impl FnOnce(&mut Config)) -> Result<String> {
        let mut config = Config::new("a/b", Emulator::Bochs, Path::new(boot));
        change(&mut config);
        let program = Program {
            path: "bochs".into(),
            packaged: false,
        };
        configuration(&config, &program, Clock::Host, &[5001, 5002], Path::new("/logs"))
    }

    #[test]
    fn images_are_not_written_to() {
        let text = text("/x.img", |config| config.cpus = 4).unwrap();
        assert!(text.contains("type=disk, mode=volatile, path=\"/x.img\", journal=\"/logs/a-b.bochs.writes\""));
        assert!(text.contains("count=4,") && text.contains("sync=slowdown"));
        assert!(text.contains("com1: enabled=1, mode=socket-client, dev=127.0.0.1:5001\ncom2: enabled=1"));
    }

    #[test]
    fn what_bochs_cannot_boot_is_refused() {
        assert!(text("/vmlinuz", |_| ()).unwrap_err().0.contains("/vmlinuz"));
        assert!(
            text("/x.img", |config| config.firmware = Firmware::Uefi)
                .unwrap_err()
                .0
                .contains("UEFI")
        );
    }
}
