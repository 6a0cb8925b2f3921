#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Checks that somebody defines what modules use, and writes Module.symvers and each module's .mod.c.
set -e
modules=$(cat modules.order)
: > Module.symvers.tmp
status=0
for object in vmlinux $(echo "$modules" | sed 's/\.ko$/.o/'); do
    $NM "$object" | sed -n 's/.* [A-Z] __ksymtab_//p;s/.* r __ksymtab_//p' |
        sed "s|.*|0x00000000\t&\t${object%.o}\tEXPORT_SYMBOL\t|" >> Module.symvers.tmp
done
for module in $modules; do
    for symbol in $($NM -u "${module%.ko}.o" | awk '{ print $2 }'); do
        if ! cut -f 2 Module.symvers.tmp | grep -qx "$symbol"; then
            echo "ERROR: modpost: \"$symbol\" [$module] undefined!" >&2
            status=1
        fi
    done
    source=${module%.ko}.mod.c
    printf '#include <linux/module.h>\nMODULE_INFO(vermagic, UTS_RELEASE " SMP mod_unload ");\nMODULE_INFO(name, KBUILD_MODNAME);\n' > "$source.tmp"
    if cmp -s "$source.tmp" "$source"; then rm "$source.tmp"; else mv "$source.tmp" "$source"; fi
done
mv Module.symvers.tmp Module.symvers
exit $status
