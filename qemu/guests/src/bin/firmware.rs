//! No guest: a firmware at EL3 that keeps a record of every call that reaches it (I59, I62). It gives both interrupt groups away
//! and enters the image at EL2.
//!
//! It knows SMCCC 1.2: ARCH_WORKAROUND_1 and _2 have to be called, _3 is not needed. It answers from Secure RAM. The record lies at
//! 0x60C0_0000, where a domain with RAM at 0x6000_0000 can read it: all calls, SMCCC_ARCH_FEATURES, ARCH_WORKAROUND_1, the
//! arguments of those or-ed, the last function it does not know. One CPU only; it has nothing of the unikernel but the linker
//! script and the panic handler.
#![no_std]
#![no_main]
#![allow(unsafe_code)] // assembly

use core::arch::global_asm;

// Never called: the crate asks for a main.
unikernel::entry!(main);

fn main() {}

global_asm!(
    ".section .text.firmware, \"ax\"",
    ".global firmware_start",
    "firmware_start:",
    "msr daifset, #15",
    // The vectors go to Secure RAM, which nobody below reaches.
    "adr x0, firmware_vectors",
    "adr x2, firmware_end",
    "ldr x1, =0x0E000000",
    "msr vbar_el3, x1",
    "1: ldr x3, [x0], #8",
    "str x3, [x1], #8",
    "cmp x0, x2",
    "b.lo 1b",
    "dsb sy",
    "ic iallu",
    "isb",
    // GICD_CTLR.DS, ICC_SRE_EL3: one security state for interrupts.
    "mov x4, #0x08000000",
    "mov w5, #0x40",
    "str w5, [x4]",
    "mov x5, #0xF",
    "msr S3_6_C12_C12_5, x5",
    "isb",
    "msr cptr_el3, xzr",
    "msr mdcr_el3, xzr",
    // EL2: Non-secure, 64 bits, HVC; its MMU off.
    "mov x5, #0x531",
    "msr scr_el3, x5",
    "ldr x5, =0x30C50830",
    "msr sctlr_el2, x5",
    "mov x5, #0x80000000",
    "msr hcr_el2, x5",
    "mov x5, #0x3C9",
    "msr spsr_el3, x5",
    "ldr x5, =0x40200000",
    "msr elr_el3, x5",
    "mov x0, xzr",
    "eret",
    ".ltorg",
    ".balign 2048",
    "firmware_vectors:",
    ".space 0x400",
    // A synchronous exception from below: an SMC. x4 to x17 are the firmware's.
    "ldr x16, =0x60C00000",
    "ldr x17, [x16]",
    "add x17, x17, #1",
    "str x17, [x16]",
    "ldr w17, =0x8400000A",
    "cmp w0, w17",
    "b.eq 2f",
    "ldr w17, =0x80000000",
    "cmp w0, w17",
    "b.eq 3f",
    "ldr w17, =0x80000001",
    "cmp w0, w17",
    "b.eq 4f",
    "ldr w17, =0x80008000",
    "cmp w0, w17",
    "b.eq 5f",
    "ldr w17, =0x84000008",
    "cmp w0, w17",
    "b.eq 6f",
    "str x0, [x16, #32]",
    "7: mov x0, #-1",
    "eret",
    // PSCI_FEATURES: of SMCCC_VERSION.
    "2: ldr w17, =0x80000000",
    "cmp w1, w17",
    "b.ne 7b",
    "mov x0, xzr",
    "eret",
    // SMCCC_VERSION: 1.2.
    "3: ldr x0, =0x10002",
    "eret",
    // SMCCC_ARCH_FEATURES.
    "4: ldr x17, [x16, #8]",
    "add x17, x17, #1",
    "str x17, [x16, #8]",
    "mov x0, #1",
    "ldr w17, =0x80003FFF",
    "cmp w1, w17",
    "b.eq 8f",
    "mov x0, xzr",
    "ldr w17, =0x80008000",
    "cmp w1, w17",
    "b.eq 8f",
    "ldr w17, =0x80007FFF",
    "cmp w1, w17",
    "b.ne 7b",
    "8: eret",
    // ARCH_WORKAROUND_1.
    "5: ldr x17, [x16, #16]",
    "add x17, x17, #1",
    "str x17, [x16, #16]",
    "ldr x17, [x16, #24]",
    "orr x17, x17, x1",
    "orr x17, x17, x2",
    "orr x17, x17, x3",
    "str x17, [x16, #24]",
    "eret",
    // SYSTEM_OFF: line 0 of the Secure PL061.
    "6: ldr x16, =0x090B0000",
    "mov w17, #1",
    "str w17, [x16, #0x400]",
    "str w17, [x16, #4]",
    "9: wfi",
    "b 9b",
    ".ltorg",
    ".balign 8",
    "firmware_end:",
);
