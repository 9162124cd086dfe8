"The comparison: every row with every set of teachers, what is made again and what is not, arguments and files that are wrong."
import json, os, shutil
from functools import partial
import numpy as np, pytest, torch
from helpers import ENCODER, VOC_NAMES, ColourRetriever, register, write_photos, write_voc
from namedmask.systems import clustering
from namedmask.systems import maskcontrast
from namedmask.systems import maskdistill
from namedmask.systems import reco
from namedmask.systems import table
from namedmask.teachers import sets, cards
from namedmask.cli import main
from namedmask.core import JsonLines, NamedMaskError, settings_key
from namedmask.stages.distil import STUDENTS, Student
from namedmask.stages.experts import EXPERTS, Expert
from namedmask.systems.maskcontrast import MaskContrastClusterer
from namedmask.systems.registry import score_system, systems_of
from namedmask.systems.table import labs_for, lab_settings, mini_labs, names_aside, print_table, results_file, run_table
from namedmask.systems.ranking import with_published
from namedmask.teachers.cards import TeacherCard
from namedmask.teachers.sets import TeacherSet

VOC = 'bird,boat,bottle'

@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    "Photos of three colours, and twelve labelled ones that pretend to be VOC's."
    root = tmp_path_factory.mktemp('inputs')
    write_photos(root/'photos', 4); write_voc(root/'voc', 2)
    return root

@pytest.fixture
def small(monkeypatch):
    "All trainings of a recipe in two or three steps of tiny pictures."
    for kind in (Student, Expert): monkeypatch.setattr(kind, 'revised', {})
    def shrink(recipe, encoder=None):
        tiny = dict(batch_size=4, crop=64, side=72, **({'encoder': encoder} if encoder else {}))
        monkeypatch.setitem(STUDENTS, recipe, {**STUDENTS[recipe], **tiny, 'iterations': 2, 'output_stride': 16, 'channels': 32})
        monkeypatch.setitem(EXPERTS, recipe, {**EXPERTS[recipe], **tiny, 'n_iters': 2, 'output_stride': 16, 'channels': 32, 'workers': 0})
        if recipe in maskcontrast.MASKCONTRAST:
            contrast = {**maskcontrast.MASKCONTRAST['mini'], 'batch_size': 4, 'epochs': .5, 'crop': 48, 'encoder': maskcontrast.MASKCONTRAST[recipe]['encoder'], **({'encoder': encoder} if encoder else {})}
            monkeypatch.setattr(maskcontrast, 'MaskContrastClusterer', partial(MaskContrastClusterer, threshold=0.))     # after two steps it sees no object anywhere
            monkeypatch.setitem(maskcontrast.MASKCONTRAST, recipe, {**contrast, 'precision': maskcontrast.MASKCONTRAST[recipe]['precision']})
        if recipe in maskdistill.MASKDISTILL:
            old = maskdistill.MASKDISTILL[recipe]
            detector = {**maskdistill.RCNN['mini'], 'n_iters': 1} if old['detector'] else None
            monkeypatch.setitem(maskdistill.RCNN, recipe, {**maskdistill.RCNN['mini'], 'n_iters': 1})
            monkeypatch.setitem(maskdistill.MASKDISTILL, recipe, {**maskdistill.MASKDISTILL['mini'], 'precision': old['precision'], 'detector': detector, 'side': 96,
                                'student': {**maskdistill.MASKDISTILL['mini']['student'], 'iterations': 2, 'batch_size': 4}})
    return shrink

def check_rows(results, which, seeds=1):
    "Every row is there, with a score and a card that says what stands beside a figure."
    assert [r['variant'] for r in results] == [k for k in systems_of(which) for _ in range(seeds)]
    for r in results:
        assert 0 <= r['miou'] <= 1 and r['card']['tier'] in cards.SUPERVISION, r['variant']
        assert all(r['card'][k] != 'unknown' for k in ('transfer', 'crf', 'matching', 'background', 'models', 'model')), r['variant']

# ---------------------------------------------------------------- every row, with every set

