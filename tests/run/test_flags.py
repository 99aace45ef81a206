"""run/flags.py and run/eval_flags.py: mistakes in one line, at once, with what was probably meant; recipes; the help.

Tried by hand, each turns this file red: torch imported at the head of checkpoint.py, the names of other trainers left
out, a recipe read from the current folder only, `(default: None)`.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gpg
from run import eval_flags, flags

ROOT = Path(flags.__file__).parents[1]

EARLY = """
import contextlib, io, runpy, sys
file, *mistakes = sys.argv[1:]
for words in mistakes:
    sys.argv = [file, *words.split()]
    with contextlib.redirect_stderr(io.StringIO()) as error, contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(file, run_name="__main__")
        except SystemExit as stop:
            wrong = stop.code, error.getvalue().count(chr(10))
    assert wrong == ((0, 0) if words == "--help" else (2, 1)), (words, wrong, error.getvalue())
assert not {"torch", "transformers"} & sys.modules.keys()
"""
MISTAKES = {
    "train.py": ["--wrong", "--lr -1", "--lr x", "--model /nope --data x.jsonl", "@nowhere.args", "--help", "--out {}"],
    "eval.py": ["--wrong", "--model /nope --data x.jsonl", "--model m", "--model m --bench nope", "--help"],
}


@pytest.mark.parametrize("file", MISTAKES)
def test_mistakes_are_found_before_torch_is_imported(file, tmp_path):
    (tmp_path / "config.json").write_text("{}")  # a run, which --out {} would overwrite
    command = [sys.executable, "-c", EARLY, file, *(words.format(tmp_path) for words in MISTAKES[file])]
    subprocess.run(command, cwd=ROOT, check=True)


@pytest.mark.parametrize("file", MISTAKES)
def test_ctrl_c_while_libraries_load_is_no_traceback(file, tmp_path):
    """As a shell shows it: exit code 130."""
    # a suite in the background ignores the signal
    lines = "import os, signal", "signal.signal(2, signal.default_int_handler)", "os.kill(os.getpid(), 2)"
    (tmp_path / "torch.py").write_text("\n".join(lines))
    words = ["--model", "tiny", "--out", str(tmp_path / "out")]
    command, env = [sys.executable, file, *words], os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def refused(capsys, words, parse=flags.parse_args):
    with pytest.raises(SystemExit) as stopped:
        parse(words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--learning-rate", "--lr"),
        ("--learning_rate=1e-6", "--lr"),
        ("--num_generations", "--group-size"),
        ("--group_size", "--group-size"),
        ("--batch-size", "--prompts-per-step"),
        ("--gradient-accumulation-steps", "--tokens-per-micro-batch"),
        ("--max_iters", "--steps"),
        ("--model_name_or_path", "--model"),
        ("--beta", "--kl-coef"),
        ("--reward", "--rewards"),
        ("--promts-per-step", "--prompts-per-step"),
        ("--config", "@FILE"),
        ("actor_rollout_ref.rollout.n=8", "--group-size"),
        (f"{ROOT}/config/math-7b.args", f"@{ROOT}/config/math-7b.args"),
    ],
)
def test_a_flag_of_another_trainer_is_answered_with_ours(capsys, word, meant):
    assert f"{word.partition('=')[0]}: no such flag; did you mean {meant}?" in refused(capsys, [word, "8"])


def test_a_flag_that_resembles_none(capsys):
    assert "--xyz: no such flag; --help lists all" in refused(capsys, ["--xyz", "8"])
    words = ["--model", "m", "--learning-rate", "1"]
    assert "--learning-rate: no such flag; --help lists all" in refused(capsys, words, eval_flags.parse_args)
    words = ["--model", "m", "--max-completion-length", "1"]
    assert "did you mean --max-new-tokens?" in refused(capsys, words, eval_flags.parse_args)


def test_every_other_name_leads_to_a_flag_that_there_is():
    known = flags.make_parser()._option_string_actions
    assert {ours for ours in flags.OURS.values() if ours not in known} == {"@FILE", "CUDA_VISIBLE_DEVICES"}
    assert not {f"--{name}" for name in flags.OURS} & known.keys()


def test_choices_are_those_of_the_method():
    assert flags.F_NORMS == gpg.F_NORMS and flags.NORMS == gpg.NORMS


def test_help_shows_defaults_and_the_words_that_one_looks_for():
    text = " ".join(flags.make_parser().format_help().split())
    for words in ("batch size", "gradient accumulation", "device", "epoch", "learning rate", "(default: 1e-06)"):
        assert words in text
    for absent in ("(default: None)", "(default: True)", "(default: False)"):
        assert absent not in text


@pytest.mark.parametrize("name", ["/nope", "./runs/typo", "../typo", "a/b/c", "~/model"])
def test_a_model_that_can_only_be_a_folder_is_missing(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    wrong = f"--model {name}: no such folder, nor a name of the hub, owner/name"
    assert wrong in refused(capsys, ["--model", name, "--data", "x.jsonl"])
    assert wrong in refused(capsys, ["--model", name, "--data", "x.jsonl"], eval_flags.parse_args)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([""], "'': no such flag"),
        (["x" * 300], "no such flag"),
        (["@" + "x" * 300], "no such recipe"),
        (["--out", "x" * 300], "File name too long"),
        (["--model", "./" + "x" * 300], "File name too long"),
        (["--model", ""], "--model : no such folder"),
        (["--out", "caf\udce9"], "are not UTF-8"),  # é, as a terminal in Latin-1 sends it
        (["--system-prompt", "un caf\udce9"], "are not UTF-8"),
        (["--stop", ".", "\udce9"], "are not UTF-8"),
        (["--reward-timeout", "1e10"], "at most 1e9 seconds"),
        (["--rank-timeout", "1e308"], "at most 1e9 seconds"),
    ],
    ids=lambda x: str(x)[:20].encode("ascii", "replace").decode(),
)
def test_no_word_is_too_odd_for_one_line(capsys, words, message):
    assert message in refused(capsys, words)
    if "timeout" not in words[0] and words[0][:1] != "@":
        assert message in refused(capsys, ["--model", "m", "--data", "d.jsonl", *words], eval_flags.parse_args)


def test_recipes_include_each_other_from_anywhere(capsys, tmp_path, monkeypatch):
    """Beside the recipe, then in the current folder, then in the repository."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "top.args").write_text("@config/math-7b-gpg.args\n@base.args  # beside it\n@here.args\n")
    (tmp_path / "mine" / "base.args").write_text("--lr 0.5 --steps 7\n")
    (tmp_path / "base.args").write_text("--lr 0.25\n")
    (tmp_path / "here.args").write_text("--steps 8\n")
    monkeypatch.chdir(tmp_path)
    args = flags.parse_args(["@mine/top.args", "--out", str(tmp_path / "out")])
    assert (args.model, args.beta_th, args.lr, args.steps) == ("Qwen/Qwen2.5-Math-7B", 0.6, 0.5, 8)
    assert flags.parse_args(["@config/dapo-7b.args", "--out", str(tmp_path / "out")]).prompts_per_step == 144
    (tmp_path / "a.args").write_text("@b.args\n")
    (tmp_path / "b.args").write_text("@a.args\n")
    assert "@a.args: includes itself" in refused(capsys, ["@a.args"])
    assert "@nowhere.args: no such recipe" in refused(capsys, ["@nowhere.args"])


def test_what_could_command_a_terminal_is_spelled():
    text = "\x1b[2J\x9b1m\r\x07 \u202e\u2066 \ud800 \x7f\x00"
    assert flags.printable(text) == "\\x1b[2J\\x9b1m\\r\\x07 \\u202e\\u2066 \\ud800 \\x7f\\x00"
    assert flags.printable("a\tb\nα × 漢字 👍") == "a\tb\nα × 漢字 👍"
