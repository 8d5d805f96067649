import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import feedback_adapter as fa
from feedback_adapter.evidence.coarse import parse_coarse
from feedback_adapter.evidence.hierarchy import imagenet_labels, members_of
from feedback_adapter.outputs import Outputs

GROUPS = {"animal": ["cat", "dog"], "vehicle": ["car"], "thing": ["car", "rock"]}
SPEC = fa.Output(("cat", "dog", "car", "rock"), "multiclass", hierarchy=GROUPS)
HEAD = fa.Output(("animal", "vehicle"), "multiclass")


def outputs(logits: Tensor, **more: Tensor) -> Outputs:
    specs = {"fine": SPEC, "coarse": HEAD}
    return Outputs({"fine": logits, **more}, {n: specs[n] for n in ("fine", *more)})


def test_loss_is_minus_log_of_the_marginal():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]])
    told = fa.Coarse(["animal", None, ("animal", "vehicle")])
    loss = told.loss(outputs(p.log()))
    assert loss.tolist() == pytest.approx([-math.log(0.3), 0.0, -math.log(0.9)], abs=1e-6)


def test_clamp_is_the_masked_softmax():
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    after = fa.Coarse("animal").clamp(outputs(p.log())).probabilities()["fine"]
    torch.testing.assert_close(after, torch.tensor([[1 / 3, 2 / 3, 0, 0]]), atol=1e-5, rtol=0)
    half = fa.Coarse("animal", confidence=0.5).clamp(outputs(p.log())).probabilities()["fine"]
    torch.testing.assert_close(half, (after + p) / 2, atol=1e-5, rtol=0)


def test_known_is_what_is_ruled_out_and_a_single_class():
    known = fa.Coarse(["animal", "vehicle", None]).known(outputs(torch.zeros(3, 4)))["fine"]
    assert known.tolist() == [[False, False, True, True], [True] * 4, [False] * 4]


def test_head_is_the_papers_form():
    fine, coarse = torch.randn(2, 4), torch.randn(2, 2)
    given_ = outputs(fine, coarse=coarse)
    head = fa.Coarse(["animal", "vehicle"], through="head").loss(given_)
    expected = nn.functional.cross_entropy(coarse, torch.tensor([0, 1]), reduction="none")
    torch.testing.assert_close(head, expected)
    classes = fa.Coarse(["animal", "vehicle"], output="fine").loss(given_)
    both = fa.Coarse(["animal", "vehicle"], through="both").loss(given_)
    torch.testing.assert_close(both, head + classes)


def test_gradient():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    told = fa.Coarse(["animal", "thing", None], confidence=0.7)
    assert torch.autograd.gradcheck(lambda x: told.loss(outputs(x)), logits)


@given(st.lists(st.floats(-30, 30), min_size=4, max_size=4), st.sampled_from(sorted(GROUPS)))
def test_clamped_probabilities_sum_to_one_and_keep_their_ratios(logits, name):
    before = torch.tensor([logits], dtype=torch.float64)
    after = fa.Coarse(name).clamp(outputs(before))["fine"]
    assert float(after.exp().sum()) == pytest.approx(1, abs=1e-4)
    told = fa.Coarse(name)
    assert float(told.loss(outputs(before))) >= -1e-9
    assert float(told.loss(outputs(after))) == pytest.approx(0, abs=1e-4)


def test_an_image_does_not_depend_on_its_batch_mates():
    logits = torch.randn(3, 4)
    told = fa.Coarse(["animal", None, "thing"])
    all_at_once = told.bind({"fine": SPEC}, 3).loss(outputs(logits))
    for index in range(3):
        alone = told.take(torch.tensor([index])).loss(outputs(logits[index : index + 1]))
        torch.testing.assert_close(alone, all_at_once[index : index + 1])


