"""The model that is planned for: its shape, from a folder, a run, a config.json or the name of a preset."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.artifacts import model_path
from ..core.errors import UserError, did_you_mean
from ..model.config import PRESETS, ModelConfig

if TYPE_CHECKING:
    from ..tokenizer.sentencepiece import Tokenizer


@dataclass(frozen=True)
class Target:
    """A shape; `path` where the model itself is at hand; `bits` of its linear weights: 8 or 4 where it is quantised."""

    name: str
    shape: ModelConfig
    path: Path | None = None
    bits: int = 32

    def tokenizer(self) -> "Tokenizer":
        """Raises UserError without the model's folder: data can only be counted in its tokens."""
        from ..checkpoints.source import find_tokenizer
        from ..tokenizer.sentencepiece import Tokenizer

        if self.path is None:
            raise UserError(f"{self.name}: data is counted with the model's tokenizer; give the model's folder, or leave the data out")
        return Tokenizer.load(find_tokenizer(self.path if self.path.is_dir() else self.path.parent, None))


def target(spec: str) -> Target:
    """Raises UserError for what is no model, with the names that were meant perhaps."""
    path = Path(spec)
    if spec in PRESETS and not path.exists():
        return Target(spec, PRESETS[spec])
    if path.is_file() and path.suffix == ".json":
        return _of_config(path, None)
    if not path.exists() and ":" not in spec:
        raise UserError(
            f"no model {spec!r}{did_you_mean(spec, PRESETS)}; expected a folder, RUN or RUN:VERSION, a config.json, or one of {', '.join(PRESETS)}"
        )
    found = model_path(spec)
    if found.is_dir() and (found / "config.json").is_file():
        return _of_config(found / "config.json", found)
    from ..checkpoints.source import open_source

    return Target(spec, open_source(found).config, found)


def _of_config(file: Path, folder: Path | None) -> Target:
    from ..checkpoints.huggingface import parse_config
    from ..checkpoints.source import small_json

    raw = small_json(file)
    settings = raw.get("quantization_config")
    bits = settings.get("bits") if isinstance(settings, dict) and "llamaherd" in str(settings.get("quant_method")) else None
    plain = {key: value for key, value in raw.items() if key != "quantization_config" or bits not in (4, 8)}
    return Target(str(folder or file), parse_config(plain, str(file)), folder, bits if bits in (4, 8) else 32)
