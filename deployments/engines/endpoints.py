"""The paths at which engines can be asked: one spelling of each, for the engines that have it and
for the gateway.

Asked of the binaries and read in their sources: llama.cpp tools/server/server.cpp, ik_llama.cpp
examples/server/server.cpp (8337e4cd), vLLM entrypoints (99d7eb5d), TabbyAPI
endpoints/OAI/router.py (e632af41).
"""

from __future__ import annotations

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
RESPONSES_TOKENS = "/v1/responses/input_tokens"
MESSAGES = "/v1/messages"
MESSAGES_TOKENS = "/v1/messages/count_tokens"
EMBEDDINGS = "/v1/embeddings"
RERANK = "/v1/rerank"
INFILL = "/infill"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"

# What every server has that calls itself compatible with OpenAI's.
USUAL = frozenset({CHAT, COMPLETIONS})
EVERY = USUAL | {
    RESPONSES,
    RESPONSES_TOKENS,
    MESSAGES,
    MESSAGES_TOKENS,
    EMBEDDINGS,
    RERANK,
    INFILL,
    TOKENIZE,
    DETOKENIZE,
}
