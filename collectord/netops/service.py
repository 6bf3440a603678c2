"""The simulator as an HTTP service: configure it, start it, stop it, ask it for a stretch of time.

``Service`` is what it does, ``app`` how that is asked for over HTTP, ``serve`` listens. Whoever may
speak to it may make it send anywhere: it is for this host, unless told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from collectord.clock import now
from collectord.netops.block import SECOND, Simulation
from collectord.netops.configuration import Configuration, ConfigurationError, read
from collectord.netops.guard import Guard, known_as, refusal
from collectord.netops.network import simulations
from collectord.netops.requests import Generate, Start
from collectord.netops.run import Feed, Progress, Run
from collectord.netops.target import Target, TargetClosed, TargetError
from collectord.netops.targets import (
    RESPONSE_VALUES,
    ResponseTarget,
    UnknownTarget,
    as_json,
    make_target,
    resolved,
    seconds,
    shown,
)

if TYPE_CHECKING:
    from collectord.curve import Curve

log = logging.getLogger(__name__)

HOST = "localhost"
PORT = 8100
RANGE_VALUES = 100_000_000
"""The most that one request to generate may send to a target."""
GRACE = 5
"""Seconds for requests under way to end when the service does."""
NOT_JSON = "the body is not JSON"
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
ANSWERING = 2
"""Requests whose response is made at a time."""
STATES = {"stopped": "idle"}
"""What a run's state is called here where it isn't called the same."""


class ConflictError(Exception):
    """The service can't do that now; says what to do first."""


class BusyError(Exception):
    """So much is asked for at once that this has to be asked for again."""


class TooMuchError(Exception):
    """More was asked for than there may be; says how much that is."""


