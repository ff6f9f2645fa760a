"""One configured backend: what it may be asked, what it costs, and what everybody knows of its health right now.

Route, fallback, translate and the status pages share these objects; middleware never import each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gw.message import Usage
from gw.secret import Secret

if TYPE_CHECKING:
    from gw.adapter import Adapter, Provider
    from gw.errors import GatewayError
    from gw.places import Places
    from gw.shared import Figures

DEAD_KEY = 600.0  # seconds until a key that was refused is tried again: an account may have been paid for
LIMITED_KEY = 30.0  # ... that was limited without a Retry-After
CAPABILITIES = ("functions", "cli_tools", "images", "stream")


@dataclass(slots=True, frozen=True)
class Timeouts:
    """Seconds. `connect` opens a connection; `first_content` and `idle` rule streams; `total` rules whole answers.

    `first_byte` rules both from the request to the first byte of an answer; None: the others do. Most providers send
    nothing of a whole answer before they have it.
    """

    connect: float = 5.0
    first_byte: float | None = None
    first_content: float = 30.0
    idle: float = 60.0
    total: float = 600.0


@dataclass(slots=True, frozen=True)
class Price:
    """USD per million tokens. `cache_read` and `cache_write` default to the price of input."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float | None = None
    cache_write: float | None = None

    def of(self, usage: Usage) -> float:
        """What these tokens cost, in USD."""
        fresh = usage.prompt - usage.cached - usage.cache_written
        price = fresh * self.input if fresh > 0 else 0.0
        if usage.cached:
            price += usage.cached * (self.input if self.cache_read is None else self.cache_read)
        if usage.cache_written:
            price += usage.cache_written * (self.input if self.cache_write is None else self.cache_write)
        return (price + usage.completion * self.output) / 1_000_000


FAILURES, COOLING_UNTIL = range(2)  # places in `Health.known`
IN_FLIGHT, PROBING = range(2)  # ... in `Health.held`


class Health:
    """What traffic has taught about a backend: failures in a row, and until when it is left alone.

    One worker keeps it here; with several, `gw.shared_health.SharedHealth` keeps the same figures in shared memory.
    What every request asks or changes lies open in two rows, as properties cost as much as all else of it: `known` is
    true of the backend for everybody, `held` is what this worker's own requests hold of it (`held[IN_FLIGHT] += 1`).
    """

    __slots__ = ("held", "known")

    def __init__(self) -> None:
        self.known: Figures = [0.0, 0.0]
        self.held: Figures = [0.0, 0.0]

    @property
    def failures(self) -> int:
        """In a row."""
        return int(self.known[FAILURES])

    @failures.setter
    def failures(self, value: int) -> None:
        self.known[FAILURES] = value

    @property
    def cooling_until(self) -> float:
        """Monotonic seconds."""
        return self.known[COOLING_UNTIL]

    @cooling_until.setter
    def cooling_until(self, value: float) -> None:
        self.known[COOLING_UNTIL] = value

    @property
    def in_flight(self) -> int:
        """Requests that are under way."""
        return int(self.held[IN_FLIGHT])

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self.held[IN_FLIGHT] = value

    @property
    def probing(self) -> bool:
        """Half-open: one request is finding out."""
        return bool(self.held[PROBING])

    @probing.setter
    def probing(self, value: bool) -> None:
        self.held[PROBING] = value

    def cool_until(self, moment: float) -> None:
        """Leave it alone until `moment` (monotonic seconds), or for longer where that was said before."""
        self.cooling_until = max(self.cooling_until, moment)

    def claim_probe(self) -> bool:
        """Be the one request that finds out; False where another one is. Set `probing` to False when it is known."""
        claimed = not self.probing
        if claimed:
            self.probing = True
        return claimed


