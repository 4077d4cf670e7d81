//! QEMU's side.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

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

/// A count that QEMU keeps itself, of its own for each core: `qemu_plugin_u64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counter {
    scoreboard: usize,
    offset: usize,
}

/// A register of the core, by QEMU's handle for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Register(usize);

/// `qemu_plugin_reg_descriptor`.
#[repr(C)]
struct Description {
    handle: usize,
    name: *const c_char,
    _feature: *const c_char,
}

/// The part of GLib's `GArray` and `GByteArray` that everybody may look at.
#[repr(C)]
struct Array<T> {
    data: *const T,
    length: c_uint,
}

type OnTranslation = extern "C" fn(Id, *mut Block);
type OnRun = extern "C" fn(c_uint, *mut c_void);
type OnAccess = extern "C" fn(c_uint, Access, u64, *mut c_void);
type OnStart = extern "C" fn(Id, c_uint);
type AtEnd = extern "C" fn(Id, *mut c_void);

/// `QEMU_PLUGIN_CB_NO_REGS`: the registers are not looked at.
const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_CB_R_REGS`: they are read.
const READ_REGISTERS: c_int = 1;
/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD: c_int = 0;
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
    fn qemu_plugin_register_vcpu_init_cb(id: Id, callback: OnStart);
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut Block,
        callback: OnRun,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        instruction: *mut Instruction,
        operation: c_int,
        counter: Counter,
        by: u64,
    );
    fn qemu_plugin_insn_data(instruction: *const Instruction, to: *mut u8, length: usize) -> usize;
    fn qemu_plugin_scoreboard_new(bytes: usize) -> usize;
    fn qemu_plugin_u64_get(counter: Counter, core: c_uint) -> u64;
    fn qemu_plugin_get_registers() -> *const Array<Description>;
    fn qemu_plugin_read_register(register: usize, to: *mut Array<u8>) -> c_int;
    /// GLib's, which QEMU has loaded.
    fn g_byte_array_new() -> *mut Array<u8>;
    fn g_byte_array_free(array: *mut Array<u8>, with_content: c_int) -> *mut u8;
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

/// Has QEMU tell when a core is there: before it executes anything, but when its registers are known.
pub(crate) fn on_start(id: Id, callback: OnStart) {
    // SAFETY: as above.
    unsafe { qemu_plugin_register_vcpu_init_cb(id, callback) };
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

/// As [`on_run`], and the callback reads registers.
pub(crate) fn on_run_reading(instruction: *mut Instruction, callback: OnRun, data: u64) {
    // SAFETY: as above.
    unsafe {
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, callback, READ_REGISTERS, data as *mut c_void);
    }
}

/// Has QEMU tell when a block begins; the callback reads registers.
pub(crate) fn on_block(block: *mut Block, callback: OnRun, data: u64) {
    // SAFETY: a block that QEMU is just telling about; the data are a number.
    unsafe { qemu_plugin_register_vcpu_tb_exec_cb(block, callback, READ_REGISTERS, data as *mut c_void) };
}

/// The first bytes of an instruction, as many as it has.
pub(crate) fn encoding(instruction: *mut Instruction, to: &mut [u8]) -> usize {
    // SAFETY: of a block that QEMU is just telling about; so many bytes may be written.
    unsafe { qemu_plugin_insn_data(instruction, to.as_mut_ptr(), to.len()) }
}

/// Has QEMU count the instruction whenever it is executed. A string instruction counts once for each time it is repeated.
pub(crate) fn count(instruction: *mut Instruction, counter: Counter) {
    // SAFETY: of a block that QEMU is just telling about; the counter is QEMU's.
    unsafe { qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD, counter, 1) };
}

impl Counter {
    /// A new one.
    pub(crate) fn new() -> Self {
        // SAFETY: no conditions.
        let scoreboard = unsafe { qemu_plugin_scoreboard_new(size_of::<u64>()) };
        Self { scoreboard, offset: 0 }
    }

    /// What it has come to on a core.
    pub(crate) fn get(self, core: c_uint) -> u64 {
        // SAFETY: a core that QEMU has told of.
        unsafe { qemu_plugin_u64_get(self, core) }
    }
}

impl Register {
    /// The register of this name, asked for in the callback of [`on_start`].
    pub(crate) fn named(name: &CStr) -> Option<Self> {
        // SAFETY: called for a core that is there. The list is never given back.
        let list = unsafe { qemu_plugin_get_registers() };
        // SAFETY: QEMU's list, or none.
        let list = unsafe { list.as_ref() }?;
        // SAFETY: as many as it says.
        let all = unsafe { std::slice::from_raw_parts(list.data, list.length as usize) };
        // SAFETY: names are strings that stay.
        let is_it = |found: &&Description| unsafe { CStr::from_ptr(found.name) } == name;
        all.iter().find(is_it).map(|found| Self(found.handle))
    }

    /// What it holds, in a callback that reads registers.
    pub(crate) fn value(self) -> u64 {
        // SAFETY: no conditions.
        let bytes = unsafe { g_byte_array_new() };
        // SAFETY: a register of this core's, and an array that was just made.
        unsafe { qemu_plugin_read_register(self.0, bytes) };
        // SAFETY: as above.
        let array = unsafe { &*bytes };
        // SAFETY: as many bytes as it says.
        let read = unsafe { std::slice::from_raw_parts(array.data, array.length as usize) };
        let value = read.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        // SAFETY: made above, and not used any more.
        unsafe { g_byte_array_free(bytes, 1) };
        value
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
