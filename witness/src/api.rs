//! QEMU's side.

use std::ffi::{c_int, c_uint, c_void};

/// The plugin's number.
pub(crate) type Id = u64;
/// What QEMU tells about an access, for its own functions.
pub(crate) type Access = u32;

/// About the machine.
#[repr(C)]
pub struct Info {
    _opaque: [u8; 0],
}

/// Instructions that QEMU has translated together.
#[repr(C)]
pub(crate) struct Block {
    _opaque: [u8; 0],
}

/// One of them.
#[repr(C)]
pub(crate) struct Instruction {
    _opaque: [u8; 0],
}

#[repr(C)]
struct Physical {
    _opaque: [u8; 0],
}

type OnTranslation = extern "C" fn(Id, *mut Block);
type OnRun = extern "C" fn(c_uint, *mut c_void);
type OnAccess = extern "C" fn(c_uint, Access, u64, *mut c_void);
type AtEnd = extern "C" fn(Id, *mut c_void);

/// `QEMU_PLUGIN_CB_NO_REGS`: the registers are not looked at.
const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_MEM_RW`.
const BOTH: c_int = 3;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: OnTranslation);
    fn qemu_plugin_register_atexit_cb(id: Id, callback: AtEnd, data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: OnRun,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        instruction: *mut Instruction,
        callback: OnAccess,
        flags: c_int,
        kinds: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_mem_is_store(access: Access) -> bool;
    fn qemu_plugin_mem_size_shift(access: Access) -> c_uint;
    fn qemu_plugin_get_hwaddr(access: Access, address: u64) -> *mut Physical;
    fn qemu_plugin_hwaddr_is_io(address: *const Physical) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(address: *const Physical) -> u64;
}

/// Has QEMU tell of what it translates.
pub(crate) fn on_translation(id: Id, callback: OnTranslation) {
    // SAFETY: the number that QEMU gave, a function that stays.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, callback) };
}

/// Has QEMU tell when it ends.
pub(crate) fn at_end(id: Id, callback: AtEnd) {
    // SAFETY: as above; no data.
    unsafe { qemu_plugin_register_atexit_cb(id, callback, std::ptr::null_mut()) };
}

/// How many instructions a block has.
pub(crate) fn instructions(block: *mut Block) -> usize {
    // SAFETY: a block that QEMU is just telling about.
    unsafe { qemu_plugin_tb_n_insns(block) }
}

/// An instruction of a block.
pub(crate) fn instruction(block: *mut Block, index: usize) -> *mut Instruction {
    // SAFETY: as above; the index is less than their number.
    unsafe { qemu_plugin_tb_get_insn(block, index) }
}

/// Where it lies.
pub(crate) fn address(instruction: *mut Instruction) -> u64 {
    // SAFETY: of a block that QEMU is just telling about.
    unsafe { qemu_plugin_insn_vaddr(instruction) }
}

/// Has QEMU tell when it is executed.
pub(crate) fn on_run(instruction: *mut Instruction, callback: OnRun, data: u64) {
    // SAFETY: as above; the data are a number.
    unsafe {
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, NO_REGISTERS, data as *mut c_void);
    }
}

/// Has QEMU tell of its accesses to memory.
pub(crate) fn on_access(instruction: *mut Instruction, callback: OnAccess) {
    let none = std::ptr::null_mut();
    // SAFETY: as above; no data.
    unsafe { qemu_plugin_register_vcpu_mem_cb(instruction, callback, NO_REGISTERS, BOTH, none) };
}

/// What an access that QEMU is just telling about does, and to which physical address.
pub(crate) fn target(access: Access, address: u64) -> (&'static str, u64) {
    // SAFETY: called from the callback of that access.
    let physical = unsafe { qemu_plugin_get_hwaddr(access, address) };
    if physical.is_null() {
        return ("device", 0);
    }
    // SAFETY: not null, and valid during the callback.
    let device = unsafe { qemu_plugin_hwaddr_is_io(physical) };
    // SAFETY: as above.
    let at = unsafe { qemu_plugin_hwaddr_phys_addr(physical) };
    // SAFETY: a word of QEMU's about the access.
    let store = unsafe { qemu_plugin_mem_is_store(access) };
    let kind = match (device, store) {
        (true, _) => "device",
        (false, true) => "write",
        (false, false) => "read",
    };
    (kind, at)
}

/// How many bytes an access touches.
pub(crate) fn bytes(access: Access) -> u64 {
    // SAFETY: a word of QEMU's about the access.
    1 << unsafe { qemu_plugin_mem_size_shift(access) }
}
