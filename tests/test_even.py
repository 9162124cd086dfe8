"Names that a student is less sure of inside their own masks are raised, and nothing else changes."
from collections import namedtuple
from types import SimpleNamespace
import numpy as np, pytest, torch
from PIL import Image
from namedmask.core import NamedMaskError
from namedmask.data.masks import MaskStore
from namedmask.models.deeplab import deeplabv3plus
from namedmask.models.segmenter import Segmenter
from namedmask.stages.distil import Student
from namedmask.stages.even import MOST, even_out, log_odds, raise_scores, raises, some_of, sure_inside

Photo = namedtuple('Photo', 'name path sha')
NAMES = ['red', 'green', 'blue']
SIDE = 40

class Colours(torch.nn.Module):
    "The score of a name is the bias of its row where a photo has its colour, and far below background elsewhere."
    multiple = 1
    def __init__(self, bias):
        super().__init__()
        self.last = torch.nn.Conv2d(3, 4, 1)
        self.last.weight.data = torch.cat([torch.zeros(1, 3), 100*torch.eye(3)])[..., None, None]
        self.last.bias.data = torch.tensor([0., *bias])
        self.spec = dict(n_classes=4, encoder='colours', mean=[0.]*3, std=[1.]*3)
    def forward(self, x): return self.last(x) - torch.tensor([0, 100, 100, 100]).view(1, 4, 1, 1)

def segmenter(*bias): return Segmenter(Colours(bias), dict(names=NAMES, side=SIDE))

@pytest.fixture(scope='module')
def archive(tmp_path_factory):
    "Two photos of each name: its colour on black. The masks are a little larger than what is to be seen, and one is empty."
    folder = tmp_path_factory.mktemp('colours')
    masks, entries = MaskStore(folder/'masks'), []
    for i, name in enumerate(2*NAMES + ['red']):
        x = np.zeros((SIDE, SIDE, 3), np.uint8)
        x[10:30, 10:30, NAMES.index(name)] = 255
        Image.fromarray(x).save(folder/f'{i}.png')
        entries.append(Photo(name, folder/f'{i}.png', f'{i:064x}'))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if i < 6: mask[9:31, 9:31] = 255
        masks.save(entries[-1].sha, mask)
    return SimpleNamespace(names=NAMES, kept=lambda name=None: [e for e in entries if name in (None, e.name)], masks=masks)

def test_log_odds_are_those_of_the_probability():
    scores = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    p = scores.double().softmax(0)
    for c in range(4): assert np.allclose(log_odds(scores, c), torch.log(p[c]/(1 - p[c])), atol=1e-5)

def test_how_sure_a_network_is_inside_its_masks(archive):
    "The median of pixels does not see that the masks are too large; the empty mask says nothing."
    assert sure_inside(segmenter(3., 1., 2.), archive.kept(), archive.masks) == pytest.approx(dict(red=3, green=1, blue=2), abs=1e-3)

def test_names_without_masks_are_left_out(archive, tmp_path):
    some = [e for e in archive.kept() if e.name != 'blue']
    assert [*sure_inside(segmenter(3., 1., 2.), some, archive.masks)] == ['red', 'green']
    assert sure_inside(segmenter(3., 1., 2.), archive.kept(), MaskStore(tmp_path/'none')) == {}

def test_a_photo_that_has_gone_says_nothing(archive, tmp_path):
    gone = [e._replace(path=tmp_path/'gone.png') if e.sha == f'{0:064x}' else e for e in archive.kept()]
    assert sure_inside(segmenter(3., 1., 2.), gone, archive.masks)['red'] == pytest.approx(3, abs=1e-3)

def test_what_names_are_raised_by():
    assert raises(dict(a=5., b=4., c=2., d=4.5)) == dict(b=.25, c=2.25)
    assert raises(dict(a=5., b=4., c=2.), .5) == dict(c=1.)
    assert raises(dict(a=5., b=4., c=-9.)) == dict(c=MOST)
    assert raises(dict(a=5., b=4., c=-9., d=4.5), doubtful=['c']) == dict(b=.5)
    assert raises({}) == raises(dict(a=1.)) == raises(dict(a=1., b=3.), 0.) == {}

