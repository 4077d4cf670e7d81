# Everything in the kernel that touches user memory. A page fault here, and nowhere else in the kernel, may be resolved or fixed up
# (`page_fault.rs`): each instruction that may fault is covered by a row of `user_faults`, which says where to go on instead.

.set USER_WORD, 8
.set USER_HALF, 4
.set USER_BLOCK, 8 * USER_WORD

# A row of the table: a fault from `first` up to, not including, `end` continues at `fixup`, with the registers as they were.
.macro user_covered first, end, fixup
    .pushsection .rodata.user_faults, "a"
    .quad \first, \end, \fixup
    .popsection
.endm

# Opens user memory to the kernel and closes it again, where SMAP is on (SDM volume 3, §5.6). The flag never changes after boot, so
# the branch is predicted; without the feature `stac` does not exist.
.macro user_open
    cmp byte ptr [rip + {smap}], 0
    je 7f
    stac
7:
.endm
.macro user_close
    cmp byte ptr [rip + {smap}], 0
    je 7f
    clac
7:
.endm

# The end of a copy that is complete.
.macro user_finish
    xor eax, eax
    user_close
    ret
.endm

# Moves four words between two places; clobbers r8 to r11.
.macro user_words4 from, to
    mov r8, [\from]
    mov r9, [\from + USER_WORD]
    mov r10, [\from + 2 * USER_WORD]
    mov r11, [\from + 3 * USER_WORD]
    mov [\to], r8
    mov [\to + USER_WORD], r9
    mov [\to + 2 * USER_WORD], r10
    mov [\to + 3 * USER_WORD], r11
.endm

.pushsection .rodata.user_faults, "a"
.balign 8
.global user_faults
user_faults:
.popsection

.section .text.user_copy, "ax"
.balign 64
.global user_start
user_start:

# user_copy: copy between the kernel and the user half, either way.
#   in: rdi = to, rsi = from, rdx = bytes; one side is checked (U1), the other is the kernel's
#   out: rax = bytes not copied, 0 if all were.  clobbers: rcx, rdx, rsi, rdi, r8 to r11.  stack: none.  GS: any.  IF: clear.
#   Lengths up to a block are two halves that overlap. At every instruction that may fault the three arguments describe what is
#   left, so that a fault is answered by doing the rest byte by byte: the second fault tells exactly how far that is possible.
.global user_copy
user_copy:
    user_open
user_copy_any:
    cmp rdx, 2 * USER_WORD
    ja user_copy_long
    cmp rdx, USER_WORD
    jb user_copy_short
user_copy_first:
    mov r8, [rsi]
    mov r9, [rsi + rdx - USER_WORD]
    mov [rdi], r8
    mov [rdi + rdx - USER_WORD], r9
user_copy_done:
    user_finish
user_copy_close:
    user_close
    ret
user_copy_short:
    cmp rdx, USER_HALF
    jb user_copy_tiny
user_copy_second:
    mov r8d, [rsi]
    mov r9d, [rsi + rdx - USER_HALF]
    mov [rdi], r8d
    mov [rdi + rdx - USER_HALF], r9d
    user_finish
user_copy_tiny:
    test rdx, rdx
    jz user_copy_done
user_copy_bytes:
    mov rcx, rdx
user_copy_movsb:
    rep movsb
user_copy_stopped:
    mov rax, rcx
    jmp user_copy_close
user_copy_long:
    cmp rdx, 4 * USER_WORD
    ja user_copy_longer
user_copy_third:
    mov r8, [rsi]
    mov r9, [rsi + USER_WORD]
    mov r10, [rsi + rdx - 2 * USER_WORD]
    mov r11, [rsi + rdx - USER_WORD]
    mov [rdi], r8
    mov [rdi + USER_WORD], r9
    mov [rdi + rdx - 2 * USER_WORD], r10
    mov [rdi + rdx - USER_WORD], r11
    user_finish
user_copy_longer:
    cmp rdx, USER_BLOCK
    ja user_copy_big
user_copy_fourth:
    user_words4 rsi, rdi
    user_words4 rsi + rdx - 4 * USER_WORD, rdi + rdx - 4 * USER_WORD
    user_finish
