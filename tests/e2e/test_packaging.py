"""What people get: an installed tree that runs anywhere, an image, a quick start; and what holds the code together."""

import json
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from support.ports import free_port
from support.proxy import BINARY, ROOT, run
from support.waiting import wait_until

BUILD = BINARY.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")


def shell(command, **options):
    done = subprocess.run(command, shell=isinstance(command, str), capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def processes_with(mark):
    """Processes that inherited this text in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            pass
    return found


def test_installed_tree_runs_from_anywhere(start_proxy, tmp_path):
    if not (BUILD / "cmake_install.cmake").exists():
        pytest.skip("the binary under test is not in a build tree")
    shell(["cmake", "--install", BUILD, "--prefix", tmp_path / "first"])
    os.rename(tmp_path / "first", tmp_path / "moved")
    binary = tmp_path / "moved/bin/llm-proxy"
    assert run("version", binary=binary).returncode == 0
    listed = run("plugins", "list", binary=binary)
    assert listed.returncode == 0 and "webhook" in listed.stdout and str(ROOT) not in listed.stdout
    assert not [path for path in (tmp_path / "moved").rglob("*") if path.is_symlink() or path.suffix in (".py", ".c", ".h")]
    proxy = start_proxy(binary=binary)
    proxy.exchange("GET", "/v1/models")
    proxy.event()


def test_binary_runs_through_a_symlink(tmp_path):
    link = tmp_path / "llm-proxy"
    link.symlink_to(BINARY)
    assert "webhook" in run("plugins", "list", binary=link, cwd="/").stdout


def needed_packages(binary):
    """Debian packages of the libraries that a binary is linked with."""
    names = re.findall(r"NEEDED\s+(\S+)", shell(["objdump", "-p", binary]))
    paths = dict(re.findall(r"(\S+) => (\S+)", shell(["ldd", binary])))
    return {package_of(Path(paths[name]).resolve()) for name in names if name in paths}


def package_of(path):
    """The package a file is from, which may know it by its name without /usr."""
    for name in (str(path), str(path).removeprefix("/usr")):
        done = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    raise AssertionError(f"{path} is from no package")


def stage_of_dockerfile(number):
    return re.split(r"^FROM ", DOCKERFILE, flags=re.M)[number + 1]


@pytest.mark.packaging
@pytest.mark.timeout(900)
def test_build_steps_of_the_dockerfile(start_proxy, tmp_path):
    source, build, image = tmp_path / "src", tmp_path / "build", tmp_path / "image"
    ignored = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().split()]
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*ignored))
    steps = re.findall(r"^RUN (.*)$", stage_of_dockerfile(0), re.M)
    assert len(steps) >= 3
    for step in steps:
        shell(re.sub(r"(?<=[ =])/build\b", str(build), step).replace("DESTDIR=/image", f"DESTDIR={image}"), cwd=source)
    (binary,) = image.rglob("bin/llm-proxy")
    assert binary == image / "usr/local/bin/llm-proxy"
    missing = needed_packages(binary) - set(stage_of_dockerfile(1).split()) - {"libc6"}
    assert not missing, f"the image lacks {missing}"
    proxy = start_proxy(binary=binary)
    proxy.exchange("GET", "/v1/models")
    proxy.event()


def test_image_is_not_root_and_listens_beyond_itself():
    last = stage_of_dockerfile(1)
    assert re.search(r"^USER (?!root|0)", last, re.M)
    assert re.search(r"^ENV LISTEN_ADDR=0\.0\.0\.0:8080$", last, re.M) and re.search(r"^EXPOSE 8080$", last, re.M)
    assert re.search(r'^ENTRYPOINT \["llm-proxy"\]$', last, re.M)


def test_settings_of_the_image_start(start_proxy, upstream):
    """The environment of `docker run -e OBSERVABILITY_ENABLED=true -e OBSERVABILITY_BUFFER_SIZE=200`."""
    port = free_port("0.0.0.0")
    proxy = start_proxy(file=False, events=False, env={"OBSERVABILITY_ENABLED": "true", "OBSERVABILITY_BUFFER_SIZE": "200", "LISTEN_ADDR": f"0.0.0.0:{port}",
                                                       "UPSTREAM_URL": upstream.url})
    proxy.port = port
    assert proxy.exchange("GET", "/v1/models").status == 200
    wait_until(lambda: proxy.stdout.endswith("\n"), "the event on stdout")


@pytest.mark.packaging
@pytest.mark.timeout(900)
def test_quickstart_shows_the_event_and_leaves_nothing(tmp_path):
    mark = f"quickstart-{uuid.uuid4()}"
    new_files = ["git", "ls-files", "--others", "--exclude-standard", "--", ".", ":!src", ":!tests"]
    before = shell(new_files, cwd=ROOT) if (ROOT / ".git").exists() else None
    out = shell([ROOT / "examples/quickstart.sh"], cwd=tmp_path, env={**os.environ, "TEST_MARK": mark})
    assert "data: [DONE]" in out
    event = json.loads(out[out.index("\n{\n"):out.rindex("\n}\n") + 2])
    assert event["llm"]["output"][0]["content"] == "Grüße from the mock upstream" and event["llm"]["complete"] is True
    assert "sk-a-secret" not in json.dumps(event)
    assert not processes_with(mark)
    assert not list(tmp_path.iterdir())
    if before is not None:
        assert shell(new_files, cwd=ROOT) == before


def test_dependencies_point_one_way():
    shell([ROOT / "tests/lint/dependencies.sh"])


def test_dependency_check_finds_a_breach(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src")
    (tmp_path / "tests/lint").mkdir(parents=True)
    shutil.copy(ROOT / "CMakeLists.txt", tmp_path)
    shutil.copy(ROOT / "tests/lint/dependencies.sh", tmp_path / "tests/lint")
    with open(tmp_path / "src/http/head.h", "a") as file:
        file.write('#include "net/loop.h"\n')
    done = subprocess.run([tmp_path / "tests/lint/dependencies.sh"], capture_output=True, text=True)
    assert done.returncode == 1 and "src/http/head.h" in done.stdout and "net/" in done.stdout


def test_installer_does_nothing_when_all_is_there():
    for kind in ("build", "test"):
        out = shell([ROOT / "scripts/install-deps.sh", kind])
        assert out.count("\n") == 1 and "are here" in out


@pytest.mark.parametrize("module, package", [("libevent_core", "libevent-dev"), ("luajit", "libluajit-5.1-dev"), ("libcurl", "libcurl4-openssl-dev"), ("libzstd", "libzstd-dev")])
def test_missing_dependency_names_the_package(tmp_path, module, package):
    """pkg-config that does not find one module: the configuration ends with one line that names its package."""
    fake = tmp_path / "pkg-config"
    fake.write_text(f'#!/bin/sh\nfor word in "$@"; do case $word in {module}*) exit 1 ;; esac; done\nexec {shutil.which("pkg-config")} "$@"\n')
    fake.chmod(0o755)
    done = subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path / "build", f"-DPKG_CONFIG_EXECUTABLE={fake}"], capture_output=True, text=True)
    assert done.returncode != 0 and f"'{package}'" in done.stderr and "install-deps.sh" in done.stderr
