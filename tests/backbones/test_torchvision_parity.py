"""The same numbers as torchvision's ShuffleNetV2, whose units are in the same order."""

import pytest
import torch
import torchvision

from backbones import create_classifier

WIDTHS = ["x0_5", "x1_0", "x1_5", "x2_0"]


@pytest.mark.parametrize("width", WIDTHS)
def test_same_logits_on_random_weights(width):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(f"shufflenet_v2_{width}", weights=None)
    for module in theirs.modules():  # running statistics that are not 0 and 1, so that a swap would show
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    ours = create_classifier(f"shufflenet_v2_{width}")
    their_state, our_state = theirs.state_dict(), ours.state_dict()
    assert [value.shape for value in their_state.values()] == [value.shape for value in our_state.values()]
    ours.load_state_dict(dict(zip(our_state, their_state.values(), strict=True)))
    pictures = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(pictures), theirs.eval()(pictures), rtol=1e-5, atol=1e-5)
