/* SPDX-License-Identifier: GPL-2.0 */
int bundle_reset(int port);
