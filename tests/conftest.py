"""Small models run fastest on one thread; more only get into each other's way."""

import torch

torch.set_num_threads(1)
