// SPDX-License-Identifier: GPL-2.0
#include <linux/export.h>
#include <linux/kernel.h>

static const char *last;

int printk(const char *format, ...)
{
	last = format;
	return last != 0;
}
EXPORT_SYMBOL(printk);
