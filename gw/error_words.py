"""The words by which providers name their failures, as data: codes, types, and phrases where there is no code."""

from __future__ import annotations

# Statuses that mean the same whoever sends them, a web page in front of the provider included.
MEANINGFUL = frozenset({401, 402, 403, 408, 409, 413, 429})

OPENAI_TYPES = frozenset(
    {"invalid_request_error", "authentication_error", "permission_error", "not_found_error", "rate_limit_error"}
    | {"api_error", "server_error", "insufficient_quota", "tokens", "requests", "image_generation_user_error"}
)
CONTEXT_LENGTH = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "model_context_window_exceeded"}
)
CONTENT_FILTER = frozenset(
    {"content_filter", "content_policy_violation", "responsibleaipolicyviolation", "data_inspection_failed"}
    | {"moderation", "moderation_blocked", "sensitive"}
)
DEAD_KEY = frozenset(
    {"api_key_invalid", "invalid_api_key", "invalid_authentication_error", "authentication_error", "unauthenticated"}
    | {"permission_error", "permission_denied", "access_token_expired", "account_deactivated", "deactivated_workspace"}
)
QUOTA = frozenset({"insufficient_quota", "billing_error", "billing_hard_limit_reached", "insufficient_balance"})
RATE_LIMIT = frozenset(
    {"rate_limit_error", "rate_limit_exceeded", "ratelimitreached", "resource_exhausted", "too_many_requests"}
    | {"throttling", "throttlingexception", "rate_limited"}
)
STATUS_OF_WORD = {
    "overloaded_error": 529,
    "overloaded": 529,
    "unavailable": 503,
    "service_unavailable": 503,
    "engine_overloaded": 503,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "api_error": 500,
    "server_error": 500,
    "internal": 500,
    "internal_server_error": 500,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "badrequesterror": 400,
    "failed_precondition": 400,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "request_too_large": 413,
}
# Patterns are texts where only a failure asks for them: `re` compiles and keeps them then, and not at every start.
TOO_LONG = (
    r"(?i)maximum context length|context length is only|exceeds? the (?:model's )?(?:maximum )?context|context window"
    r"|prompt is too long|input is too long|available context size|maximum number of tokens allowed"
    r"|input token count .{0,40}exceeds|too many (?:input )?tokens|longer than the model's context"
)
FILTERED = r"(?i)content (?:management|filtering) policy|input was flagged|flagged by (?:our )?moderation"
NO_MONEY = (
    r"(?i)exceeded your current quota|insufficient (?:balance|credits|funds|quota)|credit balance is too low"
    r"|billing hard limit|more credits"
)
TOO_FAST = r"(?i)rate.?limit|too many requests|quota|tokens per (?:minute|day)"
WORD = r"(?!\d+\Z)\S{1,64}"
NO_MODEL = r"(?i)\bmodel"
