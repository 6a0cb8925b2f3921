// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>
#include <linux/module.h>

int init_module(void)
{
	return printk(KBUILD_MODNAME) + checksum("fakefs", 0);
}
MODULE_INFO(license, "GPL");
MODULE_INFO(description, "A module or a part of the kernel");
