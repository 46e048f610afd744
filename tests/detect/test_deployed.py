"""The exported form of a detector: the same boxes as `predict`, and nothing in the graph that is not needed."""

import collections

import cv2
import pytest
import torch
from torch import nn

from detect import create_detector
from detect.deployed import DeployedDetector, normalized_rows
from detect.nms import hard_nms, kept_places, suppression_for_onnx
from detect.ps_roi_align import PSRoIAlign

SIZE = (96, 128)
SMALL = {"num_classes": 3, "input_size": SIZE, "test_proposals": 40, "test_before_nms": 150}
OUTPUTS = ("boxes", "scores", "labels", "counts")
CASES = {
    "thundernet_snet49": {},
    "thundernet_shufflenet_v2_x0_5": {"context_enhancement": False, "spatial_attention": False},
    "thundernet_snet146": {"roi_operator": "align_max"},
    "light_head_rcnn_snet49": {"roi_operator": "pool", "setting": "S"},
    "light_head_rcnn_shufflenet_v2_x0_5": {"thin_stride": 16},
}
FORMS = ("grid_sample", "roi_align")


def lively(name, **options):
    """A detector with used norms whose scores lie on both sides of the thresholds."""
    torch.manual_seed(0)
    detector = create_detector(name, **(SMALL | options))
    for part in detector.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        detector.train()(make_pictures())
        for layer, deviation in ((detector.rpn.objectness, 0.1), (detector.rpn.deltas, 0.03)):
            nn.init.normal_(layer.weight, std=deviation)
        nn.init.normal_(detector.head.classify.weight, std=0.1)
    return detector.eval()


def make_pictures(count=2, size=SIZE):
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_as_predicted(found, predicted):
    """found: the four results; predicted: a Detections for each picture."""
    boxes, scores, labels, counts = (torch.as_tensor(each) for each in found)
    assert counts.tolist() == [len(one) for one in predicted]
    for number, one in enumerate(predicted):
        count = len(one)
        torch.testing.assert_close(boxes[number, :count], one.boxes, rtol=1e-4, atol=2e-2)
        torch.testing.assert_close(scores[number, :count], one.scores, rtol=1e-4, atol=1e-3)  # of boxes that far off
        assert labels[number, :count].tolist() == one.labels.tolist()
        assert not boxes[number, count:].any()
        assert not scores[number, count:].any()
        assert not labels[number, count:].any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_the_boxes_of_predict(name, form):
    detector = lively(name, **CASES[name])
    pictures = make_pictures()
    predicted = detector.predict(pictures, suppression="hard")
    assert all(5 < len(one) < 100 for one in predicted)
    with torch.inference_mode():
        assert_as_predicted(DeployedDetector(detector, roi_align=form)(pictures), predicted)


def test_its_own_thresholds_and_the_best_of_what_there_is():
    detector, pictures = lively("thundernet_snet49"), make_pictures()
    settings = {"score_threshold": 0.3, "iou_threshold": 0.2, "max_detections": 4}
    predicted = detector.predict(pictures, suppression="hard", **settings)
    assert {len(one) for one in predicted} == {4}
    with torch.inference_mode():
        found = DeployedDetector(detector, **settings)(pictures)
    assert found[0].shape == (2, 4, 4)
    assert_as_predicted(found, predicted)


def test_nothing_found_is_all_zero():
    with torch.inference_mode():
        found = DeployedDetector(lively("thundernet_snet49"), score_threshold=1.0)(make_pictures())
    assert not any(each.any() for each in found)
    assert [tuple(each.shape) for each in found] == [(2, 100, 4), (2, 100), (2, 100), (2,)]


def test_proposals_without_area_and_numbers_that_broke():
    detector = lively("thundernet_snet49")
    with torch.no_grad():
        detector.rpn.deltas.bias.view(-1, 4)[:10, 1] = -50  # far above the picture
        detector.rpn.objectness.bias.view(-1, 2)[10:15, 1] = torch.nan
        detector.rpn.deltas.bias.view(-1, 4)[15:20, 2] = torch.nan
    pictures = make_pictures()
    with torch.inference_mode():
        assert_as_predicted(DeployedDetector(detector)(pictures), detector.predict(pictures, suppression="hard"))


def test_the_detector_is_left_alone():
    detector = lively("thundernet_snet49").train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    DeployedDetector(detector, roi_align="roi_align")(make_pictures())
    assert detector.training
    assert detector.head.align.method == "operator"
    torch.testing.assert_close(dict(detector.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_threshold": 1.5}, "score_threshold is 1.5; expected a number in 0..1"),
        ({"iou_threshold": -1}, "iou_threshold is -1"),
        ({"max_detections": 0}, "max_detections is 0; expected at least 1"),
        ({"roi_align": "operator"}, "it is one of grid_sample, roi_align"),
    ],
)
def test_a_wrong_option_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DeployedDetector(create_detector("thundernet_snet49", **SMALL), **options)


def test_rows_are_normalised_as_pixels_are():
    detector, pictures = create_detector("thundernet_snet49", **SMALL), make_pictures()
    torch.testing.assert_close(normalized_rows(pictures, detector.mean, detector.std), detector.normalize(pictures))


