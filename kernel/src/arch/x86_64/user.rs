//! The Rust side of `user.S`: a thread's saved registers, the words of a core that the assembly uses, and switching ring 3 on.
//!
//! * **R1** While a thread is [`Head::current`], its frame belongs to the CPU and the assembly; otherwise to whoever owns the thread.
//! * **R2** What returns to ring 3 has a code address below 2^47, the program's selectors, and flags that a program may have.

use core::arch::global_asm;
use core::cell::Cell;
use core::mem::offset_of;
use core::ptr;

use abi::cap::{ObjectKind, Rights};
use abi::error::Error;
use abi::ipc::{MessageCall, Tag};
use abi::syscall;
use cap::assembly;
use ipc::Queue;
use mm::tlb::{Active, CoreTlb, SpaceTlb};
use percpu::{IrqOff, core_local};
use sched::assembly as queueing;
use x86_64::VirtAddr;
use x86_64::registers::model_specific::{Efer, EferFlags, KernelGsBase, LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::{border, tables, tlb, usercopy};
use crate::endpoint::Endpoint;
use crate::inherit::Pressure;
use crate::limits::Limits;
use crate::spaces::{ENTERED, Space};
use crate::talk::{self, Role, Talk};
use crate::thread::{Doing, Thread, ThreadRef};
use crate::wait::place;
use crate::{dispatch, limits, messages, metrics, syscalls, traps};

/// The registers of a thread that does not run, lowest address first; `user.S` and the CPU fill it from the end downwards.
///
/// After a system call only what the convention preserves is there: `rip rflags rsp rbx rbp r12–r15` and, once it has ended, `rax rdx`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    /// How the thread came into the kernel: the vector, or [`SYSCALL`], in the low half.
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// What decides about threads.
type Core = sched::Core<ThreadRef>;
/// What it knows of one.
type Task = sched::Task<ThreadRef>;

/// Bytes of the SYSCALL instruction (SDM volume 2, chapter 4).
const SYSCALL_BYTES: u64 = 2;

/// In [`Frame::vector`]: by a system call.
pub(crate) const SYSCALL: u32 = 0x100;
/// In [`Frame::vector`]: by a call that passes messages (`abi::ipc`). What waits for a message has its tag there; what sends one, everything.
pub(crate) const MESSAGE: u32 = 0x101;
const _: () = {
    assert!(Space::TLB == 0, "`message.S` takes a space's address for that of what cores keep of it");
};

/// Where a message's registers lie in a [`Frame`].
pub(crate) mod register {
    use core::mem::offset_of;

    use super::Frame;

    /// Status.
    pub(crate) const STATUS: usize = offset_of!(Frame, rax);
    /// The value that a call other than for messages returns.
    pub(crate) const VALUE: usize = offset_of!(Frame, rdx);
    /// Handle, or badge.
    pub(crate) const BADGE: usize = offset_of!(Frame, rdi);
    /// Tag.
    pub(crate) const TAG: usize = offset_of!(Frame, rsi);
    /// When to give up.
    pub(crate) const DEADLINE: usize = offset_of!(Frame, rbx);
    /// The words.
    pub(crate) const WORDS: [usize; abi::ipc::WORDS] = [
        offset_of!(Frame, rdx),
        offset_of!(Frame, r8),
        offset_of!(Frame, r9),
        offset_of!(Frame, r10),
        offset_of!(Frame, r12),
        offset_of!(Frame, r13),
        offset_of!(Frame, r14),
        offset_of!(Frame, r15),
    ];
}

const _: () = assert!(size_of::<Frame>() == (15 + 2 + 5) * 8 && size_of::<Frame>().is_multiple_of(16));

/// Flags of a program at its start: interrupts on, and the bit that is always set (SDM volume 1, figure 3-8).
const START_FLAGS: u64 = 0x202;

impl Frame {
    /// A thread at its first instruction.
    pub(crate) fn start(entry: u64, stack: u64, argument: u64) -> Self {
        Self {
            rip: entry,
            rsp: stack,
            rdi: argument,
            cs: u64::from(tables::USER_CODE),
            ss: u64::from(tables::USER_DATA),
            rflags: START_FLAGS,
            ..Self::EMPTY
        }
    }

    /// After a system call: makes it again. What the convention preserves stays, the rest is as the kernel shows it after a call.
    pub(crate) fn call_again(&mut self, number: u64, [rdi, rsi, rdx, r10, r8, r9]: [u64; 6]) {
        let Self { r15, r14, r13, r12, rbp, rbx, rip, rflags, rsp, .. } = *self;
        *self = Self {
            rip: rip.wrapping_sub(SYSCALL_BYTES),
            rax: number,
            cs: u64::from(tables::USER_CODE),
            ss: u64::from(tables::USER_DATA),
            ..Self { r15, r14, r13, r12, rbp, rbx, rflags, rsp, rdi, rsi, rdx, r10, r8, r9, ..Self::EMPTY }
        };
    }

    /// Nothing.
    pub(crate) const EMPTY: Self = Self {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        r11: 0,
        r10: 0,
        r9: 0,
        r8: 0,
        rbp: 0,
        rdi: 0,
        rsi: 0,
        rdx: 0,
        rcx: 0,
        rbx: 0,
        rax: 0,
        vector: 0,
        error: 0,
        rip: 0,
        cs: 0,
        rflags: 0,
        rsp: 0,
        ss: 0,
    };
}

/// The words of a core that `user.S` and `border.S` use. Only the core itself reads and writes them. They have a page of their own, which
/// programs' tables show where they have any.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Head {
    /// The thread whose registers the next entry saves; null between threads.
    current: Cell<*const Thread>,
    /// Bits of [`pending`]: what has to be looked at before a thread goes on.
    pending: Cell<u32>,
    /// Bits of [`extra`].
    extras: Cell<u32>,
    /// The core's number, plus 1, and above it how often that was renewed: what `thread::Doing` notes.
    mark: Cell<u32>,
    /// A program's stack pointer, for three instructions.
    user_sp: Cell<u64>,
    /// Where the kernel's stack begins on entry.
    kernel_sp: Cell<u64>,
    /// The FS base that was loaded last.
    fs_base: Cell<u64>,
    /// Where the task-state segment says where an interrupt of ring 3 stores what it interrupts.
    stack_slot: Cell<*mut u64>,
    /// The limits of the current thread's process, if it has any; of the one before, while there is none.
    limits: Cell<*const Limits>,
    /// What `border.S` needs besides.
    border: border::Words,
}

