"""Signatures: what they cover, what they find, and what becomes of a file that is no signature."""

import base64
import builtins
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

import hardpoint as hp
from hardpoint import WeightsError, WeightsMismatch

pytest.importorskip("model_signing")
pytest.importorskip("hardpoint_safetensors")

from cryptography.hazmat.primitives.asymmetric import ec

from hardpoint.weights.signers import Authority, Key, PublicKey, Sigstore
from hardpoint.weights.signing import default_signature, sign, verify_signature
from hardpoint.weights.statement import Statement, parse, read_signature
from signing_keys import authority, certified, key_pair, rsa_pair

REGISTRY = hp.default_registry()


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    private, public = key_pair(folder)
    return Key(key=private), PublicKey(key=public)


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "file"
    folder.mkdir()
    hp.save_weights({"w": torch.arange(64.0)}, folder / "w.safetensors")
    return folder / "w.safetensors"


def shards(folder):
    """Two files, their index, and a file that is none of them."""
    folder.mkdir()
    hp.save_weights({"a": torch.ones(8)}, folder / "one.safetensors")
    hp.save_weights({"b": torch.ones(8)}, folder / "two.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    (folder / "config.json").write_text("{}")
    return index


@pytest.fixture
def index(tmp_path):
    return shards(tmp_path / "set")


@pytest.fixture
def folder(index):
    return index.parent


def make(path, signer, **more):
    return sign(path, signer, registry=REGISTRY, progress=False, **more)


def verify(path, trust, **more):
    return verify_signature(path, trust, registry=REGISTRY, progress=False, **more)


def flip(path, at=-1):
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def refused(path, trust, **more):
    """What verification says."""
    with pytest.raises(WeightsMismatch) as caught:
        verify(path, trust, **more)
    return str(caught.value)


def test_a_file_is_signed_beside_itself_and_verifies_under_any_name(file, keys):
    done = make(file, keys[0])
    assert done.signature == default_signature(file) == file.with_name("w.safetensors.sig")
    assert (done.files, done.nbytes) == (("w.safetensors",), file.stat().st_size)
    moved = file.rename(file.with_name("moved.safetensors"))
    assert verify(moved, keys[1], signature=done.signature).files == ("moved.safetensors",)


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_keys_on_three_curves_sign(file, tmp_path, curve):
    private, public = key_pair(tmp_path, curve=curve())
    make(file, Key(key=private))
    assert verify(file, PublicKey(key=public)).files == (file.name,)


def test_an_encrypted_key_signs_with_its_password(file, tmp_path):
    private, public = key_pair(tmp_path, password=b"open")
    make(file, Key(key=private, password="open"))
    verify(file, PublicKey(key=public))
    for password, cause in ((None, "Password was not given"), ("shut", "password")):
        with pytest.raises(WeightsError, match=cause):
            make(file, Key(key=private, password=password), force=True)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bit=st.integers(0, 8 * 64 - 1))
