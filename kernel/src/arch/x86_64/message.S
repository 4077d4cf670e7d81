# Calls that pass messages (`abi::ipc`): the commonest of them from program to program, the rest into `messages`.
#
# The commonest are a call to a receiver that waits alone on this core, and an answer to a caller on this core that has lent its time, by a
# thread that then waits alone; neither with anything special in its tag, and no thread with extended state or other extras. Then the
# message's registers rsi rdx r8 r9 r10 r12 r13 r14 r15 are not touched at all. Next come a call with capabilities (`messages::transfer`); both,
# between threads that have extended state, and nothing else; a message to a real-time thread that waits alone on this core and is no more urgent
# than its real-time sender, which goes on; and waiting alone for such a message. What is done to the threads is what `messages::deliver`,
# `messages::receive`, `messages::reply_receive`, `talk` and `homes::send_home_directly` do, step by step; the looking up is
# `cap::Table::lookup`, the queueing `sched::assembly`, the change of spaces `mm::tlb::CoreTlb::go_back`.
# A test runs random programs with and without this way (`user/peers`).

# decline_unless_usual: goes to the whole meaning unless tag and core are as said above.
#   in: rsi = tag.  clobbers: flags.
.macro decline_unless_usual
    test esi, {special}
    jnz message_slow
    cmp dword ptr gs:[rip + {head} + {extras}], 0
    jne message_slow
.endm

# look_up: the slot of a handle.
#   in: rsp = thread, rdi = handle.  out: rcx = its first word, rbx + rax = its place.
.macro look_up
    mov rbx, [rsp + {table}]
    mov eax, edi
    shr eax, {leaf_shift}
    and eax, {leaf_mask}
    mov rbx, [rbx + rax]
    mov eax, edi
    and eax, {slot_mask}
    mov rcx, [rbx + rax + {meta}]
.endm

# make_current: make rbx the current thread, with its space.
#   in: rbx = thread.  clobbers: rax rcx r11 flags.  Goes on at \done, or at \slow where the change of spaces is more than going back.
.macro make_current done, slow=message_space
    mov gs:[rip + {head} + {current}], rbx
    lea rax, [rbx + {frame_end}]
    mov rcx, gs:[rip + {head} + {stack_slot}]
    mov [rcx], rax
    mov r11, [rbx + {space}]
    cmp r11, gs:[rip + {entered}]
    je \done
    mov rcx, gs:[rip + {tlb} + {tlb_before}]
    cmp gs:[rcx + {tlb} + {slot_space}], r11
    jne \slow
    mov rax, gs:[rip + {active} + {active_word}]
    mov gs:[rip + {active} + {active_leaving}], rax
    mov rax, [r11 + {space_id}]
    add rax, rax
    xchg gs:[rip + {active} + {active_word}], rax
    mov rax, [r11 + {space_generation}]
    cmp gs:[rcx + {tlb} + {slot_seen}], rax
    jne \slow
    mov rax, gs:[rcx + {tlb} + {slot_load}]
    mov cr3, rax
    mov rax, gs:[rip + {tlb} + {tlb_current}]
    mov gs:[rip + {tlb} + {tlb_before}], rax
    mov gs:[rip + {tlb} + {tlb_current}], rcx
    mov qword ptr gs:[rip + {active} + {active_leaving}], 0
    mov gs:[rip + {entered}], r11
.endm

# go_on: make rbx the current thread, with its space, and go there.
#   in: rbx = thread, rdi = badge, the message's registers.  out: never returns.
.macro go_on
    make_current 772f
772:
    inc qword ptr gs:[rip + {metrics} + {fast_messages}]
    mov rbp, [rbx + {rbp}]
    mov rcx, [rbx + {rip}]
    mov r11, [rbx + {rflags}]
    mov rsp, [rbx + {rsp}]
    mov rbx, [rbx + {rbx}]
    xor eax, eax
    leave_kernel sysretq, 0
.endm