def test_every_row_in_miniature(tmp_path, small):
    small('mini')
    labs = mini_labs(tmp_path/'out', (0,), dict(n_iters=1), n_scenes=60, n_test=6, iterations=None)
    labs[0].names = list(labs[0].names[:5])
    file = results_file(tmp_path/'out')
    check_rows(run_table(labs, None, file, quiet=True), 'mini')
    for metric in ('miou', 'foreground'): assert all(f'| {s.title} ' in print_table([file], metric) for s in systems_of('mini').values())

def test_names_share_as_many_experts_as_the_lab_says(tmp_path, small):
    from namedmask.systems.registry import expert_masks
    small('mini')
    for n_experts, experts in ((2, 2), (None, 4)):
        lab = mini_labs(tmp_path/str(n_experts), (0,), n_scenes=60, n_test=4, n_experts=n_experts)[0]
        lab.names = list(lab.names[:4])
        archive = lab.archive(2)
        drawn = expert_masks(lab, archive, lab.masks(archive))
        assert len(list((lab.folder/'experts').glob('*/model'))) == experts and all(e.sha in drawn for e in archive.kept())
        assert ('n_experts' in lab_settings(lab)) == bool(n_experts)      # so the rows of labs without are what they were

def test_every_row_offline_as_the_readme_says(tmp_path, inputs, small, capsys):
    "`namedmask table --teachers offline --images … --benchmark voc --root …`, nothing more but one seed and a folder."
    small('small')
    out = tmp_path/'out'
    code = main(['table', '--teachers', 'offline', '--images', str(inputs/'photos'), '--benchmark', 'voc', '--root', str(inputs/'voc'), '--names', VOC, '--seeds', '1', '--out', str(out), '--quiet'])
    said = capsys.readouterr()
    assert code == 0, said.err
    check_rows(JsonLines(results_file(out)).read(), 'offline')
    assert all(f'| {s.title}' in said.out for s in systems_of('offline').values())
    assert all(r['card']['prompts'] is not None for r in JsonLines(results_file(out)).read() if r['variant'].startswith('namedmask'))

class LittleClip(ColourRetriever):
    "Finds photos by their colour; its image tower has random weights, and keys, as the paper's CLIP has."
    name, pretrained, dim = 'little', 'random', 24
    def __init__(self):
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=32, image_size=64)
            self.model = CLIP(24, vision, CLIPTextCfg(context_length=8, vocab_size=64, width=16, heads=2, layers=1)).eval()
        self.cfg, self.settings, self.card = {}, {}, TeacherCard('little CLIP', 'retriever', 'image-text pairs', 'none', 'tests')
    def _load(self): return self.model

def little_features():
    "Random networks in the place of DINO, MoCo v2 and SwAV."
    args = dict(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2)
    return [clustering.RandomFeatures('vit_tiny_patch16_224', 0, model_args=args), *(clustering.RandomFeatures('test_resnet', i, stride=8) for i in (1, 2))]

@pytest.fixture
def paper(monkeypatch, small):
    "The set `paper` with tiny random networks where its weights would be."
    small('paper', 'test_resnet')
    monkeypatch.setitem(clustering.BACKBONES, 'MoCo v2', lambda: little_features()[1])
    for i, k in enumerate([o for o in clustering.BACKBONES if o != 'MoCo v2']): monkeypatch.setitem(clustering.BACKBONES, k, lambda i=i: clustering.RandomFeatures('test_resnet', 3 + i, stride=8))
    monkeypatch.setattr(maskdistill, 'dino_features', lambda: (little_features()[0], little_features()[0]))
    student = lambda encoder: (None, TeacherCard(f'{encoder}, random numbers', 'student', 'nothing', 'none', 'random numbers'))
    monkeypatch.setattr(reco, 'CONTEXT', ('sky',))                       # of five names some would get none of eighteen photos
    stub = TeacherSet('paper', LittleClip, little_features, student, 'test_resnet', recipe='paper', n=6, votes=0, side=96, spectral=dict(upsample=2, centre=False), refine=None, saliency='selfmask')
    monkeypatch.setitem(sets.TEACHERS, 'paper', stub)