def test_every_changed_bit_of_a_file_is_found(file, keys, bit):
    if not default_signature(file).exists():
        make(file, keys[0])
    good = file.read_bytes()
    raw = bytearray(good)
    raw[len(good) // 64 * (bit // 8)] ^= 1 << bit % 8
    file.write_bytes(raw)
    try:
        assert refused(file, keys[1]) == (
            f"{file} is not what was signed\n"
            "  cause: its bytes are others\n"
            "  remedy: get the files again from where they came from; if they are meant to be so,"
            " their publisher has to sign them anew"
        )
    finally:
        file.write_bytes(good)


def test_an_index_is_signed_with_its_shards_and_nothing_else(index, keys):
    done = make(index, keys[0])
    assert done.files == ("model.safetensors.index.json", "one.safetensors", "two.safetensors")
    flip(index.with_name("config.json"))
    assert verify(index, keys[1]).files == done.files


def test_a_changed_and_a_missing_shard_are_named(index, keys):
    make(index, keys[0])
    flip(index.with_name("two.safetensors"))
    assert "cause: changed: 'two.safetensors'\n" in refused(index, keys[1])
    index.with_name("two.safetensors").unlink()
    assert "cause: missing: 'two.safetensors'\n" in refused(index, keys[1])


def test_a_directory_is_signed_with_all_below_it_but_git_and_the_signature(folder, keys):
    (folder / "more").mkdir()
    (folder / "more" / "notes.txt").write_text("x")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    done = make(folder, keys[0])
    assert done.signature == folder / "model.sig"
    assert done.files == (
        "config.json", "model.safetensors.index.json", "more/notes.txt", "one.safetensors",
        "two.safetensors",
    )  # fmt: skip
    assert done.ignored == (".git",)
    (folder / ".git" / "HEAD").write_text("y")
    assert verify(folder, keys[1]) == done


def test_of_a_directory_what_is_added_missing_and_changed_is_told_at_once(folder, keys):
    make(folder, keys[0])
    flip(folder / "one.safetensors")
    (folder / "two.safetensors").unlink()
    (folder / "evil.py").write_text("import os")
    assert (
        "cause: changed: 'one.safetensors'; missing: 'two.safetensors'; added: 'evil.py'\n"
    ) in refused(folder, keys[1])


def test_a_signature_kept_elsewhere_covers_the_same(folder, keys, tmp_path):
    place = tmp_path / "elsewhere.sig"
    make(folder, keys[0], signature=place)
    assert not (folder / "model.sig").exists()
    verify(folder, keys[1], signature=place)
    (folder / "model.sig").write_text("added")
    # What a signature may stand under in a directory is left out by the one that stands there only.
    assert "added: 'model.sig'" in refused(folder, keys[1], signature=place)


def test_a_file_verifies_by_the_signature_of_its_directory(folder, index, keys):
    make(folder, keys[0])
    assert "config.json" in verify(index, keys[1], signature=folder / "model.sig").files


def test_another_key_is_told(file, keys, tmp_path):
    make(file, keys[0])
    _, other = key_pair(tmp_path, "other")
    said = refused(file, PublicKey(key=other))
    assert said.startswith(f"{file}.sig was not signed by the key {other}\n")
    assert "Key mismatch" in said


def test_a_signature_of_other_files_is_told(file, folder, index, keys):
    of_file, of_folder = make(file, keys[0]).signature, make(folder, keys[0]).signature
    assert "its bytes are others" in refused(index, keys[1], signature=of_file)
    assert "it is of one file, not of a directory" in refused(folder, keys[1], signature=of_file)
    assert (f"{of_folder} is no signature of {file}\n  cause: it is of 'config.json',") in refused(
        file, keys[1], signature=of_folder
    )


def test_a_signature_over_an_index_alone_does_not_vouch_for_its_shards(index, keys, tmp_path):
    """As any tool makes that takes an index for one file."""
    from model_signing import signing

    place = tmp_path / "only.sig"
    signing.Config().use_elliptic_key_signer(private_key=keys[0].key).sign(index, place)
    said = refused(index, keys[1], signature=place)
    assert said.startswith(f"{index} is signed only in part\n")
    assert "does not cover" in said
    assert "one.safetensors" in said


def bundle(path):
    return json.loads(path.read_bytes())


def rewrite(path, statement):
    top = bundle(path)
    top["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.write_text(json.dumps(top))


def payload(path):
    return json.loads(base64.b64decode(bundle(path)["dsseEnvelope"]["payload"]))


def test_a_statement_that_was_edited_was_not_signed(folder, keys):
    place = make(folder, keys[0]).signature
    (folder / "evil.py").write_text("import os")
    statement = payload(place)
    statement["predicate"]["serialization"]["ignore_paths"].append("evil.py")
    rewrite(place, statement)
    said = refused(folder, keys[1])
    assert said.startswith(f"{place} was not signed by the key")
    assert "InvalidSignature" in said


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "Expecting value"),
        (b"\x80\x02.", "codec can't decode"),
        (b"[]", "another kind of it"),
        (b"{}", "another kind of it: KeyError('dsseEnvelope')"),
        (b"[" * 100_000, "recursion"),
        (b'{"dsseEnvelope": {"payload": "%%%%"}}', "base64"),
        (b'{"dsseEnvelope": {"payload": 3}}', "another kind of it"),
        (b'{"dsseEnvelope": {"payload": "e30="}}', "another kind of it: KeyError('predicateType')"),
    ],
)
def test_what_is_no_signature_is_one_error(file, keys, raw, cause):
    default_signature(file).write_bytes(raw)
    said = refused(file, keys[1])
    assert said.startswith(f"{file}.sig is no whole signature of files\n")
    assert cause in said
    assert "remedy: get the signature again from whoever signed" in said


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_signature_never_verifies_and_never_is_a_traceback(file, keys, data):
    place = default_signature(file)
    if not place.exists():
        make(file, keys[0])
    good = place.read_bytes()
    kept = data.draw(st.one_of(st.just(len(good)), st.integers(0, len(good) - 1)))
    raw = bytearray(good[:kept])
    if kept == len(good):
        raw[data.draw(st.integers(0, kept - 1))] = data.draw(st.integers(0, 255))
    place.write_bytes(raw)
    try:
        verify(file, keys[1])
    except WeightsMismatch as error:
        assert error.cause
        assert error.remedy
    else:
        # Bytes that nobody looks at: white space, names of fields that are not used.
        assert payload(place) == json.loads(
            base64.b64decode(json.loads(good)["dsseEnvelope"]["payload"])
        )
    finally:
        place.write_bytes(good)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda p: p["resources"].clear(), "it lists no file"),
        (lambda p: p["resources"].append(dict(p["resources"][0])), "twice"),
        (lambda p: p["resources"][0].update(name="../../etc/passwd"), "in no directory of weights"),
        (lambda p: p["resources"][0].update(name="/etc/passwd"), "in no directory of weights"),
        (lambda p: p["resources"][0].update(digest=7), "no text"),
        (lambda p: p["serialization"].update(method="guess"), "method 'guess'"),
        (lambda p: p["serialization"].update(hash_type="md5"), "'md5'"),
        (lambda p: p["serialization"].update(method="shards", shard_size=0), "pieces of 0 bytes"),
        (lambda p: p["serialization"].update(method="shards", shard_size=1e999), "infinity"),
    ],
)
def test_a_statement_that_means_nothing_is_refused_before_it_is_used(file, keys, change, cause):
    place = make(file, keys[0]).signature
    statement = payload(place)
    change(statement["predicate"])
    rewrite(place, statement)
    assert cause in refused(file, keys[1])


