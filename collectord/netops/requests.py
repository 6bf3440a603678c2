"""What the service may be asked for: the bodies of its requests, but for a configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

HISTORY_SECONDS = 366 * 86_400
"""The longest history that one start may ask for."""
LAST_SECOND = 4_102_444_800
"""The year 2100: a time beyond it is in some other unit."""


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