# find_receiver: who waits alone at the endpoint of a call, and can be lent to.
#   in: rsp = thread, rdi = handle.  out: rdi = badge, r11 = endpoint, rax = its word, rbx = receiver, rbp = context, ecx = the core's mark,
#   with \state that of threads with extended state.  clobbers: flags.
.macro find_receiver state=0
    mov [rsp + {rdi}], rdi
    look_up
    xor rdi, rcx
    test rdi, {may_send}
    jnz message_declined_call
    mov r11, [rbx + rax + {object}]
    mov rdi, [rbx + rax + {badge}]
    cmp rcx, [rbx + rax + {meta}]
    jne message_declined_call
    # The receiver that waits alone, if one does: then the word's marks are those of `Queue::ONE`.
    mov rax, [r11 + {queue}]
    lea rbx, [rax - {one}]
    test bl, {marks}
    jnz message_declined_call
    mov ecx, gs:[rip + {head} + {mark}]
    .if \state
    or ecx, {with_state}
    .endif
    cmp [rbx + {direct}], ecx
    jne message_declined_call
    mov rbp, [rsp + {on}]
    cmp dword ptr [rbp + {depth}], {max_depth}
    jae message_declined_call
.endm

# find_caller: the caller whose time the thread has, and the endpoint where it then wants to receive.
#   in: rsp = thread, rdi = handle.  out: r11 = endpoint, rbx = caller, rbp = context, ecx = the core's mark.  clobbers: rax flags.
.macro find_caller
    look_up
    mov r11, [rbx + rax + {object}]
    cmp rcx, [rbx + rax + {meta}]
    jne message_declined_reply
    xor rcx, rdi
    test rcx, {may_receive}
    jnz message_declined_reply
    # Who runs on another's time has it from the caller that it has to answer (DN2), which lives here.
    mov rbp, [rsp + {on}]
    cmp rbp, rsp
    je message_declined_reply
    mov rbx, [rsp + {reply}]
    mov ecx, gs:[rip + {head} + {mark}]
.endm

# lend: the caller waits for the receiver, which has its context.
#   in: rsp = thread, rbx = receiver, rbp = context, ecx = 0.  clobbers: rax flags.
.macro lend
    mov [rbx + {reply}], rsp
    mov [rbx + {direct}], ecx
    mov [rbx + {on}], rbp
    mov [rbp + {runner}], rbx
    inc dword ptr [rbp + {depth}]
    lea rax, [rbx + {callee}]
    mov [rsp + {at}], rax
.endm

# decline_unless_state: goes to the whole meaning unless extended state is all that is unusual of the thread and its core.
#   in: rsp = thread.  clobbers: flags.
.macro decline_unless_state
    cmp dword ptr gs:[rip + {head} + {extras}], {only_state}
    jne message_slow
    cmp dword ptr [rsp + {thread_extras}], {state}
    jne message_slow
.endm

# push_message, pop_message: the message's registers that a called function may change, and the badge or handle; rbp rbx r12-r15 stay.
#   in: rsp = the kernel's stack.  clobbers: rsp.
.macro push_message
    push rdi
    push rsi
    push rdx
    push r8
    push r9
    push r10
.endm
.macro pop_message
    pop r10
    pop r9
    pop r8
    pop rdx
    pop rsi
    pop rdi
.endm

# fill_in: the message's registers into a thread's frame, but for the badge.
#   in: rbx = thread.
.macro fill_in
    mov [rbx + {rsi}], rsi
    mov [rbx + {rdx}], rdx
    mov [rbx + {r8}], r8
    mov [rbx + {r9}], r9
    mov [rbx + {r10}], r10
    mov [rbx + {r12}], r12
    mov [rbx + {r13}], r13
    mov [rbx + {r14}], r14
    mov [rbx + {r15}], r15
.endm

# load_state: put a thread's extended state into the registers.
#   in: rbx = thread, the message's registers.  clobbers: rax rcx r11 rsp flags.
.macro load_state
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    push_message
    mov rdi, rbx
    call {enter_state}
    pop_message
.endm

# pass_capability: hand the message's only capability on, while the sender is current.
#   in: rsp = thread, rbx = receiver, which was taken, the message's registers.  out: rsp = thread, the message's registers as the receiver gets
#   them, but for the tag; rax = the receiver's handle, 0 if it gets none.  clobbers: rcx r11 flags.
.macro pass_capability
    mov rcx, rsp
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    push_message
    mov rdi, rcx
    mov rsi, r15
    mov rdx, rbx
    call {pass_capability}
    pop_message
    mov rsp, gs:[rip + {head} + {current}]
