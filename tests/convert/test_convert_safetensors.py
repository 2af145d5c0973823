"""A checkpoint in 16 bits: the same names and files, read by transformers as by us."""

import pytest
import tiny
import torch
import transformers

from cutaway import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from cutaway.convert import to_gguf, to_safetensors
from cutaway.errors import InputError


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_weights_get_the_format_and_everything_else_stays(tmp_path, dtype):
    folder = tiny.classifier(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    out = to_safetensors(folder, tmp_path / "half", dtype)
    before, after = (transformers.AutoModelForSequenceClassification.from_pretrained(f) for f in (folder, out))
    wanted = getattr(torch, dtype)
    assert {k: v.to(wanted) for k, v in before.state_dict().items()}.keys() == after.state_dict().keys()
    for name, value in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], value.to(wanted) if value.is_floating_point() else value)
    assert AutoModelForSequenceClassification.from_pretrained(out).dtype == wanted
    assert (
        AutoTokenizer.from_pretrained(out)("a film").input_ids
        == AutoTokenizer.from_pretrained(folder)("a film").input_ids
    )
    assert (out / "1_Pooling" / "config.json").exists()


def test_gguf_becomes_a_folder_that_transformers_reads(tmp_path):
    folder = tiny.decoder(tmp_path / "dec")
    file = to_gguf(folder, tmp_path / "dec.gguf", "f32")
    out = to_safetensors(file, tmp_path / "back", "float32")
    ours = AutoModelForCausalLM.from_pretrained(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    ids = torch.randint(1, 200, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(input_ids=ids).logits, rtol=1e-5, atol=1e-4)
    assert (
        transformers.AutoTokenizer.from_pretrained(out)("A film.").input_ids
        == AutoTokenizer.from_pretrained(folder)("A film.").input_ids
    )


def test_own_folder_other_formats_and_overflow_are_refused(tmp_path):
    folder = tiny.classifier(tmp_path / "bert")
    with pytest.raises(InputError, match="own folder"):
        to_safetensors(folder, folder)
    with pytest.raises(InputError, match="bfloat16"):
        to_safetensors(folder, tmp_path / "x", "int8")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] = 1e5
    model.save_pretrained(folder)
    with pytest.raises(InputError, match="65,504"):
        to_safetensors(folder, tmp_path / "x", "float16")
    assert not list((tmp_path / "x").glob("*.safetensors"))
