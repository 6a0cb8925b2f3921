"""A gRPC server that does not start with a method nobody has decided about."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import grpc

from kernel.errors import Code, FarmError
from kernfarm.rpc import Policy


class PolicedServer(grpc.aio.Server):
    """Around grpc.aio's own server: it sees what is registered, of whichever service, and holds that against the policies.

    Generated code registers a service in two ways. Only the one that tells its methods is passed on, so nothing else is served."""

    def __init__(self, inner: Any, policies: Mapping[str, Policy]) -> None:
        """`policies`: by the methods' whole paths, as rpc.all_policies gives them."""
        self._inner = inner
        self._policies = policies
        self._services: set[str] = set()
        self._methods: dict[str, set[str]] = {}
        self._started = False

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Raises FarmError(INTERNAL) for a handler that is not of one service (it may answer to any method), for a service named twice,
        and once the server was started."""
        for handler in generic_rpc_handlers:
            if not isinstance(handler, grpc.ServiceRpcHandler):
                raise _refused(f"{type(handler).__name__} does not say which service it is")
            self._take(handler.service_name(), self._services)
            self._services.add(handler.service_name())

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Raises FarmError(INTERNAL) for a service named twice, and once the server was started."""
        self._take(service_name, self._methods)
        self._methods[service_name] = {f"/{service_name}/{method}" for method in method_handlers}
        self._inner.add_registered_method_handlers(service_name, method_handlers)

    def _take(self, service_name: str, known: Collection[str]) -> None:
        if self._started:
            raise _refused(f"{service_name} is registered after the start, when nobody checks it any more")
        if service_name in known:
            raise _refused(f"{service_name} is registered twice")

    def add_insecure_port(self, address: str) -> int:
        return int(self._inner.add_insecure_port(address))

    def add_secure_port(self, address: str, server_credentials: Any) -> int:
        return int(self._inner.add_secure_port(address, server_credentials))

    async def start(self) -> None:
        """Raises FarmError(INTERNAL) when a registered method has no policy, or a policy no method; the ports are closed then."""
        self._started = True
        try:
            self._check()
        except FarmError:
            await self._inner.stop(None)
            raise
        await self._inner.start()

    def _check(self) -> None:
        if unknown := self._services - set(self._methods):
            raise _refused(f"nobody knows the methods of {', '.join(sorted(unknown))}")
        registered = set().union(*self._methods.values())
        if registered != set(self._policies):
            raise _refused(f"methods and policies differ: {', '.join(sorted(registered ^ set(self._policies)))}")

    async def stop(self, grace: float | None) -> None:
        await self._inner.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        return bool(await self._inner.wait_for_termination(timeout))


def _refused(message: str) -> FarmError:
    hint = "each method that is served needs a policy in kernfarm/rpc.py"
    return FarmError(Code.INTERNAL, message, where="gRPC server", hint=hint)
