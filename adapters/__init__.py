"""The built-in adapters by the names that `adapter = ...` uses; a module is imported when a backend names it."""

BUILT_IN = {
    "openai": "gw.adapters.openai:OpenAI",
    "openrouter": "gw.adapters.openrouter:OpenRouter",
    "anthropic": "gw.adapters.anthropic:Anthropic",
    "gemini": "gw.adapters.gemini:Gemini",
    "vertex-gemini": "gw.adapters.vertex_gemini:VertexGemini",
    "vertex-anthropic": "gw.adapters.vertex_anthropic:VertexAnthropic",
    "ollama": "gw.adapters.ollama:Ollama",
    "claude-cli": "gw.adapters.claude_cli:ClaudeCLI",
    "echo": "gw.adapters.echo:Echo",
    "faulty": "gw.adapters.faulty:Faulty",
}
