//! Runs the benchmarks and reads their lines, `bench: NAME MEDIAN UNIT min MIN max MAX goal <=GOAL`; a goal that has to be exceeded is `>=GOAL`.

mod frames;
mod hostd;
mod machines;
mod net;
mod peer;
mod start;
mod storage;
mod suspend;

use crate::{
    Context, Failure, Result,
    cases::screen_memory,
    context::Environment,
    elf, ensure, fail,
    image::Spec,
    machine::Emulator,
    shell::Host,
    systems::{Probe, System},
};
use regex::Regex;
use std::{fs, path::PathBuf, time::Duration};

/// RAM of the emulated machine in MiB, Tessera's and the peer's.
const HOST_MEMORY: u32 = 1536;

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The less, the better: this at most.
    AtMost(u64),
    /// The more, the better: this at least.
    AtLeast(u64),
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// `group.what`.
    pub name: String,
    /// Median.
    pub median: u64,
    /// Unit.
    pub unit: String,
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// What is good enough; none: only reported.
    pub goal: Option<Goal>,
}

impl Figure {
    /// Reads a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let regex = Regex::new(r"^bench: (\S+) (\d+) (\S+) min (\d+) max (\d+)(?: goal (?:<=(\d+)|>=(\d+)|-))?$").ok()?;
        let groups = regex.captures(line.trim())?;
        let number = |index: usize| groups.get(index)?.as_str().parse().ok();
        Some(Self {
            name: groups[1].into(),
            median: number(2)?,
            unit: groups[3].into(),
            min: number(4)?,
            max: number(5)?,
            goal: number(6).map(Goal::AtMost).or(number(7).map(Goal::AtLeast)),
        })
    }

    /// A figure of one measurement.
    #[must_use]
    pub fn single(name: &str, value: u64, unit: &str, goal: Option<Goal>) -> Self {
        Self {
            name: name.into(),
            median: value,
            unit: unit.into(),
            min: value,
            max: value,
            goal,
        }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            name,
            median,
            unit,
            min,
            max,
            goal,
        } = self;
        let goal = match goal {
            None => "-".into(),
            Some(Goal::AtMost(goal)) => format!("<={goal}"),
            Some(Goal::AtLeast(goal)) => format!(">={goal}"),
        };
        format!("bench: {name} {median} {unit} min {min} max {max} goal {goal}")
    }

    /// Whether it reaches its goal.
    #[must_use]
    pub fn is_good(&self) -> bool {
        match self.goal {
            None => true,
            Some(Goal::AtMost(goal)) => self.median <= goal,
            Some(Goal::AtLeast(goal)) => self.median >= goal,
        }
    }
}

