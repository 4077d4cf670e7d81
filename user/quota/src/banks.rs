//! Banks: carving, what each kind of thing costs, what happens when there is no more, and that all of it comes back.

use alloc::format;
use rt::sync::atomic::Ordering;

use abi::cap::Rights;
use abi::error::Error;
use abi::quota::BankSpec;
use perf::clock::Nanos;
use rt::handle::{Region, Typed};
use rt::memory;
use rt::time::{self, Deadline};

use crate::children::{Child, PATIENCE, carve as carve_root, of, passed, settles, spent};
use crate::{Lab, Outcome, ensure, unexpected};

/// What a child has at its start, more or less: pages, tables, and what its maker touches for it.
const START: u64 = 40;

/// A part is taken out of what is free, exactly, or nothing is; and comes back when nobody has the bank any more.
pub(crate) fn carve(lab: &Lab) -> Outcome {
    let bank = carve_root(lab, 1000, 50)?;
    let spec = |frames, objects| BankSpec { frames, objects };
    let told = bank.info().map_err(unexpected)?;
    ensure!(told.limit == spec(1000, 50) && told.spent == spec(0, 0), "a new bank says {told:?}");
    let part = bank.carve(&spec(100, 10)).map_err(unexpected)?;
    settles(*bank, 100, 10)?;
    for (frames, objects) in [(901, 1), (1, 41), (u64::MAX, 0), (0, u64::MAX), (1 << 48, 0)] {
        let more = bank.carve(&spec(frames, objects)).map(drop);
        ensure!(more == Err(Error::NoMemory), "{frames} frames and {objects} objects of the rest: {more:?}");
        let now = spent(*bank)?;
        ensure!(now == spec(100, 10), "a refusal has changed what is spent to {now:?}");
    }
    let all = part.carve(&spec(100, 10)).map_err(unexpected)?;
    let more = part.carve(&spec(1, 0)).map(drop);
    ensure!(more == Err(Error::NoMemory), "a frame of a bank that has given all away: {more:?}");
    drop(part);
    time::sleep(Deadline::after(Nanos::from_millis(20)));
    settles(*bank, 100, 10).map_err(of("a bank whose part is in use"))?;
    drop(all);
    settles(*bank, 0, 0)?;
    let watcher = bank.derive(Rights::OBSERVE, 0).map_err(unexpected)?;
    let carved = watcher.carve(&spec(1, 1)).map(drop);
    ensure!(carved == Err(Error::MissingRight), "carving without CREATE: {carved:?}");
    ensure!(watcher.info().is_ok(), "looking with OBSERVE");
    Ok(())
}

/// A process has what its bank has, and nothing is left when it has ended, however it did.
pub(crate) fn frames(lab: &Lab) -> Outcome {
    let bank = carve_root(lab, 300, 50)?;
    Child { work: "touch pages=200", bank: Some(*bank), ..Child::default() }.passes(lab.start)?;
    settles(*bank, 0, 0)?;
    Child { work: "touch pages=301", bank: Some(*bank), ..Child::default() }.faults(lab.start)?;
    settles(*bank, 0, 0)?;
    // The kernel writes: an error, and the process goes on.
    Child { work: "fill least=200", bank: Some(*bank), ..Child::default() }.passes(lab.start)?;
    settles(*bank, 0, 0)
}

/// A bank is used up to its last frame: so many more frames are so many more pages, less the page tables that they need.
pub(crate) fn last_frame(lab: &Lab) -> Outcome {
    let region = Region::create(1).map_err(unexpected)?;
    let words = memory::words(*region).map_err(unexpected)?;
    let touched = |frames: u64| -> Outcome<u64> {
        let bank = carve_root(lab, frames, 50)?;
        Child { work: "count", bank: Some(*bank), region: Some(*region), ..Child::default() }
            .faults(lab.start)?;
        settles(*bank, 0, 0)?;
        // ORDER: Relaxed: the process has ended.
        Ok(u64::from(words[0].load(Ordering::Relaxed)))
    };
    let few = touched(100)?;
    ensure!(few + START >= 100 && few < 100, "{few} pages of 100 frames");
    for frames in [101, 117, 164, 229, 300, 611, 1500] {
        let now = touched(frames)?;
        let (more, tables) = (frames - 100, 1 + frames / 512);
        let fits = now <= few + more && now + tables >= few + more;
        ensure!(fits, "{few} pages of 100 frames, but {now} of {frames}");
    }
    Ok(())
}

