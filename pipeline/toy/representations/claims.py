"""What the source says of representations, and what decides on it."""

from pipeline.toy.findings import Claim
from pipeline.toy.representations import checks, computing_checks, language_checks

SOURCE = "Neural Network Representations"

CLAIMS = (
    Claim(
        "different-neurons",
        f"{SOURCE}, figure 2",
        "A layer trained to care about ground and shape has a different neuron for red, blue, circle and triangle.",
        checks.different_neurons,
    ),
    Claim(
        "memorises",
        f"{SOURCE}, decomposability",
        "A network that finds no discrete qualities works like a look-up table: it memorises.",
        checks.memorises,
    ),
    Claim(
        "generalises",
        f"{SOURCE}, figure 3",
        "On a ground of purple, never seen, a net with discrete qualities is better off than a look-up table of pixels.",
        checks.generalises,
    ),
    Claim(
        "purple",
        f"{SOURCE}, figure 3",
        "The purple ground is represented in the learned qualities, red and blue.",
        checks.purple,
    ),
    Claim(
        "vector-sum",
        f"{SOURCE}, claim 2 and figure 7",
        "Encodings of several qualities are composed as a vector sum.",
        checks.vector_sum,
    ),
    Claim(
        "scaled",
        f"{SOURCE}, claim 1 and figure 5",
        "The strengths of one quality are scaled versions of one direction.",
        checks.scaled,
    ),
    Claim("binary", f"{SOURCE}, figure 6a", "Binary encodings of a quality are not very robust.", checks.binary),
    Claim(
        "ranges",
        f"{SOURCE}, figure 6b",
        "With a direction for each range of a quality a layer runs out of directions rapidly.",
        checks.ranges,
    ),
    Claim(
        "example",
        f"{SOURCE}, claim 2",
        "Two numbers in one: the worked example comes out as reported, and comes back.",
        checks.example,
        "[0.32, 0.68]",
    ),
    Claim(
        "precision",
        f"{SOURCE}, claim 2",
        "Z is chosen by the precision that is needed: the code gives numbers of more decimals back with a larger Z.",
        checks.precision,
    ),
    Claim(
        "every-pair",
        f"{SOURCE}, claim 2",
        "The source's arithmetic gives every pair back, whatever the number of decimals.",
        checks.every_pair,
    ),
    Claim(
        "nets-compress",
        f"{SOURCE}, claim 2",
        "Networks can approximate the non-linear compression.",
        checks.nets_compress,
    ),
    Claim(
        "natural",
        f"{SOURCE}, proof of linearity",
        "Linear representations are the more natural option for networks.",
        checks.natural,
    ),
    Claim(
        "performant",
        f"{SOURCE}, proof of linearity",
        "Linear representations are the more performant option: on them nets learn what they do not on one number.",
        computing_checks.performant,
    ),
    Claim(
        "can-compute",
        f"{SOURCE}, figure 9",
        "Computation can be done straight on the compressed number.",
        computing_checks.can_compute,
    ),
    Claim(
        "decompress",
        f"{SOURCE}, figure 8",
        "Networks decompress a non-linear representation, and compute on linear variables.",
        computing_checks.decompress,
    ),
    Claim(
        "decompress-because",
        f"{SOURCE}, figure 8",
        "They decompress because the computation asks for it: more than before training, and more than for another function.",
        computing_checks.because,
    ),
    Claim(
        "unlikely", f"{SOURCE}, figure 9", "Computation in the compressed state is unlikely.", computing_checks.unlikely
    ),
    Claim(
        "plurality",
        f"{SOURCE}, after Mikolov et al. 2013",
        "Plurality is one direction in a language model's embedding.",
        language_checks.plurality,
    ),
    Claim(
        "relations",
        f"{SOURCE}, after Mikolov et al. 2013",
        "Relations like plurality exist between the representations of words.",
        language_checks.others,
    ),
    Claim(
        "layers",
        f"{SOURCE}, proof of linearity",
        "Linear representations are prevalent throughout networks, not in the embedding alone.",
        language_checks.layers,
    ),
    Claim(
        "orthogonal",
        f"{SOURCE}, figure 11",
        "Orthogonal features off the neurons' basis are recovered exactly by dot products.",
        checks.orthogonal,
    ),
    Claim(
        "third-feature",
        f"{SOURCE}, features",
        "Two dimensions have two orthogonal directions: a third feature is not recovered.",
        checks.third,
    ),
    Claim(
        "rows",
        f"{SOURCE}, how features are stored",
        "The features that a layer has learned are the rows of its weight matrix.",
        checks.rows,
    ),
    Claim(
        "directions",
        f"{SOURCE}, how features are stored",
        "A feature is a direction of the activation: W f, wherever the weights keep it.",
        checks.columns,
    ),
    Claim("basis-aligned", f"{SOURCE}, features", "Basis-aligned neurons do not occur often.", language_checks.aligned),
)
