"""Models over HTTP: an engine for any OpenAI-compatible server (vLLM, SGLang, llama.cpp, `transformers serve`).

`exchange` sends one request, `pacing` says how many at a time, `dispatching` sends many and tries again, `abilities` finds out
what the server can do, `bodies` and `answers` turn requests into JSON and JSON into results, `scoring` gets log-probabilities,
`engine` puts them together.
"""

from cai.engines.server.dispatching import Retries
from cai.engines.server.engine import ServerEngine, check_scoring

__all__ = ["Retries", "ServerEngine", "check_scoring"]
