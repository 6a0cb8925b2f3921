"""`python -m coordinator.signer --config FILE`: the signer as a program; `--generate-key FILE` makes it a key."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import resource
import signal
import sys
from pathlib import Path

from coordinator.journal_reader import JournalReader
from coordinator.signer import keys, server, work
from coordinator.signer.evidence import Evidence
from coordinator.signer.work import Signer
from kernel.errors import FarmError
from kernfarm import settings
from kernfarm.blobs import BlobStore
from kernfarm.settings import SignerSettings

log = logging.getLogger("coordinator.signer")
_PR_SET_PDEATHSIG = 1


async def run(config: SignerSettings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code. Raises FarmError when the key, the store or the socket can't be used."""
    key = keys.load(config.key_file, config.password_file)
    signer = Signer(
        key,
        Evidence(JournalReader(config.journal_url)),
        BlobStore.open(config.blobs_url, config.blobs_options),
        builder_id=config.builder_id,
        reference=config.image_reference,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = await server.serve(
        config.socket,
        lambda builds, gone: work.answer(signer.sign(builds[0], gone) if len(builds) == 1 else signer.sign_index(builds, gone)),
        allowed_uid=config.allowed_uid,
        socket_gid=config.socket_gid,
    )
    log.info("serving on %s", config.socket)
    await stop.wait()
    serving.close()
    config.socket.unlink(missing_ok=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m coordinator.signer", description="The signer of a kernfarm.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="settings, a YAML file (kernfarm.settings.SignerSettings)")
    what.add_argument("--generate-key", type=Path, metavar="FILE", help="make a key, with cosign.pub beside it, and end")
    parser.add_argument("--end-with-parent", action="store_true", help="end when the process that started us dies")
    parser.add_argument("--password-file", default="", metavar="FILE", help="with --generate-key: seal the key as cosign does")
    words = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if words.end_with_parent:
        # Here and not in whoever starts us: Linux forgets it when a process changes its user (prctl(2)).
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the key
    try:
        if words.generate_key is not None:
            password = keys.secret(Path(words.password_file), "password").rstrip(b"\r\n") if words.password_file else None
            keys.generate(words.generate_key, password)
            return 0
        return asyncio.run(run(settings.load(SignerSettings, words.config)))
    except FarmError as error:
        print(f"signer: {error}", file=sys.stderr)
        return error.problem.handling.exit_code


if __name__ == "__main__":
    sys.exit(main())
