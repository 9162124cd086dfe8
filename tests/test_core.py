"Core: records read as data from outside, whose file is whose, locks, files that are whole or absent, stages that continue."
import errno, json, multiprocessing, os, signal, socket, threading
from pathlib import Path
import numpy as np
import pytest
from namedmask.core import claims, locks
from namedmask.core import (LOCK, RECORD, JsonLines, NamedMaskError, Stage, atomic_path, cache_dir, check_regular, claim, empty_own, explain_write,
    locked, own_folder, owned_files, parse_json, read_bytes, read_json, read_lines, remove_own, rng_of, safe_join,
    seed_of, settings_key, slug, sweep, write_json, write_text)

def says(words, f, *a, **kw):
    "`f` ends in one sentence that has the words."
    with pytest.raises(NamedMaskError) as e: f(*a, **kw)
    text = str(e.value)
    assert words in text and '\n' not in text and len(text) < 600, text
    return text

def tree(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob('*')) if p.is_file() and not p.is_symlink()}
def visible(folder): return {k for k in tree(folder) if not k.split('/')[-1].startswith('.namedmask')}

# ---------------------------------------------------------------- records are data from outside

@pytest.mark.parametrize('text, words', [('{', 'not valid JSON'), (b'\xff', 'not valid JSON'), ('[' * 100_000, 'nested too deeply'), ('', 'not valid JSON'), ('[1]', 'a list where an object'),
                                         ('3', 'a number or nothing where an object'), ('null', 'a number or nothing'), ('"a"', 'a text where an object')])
def test_json_that_cannot_be_used(text, words):
    assert 'there.json' in says(words, parse_json, text, 'there.json', dict)

def test_json_that_can(tmp_path):
    assert parse_json('[1, null]', 'x') == [1, None] and parse_json(b'{"k\\u00e9": 1}', 'x', dict) == {'ké': 1}
    assert read_json(tmp_path/'none.json') is None and read_json(tmp_path/'none.json', {}) == {}
    write_json(tmp_path/'a.json', {'name': 'köttur'})
    assert read_json(tmp_path/'a.json', {}, dict) == {'name': 'köttur'} and 'köttur' in (tmp_path/'a.json').read_text(encoding='utf-8')
    (tmp_path/'gone.json').symlink_to(tmp_path/'nowhere')
    says('Cannot read', read_json, tmp_path/'gone.json', {})            # a broken link is not an absent file

def test_what_is_no_plain_file_is_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path/'pipe')
    for f in (check_regular, read_bytes, read_json, read_lines, lambda p: JsonLines(p).read()): says('a pipe or a device', f, tmp_path/'pipe')
    says('is a folder', read_bytes, tmp_path)
    with socket.socket(socket.AF_UNIX) as s:
        monkeypatch.chdir(tmp_path); s.bind('socket')
        says('a pipe or a device', read_bytes, 'socket')
    says('a pipe or a device', read_bytes, '/dev/zero')
    says('no such file', read_bytes, tmp_path/'none')

def test_only_a_line_feed_ends_a_line(tmp_path):
    names = ['a\u2028b', 'c\x85d', 'e\x0bf', 'g\x1ch', '']
    (tmp_path/'l.txt').write_bytes(('\ufeff' + '\r\n'.join(names) + '\r\nlast').encode())
    assert read_lines(tmp_path/'l.txt') == [*names, 'last']
    (tmp_path/'l.txt').write_bytes(b''); assert read_lines(tmp_path/'l.txt') == []
    (tmp_path/'l.txt').write_bytes(b'one\ntwo\n'); assert read_lines(tmp_path/'l.txt') == ['one', 'two']
    (tmp_path/'l.txt').write_bytes(b'ok\n\xe9t\xe9\n')
    assert 'byte 3' in says('not UTF-8', read_lines, tmp_path/'l.txt')

# ---------------------------------------------------------------- ledgers

