"""The front door: fit a generative model to a network, then ask it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fa_backward.agreement import agreement, middles
from fa_backward.errors import BackwardError
from fa_backward.fitting import Drawer, fit_observations, fit_templates, paste, speaks_for
from fa_backward.generative import IMAGE, Activations
from fa_backward.learning import fit_decoders
from fa_backward.network import Network, find_sites
from fa_backward.pieces import SEEN, one_piece
from fa_backward.search import Hypotheses, Place, SearchOptions, search

LEAST_SHARE = 0.95  # of true objects with log-odds above 0, for a site to be listened to
MOST_ENERGY = 0.2  # of the background's activations, compared with the object's
LEAST_AGREEMENT = 0.1  # of an object: on dev, true ones had at least .28, others at most .06
REPORTED = 8  # batches

Coverage = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Instance:
    """One object that was found.

    Attributes:
        category: Its name.
        log_odds: log p(scene | object) / p(scene | nothing) at each site, the top first, nats.
        score: Weighted log-odds and log-priors, nats. It ranks hypotheses where the network has
            no map of categories.
        agreement: Soft intersection over union of the mask and of the network's own map of the
            category, which ranks hypotheses where there is one; None where there is none.
        mask: (H, W), probability that a pixel shows it; `amodal` is the same, hidden parts too.
            Only one piece of it is kept where `SearchOptions.piece` says so.
        picture: (3, H, W), what it should look like, on nothing.
        alternatives: All hypotheses of the beam, best first; the first is this one.
    """

    category: str
    log_odds: Tensor
    score: float
    agreement: float | None
    mask: Tensor
    amodal: Tensor
    picture: Tensor
    alternatives: Hypotheses


class GenerativeModel:
    """A generative model of a network's activations, with the network.

    Make it with `fit`, or from a checkpoint.

    Args:
        network: Images to activations by site.
        activations: The fitted model of them.
        options: How the search looks.
        coverage: Images to the share of each cell that each category covers, (n, categories, h, w),
            as the network itself sees it; None if it has no such map.
        report: What `fit` found out about each site: `"share"` of true objects with log-odds
            above 0, and `"energy"` of the background's activations compared with the object's.
    """

    def __init__(
        self,
        network: Network,
        activations: Activations,
        options: SearchOptions | None = None,
        report: Mapping[str, Mapping[str, float]] | None = None,
        coverage: Coverage | None = None,
    ):
        self.report, self.coverage = dict(report or {}), coverage
        self.network, self.activations = network, activations.eval()
        self.options = options or SearchOptions()

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        objects: Tensor,
        masks: Tensor,
        categories: Sequence[str],
        *,
        backgrounds: Tensor,
        sites: Sequence[str] | None = None,
        templates: int = 500,
        components: int = 4,
        steps: int = 1000,
        batch: int = 16,
        seed: int = 0,
        leave_out: bool = False,
    ) -> "GenerativeModel":
        """Fit to pictures of single objects.

        `report` of the result says of each site whether its evidence can be relied on.

        Args:
            model: A trained model of convolutions and poolings.
            objects: (n, 3, H, W), objects on nothing (0), in the middle and of one size.
            masks: (n, 1, H, W), from 0 to 1.
            categories: The name of each object's category.
            backgrounds: (m, 3, H, W), scenes without such objects.
            sites: Names, the top first; by default found by `find_sites`.
            templates: K of the top, shared among the categories by their numbers of objects.
            components: K of the other sites.
            steps: Of the decoders' training.
            batch: Objects per step.
            seed: Decides everything that is random.
            leave_out: Leave a site out of the search (its `evidence` is off) if fewer than 95%
                of the true objects have log-odds above 0 there, or if the background's
                activations have more than a fifth of the object's energy (but not at the image,
                where the background is this scene's own colours). Masks were worse with it.

        Raises:
            BackwardError: The model isn't plain, the shapes don't fit, or there are fewer
                objects than templates.
        """
        _check(objects, masks, categories, backgrounds, templates)
        found = find_sites(model, objects[:1])
        if sites is not None:
            found = _shapes(model, sites, objects[:1])
        network = Network(model, list(found))
        names = tuple(dict.fromkeys(categories))
        index = torch.tensor([names.index(category) for category in categories])
        shares = _shares(torch.bincount(index).tolist(), templates)
        shapes = found | {IMAGE: tuple(objects.shape[1:])}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fitted = Activations(shapes, names, templates, components)
        generator = torch.Generator().manual_seed(seed)

        def draw(rows: Tensor):
            other = torch.randint(len(backgrounds), (len(rows),), generator=generator)
            return paste(objects[rows], masks[rows], backgrounds[other])

        seen = fit_observations(fitted, network, draw(torch.arange(len(objects))))
        nearest = fit_templates(fitted, network, objects, index, shares)
        drawer = Drawer(fitted, network, draw, nearest, batch, generator)
        fit_decoders(fitted, drawer, generator, steps=steps)
        each = [speaks_for(fitted, drawer()) for _ in range(REPORTED)]
        report = {
            name: {"share": sum(e[name] for e in each) / REPORTED, "energy": seen[name]["energy"]}
            for name in shapes
        }
        levels = len(shapes)
        options = SearchOptions(
            reach=(0,) * (levels - 1),
            shares=(1.0,) * levels,
            evidence=tuple(not leave_out or _good(*site) for site in report.items()),
        )
        return cls(network, fitted, options, report)

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of what can be found."""
        return self.activations.categories

    def log_prior(self, categories: Sequence[str] | None = None) -> Tensor:
        """Even over some categories, or over all: (categories,), in nats."""
        wanted = list(categories or self.categories)
        if unknown := [name for name in wanted if name not in self.categories]:
            raise BackwardError(
                f"No category {unknown[0]!r}: {', '.join(self.categories)} are possible."
            )
        prior = torch.full((len(self.categories),), -torch.inf)
        prior[[self.categories.index(name) for name in wanted]] = -torch.tensor(len(wanted)).log()
        return prior

    @torch.no_grad()
    def sample(self, n: int, category: str, seed: int = 0) -> Tensor:
        """Imagine objects without an image: (n, 3, H, W) on nothing.

        Args:
            n: How many.
            category: Of what.
            seed: Decides which.
        """
        model, generator = self.activations, torch.Generator().manual_seed(seed)
        row = self.categories.index(category) if category in self.categories else None
        if row is None:
            self.log_prior([category])
        chance = model.templates.log_prior[row].exp()
        parent = torch.multinomial(chance, n, replacement=True, generator=generator)
        above, rows = model.top(parent).value, torch.arange(n)
        for level in range(1, len(model.names)):
            logit, mean = model.predict(level, above)
            chance = model.log_bigram(level)[parent].exp()
            parent = torch.multinomial(chance, 1, generator=generator)[:, 0]
            above = model.settle(level, logit[rows, parent], mean[rows, parent], None).value
        return above * model.observations[-1].scale[:, None, None]

    def backward(
        self,
        images: Tensor,
        categories: Sequence[str] | None = None,
        *,
        place: Place | None = None,
        log_prior: Tensor | None = None,
    ) -> list[Instance]:
        """The best explanation of each image by one object.

        Args:
            images: (n, 3, H, W), as the network takes them.
            categories: What may be found; by default all.
            place: Centres (k, 2), y and x from -1 to 1, to log-priors (k,).
            log_prior: (categories,), in place of `categories`.
        """
        self._check_images(images)
        prior = self.log_prior(categories) if log_prior is None else log_prior
        return [self._instance(image, prior, place) for image in images]

    def parse(
        self, image: Tensor, max_objects: int, categories: Sequence[str] | None = None
    ) -> list[Instance]:
        """Objects of one image (3, H, W), one by one.

        What was found is taken out of every layer: its pixels become nothing, and in these
        networks nothing in the image is nothing in every layer. The rest is searched again.

        Args:
            image: As the network takes it.
            max_objects: How many to look for. It ends early at an object that doesn't agree with
                the network's own map, or, where there is none, at a score below 0.
            categories: What may be found; by default all.
        """
        instances: list[Instance] = []
        rest = image
        for _ in range(max_objects):
            (instance,) = self.backward(rest[None], categories)
            if instances and _doubtful(instance):
                break
            instances.append(instance)
            hole = torch.nn.functional.max_pool2d((instance.mask > SEEN)[None].float(), 3, 1, 1)
            rest = rest * (1 - hole)
        return instances

    @torch.no_grad()
    def _instance(self, image: Tensor, prior: Tensor, place: Place | None) -> Instance:
        found = search(self.activations, self.network, image, prior, self.options, place)
        centres = found.centres(self.activations.shapes[self.activations.names[0]][1])
        if self.options.piece:
            pieces = [one_piece(m, c) for m, c in zip(found.mask, centres, strict=True)]
            found = replace(found, mask=found.mask * torch.stack(pieces))
        agree = None
        if self.coverage and self.options.guided:
            kind = self.activations.templates.category[found.template]
            agree = agreement((found.mask > SEEN).float(), self.coverage(image[None])[0, kind])
            value = agree.log() + prior[kind] + (place(middles(found.mask)) if place else 0)
            order = value.argsort(descending=True, stable=True)
            found, centres, agree = found.take(order), centres[order], float(agree[order[0]])
        amodal, picture = found.amodal[0], found.picture[0]
        if self.options.piece:
            piece = one_piece(amodal, centres[0])
            amodal, picture = amodal * piece, picture * piece
        name = self.categories[int(self.activations.templates.category[found.template[0]])]
        score, odds = float(found.score[0]), found.log_odds[0]
        return Instance(name, odds, score, agree, found.mask[0], amodal, picture, found)

    def _check_images(self, images: Tensor) -> None:
        shape = self.activations.shapes[IMAGE]
        if images.ndim != 4 or tuple(images.shape[1:]) != tuple(shape):
            raise BackwardError(
                f"Images are {tuple(images.shape)}: (n, {', '.join(map(str, shape))}) is needed."
            )
        if not torch.isfinite(images).all():
            bad = int((~torch.isfinite(images).flatten(1).all(1)).nonzero()[0])
            raise BackwardError(f"Image {bad} has values that are NaN or infinite.")

    def with_options(self, **changes) -> "GenerativeModel":
        """The same model with other search options."""
        options = replace(self.options, **changes)
        return GenerativeModel(self.network, self.activations, options, self.report, self.coverage)


