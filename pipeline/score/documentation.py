"""What every column of scores.json means."""

DOCUMENTATION = {
    "site": "what is read and what is written, -- between them where they differ; reads and writes list the hook points",
    "d_in, d_out": "coordinates of what is read and of what is written",
    "l0": "mean number of active features a token: of entries of a code that are not zero, whatever their sign",
    "l0_p10, l0_p90": "its 10% and 90% quantiles over tokens",
    "fvu": "fraction of variance unexplained of what is written, sums over all scored rows; 0 perfect, 1 the mean; of "
    "several hook points the mean of fvu[HOOK_POINT]",
    "normalized_mse": "sum |y - y_hat|^2 / sum |y|^2 of what is written, mean over hook points",
    "cosine": "mean over rows of the cosine between what is written and what the dictionary makes; mean over hook points",
    "norm_ratio": "mean over rows of |y_hat| / |y|, below 1 where reconstructions shrink; mean over hook points",
    "fvu_at_l0_K": "dictionaries that are not sparse: fvu with each row's K largest coordinates kept",
    "fvu_first_K": "pca: fvu with the K components of largest variance kept",
    "share[HOOK_POINT]": "where several are written: a feature's share of its decoder's norm there, in units of each hook "
    "point's scale; mean over features that are not dead",
    "dead": "features active on none of the n_rows scored rows",
    "ultra_low_density": "features active, but on a smaller fraction of the rows than score.ultra_low_density; null "
    "where that is less than one row",
    "dense": "features active on more than a tenth of the rows",
    "signed": "whether codes may be negative, as those of rotations, PCA and AbsTopK",
    "sparse": "whether the architecture sets entries of a code to zero, as rotations and PCA do not",
    "ce_*, kl, top1, n_predictions": "absent where the store's rows were made by no language model",
    "ce_clean, ce, kl": "nats a token: model as it is, with what is written replaced by what the dictionary makes of what "
    "it reads in the clean pass, and the divergence between",
    "ce_score_zero[HOOK_POINT], kl[HOOK_POINT], top1[HOOK_POINT]": "where several are written: with that one alone replaced. "
    "Replaced together, as in ce, kl and top1, those on one residual stream leave what is written last",
    "top1": "share of predictions whose most probable token is the clean model's",
    "ce_zero, ce_mean": "nats a token with what is written replaced by zero, by the mean of the store's rows",
    "ce_score_zero, ce_score_mean": "(ce_ablated - ce) / (ce_ablated - ce_clean)",
    "n_rows, n_predictions": "held-out rows and predictions scored; positions as in the store: by default all but the "
    "first, BOS (the separators of documents within a context stay)",
    "pairs: mmcs": "mean over a's live features of the largest cosine with any of b's; |cosine| where signed; of what is "
    "written, in units of each hook point's scale",
    "pairs: random_floor": "the mean of the same with b replaced by as many random directions",
    "pairs: matched_cosine": "mean cosine of the best one-to-one matching; of up to 4096 live features each",
    "pairs: matched_floor": "the same with a random basis in b's place",
    "pairs: relation": "seed: all else equal; larger, smaller: next size; method: another way to make a dictionary; "
    "foreign: either is of score.dictionaries; truth: either is the ground truth of a toy; next layer: a is what one "
    "layer writes, b what the next one reads; next site, previous site: autoencoders of the same method and settings at "
    "neighbouring hook points of the residual stream, or of what is written to it and the next one there",
    "groups": "dictionaries of a site that differ in the seed alone (names; n of them): of each score the mean over seeds, the "
    "standard deviation (n - 1) and Student's 95% interval of the mean, low to high; null of one seed; exact: the method has "
    "no seed. Rows, their order and texts are the same for all seeds. In intervals, of comparisons too, a count (dead, "
    "ultra_low_density, dense) has a variance of 1/12 at least. mmcs: the mean over all pairs of seeds, both ways; its "
    "interval is the jackknife's, which leaves one seed out at a time, with n - 1 degrees of freedom, and std is √n times its "
    "standard error; of two seeds, which are one pair, null",
    "groups: control, controls": "what it is a control by: a twin with one side frozen as it began, or directions drawn with "
    "the activations' covariance; and which groups are controls of it: all else equal, or as many features about as sparse",
    "comparisons": "difference: by how much a is better than b (less fvu, kl, dead; more of the others), low to high Welch's "
    "95% interval, Student's where one is exact, each comparison by itself; apart: the interval is on one side of 0, and not "
    "where either is one seed",
    "comparisons: relation": "control: b is the best of a's controls in that score, the difference is the margin over it; "
    "next: b is the next worse at the site among those about as sparse, within e^.15 in L0",
    "sets": "transcoders of the same method and settings, each of a hook point of its own, spliced in all at once, each "
    "reading the stream that those before it changed; sites: theirs, fvu: the mean of theirs",
    "sets: ce, kl, top1, ce_zero, ce_mean": "as above, with all that they write replaced",
    "sets: *_with_errors": "with each one's error in the clean pass added: what is left of a difference is rounding",
}
