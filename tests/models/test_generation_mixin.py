"""What loops of others ask of a model that writes."""

from __future__ import annotations

import torch

import cutaway


def model() -> cutaway.LlamaForCausalLM:
    torch.manual_seed(0)
    return cutaway.LlamaForCausalLM(
        cutaway.LlamaConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
    ).eval()


@torch.no_grad()
def test_a_loop_in_upstreams_steps_gives_what_generate_gives() -> None:
    """captum's loop: the arguments of a pass, `forward` itself, and the arguments after it."""
    lm, ids = model(), torch.tensor([[5, 6, 7]])
    kwargs = {
        "attention_mask": torch.ones_like(ids), "cache_position": torch.arange(3), "use_cache": True,
        "token_type_ids": torch.zeros_like(ids),
    }  # fmt: skip
    text = ids
    for step in range(4):
        inputs = lm.prepare_inputs_for_generation(text, **kwargs)
        assert "cache_position" not in inputs
        assert inputs["input_ids"].shape[1] == (3 if step == 0 else 1)
        out = lm.forward(**{k: v for k, v in inputs.items() if k != "token_type_ids"})
        kwargs = lm._update_model_kwargs_for_generation(out, kwargs)
        text = torch.cat((text, out.logits[:, -1:].argmax(-1)), 1)
        assert kwargs["attention_mask"].shape == kwargs["token_type_ids"].shape == text.shape
        assert kwargs["cache_position"].tolist() == [step + 3]
    assert text.tolist() == lm.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None).tolist()


def test_what_a_config_of_upstreams_leaves_unset_is_unset() -> None:
    """Its to_dict names every setting, those that are None as well."""
    import transformers

    lm, ids = model(), torch.tensor([[5, 6, 7]])
    settings = transformers.GenerationConfig(max_new_tokens=2, do_sample=False)
    assert "max_length" in settings.to_dict()
    found = lm.generate(ids, generation_config=settings)
    assert found.tolist() == lm.generate(ids, max_new_tokens=2, do_sample=False).tolist()


def test_classes_are_other_than_upstreams() -> None:
    assert model().is_custom_code()
