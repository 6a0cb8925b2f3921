/* SPDX-License-Identifier: GPL-2.0 */
	.text
	.globl copy_bytes
copy_bytes:
#ifdef __aarch64__
	ldrb	w3, [x1], #1
	strb	w3, [x0], #1
	subs	x2, x2, #1
	b.ne	copy_bytes
#else
	rep movsb
#endif
	ret
	.section .note.GNU-stack,"",@progbits