.endm

# pass_capabilities: the same with several, or such that move.
#   out: the tag too.  clobbers: rax rcx r11 flags.
.macro pass_capabilities
    mov rcx, rsp
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    push rsi
    push rdi
    push rdx
    push r8
    push r9
    push r10
    push r12
    push r13
    push r14
    push r15
    mov rdi, rcx
    mov rdx, rsi
    mov rsi, rbx
    mov rcx, rsp
    call {pass_capabilities}
    mov rsi, rax
    pop r15
    pop r14
    pop r13
    pop r12
    pop r10
    pop r9
    pop r8
    pop rdx
    pop rdi
    mov rsp, gs:[rip + {head} + {current}]
.endm

# part: the thread that has a caller's time waits alone at an endpoint, and gives the time back; does nothing if it cannot wait there.
#   in: rsp = thread, rbx = caller, rbp = context, r11 = endpoint, ecx = the core's mark.  clobbers: rax rcx rdi flags.
.macro part
    # Once it is parked another core may take it and give it a caller.
    lea rax, [r11 + {endpoint}]
    mov [rsp + {at}], rax
    xor eax, eax
    mov [rsp + {reply}], rax
    mov [rsp + {direct}], ecx
    lea rcx, [rsp + {one}]
    lock cmpxchg [r11 + {queue}], rcx
    jne message_undo_reply
    xor edi, edi
    mov [rbx + {direct}], edi
    mov [rbp + {runner}], rbx
    dec dword ptr [rbp + {depth}]
    mov [rsp + {on}], rsp
.endm

# message_entry: from `syscall_entry`, for numbers behind those of the other calls.
#   in: rsp = thread, with rip rflags rsp rbx rbp saved; rax = number; the other registers as the program left them, but for rcx r11.
.balign 64
message_entry:
    cmp dword ptr [rsp + {rip} + 4], {user_end_high}
    jae message_far
    mov dword ptr [rsp + {vector}], {message}
    mov [rsp + {rsi}], rsi
    cmp rax, {call}
    jne message_no_call
    .rept {planted}
    nop
    .endr
    test esi, {special}
    jnz message_special_call
    cmp dword ptr gs:[rip + {head} + {extras}], 0
    jne message_state_call
    find_receiver
    # The caller waits from here on, for whoever of this core looks at it.
    mov [rsp + {direct}], ecx
    xor ecx, ecx
    lock cmpxchg [r11 + {queue}], rcx
    jne message_undo_call
    lend
    go_on

# The same between threads with extended state.
.balign 64
message_state_call:
    decline_unless_state
    find_receiver 1
    mov [rsp + {direct}], ecx
    xor ecx, ecx
    lock cmpxchg [r11 + {queue}], rcx
    jne message_undo_call
    lend
    load_state
    go_on

# The same with capabilities. What becomes of them may have somebody run first.
.balign 64
message_special_call:
    test esi, {special_beside_caps}
    jnz message_slow
    mov ecx, esi
    and ecx, {caps}
    cmp ecx, {most_caps}
    ja message_slow
    cmp dword ptr gs:[rip + {head} + {extras}], 0
    jne message_slow
    find_receiver
    xor ecx, ecx
    lock cmpxchg [r11 + {queue}], rcx
    jne message_declined_call
    mov [rbx + {at}], rcx
    mov eax, esi
    and eax, {moves}
    cmp eax, {one_cap}
    jne message_several
    pass_capability
    test rax, rax
    jz message_lost
    mov r15, rax
message_passed:
    mov ecx, gs:[rip + {head} + {mark}]
    mov [rsp + {direct}], ecx
    xor ecx, ecx
    lend
    cmp dword ptr gs:[rip + {head} + {pending}], 0
    jne message_call_pending
    go_on
message_lost:
    xor rsi, {one_cap} | {lost}
    jmp message_passed
message_several:
    pass_capabilities
    jmp message_passed
