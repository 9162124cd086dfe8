"""The widgets that look into a run, in a real JupyterLab: pytest tests/browser/lab_runs.py (`make browser-test` calls it,
`make test` does not). `lab_tools` says what it needs.
"""
import base64, csv, io, re
import numpy as np
import pytest
from PIL import Image
from lab_tools import needs_browser, visit

pytestmark = needs_browser

TELL = '''
import json, os, warnings
from pathlib import Path
import numpy as np
from namedmask.mini.world import six_scenes
warnings.filterwarnings("ignore")
def tell(widget, **said):
    "Write what is so, when it is whole, for the test to read."
    with open('told/.told', 'w') as f: json.dump(said, f)
    os.replace('told/.told', f'told/{widget}.json')
'''
ARCHIVE = '''
from namedmask.app.archive_explorer import ArchiveExplorer
from namedmask.data.toy import write_toy_photos
from namedmask.lab.toys import ColourRetriever, ToyIndex
from namedmask.stages.archive import Archive
from namedmask.stages.build import build_archive
retriever = ColourRetriever()
index = ToyIndex(write_toy_photos(Path('photos'), 60, size=96), retriever)
archive = build_archive(index, retriever, 'red,orange,green,blue', 8, Path('archive'), quiet=True)
archive_explorer = ArchiveExplorer(archive, 'red', per_page=5, size=120)
def tell_archive():
    again = Archive.open('archive')
    kept = {name: [entry.rel for entry in again.kept(name)] for name in again.names}
    tell('archive', manifest=Path('archive/manifest.csv').read_text(), kept=kept, page=archive_explorer.page,
         note=archive_explorer._note.value, shown=archive_explorer.paths, unsaved=archive.unsaved)
archive_explorer  # show archive'''
SALIENCY = '''
from namedmask.app.saliency_explorer import PANELS, SaliencyExplorer, as_html
saliency_explorer = SaliencyExplorer('mini', [scene.image for scene in six_scenes()])
def tell_saliency():
    x = saliency_explorer
    how, mask = x.detector, x.detector(x.photo)                  # as a run makes it
    tell('saliency', ks=how.ks, upsample=how.upsample, centre=how.centre, refine=how.refine, threshold=x.threshold, i=x.i,
         same=bool(np.array_equal(mask, x.soft)), area=float(100*(mask >= x.threshold).mean()),
         panels=[as_html(x.panel(which)) for which in PANELS])
saliency_explorer  # show saliency'''
GROUPS = '''
from helpers import EXPERT, toy_fit, write_photos
from namedmask.app.expert_groups import ExpertGroups
from namedmask.stages.experts import group_names
run = toy_fit(write_photos('discs', 6), 'run', groups={'warm': ['red', 'green']}, experts=dict(EXPERT, n_iters=60))
expert_groups = ExpertGroups(run)
def tell_groups():
    x = expert_groups
    tell('groups', k=x.k, groups=x.groups, right=group_names(x.names, x.text, x.k), name=x.name, order=x.order,
         kept=[entry.rel for entry in run.archive.kept(x.name)], ranks=[row.entry.rank for row in x.redrawn()],
         ious=[row.record['iou'] for row in x.redrawn()], panels=[as_html(x.panel(which)) for which in ('tree', 'masks')])
expert_groups  # show groups'''
ERRORS = '''
from namedmask.app.error_browser import ErrorBrowser
from namedmask.mini.shapes import WORLD_NAMES
from namedmask.models.labeller import Labeller
class Shifted(Labeller):
    "The labels of the six scenes, 6 pixels to the right; a snail is taken for a fish."
    names = list(WORLD_NAMES)
    def __init__(self): self.known = {scene.image.tobytes(): scene.labels for scene in six_scenes()}
    def predict(self, im):
        labels = np.roll(self.known[im.tobytes()], 6, 1)
        return np.where(labels == 1 + self.names.index('snail'), 1 + self.names.index('fish'), labels).astype(np.uint8)
error_browser = ErrorBrowser(Shifted(), [(scene.image, scene.labels) for scene in six_scenes()], quiet=True)
def tell_confusions():
    x = error_browser
    tell('confusions', i=x.i, confusion=x.confusion and x.confusion[:2], photos=x.photos, caption=x.caption(),
         confusions=x.confusions)
error_browser  # show confusions'''
MONITOR = '''
from test_training_monitor import Folder
from namedmask.app.training_monitor import TrainingMonitor
watched = Folder(Path('watched')).before('student').student(20)
training_monitor = TrainingMonitor('watched', every=1)
def tell_monitor():
    x = training_monitor
    losses = {t.name: len(t.losses) for t in x.state.trainings}
    tell('monitor', watching=x.is_watching, losses=losses, text=x.text(), finished=x.state.finished)
training_monitor  # show monitor'''
CELLS = [TELL, ARCHIVE, 'tell_archive()', SALIENCY, 'tell_saliency()', GROUPS, 'tell_groups()', ERRORS, 'tell_confusions()',
         MONITOR, 'tell_monitor()']

