//! Disks of guests, Tessera's beside the peer's: instructions that the whole machine executes for what `fio` does in the same guest, in one run.
//!
//! The guest's own work is in the figures of both. A job runs with few operations and with many; the difference is the cost of the operations alone, without starting `fio`.

use super::{
    Figure, Goal, HOST_MEMORY,
    machines::{Machines, figure, rate},
    peer,
};
use crate::{
    Context, Failure, Result,
    disks::Scratch,
    ensure, linux,
    machine::{Bus, Config, Disk, Machine},
    shell::Host,
    systems::Guest,
};
use std::{
    fmt::Write as _,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// RAM of the guest in MiB.
const GUEST_MEMORY: u32 = 256;
/// Bytes of the disk on which is measured; all of it is written before.
const DISK_SIZE: u64 = 512 << 20;
/// The virtual disk of which a snapshot is taken, and how much of it is used.
const LARGE_DISK: (u64, u64) = (10 << 30, 1 << 30);
/// So many snapshots are taken, and the median counts.
const SNAPSHOTS: usize = 3;
/// A snapshot of Tessera's is to cost so much less than one of the peer's.
const SNAPSHOT_TIMES: u64 = 10;
/// Files in the datastore that is mounted, and what the mount may cost.
const FILES: usize = 10_000;
const MOUNT: u64 = 100_000_000;

/// What `fio` does.
struct Job {
    name: &'static str,
    pattern: &'static str,
    block: &'static str,
    depth: u32,
    /// Operations of the short and of the long run.
    operations: (u64, u64),
    /// Tessera's goal: the peer's figure times this, in percent.
    goal: u64,
}

const fn job(name: &'static str, pattern: &'static str, block: &'static str, depth: u32, operations: (u64, u64), goal: u64) -> Job {
    Job {
        name,
        pattern,
        block,
        depth,
        operations,
        goal,
    }
}

const JOBS: [Job; 6] = [
    job("read-4k-depth-1", "randread", "4k", 1, (200, 2200), 200),
    job("read-4k-depth-32", "randread", "4k", 32, (400, 4400), 200),
    job("write-4k-depth-1", "randwrite", "4k", 1, (200, 2200), 200),
    job("write-4k-depth-32", "randwrite", "4k", 32, (400, 4400), 200),
    job("read-128k", "read", "128k", 8, (100, 900), 130),
    job("write-128k", "write", "128k", 8, (100, 900), 130),
];

impl Job {
    fn command(&self, operations: u64) -> String {
        let Self { pattern, block, depth, .. } = self;
        format!(
            "fio --name=job --filename=/dev/vdb --rw={pattern} --bs={block} --iodepth={depth} --number_ios={operations} --size={DISK_SIZE} --direct=1 --ioengine=io_uring \
             --norandommap --gtod_reduce=1 --eta=never --output=/tmp/output && echo finished"
        )
    }
}

/// A disk of the emulated machine that the guest gets, in this order: an NVMe device of its own, whose writes vanish.
pub struct Drive {
    /// Its content.
    pub image: PathBuf,
    /// What QEMU in the peer takes it for.
    pub format: &'static str,
}

impl Drive {
    /// One with the bytes of an image.
    pub fn raw(image: &Path) -> Self {
        Self {
            image: image.into(),
            format: "raw",
        }
    }

    /// Attaches it.
    pub fn attach(&self, config: &mut Config) {
        let mut disk = Disk::new(Bus::Nvme, &self.image, &format!("disk{}", config.disks.len()));
        disk.vanishes = true;
        config.disks.push(disk);
    }
}

/// Runs a job once; operations in 10⁹ instructions.
fn run(machine: &mut Machine, job: &Job) -> Result<u64> {
    let measure = |machine: &mut Machine, operations| -> Result<u64> {
        let before = machine.counter()?.when_idle()?;
        machine.serial.wait_at_most(Duration::from_secs(300));
        let output = linux::command(&mut machine.serial, &job.command(operations))?;
        if !output.contains("finished") {
            return Err(Failure::new(format!("fio failed in the guest: {output}")));
        }
        Ok(machine.counter()?.when_idle()?.saturating_sub(before))
    };
    let (short, long) = job.operations;
    // The first run of a job finds nothing of its program in the guest's memory.
    measure(machine, short)?;
    for _ in 0..3 {
        machine.counter()?.keep(&format!("{}-before", job.name))?;
        let few = measure(machine, short)?;
        machine.counter()?.keep(&format!("{}-begin", job.name))?;
        let many = measure(machine, long)?;
        machine.counter()?.keep(&format!("{}-end", job.name))?;
        // What the guest's kernel does by itself now and then can cost more than a short run.
        if many > few {
            return Ok(rate(many - few, long - short));
        }
    }
    Err(Failure::new("few operations cost more than many, three times"))
}

/// Measures all jobs in machines that `start` starts, until their guest's prompt has come.
fn jobs(side: &str, prefix: &str, start: impl Fn() -> Result<Machine>) -> Result<Vec<Figure>> {
    let mut machines = Machines::new(&start);
    let name = |job: &Job| format!("{side}.{}", job.name);
    let measure = |job: &Job| machines.measure(&name(job), "operations/10⁹", |machine| run(machine, job));
    JOBS.iter().filter(|job| touches(&name(job), prefix)).map(measure).collect()
}

/// Whether what `prefix` asks for has something of this name, or of what begins with it.
pub fn touches(name: &str, prefix: &str) -> bool {
    name.starts_with(prefix) || prefix.starts_with(name)
}

/// An image of `size` bytes, of which `used` are written in pieces of 1 MiB, evenly spread.
fn filled(folder: &Path, name: &str, size: u64, used: u64) -> Result<Scratch> {
    const PIECE: u64 = 1 << 20;
    let scratch = Scratch::empty(folder, name, size)?;
    let file = File::options().write(true).open(scratch.path())?;
    // Neither zeroes nor compressible, without a source of random numbers: a linear congruential generator.
    let mut state = 0x7e55_e7a0_u64;
    let piece: Vec<u8> = (0..PIECE)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let pieces = used / PIECE;
    for number in 0..pieces {
        file.write_all_at(&piece, size / pieces * number)?;
    }
    Ok(scratch)
}

/// The peer with a guest that has these disks; waits for nothing. The guest has the host's serial port; Ctrl-A, then c changes to QEMU's monitor and back.
fn start_peer(context: &Context, guest: &[Drive]) -> Result<Machine> {
    let mut script = format!(
        "setsid cttyhack {} -m {GUEST_MEMORY} -serial mon:stdio -kernel /vmlinuz -initrd /initramfs-disk.cpio -append '{}' -object iothread,id=io",
        peer::QEMU,
        linux::PLAIN
    );
    for (number, drive) in guest.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = write!(
            script,
            " -drive file=/dev/nvme{number}n1,format={},if=none,id=disk{number},cache=none,aio=native,discard=unmap -device virtio-blk-pci,drive=disk{number},iothread=io",
            drive.format
        );
    }
    let host = peer::Host {
        modules: &[],
        guest: "initramfs-disk.cpio",
        files: &[],
        script: &script,
    };
    peer::start(context, &host, |config| {
        for drive in guest {
            drive.attach(config);
        }
    })
}

