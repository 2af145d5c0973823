"""OpenAI's routes by OpenAI's own client over a real socket; answers are those of the library alone."""

from __future__ import annotations

import asyncio
import json
import threading

import openai
import pytest
import serve_app
import torch

from cutaway import AutoModelForCausalLM, AutoTokenizer, pipeline
from cutaway.serve.service import Service
from cutaway.serve.settings import Limits

CHAT = [{"role": "user", "content": "hello there"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return serve_app.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    return serve_app.tiny.classifier(tmp_path_factory.mktemp("vectors"), head="BertModel")


@pytest.fixture(scope="module")
def service(folder, vectors):
    return Service({"tiny": str(folder), "vectors": str(vectors)}, Limits(new_tokens=400, piece_tokens=16))


@pytest.fixture(scope="module")
def url(service):
    with serve_app.serving(service) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def alone(folder):
    """What the library itself writes: (prompt ids, settings) -> new ids."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def write(prompt, **settings):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"] if isinstance(prompt, str) else torch.tensor([prompt])
        out = model.generate(ids, tokenizer=tokenizer, **settings)
        return [row[ids.shape[1] :].tolist() for row in out], tokenizer

    return write


def text_of(ids, tokenizer):
    ids = [i for i in ids if i]
    return tokenizer.decode(ids, skip_special_tokens=True)


def rendered(messages):
    return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_models_are_listed(client):
    found = client.models.list().data
    assert [one.id for one in found] == ["tiny", "vectors"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.models.retrieve("nope")


def test_a_chat_is_what_the_library_writes(client, alone):
    answer = client.chat.completions.create(model="tiny", messages=CHAT, temperature=0, max_tokens=20)
    [ids], tokenizer = alone(rendered(CHAT), max_new_tokens=20, do_sample=False)
    assert answer.choices[0].message.content == text_of(ids, tokenizer)
    assert answer.usage.prompt_tokens == len(rendered(CHAT)) and answer.usage.completion_tokens == len(ids)
    assert answer.choices[0].finish_reason == ("stop" if ids[-1] == 0 else "length")


def test_a_stream_says_the_same_as_the_whole(client):
    call = {"model": "tiny", "messages": CHAT, "temperature": 0.8, "seed": 4, "max_tokens": 30, "n": 2}
    whole = client.chat.completions.create(**call)
    texts, ends, usage = ["", ""], [None, None], None
    for chunk in client.chat.completions.create(**call, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends[choice.index] = choice.finish_reason or ends[choice.index]
        usage = chunk.usage or usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_a_seed_gives_the_library_s_text(client, alone):
    settings = {"temperature": 0.9, "top_p": 0.8, "seed": 11}
    answer = client.completions.create(model="tiny", prompt="ab", max_tokens=24, n=3, **settings)
    rows, tokenizer = alone(
        "ab", max_new_tokens=24, do_sample=True, top_k=0, num_return_sequences=3, pad_token_id=0, **settings
    )
    assert [choice.text for choice in answer.choices] == [text_of(row, tokenizer) for row in rows]


def test_prompts_may_be_ids_and_lists(client, alone):
    answer = client.completions.create(model="tiny", prompt=[[5, 6, 7], [9]], temperature=0, max_tokens=9, echo=False)
    for ids, choice in zip([[5, 6, 7], [9]], answer.choices, strict=True):
        [new], tokenizer = alone(ids, max_new_tokens=9, do_sample=False)
        assert choice.text == text_of(new, tokenizer)
    echoed = client.completions.create(model="tiny", prompt="abc", temperature=0, max_tokens=3, echo=True)
    assert echoed.choices[0].text.startswith("abc")


def test_a_text_stops_before_a_stop_string_also_in_a_stream(client):
    call = {"model": "tiny", "prompt": "abc", "temperature": 0, "max_tokens": 40}
    plain = client.completions.create(**call).choices[0].text
    stop = plain[7:9]
    cut = client.completions.create(**call, stop=[stop, "never there"])
    assert cut.choices[0].text == plain[: plain.index(stop)] and cut.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**call, stop=stop, stream=True)]
    assert "".join(pieces) == cut.choices[0].text


def test_logprobs_are_those_of_the_model(client, folder):
    answer = client.chat.completions.create(
        model="tiny", messages=CHAT, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3
    )
    told = answer.choices[0].logprobs.content
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(rendered(CHAT), return_tensors="pt")["input_ids"]
    out = model.generate(ids, max_new_tokens=5, do_sample=False, output_logprobs=3, return_dict_in_generate=True)
    for mine, theirs in zip(told, out.logprobs[0], strict=True):
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-4)
        assert [t.logprob for t in mine.top_logprobs] == pytest.approx([a.logprob for a in theirs.top], abs=1e-4)


def test_bias_and_penalties_act(client):
    call = {"model": "tiny", "prompt": "abc", "temperature": 0, "max_tokens": 12}
    only = client.completions.create(**call, logit_bias={"66": 100})
    assert set(only.choices[0].text) == {client.completions.create(**call, logit_bias={"66": 100}).choices[0].text[0]}
    varied = client.completions.create(**call, logit_bias={"66": 20}, frequency_penalty=2, presence_penalty=2)
    assert varied.choices[0].text != only.choices[0].text


def test_an_answer_follows_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 0}, "ok": {"type": "boolean"}},
        "required": ["n", "ok"], "additionalProperties": False,
    }  # fmt: skip
    answer = client.chat.completions.create(
        model="tiny", messages=CHAT, seed=1, max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
    )  # fmt: skip
    found = json.loads(answer.choices[0].message.content)
    assert set(found) == {"n", "ok"} and 0 <= found["n"] <= 99


def test_pydantic_classes_come_back_parsed(client):
    from pydantic import BaseModel

    class Point(BaseModel):
        x: bool
        y: bool

    answer = client.chat.completions.parse(model="tiny", messages=CHAT, response_format=Point, seed=1, max_tokens=100)
    assert isinstance(answer.choices[0].message.parsed, Point)


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {
            "type": "object", "properties": {"warm": {"type": "boolean"}}, "required": ["warm"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_tool_that_must_be_called_is_called(client, choice):
    call = {"model": "tiny", "messages": CHAT, "tools": [TOOL], "tool_choice": choice, "seed": 2, "max_tokens": 100}
    answer = client.chat.completions.create(**call)
    [made] = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and made.function.name == "weather"
    assert isinstance(json.loads(made.function.arguments)["warm"], bool)
    streamed = ""
    for chunk in client.chat.completions.create(**call, stream=True):
        for one in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            streamed += one.function.arguments
    assert json.loads(streamed) == json.loads(made.function.arguments)
    again = [*CHAT, answer.choices[0].message.to_dict(), {"role": "tool", "tool_call_id": made.id, "content": "warm"}]
    assert client.chat.completions.create(model="tiny", messages=again, max_tokens=2).choices


def test_vectors_are_the_pipeline_s(client, vectors):
    texts = ["a good film", "the eu is great and not very bad", "i"]
    expected = pipeline("feature-extraction", str(vectors))(texts, pooling="mean", normalize=True, return_tensors="pt")
    found = client.embeddings.create(model="vectors", input=texts)  # as base64, which is what the client asks for
    plain = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    for one in (found, plain):
        assert torch.allclose(torch.tensor([row.embedding for row in one.data]), expected, atol=1e-5)
    short = client.embeddings.create(model="vectors", input=texts[0], dimensions=4)
    wanted = torch.nn.functional.normalize(expected[0][:4], dim=-1)
    assert torch.allclose(torch.tensor(short.data[0].embedding), wanted, atol=1e-5)


def test_many_at_once_write_what_each_writes_alone(url, alone):
    """They join and leave a running batch at every step; prompts of all lengths, some of them in pieces."""
    common = "a long beginning that several prompts share, word for word, and which is read but once: "
    prompts = [common + str(i) for i in range(6)] + ["x" * n for n in (1, 3, 20, 90)] + ["b", "b"]
    settings = [{"temperature": 0}, {"temperature": 0.7, "seed": 5}]

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

            async def one(i, prompt):
                await asyncio.sleep(0.01 * (i % 5))
                return await client.completions.create(
                    model="tiny", prompt=prompt, max_tokens=10 + 7 * (i % 4), **settings[i % 2]
                )

            return await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts)))

    for i, answer in enumerate(asyncio.run(all_of_them())):
        asked = {"do_sample": False} if i % 2 == 0 else {"do_sample": True, "top_k": 0, "temperature": 0.7, "seed": 5}
        [ids], tokenizer = alone(prompts[i], max_new_tokens=10 + 7 * (i % 4), **asked)
        assert answer.choices[0].text == text_of(ids, tokenizer), prompts[i]


def test_what_was_read_once_is_not_read_again(client):
    prompt = "a beginning that is long enough to be kept for the next one, "
    first = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": prompt}], max_tokens=1)
    second = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": prompt + "and more"}], max_tokens=1
    )
    held = second.usage.prompt_tokens_details.cached_tokens
    assert held >= len(prompt) > first.usage.prompt_tokens_details.cached_tokens


def test_an_answer_is_not_read_again_in_the_next_message(client):
    messages = [{"role": "user", "content": "a first message that is not short"}]
    letters = {str(i): -100 for i in range(257) if not 66 <= i <= 90}  # bytes that are read back as they were written
    call = {"model": "tiny", "temperature": 0, "max_tokens": 30, "logit_bias": letters}
    first = client.chat.completions.create(messages=messages, **call)
    messages += [first.choices[0].message.to_dict(), {"role": "user", "content": "and a second one"}]
    second = client.chat.completions.create(messages=messages, **call)
    held = second.usage.prompt_tokens_details.cached_tokens
    assert held >= first.usage.prompt_tokens + first.usage.completion_tokens - 1


def test_who_leaves_frees_the_place_within_a_step(client, service):
    generator = service.models["tiny"].generator
    stream = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=400, stream=True, logit_bias={"0": -100}
    )
    next(iter(stream))
    stream.close()
    done = threading.Event()
    for _ in range(100):
        if generator.count() == (0, 0):
            done.set()
            break
        done.wait(0.02)
    assert done.is_set()
    total = service.metrics.registry.get_sample_value("cutaway_written_tokens_total", {"model": "tiny"})
    assert total is not None


def test_the_chat_shows_its_work_when_asked(client):
    answer = client.chat.completions.create(
        model="tiny", messages=CHAT, temperature=0, max_tokens=3, extra_body={"explain": True}
    )
    shown = answer.choices[0].to_dict()["explanation"]
    assert len(shown) == answer.usage.completion_tokens
    assert shown[0]["id"] == shown[0]["alternatives"][0]["id"] and len(shown[0]["alternatives"]) == 5


# -- /v1/responses ---------------------------------------------------------------------------------------------------


def test_a_response_says_what_the_chat_says_whole_and_streamed(client):
    call = {"model": "tiny", "temperature": 0, "max_output_tokens": 12}
    whole = client.responses.create(input="hello there", **call)
    chat = client.chat.completions.create(model="tiny", messages=CHAT, temperature=0, max_tokens=12)
    assert whole.output_text == chat.choices[0].message.content
    assert whole.usage.output_tokens == chat.usage.completion_tokens
    with client.responses.stream(input=[{"role": "user", "content": "hello there"}], **call) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response() if whole.status == "completed" else None
    assert text == whole.output_text and (final is None or final.output_text == text)


def test_a_response_follows_a_schema_and_calls_tools(client):
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema["additionalProperties"] = False
    formed = client.responses.create(
        model="tiny", input="x", instructions="be brief", extra_body={"seed": 1}, max_output_tokens=100,
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
    )  # fmt: skip
    assert isinstance(json.loads(formed.output_text)["a"], bool)
    tools = [{"type": "function", **TOOL["function"]}]
    call = {"model": "tiny", "input": "x", "tools": tools, "tool_choice": "required", "max_output_tokens": 100}
    made = client.responses.create(**call, extra_body={"seed": 1})
    [one] = made.output
    assert one.type == "function_call" and one.name == "weather" and "warm" in json.loads(one.arguments)
    history = [{"role": "user", "content": "x"}, one.to_dict(), {
        "type": "function_call_output", "call_id": one.call_id, "output": "warm"}]  # fmt: skip
    assert client.responses.create(model="tiny", input=history, max_output_tokens=2).output
    streamed = list(client.responses.create(**call, extra_body={"seed": 1}, stream=True))
    assert streamed[-1].response.output[0].arguments == one.arguments
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        client.responses.create(model="tiny", input="x", previous_response_id="resp_1")
