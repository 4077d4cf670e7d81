//! The laboratory: how Nearfield measures itself, the same in the kernel, in a user program and on the host.
//!
//! [`mod@bench`] is the type of a benchmark row, [`runner`] runs a table of rows with a [`clock`] and records into a
//! [`hist`]ogram, [`record`] carries everything over a serial line, [`channel`] from a program to the kernel, and [`prng`] makes runs
//! repeatable.
//! Nothing here allocates, panics on data or knows an architecture; the decoding side of [`record`] alone needs
//! an allocator and sits behind the feature `std`.
//!
//! Invariants: P1 nothing is recorded, allocated or printed inside a timed window. P2 a figure carries its unit,
//! lane and sample count. P3 a percentile that its sample count does not support is absent. P4 a frame that was
//! damaged is never delivered.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

mod words;

pub mod bench;
pub mod channel;
pub mod clock;
pub mod hist;
pub mod prng;
pub mod record;
pub mod runner;
pub mod stats;
pub mod sync;
pub mod tally;
pub mod trace;