/// Bits of [`Head::pending`].
pub(crate) mod pending {
    /// Another thread may have to run.
    pub(crate) const RESCHEDULE: u32 = 1 << 0;
    /// The current thread is to be ended or stopped.
    pub(crate) const STOP: u32 = 1 << 1;
    /// The timer has to be set anew.
    pub(crate) const TIMER: u32 = 1 << 2;
    /// There is work to be done in steps, or something retired.
    pub(crate) const WORK: u32 = 1 << 3;
}

/// Bits of [`Head::extras`] and of a thread's: what only few threads have.
pub(crate) mod extra {
    /// Extended state: a thread of this kind, or its state in the registers.
    pub(crate) const STATE: u32 = 1 << 0;
    /// An FS base that is not 0.
    pub(crate) const FS_BASE: u32 = 1 << 1;
    /// A thread that was woken and has not run since.
    pub(crate) const WOKEN: u32 = 1 << 2;
    /// A core whose messages take the long way, for a test that both ways lead to the same.
    pub(crate) const SLOW: u32 = 1 << 7;
    /// A thread with a bound notification.
    pub(crate) const BOUND: u32 = 1 << 6;
    /// A thread that passes urgency on.
    pub(crate) const PRESSED: u32 = 1 << 7;
    /// A core on which switches are traced.
    pub(crate) const TRACE: u32 = 1 << 3;
    /// On a core: the current thread may have some of these.
    pub(crate) const THREAD: u32 = 1 << 4;
    /// A thread that is watched.
    pub(crate) const WATCHED: u32 = 1 << 5;
    /// A thread whose calls are checked (`limits`); a core on which the last one's were.
    pub(crate) const LIMITED: u32 = 1 << 7;
}

