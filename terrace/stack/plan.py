"""Which members a stack consists of, and the files they are started with."""

from terrace.stack import hypervisor, postgres, proxies, redis, services
from terrace.stack.member import Member
from terrace.stack.settings import StackSettings


def prepare(settings: StackSettings) -> None:
    """Writes configurations, secrets and the empty database; repeating it changes nothing."""
    postgres.prepare(settings)
    redis.prepare(settings)
    if settings.profile == "qemu":
        hypervisor.prepare(settings)
    services.prepare(settings)
    proxies.prepare(settings)


def members(settings: StackSettings) -> list[Member]:
    """In the order people read them."""
    return [
        postgres.member(settings),
        redis.member(settings),
        *(hypervisor.members(settings) if settings.profile == "qemu" else ()),
        *services.members(settings),
        *proxies.members(settings),
    ]
