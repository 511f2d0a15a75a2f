# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror run from the user's list to the report; the module, registryctl and the timer call this."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import HomelabError
from ..oci.auth import DockerConfig
from ..oci.client import NotFound, Registry
from ..oci.manifest import parse_platform
from ..oci.reference import HUB, HUB_ALIASES
from ..oci.transport import RateLimited
from .copy import COPIED, Copier, ImageResult, Progress
from .endpoints import Access, Endpoints
from .heal import Heal, damaged_elsewhere, parse_heal
from .names import collisions, target_repositories
from .plan import COPY, DEFERRED, FAILED, PRUNED, WOULD_PRUNE, ImagePlan, Planner, Wanted, threads
from .selection import parse_images
from .state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .prune import Prune

WOULD_COPY = "would copy"
#: Keys of a registry's access, for the target and in the list of upstreams.
ACCESS = tuple(Access.__dataclass_fields__)


def default_workers() -> int:
    """Requests and blobs at one time: more than 8 gain nothing (peers.md section 3)."""
    return min(8, 2 * (os.cpu_count() or 1))


@dataclass(frozen=True)
class Options:
    """What holds for all images of a run.

    Attributes:
        platforms: where an image does not say its own; empty means all.
        referrers: where an image does not say it.
        alias: Docker Hub's official images get their short name as well.
        template: see names.target_repositories.
        workers: requests and blobs at one time.
        reserve: pulls to leave on an upstream that counts them.
        prune: Prune, or None.
        heal: what is damaged at the target.
    """

    platforms: tuple = ()
    referrers: bool = False
    alias: bool = True
    template: str | None = None
    workers: int = field(default_factory=default_workers)
    reserve: int = 0
    prune: Prune | None = None
    heal: Heal = Heal()


@dataclass
class Report:
    """What a run did, or would do.

    Attributes:
        images: one dict an image.
        pruned: one dict a tag that vanished upstream.
        source_requests: requests to upstreams by method.
    """

    images: list
    pruned: list
    source_requests: dict
    check: bool

    @property
    def changed(self):
        """Whether the target is, or would be, another one."""
        return any(one["action"] in (COPIED, WOULD_COPY) for one in self.images) or any(
            one["action"] in (PRUNED, WOULD_PRUNE) for one in self.pruned
        )

    @property
    def failed(self):
        """Images that failed."""
        return [one for one in self.images if one["action"] == FAILED]

    @property
    def deferred(self):
        """Images that an upstream's rate limit did not allow, or optional ones that are not there."""
        return [one for one in self.images if one["action"] == DEFERRED]

    def diff(self):
        """Tags with their digests before and after, as Ansible shows a difference."""
        before, after = [], []
        for one in self.images:
            if one["action"] in (COPIED, WOULD_COPY):
                for target, (repository, digest) in zip(one["targets"], one["before"].items()):
                    state = " damaged" if repository in one["damaged"] else ""
                    before.append(f"{target} {digest or 'absent'}{state}")
                    after.append(f"{target} {one['digest']}")
        for one in self.pruned:
            if one["action"] in (PRUNED, WOULD_PRUNE):
                before.append(f"{one['repository']}:{one['tag']} {one['digest']}")
                after.append(f"{one['repository']}:{one['tag']} absent")
        return {"before": "".join(f"{line}\n" for line in before), "after": "".join(f"{line}\n" for line in after)}

    def as_dict(self):
        """For JSON."""
        return {
            "changed": self.changed,
            "check": self.check,
            "images": self.images,
            "pruned": self.pruned,
            "transfer_bytes": sum(one["transfer_bytes"] for one in self.images),
            "transferred_bytes": sum(one.get("transferred_bytes", 0) for one in self.images),
            "mounted_bytes": sum(one.get("mounted_bytes", 0) for one in self.images),
            "source_requests": self.source_requests,
        }


