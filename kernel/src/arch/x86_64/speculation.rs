//! What the CPU's speculation could leak, what it takes to prevent that, and doing it.
//!
//! [`decide`] is a pure function of what CPUID and IA32_ARCH_CAPABILITIES say and of the command line; `tests::speculation` has its cases.
//! Nothing is off in silence: what the CPU needs and does not get is logged and part of the machine record.
//!
//! Speculative store bypass is left as it is (no SSBD): it lets a program read its own memory only, and programs here are not sandboxes of
//! others. What the kernel's indirect branches need is enhanced or automatic IBRS; without it that stays open, and is reported.

use core::arch::asm;
use core::fmt;

use abi::boot::{Isolate, Mitigate};
use percpu::sync::atomic::{AtomicBool, Ordering};
use percpu::topology::cpuid::Registers;
use spin::Once;
use x86_64::registers::model_specific::Msr;

use super::cpu;
use crate::log;

/// CPUID leaf 7: RTM in EBX; MD_CLEAR, IBRS and IBPB, STIBP, IA32_ARCH_CAPABILITIES in EDX (SDM volume 2, CPUID).
mod leaf7 {
    pub(super) const RTM: u32 = 1 << 11;
    pub(super) const MD_CLEAR: u32 = 1 << 10;
    pub(super) const IBPB: u32 = 1 << 26;
    pub(super) const STIBP: u32 = 1 << 27;
    pub(super) const CAPABILITIES: u32 = 1 << 29;
}

/// IA32_ARCH_CAPABILITIES (SDM volume 4, table 2-2).
mod capability {
    pub(super) const RDCL_NO: u64 = 1 << 0;
    pub(super) const IBRS_ALL: u64 = 1 << 1;
    pub(super) const MDS_NO: u64 = 1 << 5;
    pub(super) const TAA_NO: u64 = 1 << 8;
    /// VERW clears the fill buffers: there is something in them that other flaws of MMIO reads show.
    pub(super) const FB_CLEAR: u64 = 1 << 17;
    pub(super) const RFDS_NO: u64 = 1 << 27;
    pub(super) const RFDS_CLEAR: u64 = 1 << 28;
}

/// AMD's leaves 0x8000_0008 (EBX) and 0x8000_0021 (EAX, ECX) (APM volume 3, appendix E; TSA: AMD's technical guidance of July 2025).
mod amd {
    pub(super) const IBPB: u32 = 1 << 12;
    pub(super) const STIBP: u32 = 1 << 15;
    pub(super) const VERW_CLEAR: u32 = 1 << 5;
    pub(super) const AUTOMATIC_IBRS: u32 = 1 << 8;
    pub(super) const TSA_NO: u32 = 1 << 1 | 1 << 2;
}

/// Registers: IA32_ARCH_CAPABILITIES, IA32_SPEC_CTRL with IBRS and STIBP, IA32_PRED_CMD with IBPB (SDM volume 4, table 2-2), and in EFER
/// automatic IBRS (APM volume 2, §3.1.7).
const ARCH_CAPABILITIES: u32 = 0x10a;
const SPEC_CTRL: u32 = 0x48;
const SPEC_CTRL_IBRS: u64 = 1 << 0;
const SPEC_CTRL_STIBP: u64 = 1 << 1;
const PRED_CMD: u32 = 0x49;
const PRED_CMD_IBPB: u64 = 1 << 0;
const EFER: u32 = 0xc000_0080;
const EFER_AUTOMATIC_IBRS: u64 = 1 << 21;

/// Who made the CPU, as far as it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Maker {
    /// Intel, and makers whose CPUs report by Intel's registers.
    #[default]
    Intel,
    /// AMD and Hygon: not affected by Meltdown, MDS or TAA.
    Amd,
    /// An emulator that translates code: it does not speculate on the guest's behalf.
    Emulator,
}

/// What the CPU says of itself. Absent registers are 0.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) maker: Maker,
    pub(crate) leaf7: Registers,
    pub(crate) capabilities: u64,
    pub(crate) amd8_ebx: u32,
    pub(crate) amd21: Registers,
}

