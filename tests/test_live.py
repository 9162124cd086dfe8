"Trainings that draw themselves: records of the right length, nothing disturbed, mixed precision, continued trainings, a user's own `fit(cbs=)`."
import sys
from functools import partial
import numpy as np, pytest, torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from PIL import Image
from torch.amp import GradScaler, autocast
import helpers
from helpers import disc_photo, toy_fit, write_photos
from namedmask.core import Ctx, NamedMaskError
from namedmask.models.live import GradientView, LiveCurves, LiveView, WatchPredictions, gradient_norms, undisturbed
from namedmask.stages.student import distil
from test_distillation import toy
from test_distillation import TINY as WITH_AVERAGE

TINY = dict(WITH_AVERAGE, ema=0.)          # without the average of the weights: the last weights are the student's
STEPS = TINY['iterations']

@pytest.fixture(scope='module')
def data(tmp_path_factory): return toy(tmp_path_factory.mktemp('toy'))

def photos(n=2): return [disc_photo('red', i)[0] for i in range(n)]

def student(data, folder, *cbs, **more):
    torch.set_num_threads(1)
    return distil(*data, TINY, None, folder, seed=3, quiet=True, callbacks=cbs, **more)

def weights(segmenter): return segmenter.model.state_dict()
def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

@pytest.fixture(scope='module')
def watched(data, tmp_path_factory):
    "A student under all three callbacks, and what the scorer met."
    met, folder = [], tmp_path_factory.mktemp('watched')
    def scorer(model):
        met.append((model.training, torch.is_grad_enabled()))
        return np.random.rand() + torch.rand(1).item()        # whoever looks may draw numbers
    curves = LiveCurves(scorer, every=5, rates=True, file=folder/'pictures'/'curves.png')
    watch = WatchPredictions(photos(), every=5, side=32, file=folder/'strip.png')
    gradients = GradientView()
    trained = student(data, folder/'student', curves, watch, gradients)
    return trained, curves, watch, gradients, met, folder

# ---- records ---------------------------------------------------------------------------------------------------

def test_the_records_have_the_right_steps(watched):
    trained, curves, watch, gradients, met, folder = watched
    steps = list(range(1, STEPS + 1))
    assert list(curves.losses) == list(curves.rates) == list(gradients.norms) == steps
    assert list(curves.scores) == [5, 10, STEPS] and list(watch.frames) == [0, 5, 10, STEPS]
    log = (folder/'student'/'losses.csv').read_text().split()[1:]
    assert [f'{i},{loss:.5f}' for i, loss in enumerate(curves.losses.values())] == log
    assert all(set(norms) == {'encoder', 'decoder'} and min(norms.values()) > 0 for norms in gradients.norms.values())
    assert [labels.shape for labels in watch.frames[5]] == [(72, 96)]*2 and set(met) == {(False, False)}

def test_a_score_that_is_no_number_and_truth_as_an_array():
    curves = LiveCurves(lambda model: float('nan'))
    curves.losses, curves.scores = {1: 1., 2: .5}, {1: float('nan'), 2: .4}
    assert curves.figure().axes[1].get_ylim() == pytest.approx((0, .46))
    curves.scores = {1: float('nan')}
    assert curves.figure().axes[1].get_ylim()[0] == 0
    truth = np.zeros((2, 72, 96), int); truth[:, 20:40] = 1
    watch = WatchPredictions(photos(), truth=truth, names=['background', 'red'])
    watch.frames = {0: list(truth)}
    assert len(watch.strip().axes) == 6
    for wrong, words in ((truth[:1], '1 label pictures for 2'), (truth[:, :9], "photo's own size")):
        with pytest.raises(NamedMaskError, match=words): WatchPredictions(photos(), truth=wrong)
    yes_or_no = WatchPredictions(photos(), truth=truth > 0, names=['background', 'red'], predict=lambda model, photo: truth[0] > 0)
    yes_or_no.learn = type('L', (), dict(model=torch.nn.Identity()))()
    yes_or_no.look()
    assert len(yes_or_no.strip().axes) == 6 and {labels.dtype for labels in yes_or_no.frames[0] + yes_or_no.truth} == {np.dtype('uint8')}
    short = WatchPredictions(photos(), predict=lambda model, photo: truth[0][:9])
    short.learn = type('L', (), dict(model=torch.nn.Identity()))()
    with pytest.raises(NamedMaskError, match="photo's own size"): short.look()

def test_the_last_frame_is_what_the_student_says(watched):
    trained, _, watch, *_ = watched
    for labels, photo in zip(watch.frames[STEPS], watch.photos): assert (labels == trained.segment(photo)[0]).all()

def test_pictures_are_written_where_a_file_is_named(watched):
    *_, folder = watched
    for file in ('pictures/curves.png', 'strip.png'): assert min(Image.open(folder/file).size) > 150
    assert not [f for f in folder.rglob('*.tmp*')]

