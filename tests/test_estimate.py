"How good a name is likely to be, without labels: on students whose faults are known."
import numpy as np, pytest
from types import SimpleNamespace
import helpers
from PIL import Image
from namedmask.core import read_json, write_json
from namedmask.evaluate.estimate import agreement, estimate_names, estimate_photo, photos_beside, two_views
from namedmask.data.masks import MaskStore
from namedmask.stages.index import build_index
from namedmask.runs.run import Run
from namedmask.stages.build import build_archive
from namedmask.teachers.sets import get_teachers

class Reds:
    "Calls red 1 and green 2; with `least`, only greens that cover so many pixels at the size it works at."
    names, meta = ['red', 'green'], dict(side=40)
    def __init__(self, least=0, swap=False): self.least, self.swap = least, swap
    def segment(self, im, side=40):
        x = np.asarray(im.convert('RGB'), int)
        red, green = x[..., 0] - x[..., 1] > 60, x[..., 1] - x[..., 0] > 60
        if green.sum()*(side/min(im.size))**2 < self.least: green[:] = False
        out = np.where(red, 1, np.where(green, 2, 0)).astype(np.uint8)
        return (np.where(out > 0, 3 - out, 0).astype(np.uint8) if self.swap else out), None

def photo(folder, colour, size, i=0):
    x = np.full((40, 60, 3), 120, np.uint8)
    x[5:5 + size, 4 + i:4 + i + size] = colour
    path = folder/f'{colour[0]}-{size}-{i}.png'
    Image.fromarray(x).save(path)
    return SimpleNamespace(path=path, sha=path.stem, name='red' if colour[0] > 100 else 'green')

RED, GREEN = (200, 30, 30), (30, 200, 30)
NOBODY = SimpleNamespace(kept=lambda name: [])

def test_the_second_view_is_turned_back(tmp_path):
    im = Image.open(photo(tmp_path, RED, 12).path)
    labels, other = two_views(Reds(), im)
    assert labels[10, 8] == 1 and np.array_equal(labels, other) and estimate_photo(Reds(), im) == 1

def test_what_one_view_alone_sees_is_not_steady(tmp_path):
    im = Image.open(photo(tmp_path, GREEN, 12).path)
    assert estimate_photo(Reds(least=100), im) == 0 and estimate_photo(Reds(least=40), im) == 1
    assert estimate_photo(Reds(least=10_000), im) == 1                        # silent in both views

def test_agreement_is_the_iou_of_each_name():
    a, b = np.array([[1, 1, 2, 0]]), np.array([[1, 2, 2, 0]])
    assert agreement(a, b, 3)[:2].tolist() == [.5, .5] and np.isnan(agreement(a, b, 3)[2])

def test_a_name_that_is_missed_swapped_or_torn_gets_less(tmp_path):
    beside = dict(red=[photo(tmp_path, RED, 12, i) for i in range(4)], green=[photo(tmp_path, GREEN, 6 + 3*i, i) for i in range(4)])
    good, shaky, swapped = (estimate_names(s, beside, NOBODY, {}, quiet=True) for s in (Reds(), Reds(least=100), Reds(swap=True)))
    assert good['red'] == good['green'] == dict(photos=4, found=1, steady=1, masks=None, estimate=1)
    assert shaky['red']['estimate'] == 1 and 0 < shaky['green']['found'] < 1 and shaky['green']['estimate'] < shaky['green']['found']
    assert swapped['red']['found'] == swapped['green']['estimate'] == 0
    beside['red'][0].path.write_bytes(b'torn')                                  # a damaged photo counts for nothing
    assert estimate_names(Reds(), beside, NOBODY, {}, quiet=True)['red'] == dict(photos=3, found=1, steady=1, masks=None, estimate=1)

def test_masks_that_the_student_contradicts_lower_it(tmp_path):
    photos, store = [photo(tmp_path, RED, 12, i) for i in range(2)], MaskStore(tmp_path/'masks')
    true = Reds().segment(Image.open(photos[0].path))[0] == 1
    store.save(photos[0].sha, (true*255).astype(np.uint8))
    store.save(photos[1].sha, np.full(true.shape, 255, np.uint8))              # all of the photo, where the thing is 12 x 12 of 40 x 60
    archive = SimpleNamespace(kept=lambda name: photos if name == 'red' else [])
    found = estimate_names(Reds(), dict(red=photos), archive, store, quiet=True)['red']
    assert found['masks'] == pytest.approx((1 + 144/2400)/2) and found['estimate'] == pytest.approx((1 + found['masks'])/2)

def test_photos_beside_an_archive_show_its_name_and_are_not_in_it(tmp_path):
    helpers.register()
    retriever, photos = get_teachers('toy').retriever(), helpers.write_photos(tmp_path/'photos', 8)
    index = build_index(photos, retriever, tmp_path/'index', quiet=True)
    archive = build_archive(index, retriever, 'red,green', 3, tmp_path/'archive', max_hamming=-1, votes=0, quiet=True, warn=False)
    beside = photos_beside(index, archive, 4)
    assert {n: {p.rel.split('_')[0] for p in of} for n, of in beside.items()} == dict(red={'red'}, green={'green'}) and all(len(of) == 4 for of in beside.values())
    assert not {p.sha for of in beside.values() for p in of} & {e.sha for e in archive.kept()}
    left_out = {beside['red'][0].sha}
    assert not {p.sha for p in photos_beside(index, archive, 4, left_out)['red']} & left_out

def test_a_run_tells_it_and_makes_it_again_when_the_student_changes(tmp_path, capsys):
    photos = helpers.write_photos(tmp_path/'photos', 6)
    fit = lambda **kw: helpers.toy_fit(photos, tmp_path/'run', names='red,green', n=2, experts=False, student=dict(helpers.STUDENT, iterations=2), quiet=False, **kw)
    run = fit()
    assert 'estimated without labels' not in capsys.readouterr().out and run.estimate(make=False) is None
    run = fit(report=True)
    said = capsys.readouterr().out
    assert 'estimated without labels: ' in said and list(run.estimate(make=False)) == ['red', 'green']
    assert 'Which names to believe' in (run.folder/'report.html').read_text()
    written = (run.folder/'estimate.json').stat().st_mtime_ns
    fit(report=True)
    assert 'estimated without labels: ' in capsys.readouterr().out and (run.folder/'estimate.json').stat().st_mtime_ns == written
    before = read_json(run.folder/'estimate.json')['key']
    fit(report=True, sure=.5)
    assert read_json(run.folder/'estimate.json')['key'] != before
    for damage in ('x', [], dict(read_json(run.folder/'estimate.json'), names={'red': 3}), dict(read_json(run.folder/'estimate.json'), names={})):
        write_json(run.folder/'estimate.json', damage)
        if isinstance(damage, dict): assert Run(run.folder).estimate(make=False) is None
    assert Run(run.folder).estimate()['red']['photos'] > 0