/// Children pay from their parent's bank, and what was given to another bank is nobody else's.
pub(crate) fn family(lab: &Lab) -> Outcome {
    let bank = carve_root(lab, 600, 50)?;
    let part = bank.carve(&BankSpec { frames: 200, objects: 10 }).map_err(unexpected)?;
    Child { work: "family few=150 many=390", bank: Some(*bank), ..Child::default() }.passes(lab.start)?;
    settles(*bank, 200, 10)?;
    // More than the part has, though the whole bank would have it.
    Child { work: "touch pages=201", bank: Some(*part), ..Child::default() }.faults(lab.start)?;
    drop(part);
    settles(*bank, 0, 0)
}

/// A process that takes whatever it can takes nothing from another's bank.
pub(crate) fn hog(lab: &Lab) -> Outcome {
    let (own, others) = (carve_root(lab, 800, 20)?, carve_root(lab, 400, 20)?);
    let victim = Child { work: "fill rounds=20 most=600 least=600", bank: Some(*own), ..Child::default() };
    let victim = victim.spawn(lab.start)?;
    for _ in 0..10 {
        Child { work: "touch pages=5000", bank: Some(*others), ..Child::default() }.faults(lab.start)?;
    }
    passed(victim.wait(Deadline::after(PATIENCE)).map_err(unexpected)?, "the victim")?;
    // An ended process is an object as long as somebody has it.
    settles(*own, 0, 1)?;
    drop(victim);
    settles(*own, 0, 0)?;
    settles(*others, 0, 0)
}

/// Whoever makes a region pays for its pages, whoever touches them, until nobody shows them.
pub(crate) fn regions(lab: &Lab) -> Outcome {
    let bank = carve_root(lab, 400, 50)?;
    Child { work: "regions", bank: Some(*bank), ..Child::default() }.passes(lab.start)?;
    settles(*bank, 0, 0)?;
    // A region of ours: more pages than the child's bank has frames.
    let region = Region::create(400).map_err(unexpected)?;
    let small = carve_root(lab, 60, 50)?;
    Child { work: "show pages=400", bank: Some(*small), region: Some(*region), ..Child::default() }
        .passes(lab.start)?;
    settles(*small, 0, 0)
}

/// Each kind of thing is refused when there is no more, with nothing lost: afterwards there are as many again.
pub(crate) fn exhaustion(lab: &Lab) -> Outcome {
    // What, of a bank of so many frames and objects, at least and at most.
    const KINDS: &[(&str, u64, u64, u64, u64)] = &[
        ("thread", 600, 60, 40, 57),
        ("region", 600, 60, 40, 57),
        ("region", 150, 4000, 100, 140),
        ("endpoint", 600, 60, 40, 57),
        ("bank", 600, 60, 40, 57),
        ("process", 600, 60, 6, 57),
        ("process", 4000, 60, 12, 40),
        ("capability", 600, 7, 300, 640),
        ("table", 300, 60, 60, 140),
    ];
    for (kind, frames, objects, least, most) in KINDS {
        let bank = carve_root(lab, *frames, *objects)?;
        let work = format!("exhaust kind={kind} least={least} most={most}");
        let child = Child { work: &work, bank: Some(*bank), ..Child::default() };
        child.passes(lab.start).map_err(of(kind))?;
        settles(*bank, 0, 0).map_err(of(kind))?;
    }
    Ok(())
}

/// A bank takes over what a process has already, before it starts and only then; or nothing, if it has not that much.
pub(crate) fn assign(lab: &Lab) -> Outcome {
    let (one, other, small) = (carve_root(lab, 300, 50)?, carve_root(lab, 300, 50)?, carve_root(lab, 5, 50)?);
    let child = Child { work: "nothing", bank: Some(*one), ..Child::default() }.make(lab.start)?;
    let before = spent(*one)?;
    ensure!(before.frames > 0 && before.objects > 0, "a process has {before:?}");
    let moved = small.assign(*child);
    ensure!(moved == Err(Error::NoMemory), "to a bank that is too small: {moved:?}");
    let (now, tiny) = (spent(*one)?, spent(*small)?);
    ensure!(now == before && tiny == BankSpec::default(), "a refusal has changed {now:?}, {tiny:?}");
    other.assign(*child).map_err(unexpected)?;
    settles(*one, 0, 0)?;
    let now = spent(*other)?;
    ensure!(now == before, "{before:?} has become {now:?} by moving");
    let watcher = one.derive(Rights::OBSERVE, 0).map_err(unexpected)?;
    let moved = watcher.assign(*child);
    ensure!(moved == Err(Error::MissingRight), "to a bank without CREATE: {moved:?}");
    child.start().map_err(unexpected)?;
    let moved = one.assign(*child);
    ensure!(moved == Err(Error::WrongState), "after the start: {moved:?}");
    passed(child.wait(Deadline::after(PATIENCE)).map_err(unexpected)?, "the child")?;
    drop(child);
    settles(*other, 0, 0)
}
