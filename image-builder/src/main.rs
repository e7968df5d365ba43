//! The command line of image-builder.
#![forbid(unsafe_code)]

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use image_builder::{
    bundle, check, datastore, disk,
    grub::{Grub, write_if_changed},
    iso, machine, notices,
    payload::Payload,
    program,
    source::Invalid,
    system::{Description, System},
    units::show_size,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Builds bootable images of Tessera from the description of a system.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build images.
    Build(Build),
    /// Draw who may reach what, as SVG.
    Graph(Graph),
    /// Write the licences and notices of the programs, for the folder of programs.
    Notices(Notices),
    /// Make, fill, look at, check and repair datastores in image files and on block devices.
    #[command(subcommand)]
    Datastore(datastore::Command),
    /// Only look for mistakes in the description, or whether a machine will do.
    Check {
        #[command(flatten)]
        source: Source,
        /// Look at the machine instead that this runs on, or whose /proc/cpuinfo is named.
        #[arg(long, value_name = "CPUINFO", num_args = 0..=1, default_missing_value = "/proc/cpuinfo")]
        machine: Option<PathBuf>,
    },
}

#[derive(Args)]
struct Source {
    /// Description of the system.
    #[arg(long, value_name = "FILE", default_value = "system.toml")]
    system: PathBuf,
    /// Replace a value of the description, such as vm.debian.vcpus=2 (may be repeated).
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Replace the kernel's command line.
    #[arg(long, value_name = "TEXT")]
    command_line: Option<String>,
}

#[derive(Args)]
struct Build {
    #[command(flatten)]
    source: Source,
    /// Folder with the executables of kernel and servers.
    #[arg(long, value_name = "FOLDER", default_value = "build/programs")]
    programs: PathBuf,
    /// Folder for the images.
    #[arg(long, value_name = "FOLDER", default_value = "build")]
    output: PathBuf,
    /// What to build (may be repeated).
    #[arg(long, value_enum, default_value = "disk")]
    format: Vec<Format>,
    /// Say nothing but errors.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Args)]
struct Graph {
    #[command(flatten)]
    source: Source,
    /// Where to write the drawing.
    #[arg(long, value_name = "FILE", default_value = "build/capabilities.svg")]
    output: PathBuf,
}

#[derive(Args)]
struct Notices {
    /// Manifest of the workspace.
    #[arg(long, value_name = "FILE", default_value = "Cargo.toml")]
    manifest: PathBuf,
    /// A package whose program goes into images (may be repeated).
    #[arg(long = "package", short, value_name = "NAME", required = true)]
    packages: Vec<String>,
    /// Where to write them.
    #[arg(long, value_name = "FILE", default_value = "build/programs/NOTICE.txt")]
    output: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// GPT disk image for BIOS and UEFI: tessera.img.
    Disk,
    /// Hybrid ISO for BIOS and UEFI: tessera.iso.
    Iso,
    /// The boot bundle alone, for network boot beside the kernel: tessera.bundle.
    Bundle,
}

impl Format {
    const fn file(self) -> &'static str {
        match self {
            Self::Disk => "tessera.img",
            Self::Iso => "tessera.iso",
            Self::Bundle => "tessera.bundle",
        }
    }
}

