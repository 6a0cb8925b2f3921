// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>

int boot_main(void)
{
	return 0;
}
