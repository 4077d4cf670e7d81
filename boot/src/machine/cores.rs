//! Starting the other cores and parking them until the kernel releases them (protocol, "MP Feature").
//!
//! All cores start together: one message to each, one wait. A core takes a ticket for a stack, finds its entry by
//! its APIC id, says that it is there, and watches its `goto_address`.

use super::apic::LocalApic;
use super::asm::{address_of, entry_hand_over, entry_trampoline, entry_trampoline_end};
use super::clock::Clock;
use super::console::{refuse, say};
use super::cpu;
use super::exceptions::Table;
use super::physical::{Heap, mailboxes};
use abi::exit::Exit;
use boot::acpi::{Core, Madt};
use boot::map::Kind;
use boot::protocol::{self, HHDM};
use boot::{PAGE, Refusal};
use core::mem::offset_of;
#[expect(
    clippy::disallowed_types,
    reason = "the loader is below percpu, and its other side is assembly"
)]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Real mode reaches the first MiB.
const REAL_MODE: u64 = 0x10_0000;
/// After INIT, before the start-up message (Intel SDM volume 3, 8.4.4.1).
const INIT_MICROS: u64 = 10_000;
/// Until the second start-up message, which only lost cores need.
const RETRY_MICROS: u64 = 200_000;
/// Until a core counts as missing. Generous: with many emulated cores on few real ones the last one comes late.
const MISSING_MICROS: u64 = 30_000_000;

/// What a starting core reads. Written by the core that boots, before it sends the start-up messages; only
/// `tickets` changes afterwards.
#[repr(C)]
#[expect(clippy::disallowed_types, reason = "the loader is below percpu, and its other side is assembly")]
pub(super) struct Launch {
    /// The next ticket.
    pub(super) tickets: AtomicU32,
    /// How many there are.
    pub(super) count: AtomicU32,
    /// Where the stacks begin.
    pub(super) stacks: AtomicU64,
    /// Bytes of a stack.
    pub(super) stack_size: AtomicU64,
    /// The entries of all cores, as [`protocol::Core`].
    cores: AtomicU64,
    /// How many entries.
    core_count: AtomicU32,
    /// 1 when cores enter x2APIC mode.
    x2apic: AtomicU32,
    /// The kernel's page tables.
    cr3: AtomicU64,
    /// The exception table.
    exceptions: AtomicU64,
}

#[expect(clippy::disallowed_types, reason = "the loader is below percpu, and its other side is assembly")]
pub(super) static LAUNCH: Launch = Launch {
    tickets: AtomicU32::new(0),
    count: AtomicU32::new(0),
    stacks: AtomicU64::new(0),
    stack_size: AtomicU64::new(0),
    cores: AtomicU64::new(0),
    core_count: AtomicU32::new(0),
    x2apic: AtomicU32::new(0),
    cr3: AtomicU64::new(0),
    exceptions: AtomicU64::new(0),
};

/// Value of a core's reserved field once it is parked.
const HERE: u64 = 1;

/// What all cores have in common.
pub(super) struct Crew {
    /// Bytes of a stack.
    pub(super) stack_size: u64,
    /// The kernel's page tables.
    pub(super) cr3: u64,
    /// The exception table.
    pub(super) exceptions: &'static Table,
}

/// The cores of the machine, as the kernel is told about them.
pub(super) struct Roster {
    /// The answer to the MP request.
    pub(super) response: protocol::Mp,
    apic: LocalApic,
    /// Physical address of the entries.
    cores: u64,
    count: u32,
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
    let entry = |core: Core| protocol::Core {
        acpi_id: core.acpi_id,
        apic_id: core.apic_id,
        reserved: 0,
        goto_address: 0,
        extra: 0,
    };
    let alone = !listed().any(|core| core.apic_id == me);
    let count = if alone { 1 } else { listed().count() };
    let only_me = alone.then_some(Core { acpi_id: 0, apic_id: me }).into_iter();
    let cores = heap.store_all(count, only_me.chain(listed()).map(entry))?;
    let left_out = all().count() - listed().count();
    if left_out > 0 {
        say!("{left_out} cores have APIC ids that only x2APIC mode can reach; they stay off");
    }
    let step = u64::try_from(size_of::<protocol::Core>()).unwrap_or(0);
    let pointers = heap.store_all(count, (0..).map(|index: u64| cores + index * step))?;
    let flags = u32::from(apic.is_x2apic());
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let response =
        protocol::Mp { revision: 0, flags, bsp_apic_id: me, count: u64::from(count), cores: pointers };
    Ok(Roster { response, apic, cores: cores - HHDM, count })
}

