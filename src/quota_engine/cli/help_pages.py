"""Help of a command, read from the source of its module.

Importing the libraries of the command line and of a command takes 0.4 s of processor time. The help needs neither:
a command's source has its signature, its docstring and the types of its options. ``tests/cli/test_help.py`` compares
each page with the command line itself.
"""

from __future__ import annotations

__all__ = ["CommandHelp", "GroupHelp", "OptionHelp", "read_help", "render_help"]

import ast
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Final

_FOLDER: Final = os.path.dirname(__file__)  # noqa: PTH120 - pathlib takes longer than all else here
_PACKAGE: Final = "quota_engine.cli."
_METAVARS: Final = {"str": "STR", "int": "INT", "float": "FLOAT", "bool": "", "Path": "PATH", "date": "DATE"}
_WIDTH_MIN, _WIDTH_MAX = 40, 100
_TERM_WIDTH_MAX: Final = 24
_EXAMPLE: Final = "Example:"


class OptionHelp:
    """An argument or an option: its name, metavariable, text, choices, default, and whether it must be given."""

    __slots__ = ("choices", "default", "is_required", "metavar", "name", "text")

    def __init__(
        self, name: str, metavar: str, text: str, choices: tuple[str, ...], default: str, *, is_required: bool
    ) -> None:
        self.name = name
        self.metavar = metavar
        self.text = text
        self.choices = choices
        self.default = default
        self.is_required = is_required

    def term(self) -> str:
        """Return the name of an argument, such as ``FILE``."""
        return self.name.lstrip("-").upper()

    def both_terms(self) -> str:
        """Return the name of an argument; ``BACKEND, --backend`` if it can be given as an option, too."""
        return f"{self.term()}, {self.name}" if self.name.startswith("-") else self.name

    def description(self) -> str:
        """Return the text with choices, default and the mark of a required one."""
        parts = [self.text]
        if self.choices:
            parts.append(f"[choices: {', '.join(self.choices)}]")
        if self.default:
            parts.append(f"[default: {self.default}]")
        if self.is_required:
            parts.append("[required]")
        return " ".join(parts)


class CommandHelp:
    """A command: the paragraphs of its text, its arguments, and its options."""

    __slots__ = ("arguments", "options", "paragraphs")

    def __init__(self, paragraphs: list[str], arguments: list[OptionHelp], options: list[OptionHelp]) -> None:
        self.paragraphs = paragraphs
        self.arguments = arguments
        self.options = options


class GroupHelp:
    """A command that has commands: its text, and their names with the first lines of their texts."""

    __slots__ = ("commands", "text")

    def __init__(self, text: str, commands: dict[str, str]) -> None:
        self.text = text
        self.commands = commands


class _Module:
    """The definitions of a module of the command line, by name."""

    def __init__(self, name: str) -> None:
        with open(os.path.join(_FOLDER, f"{name}.py"), encoding="utf-8") as file:  # noqa: PTH118, PTH123 - as above
            tree: Any = ast.parse(file.read())
        self.body: Sequence[Any] = tree.body
        self.functions: dict[str, Any] = {}
        self.values: dict[str, Any] = {}
        self.classes: dict[str, Any] = {}
        self.imports: dict[str, str] = {}
        for node in self.body:
            if _is(node, ast.FunctionDef):
                self.functions[node.name] = node
            elif _is(node, ast.ClassDef):
                self.classes[node.name] = node
            elif _is(node, ast.Assign) and _is(node.targets[0], ast.Name):
                self.values[node.targets[0].id] = node.value
            elif _is(node, ast.AnnAssign) and _is(node.target, ast.Name):
                self.values[node.target.id] = node.value
            elif _is(node, ast.ImportFrom) and (node.module or "").startswith(_PACKAGE):
                self.imports |= {alias.name: (node.module or "").removeprefix(_PACKAGE) for alias in node.names}

    def commands(self) -> dict[str, tuple[_Module, Any]]:
        """Return the functions that the module's ``app`` has as commands, each with its module."""
        found: dict[str, tuple[_Module, Any]] = {}
        for node in self.body:
            if _is(node, ast.FunctionDef) and any(_is_command(one) for one in node.decorator_list):
                found[node.name.replace("_", "-")] = self, node
            elif _is(node, ast.Expr) and _is(node.value, ast.Call) and _is_command(node.value.func):
                (argument,) = node.value.args
                module = _Module(self.imports[argument.id]) if argument.id in self.imports else self
                found[_keyword(node.value, "name").value] = module, module.functions[argument.id]
        return found


