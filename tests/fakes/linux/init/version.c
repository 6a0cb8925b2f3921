// SPDX-License-Identifier: GPL-2.0
#include <compile.h>
#include <linux/kernel.h>
#include <utsrelease.h>

#ifdef RANDSTRUCT_HASHED_SEED
const char randstruct_seed[] = RANDSTRUCT_HASHED_SEED;
#endif

const char linux_banner[] = "Linux version " UTS_RELEASE " (" LINUX_COMPILE_BY "@" LINUX_COMPILE_HOST ") (" LINUX_COMPILER ") " UTS_VERSION "\n";
