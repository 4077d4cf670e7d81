//! Descriptor tables: a GDT and TSS for every core, one IDT for all.
//!
//! The three exceptions that can strike while the stack is unusable or half switched run on stacks of their own (IST; SDM volume 3,
//! §7.14.5): double fault, non-maskable interrupt, machine check.

use core::mem::MaybeUninit;

use percpu::sync::cell::UnsafeCell;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::{border, entry};

/// Interrupt vectors of the kernel's own making. Those of devices: `ioapic`.
pub(crate) mod vector {
    /// The core's own timer.
    pub(crate) const TIMER: u8 = crate::arch::timer::VECTOR;
    /// Inter-processor interrupt: look at your mailbox.
    pub(crate) const IPI: u8 = 0xf0;
    /// Local APIC error.
    pub(crate) const ERROR: u8 = 0xfe;
    /// Local APIC spurious interrupt; its low four bits must be ones on old parts (SDM volume 3, §12.9).
    pub(crate) const SPURIOUS: u8 = 0xff;
    /// Non-maskable interrupt.
    pub(crate) const NMI: u8 = 2;
    /// Double fault.
    pub(crate) const DOUBLE_FAULT: u8 = 8;
    /// General protection.
    pub(crate) const GENERAL_PROTECTION: u8 = 13;
    /// Page fault.
    pub(crate) const PAGE_FAULT: u8 = 14;
    /// Machine check.
    pub(crate) const MACHINE_CHECK: u8 = 18;
}

/// The exceptions with a stack of their own, in the order of their IST slots.
pub(crate) const IST_VECTORS: [u8; 3] = [vector::DOUBLE_FAULT, vector::NMI, vector::MACHINE_CHECK];

/// Selectors, in the order in which SYSCALL and SYSRET expect the segments (SDM volume 3, §5.8.8): the kernel's code, its data, a program's
/// data, its code. The task-state segment comes last.
pub(crate) const KERNEL_CODE: u16 = 1 << 3;
pub(crate) const KERNEL_DATA: u16 = 2 << 3;
pub(crate) const USER_DATA: u16 = 3 << 3 | RING_3;
pub(crate) const USER_CODE: u16 = 4 << 3 | RING_3;
/// From this SYSRET takes 8 more for the stack's and 16 more for the code's selector.
pub(crate) const SYSRET_BASE: u16 = USER_DATA - 8;
const RING_3: u16 = 3;

const _: () = assert!(SYSRET_BASE + 16 == USER_CODE && KERNEL_CODE + 8 == KERNEL_DATA);

/// The descriptor tables of one core, in a page of their own.
#[repr(C, align(4096))]
pub(crate) struct Tables {
    tss: TaskStateSegment,
    gdt: GlobalDescriptorTable,
    // The rest of the page is the stack that interrupts of ring 3 find where programs have tables of their own (`border`).
}

/// What whoever enters ring 3 has to know of a task-state segment.
pub(crate) struct Task {
    /// Where it says which stack an interrupt of ring 3 finds; the word is 4 bytes off alignment.
    pub(super) stack_slot: *mut u64,
    /// The end of the stack behind it.
    pub(super) stack_end: VirtAddr,
}

impl Tables {
    /// Tables whose IST slots lead to the given stack tops, in the order of [`IST_VECTORS`].
    pub(crate) fn new(ist_tops: [VirtAddr; IST_VECTORS.len()]) -> Self {
        let mut tss = TaskStateSegment::new();
        // The structure is packed: the table is written whole, by value.
        let mut table = tss.interrupt_stack_table;
        table[..IST_VECTORS.len()].copy_from_slice(&ist_tops);
        tss.interrupt_stack_table = table;
        Self { tss, gdt: GlobalDescriptorTable::new() }
    }

    /// Makes these the tables of the core this runs on, together with the shared IDT.
    ///
    /// The segment registers' bases are reset: the caller installs the GS base afterwards.
    pub(crate) fn load(&'static mut self) -> Task {
        let stack_end = VirtAddr::from_ptr(&raw const *self) + size_of::<Self>() as u64;
        let stack_slot = (&raw mut self.tss.privilege_stack_table).cast::<u64>();
        let code = self.gdt.append(Descriptor::kernel_code_segment());
        let data = self.gdt.append(Descriptor::kernel_data_segment());
        let user_data = self.gdt.append(Descriptor::user_data_segment());
        let user_code = self.gdt.append(Descriptor::user_code_segment());
        let expected = [KERNEL_CODE, KERNEL_DATA, USER_DATA, USER_CODE];
        assert!(
            [code.0, data.0, user_data.0, user_code.0] == expected,
            "G3: the selectors are where they are expected"
        );
        let task = self.gdt.append(Descriptor::tss_segment(&self.tss));
        self.gdt.load();
        load_segments(code, data);
        // SAFETY: the selector was just made from this core's TSS, which lives forever.
        unsafe { load_tss(task) };
        // SAFETY: no descriptor: there is no local table, and after a reset its limit would not be 0.
        unsafe { core::arch::asm!("lldt {0:x}", in(reg) 0_u16, options(nostack, preserves_flags)) };
        load_idt();
        Task { stack_slot, stack_end }
    }
}