@pytest.mark.parametrize('as_released', [False, True])
def test_every_row_with_the_papers_teachers(tmp_path, inputs, paper, as_released):
    rows = ['maskclip-ks', 'maskclip*', 'reco*'] if as_released else list(systems_of('paper'))         # the others have no released variant
    labs = labs_for('paper', tmp_path/'out', 1, [inputs/'photos'], 'voc', inputs/'voc', VOC_NAMES, as_released=as_released)
    results = run_table(labs, rows, results_file(tmp_path/'out'), quiet=True)
    if not as_released: check_rows(results, 'paper')
    for r in results:
        if r['variant'].startswith(('maskclip', 'reco')): assert ('as released' in r['card']['resizing']) == as_released
    assert '| MaskCLIP* ' in print_table([results_file(tmp_path/'out')])

def test_as_released_is_another_row(tmp_path, inputs, paper):
    make = lambda **kw: run_table(labs_for('paper', tmp_path/'out', 1, [inputs/'photos'], 'voc', inputs/'voc', VOC_NAMES, **kw), 'maskclip,reco', results_file(tmp_path/'out'), quiet=True)
    plain, released, again = make(), make(as_released=True), make()
    assert again == plain and all(a['model'] != b['model'] for a, b in zip(plain, released))

@pytest.mark.parametrize('which', ['mini', 'offline', 'paper'])
def test_list(which, capsys):
    assert main(['table', '--teachers', which, '--list']) == 0
    lines = capsys.readouterr().out.strip().split('\n')
    assert [l.split()[0] for l in lines] == list(systems_of(which)) and all(l.endswith('.ipynb') for l in lines)

def test_a_benchmark_in_a_folder(tmp_path, inputs, small, capsys):
    "The other command of the README: `--benchmark folder --root mine/`."
    mine = tmp_path/'mine'
    for a, b in (('JPEGImages', 'images'), ('SegmentationClass', 'labels')): shutil.copytree(inputs/'voc'/a, mine/b)
    (mine/'names.txt').write_text('\n'.join(['x', 'y', 'red', 'green', 'blue']) + '\n')                   # their ids are 3, 4 and 5
    register(); small('small', ENCODER)
    code = main(['table', '--teachers', 'toy', '--images', str(inputs/'photos'), '--benchmark', 'folder', '--root', str(mine), '--names', 'red,green,blue', '--systems', 'selfmask-clip,namedmask-plain',
                 '--iterations', '1', '--seeds', '1', '--out', str(tmp_path/'out'), '--quiet'])
    said = capsys.readouterr()
    assert code == 0 and 'SelfMask + CLIP' in said.out, said.err

# ---------------------------------------------------------------- what is made again

@pytest.fixture
def count(monkeypatch, small):
    "Keys of the rows that are made."
    small('small', ENCODER)
    made = []
    def score(lab, key): made.append(key); return score_system(lab, key)
    monkeypatch.setattr(table, 'score_system', score)
    register()
    return made

def lab_of(inputs, out, **kw):
    names = kw.pop('names', VOC_NAMES)
    changes = {k: kw.pop(k) for k in ('prompts', 'transfer', 'revision') if k in kw}
    labs = labs_for('toy', out, 1, [inputs/'photos'], 'voc', inputs/'voc', names, iterations=1, **kw)
    for lab in labs.values(): lab.__dict__.update(changes)
    return labs

def test_what_has_not_changed_is_not_made_again(tmp_path, inputs, count):
    make = lambda **kw: run_table(lab_of(inputs, tmp_path/'out', **kw), ['selfmask-clip'], results_file(tmp_path/'out'), quiet=True)
    first = make()
    assert make() == first and count == ['selfmask-clip']