/// A group, what its machines are emulated by, and what measures at least those of its figures whose names begin with a prefix.
type Group = (&'static str, Emulator, fn(&Context, &str) -> Result<Vec<Figure>>);
const GROUPS: [Group; 11] = [
    ("ipc", Emulator::Qemu, in_system),
    ("boot", Emulator::Qemu, boot),
    ("size", Emulator::Qemu, size),
    ("memory", Emulator::Qemu, memory),
    ("start", Emulator::Qemu, start::measure),
    ("frames", Emulator::Qemu, frames::measure),
    ("suspend", Emulator::Qemu, suspend::measure),
    ("storage", Emulator::Qemu, storage::measure),
    ("net", Emulator::Qemu, net::measure),
    ("hostd", Emulator::Qemu, hostd::measure),
    // Last: what cannot be measured without Bochs keeps nothing else from being measured.
    (VTX, Emulator::Bochs, vtx),
];
/// Name of the group that measures VM exits by VT-x; `virt.*` without it are those by AMD-V.
const VTX: &str = "virt.vtx";

/// Measures everything whose name begins with `prefix`. `figure` gets each as soon as it is known.
pub fn run(environment: &Environment, prefix: &str, mut figure: impl FnMut(&Figure)) -> Result<Vec<Figure>> {
    let mut all = Vec::new();
    let touches = |group: &str| group.starts_with(prefix) || prefix.starts_with(group);
    for (group, emulator, measure) in GROUPS {
        // The probe measures `ipc.*` and `virt.*` in one run.
        if touches(group) || (group == "ipc" && touches("virt") && !prefix.starts_with(VTX)) {
            if let Some(reason) = emulator.lacks() {
                eprintln!("{group}.* cannot be measured: {reason}");
                continue;
            }
            let name = format!("bench-{group}");
            let context = Context::new(environment, &name, emulator, Duration::from_secs(3600));
            let found = measure(&context, prefix).map_err(|failure| Failure::new(format!("{group}.*: {failure}")))?;
            for found in found.into_iter().filter(|f| f.name.starts_with(prefix)) {
                figure(&found);
                all.push(found);
            }
        }
    }
    ensure!(
        !all.is_empty(),
        "no figure has a name that begins with '{prefix}'; there are ipc.*, virt.*, boot.*, size.*, memory.*, start.*, frames.*, suspend.*, storage.*, net.* and hostd.*"
    );
    Ok(all)
}

/// Boots `system` with instructions counted and collects the probe's lines until its verdict.
fn collect(context: &Context, system: System, icount: bool, role: &str) -> Result<Vec<Figure>> {
    let mut config = context.config(&Spec::from(system))?;
    (config.cpus, config.second_port, config.icount) = (1, true, icount);
    let mut machine = context.start(&config)?;
    let mut figures = Vec::new();
    loop {
        let line = machine.com2()?.expect_line(r"^(bench: .*|probe: .*)$")?.swap_remove(1);
        if let Some(found) = Figure::parse(&line) {
            figures.push(found);
        } else if line.starts_with("bench: ") {
            fail!("the probe printed a line that makes no sense: {line}");
        } else if line.contains("FAILED") {
            fail!("{line}");
        } else if line == format!("probe: {role} ok") {
            return Ok(figures);
        }
    }
}

/// The probe's measurements whose names begin with `prefix`.
fn by_probe(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let system = context
        .product()?
        .without_guests()
        .probe(
            Probe::new("echo", "echo")
                .priority(32)
                .cpu(0)
                .grant("echo = { provide = \"echo\" }"),
        )
        .probe(
            Probe::new("bench", &format!("bench {prefix}"))
                .priority(30)
                .cpu(0)
                .reports()
                .grant("echo = { use = \"echo\" }"),
        );
    collect(context, system, true, "bench")
}

fn in_system(context: &Context, _: &str) -> Result<Vec<Figure>> {
    by_probe(context, "")
}

/// VM exits by VT-x, which Bochs has.
fn vtx(context: &Context, _: &str) -> Result<Vec<Figure>> {
    let mut figures = by_probe(context, "virt")?;
    for figure in &mut figures {
        figure.name = figure.name.replacen("virt", VTX, 1);
    }
    Ok(figures)
}

fn boot(context: &Context, _: &str) -> Result<Vec<Figure>> {
    let probe = Probe::new("boot-times", "boot-times debian")
        .priority(46)
        .reports()
        .grant("supervisor = { use = \"init\" }")
        .grant("vm_manager = { use = \"init\" }");
    collect(context, context.product()?.probe(probe), true, "boot-times")
}

fn memory(context: &Context, _: &str) -> Result<Vec<Figure>> {
    let probe = Probe::new("lifecycle", "lifecycle debian 3")
        .priority(46)
        .reports()
        .grant("supervisor = { use = \"init\" }")
        .grant("vm_manager = { use = \"init\" }");
    let text = System::product(&context.environment.root)?;
    let mut config = context.config(&Spec::from(text.probe(probe)).set("vm.debian.autostart=false"))?;
    (config.cpus, config.second_port) = (1, true);
    let mut machine = context.start(&config)?;
    let line = machine.com2()?.expect_line(r"^(bench: .*|probe: .*FAILED.*)$")?.swap_remove(1);
    let mut figures = vec![Figure::parse(&line).ok_or(Failure(line))?];
    drop(machine);
    figures.extend(screens(context)?);
    Ok(figures)
}

/// What `mem` shows free less, beyond their RAM, when machines with screens show text and 1024 by 768 pixels of 32 bits.
fn screens(context: &Context) -> Result<Vec<Figure>> {
    let system = context.product()?.without_machines();
    let (system, medium) = screen_memory::with_screens(context, system)?.map_err(Failure)?;
    let mut host = context.boot(&system.into(), |config| config.cpus = 1)?;
    let mut before = host.free_pages()?;
    let mut taken = |host: &mut Host, ram: u64| -> Result<u64> {
        let free = host.free_pages()?;
        Ok((std::mem::replace(&mut before, free).saturating_sub(free) * 4).saturating_sub(ram))
    };
    screen_memory::show_text(&mut host)?;
    let text = taken(&mut host, 64 << 10)?;
    screen_memory::show_graphics(&mut host)?;
    let graphics = taken(&mut host, 256 << 10)?;
    fs::remove_file(medium)?;
    let goal = Goal::AtMost(8 << 10);
    Ok(vec![
        Figure::single("memory.screen-text", text, "KiB", None),
        Figure::single("memory.screen-graphics", graphics, "KiB", Some(goal)),
    ])
}

/// Size of the kernel and of what an image holds beside guests.
fn size(context: &Context, _: &str) -> Result<Vec<Figure>> {
    let programs = std::env::var_os("TESSERA_PROGRAMS").map_or_else(|| context.environment.root.join("build/programs"), PathBuf::from);
    let kernel = fs::read(programs.join("kernel")).map_err(|e| Failure::new(format!("{}: {e}", programs.join("kernel").display())))?;
    let (loaded, text) = elf::loaded(&kernel);
    let bundle = context
        .environment
        .images
        .bundle(&Spec::from(context.product()?.without_guests()))?;
    let bundle = fs::metadata(bundle)?.len();
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let payload = kib(loaded as u64 + bundle);
    // Management and its pages, which the systems of tests are without.
    let hostd = elf::loaded(&fs::read(programs.join("hostd"))?).0 as u64;
    let pages = fs::metadata(context.environment.root.join("build/web.pack"))?.len();
    Ok(vec![
        Figure::single("size.kernel", kib(loaded as u64), "KiB", Some(Goal::AtMost(150))),
        Figure::single("size.kernel-text", kib(text as u64), "KiB", Some(Goal::AtMost(100))),
        Figure::single("size.payload", payload, "KiB", Some(Goal::AtMost(4096))),
        Figure::single("size.host", payload + kib(hostd + pages), "KiB", None),
    ])
}

/// The figures as a table for people, with the commands that give them.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Instructions are counted by QEMU (`-icount shift=0,sleep=off`: one tick of the time stamp counter is one instruction), stubs of user level included, the cost of reading the counter subtracted.\n\
         `virt.vtx.*` are counted by Bochs with one processor, `virt.*` otherwise by QEMU: the former are VM exits by VT-x, the latter by AMD-V.\n\
         Each of these is the median of 128 runs, with the smallest and the largest. `boot.*` is in virtual milliseconds of one million instructions each, since power-on.\n\n\
         `storage.*` are operations in 10⁹ executed instructions of the whole machine, host and guest, counted by a plugin of QEMU (tests/counter), because the time stamp counter goes on\n\
         while the machine waits for its disk. Each is what `fio` does on `/dev/vdb` in the guest of build/guests/debian (io_uring, direct; 128 KiB with eight in flight), many operations less few, the median of three runs.\n\
         `storage.peer.*` is Debian's cloud kernel with KVM, and QEMU 7.2 as the monitor, in the same emulated machine with one processor: virtio-blk on an I/O thread, raw on a whole NVMe device\n\
         (`cache=none,aio=native,discard=unmap`), no file system between, and KVM's polling off (`halt_poll_ns=0`); this is the best that it does. Its snapshot is an internal one of qcow2 by `snapshot_blkdev_internal`,\n\
         of 10 GiB with 1 GiB used. `storage.tessera.*` has the same guest, disks and machine.\n\n\
         `net.*` are what two guests send each other and outside in 10⁹ executed instructions of the whole machine, counted the same way, the median of three runs: a TCP stream in writes of 128 KiB,\n\
         one byte there and back over TCP, and 64-byte packets of Linux' packet generator as far as they arrive (tests/guests/netload, tests/guests/initramfs/tests/packets). `net.peer.*` is KVM and QEMU 7.2 with\n\
         virtio-net, each guest on a tap with vhost, and Linux' bridge with the machine's virtio card; `net.tessera.*` has the same guests, card and machine. Outside is QEMU's user network, which takes no large\n\
         segments. `net.*.memory` is what a second guest with a disk and a card takes of the host beyond its RAM.\n\n\
         `start.*` is what the machine executes from a virtual machine's start, by the shell or as QEMU's command, until its guest's first program runs, counted the same way, the median of three starts: `direct` with kernel and RAM disk\n\
         given, `bios` and `uefi` from GRUB on a disk under SeaBIOS and OVMF, in a guest of 256 MiB (tests/src/bench/start.rs). `start.peer.*` is the peer of `storage.*`.\n\n\
         `memory.vm-overhead` is what a machine takes of the host beyond its RAM, `memory.screen-text` one with a screen that shows 80 by 25 characters, `memory.screen-graphics` \
         one that SeaBIOS booted from a CD and whose Linux has its console in 1024 by 768 pixels of 32 bits (tests/src/bench.rs).\n\n\
         `frames.*` is what a viewer of a text console costs while the guest writes 5,000 lines to it without a pause (tests/src/bench/frames.rs): bytes of an update (ZRLE), and what the machine executes for one\n\
         beyond what it executes for the lines without a viewer, the median of three. Tessera's viewer is on the WebSocket that the Host Client uses, TLS and all; the peer's on QEMU's own server (`-vga std -vnc`) over plain TCP.\n\n\
         `suspend.*` is what the machine executes until it is idle after a guest with 256 MiB, of which some 170 are in use, was suspended, and after it was resumed, the median of three, into a file of a datastore on NVMe (tests/src/bench/suspend.rs). `suspend.peer.*` is QEMU's `migrate` by `dd` into such a disk itself and out of it again (`-incoming`), with the end of the one QEMU and the start of the other.\n\n\
         `hostd.*` are of one machine with one processor, counted the same way (tests/src/bench/hostd.rs): `login-page` is everything that is executed from power-on until curl, which asks five times a second, gets the log-in page; `page` is a\n\
         page of 362 bytes over TLS 1.3 on one connection, and `nginx-page` the same by nginx in a Debian guest of that host; `upload` goes into a datastore over TLS, `plain-stream` through TCP alone to a guest that throws it away. `memory` is\n\
         what hostd has, by the manifest, while 20 clients list 100 machines.\n\n\
         `size.payload` is the kernel and what an image has beside it without guests, hostd and the Host Client, as the systems of tests are; `size.host` is all but the guests' files.\n\n\
         `make bench` measures everything, `make bench ONLY=ipc` a part; `cargo run -p tessera-tests --bin bench -- --write docs/benchmarks.md` writes this page.\n\n\
         | figure | median | unit | min | max | goal | |\n|---|---:|---|---:|---:|---:|---|\n",
    );
    for figure in figures {
        let Figure {
            name,
            median,
            unit,
            min,
            max,
            goal,
        } = figure;
        let verdict = match goal {
            Some(_) if figure.is_good() => "reached",
            Some(_) => "**missed**",
            None => "",
        };
        let goal = match goal {
            None => String::new(),
            Some(Goal::AtMost(goal)) => format!("≤ {goal}"),
            Some(Goal::AtLeast(goal)) => format!("≥ {goal}"),
        };
        text.push_str(&format!("| `{name}` | {median} | {unit} | {min} | {max} | {goal} | {verdict} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn goals_are_compared_with_the_median() {
        let figure = Figure::parse("bench: ipc.null 45 instructions min 44 max 60 goal <=50").unwrap();
        assert!(figure.is_good());
        assert!(!Figure { median: 51, ..figure }.is_good());
        let figure = Figure::parse("bench: storage.x 99 operations/10⁹ min 90 max 100 goal >=100").unwrap();
        assert!(!figure.is_good());
        assert!(Figure { median: 100, ..figure }.is_good());
    }

    proptest! {
        #[test]
        fn lines_are_read_back(median: u64, min: u64, max: u64, least: Option<bool>, goal: u64) {
            let goal = least.map(|least| if least { Goal::AtLeast(goal) } else { Goal::AtMost(goal) });
            let figure = Figure { name: "a.b-c".into(), median, unit: "KiB".into(), min, max, goal };
            prop_assert_eq!(Figure::parse(&figure.line()), Some(figure));
        }
    }
}
