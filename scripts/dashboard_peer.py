"""SAEDashboard on a store's own text, as the peer that the report's pages are measured beside. Nothing is downloaded."""

import contextlib
import io
import time
import warnings
from pathlib import Path

import torch

from stores.activations import ActivationStore


def dashboards_s(
    store: ActivationStore, model_folder: Path, dictionary: Path, n_sequences: int, n_features: int, out: Path
) -> float:
    """Seconds of its own runner and writer, with its defaults, on the first features and held-out sequences: it runs the model
    once for every 256 features. Loading the model and the dictionary does not count.

    dictionary: a ReLU autoencoder, it refuses TopK. Raises ImportError: SAEDashboard is not installed.
    """
    from sae_dashboard.data_writing_fns import save_feature_centric_vis
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner
    from sae_lens import HookedSAETransformer
    from sae_lens.saes.sae import SAE
    from transformer_lens import HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import convert_gpt2_weights
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

    reference = GPT2LMHeadModel.from_pretrained(model_folder, dtype=torch.float32)
    c = reference.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head, n_heads=c.n_head,
        d_vocab=c.vocab_size, act_fn="gelu_new", normalization_type="LN", device="cpu",
    )  # fmt: skip
    model = HookedSAETransformer(config)
    as_they_are = dict.fromkeys(("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"), False)
    model.load_and_process_state_dict(convert_gpt2_weights(reference, config), **as_they_are)
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(model_folder / "tokenizer.json"))
    tokens = torch.from_numpy(store.heldout_tokens(n_sequences)).long()
    asked = SaeVisConfig(hook_point=store.hook_points[0], features=range(n_features))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        sae = SAE.load_from_disk(str(dictionary), device="cpu")
        started = time.perf_counter()
        data = SaeVisRunner(asked).run(encoder=sae, model=model, tokens=tokens)
        save_feature_centric_vis(data, filename=out)
    return time.perf_counter() - started
