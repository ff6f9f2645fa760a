"""R3 every fault survived, R4 streams that are cut, R5 fallback and breaker, R6 a storm of 429s, R17 no connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks.ports import free_port
from benchmarks.soak.client import Answer
from benchmarks.soak.figure import Figure, below, count, equal, percentile, yes
from benchmarks.soak.lab import PROVIDER_KEY, Lab, table
from benchmarks.soak.load import beside, closed
from gw.adapters.faulty.acts import ACTS
from tests.tls_world import Authority

QUICK = {"connect": 0.5, "first_content": 0.6, "idle": 0.6, "total": 1.5}  # seconds
DEADLINE = 3.0  # seconds: no fault may take longer, with those
OF_ITS_OWN = (
    "status=500",
    "status=503",
    "status=401,tell",
    "rst=0",
    "rst=5",
    "close=5",
    "nodone=5",
    "hang=0",
    "hang=5",
)
PRIVATE = (b"POISON", b"<html", PROVIDER_KEY.encode())  # what a provider sends that no client may read
NO_RETRIES = {"fallback": {"retries": 0}}


async def faults_survived(lab: Lab) -> list[Figure]:
    """R3: each fault, whole and streamed, at a backend of its own, while somebody else is served well."""
    faults = [*(f"fault:{name}" for name in ACTS), *OF_ITS_OWN]
    each = lab.count(20, 1)
    backends = {f"f{number}": table(lab.upstream.port, timeouts=QUICK) for number in range(len(faults))}
    healthy = lab.backends("up")
    async with lab.gateway("r3", healthy | backends, middleware=NO_RETRIES) as gateway:
        client = gateway.client
        over = asyncio.Event()
        bystander = asyncio.ensure_future(beside(lambda: client.chat("up/ok"), over, 0.02))
        cases = [(f"f{n}/{fault}", stream) for n, fault in enumerate(faults) for stream in (False, True)] * each

        async def ask(number: int) -> Answer:
            model, stream = cases[number]
            return await client.chat(model, stream=stream)

        tally = await closed(ask, 24, requests=len(cases))
        over.set()
        beside_them = await bystander
        client.close()
        left = await lab.upstream.quiet()
    leaked = sum(any(text in answer.body for text in PRIVATE) for answer in tally.answers)
    return [
        count("R3", f"of {len(faults)} faults x 2: neither a whole answer nor one error in due form", tally.hung,
              out_of=len(tally.answers)),
        count("R3", "statuses that are no gateway's", sum(a.status in (0, 500) for a in tally.answers)),
        count("R3", "a [DONE] behind an error", sum(a.error is not None and a.has_done for a in tally.answers)),
        count("R3", "answers with the provider's private text", leaked),
        count("R3", f"bystanders harmed (their p99 {beside_them.p(0.99) * 1000:.0f} ms)", beside_them.bad,
              out_of=len(beside_them.answers)),
        count("R3", "requests left open at the provider", left),
        below("R3", f"the longest, with deadlines of {QUICK['total']:g} s", tally.longest, DEADLINE, "s"),
    ]  # fmt: skip


async def cut_streams(lab: Lab) -> list[Figure]:
    """R4: streams that the provider cuts in the middle."""
    total = lab.count(1000, 60)
    await lab.upstream.reset()
    async with lab.gateway("r4") as gateway:
        client = gateway.client

        async def ask(number: int) -> Answer:
            model = ("rst=6", "close=6", "nodone=6")[number % 3]
            return await client.chat(model + ",gap=0.002", stream=True, id=f"r4-{number}")

        found: dict[int, Answer] = {}

        async def kept(number: int) -> Answer:
            found[number] = await ask(number)
            return found[number]

        await closed(kept, 50, requests=total)
        client.close()
        await gateway.stop()
        ledger = await lab.upstream.ledger()
    cuts = {entry["user"]: entry["cut"] for entry in ledger if "cut" in entry}
    late = [answer.ended - cuts[f"r4-{n}"] for n, answer in found.items() if f"r4-{n}" in cuts]
    rows = gateway.rows("SELECT state, error, attempts, tokens_output FROM requests")
    silent = sum(not answer.is_openai_error for answer in found.values())
    return [
        count("R4", "cut streams without an error event and an end", silent, out_of=total),
        count("R4", "a false [DONE]", sum(b"data: [DONE]" in answer.body for answer in found.values())),
        equal("R4", "attempts at the provider: none again after the first content", len(ledger), total),
        equal("R4", "rows that are final, with the error and the tokens so far", _told(rows), total),
        below("R4", "p99 from the cut to the client's end", percentile(late, 0.99) * 1000, 100, "ms"),
    ]


def _told(rows: list[dict[str, Any]]) -> int:
    return sum(
        row["state"] == "done" and row["error"] is not None and (row["tokens_output"] or 0) > 0 and row["attempts"] == 1
        for row in rows
    )


async def fallback_and_breaker(lab: Lab) -> list[Figure]:
    """R5: A fails, B answers, A is left alone, and comes back when it is well."""
    cooldown = lab.seconds(30)
    timeouts = {"connect": 0.3, "first_content": 0.3}
    figures: list[Figure] = []
    middleware = {
        "route": {"prefer_cheapest": False, "default_backend": "a"},
        "fallback": {"chain": ["a", "b"], "retries": 0, "breaker": {"failures": 5, "cooldown": cooldown}},
    }
    for fault in ("status=500", "hang=0", "rst=0"):
        backends = {
            "a": table(lab.upstream.port, "a", timeouts=timeouts),
            "b": table(lab.upstream.port, "b", group="b"),
        }
        async with lab.gateway("r5", backends, middleware=middleware) as gateway:
            await lab.upstream.reset()
            await lab.upstream.behave(a=fault)
            client = gateway.client

            async def ask(number: int) -> Answer:
                return await client.chat("m", stream=True, id=f"r5-{number}")  # noqa: B023 (it is asked before the next round)

            first = await closed(ask, 1, requests=6)
            open_time = lab.seconds(12)
            opened = await closed(ask, 4, seconds=open_time)
            at_least = 5 + 1 + int((first.seconds + opened.seconds) / cooldown) + 1
            at_a = (await lab.upstream.stats())["realms"].get("a", 0)
            await lab.upstream.behave()
            healed = asyncio.get_running_loop().time()
            while (answer := await ask(0)).headers.get("x-gateway-backend", "") != "a":
                if asyncio.get_running_loop().time() - healed > cooldown * 2.2 + 5:
                    break
                await asyncio.sleep(0.02)
            back = asyncio.get_running_loop().time() - healed
            direct = await closed(ask, 4, seconds=min(open_time, 2.0))
            client.close()
        bad = first.bad + opened.bad + direct.bad + (not answer.is_good)
        figures += [
            count("R5", f"A {fault}: requests without an answer through B", bad, out_of=6 + len(opened.answers)),
            count("R5", f"A {fault}: asked while it failed, 5 to open and a probe per cool-down", at_a,
                  at_least),
            below("R5", f"A {fault}: added to p50 while it is open", (opened.p(0.5) - direct.p(0.5)) * 1000, 5, "ms"),
            below("R5", f"A {fault}: back in service after healing", back, cooldown + 5, "s"),
        ]  # fmt: skip
    return figures


async def storm_of_429s(lab: Lab) -> list[Figure]:
    """R6: limits are obeyed, and a retry never becomes the storm's second half."""
    total = lab.count(1000, 100)
    figures: list[Figure] = []
    for name, behaviour in (
        ("with Retry-After", "status=429,after=1"),
        ("without", "status=429"),
        ("500s", "status=500"),
    ):
        backends = lab.backends("up", timeouts=QUICK)
        async with lab.gateway("r6", backends, middleware={"fallback": {"backoff": 0.01}}) as gateway:
            await lab.upstream.reset()
            client = gateway.client

            async def ask(_: int) -> Answer:
                return await client.chat(behaviour, x_gateway_deadline_ms="1500")  # noqa: B023

            tally = await closed(ask, 16, requests=total)
            attempts = (await lab.upstream.stats())["attempts"]
            client.close()
        figures += [
            count("R6", f"{name}: attempts at the provider for {total} requests", attempts, int(total * 1.2) + 3),
            count("R6", f"{name}: answers that are no error in due form",
                  sum(not a.is_openai_error for a in tally.answers)),
            below("R6", f"{name}: longest, with a client's deadline of 1.5 s", tally.longest, 1.65, "s"),
        ]  # fmt: skip
    async with lab.gateway("r6") as gateway:
        client = gateway.client
        answer = await client.chat("status=429,after=86400")
        client.close()
    told = answer.headers.get("retry-after", "")
    figures.append(yes("R6", "Retry-After: 86400 is passed on", told == "86400", told or "none"))
    figures.append(below("R6", "... and not slept", answer.seconds, 1, "s"))
    return figures


