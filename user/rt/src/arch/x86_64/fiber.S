// The switch between user threads: what a C function must keep (System V ABI, AMD64 supplement, section 3.2.1), on the stack that is left.
// Programs have no floating point, so there are no vector registers or control words to keep.

.section .text.fiber, "ax", @progbits

// In: rdi = where the stack pointer that is left goes, rsi = the stack pointer to go on with. Returns when somebody switches back.
// Clobbers what a C function may. Stack: 56 bytes of the one that is left.
.global fiber_switch
fiber_switch:
    push    rbp
    push    rbx
    push    r12
    push    r13
    push    r14
    push    r15
    mov     [rdi], rsp
    mov     rsp, rsi
    pop     r15
    pop     r14
    pop     r13
    pop     r12
    pop     rbx
    pop     rbp
    ret

// The first instructions of a user thread. In: r12 = the word for its first function, rsp a multiple of 16. Does not return.
.global fiber_begin
fiber_begin:
    mov     rdi, r12
    call    {begin}
    ud2
