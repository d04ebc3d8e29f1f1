"""Python values as Lua source, to write configurations in tests as tables."""


class Lua(str):
    """Source text that is put in as it is: Lua("function(event) return event end")."""


def to_lua(value):
    """A Lua expression for None, numbers, text, lists and tables. The key 1 of a dict is the positional one: {1: "file", "path": "x"}."""
    if isinstance(value, Lua):
        return str(value)
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(quoted(byte) for byte in value.encode()) + '"'
    if isinstance(value, (list, tuple)):
        return "{ " + ", ".join(to_lua(item) for item in value) + " }"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"[{to_lua(key)}] = {to_lua(item)}" for key, item in value.items() if item is not None) + " }"
    raise TypeError(f"no Lua for {type(value).__name__}")


def quoted(byte):
    character = chr(byte)
    return character if 32 <= byte < 127 and character not in '"\\' else f"\\{byte:03d}"
