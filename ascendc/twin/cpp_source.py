"""What the runner needs to know of a C++ source without a compiler: its functions and its kernel launches.

`kernel<<<blocks, l2ctrl, stream>>>(args)` is no C++: a launch is rewritten, line for line, into a call of
``twin/entry.h`` before g++ sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<raw>(?:u8|[uUL])?R"(?P<mark>[^()\s\\]{0,16})\(.*?\)(?P=mark)")
  | (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<directive>^[ \t]*\#(?:[^\n\\]|\\.)*)
  | (?P<string>(?:u8|[uUL])?"(?:[^"\\\n]|\\.)*")
  | (?P<char>(?:u8|[uUL])?'(?:[^'\\\n]|\\.)*')
  | (?P<number>\.?\d(?:[eEpP][+-]|'(?=\w)|[\w.])*)
  | (?P<name>[A-Za-z_$][\w$]*)
  | (?P<mark_>::|->|[^\s\w])
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_MARKER = re.compile(r'[ \t]*#(?:line)? (\d+) "((?:[^"\\]|\\.)*)"((?: \d)*)')
_OPEN, _CLOSE = {"(": ")", "[": "]", "{": "}"}, {")", "]", "}"}
_CLASSES = {"class", "struct", "union", "enum"}
_WITH_PARENTHESES = {"__attribute__", "alignas", "decltype", "__declspec", "noexcept", "__tw_mix__"}


@dataclass(frozen=True, slots=True)
class Token:
    """One token, at ``begin`` of the text it was cut from."""

    text: str
    begin: int

    @property
    def end(self) -> int:
        return self.begin + len(self.text)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a function as written."""

    type: str
    name: str

    def __str__(self) -> str:
        return f"{self.type} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Function:
    """A function defined at namespace scope. ``mix``: cube and vector cores that its attributes ask for."""

    name: str  # with its namespaces
    parameters: tuple[Parameter, ...]
    kernel: bool
    template: str  # its template parameters; empty for none
    mix: tuple[int, int]
    file: str

    @property
    def base(self) -> str:
        return self.name.rpartition("::")[2]

    def __str__(self) -> str:
        shown = f"{self.name}<{self.template}>" if self.template else self.name
        return f"{shown}({', '.join(map(str, self.parameters))})"


def _tokens(text: str, directives: bool) -> Iterator[Token]:
    """The tokens of `text`; the bodies of #define directives too, where `directives`."""
    for found in _TOKEN.finditer(text):
        kind = found.lastgroup
        if kind == "comment":
            continue
        if kind == "directive":
            head = re.match(r"[ \t]*#[ \t]*define[ \t]+\w+(\([^)]*\))?", found[0])
            if directives and head:
                yield Token("\n", found.start())
                for token in _tokens(found[0][head.end() :], False):
                    yield Token(token.text, token.begin + found.start() + head.end())
                yield Token("\n", found.end())
            continue
        yield Token(found[0], found.start())


def _sections(preprocessed: str) -> Iterator[tuple[int, int, str, bool]]:
    """Stretches of preprocessed text: begin, end, file, whether it is a system header."""
    begin, file, system = 0, "", False
    offset = 0
    for line in preprocessed.splitlines(keepends=True):
        marker = _MARKER.match(line) if line.lstrip()[:1] == "#" else None
        if marker:
            if offset > begin:
                yield begin, offset, file, system
            begin, file = offset, marker[2].replace('\\"', '"').replace("\\\\", "\\")
            system = " 3" in marker[3] or file.startswith("<")
        offset += len(line)
    if offset > begin:
        yield begin, offset, file, system


def user_tokens(preprocessed: str, skip: Sequence[str] = ()) -> Iterator[tuple[Token, str]]:
    """Tokens outside of system headers and of folders in `skip`, with the file they come from."""
    # A statement may go on over several stretches of one file, so they are read as one text.
    kept, files = [], []
    for begin, end, file, system in _sections(preprocessed):
        if system or any(file.startswith(folder) for folder in skip):
            kept.append(re.sub(r"[^\n]", " ", preprocessed[begin:end]))
        else:
            kept.append(preprocessed[begin:end])
        files.append((begin, file))
    at = 0
    for token in _tokens("".join(kept), False):
        while at + 1 < len(files) and files[at + 1][0] <= token.begin:
            at += 1
        yield token, files[at][1] if files else ""


def _close(tokens: Sequence[Token], at: int) -> int:
    """The index of the token that closes the bracket at `at`, or the last one."""
    depth = 0
    for i in range(at, len(tokens)):
        if tokens[i].text in _OPEN:
            depth += 1
        elif tokens[i].text in _CLOSE:
            depth -= 1
            if depth == 0:
                return i
    return len(tokens) - 1