@dataclass(slots=True, eq=False)
class Backend:
    """One `[backends.NAME]`. Exactly one of `adapter` and `provider` is set.

    `problem` says why it cannot be asked, with the cure ("no key, set OPENROUTER_API_KEY"); None is ready.
    """

    name: str
    kind: str  # the adapter's name in gateway.toml
    adapter: Adapter | None = None
    provider: Provider | None = None
    enabled: bool = True
    model: str | None = None  # answers for any name ...
    models: Mapping[str, str] = field(default_factory=dict)  # ... or a mapping of names
    capabilities: frozenset[str] = frozenset({"functions", "images", "stream"})
    group: str | None = None
    price: Price | None = None
    cost_per_request: float | None = None
    context_length: int | None = None  # tokens; None is unknown
    keys: Sequence[Secret] = ()
    timeouts: Timeouts = Timeouts()
    weight: int = 1  # its share among the members of its group
    on_loss: str = "allow"  # allow | reject | reroute: what to do where translation would lose something
    explicit_only: bool = False  # echo: only by name, or when nothing else is ready
    problem: str | None = None
    description: str = ""
    health: Health = field(default_factory=Health)
    cooling_reason: str = ""  # what the last failure said
    prices: Callable[[str], Price | None] | None = None  # list prices by the provider's model name
    clock: Callable[[], float] = time.monotonic
    places: Places | None = None  # how many requests it is sent at once; None: as many as come
    _next_key: int = 0
    _keys_out: dict[Secret, float] = field(default_factory=dict)  # until when (clock)

    @property
    def is_ready(self) -> bool:
        """Enabled and able to be asked, whatever its health."""
        return self.enabled and self.problem is None

    @property
    def is_cooling(self) -> bool:
        """Left alone for now, after failures or by a provider's Retry-After."""
        return self.health.known[COOLING_UNTIL] > self.clock()

    @property
    def cooling_for(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self.health.cooling_until - self.clock())

    def cool(self, seconds: float, reason: str = "") -> None:
        """Leave it alone for a while, and say why; a cool-down is never shortened."""
        self.cooling_reason = reason
        self.health.cool_until(self.clock() + seconds)

    def upstream_model(self, model: str) -> str | None:
        """The provider's name for a model that the client asked for; None where this backend does not serve it.

        A backend with `model` and no `models` serves any name; otherwise only the mapping's keys.
        With neither it passes every name through.
        """
        if self.models:
            return self.models.get(model)
        return self.model or model

    def default_model(self) -> str | None:
        """The model to ask for where the client left the choice to the gateway; None where nobody said.

        A backend that answers by itself needs no provider's model: its own name serves.
        """
        own_name = self.name if self.provider is not None else None
        return self.model or next(iter(self.models.values()), own_name)

    def next_key(self) -> Secret | None:
        """One of its keys, in turn; those that were taken out are passed over while there are others."""
        if not self.keys:
            return None
        for _ in self.keys:
            key = self.keys[self._next_key % len(self.keys)]
            self._next_key += 1
            if not self._keys_out or self._keys_out.get(key, 0.0) <= self.clock():
                return key
        return min(self.keys, key=lambda key: self._keys_out.get(key, 0.0))

    def judge_key(self, key: Secret | None, error: GatewayError) -> None:
        """Take a key out that the provider refused or limited, if it is one of several."""
        if key is None or len(self.keys) < 2:
            return
        if error.fault in ("dead_key", "quota"):
            self._keys_out[key] = self.clock() + DEAD_KEY
        elif error.fault == "rate_limit":
            limited = self.clock() + (LIMITED_KEY if error.retry_after is None else error.retry_after)
            self._keys_out[key] = max(limited, self._keys_out.get(key, 0.0))

    def rest(self, seconds: float, reason: str, key: Secret | None = None) -> None:
        """Leave alone what its provider limits: one of several keys while another is left, else all of it."""
        if key is not None and len(self.keys) > 1:
            until = self._keys_out[key] = max(self.clock() + seconds, self._keys_out.get(key, 0.0))
            if self.has_spare_key:
                return
            seconds = min(until, *(self._keys_out[other] for other in self.keys)) - self.clock()
        self.cool(seconds, reason)

    @property
    def has_spare_key(self) -> bool:
        """Whether one of its several keys is neither dead nor limited."""
        return len(self.keys) > 1 and any(self._keys_out.get(key, 0.0) <= self.clock() for key in self.keys)

    def cost_of(self, usage: Usage | None, model: str) -> tuple[float, str] | None:
        """USD for one answer and where the figure comes from; None where no price is known.

        A configured price goes before one for each request, and both before the list price.
        """
        price, prices = self.price, self.prices
        if price is None and prices is not None and self.cost_per_request is None:
            price = prices(model)
        if usage is not None and price is not None:
            return price.of(usage), "priced" if usage.source == "reported" else "estimated"
        if self.cost_per_request is not None:
            return self.cost_per_request, "priced"
        return None


class Backends:
    """All backends of one configuration, by name, in the order of the file."""

    __slots__ = ("_by_name", "chain", "drop_tools", "explicit_fallback")

    def __init__(self, backends: Sequence[Backend] = ()) -> None:
        self._by_name = {backend.name: backend for backend in backends}
        self.chain: Sequence[str] = ()  # the order of fallback, where one is configured
        self.explicit_fallback = False  # whether a backend that the client named may be replaced by another
        self.drop_tools = False  # whether a request whose tools nobody can run is answered without them

    def add(self, backend: Backend) -> None:
        """One more, after all others. ValueError where the name is taken."""
        if backend.name in self._by_name:
            raise ValueError(f'there are two backends named "{backend.name}": rename one')
        self._by_name[backend.name] = backend

    def __iter__(self) -> Iterator[Backend]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Backend:
        return self._by_name[name]

    def get(self, name: str) -> Backend | None:
        """The backend of that name, or None."""
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """Every name, in the order of the file."""
        return list(self._by_name)
