"""A stack that is called alone: the encoder or the decoder of an encoder-decoder, as upstream's."""

from __future__ import annotations

import pytest
import torch
from parity.pairs import TOLERANCE, gap, pair, texts

from cutaway.errors import InputError


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("looks", [False, True])
def test_a_decoder_alone(family: str, looks: bool) -> None:
    """With a cache and without one; with what an encoder said, and without."""
    theirs, ours = pair(family, "Model")
    theirs, ours = theirs.get_decoder(), ours.get_decoder()
    ids, more = torch.stack(texts((6, 6))), torch.stack(texts((2, 2), seed=5))
    draw = torch.Generator().manual_seed(2)
    memory = {"encoder_hidden_states": torch.randn(2, 5, 32, generator=draw)} if looks else {}
    if looks:
        memory["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        wanted = theirs(input_ids=torch.cat((ids, more), 1), use_cache=False, **memory)[0]
        assert gap(ours(torch.cat((ids, more), 1), **memory)[0], wanted) < TOLERANCE
        begun = ours(ids, use_cache=True, **memory)
        assert len(begun.to_tuple()) == 2 and gap(begun[0], wanted[:, :6]) < TOLERANCE
        rest = ours(more, past_key_values=begun.past_key_values, **memory)
        assert gap(rest[0], wanted[:, 6:]) < TOLERANCE


def test_what_a_stack_cannot_have_is_an_error() -> None:
    encoder = pair("t5", "Model")[1].get_encoder()
    ids = texts((4,))[0][None]
    for fields, message in (
        ({"use_cache": True}, "reads the whole text at once"),
        ({"encoder_hidden_states": torch.zeros(1, 3, 32)}, "this stack does not"),
    ):
        with pytest.raises(InputError, match=message):
            encoder(ids, **fields)


def test_answers_may_be_sought_in_vectors() -> None:
    theirs, ours = pair("t5", "ForQuestionAnswering")
    draw = torch.Generator().manual_seed(4)
    vectors = {name: torch.randn(2, 6, 32, generator=draw) for name in ("inputs_embeds", "decoder_inputs_embeds")}
    with torch.no_grad():
        wanted, found = theirs(**vectors), ours(**vectors)
    for name in ("start_logits", "end_logits"):
        assert gap(found[name], wanted[name]) < TOLERANCE