def read_help(target: str, words: Sequence[str]) -> CommandHelp | GroupHelp:
    """Return the help of a command.

    Args:
        target: ``module:name`` of a function or of an ``app``, as in ``COMMANDS``.
        words: the words after the command. The first one may be a command of an ``app``.

    Raises:
        LookupError: there is no such command, or its source has a form that this module does not read.
        OSError: the source cannot be read.
    """
    module_name, _, name = target.partition(":")
    module = _Module(module_name.removeprefix(_PACKAGE))
    if name in module.functions:
        return _command_help(module, module.functions[name])
    commands = module.commands()
    if words and not words[0].startswith("-"):
        return _command_help(*commands[words[0]])
    summaries = {one: _paragraphs(function)[0] for one, (_, function) in sorted(commands.items())}
    return GroupHelp(_keyword(module.values[name], "help").value, summaries)


def render_help(command: str, help_: CommandHelp | GroupHelp) -> str:
    """Return the help as text, as wide as the terminal.

    Args:
        command: the words of the command, such as ``quota-engine room verify``.
        help_: its content.
    """
    width = _width()
    if isinstance(help_, GroupHelp):
        lines = [f"Usage: {command} COMMAND ...", "", *_wrapped(help_.text, width), "", "Commands:"]
        lines += _rows(list(help_.commands.items()), width)
        return "\n".join([*lines, "", f'"{command} COMMAND --help" explains a command and its options.', ""])
    usage = [command, *(one.term() if one.is_required else f"[{one.term()}]" for one in help_.arguments)]
    usage += [f"{one.name} {one.metavar}" for one in help_.options if one.is_required]
    usage += ["[OPTIONS]"] if any(not one.is_required for one in help_.options) else []
    lines = _wrapped(f"Usage: {' '.join(usage)}", width)
    for paragraph in help_.paragraphs:
        is_example = paragraph.startswith(_EXAMPLE)
        lines += ["", *(_example_lines(paragraph, width) if is_example else _wrapped(paragraph, width))]
    for title, options in (("Arguments", help_.arguments), ("Options", help_.options)):
        if options:
            terms = [one.both_terms() if title == "Arguments" else f"{one.name} {one.metavar}" for one in options]
            rows = [(term.rstrip(), one.description()) for term, one in zip(terms, options, strict=True)]
            lines += ["", f"{title}:", *_rows(rows, width)]
    return "\n".join([*lines, ""])


# --- Reading ---


def _is(node: Any, kind: type) -> bool:
    """Return True if a node is of a kind. Types of fields stay unchecked, as the source decides on them."""
    return isinstance(node, kind)


def _is_command(node: Any) -> bool:
    return _is(node, ast.Attribute) and node.attr == "command" and _is(node.value, ast.Name) and node.value.id == "app"


def _keyword(call: Any, name: str) -> Any:
    (found,) = [one.value for one in call.keywords if one.arg == name] or [None]
    if found is None:
        raise LookupError(name)
    return found


def _docstring(node: Any) -> list[str]:
    """Return the lines of a docstring, without the indentation of its function."""
    first = node.body[0]
    if not (_is(first, ast.Expr) and _is(first.value, ast.Constant)):
        raise LookupError(node.name)
    head, *rest = str(first.value.value).expandtabs().split("\n")
    indent = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return [head.strip(), *(line[indent:].rstrip() for line in rest)]


def _paragraphs(node: Any) -> list[str]:
    text = "\n".join(_docstring(node)).partition("\nArgs:\n")[0]
    return [" ".join(part.split()).replace("``", "") for part in text.split("\n\n") if part.strip()]


def _argument_texts(node: Any) -> dict[str, str]:
    texts: dict[str, str] = {}
    name = ""
    for line in "\n".join(_docstring(node)).partition("\nArgs:\n")[2].split("\n"):
        if line.startswith("        "):
            texts[name] += f" {line.strip()}"
        elif ": " in line:
            name, _, text = line.strip().partition(": ")
            texts[name] = text
    return texts