message_call_pending:
    xor eax, eax
    mov [rbx + {rax}], rax
    mov [rbx + {rdi}], rdi
    fill_in
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    mov rdi, rbx
    call {go_on_with_callee}
    ud2

.balign 64
message_no_call:
    cmp rax, {reply_receive}
    jne message_no_reply
    test esi, {special}
    jnz message_slow
    cmp dword ptr gs:[rip + {head} + {extras}], 0
    jne message_state_reply
    find_caller
    cmp [rbx + {direct}], ecx
    jne message_faulted
    part
    go_on
    # The caller has faulted (`handler`), and waits to try its instruction again, with all its registers.
message_faulted:
    or ecx, {faulted}
    cmp [rbx + {direct}], ecx
    jne message_declined_reply
    xor ecx, {faulted}
    mov rax, rsi
    shr rax, {label_shift}
    jnz message_declined_reply
    part
    make_current 773f
773:
    inc qword ptr gs:[rip + {metrics} + {fast_messages}]
    mov rdi, rbx
    jmp resume_whole

# A message that nobody has to answer: the receiver is filled in and queued, the sender goes on.
.balign 64
message_no_reply:
    cmp rax, {receive}
    jae message_no_send
    .if {receive} - {send} - 1
    .error "what is less than a receive is a send"
    .endif
    decline_unless_usual
    mov [rsp + {rdi}], rdi
    look_up
    mov r11, [rbx + rax + {object}]
    mov rbp, [rbx + rax + {badge}]
    cmp rcx, [rbx + rax + {meta}]
    jne message_declined_send
    xor rcx, rdi
    test rcx, {may_send}
    jnz message_declined_send
    mov rax, [r11 + {queue}]
    lea rbx, [rax - {one}]
    test bl, {marks}
    jnz message_declined_send
    mov ecx, gs:[rip + {head} + {mark}]
    cmp [rbx + {direct}], ecx
    jne message_declined_send
    # Who is sent to a thread of its own kind that is no less urgent changes nothing for that one, nor for the timer.
    movzx ecx, byte ptr [rbx + {task_priority}]
    cmp ecx, gs:[rip + {sched} + {sched_urgency}]
    ja message_declined_send
    mov rdi, gs:[rip + {sched} + {sched_current}]
    cmp byte ptr [rbx + {task_kind}], {real_time}
    jne message_declined_send
    cmp byte ptr [rdi + {task_kind}], {real_time}
    jne message_declined_send
    xor edi, edi
    lock cmpxchg [r11 + {queue}], rdi
    jne message_declined_send
    mov [rbx + {rax}], rdi
    mov [rbx + {rdi}], rbp
    fill_in
    mov [rbx + {direct}], edi
    mov [rbx + {task_turn}], rdi
    mov [rbx + {task_next}], rdi
    mov byte ptr [rbx + {task_place}], {queued}
    mov eax, ecx
    shl eax, {fifo_shift}
    mov rdi, gs:[rax + {sched} + {sched_last}]
    mov [rbx + {task_prev}], rdi
    mov gs:[rax + {sched} + {sched_last}], rbx
    test rdi, rdi
    jnz message_behind
    mov gs:[rax + {sched} + {sched_first}], rbx
    mov eax, ecx
    shr eax, 6
    mov rdi, gs:[rax * 8 + {sched} + {sched_words}]
    bts rdi, rcx
    mov gs:[rax * 8 + {sched} + {sched_words}], rdi
message_queued:
    inc dword ptr gs:[rax * 4 + {sched} + {sched_counts}]
    inc qword ptr gs:[rip + {metrics} + {wakes_local}]
    dec dword ptr gs:[rip + {metrics} + {wakes_left}]
    jz message_timed
message_sent:
    inc qword ptr gs:[rip + {metrics} + {fast_messages}]
    mov rdi, rbp
    mov rbp, [rsp + {rbp}]
    mov rbx, [rsp + {rbx}]
    mov rcx, [rsp + {rip}]
    mov r11, [rsp + {rflags}]
    mov rsp, [rsp + {rsp}]
    xor eax, eax
    leave_kernel sysretq, 0
message_behind:
    mov [rdi + {task_next}], rbx
    mov eax, ecx
    shr eax, 6
    jmp message_queued
    # A wake whose latency is measured (`homes::queue_timed`).
