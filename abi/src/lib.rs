//! The contract between the kernel, what starts it and what reads its results.
//!
//! Two tables so far: [`exit`], the codes a run ends with, and [`boot`], the words of the kernel command line.
//! Host tools, the loader and the kernel share these definitions, so none of the numbers is written twice.
//! Depends on nothing.
#![no_std]
#![forbid(unsafe_code)]

pub mod boot;
pub mod exit;
