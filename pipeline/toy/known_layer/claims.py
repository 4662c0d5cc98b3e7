"""What the discussion of Baker 2022 says of superposition."""

from pipeline.toy.findings import Claim
from pipeline.toy.known_layer import checks
from pipeline.toy.known_layer.sharing import ALMOST, P

SOURCE = "Baker 2022, discussion"
OWN = "question of this toy"

CLAIMS = (
    Claim(
        "device",
        SOURCE,
        "The rotation of sparse Jacobians may be expected to disentangle any superpositions which exist.",
        checks.device,
    ),
    Claim(
        "nice-basis",
        SOURCE,
        "Where there is a nice basis, the rotation of sparse Jacobians finds it.",
        checks.nice_basis,
    ),
    Claim(
        "impossible",
        f"{SOURCE}; derived",
        "With more features than neurons it is impossible to find a rotation that maps neurons and features one to one.",
        checks.impossible,
    ),
    Claim(
        "coincides",
        SOURCE,
        "The rotation of sparse Jacobians coincides with the one that maximises neuron-feature-bijectiveness.",
        checks.coincides,
    ),
    Claim("robust", SOURCE, "Is there a robust way to disentangle a hand-made layer in superposition?", checks.robust),
    Claim("chance", SOURCE, "What the rotation of sparse Jacobians finds there is more than chance.", checks.chance),
    Claim(
        "expanded",
        SOURCE,
        "An expanded view, one neuron a feature, has sparse activations for any data point.",
        checks.expanded,
    ),
    Claim(
        "exponential",
        SOURCE,
        f"There are exponentially many almost orthogonal directions (|cosine| < {ALMOST:g}) as the dimension grows.",
        checks.exponential,
    ),
    Claim(
        "same-thing",
        SOURCE,
        "A network that keeps two features in one number has not figured out how to distinguish between them.",
        checks.same_thing,
    ),
    Claim(
        "two-in-one",
        SOURCE,
        "Two features that exclude each other can be kept in one number and decoded without error.",
        checks.two_in_one,
    ),
    Claim("would-fail", SOURCE, "Where the two can occur together, such a network would fail.", checks.would_fail),
    Claim(
        "one-axis",
        f"{OWN}; derived",
        "A rotation has one axis for one number, so it cannot have both of two features in it.",
        checks.rotation_cannot,
    ),
    Claim("relu-finds", OWN, "A ReLU dictionary finds both of two features in one number.", checks.relu_can),
    Claim(
        "mere",
        SOURCE,
        f"Two features of probability {P:g} are both present with a probability of a mere 0.00025.",
        checks.mere,
        "0.00025",
    ),
    Claim(
        "error-rate",
        SOURCE,
        "Two features for the price of one, with an error rate of 0.025%.",
        checks.error_rate,
        "0.025%",
    ),
    Claim(
        "squared",
        "p², closed form",
        f"Two independent features of probability {P:g} meet in {P * P:g}, and the error rate is {100 * P * P:g}%.",
        checks.squared,
    ),
    Claim(
        "favoured", SOURCE, "With fewer neurons than features a network should favour superposition.", checks.favoured
    ),
    Claim(
        "function-of",
        SOURCE,
        "Whether there is superposition depends on the number of features, their sparsity and the size of the bottleneck.",
        checks.dense_not,
    ),
    Claim(
        "anticorrelated",
        SOURCE,
        "Features that are anti-correlated are even more favourable to superposition.",
        checks.anticorrelated,
    ),
)