def test_a_signature_of_another_kind_is_told(file, keys):
    place = make(file, keys[0]).signature
    statement = payload(place)
    statement["predicateType"] = "https://slsa.dev/provenance/v1"
    rewrite(place, statement)
    assert "it states 'https://slsa.dev/provenance/v1'" in refused(file, keys[1])


def test_no_signature_is_an_error_with_its_place(file, keys):
    with pytest.raises(WeightsError) as caught:
        verify(file, keys[1])
    assert str(caught.value) == (
        f"the signature {file}.sig cannot be read\n"
        "  cause: No such file or directory\n"
        "  remedy: name the file that `hardpoint weights sign` wrote, with --signature"
    )


def test_a_signature_is_replaced_when_told_so_and_nothing_else_ever_is(file, keys):
    place = make(file, keys[0]).signature
    first = place.read_bytes()
    with pytest.raises(WeightsError, match="is there already"):
        make(file, keys[0])
    assert place.read_bytes() == first
    make(file, keys[0], force=True)
    assert place.read_bytes() != first
    other = file.with_name("other.safetensors")
    hp.save_weights({"w": torch.ones(1)}, other)
    for victim in (file, other):
        kept = victim.read_bytes()
        with pytest.raises(WeightsError, match="is there, and is no signature"):
            make(file, keys[0], signature=victim, force=True)
        assert victim.read_bytes() == kept


def test_a_signature_inside_a_folder_never_replaces_what_it_covers(folder, keys):
    kept = (folder / "one.safetensors").read_bytes()
    with pytest.raises(WeightsError, match="is there, and is no signature"):
        make(folder, keys[0], signature=folder / "one.safetensors", force=True)
    assert (folder / "one.safetensors").read_bytes() == kept


