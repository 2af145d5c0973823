"""An encoder-decoder's answer that goes on from the cache of an earlier call: upstream's tokens and scores."""

import copy

import pytest
import torch
from parity.pairs import pair

from cutaway import Cache
from cutaway.errors import CheckpointError, GenerationError

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


ASKED = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True, "max_new_tokens": 3}


def begun(family):
    """A model, a source whose second row is padded, and the answers that were begun."""
    model = pair(family, "ForConditionalGeneration")[1]
    for name, value in SPECIAL.items():
        setattr(model.generation_config, name, value)
    ids = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    source = {"input_ids": ids, "attention_mask": mask}
    return model, source, model.generate(**source, **ASKED)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_cache_of_another_source_is_refused(family, tmp_path):
    model, source, part = begun(family)
    part.past_key_values.save(tmp_path / "cache")
    whole = model.generate(**source, decoder_input_ids=part.sequences, **ASKED)
    other = source["input_ids"].clone()
    other[1, 2] = 61
    shorter = source["attention_mask"].clone()
    shorter[0, -1] = 0
    hidden = source["input_ids"].clone()
    hidden[1, -1] = 61
    for make in (part.past_key_values.copy, lambda: Cache.load(tmp_path / "cache")):
        for change, row in (({"input_ids": other}, 1), ({"attention_mask": shorter}, 0)):
            with pytest.raises(GenerationError, match=f"another source than row {row} of input_ids"):
                model.generate(
                    **{**source, **change}, decoder_input_ids=part.sequences, past_key_values=make(), **ASKED
                )
        kept = {"decoder_input_ids": part.sequences, "past_key_values": make()}
        rest = model.generate(**{**source, "input_ids": hidden}, **kept, **ASKED)  # what the mask hides says nothing
        assert torch.allclose(torch.stack(rest.logits), torch.stack(whole.logits), atol=1e-5)
    turned = make()
    turned.select(torch.tensor([1, 0]))
    with pytest.raises(GenerationError, match="row 0"):
        model.generate(**source, decoder_input_ids=part.sequences, past_key_values=turned, **ASKED)
    back = {"decoder_input_ids": part.sequences.flip(0), "past_key_values": turned}
    rest = model.generate(**{name: value.flip(0) for name, value in source.items()}, **back, **ASKED)
    assert torch.allclose(torch.stack(rest.logits).flip(1), torch.stack(whole.logits), atol=1e-5)
    damaged = make()
    damaged.source_ids = [[1, 2], [3, 4]]
    damaged.save(tmp_path / "damaged")
    with pytest.raises(CheckpointError, match="ids of 2 sources"):
        Cache.load(tmp_path / "damaged")
    turned.reset()
    assert turned.ids is None and turned.source_ids is None


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("changed", [0, 1, 2])
def test_another_beginning_of_the_answer_is_computed_anew(family, changed):
    model, source, part = begun(family)
    assert [len(ids) for ids in part.past_key_values.ids] == [3, 3]
    new = part.sequences.clone()
    new[1, changed] = 77
    whole = model.generate(**source, decoder_input_ids=new, **ASKED)
    rest = model.generate(**source, decoder_input_ids=new, past_key_values=part.past_key_values, **ASKED)
    assert torch.equal(rest.sequences, whole.sequences)
    assert torch.allclose(torch.stack(rest.logits), torch.stack(whole.logits), atol=1e-5)
    again = model.generate(**source, decoder_input_ids=rest.sequences, past_key_values=rest.past_key_values, **ASKED)
    whole = model.generate(**source, decoder_input_ids=rest.sequences, **ASKED)
    assert torch.allclose(torch.stack(again.logits), torch.stack(whole.logits), atol=1e-5)


@pytest.mark.parametrize("more", [{"num_beams": 2}, {"num_return_sequences": 2, "do_sample": True}])
def test_several_answers_of_a_source_have_it_in_the_cache(more):
    model, source, _ = begun("t5")
    sources = source["input_ids"].masked_fill(source["attention_mask"] == 0, -1).tolist()
    cache = model.generate(**source, **{**ASKED, **more}).past_key_values
    assert cache.source_ids == [ids for ids in sources for _ in range(2)]
