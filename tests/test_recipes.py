"Recipes: the published lists in evaluation order, their numbers, archives in order, a run by name."
import json
import pytest
from namedmask.core import NamedMaskError
from namedmask.stages.distil import STUDENTS, class_ids
from namedmask.stages.experts import EXPERTS
from namedmask.evaluate.recipes import RECIPES, filled, imagenet_s, in_order, recipe
from namedmask.stages.names import parse_names

PUBLISHED = ('voc2012', 'coco2017', 'coca', 'cityscapes', 'imagenet-s50', 'imagenet-s300', 'imagenet-s919')

@pytest.mark.parametrize('name,classes,first,last', [
    ('voc2012', 21, 'aeroplane', 'tv/monitor'), ('coco2017', 81, 'person', 'toothbrush'), ('coca', 81, 'Accordion', 'whisk'), ('cityscapes', 15, 'pole', 'bicycle'),
    ('imagenet-s50', 51, 'goldfish', 'agaric'), ('imagenet-s300', 301, 'tench', 'bolete'), ('imagenet-s919', 920, 'tench', 'toilet tissue')])
def test_each_benchmark_has_its_names_in_evaluation_order(name, classes, first, last):
    r = recipe(name)
    assert (r.n_classes, r.names[0], r.names[-1]) == (classes, first, last)
    assert list(r.ids.values()) == list(range(1, classes)) and [c.name for c in parse_names(list(r.names))] == list(r.names)
    assert r.ignore_index == (1000 if 'imagenet' in name else 255) and r.ignore_index not in r.ids.values()

def test_what_all_share():
    for name in PUBLISHED:
        r, small = recipe(name), recipe(f'{name}-small')
        assert (r.n, r.student, r.experts, r.teachers) == (500, 'paper', 'paper', 'paper')
        assert small.names == r.names and (small.student, small.experts, small.teachers, small.published) == ('small', 'small', 'offline', None)
        assert small.student in STUDENTS and small.experts in EXPERTS
    assert len(RECIPES) == 2*len(PUBLISHED)
    assert EXPERTS['paper']['batch_size'] == 8 and EXPERTS['paper']['n_iters'] == 5000 and 'max_objects' not in EXPERTS['paper']

def test_known_places():
    "Places in the lists as the benchmarks' own files have them."
    assert recipe('voc2012').ids | {} and [recipe('voc2012').ids[n] for n in ('dining table', 'potted plant', 'person')] == [11, 16, 15]
    assert [recipe('coco2017').ids[n] for n in ('stop sign', 'cat', 'tv')] == [12, 16, 63]           # contiguous, not 13, 17, 72
    assert [recipe('coca').ids[n] for n in ('UAV', 'Yellow duck', 'alarm clock')] == [2, 3, 4]
    assert [recipe('cityscapes').ids[n] for n in ('polegroup', 'rider', 'train')] == [2, 6, 12]
    assert recipe('coco2017').published == dict(paper=28.4, weights=27.7, accuracy=76.4) and recipe('imagenet-s300').published == dict(weights=33.1)

def test_imagenet_s_numbers_come_from_sorted_ids():
    s = imagenet_s(919)
    assert list(s.values()) == sorted(s.values()) and s['tench'] == 'n01440764' and s['cardigan (sweater)'] == 'n02963159' and s['Cardigan (corgi)'] == 'n02113186'
    assert list(imagenet_s(50).values())[:3] == ['n01443537', 'n01491361', 'n01531178']
    assert {'n04356056', 'n04493381', 'n03642806', 'n04008634', 'n03887697'}.isdisjoint(s.values())  # classes that ImageNet-S merged into others
    with pytest.raises(NamedMaskError, match='50, 300 or 919'): imagenet_s(100)

def test_unknown_recipe():
    with pytest.raises(NamedMaskError, match='choose one of voc2012'): recipe('VOC')

def test_archives_in_order(tmp_path):
    r = recipe('cityscapes')
    (tmp_path/'a.json').write_text(json.dumps({n: [n] for n in reversed(r.names)}))
    assert in_order(r, tmp_path/'a.json') == {n: [n] for n in r.names} and list(in_order(r, tmp_path/'a.json')) == list(r.names)
    for bad, text in (({n: [] for n in r.names[1:]}, 'missing: pole'), ({**{n: [] for n in r.names}, 'tree': []}, 'unknown: tree')):
        with pytest.raises(NamedMaskError, match=text): in_order(r, bad)
    with pytest.raises(NamedMaskError, match='no archive'): in_order(r, tmp_path/'none.json')

def test_what_is_given_stays():
    assert filled('voc2012', n=7, experts=False, teachers='paper') == dict(names=list(recipe('voc2012').names), n=7, student='paper', experts=False)
    assert filled('voc2012', student='small', experts=False, teachers='offline')['student'] == 'small'
    for wrong in (dict(name='voc2012', student='small', teachers='offline'), dict(name='voc2012-small', teachers='paper'), dict(name='voc2012', teachers='mini')):   # experts or a student from random weights
        with pytest.raises(NamedMaskError, match='starts from the'): filled(**wrong)
    with pytest.raises(NamedMaskError, match='--teachers paper'): filled('coca', teachers='offline')