def test_a_ledger_survives_a_torn_line(tmp_path):
    f = tmp_path/'l.jsonl'
    f.write_bytes(b'{"a": 1}\n[2]\n{"b": \n\xff\n{"c": "' + 'x\u2028y'.encode() + b'"}\n\n{"torn": tr')
    before, log = f.read_bytes(), JsonLines(f)
    assert log.read() == [{'a': 1}, {'c': 'x\u2028y'}] and log.skipped == 4 and f.read_bytes() == before      # reading writes nothing
    log.append({'d': 4}, {'e': 'é\u2028'})
    assert f.read_bytes().startswith(before[:before.rindex(b'{"torn')]) and log.read() == [{'a': 1}, {'c': 'x\u2028y'}, {'d': 4}, {'e': 'é\u2028'}]
    assert b'torn' not in f.read_bytes()

def test_a_torn_end_longer_than_a_block(tmp_path):
    f = tmp_path/'l.jsonl'
    f.write_bytes(b'{"a": 1}\n' + b'{"x": "' + b'y'*200_000)
    JsonLines(f).append({'b': 2})
    assert f.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    f.write_bytes(b'nothing but a torn line')
    JsonLines(f).append({'b': 2})
    assert f.read_bytes() == b'{"b": 2}\n'

def test_an_absent_ledger_is_empty_and_is_made(tmp_path):
    log = JsonLines(tmp_path/'deep'/'l.jsonl')
    assert log.read() == [] and not (tmp_path/'deep').exists()
    log.append({'a': 1}); log.append({'a': 2})
    assert log.read() == [{'a': 1}, {'a': 2}]

# ---------------------------------------------------------------- whose file is it?

def test_a_new_folder_is_ours_and_one_of_yours_is_not(tmp_path):
    own_folder(tmp_path/'new'); own_folder(tmp_path/'new')
    assert (tmp_path/'new'/RECORD).is_file() and owned_files(tmp_path/'new') == set()
    (tmp_path/'yours').mkdir(); (tmp_path/'yours'/'thesis.txt').write_text('mine')
    assert 'thesis.txt' in says('was not made by namedmask', own_folder, tmp_path/'yours')
    assert tree(tmp_path/'yours') == {'thesis.txt': b'mine'}
    (tmp_path/'clutter').mkdir(); (tmp_path/'clutter'/'.DS_Store').write_text('x')
    own_folder(tmp_path/'clutter')                                          # a file manager's file is nobody's work
    (tmp_path/'file').write_text('x')
    says('a part of that path is a file', own_folder, tmp_path/'file'/'sub')
    says('file of that name is in the way', own_folder, tmp_path/'file')

def test_only_recorded_files_are_replaced_and_deleted(tmp_path):
    (tmp_path/'labels.txt').write_text('mine')
    own = own_folder(tmp_path, shared=True)
    says('is in the way', write_text, tmp_path/'labels.txt', 'ours')
    says('is in the way', claim, tmp_path/'labels.txt')
    says('is in the way', JsonLines(tmp_path/'labels.txt').append, {'a': 1})
    for text in ('first', 'second'): write_text(tmp_path/'deep'/'ours.txt', text)
    assert (tmp_path/'deep'/'ours.txt').read_text() == 'second' and owned_files(tmp_path) == {'deep/ours.txt'}
    assert not remove_own(tmp_path/'labels.txt') and (tmp_path/'labels.txt').read_text() == 'mine'
    (tmp_path/'deep'/'yours.txt').write_text('mine')
    empty_own(own)
    assert visible(tmp_path) == {'labels.txt', 'deep/yours.txt'} and owned_files(tmp_path) == set()

def test_a_name_whose_file_is_gone_is_not_ours_any_more(tmp_path):
    own_folder(tmp_path/'f'); write_text(tmp_path/'f'/'a.txt', 'ours')
    (tmp_path/'f'/'a.txt').unlink()
    claims.OPEN_FOLDERS.clear()                                                      # another process
    own = own_folder(tmp_path/'f')
    (tmp_path/'f'/'a.txt').write_text('yours')
    assert own.files == set() and not remove_own(tmp_path/'f'/'a.txt') and (tmp_path/'f'/'a.txt').read_text() == 'yours'

def test_empty_own_keeps_what_it_is_told_to(tmp_path):
    own = own_folder(tmp_path/'f')
    for name in ('edits.csv', 'looks/index.db', 'masks/ab/1.png'): write_text(tmp_path/'f'/name, name)
    empty_own(own, keep=('edits.csv', 'looks'))
    assert visible(tmp_path/'f') == {'edits.csv', 'looks/index.db'} and not (tmp_path/'f'/'masks').exists()

