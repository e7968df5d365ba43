//! A plugin of QEMU that counts what the emulated machine executes.
//!
//! The time stamp counter under `-icount` counts instructions only while the machine computes: when it waits for a disk the counter goes on, by host time or by the next
//! timer. Waiting must not count, so this counts each instruction that is executed, in a file that is mapped into QEMU and can be read at any moment.
//!
//! `-plugin libtessera_counter.so,counts=PATH[,blocks=on]`. The file's first eight bytes are the number of instructions, the next eight how many blocks follow. With
//! `blocks=on` there is a [`Block`] for each translated block from byte 4096 on: where it is, how it begins, and how often it was entered. All numbers are little-endian.
//!
//! The interface is QEMU's include/qemu/qemu-plugin.h, version 1 (QEMU 4.2 to 8.2).

use libc::{c_char, c_int, c_uint, c_void};
use std::{
    collections::HashMap,
    ffi::CStr,
    fs::File,
    mem::size_of,
    os::fd::AsRawFd,
    ptr,
    sync::{Mutex, OnceLock, PoisonError},
};

/// Version of the interface that QEMU has to have.
// SAFETY: the name is QEMU's own for this variable; nothing else in this library has it.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD_U64: c_uint = 0;
/// Where the blocks begin in the file.
const BLOCKS_AT: usize = 4096;
/// Blocks that the file has room for; what comes later is counted in the last one.
const MOST_BLOCKS: usize = 1 << 20;
/// Bytes of code by which a block is recognised.
const CODE: usize = 24;

/// A block of instructions that run one after the other, as it stands in the file.
#[repr(C)]
struct Block {
    /// Virtual address.
    address: u64,
    /// How often it was entered.
    entered: u64,
    /// Instructions.
    instructions: u32,
    /// Bytes of `code` that are filled.
    length: u32,
    /// Its first bytes.
    code: [u8; CODE],
}

/// What tells a block: its address, its instructions and how it begins.
type Key = (u64, u32, [u8; CODE]);

/// The mapped file.
struct Counts {
    base: *mut u8,
    /// Numbers of the blocks seen so far; none: blocks are not counted.
    blocks: Option<Mutex<HashMap<Key, usize>>>,
}

// SAFETY: `base` is a shared mapping that is never unmapped. It is written to by code that QEMU generates, and beside that only under the lock of `blocks`.
unsafe impl Send for Counts {}
// SAFETY: as above.
unsafe impl Sync for Counts {}

static COUNTS: OnceLock<Counts> = OnceLock::new();

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut c_void));
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const c_void) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_data(instruction: *const c_void) -> *const u8;
    fn qemu_plugin_insn_size(instruction: *const c_void) -> usize;
    fn qemu_plugin_register_vcpu_insn_exec_inline(instruction: *mut c_void, operation: c_uint, count: *mut c_void, add: u64);
    fn qemu_plugin_register_vcpu_tb_exec_inline(block: *mut c_void, operation: c_uint, count: *mut c_void, add: u64);
}

impl Counts {
    fn open(path: &str, blocks: bool) -> std::io::Result<Self> {
        let size = BLOCKS_AT + if blocks { MOST_BLOCKS * size_of::<Block>() } else { 0 };
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(size as u64)?;
        // SAFETY: a new mapping of a file that is as long as the mapping, at an address of the system's choice; it outlives the descriptor.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            blocks: blocks.then(Mutex::default),
        })
    }

    /// Where the entries of a block are counted.
    fn entries(&self, blocks: &Mutex<HashMap<Key, usize>>, key: Key, length: usize) -> *mut c_void {
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let next = blocks.len();
        let number = *blocks.entry(key).or_insert(next.min(MOST_BLOCKS - 1));
        // SAFETY: `number` is below `MOST_BLOCKS`, for which the file has room, and the mapping is aligned to pages. Code that QEMU generated may write to `entered` meanwhile,
        // of which only the address is taken.
        unsafe {
            let block = self.base.add(BLOCKS_AT).cast::<Block>().add(number);
            if number == next {
                (*block).address = key.0;
                (*block).instructions = key.1;
                (*block).length = length as u32;
                (*block).code = key.2;
                self.base.cast::<u64>().add(1).write(blocks.len() as u64);
            }
            (&raw mut (*block).entered).cast()
        }
    }
}

/// Called by QEMU for each block that it translates.
extern "C" fn translated(_id: u64, block: *mut c_void) {
    let Some(counts) = COUNTS.get() else { return };
    // SAFETY: QEMU gives a block that is valid during this call, as are its instructions and their bytes, of which no more are read than QEMU says. The pointers to the counters are
    // into the mapping, which is never unmapped.
    unsafe {
        let number = qemu_plugin_tb_n_insns(block);
        let mut code = [0; CODE];
        let mut length = 0;
        for index in 0..number {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            // Each by itself: a block is left in the middle by a fault, or by an access to a device that has to be repeated.
            qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD_U64, counts.base.cast(), 1);
            let size = qemu_plugin_insn_size(instruction).min(CODE - length);
            ptr::copy_nonoverlapping(qemu_plugin_insn_data(instruction), code.as_mut_ptr().add(length), size);
            length += size;
        }
        if let Some(blocks) = &counts.blocks {
            let entries = counts.entries(blocks, (qemu_plugin_tb_vaddr(block), number as u32, code), length);
            qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, entries, 1);
        }
    }
}

/// Called by QEMU when it loads the plugin; an answer other than 0 ends QEMU.
///
/// # Safety
/// `arguments` has to point at `count` C strings.
// SAFETY: the name is QEMU's own for this function; nothing else in this library has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(id: u64, _info: *const c_void, count: c_int, arguments: *const *const c_char) -> c_int {
    let (mut path, mut blocks) = (None, false);
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's promise.
        let text = unsafe { CStr::from_ptr(*arguments.add(index)) }.to_string_lossy().into_owned();
        match text.split_once('=') {
            Some(("counts", value)) => path = Some(value.to_owned()),
            Some(("blocks", value)) => blocks = value == "on",
            _ => {
                eprintln!("tessera-counter: '{text}' is not known; there are counts=PATH and blocks=on");
                return 1;
            }
        }
    }
    let Some(path) = path else {
        eprintln!("tessera-counter: say where to count: counts=PATH");
        return 1;
    };
    match Counts::open(&path, blocks) {
        Ok(counts) => {
            COUNTS.get_or_init(|| counts);
            // SAFETY: `translated` is what QEMU expects, and this library is never unloaded.
            unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
            0
        }
        Err(error) => {
            eprintln!("tessera-counter: cannot count in {path}: {error}");
            1
        }
    }
}