@pytest.mark.parametrize('change', [dict(transfer='name-and-image'), dict(prompts='bird=green,boat=red,bottle=blue'), dict(as_released=True), dict(names='bird,boat,bottle')])
def test_a_row_whose_inputs_changed_is_made_again(tmp_path, inputs, count, change):
    make = lambda **kw: run_table(lab_of(inputs, tmp_path/'out', **kw), ['selfmask-clip'], results_file(tmp_path/'out'), quiet=True)[0]
    first, other, again = make(), make(**change), make()
    assert count == ['selfmask-clip']*2 and again == first and other['key'] != first['key']
    if 'prompts' in change: assert other['miou'] < first['miou'] - .2                                   # red things are no longer birds

def test_what_is_served_says_how_it_was_made(tmp_path, inputs, count):
    make = lambda **kw: run_table(lab_of(inputs, tmp_path/'out', **kw), ['namedmask-plain'], results_file(tmp_path/'out'), quiet=True)[0]
    assert [make(transfer=t)['card']['transfer'] for t in ('name-only', 'name-and-image', 'name-only')] == ['name-only', 'name-and-image', 'name-only']

def test_other_photos_are_other_inputs(tmp_path, inputs, count):
    own = tmp_path/'inputs'; shutil.copytree(inputs, own)
    make = lambda: run_table(lab_of(own, tmp_path/'out'), ['selfmask-clip'], results_file(tmp_path/'out'), quiet=True)
    make(); make()
    write_photos(own/'photos', 1, start=50)
    make(); make()
    (own/'photos'/'red_0050.jpg').unlink()
    make()
    assert len(count) == 3

def test_other_weights_are_other_inputs(tmp_path, inputs, count, monkeypatch):
    make = lambda: run_table(lab_of(inputs, tmp_path/'out'), ['selfmask-clip'], results_file(tmp_path/'out'), quiet=True)
    make()
    import helpers
    brought = tmp_path/'w.bin'
    monkeypatch.setattr(helpers.ColourFeatures, 'file', brought, raising=False)
    brought.write_bytes(b'one'); make(); make()
    brought.write_bytes(b'two, and longer'); make()
    assert len(count) == 3

def test_settings_of_students_and_experts_are_inputs(tmp_path, inputs, count, monkeypatch):
    key = lambda: settings_key(lab_settings(lab_of(inputs, tmp_path/'out')[0]))
    keys = [key()]
    with monkeypatch.context() as m: m.setitem(STUDENTS, 'small', {**STUDENTS['small'], 'lr': .5}); keys.append(key())
    with monkeypatch.context() as m: m.setitem(EXPERTS, 'small', {**EXPERTS['small'], 'lr': .5}); keys.append(key())
    assert len(set(keys)) == 3 and key() == keys[0]

# ---------------------------------------------------------------- rows of version 0.1

def as_older(file, lab, **changes):
    "Rewrite the results as 0.1 wrote them: under a key of fewer settings."
    lines = JsonLines(file).read()
    older = settings_key({k: v for k, v in lab_settings(lab).items() if k in table.OLDER})
    file.write_text(''.join(json.dumps({**o, 'key': older, **changes}) + '\n' for o in lines))

def test_older_settings_are_those_of_the_release(tmp_path, inputs):
    register()
    lab = lab_of(inputs, tmp_path/'out')[0]
    old = dict(teachers='toy', names=['bird', 'boat', 'bottle'], iterations=1, experts=None, n=lab.teachers.n, images=[str(inputs/'photos')], benchmark={k: v for k, v in lab.benchmark().card.items() if k != 'root'})
    assert {k: v for k, v in lab_settings(lab).items() if k in table.OLDER} == old
    mini = mini_labs(tmp_path/'mini', (0,), dict(n_iters=100), n_scenes=45, n_test=4, iterations=500)[0]
    assert {k: v for k, v in lab_settings(mini).items() if k in table.OLDER} == dict(teachers='mini', names=list(mini.names), iterations=500, experts=dict(n_iters=100), n=40, scenes=45, test=4)

