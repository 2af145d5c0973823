"""An encoder-decoder's answer that goes on from the cache of an earlier call: upstream's tokens and scores."""

import copy

import pytest
import torch
from parity.pairs import pair

from cutaway.errors import GenerationError

SPECIAL = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": None, "forced_eos_token_id": None}


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_answer_goes_on_as_if_it_had_not_stopped(family):
    models = pair(family, "ForConditionalGeneration")
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (2, 7), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    found = []
    for model in models:
        for name, value in SPECIAL.items():
            setattr(model.generation_config, name, value)
        asked = {"do_sample": False, "repetition_penalty": 3.0, "return_dict_in_generate": True, "output_logits": True}
        source = {"input_ids": ids, "attention_mask": mask}
        whole = model.generate(**source, max_new_tokens=6, **asked)
        part = model.generate(**source, max_new_tokens=3, **asked)
        assert part.sequences[:, 1:].unique().numel() > 1
        kept = {"decoder_input_ids": part.sequences, "past_key_values": part.past_key_values, "max_new_tokens": 3}
        cut = copy.deepcopy(kept["past_key_values"])
        rest = model.generate(**source, **kept, **asked)
        found.append((torch.stack(whole.logits), torch.stack(rest.logits)))  # upstream's rest is not that of its whole
    assert torch.equal(rest.sequences, whole.sequences)
    assert torch.allclose(found[1][1], found[1][0][3:], atol=1e-5)
    assert torch.allclose(found[1][0], found[0][0], atol=1e-5)
    for wrong in ({"decoder_input_ids": part.sequences[:, :3]}, {"num_return_sequences": 2, "do_sample": True}):
        with pytest.raises(GenerationError, match="answers so far"):
            models[1].generate(**source, **{**asked, **kept, "past_key_values": copy.deepcopy(cut), **wrong})
