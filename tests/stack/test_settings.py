"""Settings: where values come from, and the sentence for those that can't be used."""

from pathlib import Path

import pytest

from terrace.stack import services
from terrace.stack.errors import SettingsError
from terrace.stack.settings import StackSettings


def load(checkout: Path, **environ: str) -> StackSettings:
    return StackSettings.load(checkout, {f"TERRACE_{name.upper()}": value for name, value in environ.items()})


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.var == tmp_path / "var"
    assert settings.ports.public == 7700
    assert settings.gateway == "10.77.0.1"
    assert settings.hypervisors == ("hv1", "hv2")
    assert settings.externals == ("ext1", "ext2")


def test_no_two_ports_are_the_same(tmp_path: Path) -> None:
    ports = load(tmp_path).ports
    many = [ports.public, ports.internal, ports.postgres, ports.redis, ports.public_metrics, ports.internal_metrics]
    for index in range(10):
        many += [ports.internal_node(index), ports.agent(index), ports.external_node(index)]
    assert len(set(many)) == len(many)


def test_the_environment_overrides_what_was_kept(tmp_path: Path) -> None:
    first = load(tmp_path, port_base="7800", dns="10.0.0.1, 10.0.0.2", node_cpu="3")
    first.var.mkdir()
    first.save()
    assert load(tmp_path) == first
    assert load(tmp_path, port_base="7900").port_base == 7900
    assert load(tmp_path, port_base="7900").dns == ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize("name", ["bridge", "subnet", "profile"])
def test_what_the_data_depends_on_can_not_change_under_it(tmp_path: Path, name: str) -> None:
    other = {"bridge": "terrace1", "subnet": "10.78.0.0/16", "profile": "test"}[name]
    settings = load(tmp_path)
    settings.layout.cluster.mkdir(parents=True)
    settings.save()
    with pytest.raises(SettingsError, match=f"TERRACE_{name.upper()} is .*scripts/down --purge"):
        load(tmp_path, **{name: other})


@pytest.mark.parametrize("profile", ["qemu", "test"])
def test_disks_on_ceph_need_no_real_guests(tmp_path: Path, profile: str) -> None:
    settings = load(tmp_path, storage="rbd", profile=profile)
    settings.layout.secrets.mkdir(parents=True)
    (settings.layout.secrets / "redis.password").touch()
    (node,) = (member for member in services.members(settings) if member.name == "internal1")
    assert node.env["TERRACE_STORAGE"] == "rbd"
    assert node.env["TERRACE_CEPH_CONF"] == str(settings.layout.ceph / "ceph.conf")
    assert node.env["TERRACE_LIBVIRT_URI"].startswith(profile)


def test_fake_hypervisors_have_fake_disks_only(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^TERRACE_STORAGE is only for TERRACE_PROFILE=qemu or test: "):
        load(tmp_path, storage="rbd", profile="fake")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port_base", "80"),
        ("port_base", "77OO"),
        ("port_base", ""),
        ("port_base", "-7700"),
        ("public_bind", "localhost"),
        ("bridge", "a-name-that-is-too-long"),
        ("bridge", 'x"; drop'),
        ("subnet", "10.77.0.1/16"),
        ("subnet", "10.77.0.0/31"),
        ("subnet", "fd00::/64"),
        ("dns", "dns.example"),
        ("netns", "../x"),
        ("profile", "kvm"),
        ("nodes", "0"),
        ("nodes", "11"),
        ("domain_type", "xen"),
        ("node_ram_mib", "4G"),
        ("cpu_overcommit", "0"),
        ("cpu_overcommit", "nan"),
        ("var", "relative/path"),
        ("var", "/"),
        ("var", "/run/terrace"),
    ],
)
def test_a_wrong_value_is_one_clear_sentence(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **{name: text})
    sentence = str(caught.value)
    assert sentence.startswith(f"TERRACE_{name.upper()} must be ")
    assert sentence.endswith(f"not {text!r}.")
    assert "\n" not in sentence
