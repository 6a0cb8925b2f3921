#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Links vmlinux with a version that counts the links, and lists its symbols.
set -e
version=${KBUILD_BUILD_VERSION:-}
if [ -z "$version" ]; then version=$(($(cat .version 2>/dev/null || echo 0) + 1)); fi
echo "$version" > .version
cat > include/generated/compile.h <<EOF
#define UTS_VERSION "#$version ${KBUILD_BUILD_TIMESTAMP:-$(date)}"
#define LINUX_COMPILE_BY "${KBUILD_BUILD_USER:-$(id -un)}"
#define LINUX_COMPILE_HOST "${KBUILD_BUILD_HOST:-$(uname -n)}"
#define LINUX_COMPILER "$($CC --version | head -n 1)"
EOF
if [ -e include/generated/randstruct_hash.h ]; then cat include/generated/randstruct_hash.h >> include/generated/compile.h; fi
[ -n "$SILENT" ] || echo '  CC      init/version.o'
# shellcheck disable=SC2086
$CC $FLAGS -c -o init/version.o "$srctree/init/version.c"
$LD -nostdlib -static --build-id=sha1 -z noexecstack -e startup -Ttext=0x1000000 -o vmlinux \
    init/version.o --whole-archive "$@" --no-whole-archive
$NM -n vmlinux | grep -v ' [aNUw] ' > System.map
