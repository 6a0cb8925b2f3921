// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>

int loopback_xmit(void)
{
	return checksum("lo", 1);
}