/// Where the descriptor tables of the core this runs on lie: the GDT, next to which the TSS is.
pub(crate) fn location() -> VirtAddr {
    x86_64::instructions::tables::sgdt().base
}

/// Tables for the boot core until it has its own.
struct EarlyTables(UnsafeCell<MaybeUninit<Tables>>);

// SAFETY: `load_early`, called once, is the only access, and the CPU's.
unsafe impl Sync for EarlyTables {}

static EARLY: EarlyTables = EarlyTables(UnsafeCell::new(MaybeUninit::uninit()));

/// Loads tables with which exceptions during bring-up are reported; the IST stacks all end at `ist_top`.
///
/// # Safety
/// 1. Called once, by the boot core, before [`Tables::load`].
/// 2. `ist_top` is the 16-byte aligned top of a stack that nothing else uses.
pub(crate) unsafe fn load_early(ist_top: VirtAddr) {
    // SAFETY: obligation 1: nobody else has this reference.
    let slot = EARLY.0.with_mut(|slot| unsafe { &mut *slot });
    slot.write(Tables::new([ist_top; IST_VECTORS.len()])).load();
}

fn load_segments(code: SegmentSelector, data: SegmentSelector) {
    let null = SegmentSelector::NULL;
    // SAFETY: `code` selects the 64-bit code segment of the table that was just loaded.
    unsafe { CS::set_reg(code) };
    // SAFETY: `data` selects the writable data segment of the same table.
    unsafe { SS::set_reg(data) };
    // SAFETY: 64-bit mode ignores these segments apart from the bases of FS and GS, which the kernel sets through their MSRs.
    unsafe { DS::set_reg(null) };
    // SAFETY: as for DS.
    unsafe { ES::set_reg(null) };
    // SAFETY: as for DS.
    unsafe { FS::set_reg(null) };
    // SAFETY: as for DS.
    unsafe { GS::set_reg(null) };
}

/// One gate of the IDT (SDM volume 3, figure 7-8): offset 15:0, selector, IST, attributes, offset 31:16, offset 63:32, reserved.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    attributes: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Gate>() == 16);

/// Present, DPL 0, 64-bit interrupt gate: IF is cleared on entry.
const INTERRUPT_GATE: u8 = 0x8e;

/// The `x86_64` crate's IDT type gives most exceptions typed handlers that need a nightly ABI, so the 256 equal gates are written here.
static IDT: Once<Gates> = Once::new();

/// The IDT where programs have tables of their own, which show it.
static BORDER_IDT: Once<Gates> = Once::new();

#[repr(C, align(4096))]
struct Gates([Gate; 256]);

fn load_idt() {
    load_gates(IDT.call_once(|| build_idt(usual_stub)));
}

/// From now on interrupts on this core go through `border.S`.
pub(super) fn load_border_idt() {
    load_gates(BORDER_IDT.call_once(|| build_idt(border::stub)));
}

/// Where the table of [`load_border_idt`] lies: a page.
pub(super) fn border_idt() -> VirtAddr {
    VirtAddr::from_ptr(BORDER_IDT.call_once(|| build_idt(border::stub)))
}

fn load_gates(gates: &'static Gates) {
    let pointer =
        DescriptorTablePointer { limit: (size_of_val(gates) - 1) as u16, base: VirtAddr::from_ptr(gates) };
    // SAFETY: G3: the table is complete, never changes and lives forever.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

fn usual_stub(vector: u8) -> u64 {
    match vector {
        vector::IPI => entry::ipi_stub(),
        vector::PAGE_FAULT => entry::page_fault_stub(),
        _ => entry::trap_stub(vector),
    }
}

fn build_idt(stub: impl Fn(u8) -> u64) -> Gates {
    Gates(core::array::from_fn(|index| {
        let vector = index as u8;
        let address = stub(vector);
        let ist = IST_VECTORS.iter().position(|&v| v == vector).map_or(0, |slot| slot as u8 + 1);
        Gate {
            offset_low: address as u16,
            selector: CS::get_reg().0,
            ist,
            attributes: INTERRUPT_GATE,
            offset_middle: (address >> 16) as u16,
            offset_high: (address >> 32) as u32,
            reserved: 0,
        }
    }))
}
