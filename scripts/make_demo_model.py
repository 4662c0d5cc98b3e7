"""Make the embedded demo model: a small GPT-2 that has read Python source.

    python scripts/make_demo_model.py --out pipeline/assets/demo [--tokens 40_000_000] [--device cpu|cuda]
    python scripts/make_demo_model.py --out runs/second-model --d-model 64 --layers 2 --batch 8 \
        --text stdlib --tokens 3_000_000

The second makes another model for scripts/study_defaults.py, of the standard library alone, in six minutes on one core.

Text: the standard library of the running Python (pipeline/extract/stdlib.py says which files are held out), its
test folder, and the Python source of the project's own permissively licensed dependencies (BSD, MIT, Apache, PSF).
A training file that shares over a fifth of its long lines with a held-out file is left out, so that vendored copies
of the standard library do not leak. The general text comes first; the standard library's own files come three times,
two of them while the rate decays.

Model: GPT-2 architecture, 4 layers, d_model 192, 3 heads, context 256, byte-level BPE of 4,096 tokens.
Optimiser: Muon for the matrices inside the blocks, AdamW for the rest; constant rate, then linear decay to zero over
the last 40% of the steps. bfloat16 autocast. About 90 minutes on two CPU cores. Resumes from OUT/training.pt.
"""

import argparse
import hashlib
import json
import math
import os
import random
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipeline.extract.stdlib import stdlib_files

CONTEXT = 256
VOCABULARY = 4096
BATCH = 32
DEPENDENCIES = ["torch", "transformers", "sklearn", "numpy", "scipy", "sympy", "networkx", "zarr", "datasets", "pandas",
                "matplotlib"]  # fmt: skip
DECAY = 0.4


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def long_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) >= 30}


def training_text(general: bool) -> tuple[list[str], list[str], list[str]]:
    """(standard library, general text, held-out), lists of documents; the general text is empty unless it is asked for."""
    heldout = [read(p) for p in stdlib_files("heldout")]
    seen_lines: set[str] = set().union(*(long_lines(t) for t in heldout))

    def clean(paths: list[Path]) -> list[str]:
        kept, dropped, digests = [], 0, set()
        for path in paths:
            text = read(path)
            digest = hashlib.sha256(text.encode()).digest()
            lines = long_lines(text)
            if digest in digests or len(text) < 200:
                continue
            digests.add(digest)
            if lines and len(lines & seen_lines) > 0.2 * len(lines):
                dropped += 1
                continue
            kept.append(text)
        print(f"{len(kept)} files kept, {dropped} dropped for sharing lines with held-out files", flush=True)
        return kept

    stdlib = clean(stdlib_files("train"))
    if not general:
        return stdlib, [], heldout
    root = Path(sysconfig.get_paths()["stdlib"])
    tests = sorted(p for p in (root / "test").rglob("*.py") if "data" not in p.parts)
    site = Path(torch.__file__).parents[1]
    packages = [p for name in DEPENDENCIES for p in sorted((site / name).rglob("*.py"))]
    return stdlib, clean(tests) + clean(packages), heldout


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def pack(tokenizer: Tokenizer, texts: list[str], rng: random.Random) -> np.ndarray:
    """(n, CONTEXT) int32: every sequence begins with BOS (id 0); documents are joined by it too."""
    order = list(range(len(texts)))
    rng.shuffle(order)
    stream = []
    for encoding in tokenizer.encode_batch_fast([texts[i] for i in order]):
        stream.extend([0, *encoding.ids])
    n = len(stream) // (CONTEXT - 1)
    body = np.array(stream[: n * (CONTEXT - 1)], dtype=np.int32).reshape(n, CONTEXT - 1)
    return np.concatenate([np.zeros((n, 1), np.int32), body], axis=1)


