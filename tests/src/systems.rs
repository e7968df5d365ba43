//! Descriptions of systems for tests: the delivered `system.toml`, less its guests where a test needs none, plus servers and machines of the test's own.

use std::{fmt::Write, fs, path::Path};

/// The text of a description.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct System {
    text: String,
}

/// A probe: a server of the test.
#[derive(Clone, Debug)]
pub struct Probe {
    name: String,
    arguments: Vec<String>,
    priority: u8,
    cpu: Option<u32>,
    restart: bool,
    memory: &'static str,
    grants: Vec<String>,
}

impl Probe {
    /// A probe of middling priority that is not restarted and has no grants. `arguments` are words; the first is its role.
    #[must_use]
    pub fn new(name: &str, arguments: &str) -> Self {
        Self {
            name: name.into(),
            arguments: arguments.split_whitespace().map(Into::into).collect(),
            priority: 30,
            cpu: None,
            restart: false,
            memory: "1 MiB",
            grants: Vec::new(),
        }
    }

    /// Sets the priority.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the processor.
    #[must_use]
    pub fn cpu(mut self, cpu: u32) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// It is restarted when it ends.
    #[must_use]
    pub fn restarted(mut self) -> Self {
        self.restart = true;
        self
    }

    /// Sets the memory for objects of its own.
    #[must_use]
    pub fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    /// Grants something, in the description's own words.
    #[must_use]
    pub fn grant(mut self, line: &str) -> Self {
        self.grants.push(line.into());
        self
    }

    /// It prints on the second serial port.
    #[must_use]
    pub fn reports(self) -> Self {
        self.grant("report = { io-ports = \"0x2f8-0x2ff\" }")
    }
}

/// A virtual machine of the test.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Name.
    pub name: String,
    /// One of the description's files; `bios` and `uefi` are firmware.
    pub kernel: &'static str,
    /// The RAM disk of `[files]`, or none.
    pub initramfs: Option<&'static str>,
    /// RAM in MiB.
    pub memory: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// Kernel command line.
    pub command_line: String,
    /// It has a screen, a keyboard and a mouse.
    pub display: bool,
    /// Start at boot.
    pub autostart: bool,
    /// Its disks, each as a table in the description's own words.
    pub disks: Vec<String>,
    /// Its network cards, likewise.
    pub nics: Vec<String>,
    /// One of the description's files in its CD-ROM drive.
    pub cdrom: Option<&'static str>,
    /// More lines of its table, in the description's own words.
    pub more: Vec<String>,
}

impl Guest {
    /// Debian's kernel for clouds with the test RAM disk; `test` is one of `tests/guests/initramfs/tests` or empty.
    #[must_use]
    pub fn debian(name: &str, test: &str) -> Self {
        Self {
            name: name.into(),
            kernel: "debian-kernel",
            initramfs: Some("debian-initramfs"),
            memory: 128,
            vcpus: 1,
            command_line: if test.is_empty() {
                "console=ttyS0".into()
            } else {
                format!("console=ttyS0 quiet guest.test={test}")
            },
            display: false,
            autostart: true,
            disks: vec![],
            nics: vec![],
            cdrom: None,
            more: vec![],
        }
    }

    /// Debian from its disk: the first of the host's disks of driver virtio. Its kernel and RAM disk are the description's files `debian-kernel` and `debian-disk-initramfs`.
    #[must_use]
    pub fn debian_on_disk(name: &str, init: &str) -> Self {
        Self {
            initramfs: Some("debian-disk-initramfs"),
            memory: 256,
            command_line: format!("console=ttyS0 quiet root=/dev/vda init={init}"),
            disks: vec!["{ device = \"virtio0\", serial = \"ROOT-DISK\" }".into()],
            ..Self::debian(name, "")
        }
    }