def test_the_key_is_not_handed_on_with_the_weights(folder):
    private, _ = key_pair(folder)
    with pytest.raises(WeightsError, match="lies among what is signed"):
        make(folder, Key(key=private))
    assert not (folder / "model.sig").exists()


def test_nothing_half_written_is_left_where_signing_fails(file, keys, monkeypatch):
    from hardpoint.weights import signing

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signing, "replace", full)
    with pytest.raises(WeightsError, match="No space left on device"):
        make(file, keys[0])
    assert [each.name for each in file.parent.iterdir()] == ["w.safetensors"]


def test_what_is_refused_as_weights_is_not_signed(file, keys):
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(WeightsError) as caught:
        make(file, keys[0])
    assert caught.value.provider == "serializer:safetensors"
    assert not default_signature(file).exists()


def test_a_file_of_a_format_that_nobody_knows_is_signed_as_it_is(tmp_path, keys):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"whatever")
    assert make(path, keys[0]).files == ("tokenizer.model",)
    verify(path, keys[1])


def test_files_behind_links_are_covered_as_in_a_hubs_cache(tmp_path, keys):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    index = shards(tmp_path / "made")
    blobs.mkdir()
    snapshot.mkdir()
    for number, each in enumerate(sorted(index.parent.iterdir())):
        each.rename(blobs / f"{number}")
        (snapshot / each.name).symlink_to(blobs / f"{number}")
    for path in (snapshot / index.name, snapshot):
        done = make(path, keys[0])
        assert "one.safetensors" in done.files
        verify(path, keys[1])
        done.signature.unlink()
    make(snapshot, keys[0])
    flip(blobs / "2")
    assert "changed: 'one.safetensors'" in refused(snapshot, keys[1])


def test_links_to_directories_and_pipes_cannot_be_covered(folder, keys, tmp_path):
    make(folder, keys[0], signature=tmp_path / "before.sig")
    (folder / "more").symlink_to(tmp_path / "keys")
    for act in (
        lambda: make(folder, keys[0]),
        lambda: verify(folder, keys[1], signature=tmp_path / "before.sig"),
    ):
        with pytest.raises(WeightsError, match="it is a link to a directory"):
            act()
    (folder / "more").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(WeightsError, match="it is no file"):
        make(folder, keys[0])


def test_an_empty_directory_is_not_signed(tmp_path, keys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no file is in it"):
        make(tmp_path / "empty", keys[0])


def test_keys_of_other_kinds_are_told(file, tmp_path):
    private, public = rsa_pair(tmp_path)
    key_pair(tmp_path, "odd", curve=ec.SECP256K1())
    good, good_public = key_pair(tmp_path)
    make(file, Key(key=good))
    for act, cause in (
        (lambda: make(file, Key(key=private), force=True), "it is RSAPrivateKey, and P-256"),
        (lambda: make(file, Key(key=tmp_path / "odd.pem"), force=True), "on the curve secp256k1"),
        (lambda: make(file, Key(key=good_public), force=True), "no private key to sign with"),
        (lambda: verify(file, PublicKey(key=public)), "it is RSAPublicKey, and P-256"),
        (lambda: verify(file, PublicKey(key=good)), "openssl pkey -in key.pem -pubout"),
    ):
        with pytest.raises(WeightsError) as caught:
            act()
        assert cause in str(caught.value)
        assert not isinstance(caught.value, WeightsMismatch)


def test_a_certificate_speaks_for_a_key_under_an_authority_that_is_trusted(file, tmp_path):
    root, ca = authority(tmp_path)
    stranger, _ = authority(tmp_path, "stranger")
    private, certificate = certified(tmp_path, ca)
    make(file, Key(key=private, certificate=certificate))
    verify(file, Authority(chain=(root,)))
    said = refused(file, Authority(chain=(stranger,)))
    assert said.startswith(f"{file}.sig was not signed by the authority of {stranger}\n")
    flip(file)
    assert "its bytes are others" in refused(file, Authority(chain=(root,)))


def test_a_certificate_of_another_key_does_not_sign(file, keys, tmp_path):
    _, certificate = certified(tmp_path, authority(tmp_path)[1])
    with pytest.raises(WeightsError, match="does not match"):
        make(file, Key(key=keys[0].key, certificate=certificate))


def test_a_signature_by_key_is_none_by_certificate_and_the_other_way_round(file, keys, tmp_path):
    root, ca = authority(tmp_path)
    make(file, keys[0])
    assert "was not signed by the authority" in refused(file, Authority(chain=(root,)))
    private, certificate = certified(tmp_path, ca)
    make(file, Key(key=private, certificate=certificate), force=True)
    assert "was not signed by the key" in refused(file, keys[1])


@pytest.mark.parametrize("hashing", ["sha256", "blake2", "blake3"])
@pytest.mark.parametrize("pieces", [False, True])
def test_however_model_signing_hashed_it_is_verified(folder, keys, hashing, pieces):
    from model_signing import hashing as theirs, signing

    config = theirs.Config()
    if pieces:
        config.use_shard_serialization(hashing_algorithm=hashing, shard_size=50)
    else:
        config.use_file_serialization(hashing_algorithm=hashing)
    config.set_ignored_paths(paths=["model.sig"])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0].key)
    signer.set_hashing_config(config).sign(folder, folder / "model.sig")
    assert len(verify(folder, keys[1]).files) == 4
    flip(folder / "one.safetensors")
    assert "cause: changed: 'one.safetensors'\n" in refused(folder, keys[1])


