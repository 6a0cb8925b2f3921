/* SPDX-License-Identifier: GPL-2.0 */
#include <utsrelease.h>
#define __MODINFO_NAME(tag, line) __modinfo_##tag##line
#define _MODINFO_NAME(tag, line) __MODINFO_NAME(tag, line)
#define MODULE_INFO(tag, text) \
	static const char _MODINFO_NAME(tag, __LINE__)[] __attribute__((section(".modinfo"), used, aligned(1))) = #tag "=" text
#ifdef MODULE
int init_module(void);
#else
#define init_module _MODINFO_NAME(builtin_init, __LINE__)
#endif