def test_older_rows_count_where_their_cards_agree(tmp_path, inputs, count, monkeypatch):
    file, kw = results_file(tmp_path/'out'), dict(names='bird,boat,bottle', revision=1)
    make = lambda **more: run_table(lab_of(inputs, tmp_path/'out', **{**kw, **more}), ['namedmask-plain'], file, quiet=True)
    first = make(); as_older(file, lab_of(inputs, tmp_path/'out', **kw)[0])
    again = make()
    assert len(count) == 1 and again[0]['miou'] == first[0]['miou']
    make(transfer='name-and-image'); assert len(count) == 2                   # its card says name-only
    make(prompts='bird=red,boat,bottle'); assert len(count) == 3              # what 0.1 asked for is not known
    make(as_released=True); assert len(count) == 4
    monkeypatch.setattr(Student, 'revised', {2: {'small': dict(lr=.5)}})
    make(); assert len(count) == 4
    make(revision=2); assert len(count) == 5                                  # the recipe of a student is another by now

def test_older_rows_of_other_weights_or_photos_do_not_count(tmp_path, inputs, count):
    own = tmp_path/'inputs'; shutil.copytree(inputs, own)
    file, kw = results_file(tmp_path/'out'), dict(names='bird,boat,bottle', revision=1)
    make = lambda: run_table(lab_of(own, tmp_path/'out', **kw), ['selfmask-clip'], file, quiet=True)
    make(); line = JsonLines(file).read()[0]
    other = [{**m, 'sha256': 'f'*64} for m in line['card']['models']]
    as_older(file, lab_of(own, tmp_path/'out', **kw)[0], card={**line['card'], 'models': other})
    make(); assert len(count) == 2
    file.write_text(json.dumps(line) + '\n'); as_older(file, lab_of(own, tmp_path/'out', **kw)[0])
    photo = next((own/'photos').glob('*.jpg'))
    os.utime(photo, ns=(photo.stat().st_atime_ns, file.stat().st_mtime_ns + 10**9))                  # changed after the row was made
    make(); assert len(count) == 3

def test_a_table_of_an_older_version_goes_on(tmp_path, inputs, count):
    "Its folder has no record of what is in it."
    out = tmp_path/'out'
    run_table(lab_of(inputs, out), ['selfmask-clip'], results_file(out), quiet=True)
    for f in [*out.rglob('.namedmask.*')]: f.unlink()
    run_table(lab_of(inputs, out), ['selfmask-clip', 'namedmask-plain'], results_file(out), quiet=True)
    assert count == ['selfmask-clip', 'namedmask-plain']
    results_file(out).unlink()                                                # killed before its first row
    for f in [*out.rglob('.namedmask.*')]: f.unlink()
    run_table(lab_of(inputs, out), ['selfmask-clip'], results_file(out), quiet=True)
    assert len(count) == 3

# ---------------------------------------------------------------- arguments

ARGUMENTS = [
    ('--teachers offline', '--images and --root'), ('--teachers offline --images {photos}', '--images and --root'), ('--teachers offline --root {voc}', '--images and --root'),
    ('--teachers offline --images {photos} --root {tmp}/none', 'none'), ('--teachers offline --images {tmp}/none --root {voc} --names bird', 'none'),
    ('--teachers offline --images {empty} --root {voc} --names bird', 'no image'), ('--teachers offline --images {photos} --root {voc} --benchmark vox', "no benchmark 'vox'"),
    ('--teachers offline --images {photos} --root {voc} --names unicorn', 'unicorn'), ('--teachers offline --images {photos} --root {voc} --systems maskclip', 'does not run with the teachers'),
    ('--teachers offline --images {photos} --root {voc} --systems sam', "no system 'sam'"), ('--teachers offline --images {photos} --root {voc} --names bird --transfer both', "no transfer 'both'"),
    ('--teachers offline --images {photos} --root {voc} --names bird --iterations 0', 'at least one training step'), ('--teachers offline --images {photos} --root {voc} --seeds 0', 'at least one seed'),
    ('--teachers offline --images {photos} --root {sod} --benchmark ecssd', 'has no names'), ('--teachers nobody', "no set of teachers 'nobody'"),
    ('--teachers mini --root {voc}', 'leave out --root'), ('--teachers mini --iterations -3', 'at least one training step'), ('--systems sam', "no system 'sam'")]

