"""Every route of the server, in one table."""

from __future__ import annotations

from cutaway.serve import (
    explain,
    inference,
    ollama,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_responses,
    rerank,
    server_routes,
    tei,
)
from cutaway.serve.route import Route

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", server_routes.running, "That there is a server.", query=None),
    Route("GET", "/health", server_routes.health, "Whether the server is ready.", query=None),
    Route("GET", "/metrics", server_routes.metrics, "Counters for Prometheus.", query=None),
    Route("GET", "/info", server_routes.info, "The models and the bounds."),
    Route("GET", "/openapi.json", server_routes.document, "This document."),
    Route("GET", "/v1/models", server_routes.models, "The models."),
    Route("GET", "/v1/models/{name:path}", server_routes.model, "One model."),
    Route("POST", "/v1/chat/completions", openai_chat.chat, "Answer a conversation.", openai_chat.ChatBody),
    Route(
        "POST",
        "/v1/completions",
        openai_completions.completions,
        "Go on with texts.",
        openai_completions.CompletionBody,
    ),
    Route("POST", "/v1/embeddings", openai_embeddings.embeddings, "Vectors of texts.", openai_embeddings.EmbeddingBody),
    Route("POST", "/v1/responses", openai_responses.responses, "Answer.", openai_responses.ResponseBody),
    Route("POST", "/v1/rerank", rerank.rerank, "Documents by a query.", rerank.RerankBody),
    Route("POST", "/embed", tei.embed_route, "Vectors of texts.", tei.EmbedBody),
    Route("POST", "/embed_all", tei.embed_all, "Vectors of tokens.", tei.EmbedAllBody),
    Route("POST", "/predict", tei.predict, "Labels of texts.", tei.PredictBody),
    Route("POST", "/rerank", tei.rerank, "Texts by a query.", tei.RerankBody),
    Route("POST", "/similarity", tei.similarity, "One sentence beside others.", tei.SimilarityBody),
    Route("POST", "/tokenize", tei.tokenize, "Tokens of texts.", tei.TokenizeBody),
    Route("POST", "/decode", tei.decode, "Texts of tokens.", tei.DecodeBody),
    Route("POST", "/explain", explain.explain, "What a model does with a text.", explain.ExplainBody),
    Route("GET", "/api/version", ollama.version, "The server's version."),
    Route("GET", "/api/tags", ollama.tags, "The models."),
    Route("GET", "/api/ps", ollama.running, "The models that are loaded."),
    Route("POST", "/api/show", ollama.show, "One model.", ollama.ShowBody),
    Route("POST", "/api/generate", ollama.generate, "Answer a prompt.", ollama.GenerateBody),
    Route("POST", "/api/chat", ollama.chat, "Answer a conversation.", ollama.OllamaChatBody),
    Route("POST", "/api/embed", ollama.embed_route, "Vectors of texts.", ollama.OllamaEmbedBody),
    Route("POST", "/api/embeddings", ollama.embeddings, "A vector of a text.", ollama.OllamaEmbeddingsBody),
    Route("POST", "/", inference.inference, "What the first model does.", inference.InferenceBody),
    Route("POST", "/pipeline/{task}", inference.inference, "A task.", inference.InferenceBody),
    Route("POST", "/pipeline/{task}/{name:path}", inference.inference, "A task of a model.", inference.InferenceBody),
    # the rest of a chat client's address may follow the model's name
    Route(
        "POST",
        "/models/{name:path}/v1/chat/completions",
        openai_chat.chat,
        "Answer a conversation.",
        openai_chat.ChatBody,
        form="openai",
    ),
    Route("POST", "/models/{name:path}", inference.inference, "What a model does.", inference.InferenceBody),
)
