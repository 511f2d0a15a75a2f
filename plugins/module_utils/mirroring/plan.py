# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be copied: one plan for all images of a run, made without writing anything.

A tag is asked for with HEAD on both sides (a HEAD does not count as a pull on Docker Hub, a manifest GET does);
equal digests end the matter. Only what differs is read, and what the target has anywhere is read from there.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import HomelabError
from ..oci.client import Denied, NotFound
from ..oci.manifest import OCI_INDEX, Manifest, Platform, parse_manifest, select_platforms
from ..oci.reference import Reference
from ..oci.referrers import cosign_tags, fallback_tag, merge_fallback
from ..oci.transport import RateLimited, Unreachable

#: In an index that holds fewer platforms than the upstream's: whose selection it is, and what was wanted.
SOURCE_DIGEST = "homelab.registry.mirror.source-digest"
PLATFORMS = "homelab.registry.mirror.platforms"

#: Questions at one time, at most: they cost round trips and nothing else.
ASKING = 20

UNCHANGED, COPY, FAILED, DEFERRED = "unchanged", "copy", "failed", "deferred"
#: Of tags that vanished upstream (prune.py).
PRUNED, WOULD_PRUNE, KEPT = "pruned", "would prune", "kept"


@dataclass(frozen=True)
class Wanted:
    """One image to mirror.

    Attributes:
        reference: what to ask the upstream for: with a tag, a digest or both.
        repositories: where it goes at the target; the first is the one blobs are sent to.
        platforms: only these; empty means all, as for every image that is pinned by digest.
        optional: the first to be left out when the upstream's pulls run short; no failure if it is not there.
        referrers: signatures, attestations and SBOMs come along.
    """

    reference: Reference
    repositories: tuple
    platforms: tuple = ()
    optional: bool = False
    referrers: bool = False

    @property
    def name_there(self):
        """Its name in the target's repositories: the tag, or the digest of an image that was given by digest."""
        return self.reference.tag or self.reference.digest


@dataclass
class ManifestJob:
    """A manifest that one repository of the target has to get.

    Attributes:
        tags: names it is put under; none: under its digest.
        children: manifests of the same repository that must be there before it (digests).
        blobs: blobs that must be there before it (digests).
    """

    repository: str
    manifest: Manifest
    tags: list = field(default_factory=list)
    children: set = field(default_factory=set)
    blobs: set = field(default_factory=set)

    @property
    def key(self):
        """Names the job in its plan."""
        return self.repository, self.manifest.digest


class Source(NamedTuple):
    """Where a blob can be had."""

    registry: str
    repository: str


@dataclass
class BlobJob:
    """A blob that one or more repositories of the target have to get.

    Attributes:
        size: bytes.
        sources: where it comes from; another is asked if one fails, so there is one of each registry.
        repositories: where it is needed, in order.
        present: a repository of the target that has it already (it is mounted from there), or None.
        asked: whether the target was asked for it in the first repository; it is not where that is a new one.
    """

    digest: str
    size: int
    sources: list = field(default_factory=list)
    repositories: list = field(default_factory=list)
    present: str | None = None
    asked: bool = True


@dataclass
class ImagePlan:
    """What happens to one image.

    Attributes:
        action: unchanged, copy, failed or deferred (the upstream's rate limit did not allow it).
        reason: why it failed or is deferred.
        digest: the upstream's digest of it.
        after: the digest it will have at the target; another one if platforms were selected.
        before: digest at the target by repository; None where it is not there.
        damaged: repositories in which it is damaged: it is fetched again whatever its digest there is.
        jobs: keys of the manifests that make it complete, its own last.
        transfer, mount: bytes that travel and that are mounted; what several images share counts for the first.
        notes: what the user should know though nothing failed.
    """

    wanted: Wanted
    action: str = COPY
    reason: str | None = None
    digest: str | None = None
    after: str | None = None
    before: dict = field(default_factory=dict)
    damaged: tuple = ()
    jobs: list = field(default_factory=list)
    transfer: int = 0
    mount: int = 0
    notes: list = field(default_factory=list)

    @property
    def name(self):
        """The image as Docker shows it."""
        return self.wanted.reference.familiar

    @property
    def tag(self):
        """See Wanted.name_there."""
        return self.wanted.name_there

    def as_dict(self):
        """For JSON."""
        return {
            "image": self.name,
            "action": self.action,
            "reason": self.reason,
            "targets": [f"{name}{'@' if ':' in self.tag else ':'}{self.tag}" for name in self.wanted.repositories],
            "digest": self.after,
            "source_digest": self.digest,
            "before": {name: self.before.get(name) for name in self.wanted.repositories},
            "damaged": list(self.damaged),
            "transfer_bytes": self.transfer,
            "mount_bytes": self.mount,
            "notes": list(self.notes),
        }


