"Distillation: same seed same weights, kill -9 at random points, keys, class ids in the given order."
import os, random, signal, subprocess, sys, textwrap, time
from collections import namedtuple
from pathlib import Path
import numpy as np, pytest, torch
from namedmask.core import NamedMaskError, read_json
from namedmask.stages.distil import STUDENTS, class_ids, student_dls, student_settings
from namedmask.stages.student import distil, student_stage
from namedmask.data.masks import MaskStore
from namedmask.data.photos import content_hash
from namedmask.data.toy import toy_scene
from namedmask.models.deeplab import deeplabv3plus
from namedmask.models.segmenter import load_segmenter

Photo = namedtuple('Photo', 'name path sha')
NAMES = ('star', 'circle')                                                # not sorted, not the toy order
TINY = dict(encoder='test_resnet', iterations=12, batch_size=2, crop=32, encoder_lr_ratio=1., freeze_bn=False, scale=(.6, 1.),
            blur={'p': 0}, side=32)

class Archive:
    "The part of an archive that distillation uses."
    def __init__(self, names, entries, key='toy'): self.names, self.entries, self.key = list(names), entries, key
    def kept(self, name=None): return [e for e in self.entries if name in (None, e.name)]

def toy(folder, names=NAMES, n=6):
    "(archive, masks) of `n` toy photos with their true masks."
    folder = Path(folder); folder.mkdir(parents=True, exist_ok=True)
    masks, entries = MaskStore(folder/'masks'), []
    for i in range(n):
        name = names[i % len(names)]
        im, labels = toy_scene(i, seed=1, size=48, names=(name,))
        f = folder/f'{i}.png'; im.save(f)
        entries.append(Photo(name, f, content_hash(f)))
        masks.save(entries[-1].sha, (labels > 0).astype(np.float32))
    return Archive(names, entries), masks

@pytest.fixture(scope='module')
def data(tmp_path_factory): return toy(tmp_path_factory.mktemp('toy'))

@pytest.fixture(scope='module')
def student(data, tmp_path_factory):
    "A tiny student that is trained once for the module: (folder, segmenter)."
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('student')
    return folder, distil(*data, TINY, None, folder, seed=3, quiet=True)

