// The first instructions of a program.
//
// In: rdi = address of the Startup block, rsp = top of the main thread's stack. Nothing else is defined.
// Out: does not return. The image is relocated before any Rust runs: until then every address in data is one of the link at 0.
// Clobbers everything. R_X86_64_RELATIVE is the only relocation that a program linked on its own can have; another one is a build that
// went wrong, and ends in ud2.

.section .text.entry, "ax", @progbits
.global program_entry
program_entry:
    xor     ebp, ebp
    and     rsp, -16
    lea     rsi, [rip + __image_start]
    lea     rdx, [rip + __relocations_start]
    lea     rcx, [rip + __relocations_end]
entry_next:
    cmp     rdx, rcx
    jae     entry_done
    cmp     dword ptr [rdx + {info}], {relative}
    jne     entry_bad
    mov     rax, [rdx + {offset}]
    mov     r8, [rdx + {addend}]
    add     r8, rsi
    mov     [rsi + rax], r8
    add     rdx, {size}
    jmp     entry_next
entry_done:
    call    {start}
entry_bad:
    ud2
