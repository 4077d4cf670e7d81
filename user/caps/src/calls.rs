//! Each call on capabilities, alone.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::Grant;
use perf::clock::Nanos;
use rt::handle::{Core, Owned, Process, Typed};
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::time::{self, Deadline};

use crate::{Check, done, ensure};

/// Links of the chain that is revoked: enough for many steps.
const LONG: u64 = 10_000;
/// A time that is over soon.
const SOON: Nanos = Nanos::from_millis(2);
/// Long enough after it that whatever it has set off has happened.
const LATER: Nanos = Nanos::from_millis(20);

pub(crate) fn all() -> Check {
    let start = Start::get();
    let before = done!(start.process().info()).handles;
    let core = start.cores().next().ok_or(1_u64)?;
    descendants(core)?;
    middle(core)?;
    others(core)?;
    unborn()?;
    errors(core)?;
    expiry(core)?;
    long(core)?;
    ensure!(done!(start.process().info()).handles == before);
    Ok(())
}

fn is_gone(capability: impl Typed) -> bool {
    capability.about() == Err(Error::BadHandle)
}

fn wait(time: Nanos) {
    time::sleep(Deadline::after(time));
}

/// What descends goes, and only that.
fn descendants(core: Core) -> Check {
    let a = done!(core.derive(Rights::ALL, 1));
    ensure!(a.revoke() == Ok(0));
    let b = done!(a.derive(Rights::ALL, 2)).keep();
    let c = done!(b.derive(Rights::OBSERVE, 3)).keep();
    let beside = done!(core.derive(Rights::ALL, 4));
    ensure!(c.info().is_ok());
    ensure!(a.revoke() == Ok(2));
    ensure!(is_gone(b) && is_gone(c) && c.info() == Err(Error::BadHandle));
    ensure!(done!(a.about()).badge == 1 && done!(beside.about()).badge == 4);
    ensure!(a.revoke() == Ok(0));
    // What is derived afterwards is no worse for it.
    let d = done!(a.derive(Rights::ALL, 5)).keep();
    ensure!(done!(d.about()).badge == 5 && a.revoke() == Ok(1) && is_gone(d));
    Ok(())
}

/// Who goes from the middle leaves what was derived of it to who was above.
fn middle(core: Core) -> Check {
    let a = done!(core.derive(Rights::ALL, 1));
    let b = done!(a.derive(Rights::ALL, 2));
    let c = done!(b.derive(Rights::ALL, 3)).keep();
    drop(b);
    ensure!(done!(c.about()).badge == 3);
    ensure!(a.revoke() == Ok(1) && is_gone(c));
    Ok(())
}

/// What is in other processes' tables, or has come from there.
fn others(core: Core) -> Check {
    let start = Start::get();
    let nop = start.program("nop").ok_or(2_u64)?;
    let child = done!(Builder::new(Image::Loaded(nop)).create(start.process()));
    let (empty, a) = (done!(child.info()).handles, done!(core.derive(Rights::ALL, 1)));
    done!(child.grant(*a, Rights::OBSERVE, 7));
    let b = done!(a.derive(Rights::ALL, 2)).keep();
    done!(child.transfer(b));
    ensure!(is_gone(b) && done!(child.info()).handles == empty + 2);
    ensure!(a.revoke() == Ok(2) && done!(child.info()).handles == empty);
    // To itself: another handle for the same.
    let c = done!(a.derive(Rights::ALL, 3)).keep();
    let moved = Core(done!(start.process().transfer(c)));
    ensure!(is_gone(c) && done!(moved.about()).badge == 3);
    ensure!(a.revoke() == Ok(1) && is_gone(moved));
    // A process that has ended takes nothing, and what it had is gone.
    done!(child.grant(*a, Rights::ALL, 4));
    done!(child.kill(1));
    done!(child.wait(Deadline::NEVER));
    ensure!(child.grant(*a, Rights::ALL, 5) == Err(Error::WrongState));
    ensure!(child.transfer(*a) == Err(Error::WrongState) && a.about().is_ok());
    ensure!(a.revoke() == Ok(0));
    Ok(())
}