def same(a, b):
    a, b = (o.model.state_dict() for o in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

# ---- settings and ids ------------------------------------------------------------------------------------------
def test_paper_settings_are_the_papers():
    s = STUDENTS['paper']
    assert (s['encoder'], s['output_stride'], s['batch_size'], s['crop'], s['iterations']) == ('resnet50', 8, 16, 384, 20_000)
    assert (s['scale'], s['lr'], s['encoder_lr_ratio'], s['wd'], s['max_objects'], s['band']) == ((.1, 1.), 5e-4, .1, 2e-4, 2, None)
    assert STUDENTS['small'].keys() == s.keys()

@pytest.mark.parametrize('bad,text', [('large', 'choose one of small, paper'), (dict(iteration=1), "Unknown student settings iteration: choose among encoder, "),
    (dict(base='large'), 'choose one of small, paper'), ([1], r'student settings are \[1\]: give a name'), (dict(iterations=0), 'iterations is 0: it has to be a whole number, at least 1'),
    (dict(iterations=None), 'at least 1'), (dict(iterations=1.5), 'at least 1'), (dict(iterations=True), 'at least 1'), (dict(iterations='400'), 'at least 1'), (dict(batch_size=1), 'batch_size is 1.*at least 2'),
    (dict(lr=0), 'lr is 0: .*above 0'), (dict(lr=-1e-3), 'above 0'), (dict(lr=float('nan')), 'lr is nan: .*above 0'), (dict(lr=float('inf')), 'above 0'), (dict(wd=-1.), 'at least 0'),
    (dict(crop=16), 'crop is 16.*at least 32'), (dict(crop=100), 'multiple of 16'), (dict(max_objects=0), 'max_objects is 0.*at least 1'), (dict(scale=(1., .3)), 'smaller one first'),
    (dict(scale=(0., 1.)), 'above 0'), (dict(scale=.5), 'two numbers'), (dict(band=(.2, 1.2)), 'from 0 to 1'), (dict(freeze=2), 'from 0 to 1'), (dict(freeze_bn=1), 'True or False'),
    (dict(jitter={'colour': 1}), 'brightness'), (dict(jitter=None), 'dictionary'), (dict(blur={'sigma': (2, 1)}), 'sigma'), (dict(side=0), "'native'"), (dict(side='big'), "'native'"), (dict(side=[3]), "'native'"),
    (dict(precision='half'), 'float32'), (dict(encoder='resnet5O'), 'resnet5O.*timm.list_models'), (dict(encoder=3), 'timm'), (dict(encoder='hf-hub:a/b'), 'timm'), (dict(output_stride=32), '8 or 16'),
    (dict(ema=1), 'ema is 1: .*below 1'), (dict(ema=-.1), 'below 1'), (dict(even=1.5), 'even is 1.5: .*from 0 to 1'), (dict(head='large'), 'smp or paper'), (dict(channels=0), 'at least 1')])
def test_wrong_settings_say_so(bad, text):
    with pytest.raises(NamedMaskError, match=text): student_settings(bad)

def test_a_part_of_the_settings_changes_those_of_the_teachers_in_use():
    assert student_settings(dict(iterations=50), base='paper') == {**student_settings('paper'), 'iterations': 50}
    assert student_settings(dict(iterations=50)) == {**STUDENTS['small'], 'iterations': 50, 'ema': .99, 'even': 1.} == student_settings(dict(base='small', iterations=50), base='paper')
    assert student_settings('mini', base='paper') == student_settings('mini') and student_settings('small', iterations=None) == student_settings('small')     # not said
    with pytest.raises(NamedMaskError, match='at least 1'): student_settings('small', iterations=0)

def test_a_revision_changes_what_it_says_and_nothing_else():
    for name in ('small', 'mini'): assert student_settings(name, revision=1) == student_settings(name, revision=2) == STUDENTS[name]
    assert student_settings('small') == {**STUDENTS['small'], 'iterations': 1000, 'ema': .99, 'even': 1.} == {**student_settings('small', revision=4), 'even': 1.} and student_settings('mini', revision=6) == STUDENTS['mini']
    assert student_settings('mini') == {**STUDENTS['mini'], 'iterations': 1600, 'side': 96, 'scale': (.4, .9)}
    assert student_settings(student_settings('small', revision=2)) == STUDENTS['small'] == student_settings(STUDENTS['small'])      # an older run's, whole
    assert student_settings('paper', revision=1) == STUDENTS['paper']
    assert student_settings('paper') == student_settings('paper', revision=2) == {**STUDENTS['paper'], 'side': 'native', 'precision': 'float32'}
    whole = student_settings('paper')
    assert student_settings(whole) == whole == student_settings(whole, base='mini', revision=1)             # settings that say all stay what they are
    for bad in (0, 8, 'two', True, None):
        with pytest.raises(NamedMaskError, match='no revision.*from 1 to 7'): student_settings('paper', revision=bad)

@pytest.mark.parametrize('bad', [-1, 1.5, 'x', True, 2**40, None, float('nan')])
def test_a_seed_that_is_none_is_said_before_anything_is_done(data, tmp_path, bad):
    with pytest.raises(NamedMaskError, match='seed is .*from 0 to'): distil(*data, TINY, None, tmp_path/'s', seed=bad, quiet=True)
    assert not (tmp_path/'s').exists()

def test_presets_are_not_changed_by_use():
    before = repr(STUDENTS)
    student_settings('paper', iterations=5); student_settings(dict(crop=32))
    assert repr(STUDENTS) == before

@pytest.mark.parametrize('names,text', [([], 'no name'), (['a', 'b', 'a'], "'a' is there twice"), ([str(i) for i in range(70_000)], 'more than the 65535')])
def test_wrong_names_say_so(names, text):
    with pytest.raises(NamedMaskError, match=text): class_ids(names)

def test_class_ids_follow_the_given_order(data):
    assert class_ids(['sheep', 'cow', 'cat']) == {'sheep': 1, 'cow': 2, 'cat': 3}
    archive, masks = data
    for names in (('star', 'circle'), ('circle', 'star')):
        only = Archive(names, archive.kept('star'))                       # stars alone, to see their number
        dls = student_dls(only, masks, student_settings(TINY, max_objects=1, band=None), seed=0)
        assert set(dls.one_batch()[1].unique().tolist()) - {0, 255} == {names.index('star') + 1}
        assert dls.vocab == ['background', *names]

# ---- data ------------------------------------------------------------------------------------------------------
def test_objects_are_pasted_in_training_batches_only(data):
    def several(max_objects, which):
        dls = student_dls(*data, student_settings(TINY, max_objects=max_objects, batch_size=6), seed=1)
        y = getattr(dls, which).one_batch()[1]
        return sum(len(set(o.unique().tolist()) - {0, 255}) > 1 for o in y)
    assert several(3, 'train') > 0 and several(1, 'train') == 0 and several(3, 'valid') == 0

def test_batches_depend_on_seed_and_number_only(data):
    s = student_settings(TINY)
    it = iter(student_dls(*data, s, seed=5).train); next(it); next(it)
    torch.manual_seed(123)                                                # whatever happened before
    (x, y), (a, b) = next(it), student_dls(*data, s, seed=5, start=2).one_batch()
    assert torch.equal(torch.Tensor(x), torch.Tensor(a)) and torch.equal(y.long(), b.long())
    assert not torch.equal(torch.Tensor(student_dls(*data, s, seed=6, start=2).one_batch()[0]), torch.Tensor(a))

def long_list(data, n=300, used=(280, 299)):
    "The toy archive under a long list of names: its two names are number 281 and 300."
    archive, masks = data
    names = [f'name {i}' for i in range(n)]
    called = {o: names[k] for o, k in zip(NAMES, used)}
    return Archive(names, [e._replace(name=called[e.name]) for e in archive.kept()]), masks

def test_names_beyond_255_are_labels_and_are_pasted(data):
    "The released code never pastes labels of 255 and more."
    s = student_settings(TINY, batch_size=6, max_objects=3, band=(.25, .75))
    y = student_dls(*long_list(data), s, seed=1).one_batch()[1]
    seen = [set(o.unique().tolist()) for o in y]
    assert set().union(*seen) == {0, 281, 300, 1000} and y.dtype == torch.long
    assert sum({281, 300} <= o for o in seen) > 0                         # no toy photo shows both
    dls = student_dls(*long_list(data, 919, (0, 918)), s, seed=1)
    assert set(dls.one_batch()[1].unique().tolist()) == {0, 1, 919, 1000} and dls.ignore_index == 1000

def test_two_steps_with_300_names(data, tmp_path):
    seg = distil(*long_list(data), {**TINY, 'iterations': 2, 'channels': 16, 'max_objects': 2}, None, tmp_path, quiet=True)
    assert len(seg.names) == 300 and np.isfinite(np.loadtxt(tmp_path/'losses.csv', delimiter=',', skiprows=1)).all()
    with torch.no_grad(): seg.model.segmentation_head[0].bias[281] = 100.    # what the network would say is now known
    labels = seg.segment(toy_scene(0, size=40)[0])[0]
    assert labels.dtype == np.uint16 and (labels == 281).all()

def test_the_ignore_index_changes_nothing(data):
    "Whatever number marks ignored pixels, the loss and its gradient are the same."
    from namedmask.models.train import segmenter_learner
    losses = []
    for ignore in (255, 1000):
        dls = student_dls(*data, student_settings(TINY, band=(.25, .75)), seed=1, ignore_index=ignore)
        learn = segmenter_learner(dls, deeplabv3plus('test_resnet', 3, channels=16))
        x, y = dls.one_batch()
        assert (y == ignore).any() and int(y.max()) == ignore
        learn.model.eval()
        losses.append(learn.loss_func(learn.model(x), y).item())
    assert losses[0] == losses[1] and np.isfinite(losses[0])

# ---- training --------------------------------------------------------------------------------------------------
def test_files_and_ledger(data, student, tmp_path):
    folder, seg = student
    assert seg.names == list(NAMES) and seg.classes == ['background', *NAMES]
    assert {p.name for p in folder.iterdir() if not p.name.startswith('.namedmask')} == {'stage.json', 'losses.csv', 'model.safetensors', 'segmenter.json'}
    assert len((folder/'losses.csv').read_text().splitlines()) == 1 + TINY['iterations']
    im, _ = toy_scene(0, size=40)
    assert seg.segment(im)[0].shape == (40, 40) and same(seg, load_segmenter(folder))

def test_same_seed_same_weights_another_seed_others(data, student, tmp_path):
    torch.manual_seed(99); np.random.seed(99); random.seed(99)            # whatever happened before
    assert same(student[1], distil(*data, TINY, None, tmp_path/'a', seed=3, quiet=True))
    assert not same(student[1], distil(*data, {**TINY, 'iterations': 2}, None, tmp_path/'b', seed=4, quiet=True))

def test_nothing_changed_nothing_done(data, student, monkeypatch):
    folder, seg = student
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    monkeypatch.setattr('namedmask.models.training.fit_resumably', lambda *a, **k: pytest.fail('trained again'))
    assert same(seg, distil(*data, TINY, None, folder, seed=3, quiet=True))
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}

