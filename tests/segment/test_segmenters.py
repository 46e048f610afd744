"""What every segmenter promises, held over all names; the papers' counts; and that each can learn."""

import pytest
import torch
from torch import nn

from backbones import create_backbone, create_classifier, list_backbones, measure_cost, save_weights
from backbones.xception import FullyConnectedAttention
from segment import create_segmenter, list_segmenters, save_segmenter
from segment.bisenet import build_spatial_path

NAMES = [name for name in list_segmenters() if name != "bisenet"]  # the family, whose default is one of the others
QUICK = ["bisenet_xception39", "dfanet_b"]

# (name, height, width): million multiply-adds, of the nets that have the papers' sizes in megabytes.
MULTIPLY_ADDS = {
    ("bisenet_xception39", 360, 640): 3_065,
    ("bisenet_xception39", 768, 1536): 15_616,
    ("bisenet_xception39", 720, 1280): 12_210,
    ("bisenet_xception39", 1024, 2048): 27_762,
    ("bisenet_resnet18", 360, 640): 11_581,
    ("bisenet_resnet18", 768, 1536): 58_344,
    ("dfanet_a", 1024, 1024): 3_291,
    ("dfanet_a", 512, 1024): 1_646,
    ("dfanet_b", 1024, 1024): 1_870,
}
PARAMETERS = {
    "bisenet_xception39": 1_541_963,
    "bisenet_resnet18": 12_894_163,
    "dfanet_a": 1_843_419,
    "dfanet_b": 1_109_499,
}


def draw_pictures():
    """Two pictures of a red and a blue block each, and their labels; the two top rows are not labelled."""
    images = torch.full((2, 3, 64, 96), 90, dtype=torch.uint8)
    labels = torch.zeros(2, 64, 96, dtype=torch.int64)
    blocks = [(0, 1, 8, 10, 40, 50), (0, 2, 45, 60, 60, 90), (1, 2, 20, 40, 60, 90), (1, 1, 5, 5, 18, 30)]
    for index, label, top, left, bottom, right in blocks:
        colour = torch.tensor([[200, 60, 40], [40, 80, 210]][label - 1], dtype=torch.uint8)
        images[index, :, top:bottom, left:right] = colour.view(3, 1, 1)
        labels[index, top:bottom, left:right] = label
    labels[:, :2] = 255
    return images, labels


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_to_the_digit(name):
    with torch.device("meta"):
        segmenter = create_segmenter(name)
        assert measure_cost(segmenter, (64, 64)).parameters == PARAMETERS[name]
    used = [value.numel() for key, value in segmenter.named_parameters() if not key.startswith("auxiliary")]
    assert sum(used) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("options", "parameters"), [({}, 13_194_489), ({"auxiliary_channels": 256}, 13_494_777)], ids=["speed", "accuracy"]
)
def test_parameters_of_the_training_graph(options, parameters):
    with torch.device("meta"):
        segmenter = create_segmenter("bisenet_resnet18", **options)
    assert sum(value.numel() for value in segmenter.parameters()) == parameters


@pytest.mark.parametrize(("case", "millions"), MULTIPLY_ADDS.items(), ids=lambda value: str(value))
def test_multiply_adds(case, millions):
    name, *size = case
    with torch.device("meta"):
        cost = measure_cost(create_segmenter(name), tuple(size))
    assert cost.multiply_adds == pytest.approx(millions * 1e6, rel=0.0005)


def test_the_spatial_path_of_the_text_is_an_option():
    released, text = create_segmenter("bisenet_xception39"), create_segmenter("bisenet", spatial_path="three_layers")
    counts = [sum(value.numel() for value in net.detail_path.parameters()) for net in (released, text)]
    assert counts == [91_968, 112_832]
    assert build_spatial_path("three_layers")(torch.rand(2, 3, 50, 70)).shape == (2, 128, 7, 9)


def test_dfanets_attention_is_bounded_unless_told_otherwise():
    torch.manual_seed(0)
    features = torch.rand(2, 128, 4, 6)
    for bounded, options in ((True, {}), (False, {"bounded_attention": False})):
        segmenter = create_segmenter("dfanet_b", **options)
        attentions = [layer for layer in segmenter.modules() if isinstance(layer, FullyConnectedAttention)]
        factors = [layer(features) / features for layer in attentions]
        assert all(bool((each >= 0).all() and (each <= 1).all()) == bounded for each in factors)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 96), (61, 35), (97, 128), (1, 1)])
def test_logits_have_the_pictures_size(name, size):
    segmenter = create_segmenter(name, num_classes=3).eval()
    with torch.inference_mode():
        logits = segmenter(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", QUICK)
def test_what_is_padded_is_cut_off_again(name):
    """A picture of odd size gives what the same picture, continued by its last row and column, gives there."""
    segmenter = create_segmenter(name, num_classes=3).eval()
    images = torch.rand(1, 3, 61, 75) * 255
    continued = nn.functional.pad(images, (0, 5, 0, 3), mode="replicate")
    with torch.inference_mode():
        torch.testing.assert_close(segmenter(images), segmenter(continued)[..., :61, :75])


@pytest.mark.parametrize("name", list_backbones())
def test_bisenet_on_any_backbone(name):
    segmenter = create_segmenter("bisenet", backbone=name, num_classes=2)
    losses = segmenter.losses(torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8), torch.ones(2, 40, 56).long())
    assert set(losses) == {"loss_main", "loss_auxiliary_1", "loss_auxiliary_2"}
    assert all(torch.isfinite(value) for value in losses.values())
    assert segmenter.predict(torch.zeros(1, 3, 40, 56))[0].labels.shape == (40, 56)


