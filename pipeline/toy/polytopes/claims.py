"""What the sources say of polytopes."""

from pipeline.toy.findings import Claim
from pipeline.toy.polytopes import checks, checks_maps

LENS = "Black et al. 2022"
DISCUSSION = "Black et al. 2022, discussion"
DERIVED = "derived; question of Black et al. 2022, discussion"
SOFT = "Balestriero and Baraniuk 2018"

CLAIMS = (
    Claim(
        "affine", LENS,
        "On the polytope of a spline code the network is one affine map, which the code gives.", checks.affine,
    ),
    Claim("denser-between", LENS, "Boundaries are denser between classes than within one.", checks.denser),
    Claim(
        "shell", DISCUSSION,
        "There is a shell, a region that many boundaries pass through: denser than what lies inside, and outside.",
        checks.shell,
    ),
    Claim("outwards", DISCUSSION, "Boundaries extend further out: they do not stop at the shell.", checks.outwards),
    Claim(
        "one-row", DISCUSSION,
        "The weight matrices of neighbouring polytopes vary by one row, so that the network's maps differ by rank one.",
        checks.rank,
    ),
    Claim("similar", DISCUSSION, "Neighbouring polytopes implement very similar transformations.", checks.similar),
    Claim(
        "unbounded", DERIVED,
        "Can the Frobenius norm of the difference across a boundary be arbitrarily large? The network is homogeneous in its "
        "weights: it has no bound.",
        checks.unbounded,
    ),
    Claim(
        "measure", DERIVED,
        "What would be a reasonable measure of how constrained neighbours are? The norm of the difference relative to that of "
        "the maps is at most 2, by the triangle inequality, and no factor on all weights changes it.", checks.measure,
    ),
    Claim("adversarial", DISCUSSION, "Adversarial steps of small norm cross lots of boundaries.", checks.crosses),
    Claim("later-activations", DISCUSSION, "So later activations are in quite different directions.", checks.turned),
    Claim("far-out", DISCUSSION, "Adversarial examples arise from polytopes far from the origin.", checks.far),
    Claim(
        "scale-invariant", LENS, "Without biases a code does not depend on the scale of activations.",
        checks.scale_invariant,
    ),
    Claim(
        "valid-within", DISCUSSION,
        "A direction means the same in a range of magnitudes, its distribution of validity: a little longer or shorter.",
        checks.valid_within,
    ),
    Claim(
        "valid-beyond", DISCUSSION, "Beyond that range it means something else: later activations are messed up.",
        checks.valid_beyond,
    ),
    Claim("tokens", LENS, "Clusters of a language model's activations stand for one thing.", checks.tokens),
    Claim(
        "channels", LENS, "Clusters of channel vectors at one place of a picture stand for one thing.", checks.channels
    ),
    Claim(
        "soft-code", DERIVED,
        "What does the binary code become for GELU? q = gelu(h) / h, a distribution function, is from 0 to 1.",
        checks.soft,
    ),
    Claim(
        "expectation", SOFT,
        "The affine map at an input is an interpolation of all codes' maps, weighted by the input's probability of each.",
        checks.expectation,
    ),
    Claim(
        "expectation-followed", f"{SOFT}, carried on to several layers",
        "Nothing is lost over several layers where a layer's probabilities follow from the gates drawn before it.",
        checks.followed,
    ),
    Claim(
        "competitive", DISCUSSION, "N linear maps at N centres are hardly competitive with a neural network.",
        checks_maps.competitive,
    ),
    Claim(
        "lookup", DISCUSSION,
        "N matrices have to be stored and looked up, which isn't great when N is large: do those that stand for a network cost "
        "ten times as much as it? They are its own maps at random training digits, N is on a grid.",
        checks_maps.large,
    ),
    Claim(
        "decoupled", DISCUSSION,
        "Can the functions and the classes be decoupled? It seems possible: other schemes choose between linear maps, such as "
        "the nearest of N centres.", checks_maps.decouple,
    ),
    Claim(
        "frozen-codes", "question of this toy",
        "Do maps that are trained under codes that stay do as well as codes and maps trained together?", checks_maps.anew,
    ),
    Claim(
        "power", DISCUSSION,
        "How much of the power comes from learning to classify? Codes add to what one map does, learned codes to drawn ones.",
        checks_maps.power,
    ),
)  # fmt: skip
