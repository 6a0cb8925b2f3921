#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Makes .config out of Kconfig and, for olddefconfig, an earlier .config. Knows config, bool, def_bool, tristate, string, int,
# default VALUE and `depends on [!]A && B`; a symbol must stand below those it depends on.
set -e
mode=$1
old=/dev/null
if [ "$mode" = olddefconfig ] && [ -e .config ]; then old=.config; fi
awk -v mode="$mode" -v version="$KERNELVERSION" '
function met(    i, n, terms, name) {
    limit = "y"
    n = split(depends, terms, /[ \t]*&&[ \t]*/)
    for (i = 1; i <= n; i++) {
        name = terms[i]
        if (sub(/^!/, "", name)) { if (value[name] == "y" || value[name] == "m") return 0 }
        else if (value[name] == "m") limit = "m"
        else if (value[name] != "y") return 0
    }
    return 1
}
function finish(    v) {
    if (symbol == "" || !met()) { symbol = ""; return }
    v = (fallback == "") ? (type == "string" ? "\"\"" : type == "int" ? "0" : "n") : fallback
    if (type ~ /bool|tristate/ && prompt && mode ~ /^(tiny|allno)config$/) v = "n"
    if (prompt && (symbol in given)) v = given[symbol]
    if (type == "bool" && v == "m") v = "y"
    if (type == "tristate" && v == "y" && limit == "m") v = "m"
    value[symbol] = v
    print (v == "n") ? "# CONFIG_" symbol " is not set" : "CONFIG_" symbol "=" v
    symbol = ""
}
BEGIN { print "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 " version " Kernel Configuration\n#" }
{ old = FILENAME == "/dev/stdin" }
old && /^CONFIG_[A-Za-z0-9_]+=/ { name = $0; sub(/^CONFIG_/, "", name); sub(/=.*/, "", name); v = $0; sub(/^[^=]*=/, "", v); given[name] = v; next }
old && /^# CONFIG_[A-Za-z0-9_]+ is not set$/ { name = $2; sub(/^CONFIG_/, "", name); given[name] = "n"; next }
old { next }
/^config / { finish(); symbol = $2; type = ""; fallback = ""; depends = ""; prompt = 0; next }
/^[ \t]+(bool|tristate|string|int)/ { type = $1; prompt = NF > 1; next }
/^[ \t]+def_bool/ { type = "bool"; fallback = $2; next }
/^[ \t]+default/ { sub(/^[ \t]+default[ \t]+/, ""); fallback = $0; next }
/^[ \t]+depends on/ { sub(/^[ \t]+depends on[ \t]+/, ""); depends = depends (depends == "" ? "" : " && ") $0; next }
END { finish() }
' /dev/stdin "$srctree/Kconfig" < "$old" > .config.tmp
if cmp -s .config.tmp .config; then rm .config.tmp; else mv .config.tmp .config; fi