@pytest.mark.parametrize("name", QUICK)
def test_every_parameter_gets_a_gradient(name):
    images, labels = draw_pictures()
    segmenter = create_segmenter(name, num_classes=3)
    sum(segmenter.losses(images, labels).values()).backward()
    assert [key for key, value in segmenter.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", QUICK)
def test_all_ignored_gives_zero_loss_and_gradients(name):
    images, labels = draw_pictures()
    segmenter = create_segmenter(name, num_classes=3)
    losses = segmenter.losses(images, torch.full_like(labels, 255))
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0
    gradients = [value.grad for value in segmenter.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)  # nan would be any


@pytest.mark.parametrize("name", QUICK)
def test_a_picture_does_not_depend_on_its_batch_mates(name):
    segmenter = create_segmenter(name, num_classes=3).eval()
    images = torch.rand(3, 3, 64, 96) * 255
    with torch.inference_mode():
        torch.testing.assert_close(segmenter(images)[1:2], segmenter(images[1:2]), rtol=1e-4, atol=1e-4)


def test_auxiliary_heads_run_in_losses_alone():
    images, labels = draw_pictures()
    segmenter = create_segmenter("bisenet_xception39", num_classes=3)
    runs = []
    for head in segmenter.auxiliary:
        head.register_forward_hook(lambda *_: runs.append(1))
    state = segmenter.state_dict().keys()
    segmenter.train()(images)
    segmenter.predict(images)
    assert runs == []
    outputs = segmenter.outputs(images, labels)
    assert len(runs) == 2
    assert [logits.shape for logits in (outputs.logits, *outputs.auxiliary)] == [(2, 3, 64, 96)] * 3
    assert state == segmenter.eval().state_dict().keys()


def test_auxiliary_losses_are_weighed():
    images, labels = draw_pictures()
    segmenter = create_segmenter("bisenet_xception39", num_classes=3, auxiliary_weight=0.5, pixels="all").eval()
    outputs = segmenter.outputs(images, labels)
    losses = segmenter.losses_from(outputs, labels)
    plain = [nn.functional.cross_entropy(each, labels, ignore_index=255) for each in (outputs[0], *outputs[1])]
    torch.testing.assert_close(torch.stack(list(losses.values())), torch.stack(plain) * torch.tensor([1, 0.5, 0.5]))


def test_predict_gives_labels_and_scores_and_leaves_the_mode():
    images, _ = draw_pictures()
    segmenter = create_segmenter("bisenet_xception39", num_classes=3)
    segmenter.backbone.eval()
    plain, scored = segmenter.predict(images), segmenter.predict(images, scores=True)
    assert segmenter.training
    assert not segmenter.backbone.training
    assert plain[0].scores is None
    for one, other in zip(plain, scored, strict=True):
        assert one.labels.dtype == torch.int64
        torch.testing.assert_close(one.labels, other.scores.argmax(dim=0))
        torch.testing.assert_close(other.scores.sum(dim=0), torch.ones(64, 96))


@pytest.mark.export
@pytest.mark.parametrize("name", QUICK)
def test_forward_goes_through_export(name):
    segmenter = create_segmenter(name, num_classes=3).eval()
    images = (torch.rand(1, 3, 61, 96) * 255,)
    with torch.inference_mode():
        expected = segmenter(*images)
    found = torch.export.export(segmenter, images).module()(*images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.compile
@pytest.mark.parametrize("name", QUICK)
def test_forward_compiles_in_one_graph(name):
    segmenter = create_segmenter(name, num_classes=3).eval()
    images = torch.randint(0, 256, (2, 3, 61, 96), dtype=torch.uint8)
    compiled = torch.compile(segmenter, fullgraph=True, backend="eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(images), segmenter(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_with_options_and_class_names(name, tmp_path):
    segmenter = create_segmenter(name, num_classes=2, input_size=[90, 120], class_weights=[1, 2.5]).eval()
    segmenter.class_names = ("background", "person")
    save_segmenter(segmenter, tmp_path / "net.safetensors", half=False)
    other = create_segmenter(name, weights=tmp_path / "net.safetensors").eval()
    assert (other.class_names, other.input_size, other.num_classes) == (("background", "person"), (90, 120), 2)
    assert other.loss.class_weights == [1, 2.5]
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode():
        torch.testing.assert_close(other(images), segmenter(images), rtol=0, atol=0)


def test_weights_of_another_segmenter_or_class_count_are_refused(tmp_path):
    segmenter = create_segmenter("dfanet_b", num_classes=2)
    segmenter.class_names = ("background", "person")
    path = tmp_path / "net.safetensors"
    save_segmenter(segmenter, path)
    with pytest.raises(ValueError, match="holds weights of dfanet_b, not of dfanet_a"):
        create_segmenter("dfanet_a", weights=path)
    with pytest.raises(ValueError, match=r"has 2 classes \(background, person\), not 5"):
        create_segmenter("dfanet_b", num_classes=5, weights=path)
    with pytest.raises(FileNotFoundError, match="shipped for dfanet_b"):
        create_segmenter("dfanet_b", weights="persn")


def test_dfanet_starts_from_a_classifier_and_its_linear_layer(tmp_path):
    classifier = create_classifier("xception_b")
    save_weights(classifier, tmp_path / "classifier.safetensors", half=False)
    segmenter = create_segmenter("dfanet_b", backbone_weights=tmp_path / "classifier.safetensors")
    linear = next(layer for layer in classifier.head.modules() if isinstance(layer, nn.Linear))
    attentions = [layer for layer in segmenter.modules() if isinstance(layer, FullyConnectedAttention)]
    assert len(attentions) == 3
    for attention in attentions:
        torch.testing.assert_close(attention.fc.state_dict(), linear.state_dict())
    torch.testing.assert_close(segmenter.backbone.state_dict(), classifier.backbone.state_dict())


def test_dfanet_starts_from_a_bare_backbone_too(tmp_path):
    backbone = create_backbone("xception_b", attention=False)
    save_weights(backbone, tmp_path / "backbone.safetensors", half=False)
    segmenter = create_segmenter("dfanet_b", backbone_weights=tmp_path / "backbone.safetensors")
    torch.testing.assert_close(segmenter.backbone.state_dict(), backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bisenet_xception93", {}, "nearest: 'bisenet_xception39'"),
        ("bisenet_resnet18", {"pixel": "all"}, "nearest: 'pixels'"),
        ("bisenet_resnet18", {"backbone": "xception39"}, "no option 'backbone'"),
        ("bisenet", {"backbone": "xception93"}, "nearest: 'xception39'"),
        ("bisenet", {"spatial_path": "three_layer"}, "nearest: 'three_layers'"),
        ("bisenet", {"auxiliary_channels": 0}, "auxiliary_channels is 0"),
        ("dfanet_b", {"pixels": "omeh"}, "nearest: 'ohem'"),
        ("dfanet_b", {"ohem_threshold": 7}, "threshold of the hard pixels is 7"),
        ("dfanet_b", {"num_classes": 1}, "num_classes is 1; expected 2 to 255"),
        ("dfanet_b", {"class_weights": [1, 2]}, "2 class_weights came with 19 classes"),
        ("dfanet_b", {"input_size": (0, 5)}, "expected .height, width. in pixels"),
    ],
)
def test_a_wrong_option_is_refused(name, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        create_segmenter(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ((2, 3, 8, 8), torch.zeros(2, 8, 9).long(), r"expected torch.int64 \[2, 8, 8\]"),
        ((2, 3, 8, 8), torch.zeros(2, 8, 8).byte(), r"labels are torch.uint8"),
        ((2, 3, 8, 8), torch.full((2, 8, 8), 3), r"the labels hold 3; expected 0\.\.2, or 255"),
        ((2, 3, 8, 8), torch.full((2, 8, 8), -1), "the labels hold -1"),
        ((2, 1, 8, 8), torch.zeros(2, 8, 8).long(), r"expected \[N, 3, H, W\]"),
    ],
)
def test_pictures_and_labels_that_do_not_fit_are_refused(images, labels, words):
    with pytest.raises(ValueError, match=words):
        create_segmenter("dfanet_b", num_classes=3).losses(torch.zeros(images), labels)


def test_a_batch_of_one_is_refused_in_training_only():
    segmenter = create_segmenter("dfanet_b", num_classes=3)
    images, labels = draw_pictures()
    with pytest.raises(ValueError, match="a batch of 1 picture cannot train"):
        segmenter.losses(images[:1], labels[:1])
    assert torch.isfinite(segmenter.eval().losses(images[:1], labels[:1])["loss_main"])


@pytest.mark.parametrize(("name", "enlarged", "steps"), [("bisenet_xception39", 1, 60), ("dfanet_b", 2, 80)])
def test_it_learns_two_pictures_by_heart(name, enlarged, steps):
    """mIoU of at least 0.95 through `predict`: edges must be right as well."""
    torch.manual_seed(0)
    images, labels = (each.repeat_interleave(enlarged, -1).repeat_interleave(enlarged, -2) for each in draw_pictures())
    segmenter = create_segmenter(name, num_classes=3, pixels="ohem")
    optimizer = torch.optim.AdamW(segmenter.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(segmenter.losses(images, labels).values()).backward()
        optimizer.step()
        schedule.step()
    found = torch.stack([each.labels for each in segmenter.predict(images)])
    counted = labels != 255
    ious = []
    for label in range(3):
        ours, truth = (found == label) & counted, (labels == label) & counted
        ious.append(((ours & truth).sum() / (ours | truth).sum()).item())
    assert sum(ious) / 3 >= 0.95
