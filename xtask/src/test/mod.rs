//! `cargo xtask test`: the host tests, then the kernel's own table on many machines in QEMU.
//!
//! A test fails by the exit code of the guest and by the records it sends, never by a search in its log. Each part
//! ends with a line `N passed, N failed[, N skipped]`; with both parts a total follows.

mod bad_input;
mod boots;
mod gate;
mod host;
mod hunt;
mod icount;
mod idle;
mod local;
mod machines;
mod seen;
mod size;
mod stretches;
mod tally;

use crate::cli::TestArgs;
use crate::error::{Class, Error, Result};
use crate::image::{self, Flavour};
use crate::setup::{self, Need};
use crate::ui::{self, Progress};
use host::Effort;
use machines::Table;
use tally::Tally;

/// The subcommand.
///
/// # Errors
/// [`Class::TestsFailed`], [`Class::NothingMatched`], or whatever stops a build or a machine.
pub fn execute(args: &TestArgs) -> Result<()> {
    let effort = if args.soak { Effort::Soak } else { Effort::Usual };
    // Host tests start this program, which builds for the guest.
    setup::ensure(&[Need::GuestTarget])?;
    let mut total = Tally::default();
    if !args.qemu {
        total = total.plus(host::run(&args.filter, effort)?);
        ui::line(&format!("host: {total}"));
    }
    if !args.host {
        let guest = in_qemu(&args.filter, effort)?;
        ui::line(&format!("qemu: {guest}"));
        total = total.plus(guest);
    }
    if total.selected() == 0 {
        return Err(Error::new(Class::NothingMatched, format!("no test has `{}` in its name", args.filter))
            .next("run `cargo xtask test` once to see the names"));
    }
    ui::line(&total.to_string());
    if total.failed == 0 {
        return Ok(());
    }
    let what = format!("{} of {} tests failed", total.failed, total.selected());
    Err(Error::new(Class::TestsFailed, what).next("run `cargo xtask test NAME` to see one of them alone"))
}

fn in_qemu(filter: &str, effort: Effort) -> Result<Tally> {
    let qemu = setup::qemu()?;
    ui::line(qemu.banner());
    let progress = Progress::start("test: building the kernel and the loader", None);
    let image = image::build(Flavour::Plain)?;
    drop(progress);
    let mut tally = size::run(filter, &image)?;
    tally = tally.plus(bad_input::run(filter, &qemu, &image)?);
    tally = tally.plus(idle::run(filter, &qemu, &image)?);
    tally = tally.plus(icount::run(filter, &qemu, &image)?);
    tally = tally.plus(gate::run(filter)?);
    tally = tally.plus(local::run(filter, &qemu, &image)?);
    tally = tally.plus(stretches::run(filter, &qemu, &image)?);
    tally = tally.plus(hunt::run(filter, effort, &qemu)?);
    for mut machine in machines::all() {
        if effort == Effort::Soak {
            machine.table = Table::Whole;
        }
        tally = tally.plus(boots::run(filter, &machine, &qemu, &image.payload)?);
    }
    Ok(tally)
}
