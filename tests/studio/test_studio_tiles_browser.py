"""A long text in Chromium: tiles that are asked for when they are looked at, whose values are the library's."""

from __future__ import annotations

import browser
import numpy as np
import pytest
import studio_app
import tiny
import torch
from studio_page import act

from cutaway.inspect.explainer import load_model

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None and not browser.REQUIRED, reason=browser.MISSING)


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A decoder that takes 4,096 tokens and more."""
    import transformers

    torch.manual_seed(0)
    tokenizer = tiny.byte_level()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return str(tiny.save(tmp_path_factory.mktemp("far") / "far", transformers.LlamaForCausalLM(config), tokenizer))


MOST_ANSWER = 5 << 20  # bytes of any one answer
MOST_PART = 1 << 20  # of any part of a matrix


def test_a_long_text_is_seen_by_tiles(opened, far, tmp_path):
    """4,096 tokens: whole and close, the values are the library's, and no answer is large."""
    model, tokenizer = load_model(far)
    draw = np.random.default_rng(0)
    words = ["i", "believe", "that", "the", "eu", "is", "great", "very", "good", "film"]
    ids = []
    text = ""
    while len(ids) < 4096:
        text += "".join(f"{words[k]} " for k in draw.integers(0, len(words), 200))
        ids = tokenizer(text)["input_ids"]
    ids = torch.tensor([ids])
    places = [f"blocks.{i}.attn.pattern" for i in range(2)]
    with torch.no_grad(), model.record(*places) as r:
        model(input_ids=ids, logits_to_keep=1)
    pattern = [r[place][0].numpy() for place in places]  # [heads, L, L] each
    length = ids.shape[1]
    with studio_app.opened({"far": far}, tmp_path / "kept") as held:
        found = opened(held=held)
        found.value("performance.setResourceTimingBufferSize(4000)")
        act(found, f"await type({text!r}); await until(() => one('#tiles') && cutaway.tiles.arrived)")
        packed = "cutaway.run.attention.self.packed"
        assert found.value(f"{packed}.shape") == [2, 4, length, length] and found.value(f"{packed}.sampled") == 128

        def read(layer, head, row, column):
            return found.value(f"cutaway.tiles.value({packed}, {layer}, {head}, {row}, {column}) ?? null")

        for layer, head in ((1, 3), (0, 0)):
            # all of it: each number is the largest of its square
            act(found, f"cutaway.page.choose({layer}, {head}); await nap(50); await click('#whole');"
                       f"await until(() => cutaway.tiles.most({packed}, {layer}, {head}) !== undefined)")  # fmt: skip
            most = found.value(f"cutaway.tiles.most({packed}, {layer}, {head})")
            assert most == pytest.approx(pattern[layer][head].max(), rel=1e-5)
            for row, column in draw.integers(0, length, (20, 2)).tolist():
                seen = read(layer, head, row, column)
                every = seen["every"]
                square = pattern[layer][head][
                    row // every * every : (row // every + 1) * every,
                    column // every * every : (column // every + 1) * every,
                ]
                assert seen["value"] == pytest.approx(square.max(), abs=most / 255 / 2 + 1e-6)
            # close: the weights themselves
            for token in (0, 1000, length - 1):
                act(found, f"cutaway.page.follow('tokens', {token}); await nap(30);"
                           f"await until(() => cutaway.page.given({token}).values.some((value) => value > 0));"
                           "await click('#to-token');"
                           f"const best = () => {{ const {{ values }} = cutaway.page.given({token});"
                           "return values.indexOf(values.reduce((a, b) => (b > a ? b : a), 0)); };"
                           f"await until(() => cutaway.tiles.value({packed}, {layer}, {head}, {token}, best())?.every"
                           " === 1)")  # fmt: skip
                row = np.array(found.value(f"[...cutaway.page.given({token}).values]"))
                np.testing.assert_allclose(row, pattern[layer][head][token], atol=1e-6)
                column = int(row.argmax())
                for near in (column, max(column - 3, 0), min(column + 3, length - 1)):
                    seen = read(layer, head, token, near)
                    if seen["every"] == 1:
                        assert seen["value"] == pytest.approx(pattern[layer][head][token, near], abs=1e-6)
        # what is pointed at is said exactly, and the row as a table
        box = found.value("(({ left, top }) => [left, top])(document.querySelector('#tiles').getBoundingClientRect())")
        found.send("Input.dispatchMouseEvent", session=True, type="mouseMoved", x=box[0] + 300, y=box[1] + 200)
        act(found, "await until(() => one('#readout strong'))")
        row, column = found.value("[cutaway.page.row, cutaway.page.column]")
        share = f"{100 * pattern[0][0][row, column]:.1f}%"
        assert found.value("document.querySelector('#readout strong').innerText") == share
        listed = act(found, "", "all('#view-attention td.number').slice(0, 2).map((cell) => cell.innerText)")
        assert int(listed[0]) == int(pattern[0][0][length - 1].argmax())
        # all heads as pictures
        act(found, "all('#choices label').find((it) => it.innerText.includes('pictures')).click();"
                   "await until(() => all('.pictured canvas').length === 8);"
                   "await until(() => one('.pictured canvas').width === 32)")  # fmt: skip
        # the keys: larger, to the right, and all again
        act(found, "one('#tiles').focus()")
        for key, code in (("+", 187), ("+", 187), ("ArrowRight", 39), ("0", 48)):
            found.send("Input.dispatchKeyEvent", session=True, type="keyDown", key=key, windowsVirtualKeyCode=code)
        act(found, "await until(() => one('#whole').disabled)")
        assert found.value("cutaway.page.column") >= 0
        sizes = found.value("performance.getEntriesByType('resource').map((it) => [it.name, it.encodedBodySize])")
        parts = [size for name, size in sizes if "/studio/tensors/" in name]
        assert len(parts) > 12 and max(parts) <= MOST_PART
        assert max(size for _, size in sizes) <= MOST_ANSWER
        assert found.value("cutaway.tiles.bytes") <= 48e6
        assert held.bench.tiles.nbytes <= 64 << 20
        found.close()
        found.close = lambda: None