class Request:
    """One validated request to mirror; `prepare` makes it.

    Attributes:
        specs, bad: as selection.parse_images returns them; a bad item is a failed image, not a failed run.
    """

    def __init__(self, specs: list, bad: list, endpoints: Endpoints, state: State, options: Options) -> None:
        self.specs, self.bad = specs, bad
        self.endpoints, self.state, self.options = endpoints, state, options

    def run(self, *, check: bool = False, progress: Progress | None = None) -> Report:
        """Bring the target up to date with the list; with `check` only find out what that means.

        Raises:
            HomelabError: the target cannot be used, or two images want the same name.
        """
        endpoints, state, options = self.endpoints, self.state, self.options
        progress = progress or Progress()
        try:
            wanted, failed = _resolve(self.specs, endpoints, options)
            heal = options.heal
            if heal.images:
                wanted += damaged_elsewhere(heal, wanted, state, endpoints.target, options.platforms)
            failed = [_refused(one.item, one.error) for one in self.bad] + failed
            for one in failed:
                progress.refused(one)
            clash = collisions([(one.reference, one.repositories) for one in wanted])
            if clash:
                raise HomelabError(clash[0], "images", "take one of them off the list, or change name_template")
            planner = Planner(endpoints, state, options.workers, options.reserve, heal.images, heal.digests)
            plan = planner.plan(wanted)
            doomed = []
            if options.prune:
                from .prune import plan_prune, prune

                doomed = plan_prune(options.prune, plan, endpoints, state)
            if check:
                images = [_foreseen(image) for image in plan.images]
            else:
                images = [one.as_dict() for one in Copier(endpoints, state, plan, options.workers, progress).run()]
            pruned = prune(doomed, endpoints, state, check=check) if doomed else []
            return Report([*failed, *images], pruned, _source_requests(endpoints), check)
        finally:
            endpoints.close()


def prepare(settings: dict) -> Request:
    """A request from a user's settings: the options of the module image_mirror, by their names there.

    Raises:
        HomelabError: something in them is wrong; a bad image among good ones is not, it is reported with the run.
    """
    get = settings.get
    target = target_of(settings)
    upstreams = {}
    for number, one in enumerate(get("upstreams") or (), 1):
        where = f"upstreams, item {number}"
        if not isinstance(one, dict) or not one.get("registry"):
            raise HomelabError("an upstream without its registry's name", where, "add e.g. registry: quay.io")
        name = HUB if one["registry"] in HUB_ALIASES else one["registry"]
        upstreams[name] = Access.from_dict({k: v for k, v in one.items() if k != "registry"}, where)
    specs, bad = parse_images(get("images") or [])
    heal = parse_heal(get("heal"))
    if not specs and not bad and get("heal") is None:
        raise HomelabError("there are no images to mirror", "images", "name at least one, as node:20-alpine")
    workers = default_workers() if get("workers") is None else get("workers")
    if workers < 1:
        raise HomelabError(f"workers is {workers}", "workers", "give 1 or more")
    options = Options(
        platforms=tuple(parse_platform(one, "platforms") for one in get("platforms") or ()),
        referrers=bool(get("referrers")),
        alias=get("short_names") is not False,
        template=get("name_template"),
        workers=workers,
        reserve=get("reserve_pulls") or 0,
        prune=_prune_of(settings),
        heal=heal,
    )
    endpoints = Endpoints(target, upstreams, _docker_config(get("docker_config")))
    state = State(state_path_of(settings), host_of(target))
    return Request(specs, bad, endpoints, state, options)


def target_of(settings: dict) -> Access:
    """How the registry is reached, from settings with the keys ACCESS and maybe others.

    Raises:
        HomelabError: its address is missing or none, or something else in them is wrong.
    """
    url = (settings.get("url") or "").rstrip("/")
    if not url:
        raise HomelabError("the registry is not named", "url", "give its address as http://host:port")
    if not re.match(r"https?://[^/]", url):
        raise HomelabError(
            f"{settings['url']!r} is not a registry's address",
            "url",
            "write it as http://host:port or https://host:port",
        )
    access = {"url": url, **{key: settings.get(key) for key in ACCESS if key != "url"}}
    return Access.from_dict(access, "the target")


def host_of(target: Access) -> str:
    """The registry's `host:port`, by which its memory is filed."""
    return target.url.partition("://")[2]


def state_path_of(settings: dict) -> Path:
    """The memory of mirror runs into the registry of the settings (`state_path`, `state_dir`)."""
    return Path(
        settings.get("state_path") or default_state_path(host_of(target_of(settings)), settings.get("state_dir"))
    )