def _doubtful(found: Instance) -> bool:
    """Whether an instance is probably nothing."""
    return found.score < 0 if found.agreement is None else found.agreement < LEAST_AGREEMENT


def _good(site: str, found: Mapping[str, float]) -> bool:
    """Whether a site's evidence is worth listening to."""
    quiet = site == IMAGE or found["energy"] <= MOST_ENERGY
    return quiet and found["share"] >= LEAST_SHARE


def _shapes(model: nn.Module, sites: Sequence[str], images: Tensor):
    found = Network(model, sites)(images)
    return {name: tuple(found[name].shape[1:]) for name in sites}


def _shares(counts: list[int], templates: int) -> list[int]:
    """Templates of each category: at least one, in proportion to its objects."""
    total = sum(counts)
    shares = [max(1, round(templates * count / total)) for count in counts]
    shares[shares.index(max(shares))] += templates - sum(shares)
    return shares


def _check(objects, masks, categories, backgrounds, templates: int) -> None:
    n, shape = len(objects), tuple(objects.shape)
    if objects.ndim != 4 or tuple(masks.shape) != (n, 1, *shape[2:]):
        raise BackwardError(
            f"Objects are {shape} and masks {tuple(masks.shape)}: (n, 3, H, W) and (n, 1, H, W) "
            "are needed."
        )
    if len(categories) != n:
        raise BackwardError(f"There are {n} objects and {len(categories)} categories.")
    if tuple(backgrounds.shape[1:]) != shape[1:]:
        raise BackwardError(
            f"Backgrounds are {tuple(backgrounds.shape)}: (m, {', '.join(map(str, shape[1:]))}) "
            "is needed."
        )
    if n < templates:
        raise BackwardError(f"{n} objects can't make {templates} templates: give templates={n}.")