def _close_angle(tokens: Sequence[Token], at: int) -> int:
    depth, i = 0, at
    while i < len(tokens):
        text = tokens[i].text
        if text in _OPEN:
            i = _close(tokens, i)
        elif text == "<":
            depth += 1
        elif text == ">":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return len(tokens) - 1


def _text(tokens: Sequence[Token]) -> str:
    """Tokens as they were written, on one line."""
    out = ""
    for i, token in enumerate(tokens):
        gap = i > 0 and token.begin > tokens[i - 1].end
        out += " " * gap + token.text
    return out


def _parameters(tokens: Sequence[Token]) -> tuple[Parameter, ...]:
    parts: list[list[Token]] = [[]]
    i = 0
    while i < len(tokens):
        text = tokens[i].text
        if text == "[" and i + 1 < len(tokens) and tokens[i + 1].text == "[":  # an attribute
            i = _close(tokens, i) + 1
            continue
        if text in _OPEN or (text == "<" and i and re.match(r"\w", tokens[i - 1].text)):
            end = _close(tokens, i) if text in _OPEN else _close_angle(tokens, i)
            parts[-1] += tokens[i : end + 1]
            i = end + 1
            continue
        if text == ",":
            parts.append([])
        else:
            parts[-1].append(tokens[i])
        i += 1
    found = []
    for part in parts:
        cut = next((k for k, t in enumerate(part) if t.text in ("=", "[")), len(part))
        words = part[:cut]
        if not words or (len(words) == 1 and words[0].text == "void"):
            continue
        named = len(words) > 1 and re.match(r"[A-Za-z_]\w*$", words[-1].text)
        name = words[-1].text if named else ""
        kind = _text(words[:-1] if named else words)
        found.append(Parameter(kind + ("*" if "[" in [t.text for t in part] else ""), name))
    return tuple(found)


def _function(declaration: Sequence[Token], scope: str, file: str) -> Function | None:
    """The free function whose head is `declaration`, or None for anything else."""
    words = list(declaration)
    kernel, mix, template = False, (0, 0), ""
    if words and words[0].text == "template" and len(words) > 1:
        end = _close_angle(words, 1)
        template, words = _text(words[2:end]), words[end + 1 :]
    i = 0
    while i < len(words):
        text = words[i].text
        kernel |= text == "__tw_global__"
        if text == "=" or (text in _CLASSES and not kernel and i == 0):
            return None
        if text in _WITH_PARENTHESES and i + 1 < len(words) and words[i + 1].text == "(":
            end = _close(words, i + 1)
            if text == "__tw_mix__":
                sides = [t.text for t in words[i + 2 : end] if t.text.isdigit()]
                mix = (int(sides[0]), int(sides[1])) if len(sides) == 2 else (1, 2)
            i = end + 1
            continue
        if text == "<":
            i = _close_angle(words, i) + 1
            continue
        if text == "(":
            break
        i += 1
    if i in (0, len(words)):
        return None
    name = words[i - 1].text
    if not re.match(r"[A-Za-z_]\w*$", name) or any(t.text == "operator" for t in words[:i]):
        return None
    if i > 1 and words[i - 2].text in ("::", "~"):
        return None
    inside = words[i + 1 : _close(words, i)]
    return Function(scope + name, _parameters(inside), kernel, template, mix, file)


def _goes_on(declaration: Sequence[Token]) -> bool:
    """Whether a declaration goes on after its braces: a class or an initializer, unlike a method's body."""
    begin = 0
    if len(declaration) > 1 and declaration[0].text == "template":
        begin = _close_angle(declaration, 1) + 1
    words = [t.text for t in declaration[begin:]]
    head = words[: words.index("(")] if "(" in words else words
    return "=" in words or any(w in _CLASSES for w in head)


