from __future__ import annotations

import functools
import io
import json
import os
import platform
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tiny
import torch
from instructions import RUNNABLE

from cutaway import __version__, cli, native
from cutaway.commands import task
from cutaway.errors import ConfigError

TEXT = "I believe that the EU is trustworthy."


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny.of_each_kind(tmp_path_factory.mktemp("models"))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def command(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["cutaway", *map(str, arguments)])
        content = stdin if isinstance(stdin, bytes) else (stdin or "").encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out = capsys.readouterr()
        return ended.value.code or 0, out.out, out.err

    return command


def python(*arguments, **kwargs):
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, timeout=60, **kwargs
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["explain", "attribute"])
def test_a_text_that_is_too_long_is_one_line_of_a_fresh_process(models, command):
    code, out, err = python("-m", "cutaway", command, "good " * 100, "--model", models["encoder"])
    assert (code, out) == (1, "")
    assert err.startswith("cutaway: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["explain"], ["tokenize"], ["classify"], ["generate"], ["models"]])
def test_help_imports_no_torch(command):
    code = (
        f"import sys; sys.argv = ['cutaway', *{command!r}, '--help']\n"
        "from cutaway.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended, out, err = python("-c", code)
    assert ended == 0, err
    assert "Usage" in out


def test_version_and_module():
    code, out, _ = python("-m", "cutaway", "--version")
    says = [f"cutaway {__version__}", f"python {platform.python_version()}", f"torch {torch.__version__}"]
    assert (code, out.splitlines()) == (0, [*says, f"kernels: {native.description()}"])


def test_version_says_why_there_are_no_kernels(tmp_path, monkeypatch, run):
    def said(wanted=None):
        for field, value in native.choose(wanted, tmp_path)._asdict().items():
            monkeypatch.setattr(native, {"library": "LIBRARY", "name": "NAME", "why": "MISSING"}[field], value)
        code, out, _ = run("--version")
        assert code == 0
        return out.splitlines()[-1]

    for system, machine, reason in (("linux", "x86_64", "no C compiler"), ("darwin", "arm64", "Linux on x86-64")):
        monkeypatch.setattr(native.sys, "platform", system)
        monkeypatch.setattr(native.platform, "machine", lambda machine=machine: machine)
        assert said().startswith("kernels: none (") and reason in said()
    assert said("plain") == "kernels: none (as CUTAWAY_CPU asks); torch computes the same"
    for file, _ in native.INSTRUCTIONS.values():
        (tmp_path / file).write_bytes(b"no library")
    assert "kernels.so cannot be opened" in said() and "kernels_avx2.so cannot be opened" in said()
    having = set()
    monkeypatch.setattr(
        native,
        "_opened",
        lambda path: SimpleNamespace(
            cw_supported=lambda: path.name in having,
            cw_vnni_used=lambda: 0,
            cw_block_rows=SimpleNamespace(),
            cw_pack=SimpleNamespace(),
            cw_laid_out_bytes=SimpleNamespace(),
            cw_lay_out=SimpleNamespace(),
            cw_run=SimpleNamespace(),
            cw_replay=SimpleNamespace(),
        ),
    )
    assert "built from other sources" in said()
    monkeypatch.setattr(native, "_agrees", lambda library: True)
    assert "none (this processor has no AVX-512 with VNNI; this processor has no AVX2 with FMA)" in said()
    with pytest.raises(
        ConfigError, match="CUTAWAY_CPU is 'avx2', whose kernels cannot run: this processor has no AVX2"
    ):
        said("avx2")
    having.add("kernels_avx2.so")
    assert said() == "kernels: AVX2 with FMA (this processor has no AVX-512 with VNNI)"
    with pytest.raises(ConfigError, match="'avx512', whose kernels cannot run"):
        said("avx512")


@pytest.mark.parametrize("command", [["--version"], ["bench"], ["classify", "Good."]])
def test_other_names_of_kernels_are_one_error(command, monkeypatch):
    monkeypatch.setenv("CUTAWAY_CPU", "avx3")
    code, out, err = python("-m", "cutaway", *command)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "CUTAWAY_CPU is 'avx3'; it can be avx512, avx2, plain" in err


@pytest.mark.parametrize("name", [*RUNNABLE, "plain"])
def test_the_kernels_that_were_asked_for(name, monkeypatch):
    monkeypatch.setenv("CUTAWAY_CPU", name)
    code, out, _ = python("-m", "cutaway", "--version")
    wanted = "none" if name == "plain" else native.INSTRUCTIONS[name].label
    assert code == 0 and out.splitlines()[-1].startswith(f"kernels: {wanted}") and "as CUTAWAY_CPU asks" in out


def test_version_without_torch(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = run("--version")
    assert code == 0
    assert f"cutaway {__version__}\n" in out and "torch cannot be imported" in out and "kernels: none" in out


def test_explain_shows_an_encoder(run, models):
    code, out, err = run("explain", TEXT, "--model", models["encoder"], "--layer", 1, "--head", 2, "--token", "trust")
    assert (code, err) == (0, "")
    for part in (
        "##worthy",
        "layer 1, head 2 (asked for)",
        "vector of 'trust'",
        "POSITIVE",
        "softmax",
        "blocks.1.resid",
    ):
        assert part in out


@pytest.mark.parametrize("model", ["base", "mask", "decoder", "t5"])
def test_explain_shows_every_kind(run, models, model):
    code, out, _ = run("explain", "a good [MASK] film", "--model", models[model], "--max-new-tokens", 3)
    assert code == 0
    expected = {"base": "no head", "mask": "Filled in", "decoder": "What was generated", "t5": "cross attention"}
    assert expected[model] in out
    if model in ("decoder", "t5"):  # what was written comes first
        assert out.index("What was generated") < out.index("Tokens")


def test_explain_writes_files(run, models, tmp_path):
    paths = [tmp_path / name for name in ("a.png", "a.svg", "a.html", "a.json")]
    options = [part for path in paths for part in ("-o", path)]
    code, out, err = run("explain", TEXT, "--model", models["encoder"], *options)
    assert (code, err) == (0, "")
    assert all(path.stat().st_size > 1000 for path in paths)
    assert "a.html" in out
    assert json.loads(paths[3].read_text())["attention"]["self"]["pattern"]


def test_explain_json_is_one_document(run, models):
    code, out, _ = run("explain", TEXT, "--model", models["encoder"], "--json")
    read = json.loads(out)
    assert code == 0
    assert [answer["label"] for answer in read["answers"]] == ["NEGATIVE", "POSITIVE"]
    assert sum(answer["probability"] for answer in read["answers"]) == pytest.approx(1, abs=1e-5)


def test_explain_reads_stdin(run, models):
    for arguments in ([], ["-"]):
        code, out, _ = run("explain", *arguments, "--model", models["encoder"], "--json", stdin=TEXT + "\n")
        assert code == 0
        assert json.loads(out)["text"] == TEXT


def test_tokenize(run, models):
    code, out, _ = run("tokenize", TEXT, "bad", "--model", models["encoder"], "--json")
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert "##worthy" in first["tokens"]
    assert first["offsets"][first["tokens"].index("trust")] == [25, 30]
    assert second["special"] == [True, False, True]
    assert "25-30" in run("tokenize", TEXT, "--model", models["encoder"])[1]


def test_classify(run, models):
    code, out, _ = run("classify", "--model", models["encoder"], "--json", stdin="good\n\nbad\r\n")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["text"] for answer in answers] == ["good", "bad"]
    assert len(answers[0]["labels"]) == 2
    code, out, _ = run("classify", "good", "--top-k", 1, "--model", models["encoder"])
    assert code == 0
    assert out.count("TIVE") == 1


def test_classify_and_pipeline_agree(run, models):
    from cutaway.pipelines import pipeline

    out = run("classify", TEXT, "--model", models["encoder"], "--json")[1]
    assert json.loads(out)["labels"] == pipeline(model=models["encoder"])(TEXT, top_k=None)


def test_generate(run, models):
    code, out, _ = run("generate", "ab", "--model", models["decoder"], "--max-new-tokens", 5)
    assert code == 0
    assert out.startswith("ab")
    code, document, _ = run("generate", "ab", "--model", models["decoder"], "--max-new-tokens", 5, "--json")
    assert code == 0
    assert json.loads(document)["text"] == "ab"
    sampled = [
        run("generate", "ab", "--model", models["decoder"], "--sample", "--seed", 3, "--temperature", 2, "--json")[1]
        for _ in range(2)
    ]
    assert sampled[0] == sampled[1]
    assert run("generate", "a good film", "--model", models["t5"], "--max-new-tokens", 3)[0] == 0
    beams = ["generate", "ab", "--model", models["decoder"], "--max-new-tokens", 5, "--num-beams", 3]
    code, out, _ = run(*beams)
    assert code == 0
    assert out.startswith("ab")


def test_generate_in_a_form(run, models, tmp_path):
    (tmp_path / "schema.json").write_text('{"enum": ["ab", "ba"]}')
    (tmp_path / "form.lark").write_text('start: "a" "b"+')
    command = ["generate", "ab", "--model", models["decoder"], "--json", "--max-new-tokens"]
    for option, value, answers in (
        ("--json-schema", tmp_path / "schema.json", {'"ab"', '"ba"'}),
        ("--regex", "[ab]{3}x", {a + b + c + "x" for a in "ab" for b in "ab" for c in "ab"}),
    ):
        code, out, _ = run(*command, 12, option, value)
        assert code == 0
        assert json.loads(out)["generated"] in answers
    code, _, error = run(*command, 4, "--grammar", tmp_path / "form.lark", "--regex", "a")
    assert (code, "exclude each other" in error) == (1, True)
    code, _, error = run(*command, 2, "--regex", "a{30}")
    assert (code, "Raise max_new_tokens" in error) == (1, True)


def test_models(run, models, monkeypatch, tmp_path):
    import shutil

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--some-model" / "snapshots" / "abc"
    shutil.copytree(models["encoder"], snapshot)
    (tmp_path / "models--someone--broken" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "models--someone--broken" / "snapshots" / "abc" / "config.json").write_text("{")
    code, out, _ = run("models", "--json")
    entry = json.loads(out)[-1]
    assert code == 0
    assert entry["name"] == "someone/some-model"
    assert (entry["family"], entry["task"], entry["source"]) == ("bert", "text-classification", "cache")
    assert entry["bytes"] == (snapshot / "model.safetensors").stat().st_size
    assert "someone/some-model" in run("models")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "   "], "empty"),
        (["explain", TEXT, "--model", "no/such-model"], "no/such-model"),
        (["explain", TEXT, "--model", "ENCODER", "--layer", "9"], "layer=9"),
        (["explain", TEXT, "--model", "ENCODER", "--head", "-1"], "head=-1"),
        (["explain", TEXT, "--model", "ENCODER", "--token", "Paris"], "Paris"),
        (["explain", TEXT, "--model", "ENCODER", "--attention", "cross"], "cross"),
        (["explain", "good " * 100, "--model", "ENCODER"], "64"),
        (["classify", "good " * 100, "--model", "ENCODER"], "truncation"),
        (["classify", "--model", "ENCODER"], "stdin"),
        (["generate", "good", "--model", "ENCODER"], "writes no text"),
    ],
)
def test_errors_are_one_line_and_exit_1(run, models, arguments, message):
    code, out, err = run(*[models["encoder"] if part == "ENCODER" else part for part in arguments])
    assert code == 1
    assert out == ""
    assert err.startswith("cutaway: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["explain", TEXT, "-o", "picture.gif"],
        ["explain", TEXT, "-o", "no/such/folder/picture.png"],
        ["explain", TEXT, "--layer", "two"],
        ["classify", TEXT, "--threads", "0"],
        ["generate", TEXT, "--seed", "3"],
        ["classify", TEXT, "--dtype", "int3"],
    ],
)
def test_wrong_usage_exits_2(run, arguments):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert "Error" in err