class Service:
    """A configuration, if there is one, and the run of it, if there is one. For any thread.

    ``functions`` has the targets of ``function:NAME``, ``curve`` the keys for a collector that
    wants some.
    """

    def __init__(self, functions: Mapping[str, str], *, curve: Curve | None = None) -> None:
        self._functions = functions
        self._curve = curve
        self._lock = threading.Lock()
        """Of all changes of what follows. Who only looks never waits for it."""
        self._configured: tuple[Configuration | None, Sequence[Simulation]] = None, ()
        """A configuration, and what is simulated as it says."""
        self._run: Run | None = None
        self._sending: Target | None = None
        """The target of a request to generate that is not answered yet."""
        self._answering = threading.BoundedSemaphore(ANSWERING)

    def configure(self, configuration: Configuration) -> None:
        """Take this configuration in place of another. What runs is stopped first.

        Raises UnknownTarget, ConflictError.
        """
        self._make(configuration.target, configuration.max_samples_per_batch).close()
        if configuration.state == "generating":
            self._check_can_run(configuration)
        simulated = simulations(configuration)
        with self._lock:
            self._check_not_sending()
            self._stop()
            self._configured, self._run = (configuration, simulated), None
            if configuration.state == "generating":
                self._start(configuration, Start())

    def start(self, request: Start) -> None:
        """Begin a run; it goes on by itself. Raises UnknownTarget, ConflictError."""
        with self._lock:
            configuration, _ = self._existing()
            self._check_not_sending()
            if self._run and self._run.progress().state in ("priming", "generating"):
                raise ConflictError("it is generating already: POST /stop first")
            self._start(configuration, request)

    def stop(self) -> None:
        """End what runs, if anything does."""
        with self._lock:
            self._stop()

    def close(self) -> None:
        """End everything."""
        if sending := self._sending:
            sending.close()
        self.stop()

    def generate(self, request: Generate) -> tuple[dict[str, Any], int | None]:
        """The emitters of a stretch of time, and when the next step is if there is more of it;
        or, for a target other than the response, the counts of what was sent there.

        Who goes on from the next step gets what devices do next. But counters and flows of virtual
        networks begin anew with each request, and the steps of planned ``errors`` count from each
        request's start.

        Raises UnknownTarget, TargetError, ConflictError, BusyError, TooMuchError.
        """
        configuration, simulated = self._existing()
        target = configuration.target if request.target is None else request.target
        period = round(_every(configuration, request.interval).interval * SECOND)
        start = _microseconds(request.start_timestamp, now())
        end = _microseconds(request.end_timestamp, start + period)
        steps = -(-(end - start) // period)
        most = request.max_samples_per_metric or configuration.max_samples_per_batch
        width = max(1, sum(len(one.emitters) * len(one.metrics) for one in simulated))
        if resolved(target, self._functions) == "response":
            most = max(1, min(most, RESPONSE_VALUES // width))
            with self._turn():
                return _response(simulated, start, period, steps, most)
        if steps * width > RANGE_VALUES:
            raise TooMuchError(
                f"that is {steps * width} values, and the most is {RANGE_VALUES}: "
                f"ask for {seconds(RANGE_VALUES // width * period)} seconds at a time"
            )
        with self._target(target, most) as sending:
            feed = Feed(simulated, sending, start, period)
            sent = 0
            while left := (end - feed.next_time + period - 1) // period:
                sent += feed.send(left)[1]
            sending.flush()
            return {"steps": steps, "values": sent, **sending.counts()}, None

    def sites(self) -> list[dict[str, Any]]:
        """Where the devices are, and how many at each place."""
        _, simulated = self._configured
        sites: dict[str, dict[str, Any]] = {}
        for emitter in (emitter for one in simulated for emitter in one.emitters):
            labels = emitter.labels
            if name := labels.get("site"):
                site = sites.setdefault(
                    name,
                    {
                        "key": f"ObjectSite:{name}",
                        "name": name,
                        **{each: labels[each] for each in ("company", "latitude", "longitude")},
                        "devices": 0,
                    },
                )
                site["devices"] += 1
        return list(sites.values())

    def status(self) -> dict[str, Any]:
        """What it does, and how far it has come."""
        (configuration, _), run = self._configured, self._run
        progress = run.progress() if run else Progress()
        told = asdict(progress)
        state, error = told.pop("state"), told.pop("error")
        told["time"] = None if progress.time is None else seconds(progress.time)
        return {
            "state": STATES.get(state, state),
            "configured": configuration is not None,
            "target": shown(configuration.target) if configuration else None,
            "progress": told,
            **({"error": error} if error else {}),
        }

    def _existing(self) -> tuple[Configuration, Sequence[Simulation]]:
        configuration, simulated = self._configured
        if configuration is None:
            raise ConflictError("it is not configured yet: POST /configure first")
        return configuration, simulated

    def _check_not_sending(self) -> None:
        if self._sending:
            raise ConflictError("a POST /generate is still sending: try again when it is answered")

    def _check_can_run(self, configuration: Configuration) -> None:
        if resolved(configuration.target, self._functions) == "response":
            raise ConflictError(
                "the target is response, which POST /generate alone can answer with"
            )

    def _start(self, configuration: Configuration, request: Start) -> None:
        self._check_can_run(configuration)
        target = self._make(configuration.target, configuration.max_samples_per_batch)
        self._run = Run(
            _every(configuration, request.interval),
            target,
            history=request.num_historical_seconds,
        )
        self._run.start()

    def _stop(self) -> None:
        if self._run:
            self._run.stop()

    def _make(self, text: str, batch: int) -> Target:
        return make_target(text, functions=self._functions, batch=batch, curve=self._curve)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One of the ``ANSWERING`` that there are. Who waited for one would hold a thread that
        others need."""
        if not self._answering.acquire(blocking=False):
            raise BusyError(f"busy with {ANSWERING} responses, which is the most: try again")
        try:
            yield
        finally:
            self._answering.release()

    @contextlib.contextmanager
    def _target(self, text: str, batch: int) -> Iterator[Target]:
        """The target that nobody else sends to meanwhile: there, each source speaks once."""
        with self._lock:
            self._check_not_sending()
            if self._run and self._run.progress().state in ("priming", "generating"):
                raise ConflictError("it is generating by itself: POST /stop first")
            target = self._sending = self._make(text, batch)
        try:
            yield target
        finally:
            target.close()
            self._sending = None


def _every(configuration: Configuration, interval: float | None) -> Configuration:
    """The configuration with another interval, which it may not allow: ConfigurationError."""
    if interval is None:
        return configuration
    return Configuration.model_validate(configuration.model_dump() | {"interval": interval})


def _microseconds(time: float | None, default: int) -> int:
    return default if time is None else round(time * SECOND)


def _response(
    simulated: Sequence[Simulation], start: int, period: int, steps: int, most: int
) -> tuple[dict[str, Any], int | None]:
    target = ResponseTarget()
    feed = Feed(simulated, target, start, period)
    end = start + min(steps, most) * period
    while feed.next_time < end:
        feed.send((end - feed.next_time) // period)
    return target.emitters, end if most < steps else None


ERRORS: dict[type[Exception], int] = {
    ConfigurationError: 422,
    ConflictError: 409,
    BusyError: 503,
    UnknownTarget: 422,
    TargetClosed: 503,
    TargetError: 502,
    TooMuchError: 422,
}
"""The status of the answer that tells an error; the first that fits."""


def app(service: Service, *, hosts: Sequence[str] | None = None) -> FastAPI:
    """The service over HTTP. With ``hosts`` it answers only who calls it by one of these names.

    What is refused is answered with ``{"error": text}``, and with ``errors``, a sentence each,
    where there may be several.
    """
    http = FastAPI(title="collectord-netops", docs_url=None, redoc_url=None)
    http.add_middleware(Guard, hosts=hosts)

    # These two look and don't wait: they need none of the threads that all others share.
    @http.get("/")
    async def status() -> dict[str, Any]:
        """State and progress."""
        return service.status()

    @http.get("/sites")
    async def sites() -> list[dict[str, Any]]:
        """The sites."""
        return service.sites()

    @http.post("/configure")
    async def configure(request: Request) -> dict[str, Any]:
        """Take the configuration that the body is. What runs is stopped."""
        # Read as text, which tells more than its value: what was written twice.
        body = await request.body()
        return await run_in_threadpool(_configure, service, body)

    @http.post("/start")
    def start(request: Start | None = None) -> dict[str, Any]:
        """Begin to generate; ``GET /`` tells how far it is."""
        service.start(request or Start())
        return service.status()

    @http.post("/stop")
    def stop() -> dict[str, Any]:
        """End what runs."""
        service.stop()
        return service.status()

    @http.post("/generate")
    def generate(request: Generate | None = None) -> Response:
        """A stretch of time, in the answer or to a target."""
        answer, more = service.generate(request or Generate())
        headers = {} if more is None else {"X-Next-Timestamp": str(seconds(more))}
        return Response(as_json(answer), media_type="application/json", headers=headers)

    for kind in ERRORS:
        http.add_exception_handler(kind, _told)
    http.add_exception_handler(RequestValidationError, _wrong_fields)
    http.add_exception_handler(HTTPException, _refused)
    http.add_exception_handler(Exception, _bug)
    return http


def _configure(service: Service, body: bytes) -> dict[str, Any]:
    try:
        configuration = read(body)
    except ConfigurationError:
        if not _is_json(body):
            raise HTTPException(400) from None
        raise
    service.configure(configuration)
    return service.status()


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _told(request: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in ERRORS.items() if isinstance(error, kind))
    return refusal(status, getattr(error, "errors", [str(error)]))


def _wrong_fields(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if any(wrong["type"] == "json_invalid" for wrong in error.errors()):
        return refusal(400, [NOT_JSON])
    paths = (".".join(map(str, wrong["loc"][1:])) or "the body" for wrong in error.errors())
    return refusal(
        422,
        [f"{path}: {wrong['msg']}" for path, wrong in zip(paths, error.errors(), strict=True)],
    )


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return refusal(400, [NOT_JSON])
    return refusal(error.status_code, [f"{request.method} {request.url.path}: {error.detail}"])


def _bug(request: Request, error: Exception) -> JSONResponse:
    return refusal(500, ["it failed for no reason of yours; its log says more"])


def listen(host: str = HOST, port: int = PORT) -> list[socket.socket]:
    """Sockets that listen there; ``localhost`` is 127.0.0.1 and, where there is one, ::1.

    Port 0 is any free one. Raises OSError.
    """
    if host != "localhost":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return [socket.create_server((host, port), family=family)]
    first = socket.create_server(("127.0.0.1", port))
    try:
        # A client that knows ::1 as well would not find what is there only for 127.0.0.1.
        place = "::1", first.getsockname()[1]
        return [first, socket.create_server(place, family=socket.AF_INET6)]
    except OSError as error:
        if error.errno in NO_SUCH_ADDRESS:
            return [first]
        first.close()
        raise


def serve(
    host: str = HOST,
    port: int = PORT,
    *,
    functions: Mapping[str, str],
    configuration: Configuration | None = None,
    curve: Curve | None = None,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Serve there until SIGINT or SIGTERM; with ``configuration``, as if it had been posted.

    It answers who calls it by a name of its own, or by one of ``allow_hosts``.

    Raises OSError where it can't listen, UnknownTarget, ConflictError.
    """
    sockets = listen(host, port)
    hosts = known_as(host, [each.getsockname()[0] for each in sockets], allow_hosts)
    service = Service(functions, curve=curve)
    try:
        if configuration:
            service.configure(configuration)
        log.info("serves http://%s:%d", f"[{host}]" if ":" in host else host, _port(sockets))
        server(service, hosts=hosts).run(sockets)
    finally:
        service.close()
        for each in sockets:
            each.close()


def server(service: Service, *, hosts: Sequence[str] | None = None) -> uvicorn.Server:
    """A server of the service; ``run`` it with what ``listen`` gives."""
    return _Server(
        uvicorn.Config(
            app(service, hosts=hosts),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        ),
        service,
    )


class _Server(uvicorn.Server):
    """Ends the service before it waits for the requests under way, which wait for the service."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What uvicorn does, and before that the service's end."""
        await asyncio.to_thread(self._service.close)
        await super().shutdown(sockets)


def _port(sockets: Sequence[socket.socket]) -> int:
    port: int = sockets[0].getsockname()[1]
    return port
