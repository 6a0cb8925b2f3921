// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>
#include <linux/module.h>

int init_module(void)
{
#ifdef CONFIG_FAKE_FAIL_MODPOST
	extern int nobody_exports_this(void);
	return nobody_exports_this();
#else
	return printk("dummy\n");
#endif
}
MODULE_INFO(license, "GPL");
