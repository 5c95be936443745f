"""Sharded training under a decay rule that survives a killed process: FSDP2, wd.attach, DCP, torchrun.

    python examples/sharded.py
    torchrun --standalone --nproc-per-node 2 examples/sharded.py
    torchrun --standalone --nproc-per-node 2 --max-restarts 3 examples/sharded.py --kill-at 70 --out runs/2

The transformer of pride.py in as many pieces as there are processes (CPU, gloo). A step takes the same batch
whatever their number, each process a part of it. Model, optimizer, schedule and decay are saved every
`--every` steps into a folder that gets its name once it is complete, and a start goes on from the newest one:
after a kill, after Ctrl-C, or on another number of processes.

It prints one table and writes results.json with a checksum of the final weights. As many processes end with
the same bits, killed or not; another number of them adds in another order.
"""

import argparse
import hashlib
import os
import shutil
import signal
import sys
import time
import warnings
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pride
import torch
from torch import Tensor, distributed, nn, optim
from torch.distributed import HashStore, PrefixStore, rendezvous  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint import load, save  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import weightdecay as wd
from weightdecay.saving import read_json, writable_folder, write_json

# One that looks at the update, one that the optimizer brings along, one that keeps tensors of its own.
RULES = {"cautious": wd.Cautious, "decoupled": wd.Decoupled, "toward": partial(wd.Toward, ema=0.95)}
WIDTH, TEXT = 72, 8000  # of the model; letters to train on
COLUMNS = "step", "train_loss", "validation_loss", "norm"


