"""``hardpoint weights sign`` and ``verify`` as programs, beside model-signing's own program."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import hardpoint as hp
from hardpoint.cli import main

pytest.importorskip("model_signing")
pytest.importorskip("hardpoint_safetensors")

from signing_keys import authority, certified, key_pair

FORCED = {**os.environ, "NO_COLOR": "1"}


@pytest.fixture
def place(tmp_path):
    """A folder with a key pair, a file, and a sharded set in a directory of its own."""
    key_pair(tmp_path)
    hp.save_weights({"w": torch.arange(256.0)}, tmp_path / "w.safetensors", checksum=True)
    folder = tmp_path / "model"
    folder.mkdir()
    hp.save_weights({"a": torch.ones(8)}, folder / "one.safetensors")
    hp.save_weights({"b": torch.ones(8)}, folder / "two.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    )
    return tmp_path


@contextlib.contextmanager
def within(place):
    before = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def ours(place, *words, env=None):
    """The command, in this process: what it prints and its status are the program's."""
    with within(place):
        ran = CliRunner().invoke(main, ["weights", *words], prog_name="hardpoint", env=env)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return SimpleNamespace(returncode=ran.exit_code, stdout=ran.stdout, stderr=ran.stderr)


def program(place, *words, **more):
    command = [sys.executable, "-m", "hardpoint.cli", "weights", *words]
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, env={**FORCED, **more}
    )


def theirs(place, *words):
    command = [sys.executable, "-m", "model_signing", *words]
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=False, env=FORCED
    )


def flip(path, at=-1):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_a_file_is_signed_and_verified(place):
    ran = program(place, "sign", "w.safetensors", "--key", "key.pem")
    size = (place / "w.safetensors").stat().st_size
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (
        f"w.safetensors.sig: 1 file, {size / 1000:.1f} kB, signed with the key key.pem\n"
    )
    ran = program(place, "verify", "w.safetensors", "--key", "key.pub.pem")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (
        f"w.safetensors: 1 file, {size / 1000:.1f} kB, as signed with the key key.pub.pem"
        " (w.safetensors.sig)\n"
        "w.safetensors: 1 tensors, 1.0 kB, as they were saved\n"
    )


def test_json_says_what_was_signed_and_what_was_checked(place):
    signed = json.loads(ours(place, "sign", "model", "--key", "key.pem", "--json").stdout)
    files = ["model.safetensors.index.json", "one.safetensors", "two.safetensors"]
    nbytes = sum((place / "model" / name).stat().st_size for name in files)
    assert signed == {
        "file": "model", "signature": "model/model.sig", "signer": "the key key.pem",
        "files": files, "bytes": nbytes, "ignored": [],
    }  # fmt: skip
    found = json.loads(ours(place, "verify", "model", "--key", "key.pub.pem", "--json").stdout)
    assert found["verified"] is True
    assert found["checked"] == {
        "signature": {
            "file": "model/model.sig", "by": "the key key.pub.pem", "files": files,
            "bytes": nbytes, "ignored": [],
        },
        "checksum": False,
    }  # fmt: skip


def test_with_neither_checksum_nor_signature_the_error_names_both_remedies(place):
    ran = ours(place, "verify", "model")
    assert ran.returncode == 1
    assert ran.stderr == (
        "error: there is nothing to hold model against\n"
        "  cause: its metadata have no 'hardpoint.sha256', and no signature was named\n"
        "  remedy: save it with checksum=True, or verify a signature: --key PUB.pem --signature"
        " FILE; `hardpoint weights sign` makes one\n"
    )
    ours(place, "sign", "model", "--key", "key.pem")
    ran = ours(place, "verify", "model")
    assert ran.returncode == 1
    assert "whom to trust for the signature model/model.sig was not said" in ran.stderr


def alter_a_bit(place):
    flip(place / "model" / "two.safetensors")


def add_a_file(place):
    (place / "model" / "custom.py").write_text("import os")


def remove_a_file(place):
    (place / "model" / "one.safetensors").unlink()


def take_another_key(place):
    key_pair(place)


def damage_the_signature(place):
    flip(place / "model" / "model.sig", 400)


def cut_the_signature(place):
    path = place / "model" / "model.sig"
    path.write_bytes(path.read_bytes()[:200])


def take_a_signature_of_others(place):
    ours(place, "sign", "w.safetensors", "--key", "key.pem")
    (place / "w.safetensors.sig").replace(place / "model" / "model.sig")


