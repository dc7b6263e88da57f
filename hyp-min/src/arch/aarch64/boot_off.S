// The boot stub's routines, behind boot.S in the same section: they run with the MMU off only, or never. Registers as there.

// Leaves EL2 in a known state with its own vectors; x19 and x20 set. Fails where this is not EL2.
enter_el2:
    msr     daifset, #15
    mov     x28, #0
    adr     x19, _head
    adrp    x20, _plan
    adr     x1, stub_vectors
    mrs     x0, CurrentEL
    cmp     x0, #8
    b.ne    1f
    msr     vbar_el2, x1
    mov     x0, #{HCR_BOOT}
    msr     hcr_el2, x0
    isb
    ldr     x0, ={SCTLR_OFF}
    msr     sctlr_el2, x0
    isb
    msr     spsel, #1
    mrs     x0, hcr_el2
    tbnz    x0, #34, 3f
    // Armv8.9 and 9.4 have registers, unknown after reset, that change what SCTLR, TCR and EL2's descriptors mean. Firmware
    // must have let them through to EL2 (Linux asks the same of it: Documentation/arch/arm64/booting.rst).
    mrs     x0, S3_0_C0_C7_3                    // ID_AA64MMFR3_EL1, zero where it is not there
    tst     x0, #0xF
    b.eq    4f
    msr     S3_4_C2_C0_3, xzr                   // TCR2_EL2
4:  tst     x0, #0xF0
    b.eq    5f
    msr     S3_4_C1_C0_3, xzr                   // SCTLR2_EL2
5:  mrs     x0, id_aa64pfr1_el1
    tst     x0, #0xF00000000000
    b.eq    6f
    msr     S3_4_C2_C5_0, xzr                   // GCSCR_EL2
6:  ret
1:  cmp     x0, #4
    b.ne    2f
    msr     vbar_el1, x1
    isb
    adr     x0, text_el1
    b       fail
2:  msr     vbar_el3, x1
    isb
    adr     x0, text_el3
    b       fail
3:  adr     x0, text_e2h
    b       fail

// CRC-32C of x1 bytes (a multiple of 16, may be 0) at x0, in w0. 208 instructions per KiB.
checksum:
    mov     w2, #-1
    subs    x1, x1, #128
    b.lo    2f
1:  .rept   8
    ldp     x3, x4, [x0], #16
    crc32cx w2, w2, x3
    crc32cx w2, w2, x4
    .endr
    subs    x1, x1, #128
    b.hs    1b
2:  adds    x1, x1, #128
    b.eq    4f
3:  ldp     x3, x4, [x0], #16
    crc32cx w2, w2, x3
    crc32cx w2, w2, x4
    subs    x1, x1, #16
    b.ne    3b
4:  mvn     w0, w2
    ret

// Throws out of the caches what they hold of [x0, x0 + x2 + x3), so that no dirty line lands on top of what is stored
// with the MMU off; then copies x2 bytes from x1 to x0 and zeroes x3 bytes behind them. All multiples of 16.
copy:
    mrs     x8, ctr_el0
    ubfx    x8, x8, #16, #4
    mov     x7, #4
    lsl     x7, x7, x8
    add     x6, x0, x2
    add     x6, x6, x3
    sub     x5, x7, #1
    bic     x5, x0, x5
1:  cmp     x5, x6
    b.hs    2f
    dc      civac, x5
    add     x5, x5, x7
    b       1b
2:  dsb     sy
    subs    x2, x2, #64
    b.lo    4f
