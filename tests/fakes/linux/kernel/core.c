// SPDX-License-Identifier: GPL-2.0
#include <bounds.h>
#include <linux/export.h>
#include <linux/kernel.h>

static int table[MAX_TABLE];

int core_lookup(unsigned int index)
{
	return index < MAX_TABLE ? table[index] : -1;
}
EXPORT_SYMBOL(core_lookup);

#ifdef CONFIG_FAKE_FAIL_COMPILE
int core_broken(void)
{
	return this_is_not_declared;
}
#endif