@dataclass
class Plan:
    """Everything one run does, in a form that prints, serialises and is applied as it is."""

    images: list = field(default_factory=list)
    manifests: dict = field(default_factory=dict)
    blobs: dict = field(default_factory=dict)

    @property
    def transfer(self):
        """Bytes that will travel from upstreams."""
        return sum(blob.size for blob in self.blobs.values() if not blob.present)

    @property
    def mount(self):
        """Bytes that need not travel: the target has them, or gets them, in another repository."""
        return sum(image.mount for image in self.images)


class Planner:
    """Makes the plan.

    Args:
        endpoints: Endpoints.
        state: State, for blobs that earlier runs left.
        workers: what the run may do at one time; five questions count as one job. 1 asks one after the other.
        reserve: pulls that are left to others on an upstream that counts them (Docker Hub).
        damaged: images at the target, as (repository, tag or digest), that are to be fetched again.
        broken: digests for which the target is not asked: it may say that it has them.
    """

    def __init__(self, endpoints, state, workers, reserve=0, damaged=frozenset(), broken=frozenset()):
        self._endpoints = endpoints
        self._target = endpoints.target
        self._state = state
        self._asking = min(ASKING, 5 * workers) if workers > 1 else 1
        self._reserve = reserve
        self._damaged, self._broken = damaged, broken
        self._lock = threading.Lock()
        self._left = {}
        self._lost = None
        self._memo = _Memo()

    def plan(self, wanted: list[Wanted]) -> Plan:
        """Compare every image with the target.

        One image's failure is in its plan and does not concern the others.

        Raises:
            HomelabError: the target cannot be asked at all.
        """
        with threads(self._asking) as images, threads(self._asking) as self._leaves:
            found = []
            # What is optional comes last: it gets what the rate limit leaves.
            for optional in (False, True):
                found += images.map(self._image, [one for one in wanted if one.optional is optional])
            plan = Plan()
            for image, puts in found:
                plan.images.append(image)
                if image.action == COPY:
                    _assemble(plan, image, puts)
            order = {id(one): number for number, one in enumerate(wanted)}
            plan.images.sort(key=lambda image: order[id(image.wanted)])
            list(images.map(self._find, plan.blobs.values()))
        _account(plan)
        return plan

    # --- one image ------------------------------------------------------------------------------------------
    def _image(self, wanted):
        image, puts = ImagePlan(wanted), []
        try:
            puts = self._compare(image)
            image.action = COPY if puts else UNCHANGED
        except RateLimited as error:
            image.action, image.reason = DEFERRED, str(error)
        except TargetError:
            raise
        except NotFound as error:
            image.action = DEFERRED if wanted.optional else FAILED
            image.reason = f"{error.message}: {error.remedy}" if error.remedy else error.message
        except HomelabError as error:
            image.action, image.reason = FAILED, str(error)
        return image, puts

    def _compare(self, image):
        """The manifests the target lacks for this image, as (repository, manifest, tags), children first."""
        wanted = image.wanted
        reference = wanted.reference
        image.damaged = tuple(name for name in wanted.repositories if (name, image.tag) in self._damaged)
        for repository in wanted.repositories:
            image.before[repository] = self._target_digest(image, repository)
        image.digest = reference.digest or self._source_digest(reference)
        if image.damaged:
            root = self._selected(image)
            image.after = root.digest
        elif wanted.platforms and self._selection_is_there(image):
            root = None
            image.after = next(iter(image.before.values()))
        elif set(image.before.values()) == {image.digest} and not wanted.platforms:
            root = None
            image.after = image.digest
        else:
            root = self._selected(image)
            image.after = root.digest
        puts = []
        for repository in wanted.repositories:
            if image.before[repository] != image.after or repository in image.damaged:
                again = repository in image.damaged
                puts += self._missing(wanted, repository, root, [reference.tag] if reference.tag else [], again)
        if wanted.referrers:
            puts += self._referrers(image, root)
        return puts

    def _target_digest(self, image, repository):
        try:
            found = self._ask_target(self._target.stat_manifest, repository, image.tag)
        except TargetError:
            raise
        except HomelabError:
            if repository not in image.damaged:  # else that is a part of the damage
                raise
            return None
        return found.digest if found else None

    def _source_digest(self, reference):
        found = self._endpoints.ask(reference, "stat_manifest", reference.tag)
        if found is None:
            raise NotFound(
                f"there is no {reference.familiar} upstream",
                remedy="check the name and the tag; it may have been removed upstream",
            )
        return found.digest

    def _selection_is_there(self, image):
        """Whether every target holds the wanted platforms of the upstream's present digest."""
        if len(set(image.before.values())) != 1 or None in image.before.values():
            return False
        digest = next(iter(image.before.values()))
        held = self._ask_target(self._target.read_manifest, image.wanted.repositories[0], digest)
        if not held.is_index:
            return digest == image.digest
        if digest == image.digest:
            return select_platforms(held, list(image.wanted.platforms), {})[0] is held
        return held.annotations.get(SOURCE_DIGEST) == image.digest and held.annotations.get(PLATFORMS) == _spell(
            image.wanted.platforms
        )

    def _selected(self, image):
        """The upstream's manifest, or the index of the wanted platforms made of it."""
        wanted = image.wanted
        root = self._read(wanted, image.digest)
        if not wanted.platforms:
            return root
        if not root.is_index:
            self._check_platform(image, root)
            return root
        selected, missing = select_platforms(
            root, list(wanted.platforms), {SOURCE_DIGEST: image.digest, PLATFORMS: _spell(wanted.platforms)}
        )
        if missing:
            image.notes.append(f"upstream has no {_spell(missing)} of it")
        return selected

    def _check_platform(self, image, manifest):
        """A single manifest says its platform in its config only."""
        if manifest.config is None or not manifest.config.media_type.endswith(
            ("image.config.v1+json", "image.v1+json")
        ):
            return
        document = self._endpoints.ask(image.wanted.reference, "get_blob", manifest.config.digest)
        platform = _platform_of(document)
        if platform and not any(platform.matches(one) for want in image.wanted.platforms for one in want.runnable()):
            raise HomelabError(
                f"{image.name} is not an index; its one platform is {platform}, not {_spell(image.wanted.platforms)}",
                remedy="take it off the list, or leave platforms out for it",
            )

    # --- manifests ------------------------------------------------------------------------------------------
    def _missing(self, wanted, repository, manifest, tags, again=False):
        """What `repository` lacks of a manifest and its children, the manifest itself last; or all of it `again`."""
        puts = []
        children = [one.digest for one in manifest.children]
        there = list(self._leaves.map(lambda digest: self._has(repository, digest), children))
        absent = [digest for digest, present in zip(children, there) if again or not present]
        # Only leaves of the work go to that pool, so it cannot wait for itself.
        for child in self._leaves.map(lambda digest: self._read(wanted, digest), absent):
            puts += self._missing(wanted, repository, child, [], again)
        return [*puts, (repository, manifest, tags)]

    def _has(self, repository, digest):
        def ask():
            try:
                return self._ask_target(self._target.stat_manifest, repository, digest) is not None
            except TargetError:
                raise
            except HomelabError:
                # A pull-through cache says 500 of what its upstream has not. That it takes no writes shows later.
                return False

        return digest not in self._broken and self._memo.get(("has", repository, digest), ask)

    def _read(self, wanted, digest):
        """A manifest by digest, from the target if it has it for this image: that costs the upstream nothing."""

        def read():
            for repository in wanted.repositories:
                if self._has(repository, digest):
                    return self._ask_target(self._target.read_manifest, repository, digest)
            self._spend(wanted.reference.registry)
            return self._endpoints.ask(wanted.reference, "read_manifest", digest)

        return self._memo.get(("manifest", digest), read)

    def _spend(self, registry):
        """One pull of the upstream's budget: what it told last, less what was begun since."""
        rate = self._endpoints.upstream(registry).transport.rate
        if not rate or rate.remaining is None:
            return
        with self._lock:
            left = min(self._left.get(registry, rate.remaining), rate.remaining)
            if left <= self._reserve:
                raise RateLimited(
                    f"{registry} allows {left} more of {rate.limit} pulls"
                    + (f" in {rate.window_seconds / 3600:g} h" if rate.window_seconds else ""),
                    remedy=f"{self._reserve} are kept in reserve; a later run goes on, an account has more",
                )
            self._left[registry] = left - 1

    # --- signatures, attestations, SBOMs --------------------------------------------------------------------
    def _referrers(self, image, root):
        """Manifests about the image and its children that the target lacks."""
        reference = image.wanted.reference
        if root is None:
            root = self._ask_target(self._target.read_manifest, image.wanted.repositories[0], image.after)
        subjects = [one.digest for one in root.children]
        if image.after == image.digest:  # what refers to the whole index is not about a selection of it
            subjects.insert(0, image.digest)
        tags = self._memo.get(("tags", reference.name), lambda: set(self._endpoints.ask(reference, "tags") or ()))
        puts = []
        for _level in range(2):  # the second is what refers to that: the signature of an SBOM
            about = []
            for subject in dict.fromkeys(subjects):
                for tag in cosign_tags(subject):
                    source = self._source_tag(image.wanted, tag) if tag in tags else None
                    if source:  # not deleted since the tags were listed
                        about.append(source.digest)
                        puts += self._tagged(image.wanted, tag, source.digest)
                found = self._referrers_of(image.wanted, subject, tags)
                about += [one.digest for one in found]
                for repository in image.wanted.repositories if found else ():
                    puts += self._referring(image.wanted, repository, subject, found)
            subjects = about
        return puts

    def _source_tag(self, wanted, tag):
        return self._memo.get(
            ("tag", wanted.reference.name, tag), lambda: self._endpoints.ask(wanted.reference, "stat_manifest", tag)
        )

    def _tagged(self, wanted, tag, digest):
        puts = []
        for repository in wanted.repositories:
            there = self._ask_target(self._target.stat_manifest, repository, tag)
            if there is None or there.digest != digest:
                puts += self._missing(wanted, repository, self._read(wanted, digest), [tag])
        return puts

    def _referrers_of(self, wanted, subject, tags):
        """Descriptors of what refers to a manifest: the API, or the fallback tag (distribution-spec 1.1)."""
        found = None
        unsupported = ("no referrers API", wanted.reference.registry)
        if unsupported not in self._memo:
            found = self._endpoints.ask(wanted.reference, "referrers", subject)
            if found is None:
                self._memo.get(unsupported, lambda: True)
        if found is None and fallback_tag(subject) in tags:
            listed = self._endpoints.ask(wanted.reference, "stat_manifest", fallback_tag(subject))
            found = self._read(wanted, listed.digest).children if listed else ()
        return list(found or ())

    def _referring(self, wanted, repository, subject, descriptors):
        puts = []
        for descriptor in descriptors:
            if not self._has(repository, descriptor.digest):
                puts += self._missing(wanted, repository, self._read(wanted, descriptor.digest), [])
        if self._ask_target(self._target.referrers, repository, subject) is not None:
            return puts  # the target keeps the list by itself
        tag = fallback_tag(subject)
        there = self._ask_target(self._target.stat_manifest, repository, tag)
        before = self._ask_target(self._target.read_manifest, repository, there.digest) if there else None
        document = merge_fallback(before, descriptors)
        if document is not None:
            puts.append((repository, parse_manifest(document, OCI_INDEX), [tag]))
        return puts

    # --- blobs ----------------------------------------------------------------------------------------------
    def _find(self, blob):
        """Where the target has the blob already."""
        if blob.digest in self._broken:
            return
        first, places = blob.repositories[0], self._state.places(blob.digest)
        blob.asked = first in places or not self._is_new(first)
        for repository in dict.fromkeys((*([first] if blob.asked else []), *places)):
            try:
                size = self._target.stat_blob(repository, blob.digest)
            except Unreachable:
                raise
            except HomelabError:  # no rights in a remembered place, say: it is sent then
                size = None
            if size is not None:
                blob.present = repository
                self._state.remember(blob.digest, repository)
                return
            self._state.forget(blob.digest, repository)

    def _is_new(self, repository):
        """Whether one question can stand for one a blob: nothing is where no tag ever was.

        After a run that was killed in the middle, blobs may be. They are not sent again, they only count in the plan.
        """

        def ask():
            try:
                return not self._target.knows(repository)
            except Unreachable:
                raise
            except HomelabError:  # one that does not list tags, say
                return False

        return self._memo.get(("new", repository), ask)

    # --- asking ---------------------------------------------------------------------------------------------
    def _ask_target(self, call, *args):
        if self._lost:
            raise self._lost
        try:
            return call(*args)
        except (Unreachable, Denied) as error:
            self._lost = TargetError(error.message, error.where, error.remedy)
            raise self._lost from error


