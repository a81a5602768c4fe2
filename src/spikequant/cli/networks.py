"""The network that a command works on: ``net.py:build``, ``package.module:build``, ``net.nir:dt=1e-3,...``, or a name.

A person's own file is run with its folder importable, as Python runs a script.  An error
inside it is reported with that file's lines and none of ours.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from spikequant.law.errors import DataError

if TYPE_CHECKING:
    from torch import nn

MODEL_NAMES = ("digits_net", "mnist_net")
FORMS = (
    "expected net.py:build (file and function), package.module:build, a NIR graph (net.nir), or one of "
    + ", ".join(MODEL_NAMES)
)
SHOWN_FRAMES = 4


@dataclass(frozen=True)
class NetworkSource:
    """Where a network comes from; ``sha256`` is that of its file, if it is a file."""

    text: str
    module: str
    function: str
    file: Path | None = None
    sha256: str | None = None

    def record(self) -> dict[str, Any]:
        """JSON-able, for the run folder."""
        file = None if self.file is None else str(self.file)
        return {"source": self.text, "file": file, "function": self.function, "sha256": self.sha256}


def network_source(text: str) -> NetworkSource:
    """Read the words that name a network; nothing is imported yet.

    Raises:
        DataError: none of the known forms, or the file is not there.
    """
    if text in MODEL_NAMES:
        return NetworkSource(text, "spikequant.models", text)
    name, colon, function = text.rpartition(":")
    if not colon:
        name, function = text, ""
    if name.endswith((".py", ".nir")):
        file = Path(name)
        if not file.is_file():
            raise DataError(f"{name} is not a file (looked in {Path.cwd()}); {FORMS}")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return NetworkSource(text, file.stem, function, file.resolve(), digest)
    if colon and function.isidentifier() and all(part.isidentifier() for part in name.split(".")):
        return NetworkSource(text, name, function)
    near = difflib.get_close_matches(text, MODEL_NAMES, 1)
    raise DataError(f"{text!r} names no network; {FORMS}{f'. Did you mean {near[0]}?' if near else ''}")


def build_network(source: NetworkSource, *, seed: int) -> nn.Module:
    """Import the file or module and call its function, with torch seeded.

    Raises:
        DataError: it cannot be imported, has no such function, the function wants arguments,
            raises, or returns something that is not an ``nn.Module``.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    if source.file is not None and source.file.suffix == ".nir":
        from spikequant.cli.nir_networks import build_nir

        return build_nir(source)
    with _importable(source):
        found = _function(source, _imported(source))
        if isinstance(found, nn.Module):
            return found
        _check_callable(source, found)
        try:
            model = found()
        except (Exception, SystemExit) as error:
            raise DataError(_told(f"{source.text} raised", error, source)) from error
    if not isinstance(model, nn.Module):
        raise DataError(f"{source.text} returned {_described(model)}; expected a torch nn.Module (return the network)")
    return model


@contextlib.contextmanager
def user_frames(source: NetworkSource, what: str) -> Iterator[None]:
    """Errors of the block that come out of the person's file are told with its lines."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise DataError(_told(what, error, source)) from error


@contextlib.contextmanager
def _importable(source: NetworkSource) -> Iterator[None]:
    """The file's own folder on the path, as for a script; for a module, the current folder."""
    folder = str(source.file.parent if source.file is not None else Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _imported(source: NetworkSource) -> ModuleType:
    try:
        if source.file is None:
            return importlib.import_module(source.module)
        return _run_file(source.file)
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
        raise DataError(f"{source.text}: {error.msg}\n  {where}") from error
    except ModuleNotFoundError as error:
        if source.file is None and source.module.startswith(str(error.name)):
            raise DataError(f"there is no module {error.name!r} here or in this Python; {FORMS}") from error
        raise DataError(_told(f"{source.text} cannot be imported", error, source)) from error
    except (Exception, SystemExit) as error:
        raise DataError(_told(f"{source.text} cannot be imported", error, source)) from error


def _run_file(file: Path) -> ModuleType:
    """The file as a module under its own name, so that its classes say where they are from."""
    name = file.stem if file.stem.isidentifier() and file.stem not in sys.modules else f"network_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def _function(source: NetworkSource, module: ModuleType) -> Any:
    if source.function and hasattr(module, source.function):
        return getattr(module, source.function)
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    has = f"it has {', '.join(own)}" if own else "it defines no function"
    where = source.text.rpartition(":")[0] or source.text
    if not source.function:
        example = f"{source.text}:{'build' if 'build' in own or not own else own[-1]}"
        raise DataError(f"{source.text}: say which function builds the network, as in {example}; {has}")
    near = difflib.get_close_matches(source.function, own, 1)
    hint = f". Did you mean {where}:{near[0]}?" if near else ""
    raise DataError(f"{where} has no function {source.function!r}; {has}{hint}")


def _check_callable(source: NetworkSource, found: Any) -> None:
    if not callable(found):
        raise DataError(f"{source.text} is {_described(found)}; expected a function that returns a torch nn.Module")
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds]
    if needed:
        raise DataError(
            f"{source.text} wants the arguments {', '.join(needed)}; expected a function without required arguments: "
            "give them defaults, or write a function that calls it"
        )


def _told(what: str, error: BaseException, source: NetworkSource) -> str:
    """The error in one line and the person's own lines on the way to it, innermost last."""
    kind = type(error).__name__
    lines = [f"{what}: {kind}: {str(error).strip() or 'without a message'}"]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_own(f.filename, source)]
    for frame in frames[-SHOWN_FRAMES:]:
        lines.append(f"  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}")
    return "\n".join(lines)


def _is_own(filename: str, source: NetworkSource) -> bool:
    """Whether a frame is the person's: not Python's, not a library's, not ours."""
    path = Path(filename).resolve()
    if source.file is not None and path == source.file:
        return True
    places = sysconfig.get_paths()
    libraries = [Path(places[key]).resolve() for key in ("stdlib", "purelib", "platlib")]
    ours = Path(__file__).resolve().parents[1]
    return not filename.startswith("<") and not any(path.is_relative_to(place) for place in (*libraries, ours))


def _described(value: Any) -> str:
    if value is None:
        return "nothing (None)"
    if inspect.isclass(value):
        return f"the class {value.__name__}, not an object of it"
    return f"a {type(value).__name__}"