@pytest.mark.parametrize('command, said', ARGUMENTS, ids=[a for a, _ in ARGUMENTS])
def test_wrong_arguments_are_one_sentence_at_the_start(tmp_path, inputs, capsys, command, said):
    (tmp_path/'empty').mkdir()
    for d in ('images', 'ground_truth_mask'): (tmp_path/'sod'/d).mkdir(parents=True)
    from PIL import Image
    Image.new('RGB', (8, 8)).save(tmp_path/'sod'/'images'/'a.jpg'); Image.new('L', (8, 8)).save(tmp_path/'sod'/'ground_truth_mask'/'a.png')
    words = command.format(photos=inputs/'photos', voc=inputs/'voc', tmp=tmp_path, empty=tmp_path/'empty', sod=tmp_path/'sod').split()
    assert main(['table', *words, '--out', str(tmp_path/'out')]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count('\n') == 1 and not (tmp_path/'out').exists(), err

def test_a_folder_of_somebody_else_is_left_alone(tmp_path, inputs, capsys):
    out = tmp_path/'mine'; write_photos(out, 1)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for words in (['--teachers', 'mini'], ['--teachers', 'offline', '--images', str(inputs/'photos'), '--root', str(inputs/'voc'), '--names', VOC]):
        assert main(['table', *words, '--out', str(out)]) == 2 and 'was not made by namedmask' in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before

# ---------------------------------------------------------------- files from outside

LINE = dict(system='X', miou=.5, foreground=.4, seed=0, variant='x', card=dict(benchmark='toy', split='all', tier='nothing', transfer='zero-shot', crf='no', matching='none', model='m'))

def test_lines_that_are_none_are_left_out_and_counted(tmp_path, capsys):
    file = tmp_path/'r.jsonl'
    file.write_bytes(b'[1, 2]\n"text"\n' + json.dumps(LINE).encode() + b'\n' + b'['*100_000 + b'\n\xff\xfe\n{"system": "torn')
    text = print_table([file])
    assert '| X |' in text and '5 of the lines' in capsys.readouterr().err
    assert '| X |' in print_table(file, 'foreground')

@pytest.mark.parametrize('line', [dict(LINE, card=[1]), dict(LINE, card=None), dict(LINE, miou='high'), dict(LINE, system=None), {}])
def test_lines_with_parts_of_the_wrong_kind_end_in_a_sentence(tmp_path, line):
    file = tmp_path/'r.jsonl'
    file.write_text(json.dumps(line) + '\n')
    for metric in ('miou', 'foreground')[:1 if line.get('miou') == 'high' else 2]:
        with pytest.raises(NamedMaskError): print_table([file], metric)

def test_a_name_with_a_line_separator_stays_one_line(tmp_path):
    file = tmp_path/'r.jsonl'
    file.write_text(json.dumps(dict(LINE, system='a\u2028b\x85c'), ensure_ascii=False) + '\n', encoding='utf-8')
    assert '| a\u2028b\x85c |' in print_table([file])

@pytest.mark.parametrize('results', [None, 3, 'text', {}, [1], [{'variant': 'x'}], [dict(variant='x', miou='high')]])
def test_results_of_the_wrong_kind(results):
    with pytest.raises(NamedMaskError): with_published(results)

@pytest.mark.parametrize('line', [None, [], 'text', {}, dict(card=3)])
def test_a_line_without_a_card(line):
    with pytest.raises(NamedMaskError, match='no protocol card'): names_aside(line)

def test_a_hostile_results_file_does_not_stop_a_comparison(tmp_path, inputs, count):
    file = results_file(tmp_path/'out')
    make = lambda: run_table(lab_of(inputs, tmp_path/'out'), ['selfmask-clip'], file, quiet=True)
    make()
    key = JsonLines(file).read()[0]['key']
    file.write_text(f'[]\n{{"key": "{key}"}}\n{{"key": "{key}", "variant": ["selfmask-clip"], "seed": 0}}\n' + file.read_text() + '{"variant": "selfmask-cl')
    assert make()[0]['miou'] == JsonLines(file).read()[-1]['miou'] and len(count) == 1
