//! The Nearfield kernel.
//!
//! Glue: implements what the portable crates ask of a machine and owns the cores. Interrupts are off inside; every core runs on a stack
//! and on core-local data of its own node. Everything that knows x86-64 is in [`arch`].
//!
//! Invariants of this crate:
//! * G1: no page is writable and executable; the kernel never writes through a read-only mapping.
//! * G2: the ports of the serial line are touched under its lock only.
//! * G3: descriptor tables are complete before they are loaded and live forever.
//! * G4: a core sets up its own interrupt controller, once, after its IDT.
//! * G5: device registers are reached through uncached mappings that are never removed.
//! * G6: a stack address is one inside a mapped stack (`stacks`).
//! * G7: page tables are reached through one structure behind one lock, and come from zeroed frames that nothing else uses.
//! * G8: firmware tables are mapped read-only and never unmapped.
//! * G9: the heap's arenas are blocks of frames that go back as they came.
//! * G10: so are slabs.
#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod alarm;
#[path = "arch/x86_64/mod.rs"]
mod arch;
mod bank;
mod bench;
mod chance;
mod cores;
mod dispatch;
mod dump;
mod early;
mod endpoint;
mod expiry;
mod fault;
mod handler;
mod handmade;
mod harness;
mod heap;
mod homes;
mod image;
mod inherit;
mod interrupt;
mod jobs;
mod layout;
mod lease;
mod levels;
mod limits;
mod loader;
mod log;
mod machine;
mod machine_object;
mod memory;
mod messages;
mod metrics;
mod notification;
mod object;
mod panic;
mod ports;
mod process;
mod programs;
mod region;
mod report;
mod revoke;
mod skew;
mod slabs;
mod spaces;
mod spread;
mod stacks;
mod start;
mod symbols;
mod syscalls;
mod tables;
mod talk;
mod tests;
mod thread;
mod timers;
mod trace;
mod traps;
mod trial;
mod upcall;
mod wait;