@pytest.mark.parametrize(
    ("harm", "what", "cause"),
    [
        (alter_a_bit, "model is not what was signed", "changed: 'two.safetensors'"),
        (add_a_file, "model is not what was signed", "added: 'custom.py'"),
        (remove_a_file, "model is not what was signed", "missing: 'one.safetensors'"),
        (take_another_key, "model/model.sig was not signed by the key key.pub.pem", "Key mismatch"),
        (damage_the_signature, "model/model.sig ", ""),
        (cut_the_signature, "model/model.sig is no whole signature of files", "Unterminated"),
        (take_a_signature_of_others, "model/model.sig is no signature of model", "of one file"),
    ],
)  # fmt: skip
def test_what_does_not_verify_ends_with_4_and_one_message(place, harm, what, cause):
    ours(place, "sign", "model", "--key", "key.pem")
    harm(place)
    ran = ours(place, "verify", "model", "--key", "key.pub.pem")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.startswith(f"error: {what}")
    assert cause in ran.stderr
    assert ran.stderr.count("remedy:") == 1
    assert "Traceback" not in ran.stderr
    asjson = ours(place, "verify", "model", "--key", "key.pub.pem", "--json")
    assert asjson.returncode == 4
    said = json.loads(asjson.stdout)
    assert said["error"] == "WeightsMismatch"
    assert said["what"].startswith(what)


def test_a_wrong_checksum_and_a_damaged_header_end_with_4_as_a_wrong_signature_does(place):
    flip(place / "w.safetensors")
    ran = ours(place, "verify", "w.safetensors")
    assert ran.returncode == 4
    assert "error: w.safetensors is not what was saved" in ran.stderr
    (place / "w.safetensors").write_bytes((place / "w.safetensors").read_bytes()[:-1])
    ran = ours(place, "verify", "w.safetensors")
    assert ran.returncode == 4
    assert "provider: serializer:safetensors" in ran.stderr


def test_a_good_signature_over_a_wrong_checksum_ends_with_4(place):
    flip(place / "w.safetensors")
    ours(place, "sign", "w.safetensors", "--key", "key.pem")
    ran = ours(place, "verify", "w.safetensors", "--key", "key.pub.pem")
    assert ran.returncode == 4
    assert "is not what was saved" in ran.stderr


def test_a_signed_file_that_nobody_here_reads_verifies_and_says_so(place):
    (place / "tokenizer.model").write_bytes(b"whatever")
    ours(place, "sign", "tokenizer.model", "--key", "key.pem")
    ran = ours(place, "verify", "tokenizer.model", "--key", "key.pub.pem")
    assert ran.returncode == 0
    assert "no checksum was looked at: no installed serializer reads tokenizer.model" in ran.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["sign", "model"], "Name who signs: --key KEY.pem, or --sigstore."),
        (["sign", "model", "--key", "key.pem", "--sigstore"], "Name who signs"),
        (["sign", "model", "--sigstore", "--cert-chain", "key.pem"], "go with --key"),
        (["sign", "model", "--key", "key.pem", "--cert-chain", "key.pem"], "--certificate"),
        (["sign", "model", "--key", "nowhere.pem"], "there is no file nowhere.pem"),
        (["verify", "model", "--signature", "key.pem"], "Name whom you trust"),
        (["verify", "model", "--identity", "me"], "--identity and --oidc-issuer go together"),
        (["verify", "model", "--key", "key.pem", "--cert-chain", "key.pem"], "Name one of"),
    ],
)
def test_a_wrong_command_line_ends_with_2(place, words, complaint):
    ran = ours(place, *words)
    assert ran.returncode == 2
    assert complaint in " ".join(ran.stderr.replace("│", " ").split())


def test_an_encrypted_key_takes_its_password_from_the_environment(place):
    key_pair(place, "secret", password=b"open")
    words = ("sign", "w.safetensors", "--key", "secret.pem")
    ran = ours(place, *words)
    assert ran.returncode == 1
    assert "Password was not given but private key is encrypted" in ran.stderr
    assert ours(place, *words, env={"HARDPOINT_KEY_PASSWORD": "open"}).returncode == 0
    plain = ("sign", "w.safetensors", "--key", "key.pem", "--force")
    assert ours(place, *plain, env={"HARDPOINT_KEY_PASSWORD": ""}).returncode == 0