def bigram_nats(train: np.ndarray, heldout: np.ndarray) -> float:
    """Cross-entropy of an interpolated bigram model (bigram, unigram, uniform), its weights fitted by EM on a
    tenth of the training text that its counts do not see. Nats a token."""
    fit, tune = train[: len(train) * 9 // 10], train[len(train) * 9 // 10 :]
    unigram = np.bincount(fit[:, 1:].ravel(), minlength=VOCABULARY).astype(float)
    pairs = Counter((fit[:, :-1].astype(np.int64) * VOCABULARY + fit[:, 1:]).ravel().tolist())
    before = np.bincount(fit[:, :-1].ravel(), minlength=VOCABULARY).astype(float)

    def parts(tokens: np.ndarray) -> np.ndarray:
        a, b = tokens[:, :-1].ravel(), tokens[:, 1:].ravel()
        keys = (a.astype(np.int64) * VOCABULARY + b).tolist()
        bigram = np.array([pairs.get(k, 0) for k in keys]) / np.maximum(before[a], 1)
        return np.stack([bigram, unigram[b] / unigram.sum(), np.full(len(a), 1 / VOCABULARY)])

    weights, p = np.full(3, 1 / 3), parts(tune)
    for _ in range(30):
        joint = weights[:, None] * p
        weights = (joint / joint.sum(0)).mean(1)
    return float(-np.log(weights @ parts(heldout)).mean())


@torch.no_grad()
def cross_entropy(model: GPT2LMHeadModel, tokens: np.ndarray, device: str) -> float:
    """Mean over all predicted tokens, nats, float32."""
    model.eval()
    total = count = 0.0
    for i in range(0, len(tokens), 64):
        x = torch.from_numpy(tokens[i : i + 64]).long().to(device)
        logits = model(input_ids=x, use_cache=False).logits[:, :-1].float()
        total += F.cross_entropy(logits.reshape(-1, VOCABULARY), x[:, 1:].reshape(-1), reduction="sum").item()
        count += x[:, 1:].numel()
    model.train()
    return total / count


def save(model: GPT2LMHeadModel, tokenizer: Tokenizer, out: Path, card: dict) -> None:
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|endoftext|>",
                "eos_token": "<|endoftext|>",
                "model_max_length": CONTEXT,
            },
            indent=2,
        )
        + "\n"
    )
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=40_000_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--d-model", type=int, default=192)
    parser.add_argument("--batch", type=int, default=BATCH, help="sequences")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--text", choices=("all", "stdlib"), default="all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng = random.Random(0)

    stdlib, general, heldout_text = training_text(args.text == "all")
    tokenizer = train_tokenizer(stdlib)
    heldout = pack(tokenizer, heldout_text, random.Random(1))
    passes = [pack(tokenizer, stdlib, rng) for _ in range(3)]
    other = pack(tokenizer, general, rng)
    bigram = bigram_nats(np.concatenate([passes[0], other]), heldout)
    n_steps = args.tokens // (args.batch * CONTEXT)
    n_late = min(2 * len(passes[0]), int(n_steps * args.batch * DECAY))
    late = np.concatenate(passes[1:])[:n_late]
    early = np.concatenate([passes[0], other[np.random.default_rng(0).permutation(len(other))]])
    early = early[: n_steps * args.batch - n_late]
    draw = np.random.default_rng(2)
    sequences = np.concatenate([early[draw.permutation(len(early))], late[draw.permutation(len(late))]])
    n_steps = len(sequences) // args.batch
    print(f"stdlib {passes[0].size:,} tokens, other {other.size:,}, held-out {heldout.size:,}; bigram {bigram:.3f} nats; "
          f"{n_steps} steps", flush=True)  # fmt: skip

    heads = args.d_model // 64
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=args.d_model, n_layer=args.layers, n_head=heads, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).to(args.device)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".h." in n)]
    muon = torch.optim.Muon(matrices, lr=4e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    optimisers = [(muon, 4e-3), (adam, 4e-3)]
    forward = torch.compile(model)
    first, state_file = 0, args.out / "training.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        first = state["step"]

    def card(step: int) -> dict:
        return {
            "tokens_trained": step * args.batch * CONTEXT,
            "heldout_nats_per_token": round(cross_entropy(model, heldout, args.device), 4),
            "bigram_heldout_nats_per_token": round(bigram, 4),
            "uniform_nats_per_token": round(math.log(VOCABULARY), 4),
            "heldout_tokens": int(heldout.size),
            "python": sys.version.split()[0],
            "torch": torch.__version__.split("+")[0],
            "made_by": "scripts/make_demo_model.py",
        }

    model.train()
    started, running = time.time(), 0.0
    for step in range(first, n_steps):
        rate = min(1.0, (step + 1) / 100, (n_steps - step) / (DECAY * n_steps))
        for optimiser, lr in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = lr * rate
        x = torch.from_numpy(sequences[step * args.batch : (step + 1) * args.batch]).long().to(args.device)
        with torch.autocast(args.device, torch.bfloat16):
            logits = forward(input_ids=x, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].reshape(-1, VOCABULARY).float(), x[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        running = 0.95 * running + 0.05 * loss.item() if step > first else loss.item()
        if (step + 1) % 50 == 0:
            speed = (step + 1 - first) * args.batch * CONTEXT / (time.time() - started)
            print(f"step {step + 1}/{n_steps} loss {running:.3f} {speed:.0f} tokens/s", flush=True)
        if (step + 1) % 500 == 0 or step + 1 == n_steps:
            info = card(step + 1)
            save(model, tokenizer, args.out, info)
            state = {
                "model": model.state_dict(),
                "muon": muon.state_dict(),
                "adam": adam.state_dict(),
                "step": step + 1,
            }
            torch.save(state, args.out / "training.tmp")
            os.replace(args.out / "training.tmp", state_file)
            print(f"held-out {info['heldout_nats_per_token']} nats a token (bigram {bigram:.3f})", flush=True)
    state_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
