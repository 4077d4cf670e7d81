# The border between ring 3 and the kernel: system calls, interrupts of programs, and the way back.
#
# A program's registers are saved straight into its thread (`Frame`), never on the core's stack. The task-state segment's rsp0 points behind
# the current thread's frame, so the CPU itself stores the interrupted context there; interrupts are off until the thread is left again.
# GS: the kernel's base is the distance to the core's data, a program's is 0 (it cannot set one: CR4.FSGSBASE is off). SWAPGS comes first
# on every way in from ring 3 and last on every way out; what can strike in between has a stack of its own and looks at the base
# (`trap_apart`).

# leave_kernel: the last two instructions on every way out. `border.rs` finds them by their entry in `.exits`, the address and whether they
#   are for a call (0) or an interrupt (1), and turns them into a jump where the CPU needs more to be done.
.macro leave_kernel instruction, kind
771:
    swapgs
    \instruction
    .pushsection .exits, "a"
    .quad 771b, \kind
    .popsection
.endm

# syscall_entry: SYSCALL (SDM volume 2: rcx = return address, r11 = flags; IF, DF, AC, TF, NT are masked).
#   in: rax = number, rdi rsi rdx r10 r8 r9 = arguments.  GS: the program's.  IF: clear.  stack: the program's, not to be used.
#   out: rax = status, rdx = value; rcx r11 as SYSRET needs them; rsi rdi r8 r9 r10 are 0, so that nothing of the kernel shows.
#   What the convention preserves is saved before a handler can change it: a handler that blocks simply does not return.
.section .text.user, "ax"
.balign 64
.global syscall_entry
syscall_entry:
    swapgs
    mov gs:[rip + {head} + {user_sp}], rsp
    mov rsp, gs:[rip + {head} + {current}]
.global syscall_saving
syscall_saving:
    mov [rsp + {rip}], rcx
    mov [rsp + {rflags}], r11
    mov rcx, gs:[rip + {head} + {user_sp}]
    mov [rsp + {rbx}], rbx
    mov [rsp + {rbp}], rbp
    mov [rsp + {rsp}], rcx
    cmp rax, {count}
    jae message_entry
    mov [rsp + {r12}], r12
    mov [rsp + {r13}], r13
    mov [rsp + {r14}], r14
    mov [rsp + {r15}], r15
    mov dword ptr [rsp + {vector}], {syscall}
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    mov rcx, r10
    dec dword ptr gs:[rip + {metrics} + {countdown}]
    jz syscall_watched
    call [rax * 8 + {handlers}]
syscall_done:
    cmp dword ptr gs:[rip + {head} + {pending}], 0
    mov rdi, gs:[rip + {head} + {current}]
    jne syscall_pending
    mov rcx, [rdi + {rip}]
    mov r11, [rdi + {rflags}]
    mov rsp, [rdi + {rsp}]
    mov r8, rcx
    shr r8, {user_bits}
    jnz syscall_far
    xor r9d, r9d
    xor r10d, r10d
    xor esi, esi
    xor edi, edi
    leave_kernel sysretq, 0
    # A call of a process with limits: the countdown stays where it is, and what it would have counted is counted aside.
syscall_limited:
    inc dword ptr gs:[rip + {metrics} + {countdown}]
    bt qword ptr [r10 + {allowed}], rax
    jnc syscall_filtered
    cmp dword ptr [r10 + {rated}], 0
    jne syscall_rated
syscall_allowed:
    dec dword ptr gs:[rip + {metrics} + {aside}]
    jz syscall_timed
    call [rax * 8 + {handlers}]
    jmp syscall_done
syscall_rated:
    push rax
    push rax
    push rdi
    push rsi
    push rdx
    push rcx
    push r8
    push r9
    mov rdi, rax
    call {rate}
    mov r10, rax
    pop r9
    pop r8
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    pop rax
    pop rax
    test r10, r10
    jz syscall_allowed
    mov rax, r10
    jmp syscall_refused
syscall_filtered:
    mov eax, {filtered}
syscall_refused:
    xor edx, edx
    jmp syscall_done
    # A call that is timed or traced. On the stack: number and start; a handler that gives the core up gives them up too.
syscall_watched:
    mov r10, gs:[rip + {head} + {limits}]
    test r10, r10
    jnz syscall_limited
