"Index: streaming, damage, changes of the folder, and kill -9 at random moments."
import os, random, shutil, signal, sqlite3, subprocess, sys, textwrap, time
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from namedmask.core import NamedMaskError
from namedmask.data.toy import write_toy_photos
from namedmask.stages.index import Index, build_index
from namedmask.teachers.cards import TeacherCard

class Tiny:
    "The mean colours of a photo's quarters, and a count of what was embedded."
    dim, side, templates = 12, 32, ('{}',)
    card = TeacherCard('quarters', 'retriever', 'nothing', 'Apache-2.0', 'this test')
    def __init__(self, slow=0): self.embedded, self.slow = 0, slow
    def preprocess(self, im): return np.asarray(im.resize((8, 8)), np.float32).transpose(2, 0, 1)/255
    def embed(self, x):
        self.embedded += len(x); time.sleep(self.slow)
        v = x.reshape(len(x), 3, 2, 4, 2, 4).mean((3, 5)).reshape(len(x), 12)
        return v/np.linalg.norm(v, axis=1, keepdims=True)

def build(photos, folder, r=None, **kw):
    r = r or Tiny()
    return build_index(photos, r, folder, batch_size=8, quiet=True, **kw), r.embedded

def content(index): return np.array(index.vectors).tobytes(), list(index.photos(None)), index.skipped

@pytest.fixture
def photos(tmp_path):
    write_toy_photos(tmp_path/'photos', 40)
    return tmp_path/'photos'

def test_rows_and_vectors(photos, tmp_path):
    index, n = build(photos, tmp_path/'i')
    assert len(index) == n == 40 and index.vectors.dtype == np.float16 and isinstance(index.vectors, np.memmap)
    names = [p.rel for p in index.photos(None)]
    assert names == sorted(names)
    from namedmask.data.photos import content_hash, dhash
    from namedmask.data.decode import load_image
    r = Tiny()
    for row in (0, 17, 39):
        p = index.photo(row)
        im = load_image(p.path, 32)
        assert (p.sha, p.dhash, p.bytes, (p.width, p.height)) == (content_hash(p.path), dhash(im), p.path.stat().st_size, Image.open(p.path).size)
        assert np.allclose(index.vectors[row], r.embed(r.preprocess(im)[None])[0], atol=1e-3)
    assert [p.row for p in index.photos([5, 2])] == [5, 2]
    with pytest.raises(IndexError): index.photo(40)

def test_native_size_and_rotation(tmp_path):
    (tmp_path/'p').mkdir()
    im = Image.effect_noise((300, 100), 60).convert('RGB')
    exif = Image.Exif(); exif[0x0112] = 6
    im.save(tmp_path/'p'/'a.jpg'); im.save(tmp_path/'p'/'b.jpg', exif=exif); im.resize((20, 9)).save(tmp_path/'p'/'c.png'); im.resize((1, 1)).save(tmp_path/'p'/'d.png')
    assert [(p.width, p.height) for p in build(tmp_path/'p', tmp_path/'i')[0].photos(None)] == [(300, 100), (100, 300), (20, 9), (1, 1)]

def test_only_what_changed(photos, tmp_path):
    first, _ = build(photos, tmp_path/'i')
    key = first.key
    same, n = build(photos, tmp_path/'i')
    assert n == 0 and same.key == key
    files = sorted(photos.glob('[!.]*'))
    files[0].unlink()                                   # gone
    os.utime(files[1])                                  # touched
    Image.new('RGB', (64, 64), 'red').save(files[2])    # another content
    Image.new('RGB', (64, 64), 'blue').save(photos/'aaa.png')  # new
    files[3].rename(photos/'zzz.jpg')                   # moved
    shutil.copy(files[4], photos/'copy.jpg')            # copied
    index, n = build(photos, tmp_path/'i')
    assert n == 2 and len(index) == 41 and index.key != key
    fresh, _ = build(photos, tmp_path/'fresh')
    assert content(index) == content(fresh) and index.key == fresh.key
    assert len(list((tmp_path/'i').glob('vectors-*'))) == 1

