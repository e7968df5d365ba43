//! `tessera`: manages a host from the command line.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in or not allowed, 4 there is no such thing, 5 something stands in the way.
#![forbid(unsafe_code)]

mod call;
mod console;
mod files;
mod host;
mod http;
mod login;
mod network;
mod show;
mod vm;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use host::list;
use http::Refusal;
use login::place;
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(name = "tessera", version, about = "Manages Tessera hosts")]
struct Options {
    /// Show the host's JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Log in; the host's certificate is remembered, and no other is accepted afterwards.
    Login {
        /// `https://HOST:PORT`.
        url: String,
        /// Account.
        #[arg(long, short, default_value = "root")]
        user: String,
        /// File with the password; left out: it is read from the standard input.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// SHA-256 of the certificate that is to be trusted from now on.
        #[arg(long)]
        trust: Option<String>,
    },
    /// Log out.
    Logout,
    /// The host in short.
    Host,
    /// Machines.
    #[command(subcommand)]
    Vm(vm::Vm),
    /// Files of datastores.
    #[command(subcommand)]
    File(files::Files),
    /// Networks.
    #[command(subcommand)]
    Network(network::Network),
    /// PCI functions of the host: who has them, and which a machine can have for itself.
    Pci,
    /// Datastores.
    Datastores,
    /// Tasks, newest first.
    Tasks,
    /// Events, newest first.
    Events,
    /// Any operation of the API by its name, such as `setDns`; without a name: all of them.
    Call {
        /// Name (`operationId`).
        operation: Option<String>,
        /// `NAME=VALUE` for the path and the query.
        #[arg(long, short)]
        set: Vec<String>,
        /// Body, JSON; `-`: from the standard input.
        #[arg(long, short)]
        body: Option<String>,
    },
    /// Write the completions of a shell.
    Completion {
        /// Shell.
        shell: clap_complete::Shell,
    },
}

fn run(options: Options) -> Result<()> {
    let wanted = options.json;
    match options.command {
        Command::Login {
            url,
            user,
            password_file,
            trust,
        } => login::login(&url, &user, password_file, trust)?,
        Command::Logout => {
            place()?.json("DELETE", "/api/v1/session", None)?;
            login::forget()?;
        }
        Command::Host => show::one(&place()?.json("GET", "/api/v1/host", None)?, wanted),
        Command::Vm(command) => vm::run(&place()?, command, wanted)?,
        Command::File(command) => files::run(&place()?, command, wanted)?,
        Command::Network(command) => network::run(&place()?, command, wanted)?,
        Command::Pci => show::list(
            &list(&place()?, "/host/pci-devices")?,
            &["address", "name", "vendorId", "deviceId", "server", "vm", "configured", "problem"],
            wanted,
        ),
        Command::Datastores => show::list(
            &list(&place()?, "/datastores")?,
            &["id", "name", "capacity", "free", "device", "accessible"],
            wanted,
        ),
        Command::Tasks => show::list(
            &list(&place()?, "/tasks")?,
            &["id", "name", "targetName", "user", "state", "progress", "queued"],
            wanted,
        ),
        Command::Events => show::list(
            &list(&place()?, "/events")?,
            &["time", "severity", "kind", "message", "user"],
            wanted,
        ),
        Command::Call { operation, set, body } => call::call(operation.as_deref(), &set, body, wanted)?,
        Command::Completion { shell } => clap_complete::generate(shell, &mut Options::command(), "tessera", &mut std::io::stdout()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let Err(error) = run(Options::parse()) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("tessera: {error:#}");
    ExitCode::from(match error.downcast_ref::<Refusal>().map(|refusal| refusal.status) {
        Some(401 | 403) => 3,
        Some(404) => 4,
        Some(409 | 412) => 5,
        _ => 1,
    })
}
