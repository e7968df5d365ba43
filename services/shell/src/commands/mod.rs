//! The commands, one object each.

mod caps;
mod capture;
mod clear;
mod cpu;
mod datastore;
mod disk;
mod help;
mod iommu;
mod ipc;
mod irq;
mod kill;
mod log;
mod mem;
mod nic;
mod pci;
mod ping;
mod port;
mod power;
mod ps;
mod restart;
mod switch;
mod trace;
mod uptime;
mod version;
mod vm;

use crate::{
    host::{Answer, Host},
    suggest,
    terminal::Output,
};
use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use tessera_proto::{CallError, FailureKind, supervisor::ServerInfo, vm_manager::VmSummary};

pub(crate) use self::{clear::screen as clear_screen, cpu::used as features_in_use, log::print_chunk};

/// All commands, in the order of `help`.
pub static COMMANDS: &[&dyn Command] = &[
    &help::Help,
    &ps::Ps,
    &caps::Caps,
    &mem::Mem,
    &cpu::Cpu,
    &irq::Irq,
    &pci::Pci,
    &iommu::Iommu,
    &disk::Disk,
    &datastore::Datastore,
    &nic::Nic,
    &switch::Switch,
    &port::Port,
    &capture::Capture,
    &ping::Ping,
    &ipc::Ipc,
    &vm::Vm,
    &log::Log,
    &trace::Trace,
    &kill::Kill,
    &restart::Restart,
    &uptime::Uptime,
    &version::Version,
    &clear::Clear,
    &power::Reboot,
    &power::PowerOff,
];

/// A command.
pub trait Command: Sync {
    /// What is typed.
    fn name(&self) -> &'static str;
    /// One line for the list of commands.
    fn summary(&self) -> &'static str;
    /// Its forms, one a line.
    fn usage(&self) -> &'static [&'static str];
    /// What it does, in whole sentences; paragraphs are separated by line feeds.
    fn help(&self) -> &'static str;
    /// Words that may follow `before`, its arguments so far.
    fn complete(&self, _host: &mut dyn Host, _before: &[&str]) -> Vec<String> {
        Vec::new()
    }
    /// Runs it.
    ///
    /// # Errors
    /// What happened, and what to do.
    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure>;
}

/// What a command works with.
pub struct Context<'a> {
    /// The system.
    pub host: &'a mut dyn Host,
    /// The terminal.
    pub out: Output<'a>,
    /// What commands remember from one time to the next.
    pub memory: &'a mut Memory,
}

/// What commands remember.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When `ps` last looked (TSC), and each server's processor time then.
    pub servers: Option<(u64, Vec<(u64, u64)>)>,
    /// When `cpu` last looked, with idle time and TSC of each processor.
    pub cpus: Vec<(u64, u64)>,
    /// The events that `trace on` chose.
    pub trace_mask: u64,
    /// Captures that `capture read` has read, and how far.
    pub captures: Vec<(u32, u64)>,
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened, to what.
    pub what: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: hint.into(),
        }
    }

    /// The arguments are not what the command takes.
    #[must_use]
    pub fn usage(command: &dyn Command, what: impl Into<String>) -> Self {
        Self::new(what, format!("help {}", command.name()))
    }

    /// A call failed; `doing` says what was tried.
    #[must_use]
    pub fn call(doing: &str, error: &CallError) -> Self {
        let hint = match error {
            CallError::Failed(failure) if failure.kind == FailureKind::NotAllowed => "The system manifest decides what the shell may do.",
            CallError::Kernel(tessera_abi::Error::ServerDied) => "Look at `log` for why it ended, then try again.",
            CallError::Kernel(tessera_abi::Error::TimedOut) => "It is busy or stuck: `ps` shows what it is doing.",
            _ => "",
        };
        Self::new(format!("{doing}: {error}"), hint)
    }
}

/// Names what was tried in a failed call.
pub trait Doing<T> {
    /// `doing` in the infinitive: "cannot DOING".
    ///
    /// # Errors
    /// The call's failure.
    fn doing(self, doing: &str) -> Result<T, Failure>;
}

impl<T> Doing<T> for Answer<T> {
    fn doing(self, doing: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::call(&format!("cannot {doing}"), &error))
    }
}

