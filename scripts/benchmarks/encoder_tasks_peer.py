# SPDX-License-Identifier: Apache-2.0
"""A config of an encoder task in; the metrics that PyTorch transformers reaches with the same settings out.

    python scripts/benchmarks/encoder_tasks_peer.py ner_wnut17 --python=PYTHON [--seed=0] [--threads=2]

PYTHON is an interpreter that has torch and transformers. The peer starts from the same folder and is given the
same token ids, windows and targets; it has transformers' own head for the task, and the config's batch size,
epochs, learning rate, warm-up, weight decay and clipping. Its logits on the config's test records (validation
where there are none) come back here and are scored as ours are.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

HEADS = {"cls": "AutoModelForSequenceClassification", "token": "AutoModelForTokenClassification",
         "span": "AutoModelForQuestionAnswering"}
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


def write_rows(path, rows):
    """Rows of unequal length as one flat array each, with their lengths."""
    import numpy as np
    arrays = {}
    for name in rows[0]:
        arrays[name] = np.concatenate([np.atleast_1d(row[name]) for row in rows])
        arrays[f"{name}_lengths"] = np.asarray([np.size(row[name]) for row in rows])
    np.savez(path, **arrays)


def read_rows(path):
    """What `write_rows` wrote."""
    import numpy as np
    with np.load(path) as arrays:
        parts = {name: np.split(arrays[name], np.cumsum(arrays[f"{name}_lengths"])[:-1])
                 for name in arrays.files if not name.endswith("_lengths")}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def compare(arguments):
    """Makes the rows, runs the peer in its own interpreter, scores what it says."""
    import numpy as np

    from t5tasks import configuration, experiment
    from t5tasks.metrics import counts as counting
    from t5tasks.tasks.task import SPANS, Window

    config = configuration.read(str(CONFIGS / f"{arguments.config}.py"))
    run = experiment.build(config, None)
    train = experiment.read_records(config.data.train, run.task, run.options)
    test = list(experiment.read_records(config.data.test or config.data.validation, run.task, run.options))
    windows = [run.windows(record) for record in test]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        rows = run.training_rows(train)
        made = [run.training_features(rows[index]) for index in range(len(rows))]
        write_rows(folder / "train.npz", [row for row in made if row is not None])
        write_rows(folder / "test.npz", [features for some in windows for features, _, _ in some])
        labels = len(run.options["labels"]) if "labels" in run.options else 2
        settings = {"folder": str(experiment.pretrained_folder(config)), "head": run.form.head, "labels": labels,
                    "seed": arguments.seed, "threads": arguments.threads, "size": config.batch.size,
                    "epochs": config.train.epochs, **config.optimizer.to_dict()}
        (folder / "settings.json").write_text(json.dumps(settings))
        subprocess.run([arguments.python, __file__, "--train", scratch], check=True)
        logits = [row["logits"] for row in read_rows(folder / "logits.npz")]
        seconds = json.loads((folder / "seconds.json").read_text())
    total, at = {}, 0
    for record, some in zip(test, windows, strict=True):
        values = []
        for features, tokens, _ in some:
            width = 1 if run.form.head == "cls" else len(features["tokens"])
            table = logits[at].reshape((2, width) if run.form.head == "span" else (width, -1)).astype(np.float64)
            if run.form.answers_by != SPANS:
                table = np.exp(table - table.max(axis=-1, keepdims=True))
                table /= table.sum(axis=-1, keepdims=True)
            values.append(Window(tokens, table))
            at += 1
        answer = values if run.form.windowed else values[0].values[0]
        prediction = run.task.postprocess(record, answer, run.options)
        total = counting.add(total, run.task.count(record, prediction, run.options))
    print(json.dumps({"config": arguments.config, "seed": arguments.seed, "seconds": seconds,
                      "figures": run.task.figures(total, run.options)}, indent=2))


def train(folder):
    """The peer: reads what `compare` wrote, trains, writes its logits and the seconds that training took."""
    import numpy as np
    import torch
    import transformers

    settings = json.loads((folder / "settings.json").read_text())
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(settings["threads"])
    kind = getattr(transformers, HEADS[settings["head"]])
    options = {} if settings["head"] == "span" else {"num_labels": settings["labels"]}
    model = kind.from_pretrained(settings["folder"], **options)
    rows, order = read_rows(folder / "train.npz"), np.random.default_rng(settings["seed"])
    size, steps = settings["size"], int(np.ceil(settings["epochs"] * len(rows) / settings["size"]))
    plain = [one for name, one in model.named_parameters() if one.ndim < 2]
    weights = [one for name, one in model.named_parameters() if one.ndim >= 2]
    optimizer = torch.optim.AdamW([{"params": weights, "weight_decay": settings["weight_decay"]},
                                   {"params": plain, "weight_decay": 0.0}], lr=settings["learning_rate"])
    warmup = settings["warmup"] * steps if settings["warmup"] < 1 else settings["warmup"]
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, int(warmup), steps)
    started, number = time.perf_counter(), 0
    model.train()
    while number < steps:
        shuffled = order.permutation(len(rows))
        for at in range(0, len(rows) - size + 1, size):
            if number == steps:
                break
            batch = [rows[index] for index in shuffled[at:at + size]]
            loss = _loss(torch, model, batch, settings["head"])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
            optimizer.step()
            schedule.step()
            number += 1
            if number % 50 == 0:
                print(f"peer {number}/{steps} loss {loss.item():.4f}", file=sys.stderr)
    (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - started))
    model.train(False)
    found = []
    with torch.no_grad():
        for row in read_rows(folder / "test.npz"):
            output = model(**_inputs(torch, [row]))
            logits = (torch.cat([output.start_logits, output.end_logits]) if settings["head"] == "span"
                      else output.logits)
            found.append({"logits": logits.numpy().ravel()})
    write_rows(folder / "logits.npz", found)


def _inputs(torch, rows):
    length = max(len(row["tokens"]) for row in rows)

    def padded(values):
        return torch.tensor([[*map(int, value), *[0] * (length - len(value))] for value in values])

    return {"input_ids": padded([row["tokens"] for row in rows]),
            "token_type_ids": padded([row["token_types"] for row in rows]),
            "attention_mask": padded([[1] * len(row["tokens"]) for row in rows])}


def _loss(torch, model, rows, head):
    inputs = _inputs(torch, rows)
    if head == "span":
        targets = torch.tensor([[int(place) for place in row["targets"]] for row in rows])
        return model(**inputs, start_positions=targets[:, 0], end_positions=targets[:, 1]).loss
    if head == "cls":
        return model(**inputs, labels=torch.tensor([int(row["targets"][0]) for row in rows])).loss
    length = inputs["input_ids"].shape[1]
    labels = [[*(int(target) if weight else -100
                 for target, weight in zip(row["targets"], row["weights"], strict=True)),
               *[-100] * (length - len(row["tokens"]))] for row in rows]
    return model(**inputs, labels=torch.tensor(labels)).loss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", help="a file of configs/, without .py")
    parser.add_argument("--python", help="an interpreter with torch and transformers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(pathlib.Path(arguments.train))
    elif arguments.config and arguments.python:
        compare(arguments)
    else:
        parser.error("name a config and --python")


if __name__ == "__main__":
    main()