@contextmanager
def threads(workers):
    """A pool of threads that, after an error or Ctrl-C, does not begin what it has not begun."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


class TargetError(HomelabError):
    """The registry that is to be filled cannot be used: no image can be mirrored."""


class _Memo:
    """Asks each question once, also when several threads have it at the same moment."""

    def __init__(self):
        self._lock = threading.Lock()
        self._answers = {}
        self._locks = defaultdict(threading.Lock)

    def get(self, key, ask):
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._answers:
                self._answers[key] = ask()
            return self._answers[key]

    def __contains__(self, key):
        return key in self._answers


def _assemble(plan, image, puts):
    """Add one image's manifests, and the blobs they need, to the plan's jobs."""
    reference = image.wanted.reference
    for repository, manifest, tags in puts:
        job = plan.manifests.setdefault((repository, manifest.digest), ManifestJob(repository, manifest))
        job.tags += [tag for tag in tags if tag not in job.tags]
        job.children = {one.digest for one in manifest.children if (repository, one.digest) in plan.manifests}
        job.blobs = {one.digest for one in manifest.blobs}
        for one in manifest.blobs:
            blob = plan.blobs.setdefault(one.digest, BlobJob(one.digest, one.size))
            if reference.registry not in (source.registry for source in blob.sources):
                blob.sources.append(Source(reference.registry, reference.repository))
            if repository not in blob.repositories:
                blob.repositories.append(repository)
        if job.key not in image.jobs:
            image.jobs.append(job.key)


def _account(plan):
    """Bytes by image: what several images need counts for the first of them."""
    travelled, placed = set(), set()
    for image in plan.images:
        for key in image.jobs:
            for digest in plan.manifests[key].blobs:
                blob, place = plan.blobs[digest], (digest, key[0])
                if place in placed or blob.present == key[0]:
                    continue
                placed.add(place)
                if blob.present or digest in travelled:
                    image.mount += blob.size
                else:
                    travelled.add(digest)
                    image.transfer += blob.size


def _platform_of(config):
    """The platform in an image's config; None if it is another kind of document."""
    try:
        data = json.loads(config)
        return Platform(data["os"], data["architecture"], data.get("variant") or "", data.get("os.version") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _spell(platforms):
    return ",".join(sorted({str(one) for one in platforms}))