impl Facts {
    /// Of the CPU this runs on.
    fn read() -> Self {
        let id = cpu::cpuid();
        let amd = |vendor: &str| matches!(vendor, "AuthenticAMD" | "HygonGenuine");
        let emulated =
            id.get_hypervisor_info().is_some_and(|info| info.identify() == raw_cpuid::Hypervisor::QEMU);
        let maker = match id.get_vendor_info() {
            _ if emulated => Maker::Emulator,
            Some(vendor) if amd(vendor.as_str()) => Maker::Amd,
            _ => Maker::Intel,
        };
        let highest = cpu::leaf(0x8000_0000, 0).eax;
        let extended = |leaf| if leaf <= highest { cpu::leaf(leaf, 0) } else { Registers::default() };
        let leaf7 = if cpu::leaf(0, 0).eax >= 7 { cpu::leaf(7, 0) } else { Registers::default() };
        // SAFETY: CPUID has the register if it is read.
        let read = || unsafe { Msr::new(ARCH_CAPABILITIES).read() };
        let capabilities = if leaf7.edx & leaf7::CAPABILITIES != 0 { read() } else { 0 };
        Self { maker, leaf7, capabilities, amd8_ebx: extended(0x8000_0008).ebx, amd21: extended(0x8000_0021) }
    }
}

/// How it stands with one measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The CPU does without.
    NotNeeded,
    /// Needed, or asked for, and done.
    On,
    /// Needed, but the command line says no.
    Off,
    /// Needed, or asked for, but the CPU or the kernel cannot.
    Missing,
}

impl State {
    /// The word used in reports.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            State::NotNeeded => "not-needed",
            State::On => "on",
            State::Off => "off",
            State::Missing => "missing",
        }
    }

    const fn of(needed: bool, wanted: bool, possible: bool) -> Self {
        match (needed, wanted, possible) {
            (false, ..) => State::NotNeeded,
            (true, false, _) => State::Off,
            (true, true, true) => State::On,
            (true, true, false) => State::Missing,
        }
    }

    /// Whether it is done.
    pub(crate) const fn is_on(self) -> bool {
        matches!(self, State::On)
    }
}

/// What is done about which weakness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mitigations {
    /// Page tables of their own for user mode (Meltdown).
    pub(crate) kpti: State,
    /// VERW on every exit to user mode (MDS, TAA, stale MMIO data, RFDS, TSA).
    pub(crate) verw: State,
    /// Enhanced or automatic IBRS, on since boot: user mode cannot train the kernel's indirect branches.
    pub(crate) ibrs: State,
    /// IBPB between processes: one cannot train another's indirect branches.
    pub(crate) ibpb: State,
    /// STIBP: nor can one on the core's other hardware thread. Enhanced IBRS implies it on Intel's CPUs.
    pub(crate) stibp: State,
    /// The return stack filled between processes: IBPB need not empty it.
    pub(crate) rsb: State,
}

impl Mitigations {
    /// The measures and how it stands with them, in a fixed order.
    pub(crate) fn list(&self) -> [(&'static str, State); 6] {
        [
            ("kpti", self.kpti),
            ("verw", self.verw),
            ("ibrs", self.ibrs),
            ("ibpb", self.ibpb),
            ("stibp", self.stibp),
            ("rsb", self.rsb),
        ]
    }
}

/// As in a record: `kpti=not-needed verw=on …`.
impl fmt::Display for Mitigations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list().iter().enumerate().try_for_each(|(i, (name, state))| {
            let separator = if i == 0 { "" } else { " " };
            write!(f, "{separator}{name}={}", state.word())
        })
    }
}

/// What such a CPU needs and gets. VERW, the return stack and page tables can be had on every CPU, for tests if it needs none.
pub(crate) fn decide(facts: &Facts, mitigations: Mitigate, kpti: Isolate) -> Mitigations {
    let (intel, amd) = (facts.maker == Maker::Intel, facts.maker == Maker::Amd);
    let capable = |bit: u64| facts.capabilities & bit != 0;
    let (wanted, all) = (mitigations != Mitigate::Off, mitigations == Mitigate::All);

    let meltdown = intel && !capable(capability::RDCL_NO);
    let taa = facts.leaf7.ebx & leaf7::RTM != 0 && !capable(capability::TAA_NO);
    let rfds = capable(capability::RFDS_CLEAR) && !capable(capability::RFDS_NO);
    let stale = intel && (!capable(capability::MDS_NO) || taa || capable(capability::FB_CLEAR) || rfds);
    let tsa = amd && facts.amd21.eax & amd::VERW_CLEAR != 0 && facts.amd21.ecx & amd::TSA_NO != amd::TSA_NO;
    let clears =
        facts.leaf7.edx & leaf7::MD_CLEAR != 0 || capable(capability::FB_CLEAR | capability::RFDS_CLEAR);

    let enhanced = intel && capable(capability::IBRS_ALL);
    let automatic = amd && facts.amd21.eax & amd::AUTOMATIC_IBRS != 0;
    let ibpb = (intel && facts.leaf7.edx & leaf7::IBPB != 0) || (amd && facts.amd8_ebx & amd::IBPB != 0);
    let stibp = (intel && facts.leaf7.edx & leaf7::STIBP != 0) || (amd && facts.amd8_ebx & amd::STIBP != 0);
    let speculates = intel || amd;
    Mitigations {
        kpti: match kpti {
            Isolate::Auto => State::of(meltdown || all, wanted, true),
            Isolate::On => State::On,
            Isolate::Off => State::of(meltdown, false, true),
        },
        verw: State::of(stale || tsa || all, wanted, clears || tsa || !stale),
        ibrs: State::of(speculates, wanted, enhanced || automatic),
        ibpb: State::of(speculates, wanted, ibpb),
        stibp: State::of(speculates && !enhanced, wanted, stibp),
        rsb: State::of(speculates || all, wanted, true),
    }
}