def test_the_kept_places_are_those_of_hard_suppression():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 30, 2, 2, generator=generator) * 50
    boxes = torch.cat((corners.amin(dim=2), corners.amax(dim=2)), dim=-1)
    scores = torch.rand(2, 3, 30, generator=generator)
    found = kept_places(boxes, scores, iou_threshold=0.4, score_threshold=0.3, max_per_class=30)
    expected = set()
    for picture in range(2):
        rows, labels, _ = hard_nms(boxes[picture], scores[picture].T, iou_threshold=0.4, score_threshold=0.3)
        expected |= {(picture, int(label), int(row)) for row, label in zip(rows, labels, strict=True)}
    assert {tuple(place) for place in found.tolist()} == expected
    assert len(found) == len(expected)


def export(detector, path, *, pictures, free_batch=False, form="grid_sample"):
    """The deployed detector as an ONNX file. Nobody reads the exporter's remarks here."""
    dynamic = {"images": {0: torch.export.Dim("N", min=1, max=8)}} if free_batch else None
    with torch.no_grad(), suppression_for_onnx():
        program = torch.onnx.export(
            DeployedDetector(detector, roi_align=form).eval(),
            (pictures,),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=["images"],
            output_names=list(OUTPUTS),
            opset_version=18,
            verbose=False,
        )
    program.save(str(path))
    return path


def in_onnxruntime(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pictures: session.run(list(OUTPUTS), {"images": pictures.numpy()})


def in_openvino(path):
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    return lambda pictures: [compiled(pictures.numpy())[name] for name in OUTPUTS]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One detector as two files, each sampled in its own way: for any batch."""
    pytest.importorskip("onnxscript")
    detector, folder = lively("thundernet_snet49"), tmp_path_factory.mktemp("deployed")
    return detector, {
        form: export(detector, folder / f"{form}.onnx", pictures=make_pictures(), free_batch=True, form=form)
        for form in FORMS
    }


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("open_file", [in_onnxruntime, in_openvino])
@pytest.mark.parametrize("form", FORMS)
def test_the_file_finds_the_same_whatever_the_batch(files, form, open_file):
    detector, paths = files
    run, pictures = open_file(paths[form]), make_pictures(3)
    predicted = detector.predict(pictures, suppression="hard")
    for count in (1, 3):
        assert_as_predicted(run(pictures[:count]), predicted[:count])
    dark = torch.zeros(1, 3, *SIZE, dtype=torch.uint8)
    assert_as_predicted(run(dark), detector.predict(dark, suppression="hard"))


@pytest.mark.export
def test_the_traced_program_computes_in_torch_too():
    detector, pictures = lively("thundernet_snet49"), make_pictures()
    with torch.no_grad():
        program = torch.export.export(DeployedDetector(detector), (pictures,))
        assert_as_predicted(program.module()(pictures), detector.predict(pictures, suppression="hard"))


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")
def test_nothing_is_in_the_graph_that_is_not_needed(files):
    """No shuffle, no norm, one normalisation, one suppression for each stage, one sampling, no training head."""
    onnx = pytest.importorskip("onnx")
    detector, paths = files
    graph = onnx.load(paths["grid_sample"]).graph
    count = collections.Counter(node.op_type for node in graph.node)
    backbone = sum(isinstance(part, nn.Conv2d) for part in detector.backbone.modules())
    # Three of the neck, two of the trunk, one for all answers of the RPN, one of SAM; then two linear layers.
    assert count["Conv"] == backbone + 7
    assert count["Gemm"] + count["MatMul"] == 2
    assert count["BatchNormalization"] == 0
    assert (count["NonMaxSuppression"], count["GridSample"], count["Softmax"], count["TopK"]) == (2, 1, 1, 3)
    assert count["Loop"] + count["If"] + count["Scan"] == 0
    # A channel shuffle is a transposition of five dimensions.
    orders = [
        list(attribute.ints) for node in graph.node if node.op_type == "Transpose" for attribute in node.attribute
    ]
    assert orders
    assert not [order for order in orders if len(order) == 5 and order[:3] == [0, 2, 1]]
    # Mean and deviation of a row of pixels, each once.
    row = SIZE[1] * 3
    assert sum(onnx.numpy_helper.to_array(weight).size == row for weight in graph.initializer) == 2
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    assert not [node.name for node in graph.node if not read.intersection(node.output)]
    assert not [weight.name for weight in graph.initializer if weight.name not in read]
    stored = sum(onnx.numpy_helper.to_array(weight).size for weight in graph.initializer)
    assert stored < 1.1 * sum(value.numel() for value in detector.parameters())


def test_the_shipped_detector_on_real_pictures(data_dir):
    detector = create_detector("thundernet_shufflenet_v2_x0_5", weights="person").eval()
    paths = sorted((data_dir / "coco_person" / "val").glob("*.jpg"))[:3]
    pictures = torch.stack(
        [torch.from_numpy(cv2.resize(cv2.imread(str(path)), (320, 320))[..., ::-1].copy()) for path in paths]
    ).permute(0, 3, 1, 2)
    predicted = detector.predict(pictures, suppression="hard")
    assert min(len(one) for one in predicted) > 2
    for form in FORMS:
        with torch.inference_mode():
            assert_as_predicted(DeployedDetector(detector, roi_align=form)(pictures), predicted)


@pytest.mark.parametrize("form", ["operator", *FORMS])
def test_the_channels_of_a_bin_lie_side_by_side(form):
    features = torch.randn(2, 2 * 9, 5, 6)
    boxes = torch.tensor([[[0.0, 0, 40, 60], [8, 8, 90, 70]]] * 2)
    align = PSRoIAlign(3, 16, method=form)
    torch.testing.assert_close(
        align.by_bin(features, boxes).unflatten(2, (3, 3))[:, :, 1, 2], align(features, boxes)[..., 1, 2]
    )
