"""The built-in middleware by the names that `pipeline` uses; a module is imported when a pipeline names it."""

BUILT_IN = {
    "cors": "gw.middleware.cors:CORS",
    "auth": "gw.middleware.auth:Auth",
    "rate_limit": "gw.middleware.rate_limit:RateLimit",
    "route": "gw.middleware.route:Route",
    "fallback": "gw.middleware.fallback:Fallback",
    "log": "gw.middleware.log:Log",
    "translate": "gw.middleware.translate:Translate",
}
