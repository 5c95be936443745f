"""Mapping and merging: the same bits here and by workers, whatever becomes of them."""

import os
import pickle
import signal

import pytest

from weightdecay.engine import Tree, map_merge
from weightdecay.errors import InputError

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # Dask's own, of processes that are killed on purpose


def bracketed(a, b):
    return f"({a}{b})"


def test_neighbours_are_merged_in_an_order_of_their_own():
    wanted = map_merge(str, list("abcdefg"), bracketed)
    assert wanted == "(((ab)(cd))((ef)g))"
    for order in ([6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]):
        tree = Tree(7, bracketed)
        for place in order:
            tree.add(place, "abcdefg"[place])
        assert tree.root == wanted
    assert map_merge(str, ["x"], bracketed) == "x"


def test_progress_and_nothing_to_do():
    seen = []
    map_merge(str, "abc", bracketed, on_progress=lambda place, done: seen.append((place, done)))
    assert seen == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(InputError, match="nothing to compute"):
        map_merge(str, [], bracketed)


def test_an_error_survives_the_way_back():
    error = InputError("what", "where", 3, "remedy")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.what, again.value, type(again)) == (str(error), "what", 3, InputError)


def test_tls_without_certificates_is_told():
    with pytest.raises(InputError, match=r"TLS needs certificates: engine = tls://127\.0\.0\.1:1; give a"):
        map_merge(abs, [1], max, engine="tls://127.0.0.1:1")


def test_engines_that_are_none():
    with pytest.raises(InputError, match="no such engine"):
        map_merge(str, ["a"], bracketed, engine="spark")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_workers_give_what_this_process_gives(client):
    here = map_merge(float, [0.1] * 23, lambda a, b: a + b)
    assert map_merge(float, [0.1] * 23, lambda a, b: a + b, engine=client) == here
    address = client.scheduler.address
    assert map_merge(float, [0.1] * 23, lambda a, b: a + b, engine=address) == here
    # A cancellation goes to all clients, and one that connects at that moment fails.
    assert not [event for _, event in client.get_events(client.id) if event["action"] == "cancel"]


def test_what_a_worker_refuses_is_an_input_error_here(client):
    def refuse(shard):
        if shard == 3:
            raise InputError("a cell is empty", "row 7", None, "fill it")
        if shard == 5:
            raise RuntimeError("boom")
        return shard

    with pytest.raises(InputError, match="row 7"):
        map_merge(refuse, [1, 2, 3], max, engine=client)
    with pytest.raises(InputError, match=r"a worker failed: five = RuntimeError: boom"):
        map_merge(refuse, [5], max, engine=client, names=["five"])


def test_a_worker_that_dies_costs_only_what_it_had_in_hand(client, tmp_path):
    def once(shard):
        with (tmp_path / f"{shard}.{os.getpid()}").open("a") as file:
            file.write("x")
        if shard == 4 and len(list(tmp_path.glob("4.*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return [shard]

    assert map_merge(once, list(range(8)), lambda a, b: a + b, engine=client) == list(range(8))
    assert len(list(tmp_path.glob("4.*"))) == 2
    assert sum(len(file.read_text()) for file in tmp_path.iterdir()) <= 11  # what two workers held


def test_a_shard_that_kills_every_worker_is_named(client):
    def kill(shard):
        if shard == "bad":
            os.kill(os.getpid(), signal.SIGKILL)
        return shard

    with pytest.raises(InputError, match=r"workers die of a shard: the bad one"):
        map_merge(kill, ["a", "bad"], bracketed, engine=client, names=["a", "the bad one"])