core_local! {
    /// This core's words.
    pub(crate) static HEAD: Head = const { Head {
        current: Cell::new(ptr::null()),
        pending: Cell::new(0),
        extras: Cell::new(0),
        mark: Cell::new(0),
        user_sp: Cell::new(0),
        kernel_sp: Cell::new(0),
        fs_base: Cell::new(0),
        stack_slot: Cell::new(ptr::null_mut()),
        limits: Cell::new(ptr::null()),
        border: border::Words::new(),
    } };
}

impl Head {
    /// Where the turns of a mark begin: above any core's number.
    const TURNS: u32 = 16;

    /// Where `border.S` finds its fields.
    pub(super) const CURRENT: usize = offset_of!(Self, current);
    pub(super) const USER_SP: usize = offset_of!(Self, user_sp);
    pub(super) const BORDER: usize = offset_of!(Self, border);

    /// What `border` keeps here.
    #[inline(always)]
    pub(super) fn border(&self) -> &border::Words {
        &self.border
    }

    /// The thread that is current here; null for none.
    #[inline(always)]
    pub(crate) fn current(&self) -> *const Thread {
        self.current.get()
    }

    /// Makes a thread the one that entries save into.
    ///
    /// # Safety
    /// 1. The thread stays where it is as long as it is current.
    #[inline(always)]
    pub(crate) unsafe fn set_current(&self, thread: *const Thread) {
        self.current.set(thread);
        let end = thread.wrapping_byte_add(Thread::FRAME + size_of::<Frame>());
        // SAFETY: this core's own task-state segment, or a word of its own (`border::enter`), which live for ever; it may be off alignment.
        unsafe { self.stack_slot.get().write_unaligned(end.expose_provenance() as u64) };
    }

    /// Nothing is current.
    #[inline(always)]
    pub(crate) fn clear_current(&self) {
        self.current.set(ptr::null());
    }

    /// Has something looked at before a thread goes on.
    #[inline(always)]
    pub(crate) fn raise(&self, bits: u32) {
        self.pending.set(self.pending.get() | bits);
    }

    /// Whether something is pending.
    #[inline(always)]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.get() != 0
    }

    /// Takes what is pending.
    #[inline(always)]
    pub(crate) fn take(&self) -> u32 {
        self.pending.replace(0)
    }

    /// Bits of [`extra`] that concern whoever comes next.
    #[inline(always)]
    pub(crate) fn extras(&self) -> u32 {
        self.extras.get()
    }

    /// Sets the limits that calls are checked against, null for none; gives those before.
    pub(crate) fn set_limits(&self, limits: *const Limits) -> *const Limits {
        self.limits.replace(limits)
    }

    /// Whether calls are checked.
    pub(crate) fn is_limited(&self) -> bool {
        !self.limits.get().is_null()
    }

    /// What threads note that wait and can be switched to on this core; never 0.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        self.mark.get()
    }

    /// From now on more has to be done to switch to any thread that waits on this core.
    pub(crate) fn renew_mark(&self) {
        self.mark.set(self.mark.get().wrapping_add(1 << Self::TURNS) & !(Doing::FAULTED | Doing::STATE));
    }

    /// Sets or clears a bit of [`extra`].
    pub(crate) fn set_extra(&self, bit: u32, on: bool) {
        let others = self.extras.get() & !bit;
        self.extras.set(if on { others | bit } else { others });
    }
}

