//! The contract between the kernel, what starts it and what reads its results.
//!
//! For programs: [`syscall`], the calls; [`error`], what they answer; [`cap`], how objects are named; [`task`], the structures that are
//! passed; [`ipc`], messages; [`quota`], quotas and leases; [`image`], why a program cannot be run; [`debug`], what is told of the kernel itself. For who starts the kernel: [`exit`], the
//! codes a run ends with, and [`boot`], the words of the kernel command line.
//! Host tools, the loader, programs and the kernel share these definitions, so none of the numbers is written twice.
//! Depends on nothing.
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod cap;
pub mod debug;
pub mod error;
pub mod exit;
pub mod image;
pub mod ipc;
pub mod quota;
pub mod syscall;
pub mod task;
