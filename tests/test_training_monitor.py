"What the folder of a run tells of it while another process works there: in words, in figures, and without a trace."
import asyncio, json, os, time
import pytest
from helpers import widths_in_pixels
from namedmask.app import training_monitor as tm
from namedmask.app.training_monitor import RunState, TrainingState, TrainingMonitor, look_at_run, run_text, seconds_left, whole_losses
from namedmask.core import NamedMaskError, locked

NAMES = {'cat': ['cat'], 'dog': ['dog']}
ALL = ['index', 'archive', 'saliency', 'experts', 'student']

class Folder:
    "A made-up run: stages in order, each with a key that `run.json` knows if it is finished."
    def __init__(self, root, **settings):
        self.root = root
        root.mkdir(exist_ok=True)
        self.record = dict(settings=dict(names=NAMES, teachers='mini', n=5, seed=0, student={}, experts={'n_iters': 40}, **settings), warnings=[], stages={})
        self.write('run.json', self.record)
    def write(self, name, what):
        file = self.root/name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(what if isinstance(what, str) else json.dumps(what))
        return file
    def stage(self, name, done=True, seconds=2., settings=(), **more):
        self.write(f'{name}/stage.json', dict(key=name, settings=dict(settings), done=done, seconds=seconds if done else 0., **more))
        if done and '/' not in name: self.note(name, name)
        return self
    def note(self, stage, key):
        self.record['stages'][stage] = key
        self.write('run.json', self.record)
    def losses(self, name, n, end='\r\n'): return self.write(f'{name}/losses.csv', 'iteration,loss\r\n' + '\r\n'.join(f'{i},{1/(1 + i):.5f}' for i in range(n)) + end)
    def expert(self, name, n, done=False): self.stage(f'experts/{name}', done, settings=dict(group=name, n_iters=40)); n and self.losses(f'experts/{name}', n); return self
    def student(self, n, done=False): self.stage('student', done, settings=dict(student=dict(iterations=100))); n and self.losses('student', n); return self
    def before(self, stage):
        for name in ALL[:ALL.index(stage)]:
            if name != 'experts': self.stage(name, kept={'cat': 5, 'dog': 4})
            else:
                for group in NAMES: self.expert(group, 40, True)
                self.note('experts', ['experts/cat', 'experts/dog'])
        return self
    def finished(self):
        self.before('student').student(100, True)
        self.record['finished'] = '2026-01-02 03:04:05'
        self.write('run.json', self.record)
        return self

@pytest.fixture
def run(tmp_path): return Folder(tmp_path/'run')

def text_of(folder): return TrainingMonitor(folder).text()

def age(root, seconds):
    for path in [root, *root.rglob('*')]: os.utime(path, (time.time() - seconds,)*2)

# ---------------------------------------------------------------- folders in which there is no run, or hardly one

def test_no_folder_and_no_run_are_sentences(tmp_path):
    assert text_of(tmp_path/'none').startswith('There is no run in') and not (tmp_path/'none').exists()
    (tmp_path/'file').write_text('x')
    for place in (tmp_path, tmp_path/'file', tmp_path/'none'): assert 'no run.json' in text_of(place)

def test_a_run_that_has_only_been_started(tmp_path):
    with locked(tmp_path/'run'): assert text_of(tmp_path/'run').endswith('has only been started: it has written nothing yet.')

def test_nothing_has_begun(run):
    state = look_at_run(run.root)
    assert state.now == 'index' and not state.begun and list(state.seconds) == ALL
    assert text_of(run.root).startswith('No stage has begun yet. Last written')

@pytest.mark.parametrize('damage, told', [('{"settings": ', 'not valid JSON'), ('[]', 'holds a list where an object belongs'), ('{}', 'settings is missing'), ('{"settings": {"names": 3}}', 'settings.teachers is missing')])
def test_a_damaged_record_is_a_sentence(run, damage, told):
    run.write('run.json', damage)
    monitor = TrainingMonitor(run.root)
    assert told in monitor.text() and monitor.state.seconds == {} and monitor.still().get_suptitle()

