"Settings: one spelling, one key, and mistakes that are told."
import json
from dataclasses import FrozenInstanceError, dataclass, fields
import pytest
from namedmask.core import Ctx, Named, NamedMaskError, Settings, settings_key
from namedmask.core.settings import SHARE, divided, number, one_of, or_none, pair, part, setting, whole
from namedmask.stages.distil import STUDENTS, Student
from namedmask.stages.experts import EXPERTS, Expert
from namedmask.stages.selfmask_training import SELFMASK, SelfMaskTraining
from namedmask.systems.maskcontrast import MaskContrastTraining
from namedmask.systems.maskdistill import MaskDistill
from namedmask.systems.rcnn import RcnnTraining

@dataclass(frozen=True, eq=False, repr=False)
class Inner(Settings):
    what = 'inner'
    p:float = setting(.5, SHARE, unsaid=True)
    sigma:tuple = setting((.1, 2.), pair(above=0), unsaid=True)

@dataclass(frozen=True, eq=False, repr=False)
class Toy(Named):
    what = 'toy'
    lr:float = setting(1., number(above=0))
    steps:int = setting(9, whole(1))
    inner:Inner = part(Inner, 'a dictionary with p and sigma')
    side:int = setting(None, or_none(whole(16)))
    new:float = setting(0., SHARE, unsaid=True)
    workers:int = setting(4, whole(0), in_key=False)

Toy.presets = dict(paper=Toy(), mini=Toy(lr=2, steps=3))
Toy.revised = {2: {'paper': dict(steps=8)}, 3: {'mini': dict(lr=3.)}}

def test_a_preset_with_changes():
    assert Toy.of('mini', revision=1) == Toy.presets['mini'] and Toy.of(dict(steps=5), revision=1) == Toy(steps=5)
    assert Toy.of(dict(base='mini', lr=7), revision=1) == Toy(lr=7, steps=3) == Toy.of(dict(lr=7), 'mini', revision=1)
    assert Toy.of() == Toy(steps=8) == Toy.of('paper', steps=None) and Toy.of('paper', revision=1).steps == 9
    assert Toy.of('mini').lr == 3. and Toy.of(Toy.presets['mini']).lr == 2.       # a revision changes a name, not settings that say all
    assert Toy.of(dict(Toy.presets['mini'])).lr == 2. and Toy.of('paper', side=None).side is None

@pytest.mark.parametrize('given,words', [('small', "no toy settings called 'small': choose one of paper, mini"), (dict(base=3), 'choose one of paper, mini'),
    (dict(speed=1), 'Unknown toy settings speed: choose among lr, steps'), ([1], 'give a name'), (dict(lr=0), 'setting lr is 0: it has to be a number above 0'),
    (dict(lr='1'), 'above 0'), (dict(lr=True), 'above 0'), (dict(steps=1.5), 'whole number'), (dict(inner={'q': 1}), 'a dictionary with p and sigma'),
    (dict(inner={'sigma': (2, 1)}), 'a dictionary with p and sigma'), (dict(inner=None), 'a dictionary'), (dict(side=3), 'None, or a whole number, at least 16')])
def test_mistakes_are_told(given, words):
    with pytest.raises(NamedMaskError, match=words.replace('(', r'\(')): Toy.of(given)

def test_what_means_the_same_has_the_same_key():
    same = [Toy(), Toy.of('paper', revision=1), Toy(lr=1), Toy(**{'steps': 9, 'lr': 1.0}), Toy(inner={}), Toy(inner=Inner()), Toy(inner=dict(sigma=[.1, 2])),
            Toy(inner=dict(p=.5)), Toy(new=0), Toy(workers=0), Toy.of(json.loads(json.dumps(Toy().as_dict())))]
    assert len({s.key() for s in same}) == 1 and all(settings_key({'a': s}) == settings_key({'a': same[0]}) for s in same)
    other = [Toy(lr=1.1), Toy(steps=8), Toy(inner=dict(p=.4)), Toy(new=.1), Toy(side=16)]
    assert len({s.key() for s in [*same, *other]}) == 1 + len(other)
    assert Toy(workers=0) != Toy() and hash(Toy(workers=0)) == hash(Toy())

