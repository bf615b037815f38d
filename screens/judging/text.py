"""The texts of the judging screen: its lines, the text to judge, and its help."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from revector.core.errors import RevectorError
from revector.core.evaluation.judged_sets.agreement import Agreement
from revector.core.evaluation.judging.grading import GRADES
from revector.core.evaluation.judging.queue import KINDS, JudgingItem
from revector.screens.judging.answers import Answers
from revector.screens.judging.desk import JudgingChoice
from revector.screens.wording.facts import facts
from revector.screens.wording.job import bar
from revector.screens.wording.marking import marked
from revector.screens.wording.text import duration, printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, TITLE

_MOST_CHARACTERS = 50_000
_WIDE = 100

_WHY = {
    "disputed": "Disputed: judges disagree.",
    "moved": "Moved: its rank differs a lot between the versions.",
    "unjudged": "",
}


def progress_line(answers: Answers, choice: JudgingChoice, width: int) -> Text:
    """`━━━╌╌╌  33.3 %   12 of 36 judged   9 a minute, 2 min 40 s left`."""
    counts = answers.by_kind(choice.kind, choice.segment).values()
    done, remaining = (sum(both[place] for both in counts) for place in (0, 1))
    text = Text()
    if not counts:
        return text
    text.append_text(bar(done, done + remaining, 50 if width >= _WIDE else 28))
    text.append(f"   {done:,} of {done + remaining:,} judged", "bold")
    pace = answers.pace
    if pace is not None:
        text.append(f"   {60 / pace:,.0f} a minute, {duration(pace * remaining)} left", FAINT)
    if answers.pending:
        text.append(f"   storing {len(answers.pending)}", CAUTION)
    return text


def left_line(answers: Answers, choice: JudgingChoice, agreements: Sequence[Agreement]) -> Text:
    """`left  disputed 2  moved 12  unjudged 61  │ with bob: κ 0.71 on 42`."""
    counts = answers.by_kind(choice.kind, choice.segment)
    text = Text("left " if counts else "", FAINT)
    for kind in KINDS:
        if kind in counts:
            text.append(f" {kind} ").append(f"{counts[kind][1]:,}", TITLE)
    for one in agreements:
        kappa = "—" if one.kappa is None else f"{one.kappa:.2f}"
        text.append(f"  │ with {printable(one.second)}: ").append(f"κ {kappa}", TITLE).append(f" on {one.pairs:,}")
    return text


def why_line(item: JudgingItem) -> Text:
    """Why the pair is in the queue, and this person's earlier grade."""
    text = Text(_WHY[item.kind], CAUTION if item.kind == "disputed" else FAINT)
    if item.before is not None:
        text.append(f"{' ' if text else ''}You said {item.before} before.")
    return text


def source_line(item: JudgingItem) -> str:
    """`guide/keys.md, chunk 3 ─ Key rotation`, or `document guide/keys.md, 2 of its chunks ─ …`."""
    source = printable(item.source_id)
    if item.target_kind == "chunk":
        source = f"{source}, chunk {item.passages[0].chunk_no}"
    elif len(item.passages) > 1:
        source = f"document {source}, {len(item.passages)} of its chunks"
    else:
        source = f"document {source}"
    title = printable(item.title)
    return f"{source} ─ {title}" if title and title not in source else source


def passages(item: JudgingItem) -> RenderableType:
    """The text in full, with the query's words marked."""
    parts: list[Text] = []
    for passage in item.passages:
        if len(item.passages) > 1:
            parts.append(Text(f"─── chunk {passage.chunk_no} ───", FAINT))
        parts.append(marked(printable(passage.content[:_MOST_CHARACTERS], lines=True), item.query))
        rest = len(passage.content) - _MOST_CHARACTERS
        if rest > 0:
            parts.append(Text(f"… {rest:,} more characters are not shown", CAUTION))
    return Group(*parts)


def problem(error: RevectorError) -> Text:
    """What is wrong, and what to do."""
    return Text(f"{printable(error.problem)} {printable(error.remedy)}".strip(), BAD)


def help_page() -> RenderableType:
    """What the keys and the words mean."""
    return facts(
        [
            *((str(grade), label) for grade, label in enumerate(GRADES)),
            ("s", "Skip: leave it open until the screen is opened again."),
            ("u", "Undo: step back through this session's answers, restoring what was there."),
            ("f", "What to judge: a kind, a segment, another query set."),
            ("n", "Judge under another name, when several people share a database role."),
            ("r", "Read the queue and its counts again."),
            ("↑ ↓ PgUp PgDn", "Scroll the text; Tab goes to the query and back."),
            ("esc", "Close. Every answer is stored at once."),
            ("", ""),
            ("unjudged", "One of the versions has it among its first ten, and you have not judged it."),
            ("moved", "The same, and its rank differs by ten or more, or only one version found it."),
            ("disputed", "Grades are more than a step apart, or on both sides of relevant (1 and more)."),
            (
                "blind",
                "Neither the version that found it, nor its rank, nor what others said is shown. The order is drawn "
                "by lot, another one for each person.",
            ),
            (
                "κ",
                "Cohen's kappa, quadratic weights, over pairs that two people judged: 1 is agreement, 0 is chance.",
            ),
        ]
    )
