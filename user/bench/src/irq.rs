//! An interrupt of a device, on its way to the thread that drives it.

use abi::cap::Handle;
use abi::task::ThreadSpec;
use alloc::sync::Arc;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope};
use perf::clock::{Clock, Ticks};
use perf::runner::Trouble;
use rt::handle::{Interrupt, Owned, Ports, Result};
use rt::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use rt::sync::{Futex, Kernel};
use rt::sys;
use rt::thread::{Builder, JoinHandle};
use rt::time::{Deadline, Tsc};

use super::{Lab, Meter, failed, place};

/// To the driver, which sleeps while another thread has the core.
pub(super) const USER: Bench<Lab> = Bench {
    id: "irq.user",
    version: 1,
    doc: "from the last time that an interrupted thread of lower class has read to the first instructions of the driver that waits for the interrupt: a line of the interval timer, a notification, a switch",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |lab, visit| visit(Case::new(lab.alone())),
    run: |lab, _, meter| measure(lab, meter),
};

/// The interval timer (Intel 8254 datasheet): its ISA interrupt, its ports, and control words for counter 0.
const LINE: u64 = 0;
const COUNTER: u16 = 0x40;
const CONTROL: u16 = 0x43;
const GENERATE: u32 = 0b0011_0100;
const STOP: u32 = 0b0011_0000;
/// Of 1.193182 MHz: 1.7 ms.
const PERIOD: u32 = 2000;

/// What the threads share.
#[derive(Default)]
struct Shared {
    /// When the thread that is interrupted has looked last.
    seen: AtomicU64,
    /// That time as the driver found it, and when it did.
    from: AtomicU64,
    to: AtomicU64,
    /// How many interrupts there were.
    count: AtomicU32,
    over: AtomicBool,
}

impl Shared {
    fn be_interrupted(&self) {
        // ORDER: Relaxed; only asks to end.
        while !self.over.load(Ordering::Relaxed) {
            // ORDER: Relaxed; read on the same core, after it was interrupted.
            self.seen.store(rt::time::now().count(), Ordering::Relaxed);
        }
    }

    fn drive(&self, line: Interrupt, bell: Handle) -> Result<()> {
        loop {
            // SAFETY: no address is passed.
            unsafe { sys::notification_wait(bell, Deadline::NEVER.0) }?;
            let at = Tsc.stop();
            // ORDER: Relaxed: stored by this core.
            let seen = self.seen.load(Ordering::Relaxed);
            // ORDER: Relaxed; as above.
            if self.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            // ORDER: Relaxed, both; published by `count`.
            self.from.store(seen, Ordering::Relaxed);
            // ORDER: Relaxed; as above.
            self.to.store(at.count(), Ordering::Relaxed);
            // ORDER: Release pairs with Acquire in `next`.
            self.count.fetch_add(1, Ordering::Release);
            Kernel.wake(&self.count, 1);
            line.acknowledge()?;
        }
    }

    /// Waits for the interrupt after so many; how many there are, and the window of the last.
    fn next(&self, before: u32) -> (u32, Ticks, Ticks) {
        let mut count = before;
        while count == before {
            let _ = Kernel.wait(&self.count, before, Deadline::NEVER.0);
            // ORDER: Acquire pairs with Release in `drive`.
            count = self.count.load(Ordering::Acquire);
        }
        // ORDER: Relaxed, both; ordered by the load before.
        let from = self.from.load(Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        (count, Ticks::new(from), Ticks::new(self.to.load(Ordering::Relaxed)))
    }
}

/// The driver, the thread that is interrupted, and their device. They end when this goes.
struct Drive {
    shared: Arc<Shared>,
    ports: Owned<Ports>,
    bell: Handle,
    _line: Owned<Interrupt>,
    _threads: [JoinHandle<Result<()>>; 2],
}

impl Drive {
    fn start(lab: &Lab) -> core::result::Result<Self, Trouble> {
        let (interrupts, ports) = (lab.start.interrupts(), lab.start.ports());
        let (Some(interrupts), Some(ports)) = (interrupts, ports) else {
            return Err(Trouble::Skipped("no interrupts were given"));
        };
        let shared = Arc::new(Shared::default());
        // SAFETY: no address is passed.
        let bell = Handle(unsafe { sys::notification_create() }.map_err(failed)?);
        let line = interrupts.claim(LINE).map_err(failed)?;
        line.bind(bell, 1).map_err(failed)?;
        line.lead_to(place::HERE).map_err(failed)?;
        line.acknowledge().map_err(failed)?;
        let (own, driven, interrupted) = (*line, Arc::clone(&shared), Arc::clone(&shared));
        let first = Builder::default().schedule(place::FIRST).cores(abi::task::CoreMask::one(place::HERE));
        let driver =
            first.flags(ThreadSpec::NO_FPU).spawn(move || driven.drive(own, bell)).map_err(failed)?;
        let victim = place::peer(place::HERE).flags(ThreadSpec::NO_FPU).spawn(move || {
            interrupted.be_interrupted();
            Ok(())
        });
        let ports = ports.claim(COUNTER, 4).map_err(failed)?;
        let drive = Self { shared, ports, bell, _line: line, _threads: [driver, victim.map_err(failed)?] };
        for (port, value) in [(CONTROL, GENERATE), (COUNTER, PERIOD & 0xff), (COUNTER, PERIOD >> 8)] {
            drive.write(port, value).map_err(failed)?;
        }
        Ok(drive)
    }

    fn write(&self, port: u16, value: u32) -> Result<()> {
        // SAFETY: the timer knows nothing of memory.
        unsafe { self.ports.write(port, 1, value) }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let _ = self.write(CONTROL, STOP);
        // ORDER: Relaxed; only asks to end.
        self.shared.over.store(true, Ordering::Relaxed);
        // SAFETY: no address is passed.
        let _ = unsafe { sys::notification_signal(self.bell, 1) };
    }
}

fn measure(lab: &Lab, meter: &mut Meter<'_>) -> core::result::Result<(), Trouble> {
    let drive = Drive::start(lab)?;
    let mut count = 0;
    while meter.more() {
        let (now, from, to) = drive.shared.next(count);
        count = now;
        meter.window(from, to);
    }
    Ok(())
}
