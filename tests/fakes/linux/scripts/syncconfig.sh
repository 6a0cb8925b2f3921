#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# auto.conf for makefiles, autoconf.h for C, and a stamp for each symbol, touched when its value changes.
set -e
mkdir -p include/config include/generated
grep '^CONFIG_' .config | sort > include/config/auto.conf.tmp || true
touch include/config/auto.conf
LC_ALL=C diff include/config/auto.conf include/config/auto.conf.tmp | sed -n 's/^[<>] CONFIG_\([A-Za-z0-9_]*\)=.*/\1/p' | sort -u |
while read -r symbol; do
    : > "include/config/$symbol"
done
sed -e 's/^\(CONFIG_[A-Za-z0-9_]*\)=y$/#define \1 1/' -e 's/^\(CONFIG_[A-Za-z0-9_]*\)=m$/#define \1_MODULE 1/' \
    -e 's/^\(CONFIG_[A-Za-z0-9_]*\)=\(.*\)$/#define \1 \2/' include/config/auto.conf.tmp > include/generated/autoconf.h.tmp
if cmp -s include/generated/autoconf.h.tmp include/generated/autoconf.h; then
    rm include/generated/autoconf.h.tmp
else
    mv include/generated/autoconf.h.tmp include/generated/autoconf.h
fi
mv include/config/auto.conf.tmp include/config/auto.conf
