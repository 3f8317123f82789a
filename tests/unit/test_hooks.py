"""Hooks: from their names in the configuration to their calls."""

from pathlib import Path

import pytest

from prefork import logs
from prefork.apps.application_loader import LoadError
from prefork.config import ConfigError, Log, Override, Source, load
from prefork.worker.boot.hooks import Hooks, WorkerInfo

WORKER = WorkerInfo(slot=2, generation=3, pid=4, name="site")

calls: list[tuple[str, WorkerInfo]] = []


def ready(worker: WorkerInfo) -> None:
    calls.append(("ready", worker))


def leaves(worker: WorkerInfo) -> None:
    raise SystemExit("no more")


def named(**targets: str) -> Hooks:
    return Hooks({moment: f"{__name__}:{target}" for moment, target in targets.items()})


def test_a_hook_gets_its_worker() -> None:
    calls.clear()
    named(ready="ready").call("ready", WORKER)
    assert calls == [("ready", WORKER)]


def test_a_moment_without_a_hook_passes() -> None:
    calls.clear()
    Hooks({}).call("ready", WORKER)
    named(ready="ready").call("after_fork", WORKER)
    assert calls == []


def test_a_hook_is_looked_for_at_once() -> None:
    with pytest.raises(LoadError, match=r"has no 'raedy'; did you mean 'ready'\?"):
        named(before_exit="raedy")
    with pytest.raises(LoadError, match=r"no module 'nowhere'; check workers\.hooks\.ready, "):
        Hooks({"ready": "nowhere:hook"})


def test_a_hook_s_exception_is_the_caller_s() -> None:
    with pytest.raises(SystemExit):
        named(ready="leaves").call("ready", WORKER)


def test_the_last_hook_s_exception_is_logged(tmp_path: Path) -> None:
    file = tmp_path / "error.log"
    logs.configure(Log(error=str(file)))
    try:
        named(before_exit="leaves").call_last("before_exit", WORKER)
    finally:
        logs.configure(Log())
    assert "[error] hook failed" in file.read_text()
    assert "hook=before_exit" in file.read_text()
    assert "SystemExit: no more" in file.read_text()


# In the configuration.


def problems(hooks: object, preload: object = True) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configured(hooks, preload)
    return [str(problem) for problem in caught.value.problems]


def configured(hooks: object, preload: object = True) -> dict[str, str]:
    given = {"hooks": hooks, "preload": preload}
    overrides = tuple(Override("workers", key, value, "--set") for key, value in given.items())
    return load(Source("site:app", overrides), {}).config.workers.hooks


def test_no_hooks_and_no_preloading_by_default() -> None:
    workers = load(Source("site:app"), {}).config.workers
    assert (workers.preload, workers.hooks) == (False, {})


def test_every_hook_can_be_named() -> None:
    hooks = {
        moment: f"site.hooks:{moment}"
        for moment in ("before_fork", "after_fork", "ready", "before_exit")
    }
    assert configured(hooks) == hooks


def test_every_bad_hook_is_named() -> None:
    assert problems({"raedy": "a:b", "pause": "a:b", "ready": "a:b()", "before_exit": 3}) == [
        '--set: workers.hooks: unknown hook "raedy"; did you mean ready?',
        '--set: workers.hooks: unknown hook "pause"; the hooks are before_fork, after_fork, ready,'
        " before_exit",
        '--set: workers.hooks: ready: expected "module:function", got "a:b()"',
        '--set: workers.hooks: before_exit: expected "module:function", got 3',
    ]


@pytest.mark.parametrize("target", ["", "a", "a:", ":b", "a:b c", "a b:c"])
def test_what_names_no_function_is_refused(target: str) -> None:
    (problem,) = problems({"ready": target})
    assert problem.startswith('--set: workers.hooks: ready: expected "module:function"')


def test_a_file_is_not_a_module() -> None:
    (problem,) = problems({"ready": "hooks.py:ready"})
    assert problem == (
        '--set: workers.hooks: ready: names a file; name the module, as in "hooks:ready"'
    )


@pytest.mark.parametrize("hooks", ["a:b", ["a:b"], 3, True])
def test_hooks_are_a_table(hooks: object) -> None:
    (problem,) = problems(hooks)
    assert 'workers.hooks: expected a table such as { ready = "module:function" }' in problem


def test_before_fork_needs_preloading() -> None:
    assert problems({"before_fork": "a:b"}, preload=False) == [
        "--set: workers.preload: the hook before_fork needs the process that preloads; set"
        " workers.preload = true, or use the hook after_fork"
    ]
    assert configured({"after_fork": "a:b"}, preload=False)


def test_a_bad_value_for_preload_is_its_one_problem() -> None:
    (problem,) = problems({"before_fork": "a:b"}, preload="yes")
    assert problem == '--set: workers.preload: expected true or false, got "yes"'
