/* SPDX-License-Identifier: GPL-2.0 */
	.text
	.globl copy_bytes
copy_bytes:
	rep movsb
	ret
	.section .note.GNU-stack,"",@progbits