/// Waits for the guest's prompt.
fn with_prompt(mut machine: Machine, limit: Duration) -> Result<Machine> {
    machine.serial.wait_at_most(limit);
    linux::log_in(&mut machine.serial)?;
    // Long commands stay on one line.
    linux::command(&mut machine.serial, "stty cols 1000")?;
    Ok(machine)
}

/// A snapshot inside a qcow2 image, by QEMU's monitor.
fn peer_snapshot(context: &Context, root: &Path, folder: &Path) -> Result<Figure> {
    let raw = filled(folder, "large", LARGE_DISK.0, LARGE_DISK.1)?;
    let image = Scratch::empty(folder, "large-qcow2", 0)?;
    let output = Command::new("qemu-img")
        .args(["convert", "-O", "qcow2"])
        .args([raw.path(), image.path()])
        .output()
        .map_err(|e| Failure::new(format!("cannot start qemu-img: {e} (run `make setup`)")))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "qemu-img: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    // On a device it does not grow: room for the tables of the snapshots.
    let file = File::options().write(true).open(image.path())?;
    file.set_len(file.metadata()?.len() + (256 << 20))?;
    let large = Drive {
        image: image.path().into(),
        format: "qcow2",
    };
    let machine = start_peer(context, &[Drive::raw(root), large])?;
    let mut machine = with_prompt(machine, Duration::from_secs(400))?;
    const MONITOR: &str = "(qemu) ";
    machine.serial.send(b"\x01c")?;
    machine.serial.expect(MONITOR)?;
    let mut found = Vec::new();
    for number in 0..SNAPSHOTS {
        let before = machine.counter()?.when_idle()?;
        machine.serial.wait_at_most(Duration::from_secs(60));
        machine.serial.send_line(&format!("snapshot_blkdev_internal disk1 s{number}"))?;
        machine.serial.expect("\n")?;
        let answer = machine.serial.expect(MONITOR)?;
        if !answer.trim().is_empty() {
            return Err(Failure::new(format!("QEMU in the peer: {}", answer.trim())));
        }
        found.push(machine.counter()?.instructions()?.saturating_sub(before));
    }
    Ok(figure("storage.peer.snapshot", found, "instructions"))
}