/// Starts every core of the crew but the one that runs this.
pub(super) fn start(heap: &mut Heap<'_>, roster: &Roster, clock: Clock, crew: &Crew) -> Result<(), Refusal> {
    let apic = roster.apic;
    let others = roster.count.saturating_sub(1);
    if others == 0 {
        return Ok(());
    }
    let (stacks, _) =
        heap.block(u64::from(others) * crew.stack_size, PAGE, u64::MAX, Kind::LoaderReclaimable)?;
    let page = place_trampoline(heap)?;
    // ORDER: Relaxed; the start-up messages below are sent after these stores, and a core that starts reads them.
    let order = Ordering::Relaxed;
    LAUNCH.count.store(others, order);
    LAUNCH.stacks.store(stacks, order);
    LAUNCH.stack_size.store(crew.stack_size, order);
    LAUNCH.cores.store(roster.cores, order);
    LAUNCH.core_count.store(roster.count, order);
    LAUNCH.x2apic.store(u32::from(apic.is_x2apic()), order);
    LAUNCH.cr3.store(crew.cr3, order);
    LAUNCH.exceptions.store(address_of(core::ptr::from_ref(crew.exceptions).cast()), order);
    // ORDER: SeqCst fence so that the stores are visible before the messages leave (an x2APIC write does not wait
    // for earlier stores, Intel SDM volume 3, 10.12.3).
    core::sync::atomic::fence(Ordering::SeqCst);

    let me = cpu::apic_id();
    let boxes = mailboxes(roster.cores, roster.count);
    let absent = || boxes.iter().filter(|core| core.apic_id != me && !core.is_here());
    absent().for_each(|core| apic.send_init(core.apic_id));
    clock.wait(INIT_MICROS, || false)?;
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
    let begin = &raw const entry_trampoline;
    let end = &raw const entry_trampoline_end;
    // SAFETY: the two symbols bound constant data of entry.S.
    let code = unsafe { core::slice::from_raw_parts(begin, end.addr() - begin.addr()) };
    copy[..code.len()].copy_from_slice(code);
    Ok(u8::try_from(base / PAGE).unwrap_or(0))
}

/// A core's life in the loader. Runs on the stack of its ticket.
pub(super) extern "C" fn core_main(ticket: u32) -> ! {
    // ORDER: Relaxed; see `start`.
    let order = Ordering::Relaxed;
    Table::load_at(LAUNCH.exceptions.load(order));
    cpu::set_pat();
    if LAUNCH.x2apic.load(order) != 0 {
        cpu::enter_x2apic();
    }
    let me = cpu::apic_id();
    let boxes = mailboxes(LAUNCH.cores.load(order), LAUNCH.core_count.load(order));
    let Some(mine) = boxes.iter().find(|core| core.apic_id == me) else {
        refuse(Refusal::with(
            Exit::CoreMissing,
            "a core started that was not called, with APIC id",
            u64::from(me),
        ));
    };
    mine.here.store(HERE, Ordering::Release); // ORDER: pairs with the Acquire in `is_here`.
    let entry = loop {
        // ORDER: Acquire pairs with the kernel's atomic store of the address: what it wrote before is visible.
        match mine.goto_address.load(Ordering::Acquire) {
            0 => core::hint::spin_loop(),
            entry => break entry,
        }
    };
    let top = LAUNCH.stacks.load(order) + (u64::from(ticket) + 1) * LAUNCH.stack_size.load(order);
    // SAFETY: the kernel's tables map the loader and its stacks in the direct map; the stack belongs to the ticket.
    unsafe { entry_hand_over(entry, HHDM + top, mine.direct_map_address(), LAUNCH.cr3.load(order)) }
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

impl Mailbox {
    fn is_here(&self) -> bool {
        // ORDER: Acquire pairs with the Release in `core_main`.
        self.here.load(Ordering::Acquire) == HERE
    }

    fn direct_map_address(&self) -> u64 {
        HHDM + address_of(core::ptr::from_ref(self).cast())
    }
}
