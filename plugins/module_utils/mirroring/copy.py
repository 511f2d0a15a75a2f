# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Apply a plan: blobs first, children next, tags last, so that a tag never points at half an image.

One heap of jobs for all images: manifests as soon as their last blob is in, then mounts, then blobs, large ones
first (one large blob at the end would leave the other workers idle). Every blob is read once from its upstream.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from ..errors import HomelabError
from ..oci.client import Denied, ReadOnly
from ..oci.transport import RateLimited, Unreachable
from .plan import COPY, DEFERRED, FAILED, ImagePlan

COPIED = "copied"
#: Bytes read and written at a time. Larger ones cost memory per worker and gain nothing (peers.md section 3).
CHUNK = 1 << 20
#: How often a blob is begun again, and how often in a row its upstream may stop sending without a new byte.
ATTEMPTS = 3


@dataclass
class ImageResult:
    """What became of one image.

    Attributes:
        action: unchanged, copied, failed or deferred.
        transferred, mounted: bytes.
        seconds: from its first job's start to its last job's end.
    """

    plan: ImagePlan
    action: str
    reason: str | None = None
    transferred: int = 0
    mounted: int = 0
    seconds: float = 0.0

    def as_dict(self):
        """For JSON."""
        return {
            **self.plan.as_dict(),
            "action": self.action,
            "reason": self.reason,
            "transferred_bytes": self.transferred,
            "mounted_bytes": self.mounted,
            "seconds": round(self.seconds, 3),
        }


class Progress:
    """What a run tells while it goes on; called from several threads."""

    def refused(self, result: dict) -> None:
        """An image, as in the report, that there is no plan for: its name is none, or its tags cannot be listed."""

    def planned(self, plan) -> None:
        """The plan is made, copying begins."""

    def moved(self, count: int) -> None:
        """Some bytes (count) of a blob arrived; negative when they have to be sent again."""

    def finished(self, result: ImageResult) -> None:
        """An image is complete, or has failed."""


@dataclass
class _Track:
    """One image while it is copied."""

    result: ImageResult
    left: set
    started: float | None = None
    owns: set = field(default_factory=set)


class _AtTarget(HomelabError):
    """The failure of an upload came from the target, not from the upstream."""


class _Stopped(HomelabError):
    """Ctrl-C."""


