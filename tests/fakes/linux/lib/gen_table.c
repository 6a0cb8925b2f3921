// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>
int main(void)
{
	printf("static const unsigned char weights[] = {");
	for (int i = 0; i < 16; i++)
		printf(" %d,", i * 7 % 16);
	printf(" };\n");
	return 0;
}