def test_a_strip_has_a_row_for_each_frame_and_a_key(watched):
    watch = watched[2]
    def rows(most): return [axis.get_ylabel() for axis in watch.strip(most).axes if axis.get_ylabel()]
    assert rows(6) == ['photo', 'step 0', 'step 5', 'step 10', 'step 12'] and rows(2) == ['photo', 'step 0', 'step 12'] and rows(1) == ['photo', 'step 12']
    found = {label for frame in watch.frames.values() for labels in frame for label in np.unique(labels)} - {0}
    told = [text.get_text() for legend in watch.strip().legends for text in legend.get_texts()]
    assert told == [('background', 'star', 'circle')[label] for label in sorted(found)]

# ---- nothing is disturbed --------------------------------------------------------------------------------------

def test_the_weights_are_the_same_to_the_bit(data, watched, tmp_path): assert same(weights(student(data, tmp_path)), weights(watched[0]))

def test_looking_leaves_modes_and_random_numbers_alone():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout())
    model[0].eval()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with undisturbed(model) as still:
        assert not any(m.training for m in still.modules()) and not torch.is_grad_enabled()
        torch.rand(3), np.random.rand(3)
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    assert [m.training for m in model.modules()] == [True, False, True] and torch.is_grad_enabled()

def test_a_scorer_that_fails_leaves_them_alone_too():
    model = torch.nn.Dropout()
    with pytest.raises(ZeroDivisionError), undisturbed(model): 1/0
    assert model.training

# ---- broken off and continued ----------------------------------------------------------------------------------

class BreakOff(Callback):
    order = 97
    def after_batch(self):
        if self.iter == 6: raise KeyboardInterrupt

def test_a_continued_training_goes_on_at_its_step(data, watched, tmp_path):
    first = [WatchPredictions(photos(1), every=5, side=32), GradientView()]
    with pytest.raises(KeyboardInterrupt): student(data, tmp_path, *first, BreakOff(), every_s=0)
    curves, watch, gradients = LiveCurves(lambda model: .5, every=5), WatchPredictions(photos(1), every=5, side=32), GradientView()
    again = student(data, tmp_path, curves, watch, gradients, *first, every_s=0)
    assert same(weights(again), weights(watched[0]))
    assert list(curves.losses) == list(range(1, STEPS + 1)) and list(curves.losses.values()) == list(watched[1].losses.values())
    assert list(watch.frames) == [7, 10, STEPS] and list(gradients.norms) == list(range(8, STEPS + 1)) and list(curves.scores) == [10, STEPS]
    assert list(first[0].frames) == [0, 5, 7, 10, STEPS] and list(first[1].norms) == list(range(1, STEPS + 1))      # the same ones as before

def test_another_training_begins_a_new_record(data, tmp_path):
    watch, curves = WatchPredictions(photos(1), every=20, side=32), LiveCurves()
    for name in ('a', 'b'): student(data, tmp_path/name, watch, curves)
    assert list(watch.frames) == [0, STEPS] and len(curves.losses) == STEPS

# ---- mixed precision -------------------------------------------------------------------------------------------

class HalfOnCPU(MixedPrecision):
    "fastai's mixed precision with the CPU's scaler, which needs no GPU; the steps in `overflows` are thrown away."
    overflows = ()
    def before_fit(self):
        self.autocast, self.learn.scaler, self.scales, self.n = autocast('cpu', dtype=torch.bfloat16), GradScaler('cpu', init_scale=1024.), [], 0
    def before_backward(self):
        super().before_backward()
        self.n += 1
        if self.n in self.overflows: self.learn.loss_grad = self.learn.loss_grad*float('inf')

def halved(data, folder, *cbs): return student(data, folder, HalfOnCPU(), *cbs)

def test_norms_are_those_of_the_unscaled_gradients(data, tmp_path):
    class After(Callback):
        "The norms when fastai has unscaled the gradients."
        order, seen = MixedPrecision.order + 1, []
        def before_step(self): self.seen.append(gradient_norms(self.learn.model))
    after, view = After(), GradientView()
    halved(data, tmp_path, view, after)
    assert len(after.seen) == STEPS
    for mine, theirs in zip(view.norms.values(), after.seen): assert mine == pytest.approx(theirs, rel=1e-4)

def test_mixed_precision_is_not_disturbed(data, tmp_path):
    cbs = LiveCurves(lambda model: .5, every=3), WatchPredictions(photos(1), every=4, side=32), GradientView()
    assert same(weights(halved(data, tmp_path/'a')), weights(halved(data, tmp_path/'b', *cbs)))

