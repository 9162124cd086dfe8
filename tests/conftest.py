"What has been imported is no garbage: it is left out of its collection, which a run of a second asks for ten times, and which would take half a second each time."
import gc, sys
import pytest

_frozen = 0     # modules that had been imported when the objects of that time were set aside

def freeze_imports():
    "Set aside all objects that live, if many modules have been imported since it was done last."
    global _frozen
    if len(sys.modules) < _frozen + 100: return
    gc.collect()
    gc.freeze()
    _frozen = len(sys.modules)

@pytest.fixture(scope='session', autouse=True)
def imports_of_the_test_files(): freeze_imports()

@pytest.fixture(autouse=True)
def imports_of_the_tests():
    yield
    freeze_imports()