global_asm!(
    include_str!("registers.S"),
    include_str!("user.S"),
    include_str!("message.S"),
    planted = const if cfg!(feature = "slow-call") { 8 } else { 0 },
    head = sym HEAD,
    current = const offset_of!(Head, current),
    pending = const offset_of!(Head, pending),
    user_sp = const offset_of!(Head, user_sp),
    kernel_sp = const offset_of!(Head, kernel_sp),
    frame = const Thread::FRAME,
    rip = const Thread::FRAME + offset_of!(Frame, rip),
    rflags = const Thread::FRAME + offset_of!(Frame, rflags),
    rsp = const Thread::FRAME + offset_of!(Frame, rsp),
    rax = const Thread::FRAME + offset_of!(Frame, rax),
    rdx = const Thread::FRAME + offset_of!(Frame, rdx),
    rdi = const Thread::FRAME + offset_of!(Frame, rdi),
    rsi = const Thread::FRAME + offset_of!(Frame, rsi),
    r8 = const Thread::FRAME + offset_of!(Frame, r8),
    r9 = const Thread::FRAME + offset_of!(Frame, r9),
    r10 = const Thread::FRAME + offset_of!(Frame, r10),
    rbx = const Thread::FRAME + offset_of!(Frame, rbx),
    rbp = const Thread::FRAME + offset_of!(Frame, rbp),
    r12 = const Thread::FRAME + offset_of!(Frame, r12),
    r13 = const Thread::FRAME + offset_of!(Frame, r13),
    r14 = const Thread::FRAME + offset_of!(Frame, r14),
    r15 = const Thread::FRAME + offset_of!(Frame, r15),
    vector = const Thread::FRAME + offset_of!(Frame, vector),
    syscall = const SYSCALL,
    count = const syscall::COUNT,
    handlers = sym syscalls::HANDLERS,
    metrics = sym metrics::HERE,
    countdown = const metrics::Here::COUNTDOWN,
    aside = const metrics::Here::ASIDE,
    limits = const offset_of!(Head, limits),
    allowed = const Limits::CALLS,
    rated = const Limits::RATED,
    rate = sym limits::rated,
    filtered = const Error::Filtered as u64,
    watch = sym metrics::watch_call,
    watched = sym metrics::watched_call,
    message = const MESSAGE,
    call = const MessageCall::Call as u64,
    reply_receive = const MessageCall::ReplyReceive as u64,
    send = const MessageCall::Send as u64,
    receive = const MessageCall::Receive as u64,
    faulted = const Doing::FAULTED,
    with_state = const Doing::STATE,
    state = const extra::STATE,
    only_state = const extra::STATE | extra::THREAD,
    enter_state = sym dispatch::enter_state,
    label_shift = const Tag::LABEL_SHIFT,
    special = const Tag::SPECIAL as u32,
    special_beside_caps = const (Tag::SPECIAL & !Tag::CAPS_PASSED) as u32,
    caps = const Tag::new(0, 0).with_caps(7).0 as u32,
    most_caps = const Tag::new(0, 0).with_caps(abi::ipc::CAPS).0 as u32,
    moves = const Tag::CAPS_PASSED as u32,
    one_cap = const Tag::new(0, 0).with_caps(1).0 as u32,
    lost = const Tag::LOST as u32,
    pass_capability = sym messages::pass_one_in_registers,
    pass_capabilities = sym messages::pass_in_registers,
    go_on_with_callee = sym messages::go_on_with_callee,
    extras = const offset_of!(Head, extras),
    stack_slot = const offset_of!(Head, stack_slot),
    mark = const offset_of!(Head, mark),
    frame_end = const Thread::FRAME + size_of::<Frame>(),
    table = const Thread::TABLE,
    space = const Thread::SPACE,
    direct = const Thread::DIRECT,
    at = const Thread::AT,
    on = const Thread::TALK + Talk::ON,
    runner = const Thread::TALK + Talk::RUNNER,
    depth = const Thread::TALK + Talk::DEPTH,
    reply = const Thread::TALK + Talk::REPLY,
    max_depth = const talk::MAX_DEPTH,
    callee = const place::CALLEE,
    endpoint = const place::ENDPOINT,
    leaf_shift = const assembly::LEAF_SHIFT,
    leaf_mask = const assembly::LEAF_MASK,
    slot_mask = const assembly::SLOT_MASK,
    meta = const assembly::META,
    object = const assembly::OBJECT,
    badge = const assembly::BADGE,
    may_send = const assembly::zeros(ObjectKind::Endpoint, Rights::SEND),
    may_receive = const assembly::zeros(ObjectKind::Endpoint, Rights::RECEIVE),
    queue = const Endpoint::WORD,
    one = const Queue::<ThreadRef>::ONE,
    marks = const ipc::Word::MARKS,
    entered = sym ENTERED,
    tlb = sym tlb::TLB,
    tlb_before = const CoreTlb::BEFORE,
    tlb_current = const CoreTlb::CURRENT,
    slot_space = const CoreTlb::SLOT + CoreTlb::SLOT_SPACE,
    slot_seen = const CoreTlb::SLOT + CoreTlb::SLOT_SEEN,
    slot_load = const CoreTlb::SLOT + CoreTlb::SLOT_LOAD,
    active = sym tlb::ACTIVE,
    active_word = const Active::WORD,
    active_leaving = const Active::LEAVING,
    space_id = const Space::TLB + SpaceTlb::ID,
    space_generation = const Space::TLB + SpaceTlb::GENERATION,
    fast_messages = const metrics::Here::FAST_MESSAGES,
    wakes_local = const metrics::Here::WAKES_LOCAL,
    wakes_left = const metrics::Here::WAKES_LEFT,
    wakes_per_sample = const metrics::WAKES_PER_SAMPLE,
    ready_since = const Thread::READY_SINCE,
    thread_extras = const Thread::EXTRAS,
    woken = const extra::WOKEN,
    sched = sym dispatch::SCHED,
    sched_current = const Core::CURRENT,
    sched_urgency = const Core::URGENCY,
    sched_first = const Core::FIRST,
    sched_last = const Core::LAST,
    sched_words = const Core::WORDS,
    sched_counts = const Core::COUNTS,
    fifo_shift = const queueing::FIFO.trailing_zeros(),
    real_time = const queueing::REAL_TIME,
    queued = const queueing::QUEUED,
    task_next = const Thread::TASK + Task::NEXT,
    task_prev = const Thread::TASK + Task::PREV,
    task_turn = const Thread::TASK + Task::TURN,
    task_kind = const Thread::TASK + Task::KIND,
    task_priority = const Thread::TASK + Task::PRIORITY,
    task_place = const Thread::TASK + Task::PLACE,
    role = const Thread::TALK + Talk::ROLE,
    receiving = const Role::Receiving as u8,
    serves = const Thread::PRESSURE + Pressure::SERVES,
    served = const Thread::PRESSURE + Pressure::SERVED,
    give_way = sym dispatch::give_way_in_message,
    enter_space = sym messages::enter_space,
    message_call = sym messages::message_call,
    watched_message_call = sym messages::watched_message_call,
    leave = sym dispatch::leave,
    far = sym traps::far_return,
    trap = sym traps::trap,
    smap = sym usercopy::SMAP,
    user_bits = const mm::user::USER_END.trailing_zeros(),
    user_end_high = const mm::user::USER_END >> u32::BITS,
    word = const size_of::<u64>(),
);