/// Processes that have not begun do not get each other, nor themselves: they would stay for ever.
///
/// Planted: `Holder::may_have` always.
fn unborn() -> Check {
    let start = Start::get();
    let nop = Image::Loaded(start.program("nop").ok_or(2_u64)?);
    let make = || Builder::new(nop).create(start.process());
    let (one, other) = (done!(make()), done!(make()));
    let copy = done!(one.derive(Rights::ALL, 1));
    let empty = done!(one.info()).handles;
    ensure!(one.grant(*one, Rights::ALL, 0) == Err(Error::WrongState));
    ensure!(one.grant(*other, Rights::OBSERVE, 0) == Err(Error::WrongState));
    ensure!(one.transfer(*copy) == Err(Error::WrongState) && copy.about().is_ok());
    let grants = [Grant::whole(other.handle())];
    let third = Builder::new(nop).grants(&grants).create(start.process()).map(drop);
    ensure!(third == Err(Error::WrongState) && done!(one.info()).handles == empty);
    // Who runs may be known to them; who has ended may, too.
    done!(one.grant(start.process(), Rights::OBSERVE, 0));
    done!(other.kill(1));
    done!(one.grant(*other, Rights::OBSERVE, 0));
    ensure!(done!(one.info()).handles == empty + 2);
    done!(one.start());
    done!(one.wait(Deadline::NEVER));
    Ok(())
}

fn errors(core: Core) -> Check {
    let process = Start::get().process();
    let weak: Owned<Core> = done!(core.derive(Rights::OBSERVE, 0));
    ensure!(process.grant(*weak, Rights::ALL, 0) == Err(Error::MissingRight));
    ensure!(process.transfer(*weak) == Err(Error::MissingRight));
    let watched: Owned<Process> = done!(process.derive(Rights::OBSERVE, 0));
    ensure!(watched.grant(core, Rights::ALL, 0) == Err(Error::MissingRight));
    ensure!(watched.transfer(core) == Err(Error::MissingRight));
    let nobody = Core(Handle::NONE);
    ensure!(
        nobody.revoke() == Err(Error::BadHandle) && nobody.expire(Deadline::PASSED) == Err(Error::BadHandle)
    );
    ensure!(nobody.expire(Deadline::NEVER) == Err(Error::BadHandle));
    ensure!(process.transfer(nobody) == Err(Error::BadHandle));
    ensure!(Process(core.handle()).transfer(core) == Err(Error::WrongType));
    Ok(())
}

fn expiry(core: Core) -> Check {
    let a = done!(core.derive(Rights::ALL, 1));
    let lasting = done!(a.derive(Rights::ALL, 2));
    done!(lasting.expire(Deadline::after(SOON)));
    done!(lasting.expire(Deadline::NEVER));
    let put_off = done!(a.derive(Rights::ALL, 3));
    done!(put_off.expire(Deadline::after(SOON)));
    done!(put_off.expire(Deadline::after(Nanos::from_millis(3_600_000))));
    let short = done!(a.derive(Rights::ALL, 4)).keep();
    let child = done!(short.derive(Rights::ALL, 5)).keep();
    let at = Deadline::after(SOON);
    done!(short.expire(at));
    // It takes its time along.
    let moved = Core(done!(Start::get().process().transfer(short)));
    ensure!(moved.about().is_ok() || at.passed());
    let passed = done!(a.derive(Rights::ALL, 6)).keep();
    done!(passed.expire(Deadline::PASSED));
    let deleted = done!(a.derive(Rights::ALL, 7));
    done!(deleted.expire(Deadline::after(SOON)));
    drop(deleted);
    wait(LATER);
    ensure!(is_gone(moved) && is_gone(child) && is_gone(passed));
    ensure!(lasting.about().is_ok() && put_off.about().is_ok() && a.about().is_ok());
    Ok(())
}

/// A chain, revoked and expired.
fn long(core: Core) -> Check {
    let before = done!(Start::get().process().info()).handles;
    for expires in [false, true] {
        let a = done!(core.derive(Rights::ALL, 1)).keep();
        let mut last = a;
        for link in 1..LONG {
            last = done!(last.derive(Rights::ALL, link)).keep();
        }
        if expires {
            done!(a.expire(Deadline::PASSED));
            let patience = Deadline::after(Nanos::from_millis(30_000));
            while done!(Start::get().process().info()).handles != before && !patience.passed() {
                wait(SOON);
            }
            ensure!(is_gone(a));
        } else {
            ensure!(a.revoke() == Ok(LONG - 1) && is_gone(last));
            drop(Owned::new(a));
        }
        ensure!(done!(Start::get().process().info()).handles == before);
    }
    Ok(())
}
