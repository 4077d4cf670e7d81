//! Lanes: which one `auto` means on this host.
//!
//! That `/dev/kvm` exists says little: under nested virtualisation it may run a guest's kernel a thousand times slower
//! than emulation does. So the probe boots our own kernel and looks at the clock.

use crate::cli::LaneChoice;
use crate::error::Result;
use crate::guest::{End, Flow, Limits, Session};
use crate::image::Image;
use crate::qemu::{Accelerator, Qemu, QemuSpec};
use crate::topology::{Mebibytes, Topology};
use crate::ui::{self, Progress};
use abi::boot::Lane;
use abi::exit::Exit;
use std::fs::OpenOptions;
use std::time::Duration;

/// A KVM that really works boots the kernel in well under a second.
const PROBE: Duration = Duration::from_secs(4);

/// The lane a choice means. Says what was found when it probes.
///
/// # Errors
/// QEMU cannot be started at all.
pub fn resolve(choice: LaneChoice, qemu: &Qemu, image: &Image) -> Result<Lane> {
    match choice {
        LaneChoice::Fixed(lane) => Ok(lane),
        LaneChoice::Auto => {
            let verdict = kvm_works(qemu, image)?;
            let lane = if verdict.is_ok() { Lane::Kvm } else { Lane::Tcg };
            ui::line(&match verdict {
                Ok(()) => String::from("lane: kvm (a probe boot worked)"),
                Err(why) => format!("lane: tcg ({why})"),
            });
            Ok(lane)
        }
    }
}

/// Whether `/dev/kvm` can be opened, which is less than that it works.
#[must_use]
pub fn may_have_kvm() -> bool {
    open_kvm().is_ok()
}

fn open_kvm() -> std::io::Result<std::fs::File> {
    OpenOptions::new().read(true).write(true).open("/dev/kvm")
}

/// Whether KVM boots the kernel in reasonable time; if not, why.
fn kvm_works(qemu: &Qemu, image: &Image) -> Result<std::result::Result<(), String>> {
    if let Err(error) = open_kvm() {
        return Ok(Err(format!("no usable /dev/kvm: {error}")));
    }
    let progress = Progress::start("lane: probing kvm", None);
    let spec = QemuSpec::new(Topology::even(1, 1, Mebibytes::new(512))?, Accelerator::Kvm);
    // A filter that matches nothing: the kernel comes up, finds no test, and leaves.
    let mut session = Session::start(qemu, &spec, &image.payload, "mode=test lane=kvm filter=!probe")?;
    let end = session.listen(Limits { total: PROBE, silence: PROBE }, |_| Flow::Continue)?;
    drop(progress);
    Ok(match end {
        End::Exit(Exit::NothingMatched | Exit::Success) => Ok(()),
        End::Interrupted => {
            return Err(End::Interrupted.error().unwrap_or_else(|| unreachable!("it is an error")));
        }
        end => Err(format!("/dev/kvm is there, but a probe boot failed: {end}")),
    })
}