class Training:
    """A sharded model with its optimizer, schedule and decay; what DCP saves and loads."""

    def __init__(self, rule: str, half_lives: float, letters: int, steps: int) -> None:
        self.step, self.looks = 0, []
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()
        self.model = pride.Reader(letters, WIDTH)  # every process makes the whole and keeps its part
        mesh = init_device_mesh("cpu", (self.ranks,))
        for block in self.model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)
        parameters, rate = self.model.named_parameters(), lambda step: pride.warm_cosine(step, steps)
        self.optimizer = optim.AdamW(parameters, lr=pride.LR, weight_decay=0.0, foreach=True)
        self.schedule = optim.lr_scheduler.LambdaLR(self.optimizer, rate)
        self.decay = wd.attach(  # every process has to, as with any part of FSDP
            self.optimizer,
            RULES[rule](wd.HalfLives(per_run=half_lives)),
            model=self.model,
            schedule=self.schedule,
            steps=steps,
        )
        self.matrices = [m.weight for m in self.model.modules() if isinstance(m, nn.Linear)]

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        own = {"step": self.step, "looks": self.looks, "schedule": self.schedule.state_dict()}
        return {"model": model, "optimizer": optimizer, "decay": self.decay.state_dict(), **own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was saved."""
        model, optimizer = state_dict["model"], state_dict["optimizer"]
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        self.schedule.load_state_dict(state_dict["schedule"])
        # After the optimizer's, which may take an empty step to make what it then overwrites.
        self.decay.load_state_dict(state_dict["decay"])
        self.step, self.looks = state_dict["step"], state_dict["looks"]

    def take_step(self, batch: Tensor) -> None:
        """Take one step on this process's part of a batch; the decay happens inside."""
        part = batch[self.rank :: self.ranks]
        self.optimizer.zero_grad()
        # FSDP takes the mean over the processes, whose parts may differ by one window.
        (pride.loss(self.model, part) * (len(part) * self.ranks / len(batch))).backward()
        self.optimizer.step()
        self.schedule.step()
        self.step += 1

    @torch.no_grad()
    def look(self, *texts: Tensor) -> None:
        """Note the losses on texts and the norm of the matrices, all of them over all processes."""
        parts = [text[self.rank :: self.ranks] for text in texts]
        sums = torch.stack([pride.loss(self.model, part).double() * len(part) for part in parts])
        distributed.all_reduce(sums)
        losses = sums / torch.tensor([len(text) for text in texts])
        norms = torch.stack([torch.linalg.vector_norm(w, dtype=torch.float64) for w in self.matrices])
        self.looks.append([self.step, *losses.tolist(), whole(norms).norm().item()])

    def checksum(self) -> str:
        """SHA-256 of the weights, put together again."""
        digest = hashlib.sha256()
        for w in self.model.parameters():
            digest.update(whole(w).numpy().tobytes())
        return digest.hexdigest()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which this process has a part; every process has to ask for it."""
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor().detach()


class Checkpoints:
    """Folders step-000040 and so on; one gets its name when it is complete, and the one before goes then."""

    def __init__(self, folder: Path, training: Training, settings: dict[str, Any]) -> None:
        self.folder, self.training, self.settings = folder, training, settings

    def save(self) -> None:
        """Write the state as it is now."""
        path = self.folder / f"step-{self.training.step:06d}"
        part = path.with_suffix(".part")
        if self.training.rank == 0:
            shutil.rmtree(part, ignore_errors=True)  # of a process killed while it wrote
            write_json(writable_folder(part) / "settings.json", self.settings)
        distributed.barrier()
        save({"training": self.training}, checkpoint_id=part)
        if self.training.rank == 0:
            part.rename(path)
            for old in self.complete()[:-1]:
                shutil.rmtree(old)

    def load(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises:
            InputError: it was made under other settings.
        """
        if not (complete := self.complete()):
            return
        saved = read_json(complete[-1] / "settings.json")
        if saved != self.settings:
            names = [name for name in self.settings if saved.get(name) != self.settings[name]]
            found = ", ".join(f"{name} {saved.get(name)}" for name in names)
            remedy = "choose another --out"
            raise wd.InputError("a checkpoint of another run", str(complete[-1]), found, remedy)
        load({"training": self.training}, checkpoint_id=complete[-1])

    def complete(self) -> list[Path]:
        """The complete ones, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.suffix != ".part")


def train(training: Training, checkpoints: Checkpoints, text: Tensor, args: argparse.Namespace) -> None:
    """Go from the step where the training is to the end, saving and looking now and then."""
    shown, validation = text[:TEXT], text[-len(text) // 10 :]
    drawn = torch.Generator().manual_seed(args.seed)
    starts = torch.randint(TEXT - pride.CONTEXT, (args.steps, pride.BATCH), generator=drawn)
    seen = pride.spread(shown, 96), pride.spread(validation, 192)
    looks = {max(1, args.steps * i // pride.LOOKS) for i in range(1, pride.LOOKS + 1)}
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    while training.step < args.steps:
        if first and training.step + 1 == args.kill_at and training.rank == args.kill_rank:
            os.kill(os.getpid(), signal.SIGKILL)
        training.take_step(pride.windows(shown, starts[training.step]))
        if training.step in looks:
            training.look(*seen)
            say(f"step {training.step} of {args.steps}, validation loss: {training.looks[-1][2]:.3f}")
        if training.step % args.every == 0 or training.step == args.steps:
            checkpoints.save()


def say(line: str) -> None:
    """A line on standard error, of one process only."""
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        print(line, file=sys.stderr, flush=True)


def table(looks: list[list[float]]) -> str:
    """A line for each look."""
    lines = [f"{'step':>6}{'train loss':>12}{'validation loss':>17}{'norm':>8}"]
    lines += [f"{step:6}{train:12.3f}{held_out:17.3f}{norm:8.1f}" for step, train, held_out, norm in looks]
    return "\n".join(lines)


def options(words: list[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = pride.Options(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rule", choices=RULES, default="cautious", help=f"of {', '.join(RULES)} [%(default)s]")
    add("--half-lives", type=float, default=5.0, help="of an untrained weight in the run [%(default)s]")
    add("--steps", type=int, default=200, help="[%(default)s]")
    add("--every", type=int, default=20, help="steps from one checkpoint to the next [%(default)s]")
    add("--seed", type=int, default=0, help="draws weights and batches [%(default)s]")
    add("--out", type=Path, default=Path("runs/sharded"), help="folder for results [%(default)s]")
    add("--kill-at", type=int, default=0, help="let a process kill itself before this step, the first time")
    add("--kill-rank", type=int, default=0, help="which one [%(default)s]")
    args = parser.parse_args(words)
    least = {"steps": 2, "every": 1, "seed": 0, "kill_at": 0, "kill_rank": 0}
    for name, bound in least.items():
        if getattr(args, name) < bound:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: give {bound} or more")
    return args


def join() -> None:
    """Meet the other processes, if torchrun started any; who waits for a dead one gives up after a minute."""
    timeout = timedelta(minutes=1)
    if "RANK" not in os.environ:
        distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        return
    store, rank, ranks = next(rendezvous("env://", timeout=timeout))
    # After a restart the dead processes' addresses are still in torchrun's store.
    store = PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timeout)


def run(args: argparse.Namespace) -> None:
    """Train from the newest checkpoint to the end; print and save."""
    begin = time.perf_counter()
    ranks = distributed.get_world_size()
    if ranks > pride.BATCH:
        what, remedy = "more processes than windows in a batch", f"start {pride.BATCH} or fewer"
        raise wd.InputError(what, "--nproc-per-node", ranks, remedy)
    if args.kill_at > args.steps:
        raise wd.InputError("no such step", "--kill-at", args.kill_at, f"give {args.steps} or less")
    if args.kill_rank >= ranks:
        raise wd.InputError("no such process", "--kill-rank", args.kill_rank, f"give {ranks - 1} or less")
    writable_folder(args.out)
    text, letters = pride.novel()
    torch.manual_seed(args.seed)
    training = Training(args.rule, args.half_lives, letters, args.steps)
    settings = {name: getattr(args, name) for name in ("rule", "half_lives", "steps", "seed")}
    checkpoints = Checkpoints(args.out / "checkpoints", training, settings)
    checkpoints.load()
    if resumed := training.step:
        say(f"going on from step {resumed}")
    train(training, checkpoints, text, args)
    found = {
        "settings": settings,
        "processes": ranks,
        "resumed_at": resumed,
        "looks": [dict(zip(COLUMNS, look, strict=True)) for look in training.looks],
        "weights_sha256": training.checksum(),
    }
    if training.rank == 0:
        write_json(args.out / "results.json", found)
        print(table(training.looks))
        processes = f"{ranks} process{'es' * (ranks > 1)}"
        done = f"{args.rule}, {processes}, from step {resumed}: {time.perf_counter() - begin:.0f} s"
        print(f"{done}; results.json in {args.out}")


def main(words: list[str] | None = None) -> int:
    """Exit codes: 0 fine, 2 bad input, 130 interrupted."""
    args = options(words)
    torch.set_num_threads(1)
    try:
        join()
        run(args)
    except wd.InputError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("error: interrupted; the same command goes on from the last checkpoint")
        return 130
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    warnings.showwarning = lambda message, *_: say(f"warning: {message}")
    sys.exit(main())
