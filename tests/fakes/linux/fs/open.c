// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>

int do_open(const char *name)
{
	return checksum(name, 3);
}
