//! `cargo xtask doctor`: what on this host, in this tree or in this lane makes figures lie, each with its remedy.
//!
//! [`facts`] asks the host, [`judge`] decides from the facts alone. Finding something is exit code 17 (`Unusable`), nothing is 0.

mod facts;
mod judge;

use crate::cli::{self, DoctorArgs};
use crate::error::{Class, Error, Result};
use crate::lane;
use crate::qemu::Qemu;
use crate::ui;
use abi::boot::Lane;
use facts::Facts;
use judge::{Finding, Severity};

/// The subcommand.
///
/// # Errors
/// [`Class::Unusable`]: figures taken here and now would lie.
pub fn execute(args: &DoctorArgs) -> Result<()> {
    let lane = match args.lane {
        cli::LaneChoice::Fixed(lane) => lane,
        // Without a probe boot: that `/dev/kvm` opens is all that can be said in no time.
        cli::LaneChoice::Auto if lane::may_have_kvm() => Lane::Kvm,
        cli::LaneChoice::Auto => Lane::Tcg,
    };
    let facts = Facts::gather(Qemu::find().ok());
    let findings = judge::judge(&facts, lane, args.smp);
    if args.json {
        let text =
            serde_json::to_string_pretty(&serde_json::json!({ "lane": lane.word(), "findings": findings }))
                .map_err(|error| Error::new(Class::Io, format!("cannot encode the findings: {error}")))?;
        ui::line(&text);
    } else {
        show(lane, &findings);
    }
    let bad = findings.iter().filter(|finding| finding.severity == Severity::Lies).count();
    if bad == 0 {
        return Ok(());
    }
    Err(Error::new(
        Class::Unusable,
        format!("{bad} reasons not to trust figures of the lane {} from here", lane.word()),
    )
    .next("follow the remedies above, the first one first"))
}

fn show(lane: Lane, findings: &[Finding]) {
    ui::line(&format!("doctor: lane {}", lane.word()));
    for finding in findings {
        let mark = match finding.severity {
            Severity::Lies => "LIES",
            Severity::Doubt => "doubt",
        };
        ui::line(&format!("{mark:<5} {}: {}\n      remedy: {}", finding.name, finding.what, finding.remedy));
    }
    if findings.is_empty() {
        ui::line("nothing here makes figures lie");
    }
}
