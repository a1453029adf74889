"""The command line: parses, imports a stage lazily, prints. The only place for rich.

stdout carries results, stderr progress. Exit codes: 0 good, 1 error, 2 usage, 3 finished but some rows failed, 4 checks
failed, 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings

import typer

from cai.cli import (
    agreement,
    argue,
    attack,
    audit,
    check,
    compare,
    config_,
    convert,
    demo,
    diff,
    doctor,
    eval_,
    export_,
    filter_,
    import_,
    init,
    lab,
    merge,
    plan,
    report_,
    reproduce,
    review,
    reward,
    rl,
    run,
    score,
    show,
    status,
    testing,
    train,
    try_,
)

app = typer.Typer(
    name="cai",
    help="Train a model from principle files: draft, critique, revise, label, DPO, measure.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

PRINCIPLES = "Principles"
STAGES = "One stage of a run"
RUNS = "Whole runs"
PRESSURE = "Users who press"

app.command("init", rich_help_panel=PRINCIPLES)(init.init)
app.command("check", rich_help_panel=PRINCIPLES)(check.check)
app.command("import", rich_help_panel=PRINCIPLES)(import_.import_)
app.command("convert", rich_help_panel=PRINCIPLES)(convert.convert)
app.command("show", rich_help_panel=PRINCIPLES)(show.show)
app.command("test", rich_help_panel=PRINCIPLES)(testing.principle_tests)
app.command("try", rich_help_panel=PRINCIPLES)(try_.try_)
app.command("audit", rich_help_panel=PRINCIPLES)(audit.audit)
app.command("compare", rich_help_panel=PRINCIPLES)(compare.compare)
app.command("agreement", rich_help_panel=PRINCIPLES)(agreement.agreement)
app.command("argue", rich_help_panel=PRESSURE)(argue.argue)
app.command("attack", rich_help_panel=PRESSURE)(attack.attack)
app.command("merge", rich_help_panel=RUNS)(merge.merge)
app.command("demo", rich_help_panel=RUNS)(demo.demo)
app.command("run", rich_help_panel=RUNS)(run.run)
app.command("plan", rich_help_panel=RUNS)(plan.plan)
app.command("status", rich_help_panel=RUNS)(status.status)
app.command("diff", rich_help_panel=RUNS)(diff.diff)
app.command("reproduce", rich_help_panel=RUNS)(reproduce.reproduce)
app.command("doctor", rich_help_panel=RUNS)(doctor.doctor)
app.command("filter", rich_help_panel=RUNS)(filter_.filter_)
app.command("review", rich_help_panel=RUNS)(review.review)
app.command("generate", rich_help_panel=STAGES)(run.generate)
app.command("label", rich_help_panel=STAGES)(run.label)
app.command("export", rich_help_panel=STAGES)(export_.export)
app.command("sft", rich_help_panel=STAGES)(train.sft)
app.command("dpo", rich_help_panel=STAGES)(train.dpo)
app.command("rl", rich_help_panel=STAGES)(rl.rl)
app.command("reward", rich_help_panel=STAGES)(reward.reward)
app.command("score", rich_help_panel=STAGES)(score.score)
app.command("eval", rich_help_panel=STAGES)(eval_.evaluate)
app.command("report", rich_help_panel=STAGES)(report_.report)
app.add_typer(config_.app, name="config", rich_help_panel=RUNS)
app.add_typer(lab.app, name="lab", rich_help_panel=RUNS)


def main() -> None:
    """Entry point of the `cai` command: runs it, and prints an expected error as two lines instead of a traceback."""
    from cai.errors import CaiError
    from constitution.errors import ConstitutionError

    # What a library will rename in its next release is for its programmers, not for users of this command.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app()
    except (CaiError, ConstitutionError) as error:
        print(f"cai: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
