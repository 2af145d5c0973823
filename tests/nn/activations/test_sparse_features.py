"""A sparse autoencoder at an address: without an edit nothing changes, and an edit goes through its decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models.test_sae_files import write_sae
from parity.pairs import inputs, load
from parity.tiny_models import make

import cutaway
from cutaway import Edit
from cutaway.errors import AddressError, InputError
from cutaway.inspect import reconstruction, strong_features, top_texts

CLOSE = 1e-5
KINDS = ("standard", "gated", "jumprelu", "topk", "batchtopk")


def model_of(family: str) -> Any:
    ending = {"gpt2": "LMHeadModel", "bert": "ForMaskedLM", "t5": "ForConditionalGeneration"}.get(family, "ForCausalLM")
    return load(make(family, ending), ending)


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return model_of("gpt2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(7,), (7, 4)], ids=["one", "padded"])
def test_features_are_those_of_the_recorded_vectors(kind: str, lengths: tuple[int, ...], tmp_path: Path) -> None:
    """Recording changes no bit; features times decoder plus bias plus error is the activation; padding has none."""
    model = model_of("llama")
    given = inputs("llama", lengths)
    with torch.no_grad():
        plain = model(**given).logits
        sae = model.attach_sae("blocks.1.hook_resid_post", write_sae(tmp_path / "s", kind, 32, 64), "mine")
        assert (sae.reads, sae.writes, sae.addresses) == ("blocks.1.resid",) * 2 + (
            ("sae.mine.features", "sae.mine.error"),
        )
        assert torch.equal(model(**given).logits, plain)
        with model.record("sae.mine.*", "blocks.1.resid") as r:
            assert torch.equal(model(**given).logits, plain)
        with model.record("sae.mine.features") as alone:
            model(**given)
        with model.edit({sae.features: lambda f: f}), model.record("sae.mine.*") as again:
            assert torch.equal(model(**given).logits, plain)
    x, features = r["blocks.1.resid"], r[sae.features]
    real = given.get("attention_mask", torch.ones_like(given["input_ids"])).bool()
    assert features.shape == (*x.shape[:2], 64)
    assert torch.equal(features[real], sae.sae.encode(x)[real]) and not features[~real].any()
    assert torch.equal(alone[sae.features], features)
    assert torch.allclose(again[sae.features][real], features[real], atol=CLOSE)
    made = sae.sae.decode(features, x) + r[sae.error]
    assert float((made - x)[real].abs().max()) < CLOSE
    assert bool((features[real] > 0).any())
    model.detach_sae("mine")
    assert "sae.mine.features" not in model.addresses()


@pytest.mark.parametrize(("family", "at"), [("gpt2", "blocks.1.resid"), ("bert", "blocks.0.mlp.out"),
                                            ("llama", "blocks.1.attn.z"), ("t5", "decoder.blocks.0.resid_mid"),
                                            ("t5", "encoder.blocks.1.resid"), ("gemma2", "embed")])  # fmt: skip
def test_an_edit_goes_through_the_decoder_and_keeps_the_error(family: str, at: str, tmp_path: Path) -> None:
    model = model_of(family)
    given = inputs(family, (7, 4))
    width = 64 if at.endswith("gemma2") else 32
    sae = model.attach_sae(at, write_sae(tmp_path / "s", "jumprelu", width, 64, normalize_activations="layer_norm"))
    with torch.no_grad():
        with model.record(at, sae.features, sae.error) as r:
            plain = model(**given).logits
        chosen = int((r[sae.features] > 0).sum((0, 1)).argmax())
        for edit, new in (
            (sae.scaled(chosen), lambda f: 0 * f),
            (sae.scaled([chosen], 3.0), lambda f: 3 * f),
            (sae.steered(chosen, 2.5), lambda f: f + 2.5),
        ):
            with model.edit(edit), model.record(at, sae.features, sae.error) as edited:
                changed = model(**given).logits
            features = r[sae.features].clone()
            features[..., chosen] = new(features[..., chosen])
            ids, mask = ("decoder_input_ids", "decoder_attention_mask") if at.startswith("decoder") else (
                "input_ids", "attention_mask")  # fmt: skip
            real = given.get(mask, torch.ones_like(given[ids])).bool()
            x = r[at].flatten(2)
            made = sae.sae.decode(features, x) + r[sae.error]
            assert float((edited[at].flatten(2) - made)[real].abs().max()) < 1e-4
            assert float((edited[sae.features] - features)[real].abs().max()) < CLOSE
            assert float((edited[sae.error] - r[sae.error])[real].abs().max()) < 1e-4
            with model.edit({at: edited}):  # what stands there is all that counts
                assert torch.allclose(model(**given).logits, changed, atol=1e-4)
            assert not torch.allclose(changed, plain, atol=1e-3)


def test_positions_generation_and_two_at_once(gpt2: Any, tmp_path: Path) -> None:
    given = inputs("gpt2", (7,))
    first = gpt2.attach_sae("blocks.0.resid", write_sae(tmp_path / "a", "standard", 32, 64))
    second = gpt2.attach_sae("blocks.0.resid", write_sae(tmp_path / "b", "topk", 32, 64))
    assert (first.name, second.name) == ("0", "1")
    try:
        with torch.no_grad():
            with gpt2.record("sae.*.features", "blocks.0.resid") as r:
                gpt2(**given)
            with gpt2.edit(first.steered(3, 5.0, positions=slice(4, None))), gpt2.record("sae.*.features") as edited:
                gpt2(**given)
            assert torch.equal(r[first.features][:, :4], edited[first.features][:, :4])
            assert torch.allclose(edited[first.features][:, 4:, 3], r[first.features][:, 4:, 3] + 5)
            assert not torch.equal(r[second.features][:, 4:], edited[second.features][:, 4:])  # it reads what is left
            with gpt2.edit(first.steered(3, 5.0)), gpt2.record(first.features) as steps:
                ids = gpt2.generate(**given, max_new_tokens=4, do_sample=False)
                whole = gpt2(input_ids=ids).logits
            assert len(steps.runs) == 5
            assert torch.equal(whole[:, 6:-1].argmax(-1), ids[:, 7:])
    finally:
        gpt2.detach_sae("0")
        gpt2.detach_sae("1")


def test_gradients_of_features_and_of_everything_else(gpt2: Any, tmp_path: Path) -> None:
    """A feature's gradient is the decoder's row times that of the place; other gradients are those of no recording."""
    given = inputs("gpt2", (7,))
    sae = gpt2.attach_sae("blocks.1.resid", write_sae(tmp_path / "s", "standard", 32, 64), "g")
    try:
        weight = gpt2.transformer.h[0].mlp.c_fc.weight
        loss = gpt2(**given, labels=given["input_ids"]).loss
        (plain,) = torch.autograd.grad(loss, weight)
        with gpt2.record(sae.features, "blocks.1.resid") as r:
            loss = gpt2(**given, labels=given["input_ids"]).loss
        loss.backward()
        torch.testing.assert_close(weight.grad, plain)
        expected = r.grad("blocks.1.resid") @ sae.sae.decoder.T
        torch.testing.assert_close(r.grad(sae.features), expected)
    finally:
        gpt2.detach_sae("g")
        gpt2.zero_grad()


def test_a_transcoder_reads_one_place_and_writes_another(tmp_path: Path) -> None:
    model = model_of("llama")
    given = inputs("llama", (7, 4))
    sae = model.attach_sae("mlp_in.1", write_sae(tmp_path / "t", "skip_transcoder", 32, 64), "t")
    assert (sae.reads, sae.writes) == ("blocks.1.mlp.in", "blocks.1.mlp.out")
    places = (sae.reads, sae.writes, *sae.addresses)
    with torch.no_grad():
        plain = model(**given).logits
        with model.record(*places) as r:
            assert torch.equal(model(**given).logits, plain)
        features = r[sae.features].clone()
        real = given["attention_mask"].bool()
        assert torch.equal(features[real], sae.sae.encode(r[sae.reads])[real])
        made = sae.sae.decode(features, r[sae.reads]) + r[sae.error]
        assert float((made - r[sae.writes])[real].abs().max()) < CLOSE
        features[..., 5] = 0
        chosen = int((r[sae.features] > 0).sum((0, 1)).argmax())
        with model.edit(sae.scaled(chosen)), model.record(*places) as edited:
            model(**given)
        difference = -r[sae.features][..., chosen, None] * sae.sae.decoder[chosen]
        assert torch.equal(edited[sae.reads], r[sae.reads])
        assert float((edited[sae.writes] - r[sae.writes] - difference)[real].abs().max()) < CLOSE
        with model.edit({sae.error: 0.0}), model.record(sae.writes) as without:  # the reconstruction in its place
            model(**given)
        whole = sae.sae.decode(r[sae.features], r[sae.reads])
        assert float((without[sae.writes] - whole)[real].abs().max()) < CLOSE


def test_the_measures(gpt2: Any, tmp_path: Path) -> None:
    batches = [inputs("gpt2", (7, 4)), inputs("gpt2", (5,))]
    sae = gpt2.attach_sae("blocks.1.resid", write_sae(tmp_path / "s", "topk", 32, 64), "m")
    try:
        with torch.no_grad(), gpt2.record(sae.features) as r:
            for given in batches:
                gpt2(**given)
        strong = strong_features(gpt2, sae, batches[1], top=3)
        assert strong.features.shape == (5, 3) and int(strong.on.max()) <= 5
        assert torch.equal(strong.values, r[sae.features][0].topk(3).values)
        feature = int(strong.features[0, 0])
        best = top_texts(gpt2, sae, feature, batches, top=4)
        everywhere = torch.cat([r.runs[0][sae.features][0, :, feature], r.runs[0][sae.features][1, :4, feature],
                                r.runs[1][sae.features][0, :, feature]])  # fmt: skip
        assert torch.equal(best.values, everywhere.topk(4).values) and set(best.texts.tolist()) <= {0, 1, 2}
        measured = reconstruction(gpt2, sae, batches)
        assert measured.tokens == 6 + 3 + 4 and 0 < measured.features_on <= 5 and 0 <= measured.dead < 1
        assert measured.loss is not None and measured.loss_recovered is not None
        ids = batches[1]["input_ids"]
        own = gpt2(input_ids=ids, labels=ids).loss.detach()
        assert reconstruction(gpt2, sae, batches[1:]).loss == pytest.approx(float(own), rel=1e-5)
        # a dictionary that holds every direction, on both sides, misses nothing
        both = torch.cat([torch.eye(32), -torch.eye(32)], 1)
        whole = sae.sae
        whole.activation, whole.encoder, whole.decoder = "relu", both, both.T.contiguous()
        whole.by_norm, whole.encoder_bias = False, torch.zeros(64)
        perfect = reconstruction(gpt2, sae, batches)
        assert perfect.explained_variance == pytest.approx(1, abs=1e-6)
        assert perfect.loss_recovered == pytest.approx(1, abs=1e-3)
        with pytest.raises(InputError, match="at least one"):
            top_texts(gpt2, sae, 0, [])
        with pytest.raises(InputError, match="two tokens"):
            reconstruction(gpt2, sae, [])
    finally:
        gpt2.detach_sae("m")


def test_no_next_token_is_measured_of_a_model_that_reads_both_ways(tmp_path: Path) -> None:
    model = load(make("xlnet", "LMHeadModel"), "LMHeadModel")
    sae = model.attach_sae("blocks.1.resid", write_sae(tmp_path / "s", "topk", 32, 64), "m")
    measured = reconstruction(model, sae, [inputs("xlnet", (7, 4))])
    assert measured.tokens > 0 and measured.loss is None and measured.loss_recovered is None


@pytest.mark.parametrize(
    ("address", "options", "why"),
    [
        ("blocks.1.attn.pattern", {}, "no vectors"),
        ("logits", {}, "no vectors"),
        ("blocks.9.resid", {}, "Did you mean"),
        ("blocks.*.resid", {}, "names 3"),
        ("blocks.1.mlp.act", {}, "have 128 numbers, those of the file 32"),
        ("blocks.1.resid", {"name": "a.b"}, "letters, digits"),
        ("blocks.1.resid", {"name": "<b>"}, "letters, digits"),
        ("blocks.1.resid", {"name": "there"}, "there is one"),
        ("sae.there.error", {}, "no vectors"),
    ],
)
def test_what_cannot_be_attached_says_why(gpt2: Any, address: str, options: Any, why: str, tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "s", "standard", 32, 64)
    there = gpt2.attach_sae("blocks.0.resid", folder, "there")
    try:
        with pytest.raises((AddressError, InputError), match=why):
            gpt2.attach_sae(address, folder, **options)
        for wrong in (64, -1, True, "3"):
            with pytest.raises(InputError, match=r"must lie in 0\.\.63"):
                there.scaled(wrong)
        assert list(gpt2.base_model.saes) == ["there"]
    finally:
        gpt2.detach_sae("there")
    with pytest.raises(InputError, match="there is none"):
        gpt2.detach_sae("there")


def test_a_transcoder_needs_the_feed_forward_layer(gpt2: Any, tmp_path: Path) -> None:
    with pytest.raises(AddressError, match=r"mlp\.in"):
        gpt2.attach_sae("blocks.1.resid", write_sae(tmp_path / "s", "transcoder", 32, 64))


def test_an_edit_of_a_whole_feature_vector(gpt2: Any, tmp_path: Path) -> None:
    sae = gpt2.attach_sae("blocks.1.resid", write_sae(tmp_path / "s", "standard", 32, 64), "v")
    given = inputs("gpt2", (7,))
    try:
        with torch.no_grad():
            with gpt2.record(sae.error) as r:
                gpt2(**given)
            with gpt2.edit({sae.features: Edit(0.0, positions=2)}), gpt2.record("blocks.1.resid") as edited:
                gpt2(**given)
        left = edited["blocks.1.resid"][0, 2]  # the error and the decoder's bias
        assert float((left - r[sae.error][0, 2] - sae.sae.decoder_bias).abs().max()) < CLOSE
    finally:
        gpt2.detach_sae("v")


@pytest.mark.parametrize("place", ["encoder.blocks.1.resid", "decoder.blocks.0.resid", "decoder.blocks.1.cross.out"])
def test_an_autoencoder_stands_in_a_part_of_a_pair(tmp_path, place):
    """A pair of two families: features at the whole's addresses, which the part that runs knows by other ones."""
    fields = {
        "vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
        "max_position_embeddings": 40, "initializer_range": 0.4,
    }  # fmt: skip
    torch.manual_seed(0)
    encoder = cutaway.BertModel(cutaway.BertConfig(**fields))
    decoder = cutaway.BertLMHeadModel(cutaway.BertConfig(**fields, is_decoder=True, add_cross_attention=True))
    pair = cutaway.EncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    ids = {"input_ids": torch.randint(5, 61, (2, 7)), "decoder_input_ids": torch.randint(5, 61, (2, 5))}
    folder = write_sae(tmp_path / "sae", "topk", 16, 48)
    sae = pair.attach_sae(place, folder, name="mine")
    assert {*sae.addresses} <= {*pair.addresses()}
    with torch.no_grad():
        plain = pair(**ids).logits
        with pair.record(place, *sae.addresses) as r:
            assert torch.equal(pair(**ids).logits, plain)
        torch.testing.assert_close(r[sae.features], sae.sae.encode(r[place]))
        torch.testing.assert_close(sae.sae.decode(r[sae.features], r[place]) + r[sae.error], r[place])
        with pair.edit(sae.steered(5, 3.0)), pair.record(place) as changed:
            steered = pair(**ids).logits
        features = r[sae.features].clone()
        features[..., 5] += 3.0
        made = sae.sae.decode(features, r[place]) + r[sae.error]
        torch.testing.assert_close(changed[place], made, atol=1e-5, rtol=1e-5)
        with pair.edit({place: changed}):  # what stands there is all that counts
            torch.testing.assert_close(pair(**ids).logits, steered, atol=1e-5, rtol=1e-5)
        assert (steered - plain).abs().max() > 1e-3
        pair.detach_sae("mine")
        assert not {*sae.addresses} & {*pair.addresses()}
        assert torch.equal(pair(**ids).logits, plain)
        # what is put at the part alone works where the part runs alone, and has no address in the pair
        own = pair.encoder.attach_sae("blocks.1.resid", folder, name="own")
        with pair.encoder.record(own.features) as r:
            pair.encoder(input_ids=ids["input_ids"])
        assert r[own.features].shape == (2, 7, 48)
        assert torch.equal(pair(**ids).logits, plain)
        with pytest.raises(AddressError, match="No activation"), pair.record(own.features):
            pass
