"""A model that shows what the search did: its logits are fixed random numbers for each text so far.

It follows the engine's forward contract (cache, padding, logits_to_keep) and costs nothing, so that the search can be
tested by itself. A wrong cache row, position, mask or history gives other logits.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.outputs import CausalLMOutputWithPast, Layers, Seq2SeqLMOutput


class FakeCache:
    def __init__(self, texts: list[list[int]], columns: int) -> None:
        self.texts, self.columns = texts, columns

    @property
    def lengths(self) -> Tensor:
        return torch.tensor([len(text) for text in self.texts])

    def select(self, index: Tensor) -> None:
        self.texts = [list(self.texts[i]) for i in index.tolist()]


class FakeModel(nn.Module):
    """vocab ids; with `encoder_decoder`, the encoder's text is part of what the logits depend on."""

    def __init__(
        self, vocab: int = 31, encoder_decoder: bool = False, positions: int | None = 64, **config: Any
    ) -> None:
        super().__init__()
        self.vocab, self.is_encoder_decoder = vocab, encoder_decoder
        stack = SimpleNamespace(longest=positions, embedding=SimpleNamespace(vocab_size=vocab))
        self.architecture = SimpleNamespace(stack=stack, decoder=stack if encoder_decoder else None, writer=stack)
        self.config = SimpleNamespace(
            to_dict=lambda: dict(config),
            get_text_config=lambda **_: self.config,
            decoder_start_token_id=config.get("decoder_start_token_id"),
        )
        self.device = torch.device("cpu")
        self.calls: list[dict[str, Any]] = []
        self.encoder_runs = 0
        self.rig: dict[tuple[int, ...], int] = {}  # text -> the token that must follow
        self.broken = False
        self.modes: list[bool] = []
        self.child = nn.Dropout()

    def logits_of(self, text: list[int], source: list[int]) -> Tensor:
        seed = 7
        for token in [*source, -5, *text]:
            seed = (seed * 1000003 + token + 11) % (2**61)
        logits = torch.randn(self.vocab, generator=torch.Generator().manual_seed(seed)) * 3
        if tuple(text) in self.rig:
            logits[self.rig[tuple(text)]] = 50.0
        return logits * float("nan") if self.broken else logits

    def decode_stepper(self) -> None:
        """Each step needs `forward`, as in a model of a user's own."""

    def forward(self, **inputs: Any) -> Any:
        self.calls.append(inputs)
        self.modes.append(self.child.training)
        if not self.is_encoder_decoder:
            return self.decode(inputs, inputs["input_ids"], inputs.get("attention_mask"), None)
        if "encoder_outputs" in inputs:
            memory = inputs["encoder_outputs"][0]
        else:
            self.encoder_runs += 1
            memory = inputs["input_ids"].float()[..., None]  # [B, S, 1]
        sources = memory[..., 0].long().tolist()
        mask = inputs.get("attention_mask")
        if mask is not None:
            sources = [[t for t, m in zip(r, n, strict=True) if m] for r, n in zip(sources, mask.tolist(), strict=True)]
        out = self.decode(inputs, inputs["decoder_input_ids"], inputs.get("decoder_attention_mask"), sources)
        return Seq2SeqLMOutput(
            logits=out.logits,
            past_key_values=out.past_key_values,
            encoder_last_hidden_state=memory,
            decoder_attentions=out.get("attentions"),
            cross_attentions=out.get("attentions"),
            encoder_attentions=(memory,) if inputs["output_attentions"] else None,
            decoder_hidden_states=out.get("hidden_states"),
            encoder_hidden_states=(memory, memory) if inputs["output_hidden_states"] else None,
        )

    def decode(self, inputs: dict[str, Any], ids: Tensor, mask: Tensor | None, sources: Any) -> CausalLMOutputWithPast:
        cache = inputs.get("past_key_values")
        assert inputs["logits_to_keep"] == 1
        assert inputs["return_dict"] is True
        if cache is not None:
            assert ids.shape == (len(cache.texts), 1)
            assert mask is None
            for text, row in zip(cache.texts, ids.tolist(), strict=True):
                text.extend(row)
            cache.columns += 1
            texts, queries, columns = cache.texts, 1, cache.columns
        else:
            real = torch.ones_like(ids) if mask is None else mask
            assert real.shape == ids.shape
            texts = [
                [t for t, m in zip(r, n, strict=True) if m] for r, n in zip(ids.tolist(), real.tolist(), strict=True)
            ]
            queries = columns = ids.shape[1]
            cache = FakeCache(texts, columns)
        logits = torch.stack([self.logits_of(t, sources[b] if sources else []) for b, t in enumerate(texts)])
        mark = torch.tensor([[float(sum(t))] for t in texts])  # [B, 1]
        attention = mark[:, :, None, None].expand(-1, 2, queries, columns)  # [B, heads, queries, columns]
        hidden = mark[:, :, None].expand(-1, queries, 3)  # [B, queries, 3]
        asked = inputs["output_attentions"]
        attentions: Any = None
        if asked is True:
            attentions = (attention, attention)
        elif asked is not False:
            attentions = Layers(dict.fromkeys(asked, attention), 2, "attentions")
        return CausalLMOutputWithPast(
            logits=logits[:, None],
            past_key_values=cache if inputs["use_cache"] else None,
            attentions=attentions,
            hidden_states=(hidden,) * 3 if inputs["output_hidden_states"] else None,
        )
