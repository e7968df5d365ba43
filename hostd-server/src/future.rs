//! Futures of a server with one thread.

use alloc::boxed::Box;
use core::{future::Future, pin::Pin};

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;
