/* The stack switch of coroutines: void coro_switch_asm(void **save_sp, void *to_sp), and the first frame of a new
 * stack, which calls fn(arg) from two of the saved registers. The layout is known to switch.c. MXCSR and the x87
 * control word are not saved: nothing here changes them. The frame pointer of the first frame is zero and its return
 * address undefined, so that unwinders stop there. */
#if !defined(CORO_UCONTEXT) && defined(__x86_64__)

    .text
    .globl coro_switch_asm
    .hidden coro_switch_asm
    .type coro_switch_asm, @function
    .p2align 4
coro_switch_asm:
    .cfi_startproc
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    .cfi_def_cfa %rsp, 56
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size coro_switch_asm, . - coro_switch_asm

    .globl coro_entry_asm
    .hidden coro_entry_asm
    .type coro_entry_asm, @function
    .p2align 4
coro_entry_asm:
    .cfi_startproc
    .cfi_undefined %rip
    movq %r13, %rdi
    callq *%r12
    ud2
    .cfi_endproc
    .size coro_entry_asm, . - coro_entry_asm

#elif !defined(CORO_UCONTEXT) && defined(__aarch64__)

    .text
    .globl coro_switch_asm
    .hidden coro_switch_asm
    .type coro_switch_asm, %function
    .p2align 4
coro_switch_asm:
    .cfi_startproc
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .cfi_endproc
    .size coro_switch_asm, . - coro_switch_asm

    .globl coro_entry_asm
    .hidden coro_entry_asm
    .type coro_entry_asm, %function
    .p2align 4
coro_entry_asm:
    .cfi_startproc
    .cfi_undefined x30
    mov x0, x20
    blr x19
    brk #1
    .cfi_endproc
    .size coro_entry_asm, . - coro_entry_asm

#endif
    .section .note.GNU-stack, "", %progbits