/// Tessera with a guest whose disks are these.
fn tessera(context: &Context, drives: &[Drive]) -> Result<Machine> {
    let initramfs = context.guest_file("initramfs-disk.cpio").map_err(Failure)?;
    let mut guest = Guest::debian("guest", "");
    (guest.memory, guest.initramfs) = (GUEST_MEMORY, Some("disk-initramfs"));
    guest.command_line = linux::PLAIN.into();
    guest.disks = (0..drives.len()).map(|number| format!("{{ device = \"nvme{number}\" }}")).collect();
    let system = context
        .product()?
        .without_machines()
        .file("disk-initramfs", &initramfs)
        .guest(&guest);
    let mut config = context.config(&system.into())?;
    (config.cpus, config.memory, config.counted) = (1, HOST_MEMORY, true);
    for drive in drives {
        drive.attach(&mut config);
    }
    let mut host = Host::new(context.start(&config)?)?;
    host.start_command("vm console guest")?;
    Ok(host.machine)
}

/// Tessera without guests, with a datastore on its first NVMe device.
fn with_store(context: &Context, store: &Scratch) -> Result<Host> {
    let system = context.product()?.without_machines();
    let mut config = context.config(&system.into())?;
    (config.cpus, config.memory, config.counted) = (1, HOST_MEMORY, true);
    Drive::raw(store.path()).attach(&mut config);
    Host::new(context.start(&config)?)
}

/// Instructions from when the machine does nothing until `work` is done.
fn counted(host: &mut Host, work: impl FnOnce(&mut Host) -> Result<()>) -> Result<u64> {
    let before = host.machine.counter()?.when_idle()?;
    host.machine.serial.wait_at_most(Duration::from_secs(300));
    work(host)?;
    Ok(host.machine.counter()?.instructions()?.saturating_sub(before))
}

/// A snapshot of a virtual disk, by the shell, beside one of a disk that holds nothing.
fn snapshot(context: &Context, folder: &Path) -> Result<Vec<Figure>> {
    let raw = filled(folder, "large", LARGE_DISK.0, LARGE_DISK.1)?;
    let store = Scratch::empty(folder, "large-store", 2 * LARGE_DISK.1)?;
    let path = store.path().display().to_string();
    let images = &context.environment.images;
    images.datastore(&["create", &path, "--label", "main"])?;
    images.datastore(&["import", &path, &raw.path().display().to_string(), "disk"])?;
    images.datastore(&["disk-create", &path, "empty", "--size", "10GiB"])?;
    let mut host = with_store(context, &store)?;
    let mut take = |disk: &str| -> Result<Vec<u64>> {
        let mut found = Vec::new();
        for number in 0..SNAPSHOTS {
            found.push(counted(&mut host, |host| {
                let said = host.command(&format!("datastore snapshot main {disk} s{number}"))?;
                ensure!(said.contains("Took snapshot"), "the shell says:\n{said}");
                Ok(())
            })?);
        }
        Ok(found)
    };
    Ok(vec![
        figure("storage.tessera.snapshot", take("disk")?, "instructions"),
        figure("storage.tessera.snapshot-of-nothing", take("empty")?, "instructions"),
    ])
}

