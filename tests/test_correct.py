"Corrected photos: the files of labelling tools there and back, what is kept, what a student learns from it, and what is refused."
import json, zipfile
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from pycocotools import mask as coco
import helpers
from helpers import toy_fit, write_photos
from namedmask import cli
from namedmask.app import label_files as files
from namedmask.app.predictor import model_card
from namedmask.app.correct import export_labels, import_labels
from namedmask.runs.doubts import disagreement
from namedmask.core import NamedMaskError, rng_of
from namedmask.data.draw import save_labels
from namedmask.models.batches import ArchiveDataset
from namedmask.runs.run import Run
from namedmask.stages.corrections import Corrections

def blobs(seed, size=(41, 30)):
    "A random mask with pieces, holes and single pixels."
    return rng_of(seed, 'blobs').random(size[::-1]) < (.02, .3, .9)[seed % 3]

# ---------------------------------------------------------------- the tools' files

@pytest.mark.parametrize('seed', range(6))
def test_masks_come_back_from_both_tools(seed):
    mask = blobs(seed)
    assert np.array_equal(files.brush_decode(files.brush_encode(mask), mask.shape[::-1]), mask)
    drawing = files.drawing_of('a.png', mask.astype(int)*2, ['x', 'y'])
    back = files._of_image(files.ElementTree.fromstring(files.cvat_xml([drawing]).split('\n', 1)[1])[1], 'f')
    assert np.array_equal(back.labels(['x', 'y']), mask*2)

def test_a_brush_of_hand_made_bits():
    "32 bits of length, 5 of the word, four sizes; then a run of 9 zeros and a row of three values."
    bits = f'{12:032b}' + '00111' + '0010' + '0011' + '0111' + '1111' + '1' + '01' + f'{8:04b}' + f'{0:08b}' + '0' + '00' + f'{2:03b}' + f'{1:08b}{2:08b}{255:08b}'
    bits += '0'*(-len(bits) % 8)
    assert files.brush_decode([int(bits[i:i + 8], 2) for i in range(0, len(bits), 8)], (3, 1)).tolist() == [[False, False, True]]

def test_cvat_counts_like_its_documentation():
    "A box of 3 x 2 whose lengths begin with background."
    mask = np.zeros((5, 7), bool); mask[2, 3:5] = mask[3, 4:6] = True
    assert files._cvat_mask(mask) == dict(rle='0, 2, 2, 2', left='3', top='2', width='3', height='2')

def test_polygons_of_both_tools(tmp_path):
    points = [[10, 10], [60, 10], [60, 50], [10, 50]]
    task = dict(data=dict(image='p.png'), annotations=[dict(result=[dict(type='polygonlabels', original_width=200, original_height=100, value=dict(points=points, polygonlabels=['a'])),
                                                                    dict(type='rectanglelabels', original_width=200, original_height=100, value={})])])
    (tmp_path/'a.json').write_text(json.dumps([task]))
    drawing, = files.read_label_studio(tmp_path/'a.json')
    want = np.zeros((100, 200), bool); want[10:51, 20:121] = True
    assert drawing.ignored == 1 and coco.iou([coco.encode(np.asfortranarray(drawing.regions[0][1].view(np.uint8)))], [coco.encode(np.asfortranarray(want.view(np.uint8)))], [0])[0, 0] > .98

def test_what_lies_on_top_hides_what_is_below(tmp_path):
    image = '<image name="p" width="4" height="1">{}</image>'
    shape = '<mask label="{}" rle="0,{n}" left="{}" top="0" width="{n}" height="1" z_order="{}"/>'
    (tmp_path/'a.xml').write_text('<annotations>' + image.format(shape.format('a', 0, 9, n=2) + shape.format('b', 0, 1, n=4)) + '</annotations>')
    assert files.read_cvat(tmp_path/'a.xml')[0].labels(['a', 'b']).tolist() == [[1, 1, 2, 2]]

# ---------------------------------------------------------------- a run

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('made')
    photos = write_photos(folder/'photos', 6)
    return photos, toy_fit(photos, folder/'run', experts=False)

@pytest.fixture
def run(made, tmp_path):
    import shutil
    shutil.copytree(made[1].folder, tmp_path/'run')
    return Run(tmp_path/'run', made[1].detector)

def annotated(run, tmp_path, n=2, change=lambda labels: np.roll(labels, 5, 1)):
    "A file as Label Studio exports it, of the first `n` photos, each with labels of another kind than went out."
    export_labels(run, tmp_path/'out', n=3, quiet=True)
    tasks = json.loads((tmp_path/'out'/'tasks.json').read_text())
    paths = dict(line.split(',')[:2] for line in (tmp_path/'out'/'photos.csv').read_text(encoding='utf-8-sig').splitlines()[1:])
    names, drawn = run.segmenter.names, {}
    for task in tasks[:n]:
        photo = task['data']['photo']
        drawn[paths[photo]] = labels = change(np.pad(np.ones((20, 30), np.uint8), ((5, 47), (6, 60)))*2)
        task['annotations'] = [dict(result=files.label_studio_tasks([files.drawing_of(photo, labels, names)], ['x'], 'me')[0]['predictions'][0]['result'])]
    (tmp_path/'export.json').write_text(json.dumps(tasks))
    return tmp_path/'export.json', drawn