# ---------------------------------------------------------------- stages

@pytest.mark.parametrize('stage', ALL)
def test_the_stage_at_work(run, stage):
    run.before(stage).stage(stage if stage != 'experts' else 'experts/cat', done=False, settings=dict(group='cat'))
    state = look_at_run(run.root)
    assert (state.now, state.begun, state.finished, state.trouble) == (stage, True, '', '')
    assert text_of(run.root).startswith(f'At work: {stage}, stage {ALL.index(stage) + 1} of 5.')
    assert [seconds is not None for seconds in state.seconds.values()] == [name in ALL[:ALL.index(stage)] for name in ALL]

def test_stages_are_those_that_were_asked_for(tmp_path):
    def stages(folder): return list(look_at_run(folder.root).seconds)
    bare = Folder(tmp_path/'bare'); bare.record['settings']['experts'] = None; bare.write('run.json', bare.record)
    assert stages(bare) == ['index', 'archive', 'saliency', 'student']
    assert stages(Folder(tmp_path/'all', nothing=20, unlabelled=['photos'])) == list(tm.STAGES)

def test_masks_are_counted(run):
    run.before('saliency').stage('saliency', done=False)
    for k in range(3): run.write(f'saliency/{k}a/{k}abc.png', 'x')
    run.write('saliency/0a/.0abc.tmp.png', 'half')
    assert '3 of 9 masks.' in text_of(run.root)

def test_what_other_settings_have_made_does_not_count(run):
    run.finished()
    del run.record['finished']
    run.record['stages'] = {'index': 'index', 'archive': 'another'}
    run.write('run.json', run.record)
    state = look_at_run(run.root)
    assert state.now == 'archive' and state.trainings == []
    run.record['stages'] = {name: name for name in ALL[:3]} | {'experts': ['experts/cat', 'experts/dog']}
    run.write('run.json', run.record)
    assert look_at_run(run.root).now == 'student' and [t.name for t in look_at_run(run.root).trainings] == ['expert cat', 'expert dog']

def test_the_report_is_what_remains(run):
    run.before('student').student(100, True)
    assert text_of(run.root).startswith('All stages are finished; what remains is the report. Last written')

def test_a_finished_run(run):
    run.finished()
    monitor = TrainingMonitor(run.root)
    assert monitor.text() == 'Finished at 2026-01-02 03:04:05: 5 stages in 12.0 s.' and monitor.left == {}
    assert [len(t.losses) for t in monitor.state.trainings] == [40, 40, 100] and all(t.done for t in monitor.state.trainings)

# ---------------------------------------------------------------- trainings

def test_experts_one_after_the_other(run):
    run.before('experts').expert('cat', 40, True).expert('dog', 10)
    run.expert('wolf', 40, True)                                        # of an earlier run with other names
    state = look_at_run(run.root)
    assert [(t.name, len(t.losses), t.total, t.done) for t in state.trainings] == [('expert cat', 40, 40, True), ('expert dog', 10, 40, False)]
    assert 'Expert dog: iteration 10 of 40, loss 0.293' in text_of(run.root) and 'cat' not in text_of(run.root)

def test_an_expert_begins_when_the_one_before_has_ended(run):
    run.before('experts').expert('dog', 10).expert('cat', 40, True)
    now = time.time()
    for name, ago in (('experts/dog/stage.json', 500), ('experts/cat/stage.json', 20), ('experts/dog/losses.csv', 0)): os.utime(run.root/name, (now - ago,)*2)
    assert TrainingMonitor(run.root).left['expert dog'] == pytest.approx(60, abs=2)      # 10 in 20 s, 30 to go
    run.expert('cat', 20); os.utime(run.root/'experts/cat/stage.json', (now - 500,)*2)    # side by side: each by its own beginning
    assert TrainingMonitor(run.root).left['expert dog'] == pytest.approx(1500, abs=5)

