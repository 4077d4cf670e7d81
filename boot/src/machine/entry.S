// Entry points of the loader: from the virtual machine, from the start-up message of a core, from exceptions, and
// the way out into the kernel.

// The note that tells QEMU where to enter (Xen public headers, elfnote.h). QEMU reads the descriptor of a 64-bit
// file as 8 bytes, aligned like the segment.
.section .note.pvh, "a", @note
.balign 4
    .long 4
    .long 8
    .long {phys32_entry}
    .asciz "Xen"
    .quad pvh_entry

.section .bss.entry, "aw", @nobits
.balign 4096
entry_pml4: .skip 4096
entry_pdpt: .skip 4096
entry_pd:   .skip 4 * 4096
.balign 16
entry_stack: .skip {stack_size}
entry_stack_top:
// Exceptions are reported on a stack of their own: the other one holds the exception table.
entry_fault_stack: .skip {fault_stack_size}
entry_fault_stack_top:

.section .data.entry, "aw"
.balign 16
entry_canary: .long {canary}
.balign 16
// The descriptors the protocol lists, with the accessed bit already set.
entry_gdt:
    .quad 0
    .quad 0x00009b000000ffff    // 0x08 16-bit code
    .quad 0x000093000000ffff    // 0x10 16-bit data
    .quad 0x00cf9b000000ffff    // 0x18 32-bit code
    .quad 0x00cf93000000ffff    // 0x20 32-bit data
    .quad 0x00209b0000000000    // 0x28 64-bit code
    .quad 0x0000930000000000    // 0x30 64-bit data
entry_gdt_end:
entry_gdtr:
    .word entry_gdt_end - entry_gdt - 1
    .quad entry_gdt
.balign 8
// The same table where the kernel's page tables show it.
entry_gdtr_kernel:
    .word entry_gdt_end - entry_gdt - 1
    .quad entry_gdt + {hhdm}

.set CODE32, 0x18
.set DATA32, 0x20
.set CODE64, 0x28
.set DATA64, 0x30

.section .text.entry, "ax"
.code32

// Turns on long mode with the loader's tables and jumps to `target`, 64-bit code. In: 32-bit mode, entry_efer set.
// Uses no stack: cores that start together do not have one yet. Clobbers eax, ecx, edx.
.macro entry_long_mode target
    lgdt [entry_gdtr]
    mov eax, {cr4}
    mov cr4, eax
    mov eax, offset entry_pml4
    mov cr3, eax
    mov ecx, {msr_efer}
    mov eax, [entry_efer]
    xor edx, edx
    wrmsr
    mov eax, {cr0}
    mov cr0, eax
    // jmp far CODE64:target
    .byte 0xea
    .long \target
    .word CODE64
.endm

// PVH entry (Xen docs/misc/pvh.pandoc). In: ebx = start information, flat 32-bit segments, paging off, IF clear.
// Out: never returns; calls loader_main(edi = start information) in long mode on the loader's stack.
.global pvh_entry
pvh_entry:
    cli
    cld
    mov esi, ebx

    // Does the loader's memory exist, and is its data intact? A machine with a few MiB ends before it, or has the
    // bundle there, and nothing below would work.
    mov edi, offset entry_no_memory_text
    mov bl, {exit_no_memory}
    mov dword ptr [entry_stack_top - 4], {canary}
    cmp dword ptr [entry_stack_top - 4], {canary}
    jne entry_refuse
    cmp dword ptr [entry_canary], {canary}
    jne entry_refuse

    // Long mode is not optional. Extended leaves first, then the LM bit.
    mov edi, offset entry_no_long_mode_text
    mov eax, 0x80000000
    cpuid
    mov bl, {exit_unsupported}
    cmp eax, 0x80000001
    jb entry_refuse
    mov eax, 0x80000001
    cpuid
    mov bl, {exit_unsupported}
    test edx, {cpuid_lm}
    jz entry_refuse
    // edx = high half of a non-executable entry, ebp = EFER bits; both depend on NX.
    and edx, {cpuid_nx}
    mov ebp, {efer_lme}
    jz 1f
    mov edx, 0x80000000
    or ebp, {efer_nxe}
1:
    // 4 GiB identity mapped with 2 MiB pages, readable and writable.
    mov edi, offset entry_pd
    mov eax, {pte_data}
    mov ecx, 4 * 512
2:  mov [edi], eax
    mov [edi + 4], edx
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    // The top 32 MiB below 4 GiB hold the APICs: uncached.
    mov ecx, 16
3:  sub edi, 8
    or dword ptr [edi], {pte_uncached}
    dec ecx
    jnz 3b
    // Text is executable and not writable, constants are neither.
    mov edi, offset entry_pd + {pd_text}
    and dword ptr [edi], ~{pte_writable}
    mov dword ptr [edi + 4], 0
    mov edi, offset entry_pd + {pd_rodata}
    and dword ptr [edi], ~{pte_writable}
    mov edi, offset entry_pdpt
    mov eax, offset entry_pd + {pte_table}
    mov ecx, 4