def test_another_retriever_starts_afresh(photos, tmp_path):
    build(photos, tmp_path/'i')
    r = Tiny(); r.settings = dict(size=9)
    assert build(photos, tmp_path/'i', r)[1] == 40

def test_bad_files_are_listed(photos, tmp_path):
    good = sorted(photos.glob('*.jpg'))[0].read_bytes()
    (photos/'zero.jpg').write_bytes(b''); (photos/'text.jpg').write_text('hello'); (photos/'cut.jpg').write_bytes(good[:len(good)//2])
    (photos/'gone.jpg').symlink_to('nowhere.jpg')
    for _ in range(2):
        index, _ = build(photos, tmp_path/'i')
        assert len(index) == 40 and {Path(p).name for p, _ in index.skipped} == {'zero.jpg', 'text.jpg', 'cut.jpg', 'gone.jpg'}
        assert len(index.skipped) == 4 and all(reason for _, reason in index.skipped)

def test_file_that_vanishes(photos, tmp_path):
    class Thief(Tiny):
        def embed(self, x): sorted(photos.glob('[!.]*'))[-1].unlink(); return super().embed(x)
    index, _ = build(photos, tmp_path/'i', Thief())
    assert len(index) + len(index.skipped) == 40

def test_sentences(photos, tmp_path, monkeypatch):
    with pytest.raises(NamedMaskError, match='There is no index'): Index.open(tmp_path/'none')
    (tmp_path/'bad').mkdir(); (tmp_path/'bad'/'a.jpg').write_bytes(b'')
    with pytest.raises(NamedMaskError, match='None of the 1 images could be read'): build(tmp_path/'bad', tmp_path/'j')
    with pytest.raises(NamedMaskError, match='not finished'): Index.open(tmp_path/'j')
    (tmp_path/'empty').mkdir()
    with pytest.raises(NamedMaskError, match='no image'): build(tmp_path/'empty', tmp_path/'k')
    (tmp_path/'file').write_text('')
    with pytest.raises(NamedMaskError, match='choose another'): build(photos, tmp_path/'file'/'i')
    from namedmask.stages import index as m
    def full(*a): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(m.os, 'fsync', full)
    with pytest.raises(NamedMaskError, match='disk is full'): build(photos, tmp_path/'full')
    monkeypatch.undo()
    assert len(build(photos, tmp_path/'full')[0]) == 40

def test_damaged_table(photos, tmp_path):
    build(photos, tmp_path/'i')
    (tmp_path/'i'/'index.db').write_bytes(b'rubbish'*1000)
    with pytest.raises(NamedMaskError, match='delete the folder'): build(photos, tmp_path/'i')

def test_one_process_at_a_time(photos, tmp_path):
    pytest.importorskip('fcntl')
    class Nested(Tiny):
        def embed(self, x):
            with pytest.raises(NamedMaskError, match='Another process'): build(photos, tmp_path/'i')
            return super().embed(x)
    assert len(build(photos, tmp_path/'i', Nested())[0]) == 40

def test_memory_stays_flat(photos, tmp_path):
    "No more than two batches and what the threads hold are decoded ahead of the network."
    class Watch(Tiny):
        held, most = 0, 0
        def preprocess(self, im): self.held += 1; self.most = max(self.most, self.held); return super().preprocess(im)
        def embed(self, x): time.sleep(.05); self.held -= len(x); return super().embed(x)
    r = Watch()
    write_toy_photos(tmp_path/'many', 120, seed=1)
    build(tmp_path/'many', tmp_path/'i', r)
    assert r.embedded == 120 and r.most <= 5*8 + 2

CHILD = textwrap.dedent("""
    import sys; sys.path.insert(0, sys.argv[1])
    from test_index import Tiny, build_index
    print('go', flush=True)
    r = Tiny(slow=.02)
    build_index(sys.argv[2], r, sys.argv[3], batch_size=8, quiet=True)
    print('embedded', r.embedded, flush=True)
""")

def test_kill_at_random_moments(tmp_path):
    "A build that is killed again and again ends with the bytes of one that was not, and redoes at most the batches in flight."
    photos, folder, rng = tmp_path/'photos', tmp_path/'i', random.Random(0)
    write_toy_photos(photos, 160)
    (photos/'m_broken.jpg').write_bytes(b'')
    whole, _ = build(photos, tmp_path/'whole')
    cmd, slots, kills = [sys.executable, '-c', CHILD, str(Path(__file__).parent), str(photos), str(folder)], [0], 0
    for attempt in range(12):
        p = subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True)
        assert p.stdout.readline() == 'go\n'
        try: p.wait(rng.uniform(.02, .35) if attempt < 4 else 60)
        except subprocess.TimeoutExpired: p.send_signal(signal.SIGKILL); p.wait(); kills += 1
        out = p.stdout.read()
        if (folder/'index.db').exists() and not out:
            try: slots.append(int(dict(sqlite3.connect(folder/'index.db').execute('select name, value from meta')).get('slots', 0)))
            except sqlite3.Error: pass
        if out: break
    assert kills and slots == sorted(slots), "nothing that was written is lost"
    assert int(out.split()[1]) == 160 - slots[-1], "nothing that was written is made again"
    index = Index.open(folder)
    assert content(index) == content(whole) and index.key == whole.key
    assert (folder/index.vectors.filename).read_bytes() == (tmp_path/'whole'/Path(whole.vectors.filename).name).read_bytes()

def test_kill_while_tidying(photos, tmp_path, monkeypatch):
    "Dying between the copy of the vectors and the switch of the table leaves a folder that goes on."
    from namedmask.stages import index as m
    build(photos, tmp_path/'i')
    sorted(photos.glob('[!.]*'))[0].unlink()
    real = m.os.fsync
    class Died(BaseException): pass
    def die(fd):
        real(fd)
        if (tmp_path/'i'/'vectors-1.f16').exists(): raise Died
    monkeypatch.setattr(m.os, 'fsync', die)
    with pytest.raises(Died): build(photos, tmp_path/'i')
    monkeypatch.undo()
    assert len(list((tmp_path/'i').glob('vectors-*'))) == 2
    index, n = build(photos, tmp_path/'i')
    assert n == 0 and content(index) == content(build(photos, tmp_path/'fresh')[0])
    assert len(list((tmp_path/'i').glob('vectors-*'))) == 1

def test_rows_are_asked_for_in_pieces(tmp_path):
    "Any number of rows in any order, some of them twice, and few questions to the table."
    write_toy_photos(tmp_path/'photos', 30)
    index, _ = build(tmp_path/'photos', tmp_path/'i')
    order = np.random.default_rng(0).integers(0, 30, 1300).tolist()
    questions = []
    index.db.set_trace_callback(questions.append)
    assert [p.row for p in index.photos(order)] == order
    assert len(questions) == 3
    with pytest.raises(IndexError, match='row 30 of an index of 30 photos'): list(index.photos([3, 30]))

def test_a_cut_file_of_vectors_is_said_and_mended(photos, tmp_path):
    whole, _ = build(photos, tmp_path/'whole')
    build(photos, tmp_path/'i')
    file = tmp_path/'i'/'vectors-0.f16'
    file.write_bytes(file.read_bytes()[:2*12*25 + 7])
    with pytest.raises(NamedMaskError, match='holds 25 of 40 vectors: it was cut off'): Index.open(tmp_path/'i')
    index, made = build(photos, tmp_path/'i')
    assert made == 15 and content(index) == content(whole)
    file.unlink()
    with pytest.raises(NamedMaskError, match='no such file'): Index.open(tmp_path/'i')

@pytest.mark.parametrize('record', ['[]', '{"done": true}', '{"done": true, "key": "a", "content": "b", "settings": {"dim": "wide"}}'])
def test_a_damaged_record_is_one_sentence(photos, tmp_path, record):
    build(photos, tmp_path/'i')
    (tmp_path/'i'/'stage.json').write_text(record)
    with pytest.raises(NamedMaskError) as e: Index.open(tmp_path/'i')
    assert '\n' not in str(e.value)
