"""What the documentation and the examples say is so: configurations are accepted and run, plugins load, commands exist, links lead somewhere."""

import json
import re
import shutil

import pytest

from support.proxy import ROOT, run
from support.sink import Sink
from support.waiting import wait_until

PAGES = sorted(page for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "examples").glob("**/*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASKED = re.compile(r"""\benv\s*[=(]?\s*["'](\w+)["']""")


def blocks(language):
    """(id, text) of all blocks in that language on all pages."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def example_files(*, plugins):
    """The Lua files under examples/: plugins (in a folder of their kind), or configurations."""
    kinds = {"transforms", "dispatchers", "buses", "lib", "tests"}
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in sorted((ROOT / "examples").glob("**/*.lua"))
            if bool(kinds & set(path.parts)) is plugins]


def answers(text):
    """A value for every variable that the text asks for."""
    return {name: "https://example.test/x" if "URL" in name else "value-of-" + name.lower() for name in ASKED.findall(text)}


def put_plugin(folder, text):
    """Puts a plugin's text where it is found, named as its first line says; its name."""
    kind = is_plugin(text)[1]
    name = (re.match(r"--.*?([\w-]+)\.lua", text) or [None, "mine"])[1]
    kinds = folder / {"transform": "transforms", "dispatcher": "dispatchers", "bus": "buses"}[kind]
    kinds.mkdir(parents=True, exist_ok=True)
    (kinds / f"{name}.lua").write_text(text)
    return name


def is_plugin(text):
    return re.search(r"^\s*kind\s*=\s*\"(transform|dispatcher|bus)\"", text, re.M)


def is_configuration(text):
    return re.search(r"^return\s*\{", text, re.M) and not is_plugin(text) and re.search(r"\b(listen|routes|observability)\s*=", text)


@pytest.mark.parametrize("text", blocks("lua"))
def test_lua_in_the_documentation(text, tmp_path):
    if is_plugin(text):
        result = run("plugins", "show", put_plugin(tmp_path, text), env={"LLM_PROXY_PLUGINS": str(tmp_path)})
    elif is_configuration(text):
        (tmp_path / "llm-proxy.lua").write_text(text)
        asking = text
        for folder in re.findall(r'plugin_path\s*=\s*\{\s*"([^"/][^"]*)"', text):
            for plugin in blocks("lua"):
                if is_plugin(plugin.values[0]):
                    put_plugin(tmp_path / folder, plugin.values[0])
                    asking += plugin.values[0]
        result = run("check", "-c", tmp_path / "llm-proxy.lua", env={**answers(asking), "LLM_PROXY_PLUGINS": str(ROOT / "examples/plugins")})
    else:
        pytest.skip("a fragment")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("text", blocks("json"))
def test_json_in_the_documentation(text):
    json.loads(text)


@pytest.mark.parametrize("text", blocks("sh"))
def test_commands_in_the_documentation(text):
    for line in text.replace("\\\n", " ").splitlines():
        words = re.sub(r"^\s*(\$ )?", "", line).split()
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if words and words[0].rsplit("/", 1)[-1] == "llm-proxy" and "/" not in words[0].replace("build/", "").replace("bin/", "").replace("./", ""):
            command = words[1] if len(words) > 1 and not words[1].startswith("-") else "serve"
            assert run(command, "--help").returncode == 0, line
        elif words and words[0].startswith(("./", "scripts/", "tests/", "examples/")) and "build/" not in words[0]:
            assert (ROOT / words[0]).exists(), line


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"[a-z]+:", target) and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", example_files(plugins=True))
def test_example_plugin_is_accepted(path):
    if path.parent.name in ("lib", "tests"):
        pytest.skip("used by others")
    result = run("plugins", "show", path.stem, env={"LLM_PROXY_PLUGINS": str(path.parents[1])})
    assert result.returncode == 0 and str(path.parents[1]) in result.stdout, result.stderr


@pytest.mark.parametrize("path", example_files(plugins=False))
def test_example_configuration_is_accepted_as_it_stands(path):
    result = run("check", "-c", path, env=answers(path.read_text()))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", example_files(plugins=False))
def test_example_configuration_runs(path, start_proxy, upstream, tmp_path):
    """With its upstreams and destinations replaced by ours, one request to each route becomes one event in each pipeline."""
    folder = tmp_path / "examples"
    shutil.copytree(ROOT / "examples", folder)
    with Sink() as sink:
        text = re.sub(r'(\bupstream\s*=\s*)"https?://[^/"]+', rf'\1"{upstream.url}', path.read_text())
        text = re.sub(r'(\burl\s*=\s*)"https?://[^"]+"', rf'\1"{sink.url}"', text)
        copy = folder / path.relative_to(ROOT / "examples")
        copy.write_text(text)
        env = {**answers(text), "OBSERVABILITY_ENABLED": "true"}
        proxy = start_proxy(file=False, arguments=("-c", copy), env=env, events=False)
        prefixes = re.findall(r'\bprefix\s*=\s*"([^"]+)"', text) or ["/"]
        for prefix in prefixes:
            body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
            response = proxy.exchange("POST", prefix.rstrip("/") + "/chat/completions", [("Content-Type", "application/json")], body)
            assert response.status == 200, response.body

        def delivered():
            metrics = proxy.metrics()
            return metrics.pipelines() and all(sum(metrics.outcomes(one)[result] for result in ("delivered", "filtered")) == len(prefixes)
                                               for one in metrics.pipelines())

        wait_until(delivered, lambda: f"all events are delivered: {proxy.metrics().text}\n{proxy.stderr}")
