"""Every head of every family at the start of a server and of a studio: it answers, or one sentence says why not."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
import tiny
from parity.tiny_models import EVERY_HEAD, LABELS, decoder_fields, make
from serve_app import serving

import cutaway
from cutaway.errors import InputError
from cutaway.inspect import explain
from cutaway.serve.service import Service
from cutaway.studio.analysis import Analysis
from cutaway.studio.keeping import CodeBody, as_code

TEXT = "i believe that the eu is great ."
NO_TASK = ("ForPreTraining", "ForNextSentencePrediction")
TWICE = ("ForSequenceClassification", "ForQuestionAnswering")  # of an encoder-decoder, which reads the text twice
# heads for labels are one piece of code: of each shape of model one family has them all here
LABELLED = ("bert", "xlnet", "deberta-v2", "modernbert", "gpt2", "llama", "opt-narrow", "bloom", "t5", "bart", "mbart")
CASES = [(family, ending) for family, ending in EVERY_HEAD if family in LABELLED or ending not in LABELS]
ENDS = {"eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 2}


def stored(folder, family, ending):
    tokenizer = tiny.wordpiece()
    fields = {"vocab_size": len(tokenizer), **decoder_fields(family, ending), **ENDS}
    return str(tiny.save(folder / "named", make(family, ending, **fields), tokenizer))


def started(source):
    service = Service({"named": source})
    service._load(None)
    return service


def read(service, text=TEXT):
    served = service.models["named"]
    return service.jobs.submit(lambda: Analysis.of(served, text, 0)).result()


@pytest.mark.parametrize(("family", "ending"), [*CASES, ("bert", "Model"), ("t5", "Model"), ("t5", "EncoderModel")])
def test_a_head_is_served_and_shown_or_refused_in_a_sentence(tmp_path, family, ending):
    service = started(stored(tmp_path, family, ending))
    try:
        if ending in NO_TASK or (family, ending) in (("t5", "Model"), ("xlnet", "LMHeadModel")):
            assert service.error.startswith("named cannot be served: ") and service.error.endswith(".")
            way = "call save_pretrained, and give that folder" if ending in NO_TASK else "take a model|model.generate"
            assert re.search(way, service.error)
            return
        assert service.error == ""
        served = service.models["named"]
        if served.generator is None and served.task != "text2text-generation":
            answer = asyncio.run(served.batches.run(served.tasks[served.task], [asked(served.task)]))
            assert len(answer.results) == 1
        code = as_code(served, "named", CodeBody(model="named", text=TEXT))["python"]
        loader = re.search(r"model = cutaway\.(\w+)\.from_pretrained", code)[1]
        assert type(served.model) is type(getattr(cutaway, loader).from_pretrained(service.sources["named"]))
        if ending == "ForMultipleChoice":
            with pytest.raises(InputError, match="needs two or more choices"):
                read(service)
        elif served.model.architecture.decoder is not None and ending in TWICE:
            with pytest.raises(InputError, match="reads a text twice"):
                read(service)
        else:
            text = f"i {served.tokenizer.mask_token} that ." if served.task == "fill-mask" else TEXT
            assert read(service, text).data(())["run"]["attention"]
    finally:
        service.close()


def asked(task):
    """What a request to a model of this task asks."""
    given = {
        "multiple-choice": {"prompt": TEXT, "choices": ["great", "bad film"]},
        "question-answering": {"question": TEXT, "context": "the eu is great"},
        "fill-mask": "i [MASK] that .",
    }
    return given.get(task, TEXT)


def test_a_choice_is_answered_and_explained_over_http(tmp_path):
    source = stored(tmp_path, "bert", "ForMultipleChoice")
    choices = ["great .", "a bad film"]
    pipe = cutaway.pipeline("multiple-choice", source)
    with serving(Service({"named": source})) as url, httpx.Client(base_url=url, timeout=60) as http:
        found = http.post("/models/named", json={"inputs": {"prompt": TEXT, "choices": choices}})
        assert found.status_code == 200, found.text
        for ours, want in zip(found.json(), pipe(TEXT, choices), strict=True):
            assert ours["text"] == want["text"] and ours["score"] == pytest.approx(want["score"], abs=1e-5)
        told = http.post("/explain", json={"text": TEXT, "choices": choices})
        assert told.status_code == 200, told.text
        want = explain(TEXT, source, choices=choices)
        assert [answer["label"] for answer in told.json()["answers"]] == [answer.label for answer in want.answers]
        alone = http.post("/explain", json={"text": TEXT})
        assert alone.status_code == 400 and "pass two or more choices=" in alone.text