def test_a_record_cannot_lead_out(tmp_path):
    (tmp_path/'precious.txt').write_text('mine')
    own_folder(tmp_path/'f'); claims.OPEN_FOLDERS.clear()
    JsonLines(tmp_path/'f'/RECORD).append(*(dict(file=n) for n in ('../precious.txt', str(tmp_path/'precious.txt'), 'a/../../precious.txt', '', 'x\0y')), {'file': 3}, {'file': ['x']})
    own = own_folder(tmp_path/'f')
    assert own.files == set() and owned_files(tmp_path/'f') == set()
    empty_own(own)
    assert (tmp_path/'precious.txt').read_text() == 'mine'

def test_links_that_lead_out_are_not_followed(tmp_path):
    (tmp_path/'yours').mkdir(); (tmp_path/'yours'/'1.png').write_text('mine')
    own = own_folder(tmp_path/'f'); write_text(tmp_path/'f'/'masks'/'1.png', 'ours')
    (tmp_path/'f'/'masks'/'1.png').unlink(); (tmp_path/'f'/'masks').rmdir(); (tmp_path/'f'/'masks').symlink_to(tmp_path/'yours')
    says('leads out of', write_text, tmp_path/'f'/'masks'/'2.png', 'ours')
    empty_own(own)
    assert tree(tmp_path/'yours') == {'1.png': b'mine'}
    (tmp_path/'door').symlink_to(tmp_path/'g'); (tmp_path/'g').mkdir()
    own_folder(tmp_path/'door'); write_text(tmp_path/'door'/'a.txt', 'ours')     # a link to the folder itself is fine
    assert owned_files(tmp_path/'g') == {'a.txt'}

def test_a_link_of_ours_is_removed_and_not_what_it_points_to(tmp_path):
    own = own_folder(tmp_path/'f'); write_text(tmp_path/'f'/'a.txt', 'ours')
    (tmp_path/'yours.txt').write_text('mine')
    (tmp_path/'f'/'a.txt').unlink(); (tmp_path/'f'/'a.txt').symlink_to(tmp_path/'yours.txt')
    empty_own(own)
    assert (tmp_path/'yours.txt').read_text() == 'mine'

def test_the_innermost_folder_keeps_the_record(tmp_path):
    own_folder(tmp_path/'run'); own_folder(tmp_path/'run'/'masks')
    write_text(tmp_path/'run'/'run.json', '{}'); write_text(tmp_path/'run'/'masks'/'ab'/'1.png', 'x')
    assert owned_files(tmp_path/'run') == {'run.json'} and owned_files(tmp_path/'run'/'masks') == {'ab/1.png'}

def test_a_folder_removed_meanwhile_is_told(tmp_path):
    import shutil
    own_folder(tmp_path/'f'); write_text(tmp_path/'f'/'a.txt', 'x')
    shutil.rmtree(tmp_path/'f')
    says('was removed while it was being worked in', write_text, tmp_path/'f'/'b.txt', 'x')
    assert not (tmp_path/'f').exists()

def test_a_record_that_is_no_file(tmp_path):
    (tmp_path/'f'/RECORD).mkdir(parents=True)
    says('is not a file', own_folder, tmp_path/'f')

# ---------------------------------------------------------------- whole or absent

def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    write_text(tmp_path/'a.txt', 'old')
    with pytest.raises(ZeroDivisionError):
        with atomic_path(tmp_path/'a.txt') as tmp: tmp.write_text('half'); 1/0
    assert tree(tmp_path) == {'a.txt': b'old'}

@pytest.mark.parametrize('number, words', [(errno.ENOSPC, 'the disk is full'), (errno.EDQUOT, 'quota'), (errno.EACCES, 'permission denied'), (errno.EROFS, 'read-only'),
                                           (errno.ENAMETOOLONG, 'too long'), (errno.EIO, 'Input/output error')])
def test_trouble_of_the_disk_in_a_sentence(number, words, tmp_path):
    def write():
        with explain_write(tmp_path/'x'): raise OSError(number, os.strerror(number))
    says(words, write)

