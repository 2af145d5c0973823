"""Trainings of every task from rows: what is read, what is learned, and what others can load."""

from __future__ import annotations

import json
import warnings
from itertools import chain, repeat

import numpy as np
import pytest
import tiny
import torch

from cutaway import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments
from cutaway.errors import InputError
from cutaway.nn.losses import IGNORED
from cutaway.train import DataCollatorForLanguageModeling, DataCollatorWithFlattening
from cutaway.tuning import READINGS, RankingTrainer, TaskOptions, TaskTuning, read_task
from cutaway.tuning.chat_rows import encoded
from cutaway.tuning.ranking_measures import correlations, of_groups, of_ranks, ranks
from cutaway.tuning.ranking_trainer import ranking_settings
from cutaway.tuning.task_rows import words_of_spans
from cutaway.tuning.task_tuning import beaten_by_cosines, write_task
from cutaway.tuning.tasks import TASKS

PAIRS = [("a good film", "great"), ("a bad film", "not very good"), ("the eu", "trust"), ("it was", "i believe")]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def trained(tmp_path, model, task, data, steps=20, rate=5e-3, options=None, **more):
    rows = read_task(data, READINGS[task], {})
    settings = {"max_steps": steps, "learning_rate": rate, "save_strategy": "steps", "disable_tqdm": True, **more}
    settings |= {"eval_strategy": "steps", "eval_steps": steps, "save_steps": steps}
    tuning = TaskTuning(str(model), rows, rows, settings, task=task, options=options or TaskOptions())
    tuning.check()
    outcome = tuning.run(tmp_path / "out")
    return tuning, outcome, write_task(tuning, outcome, tmp_path / "out", data=data)


