"A short version of bench/kills.py: killed jobs continue, end with the same files, and leave nothing behind."
import sys
import pytest
import helpers

sys.path.append(str(helpers.ROOT/'bench'))
import kills

@pytest.fixture(scope='module')
def killer(tmp_path_factory):
    work = tmp_path_factory.mktemp('kills')
    kills.prepare(work/'inputs')
    killer = kills.Killer(work/'inputs', work)
    killer.ctx = helpers.fork_server()
    return killer

@pytest.mark.parametrize('name, kills', [('fit_parallel', 1), ('predict', 3), ('evaluate', 3), ('table', 2)])     # `fit` itself: test_resume.py
def test_killed_and_continued(killer, name, kills): assert killer.check(name, kills) >= 1
