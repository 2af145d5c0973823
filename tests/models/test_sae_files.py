"""SAELens' files: as the package reads them, and one clear error for each that is damaged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cutaway.errors import CheckpointError, ConfigError
from cutaway.models.sae_files import ARCHITECTURES, read_sae

D, N, K = 16, 40, 5


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def write_sae(folder: Path, architecture: str = "standard", d: int = D, n: int = N, **fields: Any) -> Path:
    """A random autoencoder of any kind, whose features are on for about a third of the vectors."""
    transcodes = "transcoder" in architecture
    weights = {
        "W_enc": numbers(d, n, seed=1) / d**0.5, "W_dec": numbers(n, d, seed=2) / n**0.5,
        "b_enc": numbers(n, seed=3) / 4 - 0.3, "b_dec": numbers(d, seed=4) / 4,
    }  # fmt: skip
    if architecture == "gated":
        weights["b_gate"] = weights.pop("b_enc")
        weights |= {"b_mag": numbers(n, seed=5) / 4, "r_mag": numbers(n, seed=6) / 4}
    if "jumprelu" in architecture:
        weights["threshold"] = numbers(n, seed=7).abs() / 2
    if "batchtopk" in architecture:
        weights["topk_threshold"] = torch.tensor(0.4, dtype=torch.float64)
    if "skip" in architecture:
        weights["W_skip"] = numbers(d, d, seed=8)
    config = {
        "architecture": architecture, "d_in": d, "d_sae": n, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": not transcodes, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.0.0", "hook_name": "blocks.1.hook_resid_post"},
    }  # fmt: skip
    if transcodes:
        config["d_out"] = d
    if "topk" in architecture:
        config |= {"k": K, "rescale_acts_by_decoder_norm": True}
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config | fields))
    return folder


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ARCHITECTURES if "batchtopk" not in name),
    ("standard", {"normalize_activations": "layer_norm"}),
    ("standard", {"normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False}),
    ("jumprelu", {"normalize_activations": "layer_norm"}),
    ("transcoder", {"normalize_activations": "layer_norm"}),
    ("topk", {"rescale_acts_by_decoder_norm": False}),
    ("gated", {"dtype": "bfloat16"}),
]


@pytest.mark.parametrize(("architecture", "fields"), CASES)
def test_the_same_numbers_as_sae_lens(architecture: str, fields: dict[str, Any], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies' own
        sae_lens = pytest.importorskip("sae_lens")
        folder = write_sae(tmp_path / "sae", architecture, **fields)
        theirs = sae_lens.SAE.load_from_disk(str(folder))
        ours = read_sae(folder)
        x = 2 * numbers(3, 7, D, seed=9) + 1
        with torch.no_grad():
            features = theirs.encode(x)
            out = theirs(x)
    close = {"rtol": 0.02, "atol": 0.02} if fields.get("dtype") == "bfloat16" else {"rtol": 1e-5, "atol": 1e-6}
    assert 0.02 < float((features > 0).float().mean()) < 0.9
    torch.testing.assert_close(ours.encode(x), features, **close)
    torch.testing.assert_close(ours.decode(ours.encode(x), x), out, **close)


@pytest.mark.parametrize("by_norm", [True, False])
def test_batch_top_k_is_the_threshold_that_sae_lens_saves(by_norm: bool, tmp_path: Path) -> None:
    """Of a training checkpoint, and of the file for inference, which is a JumpReLU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("sae_lens")
        from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

        config = BatchTopKTrainingSAEConfig(d_in=D, d_sae=N, k=K, rescale_acts_by_decoder_norm=by_norm)
        theirs = BatchTopKTrainingSAE(config)
        theirs.topk_threshold = torch.tensor(0.4, dtype=torch.float64)
        theirs.W_enc.data = numbers(D, N, seed=1) / D**0.5
        theirs.W_dec.data = numbers(N, D, seed=2) / D**0.5
        theirs.save_model(str(tmp_path / "training"))
        theirs.save_inference_model(str(tmp_path / "inference"))
        training, inference = read_sae(tmp_path / "training"), read_sae(tmp_path / "inference")
        x = numbers(3, 7, D, seed=9)
    assert float((inference.encode(x) > 0).float().mean()) > 0.01
    torch.testing.assert_close(training.encode(x), inference.encode(x))
    torch.testing.assert_close(training.decode(training.encode(x), x), inference.decode(inference.encode(x), x))