def test_refining_raises_the_share_of_the_set():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    adapter = fa.wrap(model, outputs={"output": SPEC})
    images = torch.randn(4, 3, 2, 2)
    result = adapter.refine(images, fa.Coarse("animal"), pivots="1", step_size=0.1)
    after = torch.as_tensor(result.after).softmax(1)[:, :2].sum(1)
    before = torch.as_tensor(result.before).softmax(1)[:, :2].sum(1)
    assert bool((after > before).all())


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (fa.Coarse("animl"), "Did you mean 'animal'"),
        (fa.Coarse(["animal"]), "1 images, but the batch has 2"),
        (fa.Coarse("animal", hierarchy={"animal": ["wolf"]}), "wolf"),
        (fa.Coarse("animal", through="head"), "needs an output whose labels"),
        (fa.Coarse("animal", output="fin"), "Did you mean 'fine'"),
        (fa.Coarse("animal", hierarchy={"animal": "wolf"}), "in a list"),
        (fa.Coarse("animal", hierarchy=["animal"]), "hierarchy is"),
        (fa.Coarse(["Animals", "fish"]), "no coarse class 'fish'"),
    ],
)
def test_mistakes_say_what_to_do(told, message):
    with pytest.raises(fa.FeedbackAdapterError, match=message):
        told.bind({"fine": SPEC}, 2)


@pytest.mark.parametrize("bad", [{"confidence": 1.5}, {"through": "fine"}])
def test_bad_arguments(bad):
    with pytest.raises(fa.FeedbackAdapterError):
        fa.Coarse("animal", **bad)


def test_labels_that_are_not_imagenets_need_a_hierarchy():
    plain = fa.Output(("tench-like", "blue thing"), "multiclass")
    with pytest.raises(fa.FeedbackAdapterError, match="hierarchy="):
        fa.Coarse("dog").bind({"output": plain}, 1)


class TestImageNet:
    def test_labels(self):
        labels = imagenet_labels()
        assert len(set(labels)) == 1000
        assert (labels[0], labels[207], labels[134]) == (
            "tench", "golden retriever", "crane (wading bird)"
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "count"), [("dog", 118), ("n02084071", 118), ("animal", 398), ("entity", 1000)]
    )
    def test_members(self, name, count):
        found = members_of(name, imagenet_labels(), None)
        assert len(found) == count
        assert name in ("animal", "entity") or found == list(range(151, 269))

    def test_a_class_itself_and_labels_in_another_order(self):
        assert members_of("golden retriever", imagenet_labels(), None) == [207]
        assert members_of("dog", ["tabby", "pug, pug-dog", "n02099601"], None) == [1, 2]

    def test_names_with_underscores_hyphens_and_plurals(self):
        plain = imagenet_labels()
        for labels in (
            [label.replace(" ", "_") for label in plain],
            [label.upper().replace(" ", "-") for label in plain],
            [f"{label}s" for label in plain],
        ):
            for name in ("dog", "Dogs", "DOG", "domestic_dogs"):
                assert members_of(name, labels, None) == list(range(151, 269))

    def test_a_label_that_is_not_understood_is_named(self):
        with pytest.raises(fa.FeedbackAdapterError, match="1 of 3 labels.*'giraffe'"):
            members_of("dog", ["pug", "beagle", "giraffe"], None)
        with pytest.raises(fa.FeedbackAdapterError, match="1 of 2 labels.*not clear.*'crane'"):
            members_of("dog", ["pug", "crane"], None)

    def test_cranes_are_told_apart(self):
        labels = imagenet_labels()
        assert members_of("crane (wading bird)", labels, None) == [134]
        assert members_of("crane (lifting device)", labels, None) == [517]
        assert members_of("n03126707", labels, None) == [517]
        with pytest.raises(fa.FeedbackAdapterError, match=r"isn't clear.*wading.*lifting"):
            members_of("crane", labels, None)
        birds = members_of("bird", labels, None)
        assert 134 in birds
        assert 517 not in birds
        assert members_of("cardigan", labels, None) == [474]
        assert members_of("Cardigan", labels, None) == [264]

    def test_names_of_torchvision(self):
        from torchvision.models import ResNet18_Weights

        labels = ResNet18_Weights.DEFAULT.meta["categories"]
        assert members_of("dog", labels, None) == list(range(151, 269))
        assert members_of("crane bird", labels, None) == [134]
        with_background = members_of("dog", ["background", *labels], None)
        assert with_background == list(range(152, 270))


def test_command_line_form():
    assert parse_coarse("cat|dog").classes == [("cat", "dog")]