def test_what_an_expert_does_after_its_training(run):
    run.before('experts').expert('cat', 40).expert('dog', 0)
    assert 'Expert cat is trained and draws its masks. ' in text_of(run.root)
    run.expert('cat', 40, True)
    assert 'Expert dog has begun; its first checkpoint comes after 20 s or so.' in text_of(run.root)

def test_the_student(run):
    run.before('student').student(25)
    os.utime(run.root/'student/stage.json', (time.time() - 50,)*2)
    text = text_of(run.root)
    assert 'Student: iteration 25 of 100, loss 0.077, about 2 min' in text and 'Last written' in text

@pytest.mark.parametrize('end', ['\r\n25,0.4', '\r\n25,', '\r\n2', '\r\n\xff', '\r\n25,nan\r\n', '\r\nx\r\n,\r\n\0\r\n'])
def test_torn_and_damaged_lines_are_left_out(run, end):
    run.before('student').student(0)
    run.losses('student', 25, end)
    training, = [t for t in look_at_run(run.root).trainings if t.name == 'student']
    assert len(training.losses) == 25 and training.losses[-1] == .04

@pytest.mark.parametrize('data', [b'', b'iteration,loss', b'\xff\xfe\n1,2\n', b'loss\n', b'iteration,loss\r\n0,1.2'])
def test_files_without_a_whole_line(data): assert whole_losses(data) == []

def test_columns_are_found_by_their_name(): assert whole_losses(b'loss,iteration\n0.5,0\n') == [.5]

@pytest.mark.parametrize('settings', [{}, {'student': 3}, {'student': {'iterations': 'many'}}, {'student': {'iterations': True}}])
def test_a_stage_that_does_not_say_how_long(run, settings):
    run.before('student').stage('student', False, settings=settings); run.losses('student', 25)
    assert 'Student: iteration 25, loss 0.077. Last' in text_of(run.root)

@pytest.mark.parametrize('stage, damage', [('saliency', '{"key": "12'), ('student', '[1]'), ('experts/cat', ''), ('archive', '\0')])
def test_a_damaged_stage_is_a_sentence_and_the_rest_is_told(run, stage, damage):
    run.before('student').student(25)
    run.write(f'{stage}/stage.json', damage)
    monitor = TrainingMonitor(run.root)
    assert 'stage.json' in monitor.text() and 'JSON' in monitor.text() or 'holds a list' in monitor.text()
    assert monitor.state.now == stage.split('/')[0] and monitor.text().startswith('At work')
    monitor.widget, monitor.still()

def test_a_folder_where_a_file_belongs(run):
    run.before('student').student(0)
    (run.root/'student'/'losses.csv').mkdir()
    assert 'Student has begun' in text_of(run.root)

def test_a_run_that_was_killed(run):
    run.before('student').student(25)
    age(run.root, 3600)
    text = text_of(run.root)
    assert text.endswith('Nothing has been written for 1 h 00 min: look whether the run still goes on.') and 'to go' not in text

# ---------------------------------------------------------------- time to go

def training(n, written, since=0., total=100): return TrainingState('student', [.5]*n, total, False, since, written)

def test_the_first_guess_is_from_the_beginning():
    assert seconds_left(training(20, 40.), at=40) == 160 and seconds_left(training(20, 40.), at=50) == 150
    assert seconds_left(training(99, 40.), at=400) == 0                  # late, and not less than nothing

def test_two_checkpoints_tell_the_speed(): assert seconds_left(training(20, 1040.), [(1020., 10), (1040., 20)], at=1040) == 160

@pytest.mark.parametrize('t', [training(0, 40.), training(20, None), training(20, 40., None), training(20, 40., 50.), training(100, 40.), training(20, 40., total=None)])
def test_where_nothing_tells_there_is_no_time(t): assert seconds_left(t, at=40) is None

