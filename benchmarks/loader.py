"""Pictures per second that the training loader delivers, beside what the net consumes, in one run.

    SWIFTSIGHT_DATA=... python benchmarks/loader.py [CONFIG] [--set data.cache=false] [--workers N]

Loader and net take turns: a few batches are fetched (read, augmented, resized, stacked) with nothing else running, then
the net takes its training steps on these very batches. The goal of the project: the loader alone delivers at least
twice what the net consumes. Pictures that the loader keeps in memory (data.cache) are decoded once; the first pass over
the data is the slow one, and --set data.cache=false measures just that.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from swiftsight_tools.configuration.config import load_config
from swiftsight_tools.configuration.training_config import TrainingConfig
from swiftsight_tools.training.assembly import create_optimizer, training_loader
from swiftsight_tools.training.sampler import TrainingSampler
from swiftsight_tools.training.tasks import open_task
from swiftsight_tools.training.training_task import TrainingTask
from torch.utils.data import DataLoader

CONFIG = "detect/thundernet_snet49_person.yaml"


def fetch(loader: DataLoader, batches: int) -> tuple[list[Any], float]:
    """So many batches and the seconds they took, from when the workers are at work."""
    iterator = iter(loader)
    next(iterator)
    start = time.perf_counter()
    fetched = [next(iterator) for _ in range(batches)]
    return fetched, time.perf_counter() - start


def training_step(config: TrainingConfig, task: TrainingTask) -> Callable[[Any], None]:
    """The config's net and optimizer as one function of a batch."""
    net = task.create_net().train()
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    net = net.to(memory_format=memory_format)
    optimizer = create_optimizer(net, config.optimizer)

    def step(batch: Any) -> None:
        images, truth = batch
        optimizer.zero_grad(set_to_none=True)
        losses = net.losses(images.contiguous(memory_format=memory_format), truth, **task.loss_options)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()

    return step


def measure(config: TrainingConfig, workers: int, batches: int, rounds: int) -> tuple[list[float], list[float]]:
    """Pictures per second of each round: the loader's and the net's. The net's first step does not count."""
    task = open_task(config)
    data = task.train_data
    sampler = TrainingSampler(len(data), config.batch_size, config.sizes, config.seed)
    loader = training_loader(data, sampler, workers, collate=task.collate, pin=False)
    step = training_step(config, task)
    delivered, consumed = [], []
    for number in range(rounds):
        sampler.set_position(epoch=number)
        fetched, seconds = fetch(loader, batches)
        delivered.append(config.batch_size * batches / seconds)
        if number == 0:
            step(fetched[0])
        start = time.perf_counter()
        for batch in fetched:
            step(batch)
        consumed.append(config.batch_size * batches / (time.perf_counter() - start))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return delivered, consumed


def main() -> None:
    """Reads the arguments, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default=CONFIG, help=f"({CONFIG})")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="change one key of the config")
    parser.add_argument("--workers", type=int, help="processes of the loader (the config's); 0: in this one")
    parser.add_argument("--batches", type=int, default=6, help="in a round (6)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the net (torch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = load_config(args.config, args.set)
    workers = config.workers if args.workers is None else args.workers
    delivered, consumed = measure(config, workers, args.batches, args.rounds)
    cache = "with" if getattr(config.data, "cache", False) else "without"
    print(f"{args.config}: batch {config.batch_size}, sizes {[list(size) for size in config.sizes]}, {cache} cache")
    print(f"torch {torch.__version__}, threads of the net: {torch.get_num_threads()}, workers of the loader: {workers}")
    for name, rates in (("the loader delivers", delivered), ("the net consumes", consumed)):
        spread = f"{min(rates):.1f} to {max(rates):.1f}"
        print(f"{name:<22}{statistics.median(rates):8.1f} pictures a second ({spread} in {args.rounds} rounds)")
    print(f"ratio                 {statistics.median(delivered) / statistics.median(consumed):8.2f}")


if __name__ == "__main__":
    main()