/// Runs a line.
///
/// # Errors
/// The command's failure, or that there is no such command.
pub fn run(context: &mut Context<'_>, line: &str) -> Result<(), Failure> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let Some((name, arguments)) = words.split_first() else {
        return Ok(());
    };
    let command = find(name)?;
    if matches!(arguments, ["-h" | "--help"]) {
        return help::explain(context, command);
    }
    command.execute(context, arguments)
}

/// The command of that name.
///
/// # Errors
/// That there is none, and which one may be meant.
pub fn find(name: &str) -> Result<&'static dyn Command, Failure> {
    COMMANDS.iter().copied().find(|command| command.name() == name).ok_or_else(|| {
        let known = suggest::nearest(name, COMMANDS.iter().map(|command| command.name()));
        Failure::new(
            format!("unknown command `{}`", shorten(name)),
            known.map_or("Type `help` for a list of commands.".into(), |known| {
                format!("Did you mean `{known}`?")
            }),
        )
    })
}

/// Words that may stand at the end of `line`.
pub fn candidates(host: &mut dyn Host, line: &str) -> Vec<String> {
    let head = line.get(..line.rfind(' ').map_or(0, |space| space + 1)).unwrap_or("");
    let words: Vec<&str> = head.split_ascii_whitespace().collect();
    match words.split_first() {
        None => COMMANDS.iter().map(|command| command.name().to_owned()).collect(),
        Some((name, before)) => find(name).map_or_else(|_| Vec::new(), |command| command.complete(host, before)),
    }
}

/// A word as it can stand in a message.
#[must_use]
pub fn shorten(word: &str) -> &str {
    crate::terminal::clip(word, 32)
}

/// No arguments may follow.
fn no_arguments(command: &dyn Command, arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        [] => Ok(()),
        [first, ..] => Err(Failure::usage(
            command,
            format!("`{}` takes no argument `{}`", command.name(), shorten(first)),
        )),
    }
}

/// A number in an argument.
fn number(command: &dyn Command, what: &str, word: &str) -> Result<u32, Failure> {
    word.parse()
        .map_err(|_| Failure::usage(command, format!("{what} must be a number, not `{}`", shorten(word))))
}

/// The server of that name.
fn server(context: &mut Context<'_>, name: &str) -> Result<ServerInfo, Failure> {
    let servers = context.host.servers().doing("list servers")?;
    let known = suggest::nearest(name, servers.iter().map(|server| &*server.name));
    let hint = known.map_or("`ps` lists them.".into(), |known| format!("Did you mean `{known}`?"));
    servers
        .into_iter()
        .find(|server| server.name == name)
        .ok_or_else(|| Failure::new(format!("there is no server `{}`", shorten(name)), hint))
}

/// The virtual machine of that name.
fn machine(context: &mut Context<'_>, name: &str) -> Result<VmSummary, Failure> {
    let machines = context.host.vms().doing("list virtual machines")?;
    let known = suggest::nearest(name, machines.iter().map(|vm| &*vm.name));
    let hint = known.map_or("`vm list` shows them.".into(), |known| format!("Did you mean `{known}`?"));
    machines
        .into_iter()
        .find(|vm| vm.name == name)
        .ok_or_else(|| Failure::new(format!("there is no virtual machine `{}`", shorten(name)), hint))
}

fn server_names(host: &mut dyn Host) -> Vec<String> {
    host.servers()
        .map_or_else(|_| Vec::new(), |servers| servers.into_iter().map(|server| server.name).collect())
}

fn vm_names(host: &mut dyn Host) -> Vec<String> {
    host.vms()
        .map_or_else(|_| Vec::new(), |machines| machines.into_iter().map(|vm| vm.name).collect())
}

/// Joins the words that stand between double quotes.
fn unquote(command: &dyn Command, arguments: &[&str]) -> Result<Vec<String>, Failure> {
    let mut whole = Vec::new();
    let mut open: Option<String> = None;
    for word in arguments {
        let (text, ends) = match (&open, word.strip_prefix('"')) {
            (Some(before), _) => (format!("{before} {word}"), word.ends_with('"')),
            (None, Some(rest)) => (rest.to_owned(), rest.ends_with('"')),
            (None, None) => {
                whole.push((*word).to_owned());
                continue;
            }
        };
        if ends {
            whole.push(text.trim_end_matches('"').to_owned());
            open = None;
        } else {
            open = Some(text);
        }
    }
    match open {
        None => Ok(whole),
        Some(_) => Err(Failure::usage(command, "a name in double quotes does not end")),
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests;
