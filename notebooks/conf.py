"""Settings of the manual: ``sphinx-build -W notebooks build/site`` makes it without a network."""

from __future__ import annotations

import inspect
from importlib.metadata import version as installed
from pathlib import Path

from latex2mathml.converter import convert

import mids
from mids import schema

project = "mids"
author = "The mids developers"
project_copyright = "2026, The mids developers"
release = version = installed("mids")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["generated/schema.md", "**.ipynb_checkpoints"]
default_role = "py:obj"
html_theme = "alabaster"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"page_width": "76rem", "description": "Learning dynamics as labelled data"}
html_math_renderer = "mathml"

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks keep their outputs, and are run by the tests

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # the docstrings say the types, with shapes
autodoc_default_options = {"members": True, "inherited-members": False}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

GENERATED = Path(__file__).parent / "generated"


def public() -> dict[str, list[str]]:
    """Every public name, by section."""
    sections: dict[str, list[str]] = {"Functions and classes": []}
    for name in mids.__all__:
        found = getattr(mids, name)
        if inspect.ismodule(found):
            names = [inner for inner in found.__all__ if inner not in mids.__all__]
            sections[f"mids.{name}"] = [f"{name}.{inner}" for inner in names]
        elif name != "__version__":
            sections["Functions and classes"].append(name)
    accessors = ["accessor.MultiIndexAccessor", "plot.accessor.PlotAccessor"]
    return {**sections, "ds.mi and ds.mi.plot": accessors}


def write_generated() -> None:
    """Write the table of the schema and the list of names, which come from the package."""
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "schema.md").write_text(schema.table(), encoding="utf-8")
    text = "Every name\n==========\n\n.. currentmodule:: mids\n"
    for title, names in public().items():
        listed = "".join(f"   {name}\n" for name in names)
        text += f"\n{title}\n{'-' * len(title)}\n\n.. autosummary::\n   :toctree: .\n\n{listed}"
    (GENERATED / "api.rst").write_text(text, encoding="utf-8")


write_generated()


def _math(writer: object, node: object, display: str) -> None:
    """Write an equation as MathML, which browsers draw without scripts."""
    from docutils.nodes import SkipNode

    writer.body.append(convert(node.astext().strip(), display=display))  # type: ignore[attr-defined]
    raise SkipNode


def setup(app: object) -> None:
    """Let Sphinx write equations as MathML."""
    app.add_html_math_renderer(  # type: ignore[attr-defined]
        "mathml",
        (lambda writer, node: _math(writer, node, "inline"), None),
        (lambda writer, node: _math(writer, node, "block"), None),
    )
