// The boot stub: from the first instruction, MMU off, at any 4 KiB aligned address, to Rust in the hypervisor's own
// address space. It reads the plan at fixed offsets that mod.rs takes from the plan crate.
//
// x19 where the image lies   x20 the plan   x21 planned base   x26 address of a failed probe, or -1   x27 CPU index, or -1
// x28 1 while a failure is being reported, 2 once the first way to power off has failed

    .section .head, "ax"
    .arch_extension crc
    .global _head, _secondary_entry, _identity_end

// Header of an arm64 Image (Linux Documentation/arch/arm64/booting.rst).
_head:
    b       primary
    nop
    .quad   0                           // text_offset
    .quad   0                           // image_size: written by xtask
    .quad   0xA                         // little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .word   0

// PSCI CPU_ON of a planned CPU lands here; x0 is its index in the plan.
_secondary_entry:
    mov     x27, x0
    mov     x26, #-1
    bl      enter_el2
    ldr     w0, [x20, #{H_CPUS} + 4]
    cmp     x27, x0
    b.hs    hang
    ldr     x4, =secondary_main
    b       own_stack

primary:
    bl      enter_el2

// ---- The plan: magic, version, length, checksum.
    ldr     x0, [x20]
    ldr     x1, ={MAGIC}
    cmp     x0, x1
    adr     x0, text_magic
    b.ne    fail
    ldr     w0, [x20, #12]
    cmp     w0, #{VERSION}
    adr     x0, text_version
    b.ne    fail
    ldr     w22, [x20, #16]
    mov     w1, #{MAX_RECORDS}
    adr     x0, text_length
    cmp     w22, w1
    b.hi    fail
    cmp     w22, #{HEADER_SIZE}
    b.lo    fail
    tst     w22, #15
    b.ne    fail
    mrs     x1, id_aa64isar0_el1
    ubfx    x1, x1, #16, #4
    adr     x0, text_crc
    cbz     x1, fail
    add     x0, x20, #16
    sub     x1, x22, #16
    bl      checksum
    ldr     w1, [x20, #8]
    cmp     w0, w1
    adr     x0, text_records
    b.ne    fail
    ldr     w0, [x20, #28]
    tbz     w0, #0, 1f
    ldr     w1, [x20, #20]
    add     x0, x20, x22
    sub     x1, x1, x22
    bl      checksum
    ldr     w1, [x20, #24]
    cmp     w0, w1
    adr     x0, text_tables
    b.ne    fail

// ---- Found elsewhere: the whole image moves to its place and starts again there.
1:  ldr     x21, [x20, #32]
    cmp     x19, x21
    b.ne    relocate

// ---- The last word of each RAM range must answer. A load that aborts continues behind itself, see stub_sync.
    mov     x26, #-1
    ldp     w24, w25, [x20, #{H_PROBES}]
    add     x24, x20, x24
    cbz     w25, 2f
1:  ldr     x9, [x24], #8
probe_load:
    ldr     x10, [x9]
    cmn     x26, #1
    b.ne    2f
    sub     w25, w25, #1
    cbnz    w25, 1b

// ---- Copies.
2:  cmn     x26, #1                             // RAM is missing: nothing to copy to, Rust names it
    b.ne    5f
    ldp     w24, w25, [x20, #{H_MOVES}]
    add     x24, x20, x24
    cbz     w25, 4f
3:  ldp     x1, x0, [x24], #16                  // offset in the image, destination
    ldp     x2, x3, [x24], #16                  // bytes copied, bytes zeroed
    add     x1, x1, x21
    bl      copy
    sub     w25, w25, #1
    cbnz    w25, 3b
4:  dsb     sy

// ---- Which CPU this is; -1 where the plan does not name it.
5:  mrs     x0, mpidr_el1
    and     x0, x0, #0xFFFFFFFFFF
    and     x0, x0, #~0xFF000000
    ldp     w24, w25, [x20, #{H_CPUS}]
    add     x24, x20, x24
    mov     x27, #0
    ldr     x4, =primary_main
6:  cmp     x27, x25
    b.eq    7f
    ldr     x1, [x24]
    cmp     x0, x1
    b.eq    own_stack
    add     x24, x24, #{CPU_SIZE}
    add     x27, x27, #1
    b       6b
7:  mov     x27, #-1
    ldr     x5, [x20, #{H_SPARE}]
    adr     x0, text_spare
    cbz     x5, fail
    sub     x5, x5, #{PER_CPU}
    b       tables_on

// Where VBAR_EL2 + 0x200 is while `reload` runs: its synchronous exceptions (others are masked), which EL2's own vectors take.
    .org    0x200
reload_failed:
    mov     x4, x11
    bl      under_root
    msr     vbar_el2, x16
    isb
    add     x16, x16, #0x200
    br      x16

// x27 a valid index, x4 where to go on.
own_stack:
    ldr     w24, [x20, #{H_CPUS}]
    add     x24, x20, x24
    mov     x0, #{CPU_SIZE}
    madd    x24, x27, x0, x24
    ldr     x5, [x24, #{CPU_AREA_AT}]
    mov     x0, #{AREA} - {PER_CPU}
    add     x5, x5, x0

// x4 where to go on, x5 stack top. This page is mapped at its physical address too.
tables_on:
    ldr     x0, [x20, #48]
    ldr     x1, [x20, #56]
    mov     x2, #{MAIR}
    ldr     x3, ={SCTLR_ON}
    msr     ttbr0_el2, x0
    msr     tcr_el2, x1
    msr     mair_el2, x2
    dsb     sy
    isb
    tlbi    alle2
    tlbi    alle1
    ic      iallu
    dsb     sy
    isb
    msr     sctlr_el2, x3
    isb
    ldr     x6, =vectors
    msr     vbar_el2, x6
    msr     tpidr_el2, xzr
    isb
    mov     sp, x5
    mov     x0, x27
    mov     x1, x26
    br      x4

// Scrubs x1 ranges recorded at physical address x0, with the MMU off, and returns to x30 in the hypervisor's own space.
// Reached at its physical address.
    .global scrub_off
scrub_off:
    mrs     x9, sctlr_el2
    bic     x10, x9, #1
    bic     x10, x10, #4
    mrs     x8, ctr_el0
    ubfx    x8, x8, #16, #4
    mov     x7, #4
    lsl     x7, x7, x8
    msr     sctlr_el2, x10
    isb
1:  cbz     x1, 4f
    ldp     x2, x3, [x0], #16
    sub     x1, x1, #1
    add     x3, x2, x3
    mov     x4, x2
2:  cmp     x4, x3
    b.hs    3f
    dc      civac, x4
    add     x4, x4, x7
    b       2b
3:  dsb     sy
5:  cmp     x2, x3
    b.hs    1b
    stp     xzr, xzr, [x2]
    stp     xzr, xzr, [x2, #16]
    stp     xzr, xzr, [x2, #32]
    stp     xzr, xzr, [x2, #48]
    add     x2, x2, #64
    b       5b
4:  dsb     sy
    msr     sctlr_el2, x9
    isb
    ret

// Copies x2 bytes from x1 to x0 and zeroes x3 bytes behind them, all multiples of 16, under the EL2 root x4, which maps them
// and this page at their physical addresses; cleans them to the point of coherency and comes back under EL2's own root.
// Reached at its physical address. No stack: it is not mapped meanwhile, and neither are EL2's vectors.
    .global reload
reload:
    mov     x13, x30
    mrs     x9, sctlr_el2
    mrs     x11, ttbr0_el2
    mrs     x16, vbar_el2
    adr     x17, _head
    msr     vbar_el2, x17
    bl      under_root
    mov     x7, x0
    add     x5, x0, x2
    add     x6, x5, x3
1:  cmp     x0, x5
    b.hs    2f
    ldp     x14, x15, [x1], #16
    stp     x14, x15, [x0], #16
    b       1b
2:  sub     x14, x6, x0
    cmp     x14, #64
    b.lo    3f
    stp     xzr, xzr, [x0]
    stp     xzr, xzr, [x0, #16]
    stp     xzr, xzr, [x0, #32]
    stp     xzr, xzr, [x0, #48]
    add     x0, x0, #64
    b       2b
3:  cmp     x0, x6
    b.hs    4f
    stp     xzr, xzr, [x0], #16
    b       3b
4:  mrs     x8, ctr_el0
    ubfx    x8, x8, #16, #4
    mov     x10, #4
    lsl     x10, x10, x8
    sub     x8, x10, #1
    bic     x7, x7, x8
5:  dc      civac, x7
    add     x7, x7, x10
    cmp     x7, x6
    b.lo    5b
    dsb     sy
    mov     x4, x11
    bl      under_root
    msr     vbar_el2, x16
    isb
    ret     x13

// The MMU is off in between, so that no address ever has two translations (DDI 0487, D8.17).
under_root:
    bic     x12, x9, #1
    msr     sctlr_el2, x12
    isb
    msr     ttbr0_el2, x4
    isb
    tlbi    alle2
    dsb     nsh
    isb
    msr     sctlr_el2, x9
    isb
    ret
_identity_end:
