/* SPDX-License-Identifier: GPL-2.0 */
	.text
	.globl startup
startup:
	b start_kernel
	.section .note.GNU-stack,"",@progbits
