/* SPDX-License-Identifier: GPL-2.0 */
/* The parts of the setup header by which programs know an image (Documentation/x86/boot.rst). It does not boot. */
	.text
	.org 0x1f1
	.byte 1
	.org 0x1fe
	.word 0xaa55
	.byte 0xeb, 0x66
	.ascii "HdrS"
	.word 0x020f
	.org 0x400
	.section .note.GNU-stack,"",@progbits
