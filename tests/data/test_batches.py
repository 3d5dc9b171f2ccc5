# SPDX-License-Identifier: Apache-2.0
"""Which examples a batch holds, in which order, for which process, and how an order is taken up again."""

import collections
import json
import threading

import numpy as np
import pytest

from t5tasks.data.batches import (
    Shape,
    Windows,
    evaluation_batches,
    ladder,
    made_ahead,
    padded,
    rung,
    training_batches,
)

LONGEST = 20


def _records(count=50, seed=0):
    """Record i: its number as the first token, 100 + ... after it; 1 to LONGEST tokens."""
    random = np.random.RandomState(seed)
    return [np.concatenate([[index + 1], random.randint(100, 200, size=random.randint(LONGEST))]).astype(np.int32)
            for index in range(count)]


def _features(record):
    return {"tokens": record, "targets": record + 1, "weights": np.full(len(record), record[0], np.float32)}


def _both_sides(record):
    """An encoder-decoder's features: the source is the record backwards, and half as long again."""
    source = np.concatenate([record[::-1], record[:len(record) // 2]])
    return _features(record) | {"source_tokens": source.astype(np.int32)}


def _take(iterator, count):
    return [next(iterator) for _ in range(count)]


def _numbers(batch):
    """The record of every row, and that its row is the record, padded."""
    return [int(row[0]) for row in batch["tokens"]]


def _same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_the_ladder_of_lengths():
    assert ladder(200) == [1, 8, 16, 24, 32, 48, 64, 96, 128, 192, 200]
    assert ladder(64) == [1, 8, 16, 24, 32, 48, 64]
    assert ladder(200, coarse=True) == [1, 16, 32, 64, 128, 200]
    assert rung(33, 200, coarse=True) == 64 and rung(1, 200, coarse=True) == 1
    assert ladder(5) == [1, 5] and ladder(1) == [1]
    assert [rung(length, 40) for length in (0, 1, 2, 8, 9, 33, 40)] == [1, 1, 8, 8, 16, 40, 40]
    for longest in range(1, 300):
        rungs = ladder(longest)
        assert rungs == sorted(set(rungs)) and rungs[-1] == longest
        assert all(rung(length, longest) >= length for length in range(longest + 1))


def test_the_picture_of_padding():
    rows = [{"tokens": np.asarray(row, np.int32)} for row in ([11, 12, 13], [21, 22, 23, 24])]
    batch = padded(rows, Shape(size=2, length=4, pad=9))
    assert {name: array.tolist() for name, array in batch.items()} == {
        "tokens": [[11, 12, 13, 9], [21, 22, 23, 24]], "segments": [[1, 1, 1, 0], [1, 1, 1, 1]]}


def test_rows_that_only_fill_a_batch_weigh_nothing():
    record = np.asarray([5, 6, 7], np.int32)
    row = _both_sides(record) | {"token_types": np.asarray([0, 1, 1], np.int32)}
    batch = padded([row], Shape(3, LONGEST, 2 * LONGEST, pad=4))
    assert {name: array.shape for name, array in batch.items()} == {
        "tokens": (3, 8), "targets": (3, 8), "weights": (3, 8), "source_tokens": (3, 8), "token_types": (3, 8),
        "segments": (3, 8), "source_segments": (3, 8)}
    assert batch["tokens"][1:].tolist() == batch["source_tokens"][1:].tolist() == [[4] * 8] * 2
    for name in ("weights", "segments", "source_segments", "token_types"):
        assert (batch[name][1:] == 0).all()
    assert batch["source_segments"][0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert batch["token_types"][0].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    label = {"tokens": record, "targets": np.int32(2), "weights": np.float32(1)}
    batch = padded([label, label], Shape(3, LONGEST))
    assert batch["targets"].tolist() == [2, 2, 0] and batch["weights"].tolist() == [1, 1, 0]
    assert (batch["targets"].dtype, batch["weights"].dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("make", [_features, _both_sides])
def test_bucketed_batches_hold_every_record_of_an_epoch_once(make):
    """48 records, batches of 8: each epoch is 6 batches; a row is its record, padded to a rung."""
    records = _records(48)
    iterator = iter(training_batches(records, make, Shape(8, LONGEST, 2 * LONGEST), seed=1, window=3))
    epochs = [_take(iterator, 6) for _ in range(3)]
    orders = [[number for batch in epoch for number in _numbers(batch)] for epoch in epochs]
    for order in orders:
        assert sorted(order) == list(range(1, 49))
    assert len({tuple(order) for order in orders}) == 3
    for batch in epochs[0]:
        assert batch["tokens"].shape[1] in ladder(LONGEST)
        for row, number in enumerate(_numbers(batch)):
            wanted = padded([make(records[number - 1])], Shape(1, LONGEST, 2 * LONGEST))
            for name, array in wanted.items():
                real = min(array.shape[1], batch[name].shape[1])
                np.testing.assert_array_equal(batch[name][row, :real], array[0, :real])
                assert (batch[name][row, real:] == 0).all()


def test_a_window_carries_over_from_one_epoch_to_the_next():
    """50 records do not make whole batches: what an epoch leaves over begins the next window."""
    iterator = iter(training_batches(_records(50), _features, Shape(8, LONGEST), seed=1, window=2))
    seen = collections.Counter(number for batch in _take(iterator, 50) for number in _numbers(batch))
    assert sum(seen.values()) == 400
    assert set(seen) == set(range(1, 51))
    assert set(seen.values()) == {8}  # 50 batches of 8 are 8 epochs of 50, to the record


def test_rows_of_like_length_stand_together():
    padding = {}
    for window in (1, 8):
        batches = _take(iter(training_batches(_records(64), _features, Shape(8, LONGEST), 1, window=window)), 8)
        padding[window] = sum(int((batch["segments"] == 0).sum()) for batch in batches)
    assert padding[8] < 0.6 * padding[1]
    rungs = [batch["tokens"].shape[1] for batch in batches]
    assert len(set(rungs)) > 2
    assert rungs != sorted(rungs) and rungs != sorted(rungs)[::-1]  # but not short ones first


def test_what_has_no_features_is_left_out():
    records = _records(40)
    iterator = iter(training_batches(records, lambda record: None if record[0] % 2 else _features(record),
                                     Shape(4, LONGEST), seed=0, window=5))
    assert sorted(number for batch in _take(iterator, 5) for number in _numbers(batch)) == list(range(2, 41, 2))


def test_the_seed_decides_the_order():
    def order(seed):
        return [_numbers(batch) for batch in _take(
            iter(training_batches(_records(), _features, Shape(4, LONGEST), seed)), 6)]

    assert order(3) == order(3) != order(4)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_slices_of_all_processes_are_the_global_batch(processes):
    def batches(process, processes):
        return _take(iter(training_batches(_records(), _both_sides, Shape(8, LONGEST, 2 * LONGEST), 7, process,
                                           processes, window=3)), 9)

    parts = [batches(process, processes) for process in range(processes)]
    joined = [{name: np.concatenate([part[name] for part in slices]) for name in slices[0]}
              for slices in zip(*parts, strict=True)]
    _same(joined, batches(0, 1))


def test_processes_must_divide_the_batch():
    with pytest.raises(ValueError, match="batch.size is 8, which 3 processes do not divide"):
        training_batches(_records(), _features, Shape(8, LONGEST), 0, 0, 3)


def test_a_window_holds_at_least_one_batch():
    with pytest.raises(ValueError, match="batch.window is 0.* the least is 1"):
        training_batches(_records(), _features, Shape(8, LONGEST), 0, window=0)


def test_in_a_window_of_one_batch_rows_are_in_random_order():
    batches = _take(iter(training_batches(_records(64), _features, Shape(8, LONGEST), 1, window=1)), 8)
    spread = [np.ptp((batch["segments"] != 0).sum(axis=1)) for batch in batches]
    assert np.mean(spread) > LONGEST / 3


def _documents(batch, side=""):
    """Every packed document of a batch: (row, segment) → its tokens; checks positions and padding."""
    found = {}
    for row in range(len(batch["tokens"])):
        segments = batch[f"{side}segments"][row]
        assert (np.diff(segments[segments > 0]) >= 0).all() and (np.diff(segments == 0) >= 0).all()
        for segment in range(1, segments.max() + 1):
            place = segments == segment
            found[row, segment] = batch[f"{side}tokens"][row, place]
            np.testing.assert_array_equal(batch[f"{side}positions"][row, place], np.arange(place.sum()))
    return found


@pytest.mark.parametrize("make", [_features, _both_sides])
def test_packing_keeps_every_token_and_tells_documents_apart(make):
    records = _records(60)
    shape = Shape(4, 2 * LONGEST, 3 * LONGEST if make is _both_sides else 0, packing=True, pad=7)
    seen = collections.Counter()
    filled = []
    for batch in _take(iter(training_batches(records, make, shape, seed=2)), 40):
        assert batch["tokens"].shape == (4, 2 * LONGEST) and batch["segments"].dtype == np.int32
        assert (batch["tokens"][batch["segments"] == 0] == 7).all()
        assert (batch["weights"][batch["segments"] == 0] == 0).all()
        filled.append((batch["segments"] > 0).mean())
        documents = _documents(batch)
        for (row, segment), tokens in documents.items():
            record, place = records[tokens[0] - 1], batch["segments"][row] == segment
            np.testing.assert_array_equal(tokens, record)
            np.testing.assert_array_equal(batch["targets"][row, place], record + 1)
            assert (batch["weights"][row, place] == tokens[0]).all()
            seen[int(tokens[0])] += 1
        if make is _both_sides:
            sources = _documents(batch, "source_")
            assert sources.keys() == documents.keys()
            for at, tokens in sources.items():
                np.testing.assert_array_equal(tokens, make(records[documents[at][0] - 1])["source_tokens"])
    assert max(seen.values()) - min(seen.values()) <= 2 and len(seen) == 60  # bins still open hold the rest
    assert np.mean(filled) > (0.75 if make is _features else 0.5)
    assert len(documents) > len(batch["tokens"])


def test_packed_processes_read_different_records():
    """In each epoch every record once, by one of the two; who reads which changes with the epoch."""
    orders = []
    for process in range(2):
        read = []

        def make(record, read=read):
            read.append(int(record[0]))
            return _features(record)

        shape = Shape(4, 2 * LONGEST, packing=True)
        batch = next(iter(training_batches(_records(60), make, shape, 2, process, 2)))
        assert batch["tokens"].shape == (2, 2 * LONGEST)
        orders.append(read[:60])
    for epoch in (slice(0, 30), slice(30, 60)):
        assert sorted(orders[0][epoch] + orders[1][epoch]) == list(range(1, 61))
    assert set(orders[0][:30]) != set(orders[0][30:])


@pytest.mark.parametrize(("packing", "taken"), [(False, 0), (False, 1), (False, 11), (True, 0), (True, 7)])
def test_a_restored_state_goes_on_with_the_identical_rest(packing, taken):
    """In the middle of a window, of an epoch and of an open bin; the state is plain JSON."""
    shape = Shape(4, 2 * LONGEST, packing=packing)

    def data():
        return iter(training_batches(_records(30), _features, shape, seed=9, window=3))

    straight = data()
    _take(straight, taken)
    state = json.loads(json.dumps(straight.get_state()))
    rest = _take(straight, 8)
    resumed = data()
    resumed.set_state(state)
    _same(_take(resumed, 8), rest)

    used = data()  # an iterator that stood elsewhere
    _take(used, 5)
    used.set_state(state)
    _same(_take(used, 8), rest)


@pytest.mark.parametrize("count", [0, 1, 8, 37])
def test_evaluation_covers_each_example_once(count):
    records = _records(count)
    rows = ((100 + index, _both_sides(record)) for index, record in enumerate(records))
    seen = {}
    for numbers, batch in evaluation_batches(rows, Shape(4, LONGEST, 2 * LONGEST), window=2):
        assert len(batch["tokens"]) == 4 and 1 <= len(numbers) <= 4
        assert (batch["segments"][len(numbers):] == 0).all() and (batch["weights"][len(numbers):] == 0).all()
        for row, number in enumerate(numbers):
            assert number not in seen
            seen[number] = batch["tokens"][row][batch["segments"][row] > 0]
            source = batch["source_tokens"][row][batch["source_segments"][row] > 0]
            np.testing.assert_array_equal(source, _both_sides(records[number - 100])["source_tokens"])
    assert sorted(seen) == list(range(100, 100 + count))
    for index, record in enumerate(records):
        np.testing.assert_array_equal(seen[100 + index], record)


def test_evaluation_reads_no_more_than_a_window_ahead():
    read = []

    def stream():
        for index, record in enumerate(_records(40)):
            read.append(index)
            yield index, _features(record)

    batches = evaluation_batches(stream(), Shape(4, LONGEST), window=2)
    first = next(batches)
    assert len(read) == 8 and set(first[0]) <= set(range(8))
    lengths = [first[1]["segments"].sum(), next(batches)[1]["segments"].sum()]
    assert lengths == sorted(lengths)


def test_every_window_of_every_record_is_a_row():
    records = [np.full(size, index) for index, size in enumerate((3, 0, 1, 4))]
    rows = Windows(records, len)
    assert len(rows) == 8
    assert [(int(record[0]), number) for record, number in (rows[index] for index in range(8))] == [
        (0, 0), (0, 1), (0, 2), (2, 0), (3, 0), (3, 1), (3, 2), (3, 3)]


def test_windows_are_shuffled_and_resumed_as_records_are():
    rows = Windows(_records(30), lambda record: 1 + len(record) % 3)

    def batches():
        return iter(training_batches(rows, lambda row: _features(row[0] * 3 + row[1]), Shape(4, LONGEST), seed=3))

    straight = batches()
    epoch = _take(straight, len(rows) // 4)
    first = {tuple(row[row > 0] % 3) for batch in epoch for row in batch["tokens"]}
    assert len({marks[0] for marks in first}) == 3  # every number of a window is met
    state = json.loads(json.dumps(straight.get_state()))
    rest = _take(straight, 4)
    resumed = batches()
    resumed.set_state(state)
    _same(_take(resumed, 4), rest)


def test_what_has_a_shape_of_its_own_is_not_padded():
    rows = [_features(np.arange(1, size)) | {"targets": np.asarray([size, 1], np.int32),
                                             "weights": np.ones(2, np.float32)} for size in (4, 9)]
    batch = padded(rows, Shape(3, 16))
    assert batch["targets"].tolist() == [[4, 1], [9, 1], [0, 0]]
    assert batch["weights"].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert batch["tokens"].shape == (3, 8)


class Drawn:
    """Images that are told by numbers, and note which of them is read."""

    size = (2, 5)

    def __init__(self, numbers, noted):
        self.numbers, self.noted = list(numbers), noted

    def __len__(self):
        return len(self.numbers)

    def read(self, number):
        self.noted.append(self.numbers[number])
        return np.full((*self.size, 3), self.numbers[number], np.float32)


def test_images_stand_beside_their_rows():
    """As many places as the row with most images needs, rounded up to a power of two; none where no row has any."""
    counts, read = (0, 3, 1), []
    rows = [_features(record) for record in _records(3)]
    for row, count in zip(rows, counts, strict=True):
        row |= {"images": Drawn(range(1, count + 1), read)} if count else {}
    batch = padded(rows, Shape(size=4, length=LONGEST))
    assert batch["images"].shape == (4, 4, 2, 5, 3) and not read
    whole = batch["images"][:]
    assert whole.shape == batch["images"].shape and whole.dtype == np.float32
    for index, count in enumerate((*counts, 0)):
        assert whole[index, :, 0, 0, 0].tolist() == [*range(1, count + 1), *[0] * (4 - count)]
        assert (whole[index] == whole[index, :, :1, :1, :1]).all()
    assert sorted(read) == [1, 1, 2, 3]
    assert batch["images"][:] is whole and len(read) == 4  # what was read is kept
    without = padded(rows[:1], Shape(size=4, length=LONGEST))
    assert "images" not in without


def test_a_process_reads_the_images_of_its_rows_alone():
    """The rows of two processes are the halves of one process's; a part of a batch reads its own images."""
    noted = []

    def taken(process, processes):
        def make(record):
            return {**_features(record), "images": Drawn(record[:1], noted)}

        return _take(iter(training_batches(_records(), make, Shape(size=8, length=LONGEST), 1, process, processes)), 3)

    whole, first, second = taken(0, 1), taken(0, 2), taken(1, 2)
    for one, two, both in zip(first, second, whole, strict=True):
        np.testing.assert_array_equal(np.concatenate([one["images"], two["images"]]), both["images"])
        assert (both["images"][:, 0, 0, 0, 0] == both["tokens"][:, 0]).all()
    noted = []
    rows = [_features(record) | {"images": Drawn([number], noted)} for number, record in enumerate(_records(4))]
    padded(rows, Shape(size=6, length=LONGEST))["images"][2:5]
    assert sorted(noted) == [2, 3]


def test_rows_are_made_ahead_in_order_and_no_further():
    """Four at a time where there are four threads; an error comes in its turn, and nothing is made after it."""
    together, taken = threading.Barrier(4, timeout=20), []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    def make(number):
        if number < 4:
            together.wait()  # which no single thread would pass
        if number == 40:
            raise ValueError("number 40")
        return -number

    found = made_ahead(make, items(), 4)
    assert [next(found) for _ in range(5)] == [0, -1, -2, -3, -4]
    assert len(taken) <= 5 + 4 * 4
    assert [next(found) for _ in range(35)] == [-number for number in range(5, 40)]
    with pytest.raises(ValueError, match="number 40"):
        next(found)
    assert len(taken) < 60
