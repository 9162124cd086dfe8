"Experts: groups, stages of their own, masks drawn again, what happens after an interruption or a change."
import os, signal, sys, tempfile, time
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from namedmask.core import NamedMaskError, Stage
from namedmask.stages.experts import *
from namedmask.stages.refine import *
from namedmask.stages.expert_stage import *
from namedmask.data.masks import MaskStore
from namedmask.models import resume, segmenter, batches
from namedmask.stages import expert_stage as stage_module, experts as experts_module, refine as refine_module
import forked, helpers
from test_segmenter import Fake, toy

TINY = dict(encoder='resnet10t', channels=16, n_iters=3, batch_size=2, crop=32, scale=(.5, 1.), freeze=1., lr=1e-3, side=32, jitter=dict(p=0), blur=dict(p=0), empty=0., full=1., unsure=1., mix=0.)

def run(archive, folder, **kw): return refine_masks(*archive, settings={**TINY, **kw.pop('settings', {})}, folder=folder, quiet=True, every_s=0, **kw)

def files(store): return {p.stem: p.read_bytes() for p in sorted(store.folder.glob('*/*.png'))}

@pytest.fixture(scope='module')
def archive(tmp_path_factory): return toy(tmp_path_factory.mktemp('photos'), n=6)

@pytest.fixture(scope='module')
def whole(archive, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    return folder, files(run(archive, folder))

def test_every_photo_gets_a_mask_of_its_size_and_a_record(archive, whole):
    entries, masks = archive
    store = MaskStore(whole[0]/'masks')
    assert len(store) == len(entries) and all(store.load(e.sha).shape == masks.load(e.sha).shape for e in entries)
    rs = refined(whole[0])
    assert sorted(r['sha'] for r in rs) == sorted(e.sha for e in entries)
    assert all(r['status'] == 'new' and 0 <= r['iou'] <= 1 and r['name'] in ('circle', 'square') for r in rs)
    assert not list(whole[0].glob('*/checkpoint.pt')) and (whole[0]/'circle'/'losses.csv').exists()

def test_again_does_nothing(archive, whole, monkeypatch):
    monkeypatch.setattr(stage_module, 'build_network', None); monkeypatch.setattr(stage_module, 'drawn_from', None)
    assert files(run(archive, whole[0])) == whole[1]

def test_an_interruption_anywhere_gives_the_same_masks(archive, whole, tmp_path, monkeypatch):
    real, calls = stage_module.drawn_from, []
    def dies(*a):
        calls.append(1)
        if len(calls) == 3: raise KeyboardInterrupt
        return real(*a)
    monkeypatch.setattr(stage_module, 'drawn_from', dies)
    with pytest.raises(KeyboardInterrupt): run(archive, tmp_path)
    f = next(tmp_path.glob('*/refined.jsonl'))
    with open(f, 'a') as o: o.write('{"sha": "ab')                             # a line cut by a kill
    assert files(run(archive, tmp_path)) == whole[1] and len(calls) == 7       # six photos, one of them twice

def test_a_changed_mask_trains_only_its_expert_again(archive, tmp_path, monkeypatch):
    entries, masks = archive
    own = MaskStore(tmp_path/'own')
    for e in entries: own.save(e.sha, masks.load(e.sha))
    run((entries, own), tmp_path/'x')
    trained, real = [], resume.fit_resumably
    monkeypatch.setattr('namedmask.models.training.fit_resumably', lambda *a, **k: (trained.append(k['what']), real(*a, **k))[1])
    own.save(entries[0].sha, np.zeros((48, 48), np.uint8)+200)
    run((entries, own), tmp_path/'x')
    assert trained == ['expert circle']
    run((entries[1:], own), tmp_path/'x')                                      # a photo leaves the archive
    assert entries[0].sha not in MaskStore(tmp_path/'x'/'masks')

def test_a_group_shares_one_expert(archive, tmp_path):
    run(archive, tmp_path, groups={'shapes': ['circle', 'square']})
    assert [p.parent.name for p in tmp_path.glob('*/stage.json')] == ['shapes']
    assert Stage(tmp_path/'shapes', {}).file.exists() and len(refined(tmp_path)) == 6

def test_an_expert_that_sees_nothing_or_everything_keeps_the_old_mask():
    s = expert_settings({**TINY, 'empty': .01, 'full': .98})
    old = np.zeros((20, 30), np.uint8); old[5:15, 5:15] = 255
    for colour, status in (('black', 'empty'), ('white', 'full')):
        soft, r = redraw(Fake(), Image.new('RGB', (30, 20), colour), old, s)
        assert r['status'] == status and (soft == old).all()
    a = np.zeros((20, 30, 3), np.uint8); a[5:15, 5:15] = 255
    soft, r = redraw(Fake(), Image.fromarray(a), old, {**s, 'side': None})
    assert r['status'] == 'new' and r['iou'] == 1 and ((soft >= 128) == (old >= 128)).all()
    soft, r = redraw(Fake(), Image.new('RGB', (30, 20), 'white'), old, {**s, 'side': None, 'full': 1., 'mix': .6})
    assert ((soft >= 128) == (old >= 128)).all()                               # .4 of the new everywhere, .6 of the old
    grey = Image.new('RGB', (30, 20), (128,)*3)                                # nothing but .5: it cannot tell
    soft, r = redraw(Fake(), grey, old, {**s, 'unsure': .9, 'full': 1.1})
    assert r['status'] == 'unsure' and (soft == old).all()

def test_a_refinement_that_loses_the_object_is_not_taken(monkeypatch):
    from namedmask.stages import experts as experts_module
    a = np.zeros((20, 30, 3), np.uint8); a[5:15, 5:15] = 255
    old = a[..., 0].copy()
    for lost in (0., 1.):
        monkeypatch.setattr(experts_module, 'refine', lambda im, soft, how: np.full(soft.shape, lost))
        soft, r = redraw(Fake(), Image.fromarray(a), old, {**expert_settings(TINY), 'side': None, 'refine': 'grabcut', 'empty': .01, 'full': .98})
        assert r['status'] == 'new' and ((soft >= 128) == (old >= 128)).all()
    monkeypatch.setattr(experts_module, 'refine', lambda im, soft, how: np.pad(soft[:, 2:], ((0, 0), (0, 2))))   # one that moves it is
    assert redraw(Fake(), Image.fromarray(a), old, {**expert_settings(TINY), 'side': None, 'refine': 'grabcut', 'empty': .01, 'full': .98})[1]['iou'] < .9

def test_groups_and_settings_are_checked():
    assert make_groups(['a', 'b', 'c'], {'g': ['c', 'a']}) == {'g': ['c', 'a'], 'b': ['b']}
    for groups, word in [({'g': ['z']}, "'z'"), ({'g': ['a'], 'h': ['a']}, 'two expert groups'), ({'b': ['a']}, "called 'b'")]:
        with pytest.raises(NamedMaskError, match=word): make_groups(['a', 'b'], groups)
    with pytest.raises(NamedMaskError, match='lerning'): expert_settings({'lerning': 1})
    assert expert_settings('paper')['n_iters'] == 5000

@pytest.mark.parametrize('bad, text', [('large', 'choose one of paper, small, mini'), (dict(base='large'), 'choose one of'), (3, 'give a name'), (dict(n_iters=0), 'n_iters is 0.*at least 1'), (dict(batch_size=1), 'at least 2'),
    (dict(lr=float('nan')), 'above 0'), (dict(crop=40), 'multiple of 16'), (dict(scale=[1, .5]), 'smaller one first'), (dict(mix=1.5), 'from 0 to 1'), (dict(flip='yes'), 'True or False'), (dict(refine='best'), 'grabcut'),
    (dict(refine=[1]), 'grabcut'), (dict(empty=-1), 'at least 0'), (dict(workers=-1), 'at least 0'), (dict(binary=1), 'True or False'), (dict(precision=16), 'float32'), (dict(encoder='vit_nonsense'), 'timm')])
def test_wrong_settings_are_said_before_anything_is_done(archive, tmp_path, bad, text):
    with pytest.raises(NamedMaskError, match=text): refine_masks(*archive, settings=bad, folder=tmp_path/'x', quiet=True)
    assert not list(tmp_path.glob('x/*/stage.json'))

def test_a_negative_seed_is_said(archive, tmp_path):
    with pytest.raises(NamedMaskError, match='seed is -1: .*from 0'): run(archive, tmp_path/'x', seed=-1)

def test_settings_start_from_those_of_the_teachers_and_from_a_revision():
    from namedmask.stages.experts import EXPERTS
    assert expert_settings(dict(n_iters=7), base='paper') == {**expert_settings('paper'), 'n_iters': 7} == expert_settings(dict(base='paper', n_iters=7))
    assert expert_settings(dict(n_iters=7)) == {**EXPERTS['small'], 'n_iters': 7} == expert_settings('small', n_iters=7, lr=None)
    new = dict(side='native', precision='float32', binary=True, empty=0., full=1., unsure=1.)
    assert expert_settings('paper', revision=1) == EXPERTS['paper'] and expert_settings('paper') == {**EXPERTS['paper'], **new}
    assert expert_settings('small') == EXPERTS['small'] == expert_settings('small', revision=1)
    larger = dict(n_iters=400, batch_size=8, crop=96, scale=(1., 1.7), side=128)
    assert expert_settings('mini', revision=6) == EXPERTS['mini'] and expert_settings('mini') == {**EXPERTS['mini'], **larger}
    with pytest.raises(NamedMaskError, match='no revision'): expert_settings('paper', revision=9)

def test_the_key_of_older_runs(archive, tmp_path):
    "What stands in the key of an expert, spelt as 0.1 spelt it."
    from namedmask.stages.experts import EXPERTS
    from namedmask.stages.expert_stage import expert_stage
    for name in EXPERTS:
        key = expert_stage('circle', archive[0], archive[1], None, expert_settings(name, revision=1), tmp_path).settings
        assert list(key)[:7] == ['stage', 'version', 'group', 'photos', 'n', 'init', 'seed'] and (key['stage'], key['version'], key['n']) == ('expert', 3, 6)
        assert {k: v for k, v in key.items() if k in EXPERTS[name]} == {k: v for k, v in EXPERTS[name].items() if k != 'workers'} and len(key) == 7 + len(EXPERTS[name]) - 1
    paper = expert_stage('circle', archive[0], archive[1], None, expert_settings('paper'), tmp_path)
    assert paper.settings['side'] == 'native' and paper.key != expert_stage('circle', archive[0], archive[1], None, EXPERTS['paper'], tmp_path).key

# ---- as the release does -----------------------------------------------------------------------------------------
def mask_as_released(model, im):
    "What expert_inference.py writes: the photo at its own size, ImageNet's norm, the class with the higher score; nothing is looked at twice."
    mean, std = (torch.tensor(o).view(3, 1, 1) for o in (model.spec['mean'], model.spec['std']))
    x = (torch.from_numpy(np.array(im)).permute(2, 0, 1)/255 - mean)/std
    with torch.no_grad(): return model.eval()(x[None]).argmax(1)[0].numpy().astype(np.uint8)

@pytest.mark.parametrize('size', [(70, 45), (45, 70), (64, 64), (530, 41), (33, 39)])
@pytest.mark.parametrize('shift', [0., -9., 9.])                                # as it comes, nothing at all, everything
def test_papers_experts_write_what_they_see(size, shift):
    from namedmask.models.deeplab import deeplabv3plus
    model = deeplabv3plus('resnet10t', 2, 8, channels=16, head='paper', seed=1)
    with torch.no_grad(): model.head.classify[-1].bias.copy_(torch.tensor([-shift, shift]))
    rng = np.random.default_rng(size)
    im = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    old = (rng.random((size[1]//2 + 1, size[0]//2 + 1)) > .5).astype(np.uint8)*255
    new, record = redraw(model, im, old, expert_settings('paper'))
    want = mask_as_released(model, im)
    assert new.shape == size[::-1] and (new == want*255).all() and record['status'] == 'new' and record['after'] == round(float(want.mean()), 4)
    assert {-9.: 0., 9.: 1.}.get(shift, want.mean()) == want.mean()
    kept, before = redraw(model, im, old, expert_settings('paper', revision=1))
    if shift: assert before['status'] in ('empty', 'full') and (kept == old).all()

def test_papers_experts_see_photos_at_their_own_size(tmp_path):
    from namedmask.stages.expert_stage import train_expert
    
    from test_segmenter import toy as photos
    entries, masks = photos(tmp_path/'photos', n=2, size=600)
    for revision, want in ((1, (512, 512)), (2, (600, 600))):
        s = {**expert_settings('paper', revision=revision), **{k: v for k, v in TINY.items() if k not in ('side', 'empty', 'full', 'unsure', 'mix')}, 'head': 'smp', 'n_iters': 1, 'workers': 0}
        store = refine_masks(entries, masks, settings=s, folder=tmp_path/str(revision), quiet=True, parallel=1)
        assert {store.load(e.sha).shape for e in entries} == {want if revision == 2 else (600, 600)}
        assert revision == 1 or all(set(np.unique(store.load(e.sha))) <= {0, 255} for e in entries)

# ---- what comes from outside ---------------------------------------------------------------------------------------
def test_a_group_called_masks_does_not_clash(archive, tmp_path):
    entries, masks = archive
    own = [e._replace(name='masks') if e.name == 'circle' else e for e in entries]
    store = refine_masks(own, masks, settings=TINY, folder=tmp_path, quiet=True)
    assert len(store) == len(entries) and len(refined(tmp_path)) == len(entries) and not (tmp_path/'masks'/'stage.json').exists()
    before = files(store)
    assert files(refine_masks(own, masks, settings=TINY, folder=tmp_path, quiet=True)) == before
    assert len(list(tmp_path.glob('masks-*/stage.json'))) == 1 and (tmp_path/'square'/'stage.json').exists()

HOSTILE = ['{"name": "circle", "sha": "../../x", "status": "new", "iou": 1}', '{"sha": 3}', '{"name": "circle", "sha": "abc", "status": "new", "iou": "much"}', '{"name": "circle", "sha": "abc", "status": "new", "iou": NaN}',
           '[1, 2]', '"text"', '{"name": null}', '{'*5000, '\x00', '{"name": "a\u2028b", "sha": "abcd", "status": "new", "iou": .5']

def test_hostile_records_are_passed_over(archive, whole, tmp_path):
    import shutil
    folder = shutil.copytree(whole[0], tmp_path/'x')
    f = folder/'circle'/'refined.jsonl'
    with open(f, 'a', encoding='utf-8') as o: o.write('\n'.join(HOSTILE))
    assert len(refined(folder)) == len(archive[0]) + 1                          # the first one is a record, of no photo that there is
    lines = len(f.read_bytes().split(b'\n'))
    next((folder/'masks').glob('*/*.png')).unlink()
    assert files(run(archive, folder)) == whole[1] and not (tmp_path/'x.png').exists()
    assert len(f.read_bytes().split(b'\n')) >= lines - 1

def test_line_separators_in_a_name_do_not_cut_a_record(archive, tmp_path):
    entries, masks = archive
    own = [e._replace(name='a\u2028b\x85c') if e.name == 'circle' else e for e in entries]
    refine_masks(own, masks, settings=TINY, folder=tmp_path, quiet=True)
    assert {r['name'] for r in refined(tmp_path)} == {'a\u2028b\x85c', 'square'} and len(refined(tmp_path)) == 6

def test_a_photo_that_was_replaced_keeps_its_old_mask(tmp_path):
    entries, masks = toy(tmp_path/'photos', n=6)
    old = os.stat(entries[0].path)
    Path(entries[0].path).write_bytes((Path(entries[2].path).read_bytes() + b'\0'*old.st_size)[:old.st_size])
    os.utime(entries[0].path, ns=(old.st_atime_ns, old.st_mtime_ns))
    store = run((entries, masks), tmp_path/'x')
    r = {r['sha']: r for r in refined(tmp_path/'x')}[entries[0].sha]
    assert r['status'] == 'unreadable' and 'was replaced' in r['why'] and (store.load(entries[0].sha) == masks.load(entries[0].sha)).all()
    assert '"unreadable": 1' in (tmp_path/'x'/'circle'/'stage.json').read_text()

def test_a_mask_of_the_user_among_the_masks_stays(archive, whole, tmp_path):
    import shutil
    folder = shutil.copytree(whole[0], tmp_path/'x')
    mine = folder/'masks'/'aa'/'aabbcc.png'; mine.parent.mkdir(exist_ok=True)
    Image.new('L', (4, 4)).save(mine)
    run((archive[0][1:], archive[1]), folder)
    assert mine.exists() and archive[0][0].sha not in MaskStore(folder/'masks')

def test_names_are_grouped_by_their_texts():
    from namedmask.stages.experts import group_names
    names, text = ['cat', 'boat', 'dog', 'ship', 'rock'], np.array([[1, 0, 0], [0, 1, 0], [.98, .1, 0], [.1, .97, 0], [0, 0, 1]])
    assert group_names(names, text, 3) == {'cat and 1 more': ['cat', 'dog'], 'boat and 1 more': ['boat', 'ship'], 'rock': ['rock']}
    assert group_names(names, text, 5) == {n: [n] for n in names} and list(group_names(names, text, 1).values()) == [names]
    for k in (0, 6):
        with pytest.raises(NamedMaskError, match='1 to 5'): group_names(names, text, k)
    with pytest.raises(NamedMaskError, match='text vectors'): group_names(names, text[:2], 2)

# ---- side by side ----------------------------------------------------------------------------------------------
def everything(folder):
    "The bytes of all that must not depend on how many experts were trained at a time."
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in ('*/model/*', '*/losses.csv', 'masks/*/*.png') for p in sorted(Path(folder).glob(pattern))}

@pytest.fixture
def one_thread():
    n = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)

def encoder_weights():
    from namedmask.models.deeplab import deeplabv3plus
    return {k.removeprefix('encoder.model.'): v for k, v in deeplabv3plus('resnet10t', 2, seed=5).state_dict().items() if k.startswith('encoder.model.')}

def test_two_at_a_time_give_the_same_weights_as_one_after_the_other(archive, tmp_path, one_thread, capfd):
    init = encoder_weights()
    run(archive, tmp_path/'one', init=init, parallel=1)
    refine_masks(*archive, settings=TINY, folder=tmp_path/'two', init=init, every_s=0, parallel=2)
    assert '2 experts, 2 at a time' in capfd.readouterr().err
    a, b = everything(tmp_path/'one'), everything(tmp_path/'two')
    assert len(a) == 2*3 + 6 and a == b
    assert all(Stage(p, {}).file.exists() and '"done": true' in (p/'stage.json').read_text() for p in (tmp_path/'two'/'circle', tmp_path/'two'/'square'))

def test_an_expert_has_the_same_threads_alone_and_beside_others(archive, tmp_path, monkeypatch):
    seen = {}
    def threads_of(parallel, mine):
        before = torch.get_num_threads(); torch.set_num_threads(mine)
        monkeypatch.setattr(refine_module, '_complete', lambda *a, **kw: seen.setdefault('alone', torch.get_num_threads()))
        monkeypatch.setattr(refine_module, '_side_by_side', lambda *a: seen.setdefault('beside', a[-2]))
        seen.clear()
        try: run(archive, tmp_path/f'{parallel}{mine}', parallel=parallel); assert torch.get_num_threads() == mine
        finally: torch.set_num_threads(before)
        return seen
    for mine, want in ((1, 1), (2, 2), (3, 3), (6, 4)): assert threads_of(1, mine) == {'alone': want} and threads_of(2, mine) == {'beside': want}

@pytest.fixture
def forked_workers(monkeypatch):
    "Workers need not import everything again."
    monkeypatch.setattr(forked.loky, 'fork_exec', forked.fork_exec)

@pytest.fixture(scope='module')
def server(): return helpers.fork_server()

def train_two(tmp_path, begin):
    "What the process that is killed does. `begin`: how its workers begin."
    sys.stderr = sys.stdout = open(os.devnull, 'w')
    os.environ['TMPDIR'] = tempfile.tempdir = str(tmp_path/'temporary')
    forked.begin_workers(begin)
    torch.set_num_threads(1)
    refine_masks(*toy(tmp_path/'photos', n=6), settings={**TINY, 'n_iters': 12}, folder=tmp_path/'two', quiet=True, every_s=0, parallel=2)

def parents():
    "process -> (its parent, its group), of all that live."
    found = {}
    for p in Path('/proc').glob('[0-9]*/stat'):
        try: state, parent, group = p.read_text().rpartition(')')[2].split()[:3]
        except (OSError, ValueError): continue
        if state != 'Z': found[int(p.parent.name)] = int(parent), int(group)
    return found

def below(pid):
    "All processes that a process has started, and those in the groups of the ones that it started."
    tree, found = parents(), {pid}
    while more := {p for p, (parent, group) in tree.items() if (parent in found or group in found - {pid}) and p not in found}: found |= more
    return found - {pid}

def start_child(server, tmp_path, begin):
    (tmp_path/'temporary').mkdir(exist_ok=True)
    p = server.Process(target=train_two, args=(tmp_path, begin))
    p.start()
    return p

def kill_and_look(p, tmp_path, sig=signal.SIGKILL, patience=2.):
    "Kill the first process: soon the others have gone, and what they needed for it."
    workers = below(p.pid)
    assert p.is_alive() and len(workers) >= 2
    os.kill(p.pid, sig); p.join()
    end = time.time() + patience
    while workers & parents().keys() and time.time() < end: time.sleep(.1)
    assert not workers & parents().keys() and not list((tmp_path/'temporary').iterdir()) and not list((tmp_path/'two').glob('.job-*'))

@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks into /proc')
@pytest.mark.parametrize('sig', [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_the_workers_start_none_stays(archive, server, tmp_path, sig):
    p, end = start_child(server, tmp_path, forked.new_interpreter), time.time() + 100
    while len(below(p.pid)) < 2 and time.time() < end: time.sleep(.01)         # they have begun to load torch
    kill_and_look(p, tmp_path, sig, patience=8)                                # one that had just begun ends when Python is up

@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks into /proc')
def test_killed_while_two_are_trained_no_worker_stays_and_the_result_is_the_same(archive, server, tmp_path, one_thread, forked_workers):
    settings = {**TINY, 'n_iters': 12}
    run(archive, tmp_path/'one', settings=settings)
    p, end = start_child(server, tmp_path, forked.fork_exec), time.time() + 200
    while time.time() < end and p.is_alive() and not any(len(f.read_text().splitlines()) > 3 for f in tmp_path.glob('two/*/losses.csv')): time.sleep(.01)
    kill_and_look(p, tmp_path)
    (tmp_path/'two'/'.job-999999999').mkdir(); (tmp_path/'two'/'.job-999999999'/'job.json').write_text('{}')   # of a run whose workers were killed as well
    (tmp_path/'two'/'.job-notes').mkdir(); (tmp_path/'two'/'.job-notes'/'mine.txt').write_text('of the user')
    run(archive, tmp_path/'two', settings=settings, parallel=1)                 # continued in another way than it was begun
    assert everything(tmp_path/'one') == everything(tmp_path/'two')
    run(archive, tmp_path/'two', settings={**settings, 'n_iters': 2}, parallel=2)
    assert [p.name for p in (tmp_path/'two').glob('.job-*')] == ['.job-notes'] and (tmp_path/'two'/'.job-notes'/'mine.txt').exists()
    assert not [p for p in tmp_path.glob('two/**/.*.tmp*')]

def test_no_workers_where_joblib_may_start_none(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(refine_module, '_side_by_side', lambda *a: pytest.fail('joblib was told to start none'))
    monkeypatch.setattr('joblib._parallel_backends.mp', None)       # as it is where JOBLIB_MULTIPROCESSING is 0
    run(archive, tmp_path, parallel=2)

@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='looks into /proc')
def test_a_worker_that_is_killed_is_one_sentence(archive, tmp_path, one_thread, forked_workers):
    "And what was finished is kept: the next call makes the same as one that nobody disturbed."
    import os, threading
    before = below(os.getpid())
    def kill():
        end = time.time() + 60
        while time.time() < end:
            for pid in below(os.getpid()) - before:
                try: command = Path(f'/proc/{pid}/cmdline').read_text()
                except OSError: continue
                if 'tracker' not in command: return os.kill(pid, signal.SIGKILL)
            time.sleep(.01)
    killer = threading.Thread(target=kill); killer.start()
    with pytest.raises(NamedMaskError, match='ended from outside.*what was finished is kept'): run(archive, tmp_path/'two', settings={**TINY, 'n_iters': 12}, parallel=2)
    killer.join()
    run(archive, tmp_path/'two', settings={**TINY, 'n_iters': 2}, parallel=1)

def test_a_mistake_in_a_worker_is_said_in_one_sentence(archive, tmp_path, one_thread, forked_workers):
    with pytest.raises(NamedMaskError, match="Cannot build DeepLabV3.*'vit_tiny_patch16_224'"): run(archive, tmp_path, settings=dict(encoder='vit_tiny_patch16_224'), parallel=2)

def test_how_many_at_once(archive, tmp_path, monkeypatch):
    s = expert_settings({**TINY, 'n_iters': 100})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for cores, n, want in ((2, 9, 1), (4, 9, 1), (8, 9, 2), (64, 9, 9), (64, 1, 1)):
        monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(cores)), raising=False)
        assert experts_at_once(n, s) == want
    assert experts_at_once(9, {**s, 'n_iters': 5}) == 1 and experts_at_once(0, s, 3) == 1
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    for free, want in ((80e9, 6), (11e9, 1), (1e9, 1)):
        monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (free, 80e9))
        assert experts_at_once(9, {**s, 'batch_size': 8, 'crop': 384}) == want
    for bad in (0, -2, 'two', 1.5):
        with pytest.raises(NamedMaskError, match=f'{bad!r} is no number.*from 1'): run(archive, tmp_path, parallel=bad)

def test_a_photo_of_two_experts_is_drawn_in_turn(archive, tmp_path, monkeypatch):
    entries, masks = archive
    monkeypatch.setattr(refine_module, '_side_by_side', lambda *a: pytest.fail('would depend on who is faster'))
    run((entries + [entries[0]._replace(name='square')], masks), tmp_path, parallel=2)

def test_the_device_reaches_training_and_masks(archive, tmp_path, monkeypatch):
    seen, dls, load = set(), batches.training_dls, segmenter.load_segmenter
    monkeypatch.setattr(experts_module, 'training_dls', lambda *a, device=None, **kw: seen.add(('training', device)) or dls(*a, device=device, **kw))
    monkeypatch.setattr(stage_module, 'load_segmenter', lambda folder, device: seen.add(('masks', device)) or load(folder, device))
    run(archive, tmp_path/'experts', device='cpu')
    assert seen == {('training', 'cpu'), ('masks', 'cpu')}

def test_the_job_of_a_killed_run_is_cleared_even_if_all_experts_are_done(archive, tmp_path):
    run(archive, tmp_path/'experts')
    job = tmp_path/'experts'/'.job-999999999'
    job.mkdir()
    for name in ('job.json', 'errors.txt', 'taken-0'): (job/name).write_text('{}')
    run(archive, tmp_path/'experts')
    assert not job.exists()
