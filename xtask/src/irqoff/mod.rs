//! `cargo xtask irqoff`: for how many instructions each system call keeps interrupts off, and on which path.
//!
//! Programs make calls on one emulated core, and a plugin of QEMU's (`witness/src/stretches.rs`) says what it means by a stretch and keeps the
//! longest of each call. Names are put to that here ([`told`]), and what is allowed is [`limits`].

pub mod limits;
mod table;
mod told;

use crate::cli::IrqoffArgs;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits, Session};
use crate::image::{self, Flavour, Image};
use crate::qemu::{Accelerator, Qemu, QemuSpec};
use crate::setup::{self, Need};
use crate::topology::{Mebibytes, Topology};
use crate::ui::{self, Progress};
use crate::witness::{self, Symbols};
use crate::workspace;
use abi::boot::selects;
use abi::exit::Exit;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Version of the format of the file.
pub const VERSION: u32 = 1;

/// What makes calls: kernel tests that run programs, or rows.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    /// Its name.
    pub name: &'static str,
    /// Words of the kernel command line.
    pub line: &'static str,
    /// Memory of its machine.
    pub mebibytes: u64,
}

/// The driver for which no limits are known: behind which call a memory object's frames are given back is chance there.
const FUZZ: &str = "fuzz";

/// All of them. The first calls everything with every kind of bad argument.
pub const DRIVERS: &[Driver] = &[
    Driver { name: "matrix", line: "mode=test lane=icount filter=user.matrix", mebibytes: 1024 },
    Driver {
        name: "programs",
        line: "mode=test lane=icount filter=user.hostile,user.sync,user.talk,user.signals,user.arbiter,user.pages,user.many,user.faults,cap.calls,interrupt.drivers,quota.",
        mebibytes: 1024,
    },
    Driver { name: FUZZ, line: "mode=test lane=icount filter=user.fuzz,user.kills", mebibytes: 1024 },
    Driver {
        name: "rows",
        line: "mode=bench lane=icount samples=20 filter=process.life,thread.life,cap.revoke,shm.xfer,sync.",
        mebibytes: 1024,
    },
];

const LIMITS: Limits = Limits { total: Duration::from_secs(900), silence: Duration::from_secs(400) };

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StretchFile {
    /// Version of the format.
    pub schema: u32,
    /// What has made the calls.
    pub drivers: Vec<String>,
    /// The longest stretch of each call, and of each other way into the kernel; the longest first.
    pub stretches: Vec<Stretch>,
    /// Calls that nobody made.
    pub unseen: Vec<String>,
}

/// The longest stretch of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// Name of the call; or `at`, and the function or vector that it began with.
    pub origin: String,
    /// Instructions executed with interrupts off.
    pub instructions: u64,
    /// Stretches of this origin that were seen.
    pub seen: u64,
    /// What has made the call.
    pub driver: String,
    /// Where interrupts could be taken again.
    pub to: String,
    /// Who has called whom where most was executed; with all that was called below.
    pub path: Vec<Part>,
    /// The functions in which most was executed.
    pub most: Vec<Part>,
}

/// A function's part of a stretch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name.
    pub function: String,
    /// Instructions.
    pub instructions: u64,
}

/// The subcommand.
///
/// # Errors
/// [`Class::Regressed`] with `--gate`, or whatever stops a build or a machine.
pub fn execute(args: &IrqoffArgs) -> Result<()> {
    let drivers = chosen(args.drive.as_deref())?;
    setup::ensure(&[Need::GuestTarget])?;
    let qemu = setup::qemu()?;
    if !qemu.takes_plugins()? {
        return Err(Error::new(Class::Missing, witness::NO_PLUGINS).next("run `cargo xtask setup --newest`"));
    }
    let image = image::build(Flavour::Plain)?;
    let file = measure(&drivers, &qemu, &image)?;
    let text = json(&file)?;
    if let Some(path) = &args.output {
        fs::write(path, &text).map_err(|error| Error::io(&error, "write", path))?;
    }
    if args.json {
        ui::line(text.trim_end());
    } else {
        table::print(&file, &args.filter);
    }
    match limits::broken(&file) {
        broken if args.gate && !broken.is_empty() => {
            let what = format!("interrupts are off for too long:\n  {}", broken.join("\n  "));
            Err(Error::new(Class::Regressed, what).next("look at the path, and split the work into steps"))
        }
        _ => Ok(()),
    }
}