def test_options_reach_the_model(run, models):
    import torch

    threads = torch.get_num_threads()
    try:
        out = run(
            "explain", TEXT, "--model", models["encoder"], "--dtype", "bfloat16", "--threads", 1, "--offline", "--json"
        )
        assert json.loads(out[1])["model"]["dtype"] == "bfloat16"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def test_hostile_text_is_only_shown(run, models):
    code, out, _ = run("explain", "\x1b[31m[bold]</script>$x^2$\u202e 😀", "--model", models["encoder"])
    assert code == 0
    assert "\x1b" not in out
    assert "\u202e" not in out
    code, out, _ = run("classify", "--model", models["encoder"], stdin=b"\xff\xfe bad\n\x1b[2J\n")
    assert code == 0
    assert "\x1b" not in out


def test_interrupted_exits_130_without_a_traceback(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "texts_or_stdin", interrupted)
    code, _, err = run("classify", TEXT)
    assert code == 130
    assert "Traceback" not in err


def test_ctrl_c_while_a_text_is_written(models):
    command = [sys.executable, "-m", "cutaway", "generate", "-", "--model", models["decoder"]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a shell starts its background jobs deaf to Ctrl-C, and they hand that down
    hears = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, text=True, preexec_fn=hears, **pipes) as running:
        running.stdin.write("ab\n")
        running.stdin.flush()
        assert running.stdout.read(2) == "ab"  # the model is loaded, and the command waits for more lines
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err == ""


def test_a_terminal_without_the_letters(models):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    code, out, err = python("-m", "cutaway", "explain", TEXT + " 日本", "--model", models["encoder"], env=environment)
    assert (code, err) == (0, "")
    assert "POSITIVE" in out


def test_only_the_command_that_is_asked_for_is_built(run, monkeypatch):
    import typer.main

    built = []
    make = typer.main.get_command_from_info
    monkeypatch.setattr(typer.main, "get_command_from_info", lambda *a, **k: built.append(1) or make(*a, **k))
    code, out, _ = run("tokenize", "--help")
    assert code == 0 and "cutaway tokenize [OPTIONS]" in out and len(built) == 1
    code, out, _ = run("--help")
    assert code == 0 and "tokenize" in out and "classify" in out and len(built) > 30
    code, _, err = run("tokenise", "x")
    assert code == 2 and "tokenise" in err
