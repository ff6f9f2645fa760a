"""One candidate of a Gemini answer: its parts as OpenAI's delta, whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gw.adapters.gemini.draft import Names
from gw.adapters.gemini.partial_arguments import PartialArguments
from gw.adapters.gemini.signatures import FORMAT, image_place, text_place
from gw.provider_json import write_exactly

Delta = dict[str, Any]


class Candidate:
    """What is known of one candidate so far. `read` turns parts into a delta and is called once for a whole answer."""

    __slots__ = (
        *("_block", "_is_thinking", "_keep", "_names", "_new_id", "_open", "calls", "citations", "finish"),
        *("has_spoken", "images", "index", "texts"),
    )

    def __init__(self, index: int, names: Names, new_id: Callable[[], str], keep: Callable[[str, str], None]) -> None:
        self.index = index
        self.calls = 0  # tool calls begun
        self.images = 0
        self.citations = 0  # given out in a stream
        self.has_spoken = False  # whether its audio has its id
        self.finish: str | None = None  # Google's word
        self.texts: list[str] = []  # the visible text of a stream: citations tell places in it
        self._names = names
        self._new_id = new_id
        self._keep = keep  # tool call id, signature
        self._block = 0  # the next index in reasoning_details
        self._is_thinking = False  # whether the last part was a thought, so that the next one continues its block
        self._open: tuple[dict[str, Any], PartialArguments] | None = None  # a call whose arguments still arrive

    def read(self, parts: Sequence[Mapping[str, Any]]) -> Delta:
        """The parts as one delta, without a role; empty where they hold nothing for a client.

        ValueError for arguments in pieces that do not fit together.
        """
        if len(parts) == 1 and len(parts[0]) == 1 and "text" in parts[0]:  # nearly every event of a stream
            text = parts[0]["text"]
            if not text:
                return {}
            self._is_thinking = False
            return {"content": text}
        delta: Delta = {}
        for part in parts:
            text = part.get("text")
            call = part.get("functionCall")
            if call is not None:
                self._is_thinking = False
                self._read_call(call, part.get("thoughtSignature"), delta)
            elif text is not None:
                if part.get("thought"):
                    self._read_thought(text, part.get("thoughtSignature"), delta)
                    continue
                if "thoughtSignature" in part:
                    start = self._length(delta)
                    self._sign(part["thoughtSignature"], text_place(start, start + len(text)), delta)
                if text:
                    self._is_thinking = False
                    delta["content"] = delta["content"] + text if "content" in delta else text
            elif "inlineData" in part and not part.get("thought"):  # a draft of an image is no part of the answer
                place = self._read_media(part["inlineData"], delta)
                if "thoughtSignature" in part:
                    self._sign(part["thoughtSignature"], place, delta)
            elif "thoughtSignature" in part:
                at = self._length(delta)
                self._sign(part["thoughtSignature"], text_place(at, at), delta)
        return delta

    def close(self) -> Delta:
        """What was still open when the answer ended: a call whose arguments came in pieces."""
        delta: Delta = {}
        self._close_call(delta)
        return delta

    # --- reasoning ------------------------------------------------------------------------------------------------

    def _read_thought(self, text: str, signature: str | None, delta: Delta) -> None:
        if not self._is_thinking:
            self._is_thinking = True
            self._block += 1
        detail = {"type": "reasoning.text", "text": text, "format": FORMAT, "index": self._block - 1}
        if signature:
            detail["signature"] = signature
        details = delta.setdefault("reasoning_details", [])
        last = details[-1] if details else None
        if last is not None and last["index"] == detail["index"]:
            last["text"] += text
            if signature:
                last["signature"] = signature
        else:
            details.append(detail)
        delta["reasoning_content"] = delta.get("reasoning_content", "") + text

    def _sign(self, signature: str, signed: str, delta: Delta) -> None:
        """`signed`: the id of a tool call, or a place."""
        self._is_thinking = False
        detail = {"type": "reasoning.encrypted", "data": signature, "format": FORMAT, "index": self._block}
        self._block += 1
        detail["id"] = signed
        delta.setdefault("reasoning_details", []).append(detail)

    def _length(self, delta: Delta) -> int:
        """How much of the visible text has been read."""
        return sum(map(len, self.texts)) + len(delta.get("content", ""))

    # --- calls ----------------------------------------------------------------------------------------------------

    def _read_call(self, call: Mapping[str, Any], signature: str | None, delta: Delta) -> None:
        name = call.get("name")
        if name:
            self._close_call(delta)
            begun = self._begin_call(call, name, signature, delta)
            if not call.get("willContinue") and "partialArgs" not in call:
                self._give_call(begun, call.get("args"), delta)
                return
            self._open = begun, PartialArguments()
        if self._open is None:
            return
        if call.get("partialArgs"):
            self._open[1].add(call["partialArgs"])
        if isinstance(call.get("args"), dict):
            self._open[1].value.update(call["args"])
        if not call.get("willContinue"):
            self._close_call(delta)

    def _begin_call(self, call: Mapping[str, Any], name: str, signature: str | None, delta: Delta) -> dict[str, Any]:
        call_id = call.get("id") or self._new_id()
        begun: dict[str, Any] = {"index": self.calls, "id": call_id, "type": "function", "name": name}
        self.calls += 1
        if signature:
            begun["extra_content"] = {"google": {"thought_signature": signature}}
            self._sign(signature, call_id, delta)
            self._keep(call_id, signature)
        return begun

    def _close_call(self, delta: Delta) -> None:
        if self._open is not None:
            begun, arguments = self._open
            self._open = None
            self._give_call(begun, arguments.value, delta)

    def _give_call(self, begun: dict[str, Any], arguments: Any, delta: Delta) -> None:
        name = self._names.to_client(begun.pop("name"))
        arguments = {} if arguments is None else arguments
        if name in self._names.custom:
            given = arguments.get("input") if isinstance(arguments, dict) else None
            text = given if isinstance(given, str) else write_exactly(arguments).decode()
            begun["type"] = "custom"
            begun["custom"] = {"name": name, "input": text}
        else:
            begun["function"] = {"name": name, "arguments": write_exactly(arguments).decode()}
        delta.setdefault("tool_calls", []).append(begun)

    # --- media ----------------------------------------------------------------------------------------------------

    def _read_media(self, media: Mapping[str, Any], delta: Delta) -> str:
        """Its place."""
        self._is_thinking = False
        at = self._length(delta)
        media_type, data = str(media.get("mimeType") or ""), media.get("data") or ""
        if media_type.startswith("audio/"):
            audio = delta.setdefault("audio", {"data": "", "transcript": ""})
            audio["data"] += data
            return text_place(at, at)
        url = f"data:{media_type or 'application/octet-stream'};base64,{data}"
        number = self.images
        delta.setdefault("images", []).append({"index": number, "type": "image_url", "image_url": {"url": url}})
        self.images += 1
        return image_place(number, at)
