//! `cargo xtask run`: boots the kernel with its serial port on this terminal.

use crate::cli::{LaneChoice, RunArgs};
use crate::error::{Class, Error, Result};
use crate::guest::End;
use crate::image::Flavour;
use crate::process;
use crate::qemu::{Accelerator, Debugger, QemuSpec, Serial};
use crate::setup::{self, Need};
use crate::ui;
use crate::{image, lane};
use abi::boot::{ApicMode, Lane, Params};
use std::process::Command;

/// The subcommand.
///
/// # Errors
/// Whatever stops the build or the machine.
pub fn execute(args: &RunArgs) -> Result<()> {
    let topology = args.machine.topology()?;
    let cmdline = command_line(args)?;
    setup::ensure(&[Need::GuestTarget])?;
    let qemu = setup::qemu()?;
    if let LaneChoice::Fixed(lane) = args.lane {
        qemu.admit(&topology, accelerator(lane)?)?;
    }
    let flavour = if args.gdb { Flavour::Debuggable } else { args.flavour };
    let image = image::build(flavour)?;
    let lane = lane::resolve(args.lane, &qemu, &image)?;
    let debugger = if args.gdb { Debugger::Wait } else { Debugger::None };
    let spec = QemuSpec {
        topology,
        accelerator: accelerator(lane)?,
        serial: Serial::Terminal,
        debugger,
        plugin: None,
    };
    let cmdline = format!("lane={} {cmdline}", lane.word());
    let arguments = qemu.arguments(&spec, &image.payload, &cmdline)?;
    ui::line(&format!("run: {}, {}; leave with Ctrl-A X", spec.topology, lane.word()));
    if args.gdb {
        let kernel = image.kernel.display();
        ui::line(&format!("run: attach with `gdb {kernel} -ex 'target remote :1234'`"));
    }
    let status = process::show(Command::new(qemu.program()).args(&arguments))?;
    // Zero is Ctrl-A X: the user had enough.
    let end = if status.success() { End::Stopped } else { End::of_status(status, "") };
    end.error().map_or(Ok(()), Err)
}

fn accelerator(lane: Lane) -> Result<Accelerator> {
    Accelerator::of_lane(lane)
        .ok_or_else(|| Error::new(Class::Usage, format!("the lane {} has no machine", lane.word())))
}

/// The kernel command line, refused here if the kernel would refuse it.
fn command_line(args: &RunArgs) -> Result<String> {
    let mut words = vec![String::from("records=off")];
    if args.apic != ApicMode::Auto {
        words.push(format!("apic={}", args.apic.word()));
    }
    words.extend(args.words.iter().cloned());
    let line = words.join(" ");
    match Params::parse(&line) {
        Ok(_) => Ok(line),
        Err(bad) => Err(Error::new(Class::Usage, format!("the kernel does not know the word `{}`", bad.0))
            .next("see the table in abi/src/boot.rs")),
    }
}