3:  ldp     x9, x10, [x1]
    ldp     x11, x12, [x1, #16]
    ldp     x13, x14, [x1, #32]
    ldp     x15, x16, [x1, #48]
    stp     x9, x10, [x0]
    stp     x11, x12, [x0, #16]
    stp     x13, x14, [x0, #32]
    stp     x15, x16, [x0, #48]
    add     x1, x1, #64
    add     x0, x0, #64
    subs    x2, x2, #64
    b.hs    3b
4:  adds    x2, x2, #64
    b.eq    6f
5:  ldp     x9, x10, [x1], #16
    stp     x9, x10, [x0], #16
    subs    x2, x2, #16
    b.ne    5b
6:  cbz     x3, 8f
7:  stp     xzr, xzr, [x0], #16
    subs    x3, x3, #16
    b.ne    7b
8:  ret

// The mover must not lie in what it overwrites: it goes behind both places, into RAM that image_size keeps free.
relocate:
    ldr     x22, [x20, #40]
    cmp     x19, x21
    csel    x23, x19, x21, hi
    add     x23, x23, x22
    mov     x0, x23
    adr     x1, mover
    mov     x2, #mover_end - mover
    mov     x3, #0
    bl      copy
    dsb     sy
    ic      iallu
    dsb     sy
    isb
    br      x23

    .balign 16
// Moves x22 bytes from x19 to x21, overlap allowed, and starts the image there.
mover:
    mrs     x8, ctr_el0
    ubfx    x8, x8, #16, #4
    mov     x7, #4
    lsl     x7, x7, x8
    add     x6, x21, x22
    mov     x5, x21
1:  dc      civac, x5
    add     x5, x5, x7
    cmp     x5, x6
    b.lo    1b
    dsb     sy
    mov     x4, x21
    cmp     x21, x19
    b.hi    3f
2:  ldp     x9, x10, [x19], #16
    stp     x9, x10, [x4], #16
    subs    x22, x22, #16
    b.ne    2b
    b       5f
3:  add     x19, x19, x22
    add     x4, x4, x22
4:  ldp     x9, x10, [x19, #-16]!
    stp     x9, x10, [x4, #-16]!
    subs    x22, x22, #16
    b.ne    4b
5:  dsb     sy
    ic      iallu
    dsb     sy
    isb
    br      x21
    .balign 16
mover_end:

// Says the text at x0 on the console, if two copies of its address agree, and powers off. Ends in any case.
fail:
    mov     x28, #1
    ldp     x2, x3, [x20, #64]
    cmp     x2, x3
    b.ne    3f
    cbz     x2, 3f
    mov     w4, #0x301                          // UARTEN, TXE, RXE (DDI 0183, 3.3.8)
    str     w4, [x2, #0x30]
1:  ldrb    w1, [x0], #1
    cbz     w1, 3f
    mov     w5, #0x10000
2:  subs    w5, w5, #1
    b.eq    3f
    ldr     w4, [x2, #0x18]
    tbnz    w4, #5, 2b
    strb    w1, [x2]
    b       1b
3:  ldr     w0, =0x84000008                     // PSCI SYSTEM_OFF (DEN 0022, 5.9)
    smc     #0
hang:
    wfi
    b       hang

stub_sync:
    cmp     x28, #1
    b.eq    2f
    b.hi    hang
    mrs     x11, CurrentEL
    cmp     x11, #8
    b.ne    1f
    mrs     x11, elr_el2
    adr     x12, probe_load
    cmp     x11, x12
    b.ne    1f
    mov     x26, x9
    add     x11, x11, #4
    msr     elr_el2, x11
    eret
1:  adr     x0, text_exception
    b       fail
2:  mov     x28, #2                             // no SMC here: EL1 under a hypervisor takes HVC
    ldr     w0, =0x84000008
    hvc     #0
    b       hang

    .ltorg

// One entry of the table: 4 of its 128 bytes are code, the rest holds a text of `fail`.
    .macro stub_vector name, text
    .balign 128
    b       stub_sync
\name:  .asciz  "\text"
    .endm

    .balign 2048
stub_vectors:
    stub_vector text_magic,     "[hyp] refused: no plan behind the image\r\n"
    stub_vector text_version,   "[hyp] refused: the plan has another version\r\n"
    stub_vector text_length,    "[hyp] refused: the plan's length cannot be\r\n"
    stub_vector text_crc,       "[hyp] refused: this CPU has no CRC32 instructions\r\n"
    stub_vector text_records,   "[hyp] refused: the plan's records are damaged\r\n"
    stub_vector text_tables,    "[hyp] refused: the plan's tables are damaged\r\n"
    stub_vector text_spare,     "[hyp] refused: the plan does not know the boot CPU\r\n"
    stub_vector text_el1,       "[hyp] refused: started at EL1, EL2 is needed\r\n"
    stub_vector text_el3,       "[hyp] refused: started at EL3, EL2 is needed\r\n"
    stub_vector text_e2h,       "[hyp] refused: HCR_EL2.E2H cannot be cleared\r\n"
    stub_vector text_exception, "[hyp] refused: exception in the boot stub\r\n"
    .rept   5
    .balign 128
    b       stub_sync
    .endr
    .balign 128
