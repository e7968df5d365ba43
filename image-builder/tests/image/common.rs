//! Executables made by hand, and descriptions for tests.

/// A loadable segment of a test executable.
pub struct Load {
    /// Address.
    pub address: u64,
    /// Bytes in the file.
    pub data: Vec<u8>,
    /// Bytes in memory.
    pub memory: u64,
    /// PF_R 4, PF_W 2, PF_X 1.
    pub flags: u32,
}

impl Load {
    /// A segment whose file part is all there is.
    pub fn new(address: u64, flags: u32, data: &[u8]) -> Self {
        Self {
            address,
            data: data.to_vec(),
            memory: data.len() as u64,
            flags,
        }
    }
}

/// An ELF-64 executable for x86-64 (System V ABI, ELF-64 object file format): header, program headers, content.
pub fn elf(entry: u64, loads: &[Load]) -> Vec<u8> {
    elf_of_kind(entry, loads, 1)
}

/// The same, with program headers of another kind than PT_LOAD.
pub fn elf_of_kind(entry: u64, loads: &[Load], kind: u32) -> Vec<u8> {
    let mut header = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header.extend(2_u16.to_le_bytes());
    header.extend(62_u16.to_le_bytes());
    header.extend(1_u32.to_le_bytes());
    for value in [entry, 64, 0] {
        header.extend(value.to_le_bytes());
    }
    header.extend(0_u32.to_le_bytes());
    for value in [64_u16, 56, loads.len() as u16, 64, 0, 0] {
        header.extend(value.to_le_bytes());
    }
    let mut content = Vec::new();
    let base = 64 + 56 * loads.len();
    for load in loads {
        header.extend(kind.to_le_bytes());
        header.extend(load.flags.to_le_bytes());
        let offset = (base + content.len()) as u64;
        for value in [offset, load.address, load.address, load.data.len() as u64, load.memory, 4096] {
            header.extend(value.to_le_bytes());
        }
        content.extend_from_slice(&load.data);
    }
    header.extend(content);
    header
}

/// A small program: text, constants, data with zero-initialised memory.
pub fn program() -> Vec<u8> {
    elf(
        0x40_1004,
        &[
            Load::new(0x40_0100, 4, b"constants"),
            Load::new(0x40_1000, 5, &[0x90; 5000]),
            Load {
                address: 0x40_3010,
                data: vec![7; 20],
                memory: 9000,
                flags: 6,
            },
        ],
    )
}

/// A folder with all programs and files that [`SYSTEM`] needs.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    for name in ["kernel", "init", "shell", "vmm", "vmx"] {
        std::fs::write(folder.path().join(name), program()).expect("program");
    }
    std::fs::write(folder.path().join("NOTICE.txt"), "notices").expect("notices");
    std::fs::write(folder.path().join("vmlinuz"), vec![0x42; 10_000]).expect("file");
    std::fs::write(folder.path().join("system.toml"), SYSTEM).expect("description");
    folder
}

/// A description without mistakes.
pub const SYSTEM: &str = r#"product = "Tessera test"
[files]
linux = "vmlinuz"
[[server]]
name = "shell"
priority = 48
[server.grants]
init = { use = "init" }
com1 = { io-ports = "0x3f8-0x3ff" }
com1-irq = { irq = 4 }
log = "kernel-log"
[[server]]
name = "vmx"
priority = 44
per-vm = true
[[server]]
name = "vmm"
priority = 40
per-vm = true
fpu = false
[[vm]]
name = "debian"
memory = "256 MiB"
vcpus = 2
kernel = "linux"
"#;
