"""What Baker 2022 and its discussion say of rotations that make computation local."""

from pipeline.toy.findings import Claim
from pipeline.toy.mnist_rotation import checks_bases as bases
from pipeline.toy.mnist_rotation import checks_regimes as regimes
from pipeline.toy.mnist_rotation import checks_search as search

DERIVED, QUESTION = "derived", "question of this toy"
POST, TALK = "Baker 2022, post", "Baker 2022, discussion"

CLAIMS = (
    Claim("unchanged", POST, "The rotations do not change the function that the network implements.", bases.unchanged),
    Claim("local", POST, "Rotations make the middle layer's Jacobian sparse.", bases.local),
    Claim(
        "layers",
        TALK,
        "The first and last layers cannot be made much sparser, the middle layer changes drastically.",
        bases.layers,
    ),
    Claim("last-identity", TALK, "On the last layer the method gives the identity.", bases.identity),
    Claim(
        "last-found",
        QUESTION,
        "Is the identity of the last layer found by the search, wherever it begins?",
        bases.found_again,
    ),
    Claim("little", TALK, "Rotations alone do not give much improvement.", bases.hard_to_believe),
    Claim(
        "many-inputs", TALK, "One rotation makes the Jacobian sparse at many data points simultaneously.", bases.many
    ),
    Claim("one-input", POST, "Does a rotation found from one input serve many inputs?", bases.from_few(0)),
    Claim("few-inputs", POST, "Does a rotation found from only a few inputs serve many inputs?", bases.from_few(1)),
    Claim(
        "composition",
        TALK,
        "The sparse output channels of X → Y approximately match the sparse input channels of Y → Z.",
        bases.compose,
    ),
    Claim("beyond-chance", QUESTION, "Do they match better than random bases do?", bases.beyond_chance),
    Claim(
        "backward",
        POST,
        "Beginning at the output as the preferred basis is as good a way as beginning at the pixels.",
        search.backward,
    ),
    Claim(
        "better-way", POST, "There is a far, far better way of solving this than gradient descent.", search.better_way
    ),
    Claim(
        "no-better-way", TALK, "There is no better way to learn the rotation than gradient descent.", search.no_better
    ),
    Claim(
        "relaxation", TALK, "A tight relaxation bounds how far the rotation found is from the best.", search.relaxation
    ),
    Claim(
        "qr",
        TALK,
        "Has the QR decomposition of the weights as the starting point an effect: is it better?",
        search.start("qr"),
    ),
    Claim("invertible", TALK, "Any invertible matrix works just as well as a rotation.", search.invertible),
    Claim(
        "translation",
        DERIVED,
        "A translation does not do the same as a rotation: it leaves the layer's Jacobian as it is.",
        search.translation,
    ),
    Claim("normaliser", TALK, "A map that is not normalised gets arbitrarily close to zero.", search.normaliser),
    Claim("permutation", TALK, "A permutation does nothing but shuffle the order.", search.permutation),
    Claim("zeros", TALK, "A measure that really likes zeros gives more zeros than all the Ln norms.", search.zeros),
    Claim(
        "few-axes",
        TALK,
        "In the basis found, fewer than 20 neurons determine most of the output.",
        bases.few,
    ),
    Claim(
        "performance", TALK, "What is the effect on performance of keeping only these axes: none?", bases.performance
    ),
    Claim("by-rotation", QUESTION, "Are fewer rotated axes needed than neurons?", bases.by_rotation),
    Claim(
        "by-length",
        TALK,
        "Does training, and longer training, make hidden layers more local?",
        regimes.changed("length"),
    ),
    Claim("by-decay", TALK, "Does weight decay make hidden layers more local?", regimes.changed("decay")),
    Claim("by-dropout", TALK, "Does dropout make hidden layers more local?", regimes.changed("dropout")),
    Claim("by-width", TALK, "Do wider layers become more local?", regimes.changed("width")),
    Claim(
        "by-activation",
        TALK,
        "Do GELU and tanh make hidden layers more local than ReLU?",
        regimes.changed("activation"),
    ),
    Claim("by-depth", TALK, "Do more layers make hidden layers more local?", regimes.changed("depth")),
    Claim(
        "zero-loss",
        TALK,
        "Networks at zero loss are less in superposition: rotations make them sparser.",
        regimes.zero_loss,
    ),
    Claim("robust", TALK, "The rotated representation is far more robust and generalises better.", search.robust),
    Claim("training", TALK, "The transformation will not improve training.", search.no_training),
    Claim("shifted", TALK, "The non-locality shifts from the weights to the rotation matrix.", search.shifted),
)
