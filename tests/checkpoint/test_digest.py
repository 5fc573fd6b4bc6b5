"""The digest: equal tensors have one, any difference gives another."""

import torch

from rsconvert.checkpoint import digest


def test_the_digest_tells_names_types_shapes_and_values_apart() -> None:
    zeros = torch.zeros(4)
    seen = [
        digest({"a": zeros}),
        digest({"b": zeros}),
        digest({"a": zeros.view(2, 2)}),
        digest({"a": zeros.to(torch.int32)}),
        digest({"a": torch.ones(4)}),
        digest({"a": zeros}, "facts"),
    ]
    assert len(set(seen)) == len(seen)
    assert digest({"a": torch.ones(2, 3), "b": zeros}) == digest(
        {"b": zeros, "a": torch.ones(3, 2).T.contiguous().clone()}
    )