def test_texts_that_utf8_cannot_hold_are_written(tmp_path):
    write_text(tmp_path/'a.txt', 'a\udcffb')
    assert (tmp_path/'a.txt').read_text() == 'a\\udcffb'

def _die_in_the_middle(folder):
    claims.OPEN_FOLDERS.clear()                                                      # as a process of its own
    with locked(folder, shared=True):
        with atomic_path(Path(folder)/'deep'/'big.bin') as tmp:
            tmp.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)

def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    (tmp_path/'f'/'deep').mkdir(parents=True)
    yours = [tmp_path/'f'/'.report.1234.tmp', tmp_path/'f'/'deep'/'.big.0a1b2c3d.tmp.bin']
    for p in yours: p.write_text('mine')
    own_folder(tmp_path/'f', shared=True); write_text(tmp_path/'f'/'deep'/'small.txt', 'ours')
    p = multiprocessing.get_context('fork').Process(target=_die_in_the_middle, args=(tmp_path/'f',))
    p.start(); p.join()
    assert p.exitcode == -signal.SIGKILL and len(list((tmp_path/'f').rglob('.*.tmp*'))) == 3
    with locked(tmp_path/'f', shared=True): pass
    assert sorted((tmp_path/'f').rglob('.*.tmp*')) == sorted(yours)          # what looks like ours and is not stays

def test_the_first_file_of_a_folder_is_swept_too(tmp_path):
    (tmp_path/'f'/'deep').mkdir(parents=True)
    own_folder(tmp_path/'f', shared=True)
    p = multiprocessing.get_context('fork').Process(target=_die_in_the_middle, args=(tmp_path/'f',))
    p.start(); p.join()
    with locked(tmp_path/'f', shared=True): pass
    assert list((tmp_path/'f').rglob('.*.tmp*')) == []

# ---------------------------------------------------------------- one at a time

def in_thread(f):
    "What `f` raises in another thread, or None."
    out = []
    def work():
        try: f(); out.append(None)
        except Exception as e: out.append(e)
    t = threading.Thread(target=work); t.start(); t.join()
    return out[0]

def take(folder):
    with locked(folder): pass

def test_a_lock_keeps_others_out_and_lets_its_own_thread_in(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'PATIENCE', .05)
    with locked(tmp_path/'f'):
        with locked(tmp_path/'f') as own: assert own.home == os.path.realpath(tmp_path/'f')
        assert 'Another process is working in' in str(in_thread(lambda: take(tmp_path/'f')))
        (tmp_path/'link').symlink_to(tmp_path/'f')
        assert 'Another process is working in' in str(in_thread(lambda: take(tmp_path/'link')))
    assert in_thread(lambda: take(tmp_path/'f')) is None
    with pytest.raises(ZeroDivisionError):
        with locked(tmp_path/'f'): 1/0
    assert in_thread(lambda: take(tmp_path/'f')) is None

def _hold(folder, ready):
    with locked(folder): ready.set(); signal.pause()

def test_a_killed_process_leaves_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'PATIENCE', .05)
    ctx = multiprocessing.get_context('fork'); ready = ctx.Event()
    p = ctx.Process(target=_hold, args=(tmp_path/'f', ready)); p.start(); ready.wait(30)
    says('Another process', take, tmp_path/'f')
    p.kill(); p.join()
    take(tmp_path/'f')

@pytest.mark.parametrize('number', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_another_process(number, tmp_path, monkeypatch, capsys):
    def none(*a): raise OSError(number, os.strerror(number))
    monkeypatch.setattr('fcntl.flock', none)
    done = []
    with locked(tmp_path/'f'): done.append(1); write_text(tmp_path/'f'/'a.txt', 'x')
    err = capsys.readouterr().err
    assert done and 'has no locks' in err and 'Another process' not in err and str(tmp_path/'f') in err

def test_a_lock_that_is_held_is_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, 'PATIENCE', .05)
    def held(*a): raise OSError(errno.EWOULDBLOCK, 'busy')
    monkeypatch.setattr('fcntl.flock', held)
    says('Another process', take, tmp_path/'f')