@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    "What the browser saw."
    return visit('lab_runs.cjs', CELLS, tmp_path_factory.mktemp('lab_runs'))

def test_no_error_and_no_other_host(seen): assert not seen['errors'], seen['errors']

def test_no_text_is_cut_off_on_a_narrow_page(seen): assert seen['cut'] == {name: [] for name in seen['cut']} != {}

# ---------------------------------------------------------------- the archive

def lines(told): return list(csv.DictReader(io.StringIO(told['manifest'].removeprefix('\ufeff'))))

def status(told, name, path): return [line['status'] for line in lines(told) if (line['name'], line['path']) == (name, path)]

def test_nothing_is_written_before_you_save(seen):
    before, dropped, unsaved = (seen['archive'][when] for when in ('before', 'dropped', 'unsaved'))
    assert before['manifest'] == dropped['manifest'] == unsaved['manifest']
    assert [told['unsaved'] for told in (before, dropped, unsaved)] == [0, 1, 3]

def test_drops_and_a_move_reach_the_manifest(seen):
    before, saved = seen['archive']['before'], seen['archive']['saved']
    first, second, third, *others = before['kept']['red']
    assert saved['unsaved'] == 0 and saved['kept']['red'] == others          # the first by mouse, the others by keyboard
    assert sorted(saved['kept']['blue']) == sorted([*before['kept']['blue'], third])
    assert [status(saved, 'red', path) for path in (first, second, third)] == [['dropped']]*3
    assert status(before, 'blue', third) == [] and status(saved, 'blue', third) == ['kept']
    for name in ('orange', 'green'): assert saved['kept'][name] == before['kept'][name]

def test_the_move_is_undone(seen):
    before, undone = seen['archive']['before'], seen['archive']['undone']
    first, second, third, *others = before['kept']['red']
    assert undone['unsaved'] == 0 and undone['kept'] == {**before['kept'], 'red': [third, *others]}
    assert status(undone, 'red', third) == ['kept'] and status(undone, 'blue', third) == []

def test_pages_and_what_is_dropped(seen):
    told = seen['archive']['dropped_page']
    shown = [path.removeprefix('photos/') for path in told['shown']]
    assert set(seen['archive']['before']['kept']['red'][:2]) <= set(shown) and seen['archive']['buttons'] == 5
    assert {*shown} == {line['path'] for line in lines(told) if line['name'] == 'red' and line['status'] == 'dropped'}

# ---------------------------------------------------------------- how a photo gets its mask

STEPS = ('before', 'dragged', 'keyed', 'other')

def test_mouse_and_keys_change_the_detector(seen):
    names = ('ks', 'upsample', 'centre', 'refine', 'threshold', 'i')
    usual = dict(ks=[2, 3, 4], upsample=1, centre=True, refine='grabcut', threshold=.5, i=0)
    keyed = dict(ks=[2, 3, 4, 5], upsample=2, centre=True, refine='bilateral', threshold=.55, i=0)
    wanted = [usual, {**usual, 'threshold': .7, 'centre': False}, keyed, {**keyed, 'i': 1}]
    for step, right in zip(STEPS, wanted):
        told = {name: seen['saliency'][step][name] for name in names}
        assert told == {**right, 'threshold': pytest.approx(right['threshold'])}

def test_the_mask_on_the_page_is_that_of_a_run(seen):
    for step in STEPS:
        told = seen['saliency'][step]
        assert told['same'] and f"the soft mask covers {told['area']:.1f} %" in told['figures'][2]['caption']
    assert len({round(seen['saliency'][step]['area'], 3) for step in STEPS}) == 4

def are_those_of_python(told):
    for figure, right in zip(told['figures'], told['panels'], strict=True): assert figure['src'] in right and figure['width'] > 100

def test_each_change_has_its_pictures(seen):
    for step in STEPS: are_those_of_python(seen['saliency'][step])
    candidates = [seen['saliency'][step]['figures'][1]['caption'].split(':')[0] for step in STEPS]
    assert candidates == ['9 candidates', '9 candidates', '14 candidates', '14 candidates']
    assert len({seen['saliency'][step]['figures'][2]['src'] for step in STEPS}) == 4

# ---------------------------------------------------------------- who shares an expert

