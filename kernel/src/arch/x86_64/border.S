# The ways over the border where programs run under tables of their own, and the ways out where VERW comes last (`border.rs`).
#
# This section and what it touches under a program's tables are all that those show of the kernel: the IDT, and of each core the page with
# its `Head`, the page with its GDT, TSS and the stack that interrupts of ring 3 find, and the stacks of `trap_apart`. The ways in end where
# those of `user.S` and `entry.S` have the program's GS behind them; the ways out begin where those would leave.

.section .text.border, "ax"

# Ring 3 by SYSCALL.  in, GS, IF: as `syscall_entry`; CR3: the program's.
.balign 64
.global border_syscall
border_syscall:
    swapgs
    mov gs:[rip + {head} + {user_sp}], rsp
    mov rsp, gs:[rip + {head} + {kernel_cr3}]
    mov cr3, rsp
    mov rsp, gs:[rip + {head} + {current}]
    jmp syscall_saving

# Ring 3 by an interrupt or exception: moves what the CPU stored, error code and vector into the thread's frame.
#   in, GS, IF, AC: as `user_trap`, but on the stack of `Tables`; CR3: the program's.  out: at `user_trap_saving`.
.balign 64
border_trap:
    swapgs
    push rdi
    mov rdi, gs:[rip + {head} + {kernel_cr3}]
    mov cr3, rdi
    mov rdi, rsp
    mov rsp, gs:[rip + {head} + {current}]
    add rsp, {frame_end}
    push [rdi + 7 * {word}]
    push [rdi + 6 * {word}]
    push [rdi + 5 * {word}]
    push [rdi + 4 * {word}]
    push [rdi + 3 * {word}]
    push [rdi + 2 * {word}]
    push [rdi + 1 * {word}]
    mov rdi, [rdi]
    jmp user_trap_saving

# What has a stack of its own, as `trap_apart`; it can strike under either root, and goes back under the one it found, whose cached
# translations it drops.
.balign 64
border_apart:
    save_registers
    cld
    mov ecx, {gs_base}
    rdmsr
    xor ebx, ebx
    test edx, edx
    js border_apart_kernel
    swapgs
    inc ebx
border_apart_kernel:
    mov r12, cr3
    mov rax, gs:[rip + {head} + {root}]
    mov cr3, rax
    mov rdi, rsp
    call {trap_dispatch}
    mov cr3, r12
    test ebx, ebx
    jz border_apart_leave
    swapgs
border_apart_leave:
    restore_registers
    add rsp, 2 * {word}
    iretq

# border_stubs: 256 stubs of 32 bytes, one for each vector. What strikes in ring 0 finds the kernel's tables loaded, and goes on as if the
# usual stub had been called.
.balign 32
.global border_stubs
border_stubs:
.macro border_stub error_code, elsewhere
    .if \error_code
    test byte ptr [rsp + {error_cs}], {ring_3}
    jz \elsewhere
    .else
    test byte ptr [rsp + {bare_cs}], {ring_3}
    jz \elsewhere
    push 0
    .endif
    push vector
    jmp border_trap
.endm
.set vector, 0
.rept 256
    .balign 32
    .if vector == {double_fault}
    push vector
    jmp border_apart
    .elseif vector == {nmi} || vector == {machine_check}
    push 0
    push vector
    jmp border_apart
    .elseif vector == {ipi}
    border_stub 0, irq_ipi
    .elseif vector == {page_fault}
    border_stub 1, irq_page_fault
    .elseif (vector >= 10 && vector <= 13) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    border_stub 1, "trap_stubs + 16 * vector"
    .else
    border_stub 0, "trap_stubs + 16 * vector"
    .endif
    .set vector, vector + 1
.endr

# The ways out, to which `border.rs` turns the instructions that leave (`leave_kernel` in `user.S`).
#   in: GS: the kernel's.  IF: clear.  CR3: the kernel's.
#   call: all registers are the program's; there is none to spare, but rsp can be put by for a few instructions, as on the way in.
#   interrupt: all registers are the program's, rsp is on what IRETQ takes.
.macro border_exits name, isolate, verw
.balign 64
.global border_call_\name
border_call_\name:
    .if \isolate
    mov gs:[rip + {head} + {user_sp}], rsp
    mov rsp, gs:[rip + {head} + {user_cr3}]
    mov cr3, rsp
    mov rsp, gs:[rip + {head} + {keep}]
    or gs:[rip + {head} + {user_cr3}], rsp
    mov rsp, gs:[rip + {head} + {user_sp}]
    .endif
    .if \verw
    verw word ptr [rip + border_selector]
    .endif
    swapgs
    sysretq
.balign 64
.global border_interrupt_\name
border_interrupt_\name:
    .if \isolate
    mov gs:[rip + {head} + {user_sp}], rdi
    mov rdi, rsp
    mov rsp, gs:[rip + {head} + {stack}]
    push [rdi + 4 * {word}]
    push [rdi + 3 * {word}]
    push [rdi + 2 * {word}]
    push [rdi + 1 * {word}]
    push [rdi]
    push gs:[rip + {head} + {user_sp}]
    push rax
    mov rax, gs:[rip + {head} + {user_cr3}]
    mov rdi, gs:[rip + {head} + {keep}]
    or gs:[rip + {head} + {user_cr3}], rdi
    mov cr3, rax
    pop rax
    pop rdi
    .endif
    .if \verw
    verw word ptr [rip + border_selector]
    .endif
    swapgs
    iretq
.endm
    border_exits isolated, 1, 0
    border_exits isolated_verw, 1, 1
    border_exits verw, 0, 1

# A selector of a writable segment, which is what VERW clears the buffers for.
.balign 2
.global border_selector
border_selector:
    .word {kernel_data}