/// A storage server that ends, is started again, and mounts a datastore of 1 TiB with 10,000 files; beside it with one that holds nothing, which is what the start alone costs.
fn mount(context: &Context, folder: &Path) -> Result<Vec<Figure>> {
    let files = folder.join(format!("files-{}", std::process::id()));
    for number in 0..FILES {
        let place = files.join(format!("folder {}", number % 10));
        fs::create_dir_all(&place)?;
        fs::write(place.join(format!("file {number}")), [0x5a; 5000])?;
    }
    let mut figures = Vec::new();
    for (name, with_files) in [("storage.tessera.mount-of-nothing", false), ("storage.tessera.mount", true)] {
        let store = Scratch::empty(folder, "tebibyte", 0)?;
        let path = store.path().display().to_string();
        let images = &context.environment.images;
        images.datastore(&["create", &path, "--label", "main", "--size", "1TiB"])?;
        if with_files {
            images.datastore(&["write", &path, "files", &files.display().to_string()])?;
            fs::remove_dir_all(&files)?;
        }
        let mut host = with_store(context, &store)?;
        let mut found = Vec::new();
        for _ in 0..SNAPSHOTS {
            host.wait_until_runs("storage")?;
            found.push(counted(&mut host, |host| {
                host.command("kill storage")?;
                // It answers when everything is mounted; asking costs little.
                host.poll_command("datastore list", |text| text.contains("main"))?;
                Ok(())
            })?);
        }
        figures.push(figure(name, found, "instructions"));
    }
    figures[1].goal = Some(Goal::AtMost(MOUNT));
    Ok(figures)
}

/// Both sides, or the one that is asked for; goals are known when both are.
pub fn measure(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let root = context.guest_file("debian/disk.img").map_err(Failure)?;
    let folder = context.environment.root.join("build/test-images");
    let disk = filled(&folder, "measured", DISK_SIZE, DISK_SIZE)?;
    let drives = [Drive::raw(&root), Drive::raw(disk.path())];
    let boot = Duration::from_secs(400);
    let mut figures = Vec::new();
    if touches("storage.peer", prefix) {
        figures.append(&mut jobs("storage.peer", prefix, || {
            with_prompt(start_peer(context, &drives)?, boot)
        })?);
        if touches("storage.peer.snapshot", prefix) {
            figures.push(peer_snapshot(context, &root, &folder)?);
        }
    }
    if touches("storage.tessera", prefix) {
        let mut ours = jobs("storage.tessera", prefix, || with_prompt(tessera(context, &drives)?, boot))?;
        if touches("storage.tessera.snapshot", prefix) {
            ours.append(&mut snapshot(context, &folder)?);
        }
        if touches("storage.tessera.mount", prefix) {
            ours.append(&mut mount(context, &folder)?);
        }
        for figure in &mut ours {
            let what = figure.name.trim_start_matches("storage.tessera.").to_owned();
            let Some(peer) = figures.iter().find(|peer| peer.name == format!("storage.peer.{what}")) else {
                continue;
            };
            figure.goal = match JOBS.iter().find(|job| job.name == what) {
                Some(job) => Some(Goal::AtLeast(peer.median * job.goal / 100)),
                None => Some(Goal::AtMost(peer.median / SNAPSHOT_TIMES)),
            };
        }
        figures.append(&mut ours);
    }
    Ok(figures)
}