    /// The bare guest, which runs `test`. It is not started at boot.
    #[must_use]
    pub fn bare(test: &str) -> Self {
        Self {
            name: test.into(),
            kernel: "bare-guest",
            initramfs: None,
            memory: 64,
            vcpus: 1,
            command_line: format!("guest.test={test}"),
            display: false,
            autostart: false,
            disks: vec![],
            nics: vec![],
            cdrom: None,
            more: vec![],
        }
    }
}

impl Guest {
    /// A guest without Linux whose kernel is the description's file `kernel`. It is not started at boot.
    #[must_use]
    pub fn other(name: &str, kernel: &'static str, command_line: &str) -> Self {
        Self {
            kernel,
            command_line: command_line.into(),
            ..Self::bare(name)
        }
    }
}

impl System {
    /// The delivered system. Paths of its files are made absolute, since the description is copied.
    pub fn delivered(root: &Path) -> std::io::Result<Self> {
        let text = fs::read_to_string(root.join("system.toml"))?;
        Ok(Self {
            text: text.replace("\"build/", &format!("\"{}/build/", root.display())),
        })
    }

    /// The same without management, which costs emulators time at each boot.
    pub fn product(root: &Path) -> std::io::Result<Self> {
        Ok(Self::delivered(root)?.without_server("hostd"))
    }

    /// With a password for `root` that is known.
    #[must_use]
    pub fn first_password(mut self, password: &str) -> Self {
        let arguments = format!("name = \"hostd\"\narguments = [\"password={password}\"]\n");
        self.text = self.text.replacen("name = \"hostd\"\n", &arguments, 1);
        self
    }

    /// Without a server that others can do without.
    fn without_server(self, name: &str) -> Self {
        let heading = format!("\n[[server]]\nname = \"{name}\"\n");
        let Some(begin) = self.text.find(&heading) else { return self };
        let rest = &self.text[begin + 1..];
        let end = rest[2..]
            .match_indices("\n[")
            .map(|(place, _)| place + 3)
            .find(|place| rest[*place..].starts_with("[[") || rest[*place..].starts_with("[files"))
            .unwrap_or(rest.len());
        let mut text = self.text[..=begin].to_owned();
        text.push_str(&rest[end..]);
        // Files that only it had, and who calls it.
        let calls = format!("{name} = {{ use = \"{name}\" }}");
        let text = text
            .lines()
            .filter(|line| !line.starts_with("web-pack = ") && !line.starts_with("notices = ") && *line != calls)
            .collect::<Vec<_>>()
            .join("\n")
            + "\n";
        Self { text }
    }

    /// Without virtual machines and without files.
    #[must_use]
    pub fn without_guests(self) -> Self {
        self.without(&["[[vm]]", "[files]"])
    }

    /// Without the delivered virtual machines; their files stay.
    #[must_use]
    pub fn without_machines(self) -> Self {
        self.without(&["[[vm]]"])
    }

    fn without(self, sections: &[&str]) -> Self {
        let mut text = String::new();
        let mut keep = true;
        for line in self.text.lines() {
            if line.starts_with('[') {
                keep = !sections.contains(&line.trim());
            }
            if keep {
                text.push_str(line);
                text.push('\n');
            }
        }
        Self { text }
    }

    /// The storage server gets no disk controllers: they are for somebody else.
    #[must_use]
    pub fn without_disks(mut self) -> Self {
        self.text = self.text.replacen("disks = { pci = \"storage\" }\n", "", 1);
        self
    }

    /// The network server gets no network cards: nobody drives them.
    #[must_use]
    pub fn without_cards(mut self) -> Self {
        self.text = self.text.replacen("cards = { pci = \"network\" }\n", "", 1);
        self
    }

    /// Adds a file under a name.
    #[must_use]
    pub fn file(mut self, name: &str, path: &Path) -> Self {
        let line = format!("[files]\n{name} = \"{}\"\n", path.display());
        if self.text.contains("\n[files]\n") {
            self.text = self.text.replacen("[files]\n", &line, 1);
        } else {
            let _ = write!(self.text, "\n{line}");
        }
        self
    }

