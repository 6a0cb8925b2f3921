"""The seed of CONFIG_RANDSTRUCT. A kernel tree takes a random one for each build; ours follows from tree and configuration.

It is no secret in any case: kernel-dev.tar has to carry it, or modules built against the kernel would not fit
(Documentation/kbuild/reproducible-builds.rst, scripts/gen-randstruct-seed.sh).
"""

from __future__ import annotations

import hashlib

from kernel.steps import Tree

SEED = "scripts/basic/randstruct.seed"
HASH = "include/generated/randstruct_hash.h"


def seed(tree: Tree, config: str) -> str:
    """64 hex digits. `config` is the digest of the final .config."""
    return hashlib.sha256("\0".join((tree.tarball, tree.upper, config)).encode()).hexdigest()


def files(seed: str) -> dict[str, str]:
    """Contents by path in the output tree, as `make scripts_basic` leaves them there with another seed."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return {SEED: f"{seed}\n", HASH: f'#define RANDSTRUCT_HASHED_SEED "{digest}"\n'}