4:  mov [edi], eax
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 4b
    // The same at the direct map, so that the switch to the kernel's tables finds itself on both sides.
    mov eax, offset entry_pdpt + {pte_table}
    mov [entry_pml4], eax
    mov [entry_pml4 + {pml4_hhdm}], eax

    mov [entry_efer], ebp
    entry_long_mode entry_loader
.code64
entry_loader:
    mov eax, DATA64
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, offset entry_stack_top
    xor ebp, ebp
    mov edi, esi
    call {loader_main}
    ud2

.code32
// Prints a text on COM1, ends the run and halts: here none of the loader's Rust code can run.
// In: edi = text with a final zero, bl = exit code.
entry_refuse:
    mov edx, {com1}
1:  mov al, [edi]
    test al, al
    jz 2f
    out dx, al
    inc edi
    jmp 1b
2:  mov al, bl
    out {exit_port}, al
3:  cli
    hlt
    jmp 3b
entry_no_long_mode_text:
    .asciz "boot: error: the processor has no 64-bit mode\r\n"
entry_no_memory_text:
    .asciz "boot: error: the machine has too little memory for the loader and the bundle\r\n"

// First 32-bit instruction of an application processor, reached from entry_trampoline. In: nothing but its GDT.
// Takes a ticket, and with it a stack, then calls core_main(edi = ticket).
entry_core:
    mov eax, DATA32
    mov ds, eax
    mov ss, eax
    entry_long_mode entry_core64
.code64
entry_core64:
    mov eax, DATA64
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov eax, 1
    lock xadd [{launch} + {launch_tickets}], eax
    // More cores than stacks: one that was not called. It must not run at all.
    cmp eax, [{launch} + {launch_count}]
    jae 2f
    mov edi, eax
    mov ecx, eax
    inc rcx
    imul rcx, [{launch} + {launch_stack_size}]
    add rcx, [{launch} + {launch_stacks}]
    mov rsp, rcx
    xor ebp, ebp
    call {core_main}
    ud2
2:  cli
    hlt
    jmp 2b

// Copied to a page below 1 MiB, where the start-up message makes a core begin in real mode with cs = page / 16.
// Position independent but for that. Out: 32-bit protected mode at entry_core. Clobbers eax, ds.
.section .rodata.entry, "a"
.code16
.global entry_trampoline
entry_trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    lgdtd [entry_trampoline_gdtr_offset]
    mov eax, 0x11
    mov cr0, eax
    // jmp far CODE32:entry_core, with a 32-bit offset.
    .byte 0x66, 0xea
    .long entry_core
    .word CODE32
.balign 4
entry_trampoline_gdtr:
    .word entry_gdt_end - entry_gdt - 1
    .long entry_gdt
.global entry_trampoline_end
entry_trampoline_end:
.set entry_trampoline_gdtr_offset, entry_trampoline_gdtr - entry_trampoline

.section .data.entry
.balign 4
entry_efer: .long 0

// entry_hand_over(rdi = entry point, rsi = stack top in the direct map, rdx = value for rdi, rcx = cr3) -> !
// Leaves for the kernel in the state the protocol describes: every general register 0 but rdi, a return address of 0,
// interrupts off, direction flag clear.
.section .text.entry
.code64
.global entry_hand_over
entry_hand_over:
    cli
    cld
    // Continue in the direct map, which both sets of tables have.
    movabs rax, {hhdm}
    lea r8, [rip + 1f]
    add r8, rax
    jmp r8
1:  mov rsp, rsi
    lea r9, [rip + entry_gdtr_kernel]
    mov cr3, rcx
    lgdt [r9]
    push 0
    push rdi
    mov rdi, rdx
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    ret

// Exceptions: collect what the processor pushed and report it on the loader's own stack and tables, never to return.
// The gates lead to the direct map, which the kernel's first tables have too: until the kernel installs its own
// handlers, its faults are reported here instead of resetting the machine.
.macro entry_exception vector
entry_exception_\vector:
    // These vectors come with an error code (Intel SDM volume 3, table 6-1); the others get a zero.
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21)
    .else
    push 0
    .endif
    push \vector
    jmp entry_exception_common
.endm

.altmacro
.set i, 0
.rept {exceptions}
    entry_exception %i
    .set i, i + 1
.endr

entry_exception_common:
    cld
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop r8
    pop r9
    mov eax, offset entry_pml4
    mov cr3, rax
    mov esp, offset entry_fault_stack_top
    // Absolute, to leave the direct map for the address the loader is linked at.
    mov eax, offset {loader_exception}
    call rax
    ud2

// The timer of a parked core: returning from hlt is all it is for. The core acknowledges it (park.rs).
entry_wake:
    iretq

.section .rodata.entry
.balign 8
.macro entry_exception_address vector
    .quad entry_exception_\vector
.endm
.global entry_vectors
entry_vectors:
.set i, 0
.rept {exceptions}
    entry_exception_address %i
    .set i, i + 1
.endr
.noaltmacro
.rept {vectors} - {exceptions}
    .quad entry_wake
.endr
