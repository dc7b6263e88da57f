// Entry of vCPU 0 and of the others, up to the first Rust function.
//
// In: EL1, MMU and caches off, x0 = device tree (vCPU 0; 0 under QEMU's ELF loader) or vCPU number (the others).
// The translation tables are constants in .data, so nothing is written before the caches are on.

.macro address reg, symbol
	adrp	\reg, \symbol
	add	\reg, \reg, :lo12:\symbol
.endm

.section .text.boot, "ax"
.global _start
_start:
	mrs	x1, CurrentEL
	cmp	x1, #(1 << 2)
	b.ne	stop			// this runtime is for EL1 only
	msr	daifset, #15
	cbnz	x0, 1f
	mov	x0, #0x40000000		// no device tree given: QEMU leaves it at the start of RAM
1:	bl	mmu_on
	address	x1, __bss_start
	address	x2, __bss_end
2:	cmp	x1, x2
	b.hs	3f
	stp	xzr, xzr, [x1], #16
	b	2b
3:	mov	x1, xzr
	bl	stack_of
	bl	unikernel_boot
	b	stop

.global unikernel_secondary_entry
unikernel_secondary_entry:
	msr	daifset, #15
	bl	mmu_on
	mov	x1, x0
	bl	stack_of
	bl	unikernel_secondary
stop:	wfi
	b	stop

// Stack, vectors and number of vCPU x1. Leaves x0 alone.
stack_of:
	address	x2, __stacks
	add	x3, x1, #1
	add	x2, x2, x3, lsl #14	// STACK_SIZE
	mov	sp, x2
	msr	tpidr_el1, x1
	address	x2, unikernel_vectors
	msr	vbar_el1, x2
	isb
	ret

// Turns on the tables: 40-bit addresses, 4 KiB granule, Inner Shareable Write-Back walks, TTBR0 only.
mmu_on:
	address	x1, unikernel_root
	msr	ttbr0_el1, x1
	mov	x1, #0xff04		// attribute 0 Device-nGnRE, 1 Normal Write-Back
	msr	mair_el1, x1
	ldr	x1, =0x200803518	// T0SZ 24, IRGN0 = ORGN0 = WB, SH0 inner, EPD1, IPS 40 bits
	msr	tcr_el1, x1
	tlbi	vmalle1
	ic	iallu
	dsb	nsh
	isb
	ldr	x1, =0x30d0180d		// RES1 of Armv8.0, M, C, I, SA
	msr	sctlr_el1, x1
	isb
	ret
.ltorg

// Level 0: a table descriptor for each half TiB.
.section .data.unikernel_root, "aw"
.balign 64
unikernel_root:
	.quad	unikernel_tables + 3
	.quad	unikernel_tables + 4096 + 3
