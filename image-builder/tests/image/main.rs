//! Tests of image-builder as a whole, in one program.
#![forbid(unsafe_code)]

mod common;
mod descriptions;
mod graph;
mod media;
mod programs;