def test_what_changes_the_key(data, tmp_path):
    archive, masks = data
    s = student_settings(TINY)
    key = lambda archive=archive, masks=masks, s=s, init=None, seed=3, cards=(): student_stage(archive, masks, s, init, tmp_path, seed, cards).key
    weights = {'w': torch.zeros(3)}
    card = dict(name='t', role='student', supervision='nothing', licence='MIT', source='here')
    assert key() == key() and key(init=weights) == key(init={'w': torch.zeros(3)})
    other = toy(tmp_path/'other')[1]
    assert key(masks=other) == key()                                      # made again and the same
    other.save(archive.entries[0].sha, np.ones((48, 48), np.float32))
    keys = [key(), key(s={**s, 'iterations': 13}), key(seed=4), key(init=weights), key(init={'w': torch.ones(3)}), key(masks=other), key(cards=[card]),
            key(archive=Archive(NAMES, archive.entries, 'edited')), key(archive=Archive(NAMES[::-1], archive.entries))]
    assert len(set(keys)) == len(keys)

def test_names_are_raised_after_the_training_and_it_is_written_down(data, tmp_path):
    "The students differ in nothing but the bias of the last layer, by what `segmenter.json` says."
    plain, even = (distil(*data, {**TINY, 'even': part}, None, tmp_path/str(part), seed=3, quiet=True) for part in (0., 1.))
    raised = even.meta['raised']
    assert 'raised' not in plain.meta and len(raised) == 1 and set(raised) < set(NAMES) and 0 < min(raised.values())
    a, b = (s.model.state_dict() for s in (plain, even))
    (last,) = [name for name in a if not torch.equal(a[name], b[name])]
    assert (b[last] - a[last]).tolist() == pytest.approx([0., *(raised.get(name, 0.) for name in NAMES)], abs=2e-3)

