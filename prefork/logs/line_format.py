"""How an event is written: a line of text, or of JSON.

Text, for people and grep:

    2026-11-23 15:04:05.123 +0000 [info] worker ready role=master slot=2 pid=123 generation=1

JSON, for machines: the same as an object.  The keys time, level, event, role, slot, pid and
generation are in every line, with the value null if there is none.
"""

import json
import re
import traceback
from datetime import datetime
from typing import Any

from prefork import frames


def json_line(level: str, name: str, fields: dict[str, Any]) -> str:
    """A JSON object (RFC 8259) in ASCII, with the time in the form of RFC 3339."""
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    line = {"time": now, "level": level, "event": name, **fields}
    return json.dumps(line, default=str) + "\n"


def text_lines(level: str, name: str, fields: dict[str, Any]) -> str:
    """One line, and below it an indented one for each line of a traceback.

    That is the field `traceback`, and a `reason` of several lines.
    """
    now = datetime.now().astimezone()
    stamp = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} {now:%z}"
    line = [f"{stamp} [{level}] {printable(name)}"]
    rest: list[str] = []
    for key, value in fields.items():
        if key == "traceback" or (key == "reason" and "\n" in str(value)):
            rest += [f"    {printable(text)}" for text in str(value).split("\n")]
        elif value is not None:
            line.append(f"{key}={_quote(str(value))}")
    return "\n".join([" ".join(line), *rest]) + "\n"


_TO_QUOTE = re.compile(r'[ "=\\]')


def _quote(text: str) -> str:
    """A value, in double quotes if it would not read as one word."""
    if text and text.isprintable() and not _TO_QUOTE.search(text):
        return text
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def printable(text: str) -> str:
    """Escapes control characters, line separators, direction marks and lone surrogates.

    They could forge a line, or control the terminal that shows it.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def printable_lines(text: str) -> str:
    """As `printable`, but lines stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def traceback_of(problem: BaseException) -> str:
    """An exception as Python prints it, with its causes.

    Its class is often the application's, and what is asked of it may raise: then it has the name of
    the class alone.
    """
    try:
        return "".join(traceback.format_exception(problem)).rstrip("\n")
    except BaseException:
        return type(problem).__name__


def application_traceback(problem: BaseException) -> str:
    """The same with the frames of the application alone, without ours and the import system's.

    If there are no others, as when the application cannot be called, the last one is shown; none
    for a syntax error, which names its own line, and none for what we have raised about something
    that the application gave us, such as a wrong status.
    """
    shown = traceback.TracebackException.from_exception(problem)
    pending = [shown]
    while pending:
        part = pending.pop()
        theirs = [
            frame
            for frame in part.stack
            if not (frames.is_ours(frame.filename) or frames.imports(frame.filename))
        ]
        last = part.stack[-1:]
        told = hasattr(part, "offset") or any(  # a SyntaxError, or a finding of ours
            frames.is_ours(frame.filename) and (frame.line or "").startswith("raise ")
            for frame in last
        )
        part.stack = traceback.StackSummary.from_list(theirs or ([] if told else last))
        chained = (part.__cause__, part.__context__, *(part.exceptions or ()))
        pending += [each for each in chained if each is not None]
    text = "".join(shown.format()).rstrip("\n")
    return _OUR_CLASS.sub(r"\1", text) + _hint(text)


_OUR_CLASS = re.compile(r"^([ |]*)prefork\.(?:[a-z_]+\.)+(?=[A-Z]\w*(?::|$))", re.MULTILINE)
"""Before the name of an exception of ours: its module, which says nothing to a user."""


_END_OF_INPUT = re.compile(
    r"\n(EOFError(: EOF when reading a line)?|bdb\.BdbQuit"
    # CPython 3.14 and later: the debugger ends the program.
    r'|  File ".*/pdb\.py", line \d+, in do_quit\n(    .*\n)*SystemExit: 1)\Z'
)


def _hint(text: str) -> str:
    """What to do about the end of the standard input (of `input()`, `breakpoint()`), as a line.

    `text`: a traceback; the exception itself may raise if it is asked.
    """
    if not _END_OF_INPUT.search(text):
        return ""
    return '\n(workers have no standard input, unless process.stdin is "inherit")'


def summary_of(problem: BaseException) -> str:
    """An exception in one line, the last one of its traceback; see `traceback_of`."""
    try:
        return traceback.format_exception_only(problem)[-1].strip()
    except BaseException:
        return type(problem).__name__
