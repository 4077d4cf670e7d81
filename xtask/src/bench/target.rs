//! What a suite can run on: anything that takes a command line and answers with events until it ends.

use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits, Session};
use crate::qemu::{self, Accelerator, Payload, QemuSpec};
use crate::results::schema;
use crate::topology::Topology;
use abi::boot::Lane;
use perf::record::Event;

/// Runs the benchmark table once.
pub(super) trait Target {
    /// Starts with the kernel command line `cmdline` and hands every event to `listener` until the end.
    fn boot(
        &mut self,
        cmdline: &str,
        limits: Limits,
        listener: &mut dyn FnMut(Event<'_>) -> Flow,
    ) -> Result<End>;
}

/// A machine in QEMU.
#[derive(Debug)]
pub(super) struct Guest {
    qemu: qemu::Qemu,
    spec: QemuSpec,
    payload: Payload,
}

impl Guest {
    /// A machine for a lane that has one.
    pub(super) fn new(qemu: qemu::Qemu, topology: Topology, lane: Lane, payload: Payload) -> Result<Self> {
        let accelerator = Accelerator::of_lane(lane)
            .ok_or_else(|| Error::new(Class::Usage, format!("the lane {} has no machine", lane.word())))?;
        Ok(Self { qemu, spec: QemuSpec::new(topology, accelerator), payload })
    }

    /// The emulator and its full command line for `env.json`.
    pub(super) fn describe(&self, cmdline: &str) -> Result<schema::Qemu> {
        let mut command = vec![self.qemu.program().display().to_string()];
        command.extend(self.qemu.arguments(&self.spec, &self.payload, cmdline)?);
        Ok(schema::Qemu { version: self.qemu.banner().to_owned(), command })
    }
}

impl Target for Guest {
    fn boot(
        &mut self,
        cmdline: &str,
        limits: Limits,
        listener: &mut dyn FnMut(Event<'_>) -> Flow,
    ) -> Result<End> {
        let patience = qemu::patience(&self.spec.topology);
        let limits = Limits { total: limits.total * patience, silence: limits.silence * patience };
        Session::start(&self.qemu, &self.spec, &self.payload, cmdline)?.listen(limits, listener)
    }
}
