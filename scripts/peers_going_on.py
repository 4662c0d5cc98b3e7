"""Whether training in other libraries goes on where it was, and whether a changed bit in stored rows is found.

    python -m scripts.peers_going_on saelens | sigterm | sparsify | openmoss | stored

Each trains something small on a CPU to its end, again from a checkpoint on the way, and compares the weights. One library
a process; it has to be installed (`stored` takes datasets and OpenMOSS's). Where there is no GPU
sparsify needs SPARSIFY_DISABLE_TRITON=1. Figures: pipeline/COMPARED.md.
"""

import argparse
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch


def difference(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> str:
    if all(torch.equal(a[key], b[key]) for key in a):
        return "equal"
    return f"not equal: a weight differs by up to {max(float((a[k] - b[k]).abs().max()) for k in a):.3g}"


def tokens() -> Any:
    from datasets import Dataset

    drawn = torch.randint(1, 50, (6000, 16), generator=torch.Generator().manual_seed(1))
    return Dataset.from_dict({"input_ids": drawn.tolist()}).with_format("torch")


def _saelens_run(folder: Path, resume: Path | None = None, stop_at: int | None = None) -> Mapping[str, torch.Tensor]:
    from sae_lens import (
        LanguageModelSAERunnerConfig,
        LanguageModelSAETrainingRunner,
        LoggingConfig,
        SAETrainer,
        TopKTrainingSAEConfig,
    )
    from safetensors.torch import load_file
    from tokenizers import Tokenizer, models
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformers import PreTrainedTokenizerFast

    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=1, d_model=16, n_ctx=16, d_head=8, d_mlp=32, d_vocab=50, act_fn="gelu", seed=0, device="cpu"
        )
    )
    words = {"<e>": 0} | {f"w{i}": i for i in range(1, 50)}
    model.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<e>")),
        bos_token="<e>", eos_token="<e>", pad_token="<e>",
    )  # fmt: skip
    config = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=16, d_sae=64, k=4, device="cpu"), model_name="tiny", dataset_path="tiny",
        hook_name="blocks.0.hook_resid_post", is_dataset_tokenized=True, streaming=False, context_size=16,
        prepend_bos=False, training_tokens=32_000, train_batch_size_tokens=128, store_batch_size_prompts=8,
        n_batches_in_buffer=64, lr=1e-3, n_checkpoints=1, checkpoint_path=str(folder / "checkpoints"), device="cpu",
        output_path=str(folder / "final"), logger=LoggingConfig(log_to_wandb=False), verbose=False,
        resume_from_checkpoint=None if resume is None else str(resume),
    )  # fmt: skip
    torch.manual_seed(0)
    runner = LanguageModelSAETrainingRunner(config, override_dataset=tokens(), override_model=model)
    step = SAETrainer.step

    def stopped(self: Any, batch: torch.Tensor) -> Any:
        if self.n_training_steps == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    SAETrainer.step = stopped
    try:
        runner.run()
    finally:
        SAETrainer.step = step
    return load_file(folder / "final" / "sae_weights.safetensors")


def saelens(folder: Path) -> None:
    whole = _saelens_run(folder / "whole")
    print("the same run twice:", difference(whole, _saelens_run(folder / "again")))
    (checkpoint,) = [p.parent for p in (folder / "whole").rglob("trainer_state.pt") if p.parent.name.isdigit()]
    print("resumed:", difference(whole, _saelens_run(folder / "resumed", resume=checkpoint)))


def sigterm(folder: Path) -> None:
    try:
        _saelens_run(folder, stop_at=100)
    except BaseException as error:
        print("ended by", type(error).__name__, str(error)[:200])
    print("files:", [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()])


class _SavedError(Exception):
    pass


def sparsify(folder: Path) -> None:
    from safetensors.torch import load_file
    from sparsify import SaeConfig, TrainConfig, Trainer
    from transformers import GPT2Config, GPT2Model

    def trainer(name: str, optimizer: str) -> Any:
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50, n_positions=16)).eval()
        config = TrainConfig(
            SaeConfig(expansion_factor=4, k=4), batch_size=8, hookpoints=["h.0"], save_every=60, optimizer=optimizer,
            log_to_wandb=False, run_name=name, save_dir=str(folder), lr_warmup_steps=10,
        )  # fmt: skip
        return Trainer(config, tokens().select(range(800)), model)

    def fitted(made: Any, name: str) -> Mapping[str, torch.Tensor]:
        made.fit()
        return load_file(folder / name / "h.0" / "sae.safetensors")

    for optimizer in ("signum", "adam"):
        whole = fitted(trainer(f"whole-{optimizer}", optimizer), f"whole-{optimizer}")
        again = fitted(trainer(f"again-{optimizer}", optimizer), f"again-{optimizer}")
        print(optimizer, "the same run twice:", difference(whole, again))
        stopped = trainer(f"stopped-{optimizer}", optimizer)
        save = stopped.save

        def save_and_stop(save: Any = save) -> None:
            save()
            raise _SavedError

        stopped.save = save_and_stop
        try:
            stopped.fit()
        except _SavedError:
            print("saved", torch.load(folder / f"stopped-{optimizer}" / "state.pt"))
        for later in (0, 1):
            resumed = trainer(f"resumed-{optimizer}-{later}", optimizer)
            resumed.load_state(str(folder / f"stopped-{optimizer}"))
            resumed.global_step += later
            weights = fitted(resumed, f"resumed-{optimizer}-{later}")
            print(optimizer, f"resumed, global_step raised by {later}:", difference(whole, weights))


