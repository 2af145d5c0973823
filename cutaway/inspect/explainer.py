"""Run a model once on a text and keep what it showed.

Encoders: one forward pass. Decoders and encoder-decoders: greedy generation, then one forward pass over all of it,
which gives every step's probabilities, attention and states at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from cutaway import __version__
from cutaway.errors import CutawayError, InputError
from cutaway.hub.class_endings import ending_of
from cutaway.inspect import measures
from cutaway.inspect.asked import KINDS, Asked, check_asked, check_explained, kind_of
from cutaway.inspect.attention import attention_of, chosen
from cutaway.inspect.branches import branches
from cutaway.inspect.evidence import ALL, QUICK, effects, gather
from cutaway.inspect.explanation import (
    Attention,
    AttentionCheck,
    Candidate,
    Evidence,
    Explanation,
    Model,
    Plane,
    States,
    Step,
    Token,
    find_token,
)
from cutaway.inspect.measure import measure
from cutaway.inspect.page.page import render
from cutaway.inspect.plots.trajectory import principal_plane
from cutaway.show.label import numbered_masks, token_label

if TYPE_CHECKING:
    import torch

    from cutaway.inspect.target import Target
    from cutaway.models.protocols import GenerativeModel, LanguageModel
    from cutaway.tokenization.protocols import TokenizerLike

FIRST = 8  # how many numbers of each vector are kept
TOP = 10  # how many candidates of each prediction are kept
LONGEST_ANSWER = 30  # tokens of an answer to a question


Explanation.page = staticmethod(render)  # what a notebook shows of one


@measure
def explain(
    text: str,
    model: LanguageModel | str | Path = "cutaway/sentiment",
    tokenizer: TokenizerLike | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    attention: str | None = None,
    token: str | int | None = None,
    max_new_tokens: int = 10,
    truncation: bool = False,
    evidence: bool = False,
    context: str | None = None,
    choices: Sequence[str] = (),
    **load: object,
) -> Explanation:
    """Explain what `model` does with `text`.

    Args:
        model: a name, a folder, a GGUF file, or a loaded model (then with its `tokenizer`).
        layer, head: the head to show, counted from 0. Without them, the head with the sharpest focus
            (`cutaway.inspect.measures.focus`).
        attention: "encoder", "decoder" or "cross", for an encoder-decoder; "cross" unless given.
        token: the token whose vector is followed: a word of the text, or an index.
        max_new_tokens: how much a decoder or an encoder-decoder writes, greedily.
        truncation: cut a text that is longer than the model takes, instead of raising an error.
        evidence: gather what only the page shows too: lens, attributions, rollout, norms of values, and what the answer
            owes to each head. Unless one is asked for, the head is then shown without which the answer loses most.
        context: the text in which a model for question answering looks for the answer; `text` is the question.
        choices: how a prompt (`text`) may go on, for a model that chooses; the likeliest is looked at.
        load: further arguments of `from_pretrained`, for example `revision=`, `dtype=`.

    Raises:
        InputError: an empty text, a layer, head or token that is not there; no context for a question, no choices for a
            model that chooses. HubError: the model cannot be reached.
    """
    asked = Asked(layer, head, attention, token, max_new_tokens, truncation, evidence, context, choices)
    return observe(text, model, tokenizer, asked, load)[0]


def observe(
    text: str, model: LanguageModel | str | Path, tokenizer: TokenizerLike | None, asked: Asked, load: dict[str, Any]
) -> tuple[Explanation, Run]:
    """The explanation, and the run that it was made of."""
    import torch

    from cutaway.nn.call_context import Evaluation

    if not text.strip():
        raise InputError("The text is empty: there is nothing to explain. Give at least one word.")
    if isinstance(model, str | Path):
        name = str(model)
        loaded, tokenizer = load_model(str(model), tokenizer, **load)
    else:
        loaded = model
        name = str(getattr(model, "name_or_path", "") or type(model).__name__)
        if tokenizer is None:
            raise InputError("explain(model=<a loaded model>) needs the tokenizer too: pass tokenizer=.")
    # a picture or a page may be passed on, and needs no more of a path on this machine than its end
    name = Path(name).name if Path(name).is_absolute() else name
    check_explained(loaded)
    check_asked(kind_of(loaded), asked)
    with Evaluation(cast("torch.nn.Module", loaded))():
        with torch.inference_mode():
            run = Run(
                text, name, loaded, tokenizer, asked.max_new_tokens, asked.truncation, asked.context, asked.choices
            )
            explanation = run.explanation(asked.layer, asked.head, asked.attention, asked.token)
        if asked.evidence:
            explanation = run.with_evidence(explanation)
        elif asked.vector and run.kind == "states":
            explanation = replace(explanation, evidence=run.evidence(explanation, (QUICK,)))
        return explanation, run


def load_model(name: str, tokenizer: TokenizerLike | None = None, **load: object) -> tuple[Any, TokenizerLike]:
    """The model with the head that its checkpoint has, and its tokenizer."""
    from cutaway import auto  # it knows the families; pictures of a stored run do without

    if name.lower().endswith(".gguf"):
        load["gguf_file"] = Path(name).name
        name = str(Path(name).parent)
    shared = {key: value for key, value in load.items() if key != "dtype"}
    config = auto.AutoConfig.from_pretrained(name, **shared)
    class_name = (getattr(config, "architectures", None) or [""])[0]
    if "gguf_file" in load:
        class_name = class_name or "ForCausalLM"  # a GGUF file holds a decoder
    end = ending_of(class_name)
    loader = end.auto if end is not None and end.task in KINDS else "AutoModel"
    if class_name.endswith("EncoderModel"):  # of an encoder-decoder, that part alone (T5EncoderModel)
        loader = "AutoModelForTextEncoding"
    model = getattr(auto, loader).from_pretrained(name, **load)
    return model, tokenizer or auto.AutoTokenizer.from_pretrained(name, **shared)


class Run:
    """One pass of a model over a text, and over what it wrote."""

    def __init__(
        self,
        text: str,
        name: str,
        model: LanguageModel,
        tokenizer: TokenizerLike,
        max_new_tokens: int,
        truncation: bool,
        context: str | None = None,
        choices: Sequence[str] = (),
    ) -> None:
        import torch

        self.text, self.name, self.model, self.tokenizer = text, name, model, tokenizer
        check_explained(model)
        self.kind = kind_of(model)
        if self.kind == "span" and context is None:
            self.kind = "states"  # without a text to look in there is no answer
        self.choice_logits: list[float] = []
        self.choices = list(choices)
        second = context
        if self.kind == "choices":
            second, self.choice_logits = self._chosen(truncation)
        encoding = tokenizer(  # the model itself says that a text is too long
            text,
            second,
            truncation=truncation,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        self.parts_of_text = encoding.sequence_ids(0) if second is not None else []  # 0, 1 or None for each token
        self.shift = len(text) + 1  # where the second text begins in what is shown
        if second is not None:
            self.text = f"{text} {second}"
        self.prompt = len(encoding["input_ids"])
        self.encoding = {key: list(encoding[key]) for key in encoding}
        inputs = {
            key: torch.tensor([encoding[key]], device=model.device)  # [1, L]
            for key in encoding
            if key not in ("offset_mapping", "special_tokens_mask")
        }
        self.target_ids: list[int] = []
        run = dict(inputs)
        if self.kind in ("next-token", "target") and max_new_tokens > 0:
            ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            if self.kind == "target":
                self.target_ids = ids[0].tolist()
                run["decoder_input_ids"] = ids
            else:
                run = {"input_ids": ids}
        elif self.kind == "target":
            run["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]], device=model.device)
            self.target_ids = run["decoder_input_ids"][0].tolist()
        self.ids: list[int] = run["input_ids"][0].tolist()
        self.run = run
        self._read()

    def _read(self) -> None:
        """The pass over all of it."""
        with self.model.record("*.pattern", *self._before_projection()) as recorder:
            self.output = self.model(
                **self._passed(), output_attentions=True, output_hidden_states=True, return_dict=True
            )
        self._unprojected = [recorder[place] for place in self._before_projection()]
        worst = max(recorder.certificates, key=lambda c: c.error)  # an encoder-decoder has one for each
        self.certificate = AttentionCheck(worst.address, worst.head, worst.error)

    def _before_projection(self) -> tuple[str, ...]:
        """Where the last state stands, if the model gives it projected to another width (OPT 350m)."""
        stack = self.model.architecture.stack
        if not stack.projects_out:
            return ()
        return ("final_norm" if stack.final_norm else f"blocks.{stack.n_layers - 1}.resid",)

    def _passed(self) -> dict[str, torch.Tensor]:
        """What the model is called with, each [1, L], or [1, 1, L] where it chooses."""
        return {key: value[:, None] for key, value in self.run.items()} if self.kind == "choices" else self.run

    def logits_at(self, place: int) -> torch.Tensor:
        """[V], what the model says at a place of the text that it answers at."""
        logits: torch.Tensor = self.output["logits"][0, place]
        return logits

    def _chosen(self, truncation: bool) -> tuple[str, list[float]]:
        """The likeliest choice, and the score of each."""
        import torch

        if len(self.choices) < 2:
            raise InputError("This model chooses how a text goes on, and needs two or more choices.")
        scores = []
        for choice in self.choices:
            encoding = self.tokenizer(self.text, choice, truncation=truncation, verbose=False)
            inputs = {key: torch.tensor([[encoding[key]]], device=self.model.device) for key in encoding}  # [1, 1, L]
            scores.append(float(self.model(**inputs, return_dict=True).logits[0, 0]))
        return self.choices[int(np.argmax(scores))], scores

    def explanation(
        self, layer: int | None, head: int | None, attention: str | None, token: str | int | None
    ) -> Explanation:
        tokens, target = self._tokens(), self._target()
        self.hidden = self._hidden()
        attentions, shown = chosen(self._attentions(tokens, target), attention, layer, head)
        followed = self._followed(tokens, token)
        answers, function = self._answers(followed)
        config = self.model.config
        return Explanation(
            version=__version__,
            model=Model(
                name=self.name,
                class_name=type(self.model).__name__,
                family=config.model_type,
                layers=self.model.architecture.stack.n_layers,
                heads=int(config.num_attention_heads),
                hidden_size=int(config.hidden_size),
                parameters=int(self.model.num_parameters()),
                dtype=self.model.precision.name,
            ),
            text=self.text,
            kind=self.kind,
            tokens=tokens,
            target=target,
            attention=attentions,
            shown=shown,
            states=self._states(),
            token=followed,
            answers=answers,
            function=function,
            steps=self._steps(),
            generated=self._generated(),
            certificate=self.certificate,
        )

    def _followed(self, tokens: list[Token], wanted: str | int | None) -> int:
        """The token that is followed: the one that is asked for, else the one where the answer stands."""
        if wanted is None:
            if self.kind == "next-token":
                return self.prompt - 1  # it writes the first token
            if self.kind == "token-labels":
                return self._labelled(tokens)
            if self.kind == "mask" and self.tokenizer.mask_token_id in self.ids:
                return self.ids.index(self.tokenizer.mask_token_id)
            if self.kind == "span":
                return self._spans()[0][0]
        return find_token(tokens[: self.prompt], self.text, wanted)

    def _labelled(self, tokens: list[Token]) -> int:
        """The token whose label is surest among those that have one: any but "O" or the first label."""
        best = self.output.logits[0].float().softmax(-1).max(-1)
        names = self.model.config.id2label
        words = [t.index for t in tokens if not t.special] or [0]
        nothing = "O" if "O" in names.values() else names[0]
        named = [i for i in words if names[int(best.indices[i])] != nothing] or words
        return max(named, key=lambda i: float(best.values[i]))

    def _spans(self) -> list[tuple[int, int, float, float]]:
        """The likeliest answers in the context: (first token, last, both logits' sum, share of all spans there)."""
        import torch

        first, last = (self.output[name][0].float() for name in ("start_logits", "end_logits"))
        inside = torch.tensor([part == 1 for part in self.parts_of_text], device=first.device)
        if not bool(inside.any()):
            raise InputError("Nothing of the context is left: the question takes all tokens that the model reads.")
        sums = first[:, None] + last[None]  # [starts, ends]
        order = torch.arange(len(first), device=first.device)
        gap = order[None] - order[:, None]
        allowed = inside[:, None] & inside[None] & (gap >= 0) & (gap < LONGEST_ANSWER)
        sums = sums.masked_fill(~allowed, -torch.inf)
        shares = sums.flatten().softmax(0)
        best = torch.topk(sums.flatten(), min(TOP, int(allowed.sum()))).indices.tolist()
        return [(*divmod(at, len(first)), float(sums.flatten()[at]), float(shares[at])) for at in best]

    def asked_of(self, explanation: Explanation) -> tuple[dict[str, Any], Target, str]:
        """(what stood before the answer was known, what of the answer is explained, its name where it has no index)."""
        from cutaway.inspect.target import ChoiceTarget, SpanTarget, Target, VectorTarget

        asked = {key: value.clone() for key, value in self.run.items()}
        if self.kind == "next-token":
            return {"input_ids": asked["input_ids"][:, : self.prompt]}, Target(), ""
        if self.kind == "target":
            asked["decoder_input_ids"] = asked["decoder_input_ids"][:, :1]
            return asked, Target(position=0), ""
        if self.kind == "mask":
            steps = explanation.steps
            filled = f"{steps[0].picked.label} at {explanation.tokens[steps[0].position].label}" if steps[1:] else ""
            return asked, Target(position=steps[0].position if steps else 0), filled
        if self.kind == "token-labels":
            return asked, Target(position=explanation.token), ""
        if self.kind == "span":
            start, end, *_ = self._spans()[0]
            return asked, SpanTarget(start=start, end=end), explanation.answers[0].label
        if self.kind == "choices":
            return asked, ChoiceTarget(), self.choices[int(np.argmax(self.choice_logits))]
        if self.kind == "states":
            return asked, VectorTarget(), "the text's vector"
        return asked, Target(), ""

    def with_effects(self, explanation: Explanation) -> Explanation:
        """With the measure "effect" of all heads, and the head shown that the answer owes most to, where it has one."""
        if self.kind == "states":
            return explanation
        asked, target, _ = self.asked_of(explanation)
        function = "" if self.kind == "choices" else explanation.function or "softmax"
        try:
            attention = effects(self.model, asked, target, function, explanation.attention)
        except CutawayError:  # what has no number to lose keeps the head with the sharpest focus
            return explanation
        return replace(explanation, attention=attention)

    def with_evidence(self, explanation: Explanation) -> Explanation:
        """The explanation with all evidence, and the head shown that the answer owes most to."""
        explanation = self.with_effects(explanation)
        return replace(explanation, evidence=self.evidence(explanation))

    def evidence(self, explanation: Explanation, want: Collection[str] = ALL) -> Evidence:
        """What of the evidence is wanted; called outside of inference mode, whose tensors have no gradients."""
        inputs = {key: value.clone() for key, value in self.run.items()}
        asked, target, answer = self.asked_of(explanation)

        def label(index: int) -> str:
            if self.kind in ("labels", "token-labels"):
                return str(self.model.config.id2label[index])
            return self._label(index)

        it = gather(self.model, self.kind, inputs, asked, target, explanation.attention, label, want, answer)
        planes = {}
        for name, stacked in self.hidden.items() if "planes" in want else ():
            if stacked.shape[0] * stacked.shape[1] > 1:
                # lengths apart: the first token's would leave no room for the others in most decoders
                lengths = np.linalg.norm(stacked, axis=-1, keepdims=True)
                points, shares = principal_plane(stacked / np.maximum(lengths, 1e-30))
                planes[name] = Plane(points.astype(np.float32), shares.tolist())
        steps = explanation.steps if "branches" in want else []
        ways = branches(cast("GenerativeModel", self.model), self.kind, inputs, steps, self._label)
        return replace(it, planes=planes, branches=ways)

    def _label(self, id: int) -> str:
        return self._token(0, id, start=None, end=None, attention_mask=1).label

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _token(self, index: int, id: int, **known: Any) -> Token:
        token = self.tokenizer.convert_ids_to_tokens(id)
        special = known.pop("special", id in self.tokenizer.all_special_ids)
        label = token_label(self.tokenizer, token, id, special)
        return Token(index=index, id=id, token=token, label=label, special=special, **known)

    def _tokens(self) -> list[Token]:
        types = self.encoding.get("token_type_ids")
        tokens = []
        for index, id in enumerate(self.ids):
            if index >= self.prompt:
                tokens.append(self._token(index, id, start=None, end=None, attention_mask=1, generated=True))
                continue
            special = bool(self.encoding["special_tokens_mask"][index])
            start, end = (None, None) if special else self.encoding["offset_mapping"][index]
            if not special and self.parts_of_text and self.parts_of_text[index] == 1:
                start, end = (place + self.shift for place in self.encoding["offset_mapping"][index])
            tokens.append(
                self._token(
                    index,
                    id,
                    start=start,
                    end=end,
                    attention_mask=int(self.encoding["attention_mask"][index]),
                    special=special,
                    type_id=int(types[index]) if types else None,
                )
            )
        labels = numbered_masks([token.label for token in tokens], self.ids, self.tokenizer.mask_token_id)
        return [replace(token, label=label) for token, label in zip(tokens, labels, strict=True)]

    def _target(self) -> list[Token]:
        return [
            self._token(index, id, start=None, end=None, attention_mask=1, generated=index > 0)
            for index, id in enumerate(self.target_ids)
        ]

    def _generated(self) -> str:
        if self.kind == "span":
            return self._answer_text(*self._spans()[0][:2])
        new = self.target_ids[1:] if self.kind == "target" else self.ids[self.prompt :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True)) if new else ""

    # -- attention and states -------------------------------------------------------------------------------------

    def _attentions(self, tokens: list[Token], target: list[Token]) -> dict[str, Attention]:
        if self.kind != "target":
            attention = attention_of("self", "blocks.{i}.attn.pattern", self.output.attentions, tokens, tokens)
            return {"self": attention}
        output = self.output
        return {
            "encoder": attention_of(
                "encoder", "encoder.blocks.{i}.attn.pattern", output.encoder_attentions, tokens, tokens
            ),
            "decoder": attention_of(
                "decoder", "decoder.blocks.{i}.attn.pattern", output.decoder_attentions, target, target, "target"
            ),
            "cross": attention_of(
                "cross", "decoder.blocks.{i}.cross.pattern", output.cross_attentions, target, tokens, "target"
            ),
        }

    def _hidden(self) -> dict[str, measures.Array]:
        """Every state of each stack, [states, L, H]."""
        names = {"self": "hidden_states"}
        if self.kind == "target":
            names = {"encoder": "encoder_hidden_states", "decoder": "decoder_hidden_states"}
        states = {name: list(self.output[key]) for name, key in names.items()}
        if self._unprojected:
            states["self"][-1:] = self._unprojected
        return {name: np.stack([_numpy(state[0]) for state in those]) for name, those in states.items()}

    def _states(self) -> dict[str, States]:
        return {name: self._track(name, stacked) for name, stacked in self.hidden.items()}

    def _track(self, name: str, stacked: measures.Array) -> States:
        """stacked [states, L, H]"""
        prefix = "" if name == "self" else f"{name}."
        places = [f"{prefix}embed"] + [f"{prefix}blocks.{i}.resid" for i in range(len(stacked) - 1)]
        if f"{prefix}final_norm" in self.model.addresses():
            places[-1] = f"{prefix}final_norm"
        before = np.concatenate([stacked[:1], stacked[:-1]])
        return States(
            name=name,
            tokens="target" if name == "decoder" else "tokens",
            places=places,
            norm=np.linalg.norm(stacked, axis=-1).astype(np.float32),
            to_embedding=measures.cosine(stacked, stacked[:1]),
            to_previous=measures.cosine(stacked, before),
            first=stacked[:, :, :FIRST].copy(),
        )

    # -- answers --------------------------------------------------------------------------------------------------

    def _answer_text(self, first: int, last: int) -> str:
        """The text from one token to another."""
        offsets = self.encoding["offset_mapping"]
        return self.text[offsets[first][0] + self.shift : offsets[last][1] + self.shift]

    def _answers(self, followed: int) -> tuple[list[Candidate], str]:
        if self.kind == "token-labels":
            return self._labels_at(followed), "softmax"
        if self.kind == "span":
            return [
                Candidate(i, self._answer_text(first, last), logit, share)
                for i, (first, last, logit, share) in enumerate(self._spans())
            ], "softmax"
        if self.kind == "choices":
            scores = np.exp(np.array(self.choice_logits) - max(self.choice_logits))
            shares = (scores / scores.sum()).tolist()
            named = zip(self.choices, self.choice_logits, shares, strict=True)
            return [Candidate(i, *one) for i, one in enumerate(named)], "softmax"
        if self.kind == "labels":
            config, logits = self.model.config, self.output.logits[0].float()
            if config.problem_type == "regression":
                function, scores = "none", logits
            elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
                function, scores = "sigmoid", logits.sigmoid()
            else:
                function, scores = "softmax", logits.softmax(-1)
            pairs = zip(logits.tolist(), scores.tolist(), strict=True)
            return [Candidate(i, config.id2label[i], *pair) for i, pair in enumerate(pairs)], function
        if self.kind in ("next-token", "target"):
            place = self.prompt - 1 if self.kind == "next-token" else 0
            return self._likeliest(place), "softmax"
        return [], ""

    def _labels_at(self, place: int) -> list[Candidate]:
        """The labels of one token, likeliest first."""
        logits = self.output.logits[0, place].float()
        shares = logits.softmax(-1).tolist()
        names, values = self.model.config.id2label, logits.tolist()
        order = sorted(range(len(values)), key=lambda i: -values[i])
        return [Candidate(i, str(names[i]), values[i], shares[i]) for i in order]

    def _likeliest(self, place: int, pick: int | None = None) -> list[Candidate]:
        """The TOP tokens by the logits at `place`; or only the token `pick` there."""
        import torch

        logits = self.logits_at(place).float()  # [V]
        probabilities = logits.softmax(-1)
        ids = torch.topk(logits, min(TOP, logits.numel())).indices.tolist() if pick is None else [pick]
        return [
            Candidate(
                id,
                self._label(id),
                float(logits[id]),
                float(probabilities[id]),
            )
            for id in ids
        ]

    def _steps(self) -> list[Step]:
        if self.kind == "next-token":
            places = [(position, position - 1, self.ids[position]) for position in range(self.prompt, len(self.ids))]
        elif self.kind == "target":
            places = [
                (position, position - 1, self.target_ids[position]) for position in range(1, len(self.target_ids))
            ]
        elif self.kind == "mask":
            mask = self.tokenizer.mask_token_id
            places = [(i, i, int(self.output.logits[0, i].argmax())) for i, id in enumerate(self.ids) if id == mask]
        elif self.kind == "token-labels":
            words = [i for i in range(self.prompt) if not self.encoding["special_tokens_mask"][i]]
            return [Step(i, (labels := self._labels_at(i))[0], labels[:TOP]) for i in words]
        else:
            places = []
        return [Step(at, self._likeliest(row, pick)[0], self._likeliest(row)) for at, row, pick in places]


def _numpy(tensor: torch.Tensor) -> measures.Array:
    return np.asarray(tensor.detach().float().cpu().numpy())
