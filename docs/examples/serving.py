"""The longer the queue, the smaller the images: serving.py NET.onnx MILLISECONDS PHOTO…, as if all came at once."""

import json
import sys
import time

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def open_network(path):
    """Return a function of images and a side in pixels that gives logits (N, classes), fast sides, names of classes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = {"class_names": "[]", **session.get_modelmeta().custom_metadata_map}
    known = {key: json.loads(facts[key]) for key in ("resolutions", "mean", "std", "crop_pct", "class_names")}
    trained, mean, std, crop, names = known.values()
    method, shares = Image.Resampling[facts["interpolation"].upper()], np.broadcast_to(crop, len(trained))

    def predict(images, side):
        border = (1 - np.interp(side, trained[::-1], shares[::-1])) / 2
        views = [ImageOps.fit(image.convert("RGB"), (side, side), method, border) for image in images]
        pixels = (np.stack(views).astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
        return session.run(["logits"], {"images": pixels.transpose(0, 3, 1, 2)})[0]

    return predict, json.loads(facts.get("branches", facts["resolutions"])), names or range(10**6)


def measure(predict, image, sides, batch, runs=5, clock=time.perf_counter):
    """Return the seconds per image at each side: of the slowest run with one image or a full batch."""
    seconds = {side: [] for side in sides}
    for side, count in [(side, count) for side in sides for count in (1, batch)] * (runs + 1):
        start = clock()
        predict([image] * count, side)
        seconds[side].append((clock() - start) / count)
    return {side: max(times[2:]) for side, times in seconds.items()}  # the first of each kind warm up


def choose(seconds, ages, batch, target):
    """Return the largest side at which all waiting requests, ``ages`` seconds old, are done within the target."""
    done = [min(i - i % batch + batch, len(ages)) for i in range(len(ages))]  # images until the batch of each is over
    holds = [s for s in seconds if all(a + d * seconds[s] <= target for a, d in zip(ages, done, strict=True))]
    return max(holds, default=min(seconds))


def step(waiting, predict, seconds, batch, target, clock=time.perf_counter):
    """Answer the oldest of the queue of (arrival, image, reply) as one batch: by reply(logits, side)."""
    side = choose(seconds, [clock() - arrived for arrived, _, _ in waiting], batch, target)
    taken, waiting[:batch] = waiting[:batch], []
    for (_, _, reply), logits in zip(taken, predict([image for _, image, _ in taken], side), strict=True):
        reply(logits, side)


if __name__ == "__main__":
    predict, sides, names = open_network(sys.argv[1])
    seconds, start = measure(predict, Image.open(sys.argv[3]), sides, batch=8), time.perf_counter()
    queue = [(start, Image.open(p), lambda z, side, p=p: print(p, side, names[z.argmax()])) for p in sys.argv[3:]]
    while queue:
        step(queue, predict, seconds, batch=8, target=float(sys.argv[2]) / 1000)
