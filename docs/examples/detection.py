"""A detector of torchvision at several sizes, finetuned by a loop of one's own: detection.py MODEL OUTPUT.safetensors.

MODEL is a name such as torchvision/ssdlite320_mobilenet_v3_large. The images are drawn: one bright square each.
"""

import sys

import torch
from torchvision.ops import box_iou

import rsconvert

__all__ = ["at", "draw", "finetune", "recall"]


def at(net, resolution):
    """Return the path of a resolution, with the size that its transform gives to each image."""
    path = net.at(resolution)
    if path.transform.fixed_size is not None:  # SSD
        path.transform.fixed_size = (resolution, resolution)
    else:  # R-CNN, RetinaNet, FCOS: the short side, and the most that the long one may have
        path.transform.min_size, path.transform.max_size = (resolution,), 5 * resolution // 3
    return path


def draw(count, side, seed=0):
    """Return images and targets as torchvision's detectors take them."""
    random = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for _ in range(count):
        image = 0.3 * torch.rand(3, side, side, generator=random)
        size = int(torch.randint(side // 3, side // 2, (), generator=random))
        x, y = torch.randint(0, side - size, (2,), generator=random).tolist()
        image[:, y : y + size, x : x + size] += 0.6
        images.append(image)
        targets.append({"boxes": torch.tensor([[x, y, x + size, y + size]]).float(), "labels": torch.tensor([1])})
    return images, targets


def finetune(net, images, targets, *, epochs, batch_size=8, lr=0.001):
    """Train every path on every batch: the sum of the detector's losses over the resolutions, Eq. 2 of the paper."""
    optimizer = torch.optim.AdamW([parameter for parameter in net.parameters() if parameter is not net.alpha], lr=lr)
    net.train()
    for epoch in range(epochs):
        total = 0.0
        for places in torch.randperm(len(images)).split(batch_size):
            batch = [images[place] for place in places], [targets[place] for place in places]
            for resolution in net.resolutions:  # backward at once: the graph of one resolution in memory
                loss = sum(at(net, resolution)(*batch).values())
                loss.backward()
                total += loss.item() * len(places) / len(images)
            optimizer.step()
            optimizer.zero_grad()
        print(f"epoch {epoch + 1}/{epochs}  mean loss, a sum over resolutions: {total:.3f}", flush=True)
    return net.eval()


@torch.no_grad()
def recall(path, images, targets):
    """Return the share of boxes that the best detection of their image covers with an IoU of at least one half."""
    found = zip(path(images), targets, strict=True)
    return sum(bool((box_iou(own["boxes"][:1], t["boxes"]) >= 0.5).any()) for own, t in found) / len(images)


if __name__ == "__main__":
    name, output = sys.argv[1:]
    torch.manual_seed(0)
    net = rsconvert.make_switchable(rsconvert.create_model(name, num_classes=2), (128, 96, 64))
    finetune(net, *draw(64, 128), epochs=8)
    for resolution in net.resolutions:
        print(f"{resolution}: recall {recall(at(net, resolution), *draw(32, 128, seed=1)):.2f}")
    rsconvert.save(net, output)
