"""The paths at which engines can be asked: one spelling of each, for the engines that have it and
for the gateway.

llama.cpp was asked. What ik_llama.cpp has was read in its server's source, at the versions that
could be had; what vLLM and TabbyAPI have is from their documentation, and was not tried.
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