# --- no connection at all --------------------------------------------------------------------------------------------


@asynccontextmanager
async def _tls_server(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A TLS server that notes what it reads: nothing may ever come."""
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], read


def _black_hole(stack: ExitStack) -> int:
    """A port whose queue is full: connections to it are neither taken nor refused."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    return int(listener.getsockname()[1])


async def no_connection(lab: Lab) -> list[Figure]:
    """R17: names that do not exist, certificates that do not verify, ports that refuse or stay silent."""
    folder = lab.folder / "certificates"
    folder.mkdir(exist_ok=True)
    authority = await asyncio.to_thread(Authority, folder)
    contexts = {
        "expired": authority.server("expired", is_expired=True),
        "wrong-name": authority.server("wrong", host="DNS:elsewhere.example"),
        "self-signed": authority.server("unknown", issuer="stranger"),
    }
    each = lab.count(10, 2)
    with ExitStack() as stack:
        urls = {
            "no-name": "https://nobody.invalid/v1",
            "refused": f"http://127.0.0.1:{free_port()}/v1",
            "black-hole": f"http://127.0.0.1:{_black_hole(stack)}/v1",
        }
        return await _with_tls(lab, contexts, urls, authority.file, each)


async def _with_tls(
    lab: Lab, contexts: Mapping[str, ssl.SSLContext], urls: dict[str, str], authority: Path, each: int
) -> list[Figure]:
    servers = {name: _tls_server(context) for name, context in contexts.items()}
    read: list[list[bytes]] = []
    for name, server in servers.items():
        port, seen = await server.__aenter__()
        urls[name] = f"https://127.0.0.1:{port}/v1"
        read.append(seen)
    backends: dict[str, Any] = {
        name: table(0, base_url=url, timeouts=QUICK, ca_file=str(authority)) for name, url in urls.items()
    }
    figures: list[Figure] = []
    # Twice B is there, and once not: what cannot be reached is opened by its breaker like everything else.
    async with lab.gateway("r17", backends | lab.backends("up"), middleware=NO_RETRIES) as gateway:
        client = gateway.client
        for name in urls:
            answers = [await client.chat(f"{name}/m") for _ in range(each)]
            codes = sorted({f"{a.status} {a.error['code'] if a.error else None}" for a in answers})
            bad = sum(a.status not in (502, 503, 504) or not a.is_openai_error for a in answers)
            figures += [
                count("R17", f"{name}: not a 502, 503 or 504 ({', '.join(codes)})", bad, out_of=each),
                below("R17", f"{name}: longest, with 0.5 s to connect", max(a.seconds for a in answers), 0.6, "s"),
            ]
        client.close()
    for server in servers.values():
        await server.__aexit__(None, None, None)
    figures.append(count("R17", "requests sent to a certificate that does not verify", sum(any(seen) for seen in read)))
    return figures
