//! User threads' stacks: see `fiber.S`.

core::arch::global_asm!(include_str!("fiber.S"), begin = sym crate::fiber::begin);

unsafe extern "C" {
    fn fiber_switch(left: *mut u64, next: u64);
    fn fiber_begin();
}

/// What `fiber_switch` finds on a stack that it goes on with.
#[repr(C)]
struct Saved {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbx: u64,
    rbp: u64,
    /// Where it returns to.
    rip: u64,
}

const _: () = assert!(size_of::<Saved>() == 56 && core::mem::offset_of!(Saved, rip) == 48);

/// Leaves the running stack and goes on with another one; returns when somebody goes on with this one.
///
/// # Safety
/// 1. `next` is what [`first`] gave, or what a switch has stored, and nobody has gone on with it since.
/// 2. `left` is valid for a write, and stays so until this stack is gone on with.
pub(crate) unsafe fn switch(left: *mut u64, next: u64) {
    // SAFETY: the caller's promises (1, 2).
    unsafe { fiber_switch(left, next) };
}

/// Prepares a stack whose first function is called with a word; gives what to go on with.
///
/// # Safety
/// 1. `top` is a multiple of 16, and the 64 bytes below it are free to be written.
pub(crate) unsafe fn first(top: u64, word: u64) -> u64 {
    let rip = fiber_begin as *const () as u64;
    let saved = Saved { r15: 0, r14: 0, r13: 0, r12: word, rbx: 0, rbp: 0, rip };
    let place = top - size_of::<Saved>() as u64;
    // SAFETY: the caller's promise (1); a multiple of 8, as seven words below a multiple of 16 are.
    unsafe { (place as *mut Saved).write(saved) };
    place
}
