"""The built-in adapters by the names that `adapter = ...` uses; a module is imported when a backend names it."""

BUILT_IN = {
    "openai": "gw.adapters.openai:OpenAI",
    "openrouter": "gw.adapters.openrouter:OpenRouter",
    "anthropic": "gw.adapters.anthropic:Anthropic",
    "gemini": "gw.adapters.gemini:Gemini",
    "vertex-gemini": "gw.adapters.vertex_gemini:VertexGemini",
    "vertex-anthropic": "gw.adapters.vertex_anthropic:VertexAnthropic",
    "ollama": "gw.adapters.ollama:Ollama",
    "echo": "gw.adapters.echo:Echo",
}

ANNOUNCED = {
    "claude-cli": "the claude-cli adapter is not part of this version of gw; use another backend for now",
}
"""Names that a configuration may hold although nothing answers to them yet, and what its backend says instead."""