message_timed:
    mov dword ptr gs:[rip + {metrics} + {wakes_left}], {wakes_per_sample}
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [rbx + {ready_since}], rax
    or dword ptr [rbx + {thread_extras}], {woken}
    mov rdx, [rbx + {rdx}]
    jmp message_sent

# Waiting for a message, by a thread that is known as the endpoint's server (PI1), has nobody to answer and serves nobody.
.balign 64
message_no_send:
    jne message_slow
    decline_unless_usual
    look_up
    mov r11, [rbx + rax + {object}]
    cmp rcx, [rbx + rax + {meta}]
    jne message_declined_receive
    xor rcx, rdi
    test rcx, {may_receive}
    jnz message_declined_receive
    cmp qword ptr [rsp + {reply}], 0
    jne message_declined_receive
    cmp [rsp + {serves}], r11
    jne message_declined_receive
    cmp dword ptr [rsp + {served}], 0
    jne message_declined_receive
    mov ecx, gs:[rip + {head} + {mark}]
    lea rax, [r11 + {endpoint}]
    mov [rsp + {at}], rax
    mov byte ptr [rsp + {role}], {receiving}
    mov [rsp + {direct}], ecx
    # Once it is parked another core may take it and give it a message.
    xor eax, eax
    lea rcx, [rsp + {one}]
    lock cmpxchg [r11 + {queue}], rcx
    jne message_undo_receive
    inc qword ptr gs:[rip + {metrics} + {fast_messages}]
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    call {give_way}
    mov rbx, rax
    make_current 774f, message_space_whole
774:
    mov rdi, rbx
    cmp dword ptr [rbx + {vector}], {message}
    je resume_message_words
    jmp user_resume

message_declined_send:
    mov rdi, [rsp + {rdi}]
    mov eax, {send}
    jmp message_slow
message_undo_receive:
    mov dword ptr [rsp + {direct}], 0
message_declined_receive:
    mov eax, {receive}
    jmp message_slow
# An answer between threads with extended state.
.balign 64
message_state_reply:
    decline_unless_state
    find_caller
    or ecx, {with_state}
    cmp [rbx + {direct}], ecx
    jne message_declined_reply
    part
    load_state
    go_on

message_undo_call:
    mov dword ptr [rsp + {direct}], 0
message_declined_call:
    mov rdi, [rsp + {rdi}]
    mov eax, {call}
    jmp message_slow
message_undo_reply:
    mov dword ptr [rsp + {direct}], 0
    mov [rsp + {reply}], rbx
message_declined_reply:
    mov eax, {reply_receive}
message_slow:
    lea rcx, [rip + {message_call}]
    dec dword ptr gs:[rip + {metrics} + {countdown}]
    jnz message_save
    lea rcx, [rip + {watched_message_call}]
message_save:
    mov [rsp + {rdi}], rdi
    mov [rsp + {rdx}], rdx
    mov [rsp + {r8}], r8
    mov [rsp + {r9}], r9
    mov [rsp + {r10}], r10
    mov [rsp + {r12}], r12
    mov [rsp + {r13}], r13
    mov [rsp + {r14}], r14
    mov [rsp + {r15}], r15
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    mov rdi, rax
    call rcx
    mov rdi, gs:[rip + {head} + {current}]
    cmp dword ptr gs:[rip + {head} + {pending}], 0
    je user_resume
    call {leave}
    ud2
    # As `syscall_far`, but on the way in: a message leaves by several ways.
message_far:
    mov rdi, rsp
    jmp syscall_far

# message_space: the change of spaces that is more than going back to the one before.
#   in: rbx = the thread that is current by now, the message's registers.
message_space:
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    push_message
    mov rdi, rbx
    call {enter_space}
    pop_message
    cmp dword ptr [rbx + {vector}], {message}
    jne 773b
    jmp 772b

# message_space_whole: the same, for a thread whose registers are all in its frame.
message_space_whole:
    mov rsp, gs:[rip + {head} + {kernel_sp}]
    mov rdi, rbx
    call {enter_space}
    mov rdi, rbx
    jmp user_resume