fn check_machine(file: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let processor = machine::Processor::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let verdict = machine::judge(&processor);
    print!("{}", verdict.text);
    anyhow::ensure!(verdict.runs_guests, "no virtual machine can run on this machine as it is");
    Ok(())
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Build(arguments) => build(&arguments),
        Command::Graph(arguments) => graph(&arguments),
        Command::Notices(arguments) => notices::programs(&arguments.manifest, &arguments.packages)
            .and_then(|text| write_if_changed(&arguments.output, text.as_bytes())),
        Command::Datastore(command) => command.run(),
        Command::Check { machine: Some(file), .. } => check_machine(&file),
        Command::Check { source, .. } => load(&source).map(|system| {
            println!(
                "{}: {} servers, {} virtual machines, no mistakes",
                source.system.display(),
                system.servers.len(),
                system.vms.len()
            );
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Whether messages may be coloured.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn report(error: &anyhow::Error) {
    // Nothing can be done about a terminal that is gone.
    let mut stderr = std::io::stderr().lock();
    let _ = match error.downcast_ref::<Invalid>() {
        Some(invalid) if colour() => writeln!(stderr, "{invalid:#}"),
        Some(invalid) => writeln!(stderr, "{invalid}"),
        None => writeln!(stderr, "error: {error:#}"),
    };
}

/// Reads and checks a description; warnings are printed.
fn load(source: &Source) -> anyhow::Result<System> {
    let mut sets = source.sets.clone();
    sets.extend(
        source
            .command_line
            .as_ref()
            .map(|text| format!("kernel.command-line={}", literal(text))),
    );
    let mut description = Description::read(&source.system, &sets)?;
    if !description.diagnostics.has_errors() {
        check::check(&description.system, &mut description.diagnostics);
    }
    let (system, warnings) = description.finish()?;
    if !warnings.diagnostics.is_empty() {
        report(&warnings.into());
    }
    Ok(system)
}

/// A text as a TOML value.
fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn build(arguments: &Build) -> anyhow::Result<()> {
    let system = load(&arguments.source)?;
    let steps = system.programs().len() + system.files.len() + 2 + arguments.format.len();
    let bar = if arguments.quiet || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(steps as u64)
    };
    bar.set_style(
        ProgressStyle::with_template("    [{bar:30}] {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    let mut step = |text: &str| {
        bar.set_message(text.to_string());
        bar.inc(1);
    };
    fs::create_dir_all(&arguments.output).with_context(|| format!("{}: the folder cannot be made", arguments.output.display()))?;
    let kernel_path = arguments.programs.join(&system.kernel.value);
    let kernel = fs::read(&kernel_path)
        .with_context(|| format!("{}: the kernel cannot be read; is it built (`make kernel`)?", kernel_path.display()))?;
    let kernel = program::strip(&kernel).with_context(|| format!("{}: not a kernel", kernel_path.display()))?;
    let bundle = bundle::build(&system, &arguments.programs, &mut step)?;
    let notice_path = arguments.programs.join("NOTICE.txt");
    let notices = fs::read_to_string(&notice_path).with_context(|| {
        format!(
            "{}: the programs' notices cannot be read; `make programs` writes them",
            notice_path.display()
        )
    })?;
    let notices = notices + &notices::media(&system)?;
    let payload = Payload::new(
        system.product.clone(),
        kernel,
        system.command_line.value.clone(),
        bundle.bytes,
        notices,
    );
    let mut written = Vec::new();
    for format in &arguments.format {
        let path = arguments.output.join(format.file());
        step(format.file());
        write(*format, &payload, &path)?;
        written.push(path);
    }
    bar.finish_and_clear();
    if !arguments.quiet {
        for path in written {
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            println!(
                "{}: {} (kernel {}, system {}, guests' files {})",
                path.display(),
                show_size(size),
                show_size(payload.kernel.len() as u64),
                show_size(payload.bundle.len() as u64 - bundle.file_bytes),
                show_size(bundle.file_bytes)
            );
        }
    }
    Ok(())
}

fn write(format: Format, payload: &Payload, path: &Path) -> anyhow::Result<()> {
    match format {
        Format::Bundle => write_if_changed(path, &payload.bundle),
        Format::Disk => write_if_changed(path, &disk::build(payload, &Grub::find()?)?),
        Format::Iso => iso::build(payload, &Grub::find()?, path),
    }
}

fn graph(arguments: &Graph) -> anyhow::Result<()> {
    let system = load(&arguments.source)?;
    if let Some(folder) = arguments.output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{}: the folder cannot be made", folder.display()))?;
    }
    write_if_changed(&arguments.output, image_builder::graph::Graph::new(&system).to_svg().as_bytes())?;
    println!("{}: written", arguments.output.display());
    Ok(())
}
