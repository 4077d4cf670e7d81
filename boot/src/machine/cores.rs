//! Starting the other cores and parking them until the kernel releases them (protocol, "MP Feature").
//!
//! All cores start together: one message to each, one wait. A core takes a ticket for a stack, finds its entry by
//! its APIC id, says that it is there, and waits for its `goto_address`.

use super::apic::LocalApic;
use super::asm::{address_of, entry_hand_over, entry_trampoline, entry_trampoline_end};
use super::clock::Clock;
use super::console::{refuse, say};
use super::exceptions::Table;
use super::mtrr::Mtrrs;
use super::physical::{Heap, REAL_MODE, anywhere, mailboxes};
use super::{cpu, park};
use abi::exit::Exit;
use boot::acpi::{Core, Madt};
use boot::map::Kind;
use boot::protocol::{self, HHDM};
use boot::{PAGE, Refusal, to_u64};
use core::mem::offset_of;
use core::ptr;
#[expect(
    clippy::disallowed_types,
    reason = "the loader is below percpu, and its other side is assembly"
)]
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

/// Between INIT and the start-up message (Intel SDM volume 3, 8.4.4.1). Virtual machines keep the order of the two
/// messages and need no pause.
const INIT_MICROS: u64 = 10_000;
/// Until the second start-up message, which only lost cores need.
const RETRY_MICROS: u64 = 200_000;
/// Until a core counts as missing. Generous: with many emulated cores on few real ones the last one comes late.
const MISSING_MICROS: u64 = 30_000_000;

/// What `entry.S` needs to give a starting core a stack.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `tickets` | starting cores | starting cores | `lock xadd` |
/// | the rest | the core that boots | starting cores | fence before the start-up messages |
#[repr(C)]
#[expect(clippy::disallowed_types, reason = "the loader is below percpu, and its other side is assembly")]
pub(super) struct Launch {
    /// The next ticket.
    pub(super) tickets: AtomicU32,
    /// How many there are.
    pub(super) count: AtomicU32,
    /// Physical address where the stacks begin.
    pub(super) stacks: AtomicU64,
    /// Bytes of a stack.
    pub(super) stack_size: AtomicU64,
    crew: AtomicPtr<Crew>,
}

#[expect(clippy::disallowed_types, reason = "the loader is below percpu, and its other side is assembly")]
pub(super) static LAUNCH: Launch = Launch {
    tickets: AtomicU32::new(0),
    count: AtomicU32::new(0),
    stacks: AtomicU64::new(0),
    stack_size: AtomicU64::new(0),
    crew: AtomicPtr::new(ptr::null_mut()),
};

/// What all cores have in common.
#[derive(Clone, Copy)]
pub(super) struct Crew {
    exceptions: &'static Table,
    mailboxes: &'static [Mailbox],
    mtrrs: Option<Mtrrs>,
    is_x2apic: bool,
    cr3: u64,
    stacks: u64,
    stack_size: u64,
}

/// A [`protocol::Core`] as cores share it.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `here` | the core itself, once | the core that boots | Release, Acquire |
/// | `goto_address` | the kernel, once | the core itself | the kernel's atomic store, Acquire |
#[repr(C)]
#[expect(clippy::disallowed_types, reason = "the loader is below percpu, and its other side is assembly")]
pub(super) struct Mailbox {
    acpi_id: u32,
    apic_id: u32,
    here: AtomicU64,
    goto_address: AtomicU64,
    extra: AtomicU64,
}

const _: () = assert!(size_of::<Mailbox>() == size_of::<protocol::Core>());
const _: () = assert!(offset_of!(Mailbox, apic_id) == offset_of!(protocol::Core, apic_id));
const _: () = assert!(offset_of!(Mailbox, here) == offset_of!(protocol::Core, reserved));
const _: () = assert!(offset_of!(Mailbox, goto_address) == offset_of!(protocol::Core, goto_address));

/// Value of `here` once a core is parked.
const HERE: u64 = 1;

impl Mailbox {
    fn is_here(&self) -> bool {
        // ORDER: Acquire pairs with the Release in `core_main`.
        self.here.load(Ordering::Acquire) == HERE
    }

    /// Where to go, once the kernel has said so.
    fn released(&self) -> Option<u64> {
        // ORDER: Acquire pairs with the kernel's atomic store of the address: what it wrote before is visible.
        Some(self.goto_address.load(Ordering::Acquire)).filter(|&entry| entry != 0)
    }
}

/// The cores of the machine, as the kernel is told about them.
pub(super) struct Roster {
    /// The answer to the MP request.
    pub(super) response: protocol::Mp,
    apic: LocalApic,
    mailboxes: &'static [Mailbox],
}

