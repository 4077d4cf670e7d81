# Saving and restoring the general registers, in the order of a `TrapFrame` and of a thread's `Frame`, lowest address last.
# Every file that uses them includes this one; what is assembled together defines them once.
.ifndef registers_defined
.set registers_defined, 1

# save_registers: rsp is below the error code and the vector.
.macro save_registers
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
.endm

# restore_registers: rsp is where save_registers left it.
.macro restore_registers
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
.endm
.endif