unsafe extern "C" {
    fn syscall_entry();
    fn user_resume(thread: *const ()) -> !;
    fn serve_begin(function: extern "C" fn() -> !);
    fn serve_end() -> !;
    fn serve_again(function: extern "C" fn() -> !) -> !;
}

/// Goes on with the current thread.
///
/// # Safety
/// 1. The thread is current, its space, segment bases and extended state are loaded, and its frame keeps R2.
/// 2. No `IrqOff` made further up is needed any more: the stack is given up.
#[inline(always)]
pub(crate) unsafe fn resume(thread: *const Thread) -> ! {
    // SAFETY: obligations 1 and 2.
    unsafe { user_resume(thread.cast()) }
}

/// Gives this core to `function`, on this stack, until it calls [`stop_serving`].
///
/// # Safety
/// 1. The caller has no core-local data in use: everything that this core does otherwise goes on meanwhile.
pub(crate) unsafe fn serve(function: extern "C" fn() -> !) {
    // SAFETY: the routine keeps what the convention preserves; obligation 1 covers the rest.
    unsafe { serve_begin(function) }
}

/// Comes back from [`serve`].
///
/// # Safety
/// 1. This core is between [`serve`] and this, with no thread current; nothing on the stack above is needed any more.
pub(crate) unsafe fn stop_serving() -> ! {
    // SAFETY: obligation 1.
    unsafe { serve_end() }
}