def test_a_training_that_ended_with_an_error_has_no_first_guess(run):
    run.before('student').student(25)
    run.write('student/stage.json', dict(key='student', settings=dict(student=dict(iterations=100)), done=False, seconds=70.))
    monitor = TrainingMonitor(run.root)
    assert monitor.left == {}
    run.losses('student', 50); os.utime(run.root/'student/losses.csv', (time.time() + 10,)*2)
    assert monitor.refresh().left['student'] == pytest.approx(20, abs=3)

def test_the_monitor_remembers_checkpoints(run):
    run.before('student').student(10)
    file, now = run.root/'student/losses.csv', time.time()
    os.utime(run.root/'student/stage.json', (now - 9000,)*2)              # it was killed, and goes on
    os.utime(file, (now - 20,)*2)
    monitor = TrainingMonitor(run.root)
    assert monitor.left['student'] > 50_000
    run.losses('student', 20); os.utime(file, (now,)*2)
    for _ in range(3): monitor.refresh()                                # looks that see nothing new are no checkpoints
    assert monitor.left['student'] == pytest.approx(160, abs=3) and len(monitor._marks['student']) == 2
    for n in range(21, 40): run.losses('student', n); os.utime(file, (now + n,)*2); monitor.refresh()
    assert len(monitor._marks['student']) == tm._MARKS
    run.losses('student', 5); os.utime(file, (now + 50,)*2); monitor.refresh()           # begun again
    assert monitor._marks['student'] == [(pytest.approx(now + 50, abs=.01), 5)]

# ---------------------------------------------------------------- no trace

def seen(root): return {str(p.relative_to(root)): (p.lstat().st_mtime_ns, p.lstat().st_size, p.read_bytes() if p.is_file() else None) for p in [root, *root.rglob('*')]}

@pytest.mark.parametrize('make', [lambda run: run, lambda run: run.before('saliency'), lambda run: run.before('experts').expert('cat', 10), lambda run: run.before('student').student(20),
                                  lambda run: run.finished(), lambda run: run.write('run.json', '{')])
def test_nothing_is_written(run, make):
    make(run)
    before = seen(run.root.parent)
    monitor = TrainingMonitor(run.root)
    monitor.widget, monitor.still(), monitor.refresh(), monitor._button.click(), monitor._repr_mimebundle_(), monitor.text()
    assert seen(run.root.parent) == before

def test_the_lock_of_the_run_is_left_alone(run):
    run.before('student').student(20)
    with locked(run.root, shared=True):
        before = seen(run.root)
        assert 'At work: student' in text_of(run.root) and seen(run.root) == before

# ---------------------------------------------------------------- looking by itself

def test_it_looks_by_itself_and_stops(run):
    run.before('student').student(10)
    async def main():
        monitor, beats = TrainingMonitor(run.root, every=.02), 0
        monitor.start(); monitor.start()                                # twice is once
        run.losses('student', 30)
        for _ in range(500):
            await asyncio.sleep(.01); beats += 1                        # the loop is free for others
            if len(monitor.state.trainings[-1].losses) == 30: break
        assert len(monitor.state.trainings[-1].losses) == 30 and monitor.is_watching and beats > 0
        monitor.stop()
        assert not monitor.is_watching and tm._WATCHED == {}
        run.losses('student', 40)
        await asyncio.sleep(.2)
        assert len(monitor.state.trainings[-1].losses) == 30
        monitor.start(); assert monitor.is_watching                      # and again
        monitor.stop(); monitor.stop()
    asyncio.run(main())

def test_it_ends_with_the_run(run):
    run.before('student').student(10)
    async def main():
        monitor = TrainingMonitor(run.root, every=.02)
        monitor.widget; monitor.start()
        assert monitor._box.value
        run.finished()
        for _ in range(500):
            await asyncio.sleep(.01)
            if not monitor.is_watching: break
        await asyncio.sleep(0)
        assert monitor.state.finished and not monitor.is_watching and not monitor._box.value and tm._WATCHED == {}
        monitor.start(); assert not monitor.is_watching                  # there is nothing to wait for
    asyncio.run(main())

