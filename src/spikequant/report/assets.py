"""Templates, style and scripts of a page, and the policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from spikequant.law.errors import Unsupported


def filled(template: str, script: str, **values: Any) -> str:
    """The page of a template; `script` runs last, behind plotly.js and what all pages share."""
    environment, plotly_js = _libraries()
    scripts = [plotly_js, *(_resource(name) for name in ("plots.js", "sorting.js", script))]
    page: str = environment.get_template(template).render(
        style=_resource("page.css"), scripts=scripts, policy=_policy(scripts), **values
    )
    return page


def _libraries() -> tuple[Any, str]:
    """The template environment and plotly.js; imported here so that `import spikequant` stays light."""
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        missing = (error.name or str(error)).split(".")[0]
        raise Unsupported(
            f"write_report needs jinja2 and plotly, and {missing} is not installed; "
            "install them with: pip install 'spikequant[report]'"
        ) from error
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment, get_plotlyjs()


def _resource(name: str) -> str:
    """A file of this package as text."""
    return files("spikequant.report").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """A content security policy: these scripts by their hashes, nothing from anywhere else."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
