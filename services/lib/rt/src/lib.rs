//! The runtime of every server: entry, system calls, typed capabilities, heap, messages, threads, logging, and a panic that reports to init.
//!
//! A server's binary says `tessera_rt::entry!(main)`; its `main` finds what it was granted with [`start::grant`]. init itself, which nobody started with a
//! `StartInfo`, says `root_entry!` instead.
//!
//! On any other operating system the crate builds too, for host tests of servers: system calls then answer `Error::Unsupported`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod caps;
pub mod connection;
#[cfg(target_os = "tessera")]
pub mod heap;
pub mod lock;
pub mod logger;
pub mod message;
#[cfg(target_os = "tessera")]
pub mod panic;
pub mod random;
mod regions;
pub mod server;
mod slot_table;
pub mod slots;
pub mod stack;
pub mod start;
pub mod sys;
pub mod text;
pub mod thread;
pub mod time;
pub mod vm;

pub use caps::*;
pub use connection::Connection;
pub use lock::Mutex;
pub use log;
pub use start::{exit, grant, require, start_info};
pub use tessera_abi as abi;
pub use tessera_manifest as manifest;

/// Defines the program's entry: `entry!(main)` with `fn main()`. When `main` returns, the server ends with code 0. On other operating systems
/// the macro is empty: a function called `main` is then the program's by itself, and is compiled but not to be run.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_os = "tessera")]
        extern "C" fn tessera_start(_argument: u64) -> ! {
            $crate::start::begin();
            $main();
            $crate::exit(0, "")
        }
        $crate::entry_stub!(tessera_start);
    };
}

/// Defines the entry of init: `root_entry!(main)` with `fn main() -> !`. It begins on a small stack inside of the program, since the kernel gives it none; see [`stack`].
#[macro_export]
macro_rules! root_entry {
    ($main:path) => {
        #[cfg(target_os = "tessera")]
        extern "C" fn tessera_start(_argument: u64) -> ! {
            $main()
        }
        /// Where the first thread begins.
        #[cfg(target_os = "tessera")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn _start() -> ! {
            core::arch::naked_asm!(
                "xor ebp, ebp",
                "lea rsp, [rip + {stack} + {size}]",
                "call {start}",
                "ud2",
                stack = sym $crate::stack::FIRST,
                size = const $crate::stack::FIRST_SIZE,
                start = sym tessera_start
            )
        }
    };
}

/// The first instructions of a program: an empty frame chain, an aligned stack, and on to Rust.
#[doc(hidden)]
#[macro_export]
macro_rules! entry_stub {
    ($start:path) => {
        /// Where the first thread begins.
        #[cfg(target_os = "tessera")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn _start() -> ! {
            core::arch::naked_asm!("xor ebp, ebp", "and rsp, -16", "call {start}", "ud2", start = sym $start)
        }
    };
}
