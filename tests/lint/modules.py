#!/usr/bin/env python3
"""Prints docs/reference/modules.md: what plugins can require, from the annotations of lua/llmproxy/meta/*.lua and of the modules that are written in Lua.

An annotated function is a comment block right above `function NAME(...)`; a module's own words are the comment at the head of its file. `---@async` marks what waits.
A function that a module offers without words for its users is an error."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
LUA = ROOT / "lua/llmproxy"
ORDER = ["json", "http", "file", "log", "time", "crypto", "codec", "regex", "sse", "metrics", "lru", "text", "path", "glob", "verdict", "settings"]
FUNCTION = re.compile(r"^function (\w+[.:]\w+)\(([^)]*)\)")
FIELD = re.compile(r"^---@type (\S+)(?: (.*))?$")
CLASS = re.compile(r"^---@class (\S+)(?: (.*))?$")
ALIAS = re.compile(r"^---@alias (\S+) (.*)$")
MEMBER = re.compile(r"^---@field (?!private )(\S+) (.*)$")


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
        elif (match := re.match(r"--- ?(?!@)(.*)$", line)) and not (parameters or results):
            words.append(match[1])
    waits = " ⏸" if "---@async" in block else ""
    out = [f"#### `{name}({arguments})`{waits}", ""]
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


def shapes(block):
    """The classes of a comment block that have fields, and its aliases: names and texts."""
    out, members = [], []
    for line in reversed(block):
        if match := MEMBER.match(line):
            members.insert(0, f"- `{match[1].rstrip('?')}`{' (optional)' if match[1].endswith('?') else ''}: {code(match[2])}")
        elif match := CLASS.match(line):
            if members:
                out.insert(0, (match[1], "\n".join([f"#### `{match[1]}`", "", *([match[2], ""] if match[2] else []), *members]) + "\n"))
            members = []
        elif match := ALIAS.match(line):
            out.insert(0, (match[1], f"#### `{match[1]}`\n\n{code(match[2])}\n"))
    return out


def module(name):
    lines = source_of(name).read_text().splitlines()
    out = [(None, f"## `llmproxy.{name}`\n"), (None, head(lines) + "\n")]
    block, owner = [], name
    for line in [*lines, ""]:
        if match := FUNCTION.match(line):
            if not any(text.startswith("---") for text in block):
                sys.exit(f"modules: {source_of(name).relative_to(ROOT)}: {match[1]} has no words for its users")
            out.append((None, entry(match[1].replace("methods:", f"{owner}:"), match[2], block)))
            block = []
        elif line.startswith("---"):
            block.append(line)
        elif match := re.match(r"^(\w+\.\w+) = \{\}$", line):
            kinds = [found for text in block if (found := FIELD.match(text))]
            if kinds:
                out.append((None, f"#### `{match[1]}`\n\nA `{kinds[0][1]}`. {kinds[0][2] or ''}".rstrip() + "\n"))
            block = []
        else:
            out += shapes(block)
            owner = next((found[1].split(".")[-1] for text in block if (found := CLASS.match(text))), owner)
            block = []
    # A class that nothing else speaks of is the module's own business.
    return "\n".join(text for shape, text in out if shape is None or any(f"{shape}" in other for key, other in out if key != shape))


def main():
    names = [name for name in ORDER if source_of(name).exists()]
    print("# Host modules\n\nWhat plugins and configurations `require`. Made from the annotations that editors read (`lua/llmproxy/meta/`), by `tests/lint/reference.sh`.\n\n"
          "⏸ waits: it suspends the task that calls it, nothing else, and raises where nothing can wait: at load time, in `new`, in the configuration.\n")
    print("\n".join(module(name) for name in names).rstrip())


sys.exit(main())