def test_progress_counts_every_byte_when_signing_and_verifying(folder, keys, monkeypatch):
    from contextlib import contextmanager

    from hardpoint.weights import signing

    steps = []

    @contextmanager
    def watched(what, *, wanted):
        yield lambda done, total, name: steps.append((done, total))

    monkeypatch.setattr(signing, "bar", watched)
    total = make(folder, keys[0]).nbytes
    assert steps[-1] == (total, total)
    steps.clear()
    verify(folder, keys[1])
    assert max(steps) == (total, total)


def test_without_the_extra_the_error_says_what_to_install(file, keys, monkeypatch):
    usual = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("OpenSSL"):
            raise ModuleNotFoundError("No module named 'OpenSSL'")
        return usual(name, *rest, **more)

    for name in [each for each in sys.modules if each.startswith(("model_signing", "OpenSSL"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WeightsError) as caught:
        make(file, keys[0])
    assert str(caught.value) == (
        "signatures need the library model-signing\n"
        "  cause: ModuleNotFoundError: No module named 'OpenSSL'\n"
        "  remedy: pip install 'hardpoint[signing]'"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["predicateType", "predicate", "serialization", "method", "hash_type",
                         "shard_size", "resources", "name", "digest", "ignore_paths", "x"]),
        inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@given(predicate=json_values)
def test_any_json_is_a_statement_or_one_error(predicate, tmp_path_factory):
    statement = {"predicateType": "https://model_signing/signature/v1.0", "predicate": predicate}
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    raw = json.dumps({"dsseEnvelope": {"payload": payload}}).encode()
    try:
        found = parse(raw, tmp_path_factory.getbasetemp() / "x.sig")
    except WeightsMismatch as error:
        assert "is no whole signature of files" in str(error)
    else:
        assert isinstance(found, Statement)
        assert found.files


def test_what_is_secret_is_not_shown():
    assert "hunter2" not in repr(Key(key=Path("k.pem"), password="hunter2"))
    assert "hunter2" not in repr(Sigstore(token="hunter2"))


def test_an_empty_password_is_none(tmp_path, file):
    private, public = key_pair(tmp_path)
    sign(file, signer=Key(key=private, password=""), registry=REGISTRY)
    verified = verify_signature(file, trust=PublicKey(key=public), registry=REGISTRY)
    assert verified.files == (file.name,)


@pytest.mark.timeout(20)
def test_a_pipe_is_no_signature_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "model.sig")
    with pytest.raises(WeightsError, match="it is no regular file"):
        read_signature(tmp_path / "model.sig")
