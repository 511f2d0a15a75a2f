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
from .plan import COPY, DEFERRED, FAILED, UNCHANGED, ImagePlan

COPIED = "copied"
#: Bytes read and written at a time. Larger ones cost memory per worker and gain nothing (peers.md section 3).
CHUNK = 1 << 20
#: Bytes of a run from which on the target is asked to show that it hashes what it gets. Less is hashed in no time.
WORTH_ASKING = 128 << 20
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
        self._hashing = True

    def run(self) -> list[ImageResult]:
        """Copy; one image's failure does not stop the others. The results are in the plan's order."""
        self._progress.planned(self._plan)
        results = [self._follow(image) for image in self._plan.images]
        self._prepare()
        self._hashing = not self._target_hashes()
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

    def _target_hashes(self):
        """Whether the target refuses a blob with a wrong digest. Hashing it here too is half of our CPU time."""
        if self._plan.transfer < WORTH_ASKING:
            return False
        blob = next(blob for blob in self._plan.blobs.values() if not blob.present)
        try:
            return self._target.refuses_wrong_digests(blob.repositories[0])
        except HomelabError:  # the first blob will meet it again and be told
            return False

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
            if image.action == UNCHANGED:
                self._pin(image)
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
        first, *others = blob.repositories
        error = self._bring(buffer, blob, first, None if blob.asked else first)
        with self._changed:
            if error:
                for repository in others:
                    self._fail(("blob", blob.digest, repository), error)
            else:
                self._spread(blob, first, others)

    def _mount(self, buffer, blob, repository, origin):
        self._bring(buffer, blob, repository, origin)

    def _bring(self, buffer, blob, repository, origin):
        """Get a blob into a repository, without sending it if `origin` has it; the error that prevented it, or None."""
        track = self._start(repository, blob.digest)
        location = None
        try:
            self._check()
            if origin:
                location = self._at_target(self._target.mount_blob, repository, blob.digest, origin)
                if location:  # it does not have it there after all, or cannot mount
                    self._state.forget(blob.digest, origin)
            if location or not origin:
                self._transfer(blob, repository, buffer, location)
        except HomelabError as error:
            with self._changed:
                self._fail(("blob", blob.digest, repository), error)
            return error
        self._state.remember(blob.digest, repository)
        with self._changed:
            if origin and not location:
                track.result.mounted += blob.size
            else:
                track.result.transferred += blob.size
            self._done(("blob", blob.digest, repository))
        return None

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
        self._pin(track.result.plan)
        self._finish(track)

    def _pin(self, image):
        if not image.wanted.reference.tag:
            for repository in image.wanted.repositories:
                self._state.pinned(repository, image.after, str(image.wanted.reference))

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
        """Send a blob, from the first of its upstreams that has it; the first one's error if none does."""
        first = None
        for source in blob.sources:
            try:
                self._transfer_from(source, blob, repository, buffer, location)
                return
            except HomelabError as error:
                if isinstance(error, _AtTarget) or self._abort:
                    raise
                first = first or error
                location = None
        raise first

    def _transfer_from(self, source, blob, repository, buffer, location):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._check(source.registry)
                location = location or self._at_target(self._target.start_upload, repository)
                # After a failure we hash ourselves, to know whose fault it was.
                self._pour(_Stream(blob, source, self._hashing or attempt > 1), location, buffer)
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

    def _pour(self, stream, location, buffer):
        """One upload, fed by as many downloads as the upstream needs."""
        blob = stream.blob
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
                            self._suspect(stream, error)
                            raise
                with _blaming_target():
                    answer = upload.finish()
                    if answer.status == 400 and not stream.hashing:
                        raise _AtTarget(f"{self._target.url} found another digest in blob {blob.digest[:19]}")
                    self._target.check(answer, (201,), _writing(blob))
        except BaseException:
            self._progress.moved(-stream.told)
            raise

    def _suspect(self, stream, error):
        """Find out whether only this blob cannot be had (it is cut off there), or nothing of its upstream."""
        registry, repository = stream.source
        try:
            self._endpoints.upstream(registry).stat_blob(repository, stream.blob.digest)
        except Unreachable:
            self._down[registry] = error
        except HomelabError:
            pass

    def _drain(self, stream, upload, buffer):
        """Read from the upstream, from where the stream is, until it ends or breaks off."""
        blob = stream.blob
        source = self._endpoints.upstream(stream.source.registry)
        with source.open_blob(stream.source.repository, blob.digest, stream.offset) as response:
            if response.length is not None and stream.offset + response.length != blob.size:
                raise stream.wrong(f"{stream.offset + response.length} bytes instead of {blob.size}")
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
    """A blob on its way from an upstream, `source`: `offset` bytes came, of which the progress was `told`.

    Args:
        hashing: False where the target is known to refuse what is not the blob.
    """

    def __init__(self, blob, source, hashing):
        self.blob, self.source, self.hashing = blob, source, hashing
        self.offset = self.told = 0
        self._hasher = hashlib.new(blob.digest.partition(":")[0]) if hashing else None

    def add(self, chunk):
        """Count some bytes; HomelabError if they complete something else than the blob."""
        self.offset += len(chunk)
        if self._hasher is None:
            return
        self._hasher.update(chunk)
        if self.offset == self.blob.size and self._hasher.hexdigest() != self.blob.digest.partition(":")[2]:
            raise self.wrong(f"content with the hash {self._hasher.hexdigest()[:12]}")

    def wrong(self, what):
        """The error for what the upstream sent."""
        return HomelabError(
            f"{self.source.registry} sends {what} as blob {self.blob.digest[:19]} of {self.source.repository}",
            remedy="its copy is damaged or a proxy changes it: try again later, or tell the upstream",
        )


def _writing(blob):
    return f"writing blob {blob.digest[:19]} of {blob.size} bytes"


@contextmanager
def _blaming_target():
    try:
        yield
    except (Unreachable, Denied) as error:  # denied: the token of a moment ago has expired
        raise _AtTarget(error.message, error.where, error.remedy) from error
