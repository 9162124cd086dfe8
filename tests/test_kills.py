"A short version of bench/kills.py: killed jobs continue, end with the same files, and leave nothing behind."
import sys
import pytest
from helpers import ROOT

sys.path.append(str(ROOT/'bench'))
import kills

@pytest.fixture(scope='module')
def killer(tmp_path_factory):
    work = tmp_path_factory.mktemp('kills')
    kills.prepare(work/'inputs')
    return kills.Killer(work/'inputs', work)

@pytest.mark.parametrize('name', ['fit_parallel', 'predict', 'evaluate', 'table'])     # `fit` itself: test_resume.py
def test_killed_and_continued(killer, name): assert killer.check(name, 3 if name in ('predict', 'evaluate') else 2) >= 1