def test_the_key_of_older_runs(data, tmp_path):
    "What stands in the key of a student, spelt as 0.1 spelt it; settings that came later are in it only where they say something new."
    archive, masks = data
    card = dict(name='t', role='student', supervision='nothing', licence='MIT', source='here')
    stage = lambda s: student_stage(archive, masks, s, {'w': torch.zeros(3)}, tmp_path, 3, [card]).settings
    for name, unsaid in (('small', {'channels': 256, 'head': 'smp'}), ('paper', {'channels': 256}), ('mini', {'head': 'smp'})):
        s = stage(student_settings(name, revision=1))
        assert {**s['student'], **unsaid} == STUDENTS[name] and not unsaid.keys() & s['student'].keys()
        assert list(s) == ['stage', 'version', 'student', 'seed', 'names', 'archive', 'masks', 'init', 'cards'] and (s['stage'], s['version'], s['names'], s['archive']) == ('distillation', 2, list(NAMES), 'toy')
    assert stage(student_settings('small')) == stage(student_settings('small', precision='auto', as_released=False)) != stage(student_settings('small', revision=2)) == stage(STUDENTS['small'])
    assert stage(student_settings('paper'))['student'] == {**stage(STUDENTS['paper'])['student'], 'side': 'native', 'precision': 'float32'}

def test_masks_changed_by_hand_make_another_student(tmp_path):
    archive, masks = toy(tmp_path/'photos')
    short = {**TINY, 'iterations': 2}
    first = distil(archive, masks, short, None, tmp_path/'s', quiet=True)
    for e in archive.entries: masks.save(e.sha, 255 - masks.load(e.sha))
    second = distil(archive, masks, short, None, tmp_path/'s', quiet=True)
    assert not same(first, second) and read_json(tmp_path/'s'/'segmenter.json')['key'] == read_json(tmp_path/'s'/'stage.json')['key']