def test_a_certificate_signs_and_its_authority_verifies(place):
    _, ca = authority(place)
    certified(place, ca)
    words = ("--key", "signer.pem", "--certificate", "signer.crt")
    assert ours(place, "sign", "model", *words).returncode == 0
    ran = ours(place, "verify", "model", "--cert-chain", "ca.crt", "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["checked"]["signature"]["by"] == "the authority of ca.crt"
    found = theirs(
        place, "verify", "certificate", "model", "--signature", "model/model.sig",
        "--certificate_chain", "ca.crt",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("path", ["w.safetensors", "model"])
def test_model_signing_verifies_what_we_signed_and_finds_a_change(place, path):
    assert program(place, "sign", path, "--key", "key.pem", "--signature", "x.sig").returncode == 0
    words = ("verify", "key", path, "--signature", "x.sig", "--public_key", "key.pub.pem")
    found = theirs(place, *words)
    assert found.returncode == 0, found.stderr
    flip(place / path if path != "model" else place / "model" / "one.safetensors")
    assert theirs(place, *words).returncode != 0


def test_model_signing_verifies_an_index_that_we_signed_with_its_shards(place):
    index = "model/model.safetensors.index.json"
    (place / "model" / "readme.txt").write_text("is not signed")
    assert ours(place, "sign", index, "--key", "key.pem").returncode == 0
    words = ("verify", "key", "model", "--signature", f"{index}.sig", "--public_key", "key.pub.pem")
    assert theirs(place, *words, "--ignore_unsigned_files").returncode == 0
    flip(place / "model" / "two.safetensors")
    assert theirs(place, *words, "--ignore_unsigned_files").returncode != 0


@pytest.mark.parametrize("path", ["w.safetensors", "model"])
def test_we_verify_what_model_signing_signed_and_find_a_change(place, path):
    made = theirs(place, "sign", "key", path, "--private_key", "key.pem", "--signature", "x.sig")
    assert made.returncode == 0, made.stderr
    words = ("verify", path, "--key", "key.pub.pem", "--signature", "x.sig")
    ran = program(place, *words)
    assert (ran.returncode, ran.stderr) == (0, "")
    flip(place / path if path != "model" else place / "model" / "one.safetensors")
    assert program(place, *words).returncode == 4


def test_what_model_signing_was_told_to_ignore_is_told_to_the_reader(place):
    (place / "model" / "training.log").write_text("1")
    theirs(
        place, "sign", "key", "model", "--private_key", "key.pem", "--signature", "x.sig",
        "--ignore-paths", "model/training.log",
    )  # fmt: skip
    (place / "model" / "training.log").write_text("2")
    ran = ours(place, "verify", "model", "--key", "key.pub.pem", "--signature", "x.sig")
    assert ran.returncode == 0
    assert "not covered: training.log\n" in ran.stdout


def test_a_signature_of_an_old_kind_warns_on_stderr_and_not_among_the_json(place):
    """model-signing prints where no hint of the key is in the signature."""
    program(place, "sign", "w.safetensors", "--key", "key.pem")
    path = place / "w.safetensors.sig"
    top = json.loads(path.read_bytes())
    del top["verificationMaterial"]["publicKey"]["hint"]
    path.write_text(json.dumps(top))
    ran = program(place, "verify", "w.safetensors", "--key", "key.pub.pem", "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["verified"] is True
    assert "older verification material format" in " ".join(ran.stderr.split())


def test_what_nobody_may_read_is_one_error(place):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    ours(place, "sign", "model", "--key", "key.pem")
    (place / "model" / "one.safetensors").chmod(0)
    ran = ours(place, "verify", "model", "--key", "key.pub.pem")
    assert ran.returncode == 1
    assert "cannot be read" in ran.stderr


def test_a_bar_is_drawn_on_a_terminal_where_it_takes_longer_than_a_second(place):
    program = (
        "import sys, time\n"
        "import hardpoint.weights.progress as progress\n"
        "progress._PATIENCE_S = 0\n"
        "from hardpoint.cli import main\n"
        "main(['weights', 'sign', 'w.safetensors', '--key', 'key.pem'], prog_name='hardpoint')\n"
    )
    above, below = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, stdout=subprocess.PIPE, stderr=below,
        env={**FORCED, "TERM": "xterm"}, check=False,
    )  # fmt: skip
    os.close(below)
    shown = os.read(above, 65536).decode()
    os.close(above)
    assert done.returncode == 0
    assert "signing w.safetensors" in shown


def test_sigstore_without_a_network_is_one_error(place):
    """What can be tested here: that it fails in words, and leaves nothing behind."""
    closed = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "",
    }
    ran = program(place, "sign", "model", "--sigstore", HOME=str(place), **closed)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: Sigstore is out of reach\n  cause: ")
    assert "remedy: try again, or sign with --key" in ran.stderr
    assert not (place / "model" / "model.sig").exists()
