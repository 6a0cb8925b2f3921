// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>

void start_kernel(void)
{
	sched_init();
	printk(linux_banner);
#ifdef CONFIG_FAKE_FAIL_LINK
	extern void nobody_defines_this(void);
	nobody_defines_this();
#endif
	for (;;)
		;
}
