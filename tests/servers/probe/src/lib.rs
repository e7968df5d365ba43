//! The parts of the probe that need no kernel: random numbers, statistics, and the choice of arguments for fuzzing.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod arguments;
pub mod random;
pub mod statistics;
