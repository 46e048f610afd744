"""What leaves the house: the same labels as `predict`, on a copy, at every size."""

import pytest
import torch
from torch import Tensor, nn

from segment import create_segmenter
from segment.base import padded_size
from segment.deployed import DeployedSegmenter

NETS = [("bisenet_xception39", 5), ("bisenet_shufflenet_v2_x0_5", 2), ("dfanet_b", 2)]


def _net(name: str, num_classes: int):
    torch.manual_seed(0)
    net = create_segmenter(name, num_classes=num_classes)
    with torch.no_grad():
        images = _blocks((4, 3, 64, 96))
        net.train()(images)
        last = net.classifier[-1] if isinstance(net.classifier, nn.Sequential) else net.classifier
        last.weight *= 100
        last.bias -= net.eval()(images).mean(dim=(0, 2, 3))  # so that every class wins somewhere
    return net


def _blocks(shape: tuple[int, ...]) -> Tensor:
    coarse = torch.randint(0, 256, (*shape[:2], 4, 6)).float()
    return nn.functional.interpolate(coarse, shape[2:], mode="nearest").to(torch.uint8)


@pytest.mark.parametrize(("name", "num_classes"), NETS)
def test_the_deployed_net_answers_as_the_net(name, num_classes):
    net = _net(name, num_classes)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = _blocks((2, 3, 61, 90))
    with torch.no_grad():
        labels, scores = DeployedSegmenter(net, keep_scores=True)(images)
        (alone,) = DeployedSegmenter(net)(images)
        logits = net(images)
    assert labels.dtype == alone.dtype == torch.uint8
    torch.testing.assert_close(scores, logits.softmax(dim=1), rtol=1e-3, atol=1e-4)
    best = logits.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-3
    assert clear.float().mean() > 0.8
    assert len(labels[clear].unique()) > 1
    torch.testing.assert_close(labels[clear].long(), logits.argmax(dim=1)[clear])
    torch.testing.assert_close(labels, alone)
    assert len(net.auxiliary) > 0 or name.startswith("dfanet")
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, before[key], msg=key)


def test_answers_come_at_the_size_that_is_asked_for():
    net = _net("bisenet_xception39", 3)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    deployed = DeployedSegmenter(net, keep_scores=True)
    with torch.no_grad():
        labels, scores = deployed(images, (33, 70))
        wanted = nn.functional.interpolate(net(images), (33, 70), mode="bilinear").softmax(dim=1)
    assert labels.shape == (1, 33, 70)
    torch.testing.assert_close(scores, wanted, rtol=1e-3, atol=1e-4)


def test_of_two_equal_classes_the_first_counts():
    net = _net("bisenet_xception39", 2)
    last = net.classifier[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        (labels,) = DeployedSegmenter(net)(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8))
    assert not labels.any()


class _Padding(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        height, width = padded_size((images.shape[-2], images.shape[-1]))
        return nn.functional.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]), mode="replicate")


@pytest.mark.export
def test_the_padding_is_the_same_in_onnx_at_sizes_that_it_was_not_traced_at(tmp_path):
    """Exported, a negative number is divided towards zero, in Python downwards: sizes came out 8 pixels short."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(_Padding(), (torch.rand(1, 3, 22, 35),), dynamic_shapes=({2: free, 3: free},))
    torch.onnx.export(program, dynamo=True, verbose=False).save(tmp_path / "padding.onnx")
    session = runtime.InferenceSession(tmp_path / "padding.onnx", providers=["CPUExecutionProvider"])
    for size in ((16, 24), (17, 31), (301, 30)):
        images = torch.rand(1, 3, *size)
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), _Padding()(images))
