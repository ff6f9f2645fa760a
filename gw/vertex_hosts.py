"""Where Vertex AI answers: one host for the world, one for each multi-region, one for each region."""

from __future__ import annotations

from urllib.parse import quote


def host_of(location: str) -> str:
    """The address of Vertex AI for a location: global, a multi-region (us, eu) or a region."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{quote(location, safe='')}-aiplatform.googleapis.com"