def test_they_read_like_a_dictionary_and_cannot_be_changed():
    s = Toy(inner=dict(p=.1))
    assert dict(s) == {**s} == dict(lr=1., steps=9, inner=Inner(p=.1), side=None, workers=4) and s['new'] == 0. and 'new' not in list(s)
    assert s.as_dict() == dict(lr=1., steps=9, inner={'p': .1}, side=None, workers=4) and type(s.as_dict()['inner']) is dict
    assert s == s.as_dict() and s.inner.only(Inner) == dict(p=.1, sigma=(.1, 2.))
    with pytest.raises(FrozenInstanceError): s.lr = 2
    with pytest.raises(KeyError): s['speed']

@pytest.mark.parametrize('table', [STUDENTS, EXPERTS, SELFMASK])
def test_the_librarys_presets_survive_a_file(table):
    for name, preset in table.items():
        again = type(preset).of(json.loads(json.dumps(preset.as_dict())))
        assert again == preset and again.key() == preset.key() and again.as_dict() == preset.as_dict()

@pytest.mark.parametrize('kind', [Student, Expert, SelfMaskTraining])
def test_the_papers_settings_are_the_defaults(kind):
    assert dict(kind.presets['paper']) == dict(kind()) and all('rule' in f.metadata for f in fields(kind))

KEYS = {   # (class, preset): its key in revision 1 and today; another key means that every result is made again
    ('Student', 'small'): ('253b0cb786f48d37', 'c4facae14b2f18c9'), ('Student', 'paper'): ('a5876df5865e705e', 'a21f50728ff489ce'),
    ('Student', 'mini'): ('504918d50e3109b1', '6f6134afe20536f9'), ('Expert', 'paper'): ('69ff559961cd9314', 'e7b77f85d6590dfa'),
    ('Expert', 'small'): ('a15138c35d9262e9', 'a15138c35d9262e9'), ('Expert', 'mini'): ('59cf0c7d8b923757', 'cb3685d9aeb99477'),
    ('SelfMaskTraining', 'paper'): ('d32a525ab5f6704c', 'a564fa4cfeefffa9'), ('SelfMaskTraining', 'mini'): ('627531e954e74016', '627531e954e74016'),
    ('MaskContrastTraining', 'paper'): ('48707ebd4ed2625e', '48707ebd4ed2625e'), ('MaskContrastTraining', 'small'): ('69c97876d9776ff2', '69c97876d9776ff2'),
    ('MaskContrastTraining', 'mini'): ('c00098687ef23854', 'c00098687ef23854'), ('MaskDistill', 'paper'): ('d6fcd979783a69bb', 'd6fcd979783a69bb'),
    ('MaskDistill', 'mini'): ('f0d5e67a32b51c60', 'f0d5e67a32b51c60'), ('RcnnTraining', 'paper'): ('57c5a32a3e39cd5c', '57c5a32a3e39cd5c'),
    ('RcnnTraining', 'mini'): ('9f0fa517b3f42cb0', '9f0fa517b3f42cb0'),
}

@pytest.mark.parametrize('kind', [Student, Expert, SelfMaskTraining, MaskContrastTraining, MaskDistill, RcnnTraining])
def test_presets_keep_their_keys(kind):
    assert {(kind.__name__, name): (kind.preset(name, 1).key(), kind.preset(name).key()) for name in kind.presets}.items() <= KEYS.items()

def test_a_run_of_revision_4_keeps_its_students_key():
    assert Student.preset('small', 4).key() == Student.preset('small', 3).key() == 'bb0091e36bb10635'

def test_arguments_for_several_classes():
    assert divided(dict(lr=1, p=.2), Toy, Inner) == [dict(lr=1), dict(p=.2)]
    with pytest.raises(TypeError, match='unexpected rate: known are .*lr.*sigma'): divided(dict(rate=1), Toy, Inner)

def test_the_context_of_a_job(tmp_path):
    ctx = Ctx.of(tmp_path, seed=3, quiet=True)
    assert ctx.at('a').folder == tmp_path/'a' and Ctx.of(ctx, seed=4).seed == 4 and Ctx.of(ctx).quiet and Ctx.of(tmp_path, **ctx.how()) == ctx
    with pytest.raises(TypeError, match='unexpected sead.*seed'): Ctx.of(tmp_path, sead=3)