syscall_timed:
    push rax
    push rax
    push rdi
    push rsi
    push rdx
    push rcx
    push r8
    push r9
    mov rsi, rdi
    mov rdi, rax
    call {watch}
    mov [rsp + 7 * {word}], rax
    pop r9
    pop r8
    pop rcx
    pop rdx
    pop rsi
    pop rdi
    mov rax, [rsp]
    call [rax * 8 + {handlers}]
    pop rdi
    pop rsi
    push rax
    push rdx
    mov rdx, rax
    call {watched}
    pop rdx
    pop rax
    jmp syscall_done
    # The results belong to the thread before anything else can happen to it.
syscall_pending:
    mov [rdi + {rax}], rax
    mov [rdi + {rdx}], rdx
    call {leave}
    ud2
    # SYSRET to an address that is not canonical would fault in ring 0 on the program's stack (CVE-2012-0217). IRETQ faults too, but in
    # the kernel's order: `resume` sends such a thread through the full path, whose fault `trap` turns into the thread's.
syscall_far:
    mov [rdi + {rax}], rax
    mov [rdi + {rdx}], rdx
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    call {far}
    ud2

# user_resume: go on with a thread.
#   in: rdi = thread, which is current: its space, segment bases and extended state are loaded.  GS: the kernel's.  IF: clear.
#   out: never returns.
.balign 64
.global user_resume
user_resume:
    cmp dword ptr [rdi + {vector}], {syscall}
    jne resume_message
    mov rbx, [rdi + {rbx}]
    mov rbp, [rdi + {rbp}]
    mov r12, [rdi + {r12}]
    mov r13, [rdi + {r13}]
    mov r14, [rdi + {r14}]
    mov r15, [rdi + {r15}]
    mov rax, [rdi + {rax}]
    mov rdx, [rdi + {rdx}]
    mov rcx, [rdi + {rip}]
    mov r11, [rdi + {rflags}]
    mov rsp, [rdi + {rsp}]
    mov r8, rcx
    shr r8, {user_bits}
    jnz syscall_far
    xor r9d, r9d
    xor r10d, r10d
    xor esi, esi
    xor edi, edi
    leave_kernel sysretq, 0
resume_message:
    cmp dword ptr [rdi + {vector}], {message}
    jne resume_whole
resume_message_words:
    mov rbx, [rdi + {rbx}]
    mov rbp, [rdi + {rbp}]
    mov r8, [rdi + {r8}]
    mov r9, [rdi + {r9}]
    mov r10, [rdi + {r10}]
    mov r12, [rdi + {r12}]
    mov r13, [rdi + {r13}]
    mov r14, [rdi + {r14}]
    mov r15, [rdi + {r15}]
    mov rax, [rdi + {rax}]
    mov rdx, [rdi + {rdx}]
    mov rsi, [rdi + {rsi}]
    mov rcx, [rdi + {rip}]
    mov r11, [rdi + {rflags}]
    mov rsp, [rdi + {rsp}]
    mov rdi, [rdi + {rdi}]
    leave_kernel sysretq, 0
resume_whole:
    lea rsp, [rdi + {frame}]
    restore_registers
    add rsp, 2 * {word}
    leave_kernel iretq, 1

# user_trap: an interrupt or exception of a program, from `trap_common`.
#   in: the CPU's words, error code and vector in the thread's frame, rsp on them.  GS: the program's.  IF: clear.  AC: the program's.
#   out: never returns; `trap` goes on with some thread.
.balign 16
.global user_trap
user_trap:
    swapgs
.global user_trap_saving
user_trap_saving:
    save_registers
    mov rdi, rsp
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    cld
    xor ebp, ebp
    cmp byte ptr [rip + {smap}], 0
    je user_trap_closed
    clac
user_trap_closed:
    call {trap}
    mov rdi, gs:[rip + {head} + {current}]
    cmp dword ptr gs:[rip + {head} + {pending}], 0
    je resume_whole
    call {leave}
    ud2

# serve_begin: run a function that gives the core to threads, and come back when `serve_end` says so.
#   in: rdi = function.  out: returns after `serve_end`.  clobbers: what a C function may.  IF: clear.
#   The stack below this frame is the kernel's on every entry from ring 3 meanwhile.
.global serve_begin
serve_begin:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push gs:[rip + {head} + {kernel_sp}]
    mov gs:[rip + {head} + {kernel_sp}], rsp
    xor ebp, ebp
    call rdi
    ud2

# serve_end: leave what `serve_begin` began; everything above its frame is given up.
#   out: returns from `serve_begin`.  IF: clear.
.global serve_end
serve_end:
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    pop gs:[rip + {head} + {kernel_sp}]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# serve_again: call a function on the empty kernel stack: what was on it is given up.
#   in: rdi = function.  out: never returns.  IF: clear.
.global serve_again
serve_again:
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    xor ebp, ebp
    call rdi
    ud2
