//! A QEMU plugin that watches the kernel from outside, instruction by instruction. It has two things to tell.
//!
//! [`stays`], asked for by `through=ADDRESS`: what a core does between entering the kernel and leaving it, with every address that it reads or
//! writes. `cargo xtask test local` finds out from that whether cores that do the same meet anywhere.
//!
//! [`stretches`], asked for by `begin=ADDRESS`: how many instructions a core executes without taking interrupts, for which system call, and
//! where. `cargo xtask irqoff` makes a table of that.
//!
//! Both write to `out=FILE`. Interface: QEMU 9.1, `include/qemu/qemu-plugin.h`, version 3 of it.

mod api;
mod stays;
mod stretches;
mod tree;

use std::ffi::{CStr, c_char, c_int};

use api::{Id, Info};

/// The lowest address of the kernel's image.
const KERNEL: u64 = 0xffff_8000_0000_0000;

/// The version of the interface that this is written for.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 3;

/// An argument, `NAME=VALUE`.
#[derive(Clone, Copy, Debug)]
struct Argument<'t> {
    name: &'t str,
    value: &'t str,
}

impl Argument<'_> {
    /// Its value as an address.
    fn address(self) -> Option<u64> {
        u64::from_str_radix(self.value.trim_start_matches("0x"), 16).ok()
    }
}

/// Called by QEMU when it has loaded the plugin; 0 if all is well.
///
/// # Safety
/// 1. `arguments` are `count` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _: *const Info,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let mut texts = Vec::new();
    for index in 0..count as usize {
        // SAFETY: the caller's promise (1).
        let argument = unsafe { arguments.add(index) };
        // SAFETY: the caller's promise (1).
        let argument = unsafe { argument.read() };
        // SAFETY: the caller's promise (1).
        texts.push(unsafe { CStr::from_ptr(argument) }.to_string_lossy());
    }
    let parsed: Option<Vec<Argument<'_>>> =
        texts.iter().map(|text| text.split_once('=').map(|(name, value)| Argument { name, value })).collect();
    let begun = parsed.and_then(|arguments| {
        let stretches = arguments.iter().any(|argument| argument.name == "begin");
        if stretches { stretches::begin(id, &arguments) } else { stays::begin(id, &arguments) }
    });
    if begun.is_none() {
        eprintln!("witness: not understood: {}", texts.join(","));
    }
    c_int::from(begun.is_none())
}

/// Writes what is to be told.
fn write(out: &str, told: &str) {
    if let Err(error) = std::fs::write(out, told) {
        eprintln!("witness: cannot write {out}: {error}");
    }
}
