"""What a task needs before it starts."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .common import Settings, settings_file


def plan(
    task: str, model: str, *settings: Settings, device: str | None = None, memory: str | None = None, context: int | None = None,
    config: Path | None = None, json: Annotated[bool, Parameter(negative=())] = False, measure: bool = True, seed: int = 0,
) -> None:  # fmt: skip
    """Say how much memory, disk and time a task needs, whether it fits, and what would make it fit; nothing is loaded.

    Parameters
    ----------
    task
        chat, sft, lora, qlora, reward or ppo; settings are those of the task's own command.
    model
        A folder, RUN or RUN:VERSION, a config.json, or a preset such as llama2-7b.
    device
        cpu or cuda (default: what would be used here).
    memory
        Plan for a device with so much free memory, such as 24GB, in place of this one.
    context
        Tokens of the longest sequence (default: the model's context).
    config
        YAML file of settings, or the name of packaged ones of the task's command, such as llama2-7b-ppo.
    json
        For programs.
    measure
        Measure the speed of this machine, which takes a second or two; without it there is no time.
    seed
        Where the order of the data starts.
    """
    from ..core.config import flat, parse_overrides, read_yaml
    from ..plan.advice import advise
    from ..plan.forecast import Question, forecast, task_of
    from ..plan.machine import machine
    from ..plan.show import as_json, as_text
    from ..plan.target import target

    known = task_of(task)
    file = settings_file(config, "sft" if known in ("lora", "qlora") else known)
    of_file: dict[str, Any] = read_yaml(file) if file else {}
    question = Question(known, target(model), flat(of_file) | flat(parse_overrides(settings)), context, seed)
    here = machine(device, memory, measure)
    found = forecast(question, here)
    advice = advise(question, here)
    print(as_json(question, here, found, advice) if json else as_text(question, here, found, advice))