def test_settings_reach_the_samples_and_the_learner(data, tmp_path, monkeypatch):
    from namedmask.stages import student as D
    from namedmask.stages.copypaste import CopyPaste
    class Looked(Exception): pass
    seen = {}
    def look(dls, model, **how):
        seen.update(how, dls=dls)
        raise Looked
    monkeypatch.setattr(D, 'segmenter_learner', look)
    for changes, want in (({}, ('auto', False, 512)), (dict(side='native', precision='float32'), ('float32', False, None)), (dict(as_released=True), ('auto', True, 512))):
        with pytest.raises(Looked): distil(*data, {**TINY, 'side': None, **changes}, None, tmp_path/'-'.join(['s', *changes]), quiet=True)
        ds = seen['dls'].train.dataset
        paste = next(t for t in seen['dls'].train.after_batch.fs if isinstance(t, CopyPaste))
        assert (seen['precision'], ds.as_released, ds.pictures.side) == want and paste.as_released == want[1]

def test_changed_iterations_train_again(data, tmp_path):
    for n in (2, 3):
        distil(*data, {**TINY, 'iterations': n}, None, tmp_path, seed=0, quiet=True)
        assert len((tmp_path/'losses.csv').read_text().splitlines()) == 1 + n
    assert read_json(tmp_path/'stage.json')['iterations'] == 3

def test_start_weights_and_card_are_used(data, tmp_path):
    net = deeplabv3plus('test_resnet', 3, seed=8)
    init = {k.removeprefix('encoder.model.'): v.clone() for k, v in net.state_dict().items() if k.startswith('encoder.model.')}
    card = dict(name='tiny', role='student', supervision='nothing', licence='MIT', source='here')
    seg = distil(*data, {**TINY, 'iterations': 1, 'freeze': 1.}, (init, card), tmp_path, quiet=True, cards=[{**card, 'name': 'finder'}])
    got = seg.model.state_dict()
    weights = [k for k in init if k.endswith('.weight')]
    assert weights and all(torch.equal(got[f'encoder.model.{k}'], init[k]) for k in weights)
    assert [c['name'] for c in read_json(tmp_path/'segmenter.json')['supervision']] == ['finder', 'tiny']

def test_no_mask_at_all_says_so(data, tmp_path):
    with pytest.raises(NamedMaskError, match='no photo with a mask'): distil(data[0], MaskStore(tmp_path/'none'), TINY, None, tmp_path/'s', quiet=True)

# ---- kill -9 ---------------------------------------------------------------------------------------------------
CHILD = '''
import sys, torch, warnings
warnings.filterwarnings('ignore')
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_distillation import TINY, toy
from namedmask.stages.student import distil
data = toy(sys.argv[2])
print('ready', flush=True)
distil(*data, TINY, None, sys.argv[3], seed=3, quiet=True, every_s=0)
print('finished', flush=True)
'''

def test_killed_at_a_random_point_the_result_is_the_same(data, student, tmp_path):
    "A child trains with a checkpoint after each step, is killed after a random number of them, and this process continues."
    folder, ref = tmp_path/'s', student[1]
    losses = folder/'losses.csv'
    p = subprocess.Popen([sys.executable, '-c', CHILD, str(Path(__file__).parent), str(tmp_path/'toy'), str(folder)],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    try:
        assert p.stdout.readline().strip() == 'ready'
        wait_for = random.Random(time.time()).randrange(1, TINY['iterations'] - 2)
        end = time.time() + 100
        while time.time() < end and p.poll() is None:
            if losses.exists() and len(losses.read_text().splitlines()) > wait_for: break
            time.sleep(.002)
    finally:
        if p.poll() is None: os.kill(p.pid, signal.SIGKILL)
        p.wait()
    assert p.returncode == -signal.SIGKILL and not read_json(folder/'stage.json')['done']
    done = torch.load(folder/'checkpoint.pt', weights_only=True)['iteration']
    assert wait_for <= done < TINY['iterations']
    seg = distil(*data, TINY, None, folder, seed=3, quiet=True)
    assert same(seg, ref), f'killed after {done} steps'
    assert len(losses.read_text().splitlines()) == 1 + TINY['iterations']