/// Goes on with `function` on the empty kernel stack.
///
/// # Safety
/// 1. This core serves, and nothing on its stack is needed any more.
#[inline(always)]
pub(crate) unsafe fn again(function: extern "C" fn() -> !) -> ! {
    // SAFETY: obligation 1.
    unsafe { serve_again(function) }
}

/// IA32_STAR (SDM volume 3, §5.8.8): bits 47:32 what SYSCALL loads into CS, SS being the next; bits 63:48 what SYSRET builds its own from.
const STAR: u32 = 0xc000_0081;

/// IA32_FS_BASE.
const FS_BASE: Msr = Msr::new(0xc000_0100);

/// Switches SYSCALL on on the core that calls, whose task-state segment is given.
pub(crate) fn enter(irq: &IrqOff, task: &tables::Task) {
    HEAD.owned(irq).stack_slot.set(border::enter(irq, task));
    HEAD.owned(irq).mark.set(irq.core().index() as u32 + 1);
    let selectors = u64::from(tables::KERNEL_CODE) << 32 | u64::from(tables::SYSRET_BASE) << 48;
    // SAFETY: the selectors are those of this core's table, in the order that both instructions expect (`tables`).
    unsafe { Msr::new(STAR).write(selectors) };
    let usual = VirtAddr::new(syscall_entry as *const () as u64);
    LStar::write(if border::isolated() { border::syscall() } else { usual });
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::NESTED_TASK
            | RFlags::ALIGNMENT_CHECK
            | RFlags::RESUME_FLAG
            | RFlags::IOPL_LOW
            | RFlags::IOPL_HIGH,
    );
    KernelGsBase::write(VirtAddr::zero());
    // SAFETY: the registers that the instruction uses have just been set.
    unsafe { Efer::update(|efer| efer.insert(EferFlags::SYSTEM_CALL_EXTENSIONS)) };
}

/// Loads a thread's FS base, which lies in the user half. A program can zero it by loading a selector, so what was loaded before says
/// something only if both are 0.
#[inline(always)]
pub(crate) fn load_fs_base(irq: &IrqOff, base: u64) {
    let head = HEAD.owned(irq);
    if head.fs_base.get() | base != 0 {
        set_fs_base(irq, base);
    }
}

/// Loads the FS base of the current thread.
#[inline(always)]
pub(crate) fn set_fs_base(irq: &IrqOff, base: u64) {
    HEAD.owned(irq).fs_base.set(base);
    HEAD.owned(irq).set_extra(extra::FS_BASE, base != 0);
    let mut register = FS_BASE;
    // SAFETY: a canonical address (`Thread::tls`), and the kernel does not use FS.
    unsafe { register.write(base) };
}
