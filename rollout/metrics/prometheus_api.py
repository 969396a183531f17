"""The two questions that we have for a Prometheus server: what time it is, and what it has scraped."""

import json
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from pydantic import SecretStr

from rollout.errors import MetricUnavailable

TIMEOUT_S = 10.0
MOST_BYTES = 16 * 1024 * 1024
Samples = tuple[tuple[float, float], ...]  # (seconds since 1970, value), by time


@dataclass(frozen=True, slots=True)
class Api:
    """A server's HTTP API, version 1. Every question raises MetricUnavailable; none takes longer than 10 s by much."""

    address: str
    token: SecretStr | None = None

    def time(self) -> float:
        """Seconds since 1970 on the server's clock."""
        told = self._ask("time()")
        try:
            return float(told["result"][0])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._strange(told) from error

    def raw(self, selector: str, since: float, until: float) -> list[tuple[Mapping[str, str], Samples]]:
        """The samples of these series between two moments, as they were scraped: [(labels, samples)], none of them empty."""
        told = self._ask(f"{selector}[{math.ceil(until - since)}s]", at=until)
        try:
            found = [
                (one["metric"], tuple((float(at), float(value)) for at, value in one["values"]))
                for one in told["result"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(told) from error
        if not found:
            raise MetricUnavailable(
                f"Prometheus at {self.address} has no samples of {selector}",
                remedy="ask it for that selector in its own pages: is the metric's name right, and are the labels?",
            )
        return found

    def _ask(self, query: str, at: float | None = None) -> dict[str, Any]:
        parameters = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
        status, body = self._get(parameters)
        if status in {401, 403}:
            raise MetricUnavailable(
                f"Prometheus at {self.address} refuses us ({status})",
                remedy="set ROLLOUT_PROMETHEUS_TOKEN for the workers, or let them in without",
            )
        try:
            told = json.loads(body)
            if told["status"] == "success":
                return dict(told["data"])
            why = str(told["error"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._strange(body[:200], status) from error
        raise MetricUnavailable(
            f"Prometheus at {self.address} says to {query}: {why[:300]}", remedy="correct canary.selector"
        )

    def _get(self, parameters: Mapping[str, str]) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}
        url, until = f"{self.address.rstrip('/')}/api/v1/query", time.monotonic() + TIMEOUT_S
        try:
            with (
                httpx.Client(verify=_tls(), timeout=TIMEOUT_S, headers=headers) as client,
                client.stream("GET", url, params=parameters) as answer,
            ):
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES or time.monotonic() > until:
                        raise self._too_much()
                return answer.status_code, bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MetricUnavailable(
                f"Prometheus at {self.address} does not answer: {error or type(error).__name__}",
                remedy="is it up, and can this machine reach it? canary.prometheus is its address",
            ) from error

    def _too_much(self) -> MetricUnavailable:
        return MetricUnavailable(
            f"Prometheus at {self.address} sends more than {MOST_BYTES >> 20} MiB, or for longer than {TIMEOUT_S:.0f} s",
            remedy="let canary.selector name fewer series",
        )

    def _strange(self, told: object, status: int = 200) -> MetricUnavailable:
        return MetricUnavailable(
            f"{self.address} does not answer as Prometheus does ({status}): {str(told)[:200]!r}",
            remedy="canary.prometheus is the address below which it has /api/v1/query",
        )


@cache
def _tls() -> ssl.SSLContext:
    """Reading the system's certificates takes longer than a question."""
    return httpx.create_ssl_context()