def openmoss(folder: Path) -> None:
    from llamascopium import SAEConfig, SparseAutoEncoder, SparseDictionary, Trainer, TrainerConfig

    def rows(first: int, last: int = 100) -> Iterator[dict[str, torch.Tensor]]:
        drawn = torch.Generator().manual_seed(1)
        for i in range(last):
            batch = {"h": torch.randn(64, 16, generator=drawn), "tokens": torch.zeros(64, dtype=torch.long)}
            if i >= first:
                yield batch | {"mask": torch.ones(64, dtype=torch.bool)}

    def trained(name: str, stream: Iterator[dict[str, torch.Tensor]]) -> tuple[Any, Any]:
        torch.manual_seed(0)
        sae = SparseAutoEncoder(
            SAEConfig(
                hook_point_in="h", hook_point_out="h", d_model=16, expansion_factor=4, act_fn="topk", top_k=4,
                device="cpu", dtype=torch.float32, sparsity_include_decoder_norm=True,
            )
        )  # fmt: skip
        sae.init_parameters(encoder_uniform_bound=0.2, decoder_uniform_bound=0.2)
        sae.set_dataset_average_activation_norm({"h": 4.0})
        trainer = Trainer(
            TrainerConfig(
                total_training_tokens=6400, lr=1e-3, initial_k=4, exp_result_path=str(folder / name), n_checkpoints=2,
                amp_dtype=torch.float32, check_point_save_mode="linear", skip_metrics_calculation=True,
            )
        )  # fmt: skip
        trainer.fit(sae=sae, activation_stream=stream, eval_fn=None)
        return sae, trainer

    whole = trained("whole", rows(0))[0].state_dict()
    print("left on the way:", [p.name for p in (folder / "whole" / "checkpoints").rglob("*")])
    half, trainer = trained("half", rows(0, 50))
    trainer.save_checkpoint(half, folder / "half")
    (checkpoint,) = [p.parent for p in (folder / "half").rglob("trainer.pt")]
    for first, what in ((0, "resumed, the data from their start"), (50, "resumed, the data moved by hand")):
        sae = SparseDictionary.from_pretrained(str(checkpoint), fold_activation_scale=False)
        trainer = Trainer.from_checkpoint(sae, str(checkpoint))
        trainer.fit(sae=sae, activation_stream=rows(first), eval_fn=None)
        print(f"{what}:", difference(whole, sae.state_dict()))


def stored(folder: Path) -> None:
    from datasets import Array2D, Dataset, Features, load_from_disk

    x = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))

    def change_a_bit(file: Path) -> None:
        held = bytearray(file.read_bytes())
        held[held.index(x[1].numpy().tobytes()) + 50] ^= 0x40
        file.write_bytes(held)

    features = Features({"h": Array2D(shape=(4, 16), dtype="float32")})
    Dataset.from_dict({"h": x.numpy()}, features=features).save_to_disk(str(folder / "datasets"))
    change_a_bit(next((folder / "datasets").glob("*.arrow")))
    read = load_from_disk(str(folder / "datasets")).with_format("torch")[:]["h"]
    print("a folder of datasets is read without an error; numbers that changed:", int((read != x).sum()))

    from llamascopium import ActivationWriter, ActivationWriterConfig
    from llamascopium.activation.processors.cached_activation import CachedActivationLoader

    more = {"tokens": torch.zeros(4, dtype=torch.long), "mask": torch.ones(4).bool(), "attention_mask": torch.ones(4)}
    writer = ActivationWriter(ActivationWriterConfig(hook_points=["h"], cache_dir=str(folder / "openmoss")))
    writer.process([{"h": rows, **more} for rows in x])
    change_a_bit(sorted((folder / "openmoss" / "h").glob("*.safetensors"))[1])
    loader = CachedActivationLoader(cache_dirs={"h": folder / "openmoss" / "h"}, device="cpu")
    changed = sum(int((chunk["h"] != rows).sum()) for chunk, rows in zip(loader.process(), x, strict=True))
    print("OpenMOSS's chunks are read without an error; numbers that changed:", changed)


if __name__ == "__main__":
    trials = {trial.__name__: trial for trial in (saelens, sigterm, sparsify, openmoss, stored)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trial", choices=trials)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        trials[parser.parse_args().trial](Path(scratch))
