#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Writes .NAME.cmd from the compiler's .NAME.d: autoconf.h makes way for the stamps of those symbols that the files really name.
set -e
target=$1
folder=${target%/*}
name=${target##*/}
files=$(sed -e 's/^[^ :]*://' -e 's/\\$//' "$folder/.$name.d" | tr -s ' \n' '\n\n' | grep -v -e '^$' -e 'autoconf\.h$')
{
    printf 'cmd_%s := %s\n' "$target" "$2"
    printf 'source_%s := %s\n' "$target" "$(echo "$files" | head -n 1)"
    echo "deps_$target := \\"
    echo "$files" | tail -n +2 | sed -e 's/.*/  & \\/'
    # shellcheck disable=SC2086
    grep -ohE 'CONFIG_[A-Z0-9_]+' $files | sed -e 's/_MODULE$//' -e 's/CONFIG_\(.*\)/  $(wildcard include\/config\/\1) \\/' | sort -u || true
    echo
    echo "$target: \$(deps_$target)"
    echo "\$(deps_$target):"
} > "$folder/.$name.cmd"
rm "$folder/.$name.d"