def size_of(path): return Image.open(path).size

def test_corrected_photos_make_another_student_and_nothing_else(made, run, tmp_path, capsys):
    assert size_of(next(iter(sorted(made[0].rglob('*.jpg'))))) == (96, 72)      # what `annotated` draws on
    file, drawn = annotated(run, tmp_path)
    before = {s: run.stage(s).get('key') for s in ('index', 'archive', 'saliency', 'student')}
    done = import_labels(run, file)
    assert (done.corrected, done.in_all, done.skipped) == (2, 2, []) and str(done).startswith('2 corrected photos')
    assert run.has('student') and run.segmenter is not None                     # the old one serves until the new one is there
    again = toy_fit(made[0], run.folder, experts=False, quiet=False)
    said = capsys.readouterr().out
    after = {s: again.stage(s).get('key') for s in before}
    assert {s for s in before if before[s] != after[s]} == {'student'} and '2 corrected photos' in said and said.count('(kept)') == 3
    assert again.stage('student')['corrected'] == 2 and len(again.corrected) == 2 and again.dls.train_ds.others.corrected is not None
    for photo in again.corrected.photos: assert np.array_equal(again.corrected.load(photo.sha), drawn[str(photo.path)])
    seen = {(c['name'], c['supervision']) for c in again.segmenter.meta['supervision']}                      # such a student has seen masks, and says so
    assert ('corrected photos', 'masks') in seen and any(c['supervision'] == 'masks' for c in again.record['teachers'])
    assert not any(c['supervision'] == 'masks' for c in made[1].segmenter.meta['supervision']) and 'strongest supervision that went into any model used: **masks**' in model_card(again.segmenter.meta, {})
    weights = (run.folder/'student'/'model.safetensors').read_bytes()
    toy_fit(made[0], run.folder, experts=False, quiet=False)
    assert capsys.readouterr().out.count('(kept)') == 4 and (run.folder/'student'/'model.safetensors').read_bytes() == weights
    import_labels(run, file)                                                    # the same again changes nothing
    toy_fit(made[0], run.folder, experts=False, quiet=False)
    assert capsys.readouterr().out.count('(kept)') == 4

def test_without_corrections_all_is_as_before(made, tmp_path):
    "The samples of a student that has none are drawn from the same random numbers."
    archive, masks = made[1].archive, made[1].final_masks
    class One:
        photos, key = [archive.kept()[0]], 'k'
        def load(self, sha, size=None): return np.full((9, 9), 2, np.uint8)
    def labels(**more): return [np.asarray(ArchiveDataset(archive.kept(), masks, {n: 1 for n in archive.names}, 40, crop=64, **more)[i][1]) for i in range(40)]
    plain, with_none, mixed = labels(), labels(corrected=None, corrected_share=.9), labels(corrected=One(), corrected_share=.5)
    assert all(np.array_equal(a, b) for a, b in zip(plain, with_none))
    assert 10 <= sum((y == 2).any() for y in mixed) <= 30 and not any((y == 2).any() for y in plain)

def test_corrections_that_are_taken_away_bring_the_old_student_back(made, run, tmp_path):
    import shutil
    file, _ = annotated(run, tmp_path)
    old = (run.folder/'student'/'model.safetensors').read_bytes()
    import_labels(run, file)
    toy_fit(made[0], run.folder, experts=False)
    assert (run.folder/'student'/'model.safetensors').read_bytes() != old
    shutil.rmtree(run.folder/'corrections')
    toy_fit(made[0], run.folder, experts=False)
    assert (run.folder/'student'/'model.safetensors').read_bytes() == old

def test_a_finished_run_notices_corrections(made, run, tmp_path, capsys):
    "A run of named teachers is answered from its record; corrected photos are part of what the answer depends on."
    from namedmask.runs.finished import folder_state
    photos = write_photos(tmp_path/'few', 5)
    settings = dict(saliency='spectral', experts=False)
    first = toy_fit(photos, tmp_path/'other', **settings)
    assert first.record['state']['stages']['corrections'] == folder_state(tmp_path/'other'/'corrections')
    file, _ = annotated(first, tmp_path)
    import_labels(first, file)
    toy_fit(photos, tmp_path/'other', quiet=False, **settings)
    said = capsys.readouterr().out
    assert '2 corrected photos' in said
    toy_fit(photos, tmp_path/'other', quiet=False, **settings)
    assert capsys.readouterr().out.count('(kept)') == said.count('\n')

def test_other_names_keep_what_was_drawn(run, tmp_path):
    import_labels(run, annotated(run, tmp_path)[0])
    names = run.segmenter.names
    sha = run.corrected.photos[0].sha
    assert set(np.unique(Corrections(run.folder/'corrections', names[::-1]).load(sha))) == {0, names[::-1].index(names[1]) + 1}
    assert set(np.unique(Corrections(run.folder/'corrections', [names[0], names[2]]).load(sha))) == {0, 255}

