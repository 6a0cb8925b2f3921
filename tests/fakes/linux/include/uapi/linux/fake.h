/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_LINUX_FAKE_H
#define _UAPI_LINUX_FAKE_H
#define FAKE_IOCTL 42
#endif
