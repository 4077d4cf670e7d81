//! Nearfield's loader: boots a kernel that speaks the Limine boot protocol under `qemu -kernel`.
//!
//! The virtual machine enters through the PVH note (`machine/entry.S`) and passes a ustar bundle as the initrd.
//! Anything that stops a boot is one line on COM1 and an exit code of [`abi::exit::Exit`].
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod machine;

/// On a host there is nothing to boot; the library is what is tested here.
#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!("boot: build me for x86_64-unknown-none and start me with qemu-system-x86_64 -kernel");
    std::process::ExitCode::FAILURE
}