# ---------------------------------------------------------------- from the command line

def test_the_commands(made, run, tmp_path, capsys):
    assert cli.main(['export-labels', str(run.folder), '--out', str(tmp_path/'ls'), '--n', '2']) == 0
    assert 'import-labels' in capsys.readouterr().out and (tmp_path/'ls'/'config.xml').read_text().count('<Label ') == 3
    tasks = json.loads((tmp_path/'ls'/'tasks.json').read_text())
    assert len(tasks) == 2 and all(t['data']['image'].startswith('/data/local-files/?d=') for t in tasks)
    assert cli.main(['import-labels', str(run.folder), str(tmp_path/'ls'/'tasks.json')]) == 2
    assert 'nobody has annotated' in capsys.readouterr().err
    photo = sorted(made[0].rglob('*.jpg'))[0]
    assert cli.main(['export-labels', str(run.folder), '--out', str(tmp_path/'cvat'), '--to', 'cvat', '--photos', str(photo)]) == 0
    with zipfile.ZipFile(tmp_path/'c.zip', 'w') as z: z.write(tmp_path/'cvat'/'annotations.xml', 'annotations.xml')
    capsys.readouterr()
    assert cli.main(['import-labels', str(run.folder), str(tmp_path/'c.zip')]) == 2 and 'as they went out' in capsys.readouterr().err
    assert cli.main(['import-labels', str(run.folder), str(tmp_path/'c.zip'), '--everything']) == 0
    assert '1 corrected photo,' in capsys.readouterr().out and Run(run.folder).corrected.photos[0].path == photo

def test_files_of_yours_stay(run, tmp_path, capsys):
    (tmp_path/'mine').mkdir(); (tmp_path/'mine'/'tasks.json').write_text('mine')
    assert cli.main(['export-labels', str(run.folder), '--out', str(tmp_path/'mine')]) == 2
    assert 'was not made by namedmask' in capsys.readouterr().err and (tmp_path/'mine'/'tasks.json').read_text() == 'mine'

# ---------------------------------------------------------------- photos that cannot be found, or are others now

def test_uploaded_names_and_a_folder(run, tmp_path):
    "Label Studio puts letters before an uploaded name; a photo that never went out is found in a folder that is named."
    file, drawn = annotated(run, tmp_path)
    tasks = json.loads(file.read_text())
    for task in tasks[:2]: task['data'] = dict(image=f"/data/upload/1/0a1b2c3d-{Path(task['data']['photo']).name}")
    file.write_text(json.dumps(tasks))
    assert import_labels(run, file).corrected == 2
    other = tmp_path/'elsewhere'/'new one.jpg'; other.parent.mkdir()
    Image.new('RGB', (96, 72), 'red').save(other)
    tasks[0]['data'] = dict(image='/data/local-files/?d=elsewhere/new%20one.jpg')
    file.write_text(json.dumps(tasks[:1]))
    with pytest.raises(NamedMaskError, match='none of the photos that were exported'): import_labels(run, file)
    assert import_labels(run, file, other.parent).corrected == 1

def test_what_is_not_what_it_was_is_skipped(made, run, tmp_path):
    file, drawn = annotated(run, tmp_path)
    first, second = map(Path, drawn)
    data = {p: p.read_bytes() for p in (first, second)}
    try:
        Image.new('RGB', (96, 72), 'blue').save(first)
        done = import_labels(run, file)
        assert done.corrected == 1 and 'another picture' in done.skipped[0][1]
        second.unlink()
        with pytest.raises(NamedMaskError, match='not there any more|another picture'): import_labels(run, file)
    finally:
        for p, content in data.items(): p.write_bytes(content)

def test_a_label_map_of_another_size(run, tmp_path):
    file, _ = annotated(run, tmp_path, change=lambda labels: labels[:-1])
    with pytest.raises(NamedMaskError, match="photo's own size"): import_labels(run, file)

@pytest.mark.parametrize('text', ['x,y', '"x,1"', 'root,path,sha,names\n/,a,abc,{', 'root,path,sha,names\n/,a,../../x,[]'])
def test_a_damaged_list(run, tmp_path, text):
    import_labels(run, annotated(run, tmp_path)[0])
    (run.folder/'corrections'/'photos.csv').write_text(text)
    with pytest.raises(NamedMaskError): Run(run.folder).corrected

def test_disagreement():
    labels = np.zeros((8, 8), int); labels[:4] = 1; labels[4:] = 2
    soft = np.zeros((4, 4), np.uint8); soft[:2] = 255
    assert disagreement(labels, 1, soft) == 0 and disagreement(labels, 2, soft) == 1 and disagreement(labels*0, 1, soft*0) == 0
    soft[:3] = 255
    assert disagreement(labels, 1, soft) == pytest.approx(1/3)
