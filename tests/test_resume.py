"Killed with SIGKILL at any moment of any stage, a run continues, and ends with the very same bytes."
import os, random, signal, time
import pytest
import helpers

STAGES = {'index': 5, 'archive': 3, 'saliency': 15, 'experts': 20, 'student': 7}  # stage -> writes to choose from (its first ones)

@pytest.fixture(scope='module')
def server(): return helpers.fork_server()

@pytest.fixture(scope='module')
def photos(tmp_path_factory): return helpers.write_photos(tmp_path_factory.mktemp('photos'), 6)

def run(server, photos, out, bomb=None, delay=None):
    "Run a child to its end or death; its exit code."
    p = server.Process(target=helpers.child, args=(photos, out, bomb))
    p.start()
    p.join(delay)
    if p.is_alive() and delay is not None: os.kill(p.pid, signal.SIGKILL)
    p.join(240)
    assert p.exitcode is not None, 'it hangs'
    return p.exitcode

@pytest.fixture(scope='module')
def whole(server, photos, tmp_path_factory):
    "(what an uninterrupted run has made, its seconds)"
    out, start = tmp_path_factory.mktemp('whole')/'run', time.time()
    assert run(server, photos, out) == 0
    return helpers.fingerprint(out), time.time() - start

def test_whole_run_is_reproducible_across_folders(whole): assert len(whole[0]) > 40

@pytest.mark.parametrize('stage', STAGES)
def test_killed_at_a_random_write_of_each_stage(stage, server, photos, whole, tmp_path):
    rng, out = random.Random(f'kill {stage}'), tmp_path/'run'
    deaths = 0
    for _ in range(2):                                     # twice in the same stage, then to the end
        bomb = stage, rng.randint(1, STAGES[stage]), rng.choice(['before', 'after'])
        code = run(server, photos, out, bomb)
        assert code in (0, -signal.SIGKILL), (bomb, code)
        deaths += code != 0
    assert deaths, 'the bomb never went off'
    assert run(server, photos, out) == 0
    got = helpers.fingerprint(out)
    assert {k: v for k, v in got.items() if whole[0].get(k) != v} == {} and got.keys() == whole[0].keys()

def test_killed_at_random_times(server, photos, whole, tmp_path):
    rng, out = random.Random(5), tmp_path/'run'
    for _ in range(3): assert run(server, photos, out, delay=rng.uniform(.05, .8)*whole[1]) in (0, -signal.SIGKILL)
    assert run(server, photos, out) == 0
    assert helpers.fingerprint(out) == whole[0]

def test_nothing_is_left_lying_about(server, photos, tmp_path):
    out = tmp_path/'run'
    assert run(server, photos, out, ('saliency', 3, 'before')) == -signal.SIGKILL
    assert run(server, photos, out) == 0
    masks = {p.name for p in (out/'saliency').rglob('*.png') if not p.name.startswith('.')}
    assert len(masks) == 15
