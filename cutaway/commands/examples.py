"""One example for each command, shown at the end of its help and run by the tests."""

from __future__ import annotations

TEXT = '"A warm, funny film."'
EXAMPLES: dict[str, str] = {
    "serve": "cutaway serve cutaway/sentiment",
    "studio": "cutaway studio",
    "chat": "cutaway chat cutaway/smollm2",
    "explain": f"cutaway explain {TEXT} -o explain.html",
    "attend": f"cutaway attend {TEXT} --layer 3 --head 7 -o attention.png",
    "lens": 'cutaway lens "The capital of France is" -o lens.html',
    "attribute": f"cutaway attribute {TEXT} --method integrated",
    "patch": 'cutaway patch "A good film." "A bad film."',
    "compare": 'cutaway compare "A good film." "A bad film."',
    "tokenize": f"cutaway tokenize {TEXT}",
    "generate": 'cutaway generate "What is the capital of France?" --max-new-tokens 20',
    "models": "cutaway models --folder trained",
    "convert": "cutaway convert cutaway/smollm2 smollm2-q8.gguf --quantize q8_0",
    "evaluate": "cutaway evaluate cutaway/sentiment rated.csv --column label=stars -o report.json",
    "bench": "cutaway bench cutaway/sentiment --dtype int8",
    "train": "cutaway train distilbert-base-uncased mails.csv -o mails --column body --column label=kind",
    "classify": "cutaway classify --input reviews.csv --column review --output labels.csv",
    "sort": f"cutaway sort {TEXT} --label films --label sport",
    "entities": 'cutaway entities "Ann moved to Rome."',
    "answer": 'cutaway answer "Ann moved to Rome." --question "Where did Ann move?"',
    "fill-mask": 'cutaway fill-mask "A warm, <mask> film."',
    "embed": "cutaway embed --input reviews.csv --column review --output vectors.parquet",
    "similar": 'cutaway similar "A dull film." "A warm film." --source-sentence "A lovely film."',
    "rerank": 'cutaway rerank "Rome is in Italy." "Films are fun." --query "Where is Rome?"',
    "choose": 'cutaway choose "to the cinema." "to the moon." --prompt "We went"',
    "perplexity": f"cutaway perplexity {TEXT}",
    "summarize": "cutaway summarize --input articles.jsonl --column body --output short.jsonl",
    "translate": 'cutaway translate "Good morning" --model translation-model',
    "rewrite": 'cutaway rewrite "translate English to German: Good morning"',
    "continue": "cutaway continue --input beginnings.txt --output texts.jsonl --max-new-tokens 50",
    "search": 'cutaway search reviews.csv "too long and dull" --column review --top-k 5',
    "cluster": "cutaway cluster reviews.csv --column review --topics 12 -o topics.html -o topics.csv",
    "label": "cutaway label reviews.csv --column review --label good --label bad -o labelled.csv",
    "dedupe": "cutaway dedupe reviews.csv --column review --threshold 0.9 -o unique.csv --drop",
    "agree": "cutaway agree ann.csv ben.csv --label stars --key id -o differ.csv",
}


def epilog(command: str) -> str:
    """The last line of a command's help."""
    return f"Example: {EXAMPLES[command]}"