def test_what_each_kind_does_follows_its_paper(tmp_path: Path) -> None:
    """The formulas, written here a second time: they hold without the package too."""
    x = numbers(6, D, seed=9)

    def read(name: str, **fields: Any) -> Any:
        return read_sae(write_sae(tmp_path / name, name, **fields))

    for name in ("standard", "jumprelu", "topk"):
        sae = read(name)
        sums = (x - sae.decoder_bias) @ sae.encoder + sae.encoder_bias
        features = sae.encode(x)
        if name == "standard":
            assert torch.equal(features, sums.clamp(min=0))
        if name == "jumprelu":
            assert sae.threshold is not None
            assert torch.equal(features, torch.where(sums > sae.threshold, sums.clamp(min=0), 0.0))
        if name == "topk":
            ranked = sums * sae.decoder.norm(dim=1)
            assert bool(((features > 0).sum(-1) <= K).all())
            largest = ranked.sort(descending=True).values[:, :K].clamp(min=0).sum(-1)
            torch.testing.assert_close(features.sum(-1), largest)
    sae = read("gated")
    assert sae.magnitude is not None and sae.magnitude_bias is not None
    centred = x - sae.decoder_bias
    open_ = centred @ sae.encoder + sae.encoder_bias > 0
    size = (centred @ sae.encoder) * sae.magnitude.exp() + sae.magnitude_bias
    torch.testing.assert_close(sae.encode(x), torch.where(open_, size.clamp(min=0), 0.0))
    sae = read("skip_transcoder")
    features = (x @ sae.encoder + sae.encoder_bias).clamp(min=0)
    assert sae.skip_weight is not None
    torch.testing.assert_close(
        sae.decode(sae.encode(x), x), features @ sae.decoder + sae.decoder_bias + x @ sae.skip_weight.T
    )
    sae = read("batchtopk")  # of a training checkpoint: the threshold is of sums times the length of the direction
    raw = read("standard")
    ranked = ((x - raw.decoder_bias) @ raw.encoder + raw.encoder_bias) * raw.decoder.norm(dim=1)
    torch.testing.assert_close(sae.encode(x), torch.where(ranked > 0.4, ranked, 0.0))


def test_older_files(tmp_path: Path) -> None:
    """Those from before SAELens 6: other names of fields, none for the architecture."""
    folder = write_sae(tmp_path / "sae")
    old = {"d_in": D, "d_sae": N, "dtype": "torch.float32", "hook_point": "blocks.1.hook_resid_pre",
           "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": False,
           "finetuning_scaling_factor": False}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(old))
    sae = read_sae(folder / "sae_weights.safetensors")
    assert (sae.activation, sae.k, sae.centred, sae.trained_at) == ("topk", 3, True, "blocks.1.hook_resid_pre")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"architecture": "temporal"}, r"architecture is 'temporal'; known are standard, gated"),
        ({"architecture": ["standard"]}, "architecture is"),
        ({"d_in": 17}, r"W_enc has the shape \[16, 40\], but cfg.json makes it \[17, 40\]"),
        ({"d_in": -1}, "d_in is -1; give a whole number"),
        ({"d_in": True}, "d_in is"),
        ({"d_sae": 10**12}, "d_sae is"),
        ({"d_sae": None}, "d_sae is"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"normalize_activations": "expected_average_only_in"}, "Fold them"),
        ({"normalize_activations": "much"}, "normalize_activations is 'much'"),
        ({"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input is 'yes'"),
        ({"activation_fn": "tanh-relu"}, "activation_fn is 'tanh-relu'"),
        ({"architecture": "topk", "k": 41}, "k is 41; give a whole number from 1 to 40"),
        ({"architecture": "jumprelu"}, "has no 'threshold'; it holds W_dec, W_enc, b_dec, b_enc"),
        ({"architecture": "gated"}, "has no 'b_gate'"),
        ({"finetuning_scaling_factor": True}, "fold it"),
    ],
)
def test_a_wrong_field_is_one_clear_error(fields: dict[str, Any], why: str, tmp_path: Path) -> None:
    folder = write_sae(tmp_path / "sae", **fields) if "architecture" not in fields else write_sae(tmp_path / "sae")
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | fields))
    with pytest.raises((ConfigError, CheckpointError), match=why):
        read_sae(folder)


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_sae(tmp_path / "none")
    with pytest.raises(ConfigError, match="give the folder"):
        read_sae(3)  # type: ignore[arg-type]
    folder = write_sae(tmp_path / "sae")
    whole = (folder / "sae_weights.safetensors").read_bytes()
    for cut in (0, 7, 100, len(whole) - 1):
        (folder / "sae_weights.safetensors").write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            read_sae(folder)
    save_file({"W_enc": numbers(D, N, seed=1) / 0}, folder / "sae_weights.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        read_sae(folder)
    save_file({"W_enc": torch.ones(D, N, dtype=torch.int8)}, folder / "sae_weights.safetensors")
    with pytest.raises(CheckpointError, match="W_enc is I8"):
        read_sae(folder)
    write_sae(folder)
    (folder / "cfg.json").write_text("[1, 2")
    with pytest.raises(ConfigError):
        read_sae(folder)
    (folder / "cfg.json").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_sae(folder)
    write_sae(folder, "gated")
    config = json.loads((folder / "cfg.json").read_text())
    save_file({"b_enc": torch.zeros(N), **{name: numbers(*shape, seed=1) for name, shape in {
        "W_enc": (D, N), "W_dec": (N, D), "b_dec": (D,), "b_gate": (N,), "b_mag": (N,), "r_mag": (N,)}.items()}},
        folder / "sae_weights.safetensors")  # fmt: skip
    assert config["architecture"] == "gated"
    with pytest.raises(CheckpointError, match="also holds 'b_enc'"):
        read_sae(folder)
