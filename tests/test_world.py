"The mini world: always the same scenes, exact labels, no help from colour, VOC's layout."
import re
import numpy as np, pytest
from PIL import Image
from namedmask.core import NamedMaskError, rng_of
from namedmask.data.draw import load_labels
from namedmask.mini.painting import GROUNDS, HOME, OOD
from namedmask.mini.shapes import WORLD_NAMES, object_parts
from namedmask.mini.world import SPLITS, World, colour_word, make_scene
from namedmask.mini.folder import write_world

def test_enough_names_and_grounds():
    assert len(WORLD_NAMES) >= 12 and len([g for g in GROUNDS if g not in OOD]) >= 12 and len(OOD) >= 3
    assert set(HOME) == set(WORLD_NAMES) and all(set(g) <= set(GROUNDS) - set(OOD) for g in HOME.values())

@pytest.mark.parametrize('name', WORLD_NAMES)
def test_every_category_varies_and_fits_its_square(name):
    many = [object_parts(name, rng_of('t', name, i)) for i in range(60)]
    assert len({tuple(r for r, _ in parts) for parts in many}) >= 2                   # layouts
    assert len({round(sum(float(p.sum()) for _, p in parts), 6) for parts in many}) > 30           # proportions
    for parts in many:
        p = np.concatenate([p for _, p in parts])
        assert np.abs(p).max() < 1.25 and np.ptp(p, 0).max() > .8

def test_scenes_repeat_and_differ():
    for split in SPLITS:
        a, b = make_scene(3, split, size=48), make_scene(3, split, size=48)
        assert np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels) and a.caption == b.caption
    assert not np.array_equal(make_scene(3, size=48).image, make_scene(3, size=48, seed=1).image)
    assert not np.array_equal(make_scene(3, size=48).image, make_scene(4, size=48).image)
    assert make_scene(0, size=32).image.size == (32, 32) and make_scene(0, size=32).labels.dtype == np.uint8

def test_splits_are_what_they_say():
    scenes = {s: [make_scene(i, s, size=24) for i in range(60)] for s in SPLITS}
    assert all(len(o.names) == 1 for o in scenes['single']) and all(2 <= len(o.names) <= 4 for o in scenes['test'])
    assert np.mean([len(o.names) == 1 for o in scenes['index']]) > .75
    assert all(o.ground in OOD for o in scenes['ood']) and not any(o.ground in OOD for s in scenes if s != 'ood' for o in scenes[s])
    for o in (o for s in scenes.values() for o in s):
        assert {WORLD_NAMES[i-1] for i in np.unique(o.labels) if i} <= set(o.names)
        assert any(re.search(rf'\b{n}\b', o.caption) for n in o.names)

def test_labels_are_the_things():
    shares = [np.mean(make_scene(i, 'single', size=48).labels > 0) for i in range(80)]
    assert .08 < np.mean(shares) < .4 and np.mean([s > .01 for s in shares]) > .97

@pytest.mark.parametrize('bias, low, high', [(0., .0, .35), (1., .99, 1.), (.7, .55, .9)])
def test_bias(bias, low, high):
    at_home = np.mean([s.ground in HOME[s.names[0]] for s in (make_scene(i, 'single', size=8, bias=bias) for i in range(150))])
    assert low <= at_home <= high

def test_words_for_colours():
    assert [colour_word(*c) for c in ((0, 1, 1), (.99, .9, .9), (.33, .8, .5), (1.6, .9, .8), (.1, .05, .9), (.1, .05, .5), (.5, .5, .1))] == ['red', 'red', 'green', 'blue', 'white', 'grey', 'black']

def test_folder_in_vocs_layout(tmp_path):
    w = World('test', 6, size=40, names=('fish', 'boat', 'car'))
    write_world(w, tmp_path/'w', split='train', quiet=True)
    stems = (tmp_path/'w'/'ImageSets'/'Segmentation'/'train.txt').read_text().split()
    assert len(stems) == 6 and (tmp_path/'w'/'names.txt').read_text().split() == ['fish', 'boat', 'car']
    to_name = ['', 'fish', 'boat', 'car']
    for i, s in enumerate(stems):
        scene, lab = w[i], load_labels(tmp_path/'w'/'SegmentationClass'/f'{s}.png')
        assert {to_name[k] for k in np.unique(lab) if k} == {WORLD_NAMES[k-1] for k in np.unique(scene.labels) if k}
        im = np.asarray(Image.open(tmp_path/'w'/'JPEGImages'/f'{s}.jpg'), float)
        assert np.abs(im - np.asarray(scene.image, float)).mean() < 8
    first = tmp_path/'w'/'JPEGImages'/f'{stems[0]}.jpg'
    before = first.stat().st_mtime_ns
    write_world(w, tmp_path/'w', split='train', quiet=True)
    assert first.stat().st_mtime_ns == before                                          # kept, not painted again

def test_a_folder_of_another_world_is_not_mixed(tmp_path):
    write_world(World('test', 2, size=24), tmp_path/'w', quiet=True)
    assert write_world(World('test', 3, size=24), tmp_path/'w', quiet=True).exists()          # more of the same
    for other in (World('test', 2, size=32), World('test', 2, size=24, bias=0.), World('test', 2, size=24, names=('fish',)), World('test', 2, size=24, seed=1)):
        with pytest.raises(NamedMaskError, match='another world'): write_world(other, tmp_path/'w', quiet=True)

def test_wrong_words():
    with pytest.raises(NamedMaskError, match='no split'): World('train')
    with pytest.raises(NamedMaskError, match="no 'zebra'"): object_parts('zebra', rng_of(0))
    with pytest.raises(NamedMaskError, match="no 'zebra'"): make_scene(0, names=('zebra',))
    with pytest.raises(IndexError): World('test', 3)[3]
