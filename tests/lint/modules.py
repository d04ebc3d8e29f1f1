#!/usr/bin/env python3
"""Prints docs/reference/modules.md: what plugins can require, from the annotations of lua/llmproxy/meta/*.lua and of the modules that are written in Lua.

An annotated function is a comment block right above `function NAME(...)`; a module's own words are the comment at the head of its file."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LUA = ROOT / "lua/llmproxy"
ORDER = ["json", "http", "file", "log", "time", "crypto", "codec", "regex", "sse", "metrics", "lru", "text", "path", "glob", "verdict", "settings"]
FUNCTION = re.compile(r"^function ([\w.:]+)\(([^)]*)\)")
FIELD = re.compile(r"^---@type (\S+)(?: (.*))?$")
WAITS = "Waits."


def source_of(name):
    meta = LUA / "meta" / f"{name}.lua"
    return meta if meta.exists() else LUA / f"{name}.lua"


def head(lines):
    """The words at the head of a file."""
    out = []
    for line in lines:
        if line.startswith("---@meta"):
            continue
        match = re.match(r"^---? ?(.*)$", line)
        if not match:
            break
        out.append(match[1])
    return "\n".join(out).rstrip()


def entry(name, arguments, block):
    """One function: its line, its words, its parameters and results."""
    words, parameters, results = [], [], []
    for line in block:
        if match := re.match(r"---@param (\S+) (.*)$", line):
            parameters.append((match[1].rstrip("?"), match[1].endswith("?"), match[2]))
        elif match := re.match(r"---@return (.*)$", line):
            results.append(match[1])
        elif match := re.match(r"--- ?(?!@)(.*)$", line):
            words.append(match[1])
    out = [f"#### `{name}({arguments})`", ""]
    text = "\n".join(words).strip()
    if text:
        out += [text, ""]
    out += [f"- `{parameter}`{' (optional)' if optional else ''}: {code(kind)}" for parameter, optional, kind in parameters]
    out += [f"- returns {code(kind)}" for kind in results]
    return "\n".join(out).rstrip() + "\n"


def code(kind):
    """A type and the words behind it: `string|number` what it is."""
    depth, end = 0, len(kind)
    for index, char in enumerate(kind):
        depth += char in "{(<[" 
        depth -= char in "})>]"
        if char == " " and depth == 0 and not kind[:index].endswith((":", ",", "|")):
            end = index
            break
    return f"`{kind[:end]}`{kind[end:]}"


def module(name):
    lines = source_of(name).read_text().splitlines()
    out = [f"## `llmproxy.{name}`\n", head(lines) + "\n"]
    block = []
    for line in lines:
        if match := FUNCTION.match(line):
            # A function of the module, or a method of what one of them makes: a local one has no annotation.
            if block and any(not text.startswith("---@") for text in block):
                out.append(entry(match[1].replace("methods:", f"{name}:"), match[2], block))
            block = []
        elif line.startswith("---"):
            block.append(line)
        elif match := re.match(r"^(\w+\.\w+) = \{\}$", line):
            kinds = [found for text in block if (found := FIELD.match(text))]
            if kinds:
                out.append(f"#### `{match[1]}`\n\n`encode(text, …)` and `decode(text, …)`. {kinds[0][2] or ''}".rstrip() + "\n")
            block = []
        else:
            block = []
    return "\n".join(out)


def main():
    names = [name for name in ORDER if source_of(name).exists()]
    print("# Host modules\n\nWhat plugins and configurations `require`. Made from the annotations that editors read (`lua/llmproxy/meta/`), by `tests/lint/reference.sh`.\n")
    print("\n".join(module(name) for name in names).rstrip())


sys.exit(main())
