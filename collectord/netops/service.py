"""The simulator as an HTTP service: configure it, start it, stop it, ask it for a stretch of time.

``Service`` is what it does, ``app`` how that is asked for over HTTP, ``serve`` listens. Whoever may
speak to it may make it send anywhere: it is for this host, unless told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from collectord.buffer import now
from collectord.netops.block import SECOND, Simulation
from collectord.netops.configuration import Configuration, ConfigurationError, read
from collectord.netops.guard import Guard, refusal
from collectord.netops.network import simulations
from collectord.netops.run import Feed, Progress, Run
from collectord.netops.target import Target, TargetClosed, TargetError
from collectord.netops.targets import (
    RESPONSE_VALUES,
    ResponseTarget,
    UnknownTarget,
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
HISTORY_SECONDS = 366 * 86_400
"""The longest history that one start may ask for."""
RANGE_VALUES = 100_000_000
"""The most that one request to generate may send to a target."""
LAST_SECOND = 4_102_444_800
"""The year 2100: a time beyond it is in some other unit."""
GRACE = 5
"""Seconds for requests under way to end when the service does."""
NOT_JSON = "the body is not JSON"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""What this host calls itself: a name that leads here from elsewhere was made up by somebody."""
NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
ANSWERING = 2
"""Requests whose response is made at a time; others wait."""
STATES = {"stopped": "idle"}
"""What a run's state is called here where it isn't called the same."""


class ConflictError(Exception):
    """The service can't do that now; says what to do first."""


class TooMuchError(Exception):
    """More was asked for than there may be; says how much that is."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Start(_Request):
    """What ``/start`` may be told."""

    num_historical_seconds: float = Field(default=0.0, ge=0, le=HISTORY_SECONDS)
    interval: float | None = Field(default=None, ge=0.001, le=86_400)


class Generate(_Request):
    """What ``/generate`` may be told: the steps from ``start_timestamp`` to before
    ``end_timestamp``, in seconds since the Unix epoch; without them, one step, now.

    Everything else is as configured unless given.
    """

    start_timestamp: float | None = Field(default=None, ge=0, le=LAST_SECOND)
    end_timestamp: float | None = Field(default=None, ge=0, le=LAST_SECOND)
    interval: float | None = Field(default=None, ge=0.001, le=86_400)
    max_samples_per_metric: int | None = Field(default=None, ge=1, le=1_000_000)
    target: str | None = None

    @field_validator("end_timestamp")
    @classmethod
    def _check_range(cls, end: float | None, fields: ValidationInfo) -> float | None:
        start = fields.data.get("start_timestamp", -1)  # what is wrong with that is told
        if end is not None and (start is None or end <= start):
            raise PydanticCustomError("refused", "must be after start_timestamp")
        return end


class Service:
    """A configuration, if there is one, and the run of it, if there is one. For any thread.

    ``functions`` has the targets of ``function:NAME``, ``curve`` the keys for a collector that
    wants some.
    """

    def __init__(self, functions: Mapping[str, str], *, curve: Curve | None = None) -> None:
        self._functions = functions
        self._curve = curve
        self._lock = threading.Lock()
        """Of all that follows."""
        self._configuration: Configuration | None = None
        self._simulations: Sequence[Simulation] = ()
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
            self._configuration, self._simulations, self._run = configuration, simulated, None
            if configuration.state == "generating":
                self._start(configuration, Start())

    def start(self, request: Start) -> None:
        """Begin a run; it goes on by itself. Raises UnknownTarget, ConflictError."""
        with self._lock:
            configuration = self._configured()
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

        Who goes on from the next step gets what devices do next, though counters and flows of
        virtual networks begin anew with each request.

        Raises UnknownTarget, TargetError, ConflictError, TooMuchError.
        """
        with self._lock:
            configuration, simulated = self._configured(), self._simulations
        target = configuration.target if request.target is None else request.target
        period = round((request.interval or configuration.interval) * SECOND)
        start = _microseconds(request.start_timestamp, now())
        end = _microseconds(request.end_timestamp, start + period)
        steps = -(-(end - start) // period)
        most = request.max_samples_per_metric or configuration.max_samples_per_batch
        width = max(1, sum(len(one.emitters) * len(one.metrics) for one in simulated))
        if resolved(target, self._functions) == "response":
            most = max(1, min(most, RESPONSE_VALUES // width))
            with self._answering:
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
        with self._lock:
            simulated = self._simulations
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
        configuration, run = self._configuration, self._run
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

    def _configured(self) -> Configuration:
        if self._configuration is None:
            raise ConflictError("it is not configured yet: POST /configure first")
        return self._configuration

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
            configuration,
            target,
            history=request.num_historical_seconds,
            interval=request.interval,
        )
        self._run.start()

    def _stop(self) -> None:
        if self._run:
            self._run.stop()

    def _make(self, text: str, batch: int) -> Target:
        return make_target(text, functions=self._functions, batch=batch, curve=self._curve)

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

    @http.get("/")
    def status() -> dict[str, Any]:
        """State and progress."""
        return service.status()

    @http.get("/sites")
    def sites() -> list[dict[str, Any]]:
        """The sites."""
        return service.sites()

    @http.post("/configure")
    async def configure(request: Request, value: Annotated[Any, Body()]) -> dict[str, Any]:
        """Take the configuration that the body is. What runs is stopped."""
        body = await request.body()  # which tells more than ``value``: what was written twice
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
        return Response(json.dumps(answer), media_type="application/json", headers=headers)

    for kind in ERRORS:
        http.add_exception_handler(kind, _told)
    http.add_exception_handler(RequestValidationError, _wrong_fields)
    http.add_exception_handler(HTTPException, _refused)
    http.add_exception_handler(Exception, _bug)
    return http


def _configure(service: Service, body: bytes) -> dict[str, Any]:
    service.configure(read(body))
    return service.status()


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
) -> None:
    """Serve there until SIGINT or SIGTERM; with ``configuration``, as if it had been posted.

    Raises OSError where it can't listen, UnknownTarget, ConflictError.
    """
    sockets = listen(host, port)
    names = LOOPBACK_NAMES if all(map(_is_loopback, sockets)) else None
    service = Service(functions, curve=curve)
    try:
        if configuration:
            service.configure(configuration)
        log.info("serves http://%s:%d", f"[{host}]" if ":" in host else host, _port(sockets))
        server(service, hosts=names and [*names, host]).run(sockets)
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


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def _port(sockets: Sequence[socket.socket]) -> int:
    port: int = sockets[0].getsockname()[1]
    return port
