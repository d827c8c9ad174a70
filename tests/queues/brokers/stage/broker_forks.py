"""A parent that has used its queue before it forks, as a preloading server may."""

import os

import broker_jobs

import postlude

if __name__ == "__main__":
    postlude.queue(broker_jobs.note, "parent")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(5):
                postlude.queue(broker_jobs.note, f"child-{number}")
            os._exit(0)  # without the parent's last words
        children.append(child)
    postlude.queue(broker_jobs.note, "parent")
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
