import re
from pathlib import Path

import pytest
from test_planning import plan

from hakmem import paths, planning
from hakmem.builds import allocators
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, ClusterError
from hakmem.hosts import wire
from hakmem.hosts.worker import _ready


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("local", "127.0.0.1", 0), ("tcp://127.0.0.1:8786", "127.0.0.1", 8786), ("tcp://[::1]:1", "::1", 1)],
)
def test_what_listens_on_loopback_needs_no_certificates(text: str, host: str, port: int) -> None:
    where = wire.address(text)
    assert (where.host, where.port, where.security) == (host, port, None)
    assert wire.options(where)["host"] == host


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp://0.0.0.0:8786", "open to everybody .* use tls://"),
        ("tcp://192.0.2.7:8786", "open to everybody"),
        ("tcp://[::]:8786", "open to everybody"),
        ("tcp://no-such-host.invalid:8786", "no address of host 'no-such-host.invalid'"),
        ("127.0.0.1:8786", "it takes local, tcp://127.0.0.1:PORT or tls://HOST:PORT"),
        ("tcp://127.0.0.1", "it takes local"),
        ("tcp://127.0.0.1:99999", "it takes local"),
        ("ws://127.0.0.1:8786", "it takes local"),
        ("tls://127.0.0.1:8786", "TLS needs --tls-ca, --tls-cert and --tls-key"),
    ],
)
def test_an_address_that_would_be_open_or_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        wire.address(text)


def test_tls_takes_its_files_or_says_which_are_missing(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")]
    for file in files[:2]:
        file.write_text("")
    with pytest.raises(BadParameter, match=r"no file .*key\.pem"):
        wire.address("tls://0.0.0.0:8786", *files)
    with pytest.raises(BadParameter, match="no tls_scheduler_key"):
        wire.address("tls://0.0.0.0:8786", *files[:2])
    with pytest.raises(BadParameter, match="certificates go with tls://"):
        wire.address("tcp://127.0.0.1:8786", files[0])
    files[2].write_text("")
    where = wire.address("tls://0.0.0.0:8786", *files)
    assert where.security is not None and where.security.require_encryption
    assert where.security.tls_worker_key == str(files[2])
    assert wire.options(where)["host"] is None


def test_an_identity_says_in_which_ways_it_differs() -> None:
    here = wire.identity(compile_native())
    assert here.differs(here) == []
    there = here.model_copy(update={"revision": "abc", "build": "def"})
    assert here.differs(there) == [f"revision {here.revision} here, abc there", f"build {here.build} here, def there"]


def test_an_offer_names_what_every_host_must_have(tmp_path: Path) -> None:
    made = planning.on_cluster(plan(tmp_path, allocators=["system", "hakmem"]))
    offered = wire.offer(made, "s")
    assert offered.spec["allocators"] == ["system", "hakmem"]
    assert offered.arms == tuple(arm.label for arm in made.arms)
    assert offered.allocators["hakmem"].startswith(f"build {made.build.build_id} ")
    patch = f"patch:{paths.native() / 'test' / 'never_called.diff'}"
    offered = wire.offer(plan(tmp_path, allocators=["hakmem", patch, "peers"]), "s")
    assert offered.spec["allocators"] == ["hakmem", patch, *allocators.installed_peers()]  # what every host can find
    assert wire.Offer.model_validate_json(offered.model_dump_json()) == offered


def test_a_patch_that_is_another_here_is_refused(tmp_path: Path) -> None:
    """Its arms bear another name: a host without them would measure the others in other places."""
    patch = f"patch:{paths.native() / 'test' / 'never_called.diff'}"
    told = wire.offer(plan(tmp_path, allocators=["hakmem", patch]), "s").model_dump_json()
    assert "never_called.diff@" in told and _ready(told, "here")[0].host == "here"
    there = re.sub(r"(never_called\.diff@)\w{8}", r"\g<1>01234567", told)
    with pytest.raises(ClusterError, match="something else: patch:never_called.diff@01234567 not here, .* there"):
        _ready(there, "here")
