# Where control enters the kernel: from the loader, on application processors, and on every trap.

# kernel_entry: the boot processor, from the loader.
#   in: the state that the Limine protocol promises (64-bit mode, IF clear, the loader's stack and page tables)
#   out: never returns.  stack: the loader's.  GS: unset.
.section .text.entry, "ax"
.global kernel_entry
kernel_entry:
    xor ebp, ebp
    call {boot_main}
    ud2

# entry_switch: leave the loader's page tables and stack for good.
#   in: rdi = physical root of the kernel's page tables, rsi = top of the new stack, rdx = where to continue, rcx = its argument
#   out: never returns.  clobbers: all.  IF stays clear.
#   The code is mapped at the same address in both spaces, so the instruction after the load of CR3 exists in both.
.global entry_switch
entry_switch:
    mov cr3, rdi
    mov rsp, rsi
    xor ebp, ebp
    mov rdi, rcx
    call rdx
    ud2

# entry_core: an application processor that the loader has released.
#   in: rdi = its MP information structure, in the loader's address space
#   out: never returns.  stack: its own, whose top was put into the structure's free field before the release.
#   The one shared page-table root is in the kernel image, which both address spaces map.
.global entry_core
entry_core:
    mov rsp, [rdi + {mp_extra}]
    mov rcx, [rip + {kernel_root}]
    mov cr3, rcx
    xor ebp, ebp
    mov rdi, [rsp]
    call {core_main}
    ud2

# trap_stubs: 256 stubs of 16 bytes, one for each vector, so that the table can compute their addresses.
#   Every stub leaves an error code (0 where the CPU pushes none) and the vector on the stack.
.section .text.trap, "ax"
.balign 16
.global trap_stubs
trap_stubs:
.set vector, 0
.rept 256
    .balign 16
    # SDM volume 3, table 7-1: the exceptions that push an error code.
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    push 0
    .endif
    push vector
    # Those with a stack of their own (`IST_VECTORS`).
    .if vector == {nmi} || vector == {double_fault} || vector == {machine_check}
    jmp trap_apart
    .else
    jmp trap_common
    .endif
    .set vector, vector + 1
.endr

# trap_common: save every general register as a TrapFrame, call the dispatcher, restore, return.
#   in: vector and error code on the stack.  GS: the kernel's, unless ring 3 was interrupted.  IF: clear.
#   The CPU aligned the stack to 16 before pushing 5 words; 2 words and 15 registers later it is aligned again.
#   Interrupts of ring 3 are for `user.S`: what is pushed is the thread's frame.
trap_common:
    test byte ptr [rsp + {trap_cs}], {ring_3}
    jnz user_trap
    save_registers
    cld
    mov rdi, rsp
    call {trap_dispatch}
    restore_registers
    add rsp, 16
    iretq

# trap_apart: as trap_common, for what can strike where GS is still, or again, the program's: the base tells, for a program's is 0 and the
#   kernel's is not positive.
#   in: vector and error code on the exception's own stack.  GS: either.  IF: clear.
.balign 16
trap_apart:
    save_registers
    cld
    mov ecx, {gs_base}
    rdmsr
    xor ebx, ebx
    test edx, edx
    js trap_apart_kernel
    swapgs
    inc ebx
trap_apart_kernel:
    mov rdi, rsp
    call {trap_dispatch}
    test ebx, ebx
    jz trap_apart_leave
    swapgs
trap_apart_leave:
    restore_registers
    add rsp, 16
    iretq

# irq_ipi: the inter-processor interrupt. Only what a C function may clobber is saved.
#   in: nothing beyond the interrupt frame.  GS: the kernel's.  IF: clear.
#   5 words by the CPU and 9 here leave the stack aligned to 16.
.balign 64
.global irq_ipi
irq_ipi:
    test byte ptr [rsp + {bare_cs}], {ring_3}
    jnz irq_ipi_user
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    cld
    call {on_ipi}
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    iretq
irq_ipi_user:
    push 0
    push {ipi}
    jmp user_trap

# irq_page_fault: the page fault. Only what a C function may clobber is saved, for the handler mostly resolves the fault.
#   in: the interrupt frame and the error code.  GS: the kernel's.  IF: clear.  AC: the interrupted code's, hence cleared here.
#   out: returns to where the frame says, which the handler may have changed; or goes on to trap_common, with every register and CR2 as
#   the fault left them.
#   stack: the interrupted one, no IST. The kernel faults legitimately only where it touches user memory, on its core's own stack with
#   room to spare; from user mode the CPU has switched to it. Any other fault ends the run, and one for want of a stack becomes a
#   double fault, which has a stack of its own.
#   6 words by the CPU, 9 and one of padding here leave the stack aligned to 16.
.balign 64
.global irq_page_fault
irq_page_fault:
    test byte ptr [rsp + {error_cs}], {ring_3}
    jnz irq_page_fault_user
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    mov rdi, rsp
    mov rsi, cr2
    push rax
    cld
    cmp byte ptr [rip + {smap}], 0
    je irq_page_fault_closed
    clac
irq_page_fault_closed:
    call {on_page_fault}
    test eax, eax
    pop r11
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    jnz irq_page_fault_report
    add rsp, {word}
    iretq
irq_page_fault_user:
    push {page_fault}
    jmp user_trap
irq_page_fault_report:
    push {page_fault}
    jmp trap_common
