// SPDX-License-Identifier: GPL-2.0
#include <linux/export.h>
#include <linux/kernel.h>
#include "../lib/table.h"

int checksum(const char *text, int start)
{
	while (*text)
		start += weights[*text++ & 15];
	return start;
}
EXPORT_SYMBOL(checksum);