def test_a_lock_file_of_yours_is_not_used(tmp_path):
    own_folder(tmp_path/'f'); (tmp_path/'f'/LOCK).write_text('mine')
    says('is in the way', take, tmp_path/'f')
    (tmp_path/'f'/LOCK).unlink(); (tmp_path/'yours').write_text(''); (tmp_path/'f'/LOCK).symlink_to(tmp_path/'yours')
    says('is in the way', take, tmp_path/'f')

# ---------------------------------------------------------------- paths and names

def test_safe_join(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert safe_join('.', 'a/b.jpg') == Path('a/b.jpg') and safe_join('', 'a') == Path('a') and safe_join('./', './a') == Path('a')
    assert safe_join('/data', 'a/../b') == Path('/data/b') and safe_join('x', '.') == Path('x') and safe_join('/', 'a') == Path('/a')
    assert safe_join('..', 'a') == Path('../a') and safe_join('photos', 'a..b/c') == Path('photos/a..b/c')
    for root, rel in (('.', '../a'), ('.', '/etc/passwd'), ('/data', '../data2/a'), ('/data', 'a/../../b'), ('x', 'a\0b'), ('data', '../data-2/x'), ('..', '../a')):
        says('leaves its folder', safe_join, root, rel)

def test_slugs_differ_where_names_do():
    assert slug('cat') == 'cat' and slug('a-1') == 'a-1'
    names = ['Cat', 'CAT', 'c a t', 'tv/monitor', 'tv monitor', '猫', '犬', '../x', 'A'*300, 'A'*301, '.']
    made = [slug(n) for n in names]
    assert len(set(made)) == len(names) and all(len(m) < 60 and m and '/' not in m and not m.startswith('.') for m in made)

def test_slugs_of_long_names_are_file_names():
    made = [slug('a'*300), slug('a'*301), slug('')]
    assert len(set(made)) == 3 and all(0 < len(m) < 200 for m in made)

# ---------------------------------------------------------------- keys and random numbers

def test_keys_and_random_numbers_depend_on_what_they_are_given():
    assert settings_key({'a': 1, 'b': [1, 2]}) == settings_key({'b': (1, 2), 'a': 1}) != settings_key({'a': 1, 'b': [2, 1]}) and len(settings_key({})) == 16
    assert (rng_of(3, 'x', 5).random(3) == rng_of(3, 'x', 5).random(3)).all() and rng_of(3, 'x').random() != rng_of(3, 'y').random() != rng_of(4, 'y').random()
    assert seed_of(3, 'x') == seed_of(3, 'x') != seed_of(4, 'x') and 0 <= seed_of(3, 'x') < 2**63

# ---------------------------------------------------------------- stages

def make(folder, settings, **kw):
    "A stage that writes two files; how often it has worked."
    stage = Stage(folder, settings, **kw)
    if stage.done: return stage, False
    stage.open()
    with stage.working():
        write_text(stage.folder/'result.txt', json.dumps(settings)); write_text(stage.folder/'ab'/'mask.png', 'x')
    return stage.finish(masks=1), True

def test_a_stage_is_done_once_for_each_settings(tmp_path):
    assert [make(tmp_path/'s', s)[1] for s in ({'n': 1}, {'n': 1}, {'n': 2}, {'n': 2}, {'n': 1})] == [True, False, True, False, True]
    assert Stage(tmp_path/'s', {'n': 1}).record['masks'] == 1 and Stage(tmp_path/'s', {'n': 2}).record == {}

def test_a_changed_stage_deletes_what_it_made_and_nothing_else(tmp_path):
    make(tmp_path/'s', {'n': 1})
    (tmp_path/'s'/'ab'/'mine.png').write_text('mine'); (tmp_path/'s'/'notes.txt').write_text('mine')
    Stage(tmp_path/'s', {'n': 2}).open()
    assert visible(tmp_path/'s') == {'ab/mine.png', 'notes.txt', 'stage.json'}

def test_a_stage_does_not_open_in_a_folder_of_yours(tmp_path):
    (tmp_path/'s').mkdir(); (tmp_path/'s'/'a.jpg').write_text('mine')
    says('was not made by namedmask', Stage(tmp_path/'s', {}).open)
    assert tree(tmp_path/'s') == {'a.jpg': b'mine'}

def test_settings_as_earlier_versions_wrote_them(tmp_path):
    old = make(tmp_path/'s', {'n': 1})[0].key
    again = Stage(tmp_path/'s', {'n': 1, 'new': None}, before=[{'n': 1}])
    assert again.done and again.key == old and again.settings == {'n': 1}                  # what they made counts, under its own key
    fresh = Stage(tmp_path/'t', {'n': 1, 'new': None}, before=[{'n': 1}])
    assert not fresh.done and fresh.key == settings_key({'n': 1, 'new': None})             # new work gets the new key
    assert not Stage(tmp_path/'s', {'n': 1, 'new': 2}).done

def test_seconds_add_up_over_interruptions(tmp_path, monkeypatch):
    clock = [100.]
    monkeypatch.setattr('time.time', lambda: clock[0])
    stage = Stage(tmp_path/'s', {}).open()
    for fails in (True, False):
        try:
            with stage.working():
                clock[0] += 2
                if fails: raise KeyboardInterrupt
        except KeyboardInterrupt: pass
    assert stage.record['seconds'] == 4 and not stage.done

@pytest.mark.parametrize('text', ['[]', '{"key": 3}', '{"key": []}', '"x"', 'null', '{', '[' * 100_000])
def test_a_damaged_stage_record(text, tmp_path):
    make(tmp_path/'s', {'n': 1}); (tmp_path/'s'/'stage.json').write_text(text)
    try: assert not Stage(tmp_path/'s', {'n': 1}).done
    except NamedMaskError as e: assert 'stage.json' in str(e)

# ---------------------------------------------------------------- folders of release 0.1

def test_folders_of_01_are_adopted_by_what_they_hold(tmp_path):
    def old(name, files):
        for f, text in files.items():
            (tmp_path/name/f).parent.mkdir(parents=True, exist_ok=True); (tmp_path/name/f).write_text(text)
        return tmp_path/name
    stage, sha = json.dumps(dict(key='a', settings={})), 'ab' + 'c'*30
    assert owned_files(old('stage', {'stage.json': stage, f'ab/{sha}.png': 'x', 'ab/holiday photo.png': 'mine', 'mine.txt': 'x', '.a.123.tmp': 'half'})) == {'stage.json', f'ab/{sha}.png', '.a.123.tmp'}
    assert owned_files(old('run', {'run.json': json.dumps(dict(settings={}, teachers=[])), 'report.html': 'x', 'thesis.pdf': 'mine'})) == {'run.json', 'report.html'}
    line = json.dumps(dict(source='a', sha='b', labels='labels/a.png', overlay='../../precious.jpg'))
    assert owned_files(old('pred', {'predictions.jsonl': line, 'labels/a.png': 'x', 'labels/mine.png': 'x'})) == {'predictions.jsonl', 'labels/a.png'}
    assert owned_files(old('yours', {'stage.json': '{"key": 3}', 'run.json': '[]', 'a.jpg': 'x'})) == set()
    own_folder(tmp_path/'stage')
    with locked(tmp_path/'stage'): pass
    assert not (tmp_path/'stage'/'.a.123.tmp').exists() and (tmp_path/'stage'/'mine.txt').exists()

def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path)); assert cache_dir() == tmp_path
    monkeypatch.setenv('NAMEDMASK_CACHE', ''); assert cache_dir() == Path.home()/'.cache'/'namedmask'

def test_a_stage_does_not_take_the_place_of_another_kind(tmp_path):
    Stage(tmp_path/'f', dict(stage='retrieval', n=1)).open().finish()
    says('another stage', Stage(tmp_path/'f', dict(retriever='x')).open)
    assert Stage(tmp_path/'f', dict(stage='retrieval', n=1)).done
    Stage(tmp_path/'f', dict(stage='retrieval', n=2)).open()

def test_a_folder_that_is_shared_with_you_is_not_all_ours(tmp_path):
    own_folder(tmp_path/'f', shared=True)
    write_text(tmp_path/'f'/'labels'/'a.txt', 'ours')
    own_folder(tmp_path/'f')                                                 # nothing of yours is in it
    (tmp_path/'f'/'photo.jpg').write_text('mine')
    with pytest.raises(NamedMaskError, match="photo.jpg"): own_folder(tmp_path/'f')
    own_folder(tmp_path/'f', shared=True)