def _command_help(module: _Module, node: Any) -> CommandHelp:
    texts = _argument_texts(node)
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [*[None] * (len(positional) - len(given.defaults)), *given.defaults]
    arguments: list[OptionHelp] = []
    options: list[OptionHelp] = []
    for one, default in zip(positional, defaults, strict=True):
        shown = one.arg.upper() if one in given.posonlyargs else ""
        arguments += _options(module, one.arg, one.annotation, default, texts, shown)
    for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        options += _options(module, one.arg, one.annotation, default, texts)
    return CommandHelp(_paragraphs(node), arguments, options)


def _options(
    module: _Module, name: str, annotation: Any, default: Any, texts: dict[str, str], shown: str = ""
) -> Iterator[OptionHelp]:
    """Yield the option of a parameter; those of its fields if its type is a class of options."""
    if _is(annotation, ast.Name) and annotation.id in module.classes:
        for field in module.classes[annotation.id].body:
            if _is(field, ast.AnnAssign):
                yield from _options(module, field.target.id, field.annotation, field.value, texts)
        return
    settings: dict[str, Any] = {}
    metavar, choices = _type(module, annotation, settings)
    if settings.get("show", True):
        yield OptionHelp(
            shown or settings.get("name") or f"--{name.replace('_', '-')}",
            metavar,
            settings.get("help") or texts[name],
            choices,
            _default(default),
            is_required=default is None,
        )


def _type(module: _Module, node: Any, settings: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the metavariable of a type and its choices, and collect the settings of ``Parameter``."""
    if _is(node, ast.Name) and node.id in _METAVARS:
        return _METAVARS[node.id], ()
    if _is(node, ast.Name):
        defined = module if node.id in module.values else _Module(module.imports[node.id])
        return _type(defined, defined.values[node.id], settings)
    if _is(node, ast.Attribute):
        return _METAVARS[node.attr], ()
    if _is(node, ast.BinOp):  # ... | None
        return _type(module, node.left, settings)
    if not _is(node, ast.Subscript) or not _is(node.value, ast.Name):
        raise LookupError(type(node).__name__)
    inner = node.slice.elts if _is(node.slice, ast.Tuple) else [node.slice]
    match node.value.id:
        case "Literal":
            return "CHOICE", tuple(str(one.value) for one in inner if one.value)
        case "tuple":
            metavar, choices = _type(module, inner[0], settings)
            return f"{metavar}...", choices
        case "Annotated":
            for call in inner[1:]:
                settings |= {one.arg: one.value.value for one in call.keywords if _is(one.value, ast.Constant)}
            return _type(module, inner[0], settings)
    raise LookupError(node.value.id)


def _default(node: Any) -> str:
    """Return a default as help shows it; an empty text for one that only means "not given"."""
    if _is(node, ast.Call):  # pathlib.Path("build")
        return str(node.args[0].value) if node.args else ""
    is_shown = _is(node, ast.Constant) and not _is(node.value, bool) and node.value not in (None, "", 0)
    return str(node.value) if is_shown else ""


# --- Rendering ---


def _width() -> int:
    columns = os.environ.get("COLUMNS", "")
    try:
        width = int(columns) if columns.isdecimal() and int(columns) else os.get_terminal_size().columns
    except (OSError, ValueError):
        width = 80
    return max(_WIDTH_MIN, min(width, _WIDTH_MAX))


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text. A word that is longer than a line stays whole."""
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _example_lines(paragraph: str, width: int) -> list[str]:
    """Return the lines of an example. A reader can copy them: a line that continues ends with a backslash."""
    *head, last = _wrapped(paragraph.removeprefix(_EXAMPLE).strip(), width - 4)
    return [_EXAMPLE, *(f"  {line} \\" for line in head), f"  {last}"]


def _rows(rows: list[tuple[str, str]], width: int) -> list[str]:
    """Return the lines of terms with their texts beside them; below a term that is too long."""
    term_width = min(max(len(term) for term, _ in rows), _TERM_WIDTH_MAX)
    indent = " " * (term_width + 4)
    lines = []
    for term, text in rows:
        first, *rest = _wrapped(text, width - len(indent))
        if len(term) > term_width:
            lines += [f"  {term}", f"{indent}{first}"]
        else:
            lines.append(f"  {term:<{term_width}}  {first}")
        lines += [f"{indent}{line}" for line in rest]
    return lines
