// SPDX-License-Identifier: GPL-2.0
#include <compile.h>
#include <linux/kernel.h>
#include <utsrelease.h>

const char linux_banner[] = "Linux version " UTS_RELEASE " (" LINUX_COMPILE_BY "@" LINUX_COMPILE_HOST ") (" LINUX_COMPILER ") " UTS_VERSION "\n";
