//! Every core is itself, on its own memory, and reachable; locks exclude.

use percpu::mailbox::INBOX;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{AtomicCoreSet, CoreId, Held, IrqOff, Lock};
use x86_64::VirtAddr;

use super::bed::{self, Blame, Deadline};
use super::{Bed, Result, ensure};
use crate::arch::{tables, walk};
use crate::{cores, machine, memory, stacks};

/// A function sent to a core runs on that core, which knows its own number, and every core answers once.
///
/// Planted: `Crew::run` leaves out the core with the highest number.
pub(super) fn identity(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let seen = AtomicCoreSet::new();
    let calls = AtomicU64::new(0);
    let blame = Blame::new();
    bed.crew.run(&all, |held| {
        seen.insert(held.core());
        // ORDER: Relaxed; the call's completion publishes it.
        calls.fetch_add(1, Ordering::Relaxed);
        blame.note(own_copy(held));
    });
    ensure!(seen.snapshot() == all, "cores that answered: {:?}, online: {all:?}", seen.snapshot());
    // ORDER: Relaxed; see above.
    let calls = calls.load(Ordering::Relaxed);
    ensure!(calls == all.len() as u64, "{calls} calls ran on {} cores", all.len());
    ensure!(IrqOff::with(|irq| irq.core()) == machine::boot_core(), "the boot core does not know itself");
    blame.verdict()
}

/// What a core finds through GS is what others find under its number, and its stack is its own.
fn own_copy(held: &Held<'_, 0>) -> Result {
    let core = held.core();
    let mine: *const _ = INBOX.local(held);
    let theirs = INBOX.of(core).map(core::ptr::from_ref);
    ensure!(theirs == Some(mine), "{core} finds its data at {mine:?}, others at {theirs:?}");
    let here = 0_u8;
    let at = VirtAddr::from_ptr(&raw const here);
    let own = stacks::base(core, 0)..stacks::top(core, 0);
    ensure!(own.contains(&at), "{core} runs on a stack at {at:?}, its own is {own:?}");
    Ok(())
}

/// Stacks, core-local data and descriptor tables of a core lie on its node, or on the nearest that has memory.
///
/// Planted: `cores::prepare` takes the stacks from node 0; takes the core-local data from node 0.
pub(super) fn own_node(bed: &mut Bed) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| blame.note(own_memory(held)));
    blame.verdict()
}

fn own_memory(held: &Held<'_, 0>) -> Result {
    let core = held.core();
    for stack in 0..stacks::STACKS_PER_CORE {
        near(core, "the lowest byte of a stack", stacks::base(core, stack))?;
        near(core, "the highest byte of a stack", stacks::top(core, stack) - 1)?;
    }
    near(core, "core-local data", VirtAddr::from_ptr(INBOX.local(held)))?;
    near(core, "the descriptor tables", tables::location())
}

fn near(core: CoreId, what: &str, at: VirtAddr) -> Result {
    let topology = machine::topology();
    let home = topology.node_of(core);
    let Some(page) = walk::lookup(at) else {
        return Err(super::failed(format_args!("{core}: {what} at {at:?} is not mapped")));
    };
    let physical = page.physical.as_u64() + (at - page.start);
    let node = bed::node_at(physical);
    let populated = topology.nodes().filter(|&node| memory::node_bytes(node) > 0);
    let best = bed::nearest(home, populated);
    let found = topology.distance(home, node);
    ensure!(
        Some(found) == best,
        "{core} on {home}: {what} lies on {node}, distance {found}; memory is as near as {best:?}"
    );
    Ok(())
}

/// Two numbers that only the lock keeps equal.
#[derive(Clone, Copy)]
struct Pair {
    left: u64,
    right: u64,
}

/// Turns that each core takes at most. A turn may cost a switch of the host's threads where there are fewer of them than cores.
const TURNS: u64 = 200;
const LOCK_MS: u64 = 400;

/// A lock that all cores want lets one in at a time: the count is exact and nobody sees it half done.
///
/// Planted: `Lock::with` goes in without waiting.
pub(super) fn lock(bed: &mut Bed) -> Result {
    let contended: Lock<100, Pair> = Lock::new(Pair { left: 0, right: 0 });
    let turns = AtomicU64::new(0);
    let blame = Blame::new();
    let deadline = Deadline::after_ms(LOCK_MS);
    bed.crew.run(&cores::all_online(), |held| {
        for turn in 0..TURNS {
            if turn > 0 && deadline.is_over() {
                break;
            }
            let seen = contended.with(held, |pair, _| advance(pair));
            // ORDER: Relaxed; the call's completion publishes it.
            turns.fetch_add(1, Ordering::Relaxed);
            blame.note(seen);
        }
    });
    // ORDER: Relaxed; see above.
    let turns = turns.load(Ordering::Relaxed);
    let total = IrqOff::with(|irq| irq.locks(|held| contended.with(held, |pair, _| *pair)));
    blame.verdict()?;
    ensure!(total.left == turns && total.right == turns, "{turns} turns, counted {} times", total.left);
    Ok(())
}

/// Adds one to both numbers, slowly enough that another core would come in between.
fn advance(pair: &mut Pair) -> Result {
    let before = *core::hint::black_box(&*pair);
    pair.left = before.left + 1;
    core::hint::black_box(&mut *pair);
    (0..3).for_each(|_| core::hint::spin_loop());
    let after = *core::hint::black_box(&*pair);
    pair.right = before.right + 1;
    core::hint::black_box(&mut *pair);
    ensure!(before.left == before.right, "seen half done: {} and {}", before.left, before.right);
    ensure!(after.left == before.left + 1, "changed by somebody else while the lock was held");
    Ok(())
}
