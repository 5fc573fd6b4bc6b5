"""Processes that answer requests in JSON lines; one that hangs or dies is replaced, and its request alone fails."""

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Job", "run_jobs"]


@dataclass(frozen=True)
class Job:
    """A request, and the memory in GiB that its answer is expected to take."""

    request: dict[str, Any]
    memory: float


class _Worker:
    """A process that is started when it is first asked."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer, or ``{"error": …}`` if the process dies or takes longer than it may."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), process.kill()))
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            if answer.get("leaves"):
                self.stop()
            return answer
        status = process.wait()
        self.stop()
        died = f"the process died with status {status}"
        return {"error": f"it took longer than {seconds:.0f} s" if late.is_set() else died}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _started(self) -> "subprocess.Popen[str]":
        if self.process is None:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            # A session of its own: Ctrl-C is for the caller, who ends the workers.
            self.process = subprocess.Popen(self.command, text=True, start_new_session=True, **pipes)
        return self.process


class _Queue:
    """Hands out the first job that fits into the memory that is free; one that never fits runs alone."""

    def __init__(self, jobs: Sequence[Job], memory: float) -> None:
        self.jobs = list(jobs)
        self.memory = memory
        self.used: list[float] = []
        self.changed = threading.Condition()

    def take(self) -> Job | None:
        with self.changed:
            while self.jobs:
                fitting = (j for j in self.jobs if not self.used or sum(self.used) + j.memory <= self.memory)
                job = next(fitting, None)
                if job is not None:
                    self.jobs.remove(job)
                    self.used.append(job.memory)
                    return job
                self.changed.wait()
        return None

    def give_back(self, job: Job) -> None:
        with self.changed:
            self.used.remove(job.memory)
            self.changed.notify_all()


def run_jobs(
    jobs: Sequence[Job],
    command: Sequence[str],
    done: Callable[[Job, dict[str, Any]], None],
    *,
    workers: int,
    memory: float,
    timeout: float,
) -> None:
    """Ask every job of some workers and hand each answer to ``done``, one at a time.

    Args:
        command: what starts a worker.
        memory: in GiB, for all jobs that run at once.
        timeout: seconds for one job.
    """
    queue, lock = _Queue(jobs, memory), threading.Lock()
    crew = [_Worker(command) for _ in range(min(workers, len(jobs)))]
    over = threading.Event()

    def serve(worker: _Worker) -> None:
        while job := queue.take():
            answer = worker.ask(job.request, timeout)
            with lock:
                if over.is_set():
                    return
                done(job, answer)
            queue.give_back(job)

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in crew]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        over.set()
        for worker in crew:
            worker.stop()