def test_one_monitor_of_a_folder_looks(run):
    async def main():
        first, second = TrainingMonitor(run.root), TrainingMonitor(run.root.parent/'.'/'run')
        first._repr_mimebundle_(); second._repr_mimebundle_()
        assert second.is_watching and not first.is_watching
        second.stop()
    asyncio.run(main())

def test_the_checkbox_starts_and_stops(run):
    async def main():
        monitor = TrainingMonitor(run.root)
        monitor.widget
        monitor._box.value = True; assert monitor.is_watching
        monitor._box.value = False; assert not monitor.is_watching
    asyncio.run(main())

def test_without_a_notebook_there_is_a_sentence(run):
    monitor = TrainingMonitor(run.root)
    with pytest.raises(NamedMaskError, match='Only in a notebook'): monitor.start()
    monitor.widget
    monitor._box.value = True
    assert 'Only in a notebook' in monitor._words.value and not monitor._box.value
    with pytest.raises(NamedMaskError, match='only when asked'): TrainingMonitor(run.root, every=None).start()
    for every in (0, -1, float('nan')):
        with pytest.raises(NamedMaskError, match='is no time'): TrainingMonitor(run.root, every=every)

# ---------------------------------------------------------------- the widget and the still picture

def test_no_control_has_a_fixed_width(run): assert widths_in_pixels(TrainingMonitor(run.root, every=1.5).widget) == []

def test_the_button_looks(run):
    monitor = TrainingMonitor(run.root, every=None)
    monitor.widget
    assert 'No stage has begun yet' in monitor._words.value and 'role="status"' in monitor._words.value and monitor._picture.value == ''
    run.before('student').student(25)
    monitor._button.click()
    assert 'At work: student' in monitor._words.value and monitor._table.value.count('<tr>') == 5
    alt = monitor._picture.value.partition('alt="')[2].partition('"')[0]
    assert 'student from 1.00 to 0.04 after 25 iterations' in alt and 'expert cat' in alt

def test_a_picture_is_drawn_for_new_losses_only(run, monkeypatch):
    run.before('student').student(25)
    monitor = TrainingMonitor(run.root)
    monitor.widget
    monkeypatch.setattr(tm, '_draw_losses', None)                       # to draw would fail
    monitor.refresh()

def test_text_from_outside_is_escaped(tmp_path):
    monitor = TrainingMonitor(tmp_path/'<b>&')
    monitor.widget
    assert '<b>' not in monitor._words.value and '&lt;b&gt;&amp;' in monitor._words.value

def test_the_still_picture(tmp_path):
    folder = Folder(tmp_path/'$a$_run'); folder.record['settings']['names'] = {'$cat$': ['cat'], '猫': ['cat']}; folder.write('run.json', folder.record)
    folder.before('experts').expert('$cat$', 20, True).expert('猫', 10)
    figure = TrainingMonitor(folder.root).still()
    assert [axis.get_title() for axis in figure.axes] == ['', 'experts'] and figure.get_suptitle().startswith('At work: experts')
    figure.canvas.draw()
    folder.write('run.json', '{')
    figure = TrainingMonitor(folder.root).still(); figure.canvas.draw()  # a path with signs of formulas
    assert len(figure.axes) == 1

def test_a_still_stands_in_for_the_widget(run):
    shown = TrainingMonitor(run.root)._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in shown and shown['image/jpeg'].startswith('/9j/')

def test_words_of_a_state_made_by_hand(tmp_path):
    state = RunState(tmp_path, seconds=dict(index=1., archive=None, student=None), begun=True, written=100., at=130.)
    assert run_text(state) == 'At work: archive, stage 2 of 3. Last written 30.0 s ago.'