class Copier:
    """Copies what a plan says.

    Args:
        endpoints: Endpoints.
        state: State; learns what the target has now.
        plan: Plan; its failed and deferred images are reported as they are.
        workers: jobs at one time; each needs 1 MiB.
        progress: Progress.
        sleep: called with seconds between attempts.
    """

    def __init__(self, endpoints, state, plan, workers, progress=None, sleep=time.sleep):
        self._endpoints = endpoints
        self._target = endpoints.target
        self._state = state
        self._plan = plan
        self._workers = workers
        self._progress = progress or Progress()
        self._sleep = sleep
        self._changed = threading.Condition()
        self._heap = []
        self._ticket = itertools.count()
        self._open = self._alive = 0
        self._waiting = {}
        self._dependents = defaultdict(list)
        self._failed = {}
        self._tracks = defaultdict(list)
        self._owner = {}
        self._abort = None
        self._crash = None
        self._down = {}

    def run(self) -> list[ImageResult]:
        """Copy; one image's failure does not stop the others. The results are in the plan's order."""
        self._progress.planned(self._plan)
        results = [self._follow(image) for image in self._plan.images]
        self._prepare()
        self._alive = self._workers
        for _number in range(self._workers):
            threading.Thread(target=self._work, daemon=True).start()
        try:
            self._join()
        except KeyboardInterrupt:
            with self._changed:
                self._abort = _Stopped("interrupted", remedy="run it again: what is complete stays")
            self._join(10)
            raise
        finally:
            self._state.save()
        if self._crash:
            raise self._crash
        return results

    def _join(self, seconds=None):
        """Wait for the workers. Not by Thread.join: after Ctrl-C in it, it takes the thread for ended (Python 3.11)."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alive, seconds)

    # --- who waits for what ---------------------------------------------------------------------------------
    def _follow(self, image):
        result = ImageResult(image, image.action, image.reason)
        if image.action == COPY:
            track = _Track(result, set(image.jobs))
            for key in image.jobs:
                self._tracks[key].append(track)
                for digest in self._plan.manifests[key].blobs:
                    self._owner.setdefault((digest, key[0]), track)
        else:
            self._progress.finished(result)
        return result

    def _prepare(self):
        for key, job in self._plan.manifests.items():
            needs = {("blob", digest, job.repository) for digest in job.blobs}
            needs |= {("manifest", job.repository, digest) for digest in job.children}
            self._waiting[key] = needs
            for need in needs:
                self._dependents[need].append(key)
            if not needs:
                self._push(0, 0, self._put, job)
        for blob in self._plan.blobs.values():
            if blob.present:
                self._spread(blob, blob.present, blob.repositories)
            else:
                self._push(2, -blob.size, self._fetch, blob)

    def _push(self, kind, size, call, *args):
        heapq.heappush(self._heap, (kind, size, next(self._ticket), call, args))
        self._open += 1

    def _spread(self, blob, origin, repositories):
        for repository in repositories:
            if repository == origin:
                self._done(("blob", blob.digest, repository))
            else:
                self._push(1, 0, self._mount, blob, repository, origin)

    def _done(self, need):
        for key in self._dependents.pop(need, ()):
            self._waiting[key].discard(need)
            if not self._waiting[key] and key not in self._failed:
                self._push(0, 0, self._put, self._plan.manifests[key])

    def _fail(self, need, error):
        for key in self._dependents.pop(need, ()):
            self._fail_manifest(key, error)

    def _fail_manifest(self, key, error):
        if key in self._failed:
            return
        self._failed[key] = error
        for track in self._tracks[key]:
            if track.result.action == COPY:
                track.result.action = DEFERRED if isinstance(error, RateLimited) else FAILED
                track.result.reason = str(error)
                self._finish(track)
        self._fail(("manifest", *key), error)

    def _finish(self, track):
        if track.started is not None:
            track.result.seconds = time.monotonic() - track.started
        self._progress.finished(track.result)

    # --- workers --------------------------------------------------------------------------------------------
    def _work(self):
        try:
            self._work_off()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()

    def _work_off(self):
        buffer = memoryview(bytearray(CHUNK))
        while True:
            with self._changed:
                while not self._heap and self._open:
                    self._changed.wait()
                if not self._heap:
                    return
                _kind, _size, _ticket, call, args = heapq.heappop(self._heap)
            try:
                call(buffer, *args)
            except Exception as error:  # a mistake of ours: it must not look like an image that is still being copied
                self._crash = self._abort = error
            finally:
                with self._changed:
                    self._open -= 1
                    self._changed.notify_all()

    def _start(self, repository, digest):
        track = self._owner.get((digest, repository))
        if track and track.started is None:
            track.started = time.monotonic()
        return track

    def _fetch(self, buffer, blob):
        """Bring a blob from its upstream into one repository, then mount it where else it is needed."""
        repository = blob.repositories[0]
        track = self._start(repository, blob.digest)
        try:
            self._transfer(blob, repository, buffer)
        except HomelabError as error:
            with self._changed:
                for each in blob.repositories:
                    self._fail(("blob", blob.digest, each), error)
            return
        self._state.remember(blob.digest, repository)
        with self._changed:
            track.result.transferred += blob.size
            self._done(("blob", blob.digest, repository))
            self._spread(blob, repository, [each for each in blob.repositories if each != repository])

    def _mount(self, buffer, blob, repository, origin):
        track = self._start(repository, blob.digest)
        try:
            self._check()
            location = self._at_target(self._target.mount_blob, repository, blob.digest, origin)
            if location:  # the target does not have it there after all, or cannot mount
                self._state.forget(blob.digest, origin)
                self._transfer(blob, repository, buffer, location)
        except HomelabError as error:
            with self._changed:
                self._fail(("blob", blob.digest, repository), error)
            return
        self._state.remember(blob.digest, repository)
        with self._changed:
            if location:
                track.result.transferred += blob.size
            else:
                track.result.mounted += blob.size
            self._done(("blob", blob.digest, repository))

    def _put(self, _buffer, job):
        try:
            self._check()
            for reference in job.tags or [job.manifest.digest]:
                self._at_target(
                    self._target.put_manifest, job.repository, reference, job.manifest.data, job.manifest.media_type
                )
            for tag in job.tags:
                # The answer to the PUT is the server's word; the tag is what a node will ask for.
                there = self._at_target(self._target.stat_manifest, job.repository, tag)
                if there is None or there.digest != job.manifest.digest:
                    raise HomelabError(
                        f"{self._target.url} took {job.repository}:{tag} and now says "
                        f"{there.digest if there else 'that it is not there'} instead of {job.manifest.digest}",
                        remedy="is somebody else writing this tag, or a stale cache in front of the registry?",
                    )
        except HomelabError as error:
            with self._changed:
                self._fail_manifest(job.key, error)
            return
        with self._changed:
            for track in self._tracks[job.key]:
                if track.started is None:
                    track.started = time.monotonic()
                track.left.discard(job.key)
                if not track.left and track.result.action == COPY:
                    self._complete(track)
            self._done(("manifest", *job.key))

    def _complete(self, track):
        track.result.action = COPIED
        wanted = track.result.plan.wanted
        if wanted.reference.tag:
            for repository in wanted.repositories:
                self._state.mirrored(repository, wanted.reference.tag, str(wanted.reference), track.result.plan.after)
        self._finish(track)

    # --- one blob -------------------------------------------------------------------------------------------
    def _check(self, upstream=None):
        """Nothing is begun after a failure that concerns everything."""
        error = self._abort or self._down.get(upstream)
        if error:
            raise error

    def _at_target(self, call, *args):
        try:
            return call(*args)
        except (Unreachable, ReadOnly) as error:
            self._abort = self._abort or error  # no other image will fare better
            raise

    def _transfer(self, blob, repository, buffer, location=None):
        for attempt in range(1, ATTEMPTS + 1):
            self._check(blob.upstream)
            try:
                location = location or self._at_target(self._target.start_upload, repository)
                self._pour(blob, location, buffer)
                return
            except _AtTarget:
                # A dropped upload cannot be continued safely: 2.8 appends at a wrong offset without a word.
                if attempt == ATTEMPTS or self._abort:
                    raise
                location = None
                self._sleep(min(2**attempt, 10))
            except HomelabError:
                if location:
                    with suppress(HomelabError):
                        self._target.cancel_upload(location)
                raise

    def _pour(self, blob, location, buffer):
        """One upload, fed by as many downloads as the upstream needs."""
        stream = _Stream(blob)
        stalls = 0
        try:
            with ExitStack() as stack:
                with _blaming_target():
                    upload = stack.enter_context(self._target.send_blob(location, blob.digest, blob.size))
                while stream.offset < blob.size:
                    begun = stream.offset
                    try:
                        self._drain(stream, upload, buffer)
                    except Unreachable as error:
                        stalls = stalls + 1 if stream.offset == begun else 0
                        if stalls == ATTEMPTS:
                            self._suspect(blob, error)
                            raise
                with _blaming_target():
                    self._target.check(upload.finish(), (201,), _writing(blob))
        except BaseException:
            self._progress.moved(-stream.told)
            raise

    def _suspect(self, blob, error):
        """Find out whether only this blob cannot be had (it is cut off there), or nothing of its upstream."""
        try:
            self._endpoints.upstream(blob.upstream).stat_blob(blob.source, blob.digest)
        except Unreachable:
            self._down[blob.upstream] = error
        except HomelabError:
            pass

    def _drain(self, stream, upload, buffer):
        """Read from the upstream, from where the stream is, until it ends or breaks off."""
        blob = stream.blob
        source = self._endpoints.upstream(blob.upstream)
        with source.open_blob(blob.source, blob.digest, stream.offset) as response:
            if response.length is not None and stream.offset + response.length != blob.size:
                raise _wrong(blob, f"{stream.offset + response.length} bytes instead of {blob.size}")
            while stream.offset < blob.size:
                self._check()
                count = response.readinto(buffer[: blob.size - stream.offset])
                if not count:
                    raise Unreachable(
                        f"{source.url} stopped in the middle of blob {blob.digest[:19]}", remedy="run it again later"
                    )
                chunk = buffer[:count]
                # The last bytes are held back until the whole is known to be right: nothing wrong is stored,
                # whether the target checks it or not.
                stream.add(chunk)
                with _blaming_target():
                    early = upload.write(chunk)
                    if early:  # a full disk, say: the server does not wait for the rest
                        self._target.check(early, (), _writing(blob))
                self._progress.moved(count)
                stream.told += count


class _Stream:
    """How far a blob has come: `offset` bytes from the upstream, of which the progress was `told`."""

    def __init__(self, blob):
        self.blob = blob
        self.offset = self.told = 0
        self._hasher = hashlib.new(blob.digest.partition(":")[0])

    def add(self, chunk):
        """Count some bytes; HomelabError if they complete something else than the blob."""
        self._hasher.update(chunk)
        self.offset += len(chunk)
        if self.offset == self.blob.size and self._hasher.hexdigest() != self.blob.digest.partition(":")[2]:
            raise _wrong(self.blob, f"content with the hash {self._hasher.hexdigest()[:12]}")


def _writing(blob):
    return f"writing blob {blob.digest[:19]} of {blob.size} bytes"


def _wrong(blob, what):
    return HomelabError(
        f"{blob.upstream} sends {what} as blob {blob.digest[:19]} of {blob.source}",
        remedy="its copy is damaged or a proxy changes it: try again later, or tell the upstream",
    )


@contextmanager
def _blaming_target():
    try:
        yield
    except (Unreachable, Denied) as error:  # denied: the token of a moment ago has expired
        raise _AtTarget(error.message, error.where, error.remedy) from error
