/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_KERNEL_H
#define _LINUX_KERNEL_H
extern const char linux_banner[];
int checksum(const char *text, int start);
int core_lookup(unsigned int index);
void sched_init(void);
#if defined(CONFIG_PRINTK)
int printk(const char *format, ...);
#else
static inline int printk(const char *format, ...) { return 0; }
#endif
#endif