def test_mouse_and_keys_change_the_groups(seen):
    assert [seen['groups'][step]['k'] for step in ('before', 'clicked', 'keyed', 'ranked')] == [2, 3, 1, 1]
    for told in seen['groups'].values():
        assert told['groups'] == told['right'] and len(told['groups']) == told['k']
        assert told['list'] == [', '.join(members) for members in told['groups'].values()]
        are_those_of_python(told)

def test_names_and_order_change_the_masks(seen):
    before, keyed, ranked = (seen['groups'][step] for step in ('before', 'keyed', 'ranked'))
    assert (before['name'], keyed['name'], ranked['name']) == ('red', 'green', 'green')
    assert keyed['order'] == 'changed' and keyed['ious'] == sorted(keyed['ious'])
    assert ranked['order'] == 'rank' and ranked['ranks'] == sorted(ranked['ranks'])
    assert all(path.startswith('green') for path in ranked['kept']) and len(ranked['ranks']) == len(ranked['kept']) == 5
    captions = [told['figures'][1]['caption'] for told in (before, keyed, ranked)]
    for caption, start in zip(captions, ('red: 5 of 5 photos (changed most)', 'green: 5 of 5 photos (changed most)', 'green: 5 of 5 photos (best of')):
        assert caption.startswith(start)

# ---------------------------------------------------------------- what is taken for what

def taken():
    "Pixels of the snail in each of the six scenes that are called fish, from the definition."
    from namedmask.mini.shapes import WORLD_NAMES
    from namedmask.mini.world import six_scenes
    snail = 1 + list(WORLD_NAMES).index('snail')
    return [int(((s.labels == snail) & (np.roll(s.labels, 6, 1) == snail)).sum()) for s in six_scenes()]

def orange(told):
    "Pixels in the picture on the page that have the colour of the chosen confusion, as far as a JPEG keeps it."
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(told['src'].split(',')[1]))).convert('RGB')).astype(int)
    return int((abs(pixels - (230, 97, 0)).max(2) < 12).sum())

def test_a_confusion_is_chosen_by_mouse(seen):
    chosen, pixels = seen['confusions']['chosen'], taken()
    order = [f'photo {1 + k}' for k in sorted(range(6), key=lambda k: -pixels[k]) if pixels[k]]
    assert chosen['confusion'] == ['snail', 'fish'] and ['snail', 'fish', sum(pixels), len(order)] in chosen['confusions']
    assert chosen['photos'] == order and chosen['i'] == 0
    entries = [entry.replace('\xa0', ' ') for entry in chosen['entries']]
    assert entries == [f'{i}. {stem}: {pixels[int(stem.split()[1]) - 1]:,} pixels' for i, stem in enumerate(order, 1)]
    assert orange(chosen) > 100 and orange(seen['confusions']['before']) == 0

def test_a_photo_is_chosen_by_keyboard(seen):
    before, chosen, keyed = (seen['confusions'][step] for step in ('before', 'chosen', 'keyed'))
    assert keyed['confusion'] is None and keyed['i'] == 2 and keyed['photos'] == before['photos'] and len(keyed['photos']) == 6
    for told in (before, chosen, keyed): assert told['words'] == told['caption'] and told['alt'].endswith(told['caption'])
    assert keyed['words'].startswith(f"Photo 3 of 6, worst first: {keyed['photos'][2]}, mIoU ")
    assert len({told['src'] for told in (before, chosen, keyed)}) == 3

# ---------------------------------------------------------------- a run that goes on

def test_the_monitor_follows_the_log(seen):
    steps = seen['monitor']
    read = {step: steps[step]['losses']['student'] for step in steps}
    assert read == dict(before=20, off=30, looked=40, entered=50, on=60, finished=100)
    for step, told in steps.items():
        n = read[step]
        assert step == 'finished' or f'Student: iteration {n} of 100, ' in told['words']
        assert len(told['images']) == 1 and f'after {n} iterations' in told['images'][0]

def test_the_box_starts_and_stops_it(seen):
    wanted = dict(before=True, off=False, looked=False, entered=False, on=True, finished=False)
    for step, on in wanted.items(): assert seen['monitor'][step]['watching'] == seen['monitor'][step]['ticked'] == on

def test_a_finished_run_is_told(seen):
    before, end = seen['monitor']['before'], seen['monitor']['finished']
    assert end['finished'] == '2026-01-02 03:04:05' and end['words'].startswith('Finished at 2026-01-02 03:04:05: 5 stages')
    assert [row.endswith('at work') for row in before['table']] == [False]*4 + [True]
    assert all(re.search(r'finished, \d', row) for row in end['table'])
