"""The HTTP edge: requests in, answers out, and nothing that is not HTTP as it must be gets any further."""

from gw.server.limits import Limits
from gw.server.response import AppHandler, Reply
from gw.server.server import Server

__all__ = ["AppHandler", "Limits", "Reply", "Server"]