@pytest.mark.slow
def test_vectors_learn_to_find_their_texts_and_sentence_transformers_reads_them(tmp_path):
    base = tiny.classifier(tmp_path / "base", head="BertModel")
    data = lines(tmp_path / "pairs.jsonl", [{"anchor": a, "positive": b} for a, b in PAIRS])
    _, outcome, found = trained(tmp_path, base, "sentence-similarity", data, 100, 2e-3)
    assert found.measures["mrr_at_10"] == 1 > outcome.before["mrr_at_10"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "before the training" in page and 'data-name="before"' in page and "MRR at 10" in page
    assert "| before |" in (tmp_path / "out" / "README.md").read_text()
    from cutaway.pipelines.embedder import Embedder

    ours = Embedder(str(tmp_path / "out")).encode([a for a, _ in PAIRS], convert_to_tensor=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = pytest.importorskip("sentence_transformers")
        theirs = reference.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(
            [a for a, _ in PAIRS], convert_to_tensor=True
        )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_loss_of_pairs_does_not_depend_on_how_the_batch_is_cut(tmp_path):
    from cutaway import AutoModel
    from cutaway.train.sentence_losses import CosineSimilarityLoss
    from cutaway.tuning import SentenceTrainer

    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = tiny.classifier(tmp_path / "base", head="BertModel", **still)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{"texts": tokenizer([a, b])["input_ids"], "label": i / 4} for i, (a, b) in enumerate(PAIRS)]

    def first(size, parts):
        args = TrainingArguments(
            tmp_path / f"{size}", per_device_train_batch_size=size, gradient_accumulation_steps=parts, max_steps=1,
            logging_steps=1, save_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        model = AutoModel.from_pretrained(folder)
        trainer = SentenceTrainer(
            model, args, train_dataset=rows, processing_class=tokenizer, loss=CosineSimilarityLoss()
        )
        trainer.train()
        entry = trainer.state.log_history[0]
        return [entry["loss"], entry["grad_norm"]]

    assert first(4, 1) == pytest.approx(first(2, 2), rel=1e-5)
    assert first(4, 1) == pytest.approx(first(3, 2), rel=1e-5)


STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.mark.slow
def test_a_reranker_learns_the_order_of_a_querys_documents(tmp_path):
    base = tiny.classifier(tmp_path / "base", head="BertModel", **STILL)
    rows = [{"query": a, "positive": b, "negatives": [PAIRS[i - 1][1]]} for i, (a, b) in enumerate(PAIRS)]
    _, outcome, found = trained(tmp_path, base, "rerank", lines(tmp_path / "a.jsonl", rows), 20, 1e-3)
    first = next(entry["loss"] for entry in outcome.trainer.state.log_history if "loss" in entry)
    assert outcome.metrics["eval_loss"] < first
    assert {"mrr_at_10", "ndcg_at_10", "pairs_right"} == set(found.measures)
    # a query's loss: the cross-entropy over its documents, and a fifth of the mean binary cross-entropy of each
    trainer = outcome.trainer
    batch = trainer.data_collator(trainer.eval_dataset[:4])
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    scores, right = outputs["logits"].view(4, 2), torch.tensor([[1.0, 0.0]] * 4)
    sure = torch.nn.functional.binary_cross_entropy_with_logits(scores, right)
    wanted = 0.2 * sure - scores.log_softmax(1)[:, 0].mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    # the base model's cosines stand beside it
    from cutaway.pipelines.embedder import Embedder

    embed = Embedder(str(base))
    near = [
        np.asarray(embed.encode([a], normalize_embeddings=True))
        @ np.asarray(embed.encode([b, PAIRS[i - 1][1]], normalize_embeddings=True)).T
        for i, (a, b) in enumerate(PAIRS)
    ]
    beside = np.mean([1.0 if one[0, 0] > one[0, 1] else 0.5 for one in near])
    assert outcome.before["mrr_at_10"] == pytest.approx(beside)
    assert "by the base model&#39;s cosines" in (tmp_path / "out" / "report.html").read_text()
    assert "| the base model's cosines |" in (tmp_path / "out" / "README.md").read_text()


def test_a_reranker_that_its_cosines_beat_is_said_to_be():
    assert beaten_by_cosines({"mrr_at_10": 0.5}, {"mrr_at_10": 0.5}) == ""
    assert beaten_by_cosines({"mrr_at_10": 0.5}, {}) == ""
    assert "0.6000 against 0.5000" in beaten_by_cosines({"mrr_at_10": 0.5}, {"mrr_at_10": 0.6})


def test_documents_of_a_query_are_one_row_however_the_table_holds_them(tmp_path):
    folder = tiny.classifier(tmp_path / "base", labels=1, **STILL)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    wide = [{"query": a, "positive": b, "negatives": [PAIRS[i - 1][1]]} for i, (a, b) in enumerate(PAIRS)]
    long = [{"query": a, "document": b, "label": 1} for a, b in PAIRS]
    long += [{"query": a, "document": PAIRS[i - 1][1], "label": 0} for i, (a, _) in enumerate(PAIRS)]
    read = [read_task(lines(tmp_path / "a.jsonl", rows), READINGS["rerank"], {}) for rows in (wide, long)]
    one, other = (TASKS["rerank"].encode(rows, model, tokenizer, TaskOptions()) for rows in read)
    assert one == other and [len(row["pairs"]) for row in one] == [2] * 4


def test_a_loss_of_rankings_does_not_depend_on_how_the_batch_is_cut(tmp_path):
    folder = tiny.classifier(tmp_path / "base", labels=1, **STILL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        {"pairs": [{"input_ids": tokenizer(a, text)["input_ids"]} for text in (b, "not", "film")[: 1 + i % 3]],
         "right": [1.0, 0.0, 0.5][: 1 + i % 3]}
        for i, (a, b) in enumerate(PAIRS)
    ]  # fmt: skip

    def first(size, parts):
        args = TrainingArguments(
            tmp_path / f"{size}", per_device_train_batch_size=size, gradient_accumulation_steps=parts, max_steps=1,
            logging_steps=1, save_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        trainer = RankingTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
        trainer.train()
        entry = trainer.state.log_history[0]
        return [entry["loss"], entry["grad_norm"]]

    assert first(4, 1) == pytest.approx(first(2, 2), rel=1e-5)
    assert first(4, 1) == pytest.approx(first(3, 2), rel=1e-5)


def test_an_evaluation_of_rankings_says_how_good_the_order_is(tmp_path):
    folder = tiny.classifier(tmp_path / "base", labels=1, **STILL)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    texts = ["great scenes", "not", "film", "a dull film"]
    rows = [
        {"pairs": [{"input_ids": tokenizer(a, text)["input_ids"]} for text in texts[: 2 + i % 3]],
         "right": [0.0, 1.0, 0.0, 0.0][: 2 + i % 3]}
        for i, (a, _) in enumerate(PAIRS)
    ]  # fmt: skip
    args = TrainingArguments(tmp_path / "o", per_device_eval_batch_size=3, disable_tqdm=True, use_cpu=True)
    trainer = RankingTrainer(model, args, eval_dataset=rows, processing_class=tokenizer)
    found = trainer.evaluate()
    places = []
    for row in rows:
        with torch.inference_mode():
            scores = [float(model(input_ids=torch.tensor([pair["input_ids"]])).logits) for pair in row["pairs"]]
        places.append(1 + sum(score > scores[1] for score in scores))
    assert found["eval_mrr_at_10"] == pytest.approx(sum(1 / place for place in places) / len(places))
    assert 0 < found["eval_ndcg_at_10"] <= 1 and found["eval_loss"] > 0
    alike = [{**row, "right": [1.0] * len(row["right"])} for row in rows]
    assert "eval_mrr_at_10" not in trainer.evaluate(alike)


@pytest.mark.parametrize("ranked", [True, False])
def test_the_reranker_that_ranks_best_is_kept(tmp_path, monkeypatch, ranked):
    """By the MRR of the validation; by its loss where that ranks nothing."""
    base = tiny.classifier(tmp_path / "base", labels=1, **STILL)
    rows = [{"query": a, "positive": b, "negatives": [PAIRS[i - 1][1]]} for i, (a, b) in enumerate(PAIRS)]
    alike = [{"query": a, "document": b, "label": 1} for a, b in PAIRS]
    training = read_task(lines(tmp_path / "a.jsonl", rows), READINGS["rerank"], {})
    validation = read_task(lines(tmp_path / "b.jsonl", rows if ranked else alike), READINGS["rerank"], {})
    said = chain([0.5, 0.9, 0.7], repeat(0.9))
    monkeypatch.setattr("cutaway.tuning.ranking_trainer.of_groups", lambda *_: {"mrr_at_10": np.array([next(said)])})
    settings = {"num_train_epochs": 3, "disable_tqdm": True, "use_cpu": True, "report_to": "none"}
    tuning = TaskTuning(str(base), training, validation, settings, task="rerank")
    trainer = tuning.run(tmp_path / "out").trainer
    assert trainer.args.metric_for_best_model == ("mrr_at_10" if ranked else "loss")
    if ranked:
        assert trainer.state.best_metric == 0.9 and trainer.state.best_global_step == trainer.state.max_steps // 3 * 2


def test_few_queries_are_gone_through_more_often():
    epochs = [ranking_settings(n, 5 * n)["num_train_epochs"] for n in (1, 100, 200, 1024, 100_000)]
    assert epochs == sorted(epochs, reverse=True) and epochs[0] > epochs[-1] > 1


def test_queries_with_many_documents_are_taken_fewer_at_a_time():
    sizes = [ranking_settings(50, 50 * n)["per_device_train_batch_size"] for n in (1, 5, 8, 16, 60, 100)]
    assert sizes == [8, 8, 8, 4, 1, 1]


def test_only_answers_are_learned_and_packing_changes_nothing(tmp_path):
    folder = tiny.decoder(tmp_path / "dec")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer.pad_token = tokenizer.eos_token
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    talk = [
        {"role": "user", "content": "good?"}, {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "bad?"}, {"role": "assistant", "content": "no"},
    ]  # fmt: skip
    row = encoded({"messages": talk}, tokenizer, None)
    said = tokenizer.decode([token for token in row["labels"] if token != IGNORED])
    assert said == "yes;no;"
    assert tokenizer.decode(row["input_ids"]) == "<user>good?;<assistant>yes;<user>bad?;<assistant>no;"
    one = encoded({"prompt": "good?", "answer": "yes"}, tokenizer, None)
    assert tokenizer.decode([token for token in one["labels"] if token != IGNORED]) == "yes;"
    tokenizer.chat_template = None
    plain = encoded({"prompt": "is it", "answer": "good"}, tokenizer, None)
    assert tokenizer.decode(plain["input_ids"]) == "is it good<|endoftext|>"
    assert tokenizer.decode([t for t in plain["labels"] if t != IGNORED]) == "good<|endoftext|>"
    rows = [row, one, plain]
    padded = DataCollatorForLanguageModeling(tokenizer, mlm=False)([dict(r) for r in rows])
    packed = DataCollatorWithFlattening()([dict(r) for r in rows])
    with torch.no_grad():
        first, second = model(**padded).loss, model(**packed).loss
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def test_a_template_that_rewrites_earlier_turns_is_refused(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny.decoder(tmp_path / "dec"))
    tokenizer.chat_template = "{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(InputError, match="as prompt and answer"):
        encoded(
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, tokenizer, None
        )


@pytest.mark.slow
def test_an_adapter_is_merged_and_lies_beside_the_model(tmp_path):
    folder = tiny.decoder(tmp_path / "dec")
    data = lines(tmp_path / "a.jsonl", [{"prompt": "is it good", "answer": "very"}] * 4)
    options = TaskOptions(lora=2)
    _, outcome, found = trained(tmp_path, folder, "text-generation", data, 10, 1e-2, options)
    assert found.measures["loss"] < outcome.before["loss"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    apart = AutoModelForCausalLM.from_pretrained(folder).eval()
    apart.load_adapter(tmp_path / "out" / "adapter")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, apart(ids).logits, rtol=1e-4, atol=1e-4)


def test_marked_spans_are_words_with_tags():
    text = "ann lives in new york."
    words, tags = words_of_spans(
        text, [{"start": 0, "end": 3, "label": "PER"}, {"start": 13, "end": 21, "label": "LOC"}]
    )
    assert words == ["ann", "lives", "in", "new", "york", "."]
    assert tags == ["B-PER", "O", "O", "B-LOC", "I-LOC", "O"]
    assert words_of_spans("goodfilm", [{"start": 0, "end": 4, "label": "X"}])[0] == ["good", "film"]
    with pytest.raises(InputError, match="overlap at character 2"):
        words_of_spans("good", [{"start": 0, "end": 3, "label": "X"}, {"start": 2, "end": 4, "label": "Y"}])
    with pytest.raises(InputError, match="marks no text"):
        words_of_spans("good", [{"start": 2, "end": 9, "label": "X"}])


def test_rows_that_cannot_be_trained_on_are_named(tmp_path):
    def said(task, rows):
        with pytest.raises(InputError) as error:
            read_task(lines(tmp_path / "x.jsonl", rows), READINGS[task], {})
        return str(error.value)

    asked = {"question": "q", "context": "a good film", "answers": ["bad"]}
    assert "row 1: the answer 'bad' does not stand in its context" in said("question-answering", [asked])
    pair = {"anchor": "a", "positive": "b"}
    both = [pair | {"negatives": ["c"]}, pair | {"negatives": ["c", "d"]}]
    assert "2 texts (row 1)" not in (text := said("sentence-similarity", both)) and "3 texts (row 1)" in text
    assert "row 2: 'positive' is empty" in said("sentence-similarity", [pair, pair | {"positive": ""}])
    assert "nothing to learn" in said("text-generation", [{"messages": [{"role": "user", "content": "a"}]}])
    assert "2 words and 1 tag" in said("token-classification", [{"tokens": ["a", "b"], "tags": ["O"]}])
    (tmp_path / "x.conll").write_text("good B-X\nfilm\n\n")
    with pytest.raises(InputError, match="line 2 holds 'film'"):
        read_task(str(tmp_path / "x.conll"), READINGS["token-classification"], {})


def test_measures_of_rankings():
    import numpy as np

    scores = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1]])
    assert ranks(scores, [0, 1, 2]).tolist() == [1, 2, 3]  # equal scores count as before it
    per_row = of_ranks(np.array([1, 2, 11]))
    assert per_row["mrr_at_10"].tolist() == [1.0, 0.5, 0.0]
    assert per_row["recall_at_10"].tolist() == [1.0, 1.0, 0.0]
    assert per_row["ndcg_at_10"].tolist() == pytest.approx([1.0, 1 / np.log2(3), 0.0])
    found = of_groups([np.array([0.9, 0.1]), np.array([0.5, 0.5])], [np.array([1.0, 0.0])] * 2)
    assert found["mrr_at_10"].tolist() == [1.0, 0.5]
    from scipy.stats import pearsonr, spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)
    ours = correlations(a, b)
    assert ours["spearman"] == pytest.approx(spearmanr(a, b).statistic)
    assert ours["pearson"] == pytest.approx(pearsonr(a, b).statistic)
    assert correlations(np.ones(3), np.arange(3.0)) == {}


def test_a_base_that_cannot_learn_the_task_is_refused_before_the_work(tmp_path):
    encoder = tiny.classifier(tmp_path / "enc", head="BertModel")
    decoder = tiny.decoder(tmp_path / "dec")

    def said(model, task, row):
        rows = read_task(lines(tmp_path / "a.jsonl", [row] * 2), READINGS[task], {})
        with pytest.raises(InputError) as error:
            TaskTuning(str(model), rows, rows, {}, task=task).check()
        return str(error.value)

    assert "bert model, which cannot be trained for summarization: it writes no text. Take an encoder-decoder" in said(
        encoder, "summarization", {"text": "a", "target": "b"}
    )
    assert "cannot be trained for fill-mask" in said(decoder, "fill-mask", {"text": "a"})
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert "has no chat template, and the data has messages" in said(decoder, "text-generation", talk)
