//! QEMU with AMD-V emulated.

use super::{Config, Counter, Firmware, Iommu, Line, Monitor, Process, Started, connect};
use crate::{Failure, Result};
use std::{
    fs, io,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
};

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

/// Starts it.
pub fn start(config: &Config, logs: &Path) -> Result<Started> {
    let file_stem = config.file_stem();
    // Of an earlier machine of this name.
    let _ = fs::remove_file(logs.join(format!("{file_stem}.counts")));
    // The kernel ends the emulator when the thread that started it ends, however that happens.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-nodefaults", "-no-user-config"]);
    let lacks: String = config.lacks.iter().map(|feature| format!(",-{feature}")).collect();
    let processor = format!("max,+svm,+npt{lacks}");
    command.args(["-machine", "q35", "-cpu", &processor, "-display", "none", "-nic", "none"]);
    command.args(["-smp", &config.cpus.to_string(), "-m", &config.memory.to_string()]);
    if let Some(date) = config.date {
        command.args(["-rtc", &format!("base={}", date.text)]);
    }
    let counts = logs.join(format!("{file_stem}.counts"));
    if config.counted {
        let plugin = Counter::plugin()?;
        command.args(["-accel", "tcg,thread=single", "-icount", "shift=0"]);
        let blocks = if Counter::profile().is_some() { ",blocks=on" } else { "" };
        command.args(["-plugin", &format!("{},counts={}{blocks}", plugin.display(), counts.display())]);
    } else if config.icount {
        command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    } else {
        command.args(["-accel", if config.turns { "tcg,thread=single" } else { "tcg" }]);
    }
    if config.counted || config.icount {
        // QEMU 7.2 now and then does not let its time go on when the processor halts, until something wakes its main loop. A monitor on a terminal that nobody opens does each second.
        command.args(["-monitor", "pty"]);
    }
    if config.firmware == Firmware::Uefi {
        let code = ovmf().ok_or_else(|| Failure::new("OVMF is not installed (Debian package ovmf)"))?;
        command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
    }
    // Before all other devices, which it looks after.
    match config.iommu {
        Some(Iommu::Vtd) => command.args(["-device", "intel-iommu"]),
        Some(Iommu::VtdWide) => {
            // Remapping wants the interrupt controllers emulated outside of KVM, which is not used here.
            command.args(["-device", "intel-iommu,aw-bits=48,caching-mode=on,intremap=on"])
        }
        Some(Iommu::Amd) => command.args(["-device", "amd-iommu"]),
        None => &mut command,
    };
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
    let mut ports = 0;
    for (number, disk) in config.disks.iter().enumerate() {
        command.args(disk.qemu(number, config.iommu.is_some(), &mut ports, logs, &file_stem)?);
    }
    for (number, nic) in config.nics.iter().enumerate() {
        command.args(nic.qemu(number));
    }
    let monitor = config.monitor.then(|| {
        let path = std::env::temp_dir().join(format!("tessera-{}-{file_stem}.monitor", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    });
    if let Some(path) = &monitor {
        command.args([
            "-chardev",
            &format!("socket,id=monitor,path={},server=on,wait=off", path.display()),
            "-mon",
            "chardev=monitor,mode=readline",
        ]);
    }
    command.args(&config.extra);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let log = format!("{file_stem}.qemu.log");
    command.stderr(fs::File::create(logs.join(&log))?);
    let child = command
        .spawn()
        .map_err(|e| Failure::new(format!("cannot start setpriv and qemu-system-x86_64: {e} (run `make setup`)")))?;
    let mut process = Process(child);
    let counter = if config.counted {
        Some(connect::accept(&mut process, &log, || wait_for_counter(&counts))?)
    } else {
        None
    };
    let (Some(input), Some(output)) = (process.0.stdin.take(), process.0.stdout.take()) else {
        return Err(Failure::new("QEMU started without pipes"));
    };
    let second = match listener {
        None => None,
        Some((listener, path)) => {
            listener.set_nonblocking(true)?;
            let (stream, _) = connect::accept(&mut process, &log, || listener.accept())?;
            let _ = fs::remove_file(path);
            stream.set_nonblocking(false)?;
            Some(Line {
                reader: Box::new(stream.try_clone()?),
                writer: Box::new(stream),
            })
        }
    };
    Ok(Started {
        process,
        first: Line {
            reader: Box::new(output),
            writer: Box::new(input),
        },
        second,
        monitor: monitor.map(Monitor::new),
        counter,
        log,
    })
}

/// The plugin's file, as soon as it has its length.
fn wait_for_counter(path: &Path) -> io::Result<Counter> {
    if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        Counter::open(path).map_err(|failure| io::Error::other(failure.0))
    } else {
        Err(io::ErrorKind::WouldBlock.into())
    }
}