def functions(preprocessed: str, skip: Sequence[str] = ()) -> tuple[Function, ...]:
    """Functions defined at namespace scope of a preprocessed source, outside of system headers."""
    pairs = list(user_tokens(preprocessed, skip))
    tokens = [token for token, _ in pairs]
    found: list[Function] = []
    scopes: list[str] = []
    declaration: list[Token] = []
    i = 0
    while i < len(tokens):
        text = tokens[i].text
        words = [t.text for t in declaration]
        if text == "{":
            if words[:1] == ["namespace"] or words[:2] == ["inline", "namespace"]:
                names = [w for w in words if w not in ("inline", "namespace")]
                scopes.append("".join(names) + "::" if names else "")
            elif len(words) == 2 and words[0] == "extern" and words[1].startswith('"'):
                scopes.append("")
            else:
                function = _function(declaration, "".join(scopes), pairs[i][1])
                end = _close(tokens, i)
                if function is not None:
                    found.append(function)
                if function is not None or not _goes_on(declaration):
                    declaration = []
                i = end + 1
                continue
            declaration = []
        elif text == "}":
            if scopes:
                scopes.pop()
            declaration = []
        elif text == ";":
            declaration = []
        elif text == "(":
            end = _close(tokens, i)
            declaration += tokens[i : end + 1]
            i = end
        else:
            declaration.append(tokens[i])
        i += 1
    return tuple(found)


def _three(tokens: Sequence[Token], at: int, mark: str) -> bool:
    """Whether `mark` stands three times at `at`, with nothing between."""
    group = tokens[at : at + 3]
    return [t.text for t in group] == [mark] * 3 and group[2].begin == group[0].begin + 2


def _callee(tokens: Sequence[Token], before: int) -> int | None:
    """The index where the expression ending before index `before` begins: a name with qualifiers."""
    i = before - 1
    if i >= 0 and tokens[i].text == ">":
        angles, brackets = 0, 0
        while i >= 0:
            text = tokens[i].text
            brackets += (text in (")", "]")) - (text in ("(", "["))
            if brackets == 0:
                angles += (text == ">") - (text == "<")
                if angles == 0 and text == "<":
                    break
            if text in (";", "{", "}", "\n") or brackets < 0:
                return None
            i -= 1
        i -= 1
    if i < 0 or not re.match(r"[A-Za-z_]\w*$", tokens[i].text) or tokens[i].text == "operator":
        return None
    while i >= 1 and tokens[i - 1].text == "::":
        i -= 1
        if (
            i >= 1
            and re.match(r"[A-Za-z_]\w*$", tokens[i - 1].text)
            and tokens[i - 1].text
            not in (
                "return",
                "else",
                "do",
            )
        ):
            i -= 1
    return i


def _closing(tokens: Sequence[Token], at: int) -> int | None:
    """The index of the `>>>` that ends the launch configuration opened at `at`."""
    found = None
    i = at + 3
    while i < len(tokens):
        text = tokens[i].text
        if text in _OPEN:
            i = _close(tokens, i) + 1
            continue
        if text in _CLOSE or text in (";", "\n") or _three(tokens, i, "<"):
            break
        # `A<B<C>>>(x)` may stand inside the configuration: the last one that is called ends it.
        called = i + 3 < len(tokens) and tokens[i + 3].text == "("
        if _three(tokens, i, ">") and called and not _three(tokens, i + 1, ">"):
            found = i
            i += 3
            continue
        i += 1
    return found


def rewrite_launches(text: str, mixes: dict[str, tuple[int, int]]) -> tuple[str, int]:
    """`text` with every launch as C++, and how many there were. Lines stay where they are.

    `mixes` gives, by a kernel's plain name, the cores its attributes ask for.
    """
    tokens = list(_tokens(text, True))
    edits: list[tuple[int, int, str]] = []
    count = 0
    for i, token in enumerate(tokens):
        if token.text == "aicore" and [t.text for t in tokens[i - 1 : i + 2 : 2]] == ["[", "]"]:
            edits.append((tokens[i - 1].begin, tokens[i + 1].end, ""))
        if token.text != "<" or not _three(tokens, i, "<"):
            continue
        if i and tokens[i - 1].text == "<" and tokens[i - 1].end == token.begin:
            continue
        begin, end = _callee(tokens, i), _closing(tokens, i)
        if begin is None or end is None:
            continue
        names = [t.text for t in tokens[begin:i]]
        cut = names.index("<") if "<" in names else len(names)
        cubes, vectors = mixes.get(names[cut - 1], (0, 0))
        label = _text(tokens[begin:i]).replace("\\", "").replace('"', "")
        edits += [
            (
                tokens[begin].begin,
                tokens[begin].begin,
                f'::tilewright::twin::OnGrid("{label}", ::tilewright::twin::MixOf({cubes}, {vectors}), '
                "::tilewright::twin::Place::Here(), [&](auto&... tw_given) { ",
            ),
            (token.begin, token.begin + 3, "(tw_given...); }).Grid("),
            (tokens[end].begin, tokens[end].begin + 3, ")"),
        ]
        count += 1
    for start, stop, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[stop:]
    return text, count
