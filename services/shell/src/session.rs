//! The shell as a whole: greeting, prompt, lines, commands.

use crate::{
    commands::{self, Context, Doing, Failure, Memory},
    editor::{Complete, Edit, Editor},
    format,
    host::Host,
    key::{Decoder, Key},
    terminal::{Output, Style, Terminal},
};
use alloc::{format, string::String, vec::Vec};
use core::time::Duration;
use tessera_proto::vm_manager::VmState;

/// What the shell prints when it waits for a command.
pub const PROMPT: &str = "tessera> ";
/// How long a terminal has to answer what it can; one that comes later is heard, too, only not for the greeting.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes of input that are looked at for that answer.
const ANSWER: usize = 64;

/// A session on a terminal.
pub struct Session {
    editor: Editor,
    decoder: Decoder,
    memory: Memory,
    styled: bool,
}

struct Completer<'a>(&'a mut dyn Host);

impl Complete for Completer<'_> {
    fn candidates(&mut self, line: &str) -> Vec<String> {
        commands::candidates(self.0, line)
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self {
            editor: Editor::new(PROMPT),
            decoder: Decoder::default(),
            memory: Memory::default(),
            styled: false,
        }
    }

    fn context<'a>(&'a mut self, host: &'a mut dyn Host, terminal: &'a mut dyn Terminal) -> Context<'a> {
        Context {
            host,
            out: Output::new(terminal, self.styled),
            memory: &mut self.memory,
        }
    }

    /// Asks the terminal what it can, greets, and shows the first prompt.
    pub fn begin(&mut self, host: &mut dyn Host, terminal: &mut dyn Terminal) {
        self.ask(terminal);
        // A shell that ended may have left tracing on; this one would not know, and IPC would stay slower than it must.
        let _ = host.trace_mask(0);
        let mut context = self.context(host, terminal);
        if let Err(failure) = greet(&mut context) {
            complain(&mut context, &failure);
        }
        self.editor.show(terminal);
    }

    /// Device status report (ECMA-48, 8.3.35): a terminal that understands escape sequences answers "ready". A dumb one shows a few characters, which are wiped at once.
    fn ask(&mut self, terminal: &mut dyn Terminal) {
        terminal.write(b"\r\x1b[5n\r     \r");
        for _ in 0..ANSWER {
            match terminal.read() {
                Some(byte) => {
                    if self.decoder.feed(byte) == Some(Key::StatusReport) {
                        self.styled = true;
                        return;
                    }
                }
                None if terminal.wait(Some(PATIENCE)).input => {}
                None => return,
            }
        }
    }

    /// Handles all input that has arrived, running the commands in it.
    pub fn input(&mut self, host: &mut dyn Host, terminal: &mut dyn Terminal) {
        while let Some(byte) = terminal.read() {
            if byte == crate::console::LEAVE && !self.decoder.is_pending() {
                // Somebody leaves a console that has closed by itself just before: a fresh prompt says where they are.
                terminal.write(b"\r\n");
                self.editor.show(terminal);
                continue;
            }
            let Some(key) = self.decoder.feed(byte) else { continue };
            if key == Key::StatusReport {
                self.styled = true;
                continue;
            }
            match self.editor.feed(key, &mut Completer(host), terminal) {
                Edit::Continue => continue,
                Edit::Cancelled => {}
                Edit::Clear => {
                    let mut context = self.context(host, terminal);
                    commands::clear_screen(&mut context);
                }
                Edit::Line(line) => {
                    let mut context = self.context(host, terminal);
                    if let Err(failure) = commands::run(&mut context, &line) {
                        complain(&mut context, &failure);
                    }
                }
            }
            self.editor.show(terminal);
        }
    }

    /// Serves the terminal for ever.
    pub fn run(mut self, host: &mut dyn Host, terminal: &mut dyn Terminal) -> ! {
        self.begin(host, terminal);
        loop {
            self.input(host, terminal);
            terminal.wait(None);
        }
    }
}

/// Says what went wrong and what to do.
fn complain(context: &mut Context<'_>, failure: &Failure) {
    context.out.styled(Style::Error, "error: ");
    context.out.text(&indented(&failure.what, 7));
    if !failure.hint.is_empty() {
        context.out.styled(Style::Faint, "  try: ");
        context.out.text(&indented(&failure.hint, 7));
    }
}

/// Text that follows a mark of `indent` columns, with its line end.
fn indented(text: &str, indent: usize) -> String {
    let mark = "x".repeat(indent);
    let wrapped = crate::terminal::wrap(&format!("{mark}{text}"), crate::terminal::COLUMNS, indent);
    format!("{}\n", wrapped.get(indent..).unwrap_or(""))
}

/// Product, machine, log so far, what the last boot left, and what runs.
fn greet(context: &mut Context<'_>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let machine = context.host.machine();
    context.out.text("\n");
    context.out.styled_line(Style::Heading, &system.product);
    let backend = machine.as_ref().map_or("unknown", |machine| machine.backend_name());
    let processors = if system.cpus == 1 { "processor" } else { "processors" };
    context.out.line(&format!(
        "{} {processors}, {} of memory, virtualisation: {backend}",
        system.cpus,
        format::bytes(system.ram_bytes)
    ));
    if let Ok(machine) = machine {
        context.out.prose(
            &format!("features in use: {}", commands::features_in_use(machine.features).join(", ")),
            2,
        );
    }
    context.out.text("\n");
    boot_log(context, system.boot_tsc, system.tsc_hz)?;
    let record = context.host.panic_record();
    if !record.trim().is_empty() {
        context.out.text("\n");
        context
            .out
            .styled_line(Style::Error, "The kernel panicked before this boot. It left this record:");
        for line in record.lines() {
            context.out.prose(line, 2);
        }
    }
    context.out.text("\n");
    let running: Vec<String> = context
        .host
        .vms()
        .unwrap_or_default()
        .into_iter()
        .filter(|vm| vm.state == VmState::Running)
        .map(|vm| vm.name)
        .collect();
    match running.first() {
        Some(first) => {
            context.out.prose(
                &format!(
                    "Running: {}. `vm console {first}` opens its console, Ctrl-] returns.",
                    running.join(", ")
                ),
                0,
            );
        }
        None => context.out.line("No virtual machine is running; `vm list` shows what there is."),
    }
    context.out.line("Type `help` for a list of commands.");
    Ok(())
}

fn boot_log(context: &mut Context<'_>, boot: u64, hz: u64) -> Result<(), Failure> {
    let mut cursor = 0;
    loop {
        let chunk = context.host.log(cursor).doing("read the log")?;
        // Only what is there now: servers that log without end must not keep the prompt away.
        if chunk.lines.is_empty() || chunk.next <= cursor || cursor > 1000 {
            return Ok(());
        }
        cursor = commands::print_chunk(context, &chunk, boot, hz);
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
