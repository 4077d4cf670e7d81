//! What programs for Nearfield are written with.
//!
//! * [`start`]: entry and what a program is given; [`entry!`] names its main function, [`say!`] writes to the kernel's log.
//! * [`sys`]: a stub for each system call; [`handle`]: the objects behind them, with types.
//! * [`ipc`]: messages to and from endpoints, and replies. [`notification`]: bits to wait for, timers, leases. [`device`]: interrupt lines, I/O
//!   ports, device registers. [`memory`]: mappings and the heap. [`time`]: the clock.
//! * [`thread`], [`process`]: making and joining them. [`fiber`]: many user threads on few kernel threads.
//! * [`channel`]: items of 64 bytes through memory that two threads or processes share.
//! * [`sync`]: mutex, condition variable, semaphore, barrier on a futex; what nobody contends for stays in user mode.
//!
//! Sees `abi` and `perf` alone. The algorithms of [`sync`], [`channel`] and [`fiber`] build and are tested on the host; what enters the kernel exists
//! for the machine only.
//!
//! Invariants: R1 a stack is given back only when its thread has ended by itself. R2 a value behind a mutex is touched by its holder
//! only. R3 `Start` is set before `main` and stays.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod arch;
pub mod channel;
pub mod sync;

#[cfg(target_os = "none")]
pub mod device;
#[cfg(target_os = "none")]
pub mod fiber;
#[cfg(target_os = "none")]
pub mod handle;
#[cfg(target_os = "none")]
pub mod ipc;
#[cfg(target_os = "none")]
pub mod memory;
#[cfg(target_os = "none")]
pub mod notification;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
pub mod process;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(target_os = "none")]
pub mod sys;
#[cfg(target_os = "none")]
pub mod thread;
#[cfg(target_os = "none")]
pub mod time;

/// The linker script is no source to Cargo; this makes a change of it one, so that programs are linked again.
#[cfg(target_os = "none")]
const _: &str = include_str!("../program.ld");
