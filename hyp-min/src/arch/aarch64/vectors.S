// Exception vectors of EL2, and the way into a guest.
//
// SP_EL2 is this CPU's PerCpu whenever a guest runs: the guest's registers are its first field, the stack grows down from
// it. Rust keeps x19 to x29, so a call or an interrupt saves only the others. Slot 31 (XZR) stays zero.

    .section .text.vectors, "ax"
    .arch_extension fp
    .arch_extension simd

.macro SAVE_CALLER
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    str     x30, [sp, #240]
.endm

// No speculation past an ERET into what follows (DDI 0487, ERET; no SB before Armv8.5).
.macro RETURN
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldr     x18, [sp, #144]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh
    isb
.endm

// An exception taken from EL2 itself: the stack may be what failed, so it starts anew.
.macro OWN kind
    .balign 128
    mrs     x0, tpidr_el2
    cbz     x0, .Lkeep\@
    mov     sp, x0
.Lkeep\@:
    mov     x1, #\kind
    b       trap_own
.endm

// The same for synchronous ones: an access of probe_word or probe_store that aborts is an answer.
.macro OWN_SYNC
    .balign 128
    mrs     x9, elr_el2
    adr     x10, probe_word
    sub     x9, x9, x10
    cmp     x9, #probe_end - probe_word
    b.lo    probe_failed
    mrs     x0, tpidr_el2
    cbz     x0, .Lkeep\@
    mov     sp, x0
.Lkeep\@:
    mov     x1, #0
    b       trap_own
.endm

.macro SYNC other
    .balign 128
    SAVE_CALLER
    mrs     x1, esr_el2
    mov     x0, sp
    lsr     x2, x1, #26
    cmp     x2, #0x16
    b.ne    \other
    bl      trap_call
    b       return
.endm

.macro OTHER target
    .balign 128
    SAVE_CALLER
    mov     x0, sp
    bl      \target
    b       return
.endm

// Injected delivery, the usual case (irq_rest comes back to the third instruction): a PPI or SPI, and all list registers are empty (so none holds the same). The interrupt stays active until the guest
// ends it, only its priority is dropped. ICC_RPR_EL1 is 0x80 | p >> 1 for a guest's priority p. The rest is
// vdev/inject.rs's to decide; INTIDs as in ICC_IAR1_EL1 (IHI 0069, 12.2.14, ICH_LR<n>_EL2 12.4.10).
.macro IRQ_INJECTED
    .balign 128
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    mrs     x0, S3_0_C12_C12_0                  // ICC_IAR1_EL1
    dsb     sy
    mrs     x1, ich_elrsr_el2
    ldr     w2, [sp, #{LISTS}]
    cmp     w1, w2
    b.ne    irq_rest
    sub     w2, w0, #16
    cmp     w2, #1020 - 16
    b.hs    irq_rest
    cmp     w0, #{MAINTENANCE}
    b.eq    irq_rest
    mrs     x2, S3_0_C12_C11_3                  // ICC_RPR_EL1
    mov     x1, #7 << 60                        // pending, HW, Group 1
    orr     x1, x1, x0                          // vINTID
    bfi     x1, x0, #32, #10                    // pINTID
    bfi     x1, x2, #49, #7                     // Priority
    msr     ich_lr0_el2, x1
    msr     S3_0_C12_C12_1, x0                  // ICC_EOIR1_EL1
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh
    isb
.endm

// The same from a GICv2, whose registers lie in memory (IHI 0048, chapters 4 and 5). EL2's own interrupts come here too, with
// a priority below 0x80. GICC_IAR has the sender of an SGI in bits 12:10. GICH_LR: HW 31, pending 28, priority 27:23 (the
// upper five bits of p, 6:2 of GICC_RPR), physical INTID 19:10.
.macro IRQ_INJECTED_V2
    .balign 128
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    ldr     x1, [sp, #{GICC}]
    ldr     w0, [x1, #{IAR}]
    dsb     sy
    ldr     w2, [x1, #{ELRSR}]
    ldr     w3, [sp, #{LISTS}]
    cmp     w2, w3
    b.ne    irq_rest_v2
    sub     w2, w0, #16
    cmp     w2, #1020 - 16
    b.hs    irq_rest_v2
    ldr     w2, [x1, #{RPR}]
    tbz     w2, #7, irq_rest_v2
    mov     w3, #0x90000000
    orr     w3, w3, w0
    bfi     w3, w0, #10, #10
    lsr     w2, w2, #2
    bfi     w3, w2, #23, #5
    str     w3, [x1, #{LR0}]
    str     w0, [x1, #{EOIR}]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    eret
    dsb     nsh
    isb
.endm

.macro TABLE sync, irq, fiq
    .balign 2048
    OWN     0
    OWN     1
    OWN     2
    OWN     3
    OWN_SYNC
    OWN     1
    OWN     2
    OWN     3
    .rept   2
    SYNC    \sync
    \irq
    OTHER   \fiq
    OTHER   trap_serror
    .endr
    .balign 128
.endm

    .balign 2048
    .global vectors
vectors:
    // Where delivery is direct no IRQ comes to EL2 (IMO = 0).
    TABLE   sync_any, IRQ_INJECTED_V2, trap_fiq
    .global vectors_injected
vectors_injected:
    TABLE   sync_injected, IRQ_INJECTED, trap_fiq_injected

return:
    RETURN

// x0 has been acknowledged; x0 to x3 are saved.
.macro IRQ_REST target
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    str     x30, [sp, #240]
    mov     w1, w0
    mov     x0, sp
    bl      \target
    b       return
.endm

// An LPI is a message of a function of this domain: the SPI that the plan has for it is pending from now on, and ICC_IAR1_EL1 tells
// what comes of that. The loop ends when nothing is pending, or EL2's own interrupts are, which are more urgent: then
// ICC_IAR1_EL1 reads 1023 (IHI 0069, 12.2.14).
irq_rest:
.if {PCI}
    subs    w1, w0, #{FIRST_LPI}
    b.lo    1f
    ldr     w2, [sp, #{LPI_COUNT}]
    ldr     x3, [sp, #{LPIS}]
    cmp     w1, w2
    b.hs    2f
    ldr     w1, [x3, w1, uxtw #2]
    ldr     x3, [sp, #{DISTRIBUTOR}]
    mov     w2, #1
    lsl     w2, w2, w1
    lsr     w1, w1, #5
    add     x3, x3, #{ISPENDR}
    str     w2, [x3, w1, uxtw #2]
2:  msr     S3_0_C12_C12_1, x0                  // ICC_EOIR1_EL1: an LPI has no active state
    dsb     sy
    b       vectors_injected + 0x480 + 8
1:
.endif
    IRQ_REST trap_irq_injected
irq_rest_v2:
    IRQ_REST trap_irq_injected_v2

.macro SYNC_ANY target
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    bl      \target
    ldr     x19, [sp, #152]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    RETURN
.endm

sync_any:
    SYNC_ANY trap_sync
sync_injected:
    SYNC_ANY trap_sync_injected

// enter_guest(x0 entry, x1 its x0): EL1 as after a warm reset, nothing left of whoever used this CPU before, then EL1.
// Registers of optional features have been dealt with by registers.rs.
    .global enter_guest
enter_guest:
    mrs     x2, tpidr_el2
    mov     sp, x2
    msr     elr_el2, x0
    mov     x2, #0x3C5                          // EL1h, DAIF masked
    msr     spsr_el2, x2
    ldr     x2, ={SCTLR_EL1}
    msr     sctlr_el1, x2
    msr     cpacr_el1, xzr
    msr     ttbr0_el1, xzr
    msr     ttbr1_el1, xzr
    msr     tcr_el1, xzr
    msr     mair_el1, xzr
    msr     amair_el1, xzr
    msr     vbar_el1, xzr
    msr     esr_el1, xzr
    msr     far_el1, xzr
    msr     afsr0_el1, xzr
    msr     afsr1_el1, xzr
    msr     par_el1, xzr
    msr     elr_el1, xzr
    msr     spsr_el1, xzr
    msr     sp_el0, xzr
    msr     sp_el1, xzr
    msr     tpidr_el0, xzr
    msr     tpidrro_el0, xzr
    msr     tpidr_el1, xzr
    msr     contextidr_el1, xzr
    msr     csselr_el1, xzr
    msr     cntkctl_el1, xzr
    msr     cntv_ctl_el0, xzr
    msr     cntv_cval_el0, xzr
    msr     cntp_ctl_el0, xzr
    msr     cntp_cval_el0, xzr
    msr     mdscr_el1, xzr
    msr     fpcr, xzr
    msr     fpsr, xzr
    // The only FP instructions of EL2: what the loader left in the registers is not the guest's to read.
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    movi    v\n\().2d, #0
    .endr
    tlbi    vmalls12e1
    ic      iallu
    dsb     nsh
    isb
    mov     x0, x1
    .irp    n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov     x\n, xzr
    .endr
    eret
    dsb     nsh
    isb

// clear_scalable(): the SVE state of a domain that has it; EL2's own access is open (CPTR_EL2.TZ = 0, ZCR_EL2).
    .arch_extension sve
    .global clear_scalable
clear_scalable:
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    dup     z\n\().b, #0
    .endr
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    pfalse  p\n\().b
    .endr
    wrffr   p0.b
    msr     S3_0_C1_C2_0, xzr                   // ZCR_EL1
    ret
    .arch_extension nosve

// clear_breakpoints(x0 count, 1 to 16); clear_watchpoints likewise
    .global clear_breakpoints
clear_breakpoints:
    adr     x9, 1f
    sub     x9, x9, x0, lsl #3
    br      x9
    .irp    n, 15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0
    msr     dbgbcr\n\()_el1, xzr
    msr     dbgbvr\n\()_el1, xzr
    .endr
1:  ret

    .global clear_watchpoints
clear_watchpoints:
    adr     x9, 1f
    sub     x9, x9, x0, lsl #3
    br      x9
    .irp    n, 15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0
    msr     dbgwcr\n\()_el1, xzr
    msr     dbgwvr\n\()_el1, xzr
    .endr
1:  ret

// read_id(x0 index): ID register op0 3, op1 0, CRn 0, CRm 1 + index / 8, op2 index % 8. Unallocated ones read as zero.
    .global read_id
read_id:
    adr     x9, 1f
    add     x9, x9, x0, lsl #3
    br      x9
1:  .irp    m, 1,2,3,4,5,6,7
    .irp    o, 0,1,2,3,4,5,6,7
    mrs     x0, S3_0_C0_C\m\()_\o
    ret
    .endr
    .endr

// probe_word(x0 address): the word there, or all ones (64 bits) where nothing answers. An abort is an exception, which takes the
// place of the guest's return state (DDI 0487, D1.3.5); that is kept in x2 and x3 and put back.
    .global probe_word, probe_store
probe_word:
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    ldr     w0, [x0]
    ret
// probe_store(x0 address, x1 word): is on its way when it returns; it has come when a read behind it is answered.
probe_store:
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    str     w1, [x0]
    dsb     sy
    ret
probe_end:
probe_failed:
    adr     x9, 1f
    msr     elr_el2, x9
    eret
1:  msr     elr_el2, x2
    msr     spsr_el2, x3
    mov     x0, #-1
    ret

// clear_list_registers(x0 count, 1 to 16)
    .global clear_list_registers
clear_list_registers:
    adr     x9, 1f
    sub     x9, x9, x0, lsl #2
    br      x9
    .irp    n, 15,14,13,12,11,10,9,8,7,6,5,4,3,2,1,0
    msr     ich_lr\n\()_el2, xzr
    .endr
1:  ret

// read_list_register(x0 index, below 16) and write_list_register(x0 index, x1 value)
    .global read_list_register
read_list_register:
    adr     x9, 1f
    add     x9, x9, x0, lsl #3
    br      x9
1:  .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    mrs     x0, ich_lr\n\()_el2
    ret
    .endr
    .global write_list_register
write_list_register:
    adr     x9, 1f
    add     x9, x9, x0, lsl #3
    br      x9
1:  .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    msr     ich_lr\n\()_el2, x1
    ret
    .endr

// clear_memory(x0 start, x1 bytes), both multiples of 64.
    .global clear_memory
clear_memory:
    stp     xzr, xzr, [x0]
    stp     xzr, xzr, [x0, #16]
    stp     xzr, xzr, [x0, #32]
    stp     xzr, xzr, [x0, #48]
    add     x0, x0, #64
    subs    x1, x1, #64
    b.hi    clear_memory
    ret

// memset(x0 to, w1 byte, x2 bytes) and memcpy(x0 to, x1 from, x2 bytes), as the compiler calls them; x0 stays. They stand in for the core
// library's, which are made for speed and six times as long. Any alignment: all of it is Normal memory, and SCTLR_EL2.A is 0.
    .global memset, memcpy
memset:
    mov     x3, x0
    and     x1, x1, #0xFF
    mov     x4, #0x0101010101010101
    mul     x1, x1, x4
    subs    x2, x2, #32
    b.lo    2f
1:  stp     x1, x1, [x3], #16
    stp     x1, x1, [x3], #16
    subs    x2, x2, #32
    b.hs    1b
2:  adds    x2, x2, #32
    b.eq    4f
3:  strb    w1, [x3], #1
    subs    x2, x2, #1
    b.ne    3b
4:  ret
memcpy:
    mov     x3, x0
    subs    x2, x2, #32
    b.lo    2f
1:  ldp     x4, x5, [x1], #16
    ldp     x6, x7, [x1], #16
    stp     x4, x5, [x3], #16
    stp     x6, x7, [x3], #16
    subs    x2, x2, #32
    b.hs    1b
2:  adds    x2, x2, #32
    b.eq    4f
3:  ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    subs    x2, x2, #1
    b.ne    3b
4:  ret

// call_scrub(x0 ranges, x1 their number, x2 physical address of scrub_off)
    .global call_scrub
call_scrub:
    stp     x29, x30, [sp, #-16]!
    blr     x2
    ldp     x29, x30, [sp], #16
    ret

// call_reload(x0 to, x1 from, x2 bytes copied, x3 bytes zeroed, x4 restart root, x5 physical address of reload)
    .global call_reload
call_reload:
    stp     x29, x30, [sp, #-16]!
    dsb     sy
    blr     x5
    ldp     x29, x30, [sp], #16
    ret