/// Lists the cores, after switching to x2APIC mode if that is wanted and possible.
///
/// A core that this APIC mode cannot address is left out and said so: without x2APIC mode nobody could start it.
/// Without a usable MADT there is this core and no other.
pub(super) fn roll_call(
    heap: &mut Heap<'_>,
    madt: Option<&Madt<'_>>,
    wants_x2apic: bool,
) -> Result<Roster, Refusal> {
    if wants_x2apic && cpu::has_x2apic() {
        cpu::enter_x2apic();
    }
    let (apic, me) = (LocalApic::current(), cpu::apic_id());
    let all = || madt.into_iter().flat_map(Madt::cores);
    let listed = || all().filter(|core| core.apic_id == me || apic.reaches(core.apic_id));
    let left_out = all().count() - listed().count();
    if left_out > 0 {
        say!("{left_out} cores have APIC ids that only x2APIC mode can reach; they stay off");
    }
    let alone = !listed().any(|core| core.apic_id == me);
    let count = if alone { 1 } else { listed().count() };
    let only_me = alone.then_some(Core { acpi_id: 0, apic_id: me }).into_iter();
    let entry = |Core { acpi_id, apic_id }| protocol::Core {
        acpi_id,
        apic_id,
        reserved: 0,
        goto_address: 0,
        extra: 0,
    };
    let entries = heap.store_all(count, only_me.chain(listed()).map(entry))?;
    let step = to_u64(size_of::<protocol::Core>());
    let cores = heap.store_all(count, (0..).map(|index: u64| entries + index * step))?;
    let flags = u32::from(apic.is_x2apic());
    let response = protocol::Mp { revision: 0, flags, bsp_apic_id: me, count: to_u64(count), cores };
    Ok(Roster { response, apic, mailboxes: mailboxes(entries - HHDM, count) })
}

/// Starts every core of the roster but the one that runs this.
pub(super) fn start(
    heap: &mut Heap<'_>,
    roster: &Roster,
    clock: Clock,
    stack_size: u64,
    cr3: u64,
    exceptions: &'static Table,
) -> Result<(), Refusal> {
    let Roster { apic, mailboxes, .. } = *roster;
    let others = u32::try_from(mailboxes.len() - 1).unwrap_or(u32::MAX);
    if others == 0 {
        return Ok(());
    }
    let all_stacks = stack_size.saturating_mul(u64::from(others));
    let (stacks, _) = heap.block(all_stacks, PAGE, anywhere(), Kind::LoaderReclaimable)?;
    let page = place_trampoline(heap)?;
    let is_x2apic = apic.is_x2apic();
    let crew = Crew { exceptions, mailboxes, mtrrs: Mtrrs::read(), is_x2apic, cr3, stacks, stack_size };
    // ORDER: Relaxed; the fence below comes between these stores and the messages that start their readers.
    let order = Ordering::Relaxed;
    LAUNCH.count.store(others, order);
    LAUNCH.stacks.store(stacks, order);
    LAUNCH.stack_size.store(stack_size, order);
    LAUNCH.crew.store(heap.keep(crew)?, order);
    // ORDER: SeqCst, because an x2APIC write waits for no earlier store (Intel SDM volume 3, 10.12.3); its partner
    // is the first instruction of a starting core.
    fence(Ordering::SeqCst);

    let me = cpu::apic_id();
    let absent = || mailboxes.iter().filter(|core| core.apic_id != me && !core.is_here());
    absent().for_each(|core| apic.send_init(core.apic_id));
    if !cpu::is_virtual() {
        clock.wait(INIT_MICROS, || false)?;
    }
    for micros in [RETRY_MICROS, MISSING_MICROS] {
        absent().for_each(|core| apic.send_start_up(core.apic_id, page));
        if clock.wait(micros, || absent().next().is_none())? {
            return Ok(());
        }
    }
    let lost = absent().next().map_or(me, |core| core.apic_id);
    Err(Refusal::with(Exit::CoreMissing, "the core with this APIC id did not start", u64::from(lost)))
}

/// Copies the real-mode code below 1 MiB: its page number.
fn place_trampoline(heap: &mut Heap<'_>) -> Result<u8, Refusal> {
    let (base, copy) = heap.block(PAGE, PAGE, REAL_MODE, Kind::LoaderReclaimable)?;
    let (begin, end) = (&raw const entry_trampoline, &raw const entry_trampoline_end);
    // SAFETY: the two symbols bound constant data of entry.S.
    let code = unsafe { core::slice::from_raw_parts(begin, end.addr() - begin.addr()) };
    copy[..code.len()].copy_from_slice(code);
    Ok(u8::try_from(base / PAGE).unwrap_or(0))
}

/// A core's life in the loader. Runs on the stack of its ticket.
pub(super) extern "C" fn core_main(ticket: u32) -> ! {
    // ORDER: Relaxed; see the fence in `start`.
    let crew = LAUNCH.crew.load(Ordering::Relaxed);
    // SAFETY: `start` stored a crew that lives as long as the loader before it started any core.
    let crew = unsafe { &*crew };
    crew.exceptions.load();
    cpu::set_pat();
    crew.mtrrs.into_iter().for_each(Mtrrs::apply);
    if crew.is_x2apic {
        cpu::enter_x2apic();
    }
    let me = cpu::apic_id();
    let Some(mine) = crew.mailboxes.iter().find(|core| core.apic_id == me) else {
        let what = "a core started that was not called, with this APIC id";
        refuse(Refusal::with(Exit::CoreMissing, what, u64::from(me)));
    };
    mine.here.store(HERE, Ordering::Release); // ORDER: pairs with the Acquire in `is_here`.
    let entry = park::wait(LocalApic::current(), crew.mailboxes.len(), || mine.released());
    let stack = HHDM + crew.stacks + (u64::from(ticket) + 1) * crew.stack_size;
    let argument = HHDM + address_of(ptr::from_ref(mine).cast());
    // SAFETY: the kernel's tables map the loader and its stacks in the direct map; the stack belongs to the ticket.
    unsafe { entry_hand_over(entry, stack, argument, crew.cr3) }
}
