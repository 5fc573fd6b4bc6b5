"""MRED in a training loop of timm's own parts: timm_training.py MODEL PHOTOS OUTPUT.safetensors.

PHOTOS holds train/CLASS/, the output is a switchable checkpoint.
"""

import sys
from dataclasses import replace

import torch
from timm.data import create_dataset
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.utils.data import DataLoader

import rsconvert
from rsconvert.training import MREDTask, ViewCollator

__all__ = ["train"]


def train(net, data, *, epochs=4, batch_size=32, lr=0.001, alpha_lr=0.1, workers=2, device="cpu"):
    """Train a switchable network on a data set of timm without a transform; return its moving average."""
    collate = ViewCollator(net)
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=workers, collate_fn=collate)
    task = MREDTask(net.to(device), device=torch.device(device)).train()
    task.setup_ema(decay=0.99, use_warmup=True)
    weights = [parameter for parameter in net.parameters() if parameter is not net.alpha]
    groups = [{"params": weights}, {"params": [net.alpha], "lr": alpha_lr, "weight_decay": 0.0}]
    optimizer = create_optimizer_v2(groups, opt="sgd", lr=lr, momentum=0.9, weight_decay=1e-4)
    schedule, _ = create_scheduler_v2(optimizer, num_epochs=epochs, step_on_epochs=False, updates_per_epoch=len(loader))
    step = 0
    for epoch in range(epochs):
        for views, target in loader:
            result = task(views.to(device), target.to(device))
            result["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            task.update_ema(step)
            schedule.step_update(step)
        print(f"epoch {epoch + 1}/{epochs}  loss of the last batch, a sum over views: {result['loss'].item():.3f}")
    return task.get_eval_model(ema=True).module


if __name__ == "__main__":
    name, photos, output = sys.argv[1:]
    data = create_dataset("", root=photos, split="train")
    classes = tuple(data.reader.class_to_idx)
    model = rsconvert.create_model(name, pretrained=True, num_classes=len(classes))
    net = train(rsconvert.make_switchable(model, (224, 192, 160, 128, 96)), data)
    net.source = replace(net.source, class_names=classes, new_classifier=())
    rsconvert.save(net, output)