/// The drivers of these names; without any, those for which the limits are.
fn chosen(names: Option<&str>) -> Result<Vec<Driver>> {
    let Some(names) = names else {
        return Ok(DRIVERS.iter().filter(|driver| driver.name != FUZZ).copied().collect());
    };
    let find = |name: &str| {
        DRIVERS.iter().find(|driver| driver.name == name).copied().ok_or_else(|| {
            Error::new(Class::Usage, format!("no driver is called `{name}`"))
                .next("`cargo xtask irqoff --help` lists them")
        })
    };
    names.split(',').map(find).collect()
}

fn json(file: &StretchFile) -> Result<String> {
    serde_json::to_string_pretty(file)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(Class::Io, format!("cannot write JSON: {error}")))
}

/// Runs all drivers, one machine each.
///
/// # Errors
/// The plugin cannot be built, or a driver fails.
pub fn measure(drivers: &[Driver], qemu: &Qemu, image: &Image) -> Result<StretchFile> {
    let plugin = witness::build()?;
    let symbols = Symbols::of(&image.kernel)?;
    let mut longest = BTreeMap::new();
    for driver in drivers {
        let progress = Progress::start(&format!("irqoff: {}", driver.name), None);
        let text = run(driver, &plugin, &symbols, qemu, image)?;
        drop(progress);
        let read = told::read(&text, driver.name, &symbols).ok_or_else(|| {
            Error::new(Class::CorruptFrame, format!("{}: the plugin has written something else", driver.name))
        })?;
        read.into_iter().for_each(|stretch| told::keep(&mut longest, stretch));
    }
    let mut stretches: Vec<Stretch> = longest.into_values().collect();
    stretches.sort_by(|a, b| b.instructions.cmp(&a.instructions).then_with(|| a.origin.cmp(&b.origin)));
    let is_seen = |name: &str| stretches.iter().any(|stretch| stretch.origin == name);
    let unseen = told::calls().filter(|name| !is_seen(name)).map(str::to_owned).collect();
    let drivers = drivers.iter().map(|driver| driver.name.to_owned()).collect();
    Ok(StretchFile { schema: VERSION, drivers, stretches, unseen })
}

fn run(driver: &Driver, plugin: &Path, symbols: &Symbols, qemu: &Qemu, image: &Image) -> Result<String> {
    let told = workspace::output("witness")?.join(driver.name);
    let at = |name| symbols.address(name).map(|address| format!("{address:x}"));
    // Between these the laboratory gives the core to programs.
    let (begin, end, fault) = (at("serve_begin")?, at("serve_end")?, at("irq_page_fault")?);
    let plugin =
        format!("file={},out={},begin={begin},end={end},fault={fault}", plugin.display(), told.display());
    let spec = QemuSpec::new(Topology::even(1, 1, Mebibytes::new(driver.mebibytes))?, Accelerator::Icount);
    let spec = QemuSpec { plugin: Some(plugin), ..spec };
    let mut session = Session::start(qemu, &spec, &image.payload, driver.line)?;
    match session.listen(LIMITS, |_| Flow::Continue)? {
        End::Exit(Exit::Success) => {
            fs::read_to_string(&told).map_err(|error| Error::io(&error, "read", &told))
        }
        end => {
            let error = end.error().unwrap_or_else(|| Error::new(Class::QemuFailed, end.to_string()));
            Err(error.within(&format!("{}\nthe end of the log:\n{}", driver.name, session.tail())))
        }
    }
}

/// The lines that say what is selected, for the table.
fn is_selected(filter: &str, stretch: &Stretch) -> bool {
    selects(filter, &stretch.origin)
}