@pytest.mark.parametrize('even, bias', [(1., [3., 2., 2.]), (.5, [3., 1.5, 2.]), (0., [3., 1., 2.])])
def test_even_out_changes_the_bias_of_that_name(archive, even, bias):
    s = segmenter(3., 1., 2.)
    weight = s.model.last.weight.clone()
    told = even_out(s.model, NAMES, archive, archive.masks, Student.of('mini', even=even, side=SIDE))
    assert s.model.last.bias.tolist() == pytest.approx([0., *bias], abs=1e-3) and torch.equal(s.model.last.weight, weight)
    assert told == ({'green': pytest.approx(even, abs=1e-3)} if even else {})

def test_the_archive_that_is_not_trusted_is_left_alone(archive):
    "Its masks may be wrong, and then the network is right not to be sure."
    s, doubted = segmenter(3., -1., 2.), SimpleNamespace(kept=archive.kept, trust=dict(red=1., green=.2, blue=.9))
    assert even_out(s.model, NAMES, doubted, archive.masks, Student.of('mini', even=1., side=SIDE)) == {'blue': pytest.approx(.5, abs=1e-3)}

def test_a_raised_name_wins_where_it_was_second(archive):
    "Green lies just below background on its own photos, and comes first once it is raised; red and blue keep their pixels."
    s = segmenter(3., -.5, 2.)
    green = np.asarray(Image.open(archive.kept('green')[0].path))
    assert not s.predict(green).any()
    even_out(s.model, NAMES, archive, archive.masks, Student.of('mini', even=1., side=SIDE))
    assert (s.predict(green) == 2).sum() == 400 and (s.predict(np.asarray(Image.open(archive.kept('red')[0].path))) == 1).sum() == 400

def test_a_network_without_a_row_for_each_name_says_so():
    model = Colours([1., 1., 1.])
    model.spec['n_classes'] = 5
    with pytest.raises(NamedMaskError, match='no row for each class'): raise_scores(model, NAMES, dict(red=1.))

@pytest.mark.parametrize('head', ['smp', 'paper'])
def test_raising_adds_to_the_scores_of_a_real_network(head):
    model = deeplabv3plus('test_resnet', 4, 16, channels=16, head=head).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        raise_scores(model, NAMES, dict(green=1.5))
        assert torch.allclose(model(x) - before, torch.tensor([0, 0, 1.5, 0]).view(1, 4, 1, 1).expand_as(before), atol=1e-5)

def test_some_of_goes_from_the_best_to_the_last():
    assert some_of([*range(100)], 30)[::30] == [0, 90] and len(some_of([*range(100)], 30)) == 34 and some_of([1, 2], 30) == [1, 2] and some_of([], 5) == []

@pytest.mark.parametrize('bad', [[1.], 'person', dict(dog=1.), dict(red='1'), dict(red=-1.), dict(red=float('nan')), dict(red=True), None])
def test_what_a_file_says_was_raised_is_looked_at(bad, tmp_path):
    from namedmask.models.segmenter import check_meta
    about = dict(names=NAMES, model=dict(encoder='test_resnet', n_classes=4, output_stride=16, mean=[0.]*3, std=[1.]*3))
    assert check_meta({**about, 'raised': dict(red=.5)}, 'segmenter.json') and check_meta({**about, 'raised': {}}, 'segmenter.json')
    with pytest.raises(NamedMaskError, match="segmenter.json describes no segmenter .'raised' is"): check_meta({**about, 'raised': bad}, 'segmenter.json')

def test_the_card_and_fit_say_what_was_raised():
    from namedmask.app.predictor import model_card
    from namedmask.runs.pipeline import _raised
    meta = dict(names=NAMES, raised=dict(red=2.256, green=.1, blue=.5))
    assert 'as sure of each name as of the others: red by 2.3 and blue by 0.5.' in model_card(meta, {}) and 'raised' not in model_card(dict(names=NAMES), {})
    assert _raised(SimpleNamespace(meta=meta)) == ', red raised by 2.3, blue raised by 0.5' and _raised(SimpleNamespace(meta={})) == ''