/// What is in force. Constant after [`choose`].
static IN_FORCE: Once<(Mitigations, Maker)> = Once::new();

/// Settles what is done, before any core enters, and says what stays open.
pub(crate) fn choose(mitigations: Mitigate, kpti: Isolate) {
    let facts = Facts::read();
    let decided = decide(&facts, mitigations, kpti);
    IN_FORCE.call_once(|| (decided, facts.maker));
    // ORDER: Relaxed; the other cores are released later.
    BETWEEN.store(decided.ibpb.is_on() || decided.rsb.is_on(), Ordering::Relaxed);
    for (name, state) in decided.list() {
        match state {
            State::Missing => log!(
                "SPECULATION: this CPU needs {name}, which is not available: user programs can read what they must not"
            ),
            State::Off => log!("SPECULATION: this CPU needs {name}, which the command line switches off"),
            State::NotNeeded | State::On => {}
        }
    }
}

/// What is done about the weaknesses of this machine's CPUs.
#[inline]
pub(crate) fn in_force() -> &'static Mitigations {
    &in_force_by().0
}

#[inline]
fn in_force_by() -> &'static (Mitigations, Maker) {
    IN_FORCE.get().expect("weaknesses are looked at before any core enters")
}

/// Switches on, on the core this runs on, what stays on.
pub(crate) fn enter() {
    let (mitigations, maker) = in_force_by();
    let mut control = 0;
    if mitigations.ibrs.is_on() && *maker == Maker::Amd {
        let mut efer = Msr::new(EFER);
        // SAFETY: reading EFER has no effect.
        let value = unsafe { efer.read() };
        // SAFETY: CPUID has automatic IBRS, or it would not be on.
        unsafe { efer.write(value | EFER_AUTOMATIC_IBRS) };
    } else if mitigations.ibrs.is_on() {
        control |= SPEC_CTRL_IBRS;
    }
    if mitigations.stibp.is_on() {
        control |= SPEC_CTRL_STIBP;
    }
    if control != 0 {
        // SAFETY: CPUID has both bits, or they would not be on.
        unsafe { Msr::new(SPEC_CTRL).write(control) };
    }
}

/// Whether [`process_switch`] has anything to do.
static BETWEEN: AtomicBool = AtomicBool::new(false);

/// Overwrites the buffers that other programs could read from, as the ways out in `border.S` do: with MD_CLEAR, VERW of a writable segment
/// does (SDM volume 2, VERW).
#[inline(always)]
pub(crate) fn verw() {
    // SAFETY: VERW changes ZF and the buffers, nothing else, whatever the selector is.
    unsafe { asm!("verw word ptr [rip + border_selector]", options(readonly, nostack)) };
}

/// Whether something is to be done when another process comes.
#[inline(always)]
pub(crate) fn is_between() -> bool {
    // ORDER: Relaxed; constant since before another core ran (`choose`).
    BETWEEN.load(Ordering::Relaxed)
}

/// Keeps the process that comes from running along paths that the one before has trained.
#[inline(never)]
pub(crate) fn process_switch() {
    let mitigations = in_force();
    if mitigations.ibpb.is_on() {
        // SAFETY: CPUID has IBPB, or it would not be on.
        unsafe { Msr::new(PRED_CMD).write(PRED_CMD_IBPB) };
    }
    if mitigations.rsb.is_on() {
        fill_return_stack();
    }
}

/// Puts 32 harmless targets on the return stack, which has no more entries than that (Intel, "Retpoline: A Branch Target Injection
/// Mitigation", §5.3): each call leaves one, whose code traps what speculates into it.
#[inline]
pub(crate) fn fill_return_stack() {
    // SAFETY: the calls return nowhere; what they push is taken off the stack again.
    unsafe {
        asm!(
            "2:", "call 3f", "int3", "3:", "call 4f", "int3", "4:", "add rsp, 16", "dec {rounds:e}", "jnz 2b", "lfence",
            rounds = inout(reg) 16 => _,
        );
    }
}