    /// Adds a probe.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        let Probe {
            name,
            arguments,
            priority,
            cpu,
            restart,
            memory,
            grants,
        } = probe;
        // Writing to a String does not fail.
        let _ = write!(
            self.text,
            "\n[[server]]\nname = \"{name}\"\nprogram = \"probe\"\narguments = {arguments:?}\npriority = {priority}\nmemory = \"{memory}\"\nslots = 512\nrestart = \"{}\"\n",
            if restart { "always" } else { "never" }
        );
        if let Some(cpu) = cpu {
            let _ = writeln!(self.text, "cpu = {cpu}");
        }
        if !grants.is_empty() {
            let _ = write!(self.text, "[server.grants]\n{}\n", grants.join("\n"));
        }
        self
    }

    /// Adds the probe that prints the system's log on the second serial port.
    #[must_use]
    pub fn relay(self) -> Self {
        self.probe(
            Probe::new("relay", "relay")
                .priority(46)
                .reports()
                .grant("supervisor = { use = \"init\" }"),
        )
    }

    /// The storage server may destroy what is on disks.
    #[must_use]
    pub fn exercises_disks(mut self) -> Self {
        self.text = self
            .text
            .replacen("name = \"storage\"\n", "name = \"storage\"\narguments = [\"exercise\"]\n", 1);
        self
    }

    /// The network server may speak for itself.
    #[must_use]
    pub fn exercises_nics(mut self) -> Self {
        self.text = self
            .text
            .replacen("name = \"net\"\n", "name = \"net\"\narguments = [\"exercise\"]\n", 1);
        self
    }

    /// Adds tables in the description's own words.
    #[must_use]
    pub fn with(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Adds a virtual machine.
    #[must_use]
    pub fn guest(mut self, guest: &Guest) -> Self {
        let Guest {
            name,
            kernel,
            initramfs,
            memory,
            vcpus,
            command_line,
            display,
            autostart,
            disks,
            nics,
            cdrom,
            more,
        } = guest;
        // The files of firmware have these names.
        let what = if matches!(*kernel, "bios" | "uefi") { "firmware" } else { "kernel" };
        let _ = write!(
            self.text,
            "\n[[vm]]\nname = \"{name}\"\nmemory = \"{memory} MiB\"\nvcpus = {vcpus}\n{what} = \"{kernel}\"\ncommand-line = \"{command_line}\"\nautostart = {autostart}\n"
        );
        if *display {
            self.text.push_str("display = true\n");
        }
        if let Some(initramfs) = initramfs {
            let _ = writeln!(self.text, "initramfs = \"{initramfs}\"");
        }
        if let Some(cdrom) = cdrom {
            let _ = writeln!(self.text, "cdrom = \"{cdrom}\"");
        }
        for line in more {
            let _ = writeln!(self.text, "{line}");
        }
        if !disks.is_empty() {
            let _ = writeln!(self.text, "disks = [{}]", disks.join(", "));
        }
        if !nics.is_empty() {
            let _ = writeln!(self.text, "nics = [{}]", nics.join(", "));
        }
        self
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> System {
        System {
            text: "product = \"x\"\n\n[files]\nk = \"a\"\n\n[[server]]\nname = \"shell\"\n[server.grants]\ni = 1\n\n[[vm]]\nname = \"debian\"\n".into(),
        }
    }

    #[test]
    fn sections_go() {
        let text = system().without_guests().text;
        assert!(text.contains("shell") && text.contains("i = 1"));
        assert!(!text.contains("debian") && !text.contains("k = "));
    }

    #[test]
    fn files_and_probes_come() {
        let text = system()
            .file("n", Path::new("/p"))
            .probe(Probe::new("p", "refuse now").reports())
            .text;
        assert!(text.contains("[files]\nn = \"/p\"\nk = "));
        assert!(text.contains("arguments = [\"refuse\", \"now\"]"));
        assert_eq!(text.matches("[files]").count(), 1);
    }
}