user_copy_big:
    cmp rdx, [rip + {rep_from}]
    jae user_copy_bytes
user_copy_fifth:
    user_words4 rsi, rdi
    user_words4 rsi + 4 * USER_WORD, rdi + 4 * USER_WORD
    add rsi, USER_BLOCK
    add rdi, USER_BLOCK
    sub rdx, USER_BLOCK
    cmp rdx, USER_BLOCK
    ja user_copy_fifth
    jmp user_copy_any
user_copy_end:

user_covered user_copy_first, user_copy_done, user_copy_bytes
user_covered user_copy_second, user_copy_tiny, user_copy_bytes
user_covered user_copy_movsb, user_copy_stopped, user_copy_stopped
user_covered user_copy_third, user_copy_longer, user_copy_bytes
user_covered user_copy_fourth, user_copy_big, user_copy_bytes
user_covered user_copy_fifth, user_copy_end, user_copy_bytes

# user_clear: fill user memory with zeroes.
#   in: rdi = to, checked (U1), rsi = bytes
#   out: rax = bytes not cleared, 0 if all were.  clobbers: rcx, rsi, rdi.  stack: none.  GS: any.  IF: clear.
.global user_clear
user_clear:
    user_open
    xor eax, eax
    cmp rsi, [rip + {rep_from}]
    jae user_clear_bytes
user_clear_next:
    cmp rsi, USER_WORD
    jb user_clear_bytes
user_clear_word:
    mov [rdi], rax
user_clear_after:
    add rdi, USER_WORD
    sub rsi, USER_WORD
    jmp user_clear_next
user_clear_bytes:
    mov rcx, rsi
user_clear_stosb:
    rep stosb
user_clear_stopped:
    mov rax, rcx
    user_close
    ret

user_covered user_clear_word, user_clear_after, user_clear_bytes
user_covered user_clear_stosb, user_clear_stopped, user_clear_stopped

# user_load_u8, user_load_u32, user_load_u64: one value from user memory.
#   in: rdi = address, checked (U1)
#   out: rax = the value, rdx = 0; or rdx = 1 after a fault.  clobbers: nothing else.  stack: none.  GS: any.  IF: clear.
.macro user_load name, instruction, to, size
.global \name
\name:
    user_open
\name\()_access:
    \instruction \to, \size ptr [rdi]
\name\()_after:
    user_close
    xor edx, edx
    ret
user_covered \name\()_access, \name\()_after, user_value_failed
.endm
user_load user_load_u8, movzx, eax, byte
user_load user_load_u32, mov, eax, dword
user_load user_load_u64, mov, rax, qword

# user_exchange_u32: compare and exchange, with a full barrier.
#   in: rdi = address, checked and aligned (U1), esi = expected, edx = new
#   out: rax = what was there, rdx = 0; or rdx = 1 after a fault.  clobbers: nothing else.  stack: none.  GS: any.  IF: clear.
.global user_exchange_u32
user_exchange_u32:
    mov eax, esi
    user_open
user_exchange_access:
    lock cmpxchg [rdi], edx
user_exchange_after:
    user_close
    xor edx, edx
    ret
user_covered user_exchange_access, user_exchange_after, user_value_failed

user_value_failed:
    user_close
    xor eax, eax
    mov edx, 1
    ret

# user_store_u8, user_store_u32, user_store_u64: one value to user memory.
#   in: rdi = address, checked (U1), rsi = the value
#   out: rax = 0, or 1 after a fault.  clobbers: nothing else.  stack: none.  GS: any.  IF: clear.
.macro user_store name, from
.global \name
\name:
    user_open
\name\()_access:
    mov [rdi], \from
\name\()_after:
    user_close
    xor eax, eax
    ret
user_covered \name\()_access, \name\()_after, user_store_failed
.endm
user_store user_store_u8, sil
user_store user_store_u32, esi
user_store user_store_u64, rsi

user_store_failed:
    user_close
    mov eax, 1
    ret

.global user_end
user_end:

.pushsection .rodata.user_faults, "a"
.global user_faults_end
user_faults_end:
.popsection