def open_target(settings: dict) -> Registry:
    """A client of the registry of the settings, with an account of Docker's configuration if they have none.

    Raises:
        HomelabError: see target_of.
    """
    return Endpoints(target_of(settings), {}, _docker_config(settings.get("docker_config"))).target


def _prune_of(settings):
    if not settings.get("prune"):
        return None
    from .prune import Prune

    keep = settings.get("prune_keep")
    return Prune(tuple(settings.get("prune_protect") or ()), 1 if keep is None else keep)


def _docker_config(path):
    if path:
        path = Path(path).expanduser()
        if not path.exists():
            raise HomelabError("there is no such file", str(path), "correct docker_config, or run docker login")
        return DockerConfig.load(path)
    path = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser() / "config.json"
    return DockerConfig.load(path) if path.exists() else None


def default_state_path(host: str, directory: str | None = None) -> Path:
    """Where the memory of one target is kept: in a directory, by default the user's own."""
    return Path(directory or user_state_dir()) / f"mirror-{file_name(host)}.json"


def user_state_dir() -> Path:
    """Where a user's own runs remember things (XDG base directories)."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "homelab-registry"


def file_name(host: str) -> str:
    """A registry's `host:port` as a part of a file's name."""
    return re.sub("[^0-9A-Za-z.-]", "_", host)


def _foreseen(image: ImagePlan) -> dict:
    result = ImageResult(image, WOULD_COPY if image.action == COPY else image.action, image.reason)
    return result.as_dict()


def _refused(name, error, optional=False):
    return {
        "image": name,
        "action": DEFERRED if optional or isinstance(error, RateLimited) else FAILED,
        "reason": str(error),
        "targets": [],
        "digest": None,
        "source_digest": None,
        "before": {},
        "damaged": [],
        "transfer_bytes": 0,
        "mount_bytes": 0,
        "notes": [],
        "transferred_bytes": 0,
        "mounted_bytes": 0,
        "seconds": 0.0,
    }


def _resolve(specs, endpoints, options):
    """Every spec as single images; what cannot be resolved as failed results."""
    with threads(options.workers) as pool:
        tags = list(pool.map(lambda spec: _tags(spec, endpoints), specs))
    wanted, failed = {}, []
    for spec, (found, errors) in zip(specs, tags):
        failed += [_refused(name, error, spec.optional) for name, error in errors]
        try:
            repositories = tuple(target_repositories(spec.reference, options.template, options.alias))
        except HomelabError as error:
            failed.append(_refused(spec.reference.familiar, error))
            continue
        for tag in found:
            reference = replace(spec.reference, tag=tag)
            # What is pinned by digest is asked for by it: leaving platforms out would give it another.
            platforms = () if reference.digest else spec.platforms or options.platforms
            one = Wanted(
                reference,
                repositories,
                platforms,
                spec.optional,
                options.referrers if spec.referrers is None else spec.referrers,
            )
            if set(wanted.setdefault(str(reference), one).platforms) != set(one.platforms):
                error = HomelabError("it is listed twice, for other platforms the second time", None, "list it once")
                failed.append(_refused(reference.familiar, error))
    return list(wanted.values()), failed


def _tags(spec, endpoints):
    """(tags, [(name, error)]) of one spec; a tag of None is an image given by digest alone."""
    reference, selector = spec.reference, spec.selector
    if selector is None:
        return [reference.tag], []
    if not selector.needs_listing:
        return selector.select([]).tags, []
    try:
        listed = endpoints.ask(reference, "tags")
        if not listed:
            raise NotFound(f"{reference.registry} has no repository {reference.repository}, or no tags in it")
    except HomelabError as error:
        return [], [(reference.familiar, error)]
    selection = selector.select(listed)
    missing = [
        (f"{reference.familiar}:{tag}", NotFound(f"there is no {reference.familiar}:{tag} upstream"))
        for tag in selection.missing
    ]
    if not selection.tags and not missing:
        error = HomelabError(
            f"none of the {len(listed)} tags of {reference.familiar} is selected", remedy="loosen its pattern or range"
        )
        missing = [(reference.familiar, error)]
    return selection.tags, missing


def _source_requests(endpoints):
    total = {}
    for client in endpoints.upstreams():
        for method, count in client.transport.requests.items():
            total[method] = total.get(method, 0) + count
    return total
