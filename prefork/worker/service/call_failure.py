"""An exception of the application: on the scoreboard, and in the log with its traceback."""

from prefork import logs
from prefork.http.request import Request
from prefork.scoreboard import WorkerStatsWriter


def report_failure(request: Request, problem: BaseException, stats: WorkerStatsWriter) -> None:
    """The application has raised an exception while it had a request."""
    line = request.line.decode("latin-1")
    stats.set_error(f"{line}: {logs.summary_of(problem)}")
    logs.event(
        "error",
        "application failed",
        request=line,
        peer=_text(request.environ.get("REMOTE_ADDR", "")),
        request_id=request.id or None,
        traceback=logs.application_traceback(problem),
    )


def _text(value: object) -> str:
    """An object of the application's as a text."""
    try:
        return str.__str__(str(value))
    except BaseException as problem:
        return f"({type(problem).__name__})"
