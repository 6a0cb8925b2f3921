// SPDX-License-Identifier: GPL-2.0
int main(void)
{
	asm volatile("\n.ascii \"->MAX_TABLE %0\"" : : "i"(CONFIG_FAKE_CORE_SIZE * 2));
	return 0;
}
