/* SPDX-License-Identifier: GPL-2.0 */
#define EXPORT_SYMBOL(name) \
	const void *const __ksymtab_##name __attribute__((section("___ksymtab"), used)) = (const void *)&name
