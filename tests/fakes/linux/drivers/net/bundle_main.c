// SPDX-License-Identifier: GPL-2.0
#include <linux/kernel.h>
#include <linux/module.h>
#include "bundle.h"

int init_module(void)
{
	return bundle_reset(core_lookup(2));
}
MODULE_INFO(license, "GPL");
