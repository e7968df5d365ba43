//! The description of a system (`system.toml`) as types. What stands here is well-formed; [`crate::check`] says whether it also makes sense.
//!
//! Every field of the format is documented at the type that it fills.

mod disk;
mod grant;
mod nic;
mod passthrough;
mod server;
mod switch;
mod vm;

pub use disk::{Backing, Disk};
pub use grant::{Grant, Kind, Need};
pub use nic::Nic;
pub use server::Server;
pub use switch::Switch;
pub use vm::Vm;

use crate::{
    document,
    reader::{Reader, text},
    source::{Diagnostics, Invalid, Located, Sources, Span},
};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// A whole system.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// `product`: name and version for banners.
    pub product: String,
    /// `[kernel] program`: the kernel's executable among the programs. Default `kernel`.
    pub kernel: Located<String>,
    /// `[kernel] command-line`. Default empty.
    pub command_line: Located<String>,
    /// `[root] program`: the server that the kernel starts, and that starts the others. Default `init`.
    pub root: Located<String>,
    /// `[files] NAME = "PATH"`: files for the bundle; paths count from the folder of the description.
    pub files: Vec<(Located<String>, Located<PathBuf>)>,
    /// `[[server]]`, in start order.
    pub servers: Vec<Server>,
    /// `[[vm]]`.
    pub vms: Vec<Vm>,
    /// `[[switch]]`.
    pub switches: Vec<Switch>,
}

/// A description that was read, with what is needed to talk about it.
pub struct Description {
    /// The system.
    pub system: System,
    /// Its texts.
    pub sources: Sources,
    /// What was found so far.
    pub diagnostics: Diagnostics,
}

impl Description {
    /// Reads a description from a file and applies the overrides of the command line to it.
    ///
    /// # Errors
    /// The file cannot be read. Mistakes in it are kept in `diagnostics`.
    pub fn read(path: &Path, overrides: &[String]) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "{}: the description of the system cannot be read; name another with --system",
                path.display()
            )
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self::parse(&path.display().to_string(), &text, folder, overrides))
    }

    /// Reads a description from a text.
    #[must_use]
    pub fn parse(name: &str, text: &str, folder: &Path, overrides: &[String]) -> Self {
        let mut sources = Sources::default();
        let mut diagnostics = Diagnostics::default();
        let base = sources.add(name, text);
        let mut table = document::parse(text, base, &mut diagnostics);
        for assignment in overrides {
            document::set(&mut table, assignment, &mut sources, &mut diagnostics);
        }
        // A text that is no TOML has holes; complaints about what is missing would only hide the first mistake.
        let system = if diagnostics.has_errors() {
            System::default()
        } else {
            let reader = Reader::new(&table, Span { start: base, end: base }, "the system");
            System::from_reader(reader, folder, &mut diagnostics)
        };
        Self {
            system,
            sources,
            diagnostics,
        }
    }

    /// The system, if it has no error; warnings come with it.
    ///
    /// # Errors
    /// All mistakes.
    pub fn finish(self) -> Result<(System, Invalid), Invalid> {
        let errors = self.diagnostics.has_errors();
        let found = Invalid {
            sources: self.sources,
            diagnostics: self.diagnostics.sorted(),
        };
        if errors { Err(found) } else { Ok((self.system, found)) }
    }
}

impl System {
    fn from_reader(mut reader: Reader<'_>, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        let mut system = Self {
            product: reader
                .text("product", diagnostics)
                .map_or_else(|| "Tessera".to_string(), |product| product.value),
            kernel: Located::new("kernel".to_string(), reader.span()),
            root: Located::new("init".to_string(), reader.span()),
            ..Self::default()
        };
        if let Some(mut kernel) = reader.get("kernel").and_then(|node| Reader::from_node(node, "kernel", diagnostics)) {
            if let Some(program) = kernel.text("program", diagnostics) {
                system.kernel = program;
            }
            if let Some(command_line) = kernel.text("command-line", diagnostics) {
                system.command_line = command_line;
            }
            kernel.finish(diagnostics);
        }
        if let Some(mut root) = reader.get("root").and_then(|node| Reader::from_node(node, "root", diagnostics)) {
            if let Some(program) = root.text("program", diagnostics) {
                system.root = program;
            }
            root.finish(diagnostics);
        }
        for (name, node) in reader.entries("files", diagnostics) {
            if let Some(path) = text(node, &name.value, diagnostics) {
                system.files.push((name.clone(), Located::new(folder.join(path.value), path.span)));
            }
        }
        for server in reader.tables("server", diagnostics) {
            system.servers.extend(Server::from_reader(server, diagnostics));
        }
        for vm in reader.tables("vm", diagnostics) {
            system.vms.extend(Vm::from_reader(vm, diagnostics));
        }
        for switch in reader.tables("switch", diagnostics) {
            system.switches.extend(Switch::from_reader(switch, diagnostics));
        }
        reader.finish(diagnostics);
        system
    }

    /// Names of the programs that the servers run, without the root's, in the order of their first use.
    #[must_use]
    pub fn programs(&self) -> Vec<&Located<String>> {
        let mut programs: Vec<&Located<String>> = Vec::new();
        for server in &self.servers {
            if !programs.iter().any(|program| program.value == server.program.value) {
                programs.push(&server.program);
            }
        }
        programs
    }

    /// Names of the endpoints that servers provide, in start order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<&str> {
        let grants = self.servers.iter().flat_map(|server| &server.grants);
        grants
            .filter_map(|grant| {
                if let Need::Provide(endpoint) = &grant.need {
                    Some(endpoint.as_str())
                } else {
                    None
                }
            })
            .collect()
    }
}