def test_a_step_that_is_thrown_away_is_noted(data, tmp_path, monkeypatch):
    monkeypatch.setattr(HalfOnCPU, 'overflows', (3,))
    view, curves = GradientView(file=tmp_path/'norms.png'), LiveCurves()
    halved(data, tmp_path/'student', view, curves)
    assert list(view.norms) == list(curves.losses) == list(range(1, STEPS + 1))
    assert not np.isfinite(view.norms[3]['decoder']) and np.isfinite(view.norms[4]['decoder']) and (tmp_path/'norms.png').exists()

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_on_a_gpu(data, tmp_path, precision):
    view, watch, curves = GradientView(), WatchPredictions(photos(1), every=5, side=32), LiveCurves(lambda model: .5, every=5)
    distil(*data, dict(TINY, precision=precision), None, tmp_path, quiet=True, callbacks=(view, watch, curves), device='cuda')
    assert len(view.norms) == len(curves.losses) == STEPS and list(watch.frames) == [0, 5, 10, STEPS]
    assert sum(np.isfinite(norms['decoder']) for norms in view.norms.values()) > STEPS//2

# ---- where it is shown -----------------------------------------------------------------------------------------

def figure():
    from matplotlib.figure import Figure
    return Figure((1, 1))

def test_a_notebook_has_one_picture_that_is_replaced(monkeypatch):
    import IPython, IPython.display as shown
    puts = []
    class Handle:
        def update(self, picture): puts.append(('update', picture))
    class Shell: kernel = 'a kernel'
    monkeypatch.setattr(IPython, 'get_ipython', Shell)
    monkeypatch.setattr(shown, 'display', lambda picture, display_id: puts.append(('display', picture)) or Handle())
    view = LiveView(every_s=0)
    for _ in range(3): view.show(figure, 'a square', now=True)
    assert [what for what, _ in puts] == ['display', 'update', 'update'] and puts[-1][1].data.startswith(b'\x89PNG') and puts[-1][1].alt == 'a square'
    view.begin()
    view.show(figure)
    assert puts[-1][0] == 'display'

def test_a_script_draws_nothing():
    def draw(): raise AssertionError('nobody looks')
    LiveView().show(draw, now=True)

def test_drawings_keep_their_distance(tmp_path):
    drawn = []
    view = LiveView(tmp_path/'a.png', every_s=1e6)
    for _ in range(3): view.show(lambda: drawn.append(1) or figure())
    view.show(lambda: drawn.append(1) or figure(), now=True)
    assert len(drawn) == 2

def test_mistakes_are_told(data, tmp_path):
    with pytest.raises(NamedMaskError, match=r"shape \(3, 3\) and their photo \(72, 96\)"): WatchPredictions(photos(1), truth=[np.zeros((3, 3))])
    with pytest.raises(NamedMaskError, match='no frame yet'): WatchPredictions(photos(1)).strip()
    with pytest.raises(NamedMaskError, match=r'shape \(2, 2\)'): student(data, tmp_path/'a', WatchPredictions(photos(1), predict=lambda model, photo: np.zeros((2, 2))))
    (tmp_path/'file').write_text('')
    with pytest.raises(NamedMaskError, match='file'): student(data, tmp_path/'b', LiveCurves(file=tmp_path/'file'/'curves.png'))

# ---- a user's own fit ------------------------------------------------------------------------------------------

def test_they_reach_the_experts_and_the_student_of_a_run(tmp_path):
    write_photos(tmp_path/'photos')
    asked, of = [], dict(experts=LiveCurves(), student=LiveCurves())
    def cbs(stage): return asked.append(stage) or [of[stage]]
    run = toy_fit(tmp_path/'photos', tmp_path/'run', names='red,green', parallel=1, cbs=cbs)
    plain = toy_fit(tmp_path/'photos', tmp_path/'plain', names='red,green', parallel=1)
    assert asked == ['experts', 'student'] and (len(of['experts'].losses), len(of['student'].losses)) == (helpers.EXPERT['n_iters'], helpers.STUDENT['iterations'])
    assert same(weights(run.segmenter), weights(plain.segmenter))
    assert run.record['settings'] == plain.record['settings'] and run.record['stages'] == plain.record['stages'] and 'cbs' not in (tmp_path/'run'/'run.json').read_text()
    of['student'].losses.clear()
    toy_fit(tmp_path/'photos', tmp_path/'run', names='red,green', parallel=1, cbs=[of['student']])
    assert not of['student'].losses                                 # all is kept, and nothing trained

def test_what_is_no_callback_is_told_before_anything_is_made(tmp_path):
    write_photos(tmp_path/'photos', 2)
    with pytest.raises(NamedMaskError, match="'LiveCurves' is no fastai callback"): toy_fit(tmp_path/'photos', tmp_path/'run', cbs='LiveCurves')
    assert not (tmp_path/'run').exists()

def test_they_are_no_setting_and_no_option():
    from namedmask.cli import fit as command
    from namedmask.runs.settings import FitOptions
    from inspect import signature
    assert 'cbs' not in FitOptions.known() and not {'cbs', 'callbacks'} & set(signature(command).parameters)
