"The module paths of version 0.1 lead to the new ones for one more release. Written by hand: it goes away with them."
import sys, warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

MOVED = {
    'images': ('data.toy', 'data.find', 'data.decode', 'data.photos', 'data.masks', 'data.draw'),
    'saliency': ('data.photos', 'stages.spectral', 'stages.eigen', 'stages.evidence', 'stages.outline', 'stages.detectors',
        'stages.saliency'),
    'exchange': ('data.rle', 'app.exchange'),
    'teachers': ('teachers.cards', 'teachers.wheels', 'teachers.weights', 'teachers.engine', 'teachers.words', 'teachers.lite',
        'teachers.conse', 'teachers.clip', 'teachers.timm', 'teachers.sets'),
    'inference': ('models.infer',),
    'segmenter': ('models.deeplab', 'data.samples', 'data.augment', 'models.batches', 'models.train', 'models.resume',
        'models.segmenter', 'models.infer'),
    'index': ('stages.index',),
    'retrieval': ('stages.names', 'stages.retrieval', 'stages.copies', 'stages.archive', 'stages.diversity', 'stages.build',
        'stages.sheet', 'app.archive_explorer'),
    'refinement': ('stages.refinement',),
    'nothing': ('stages.nothing',),
    'selfmask': ('stages.selfmask', 'stages.selfmask_training', 'stages.predictor'),
    'experts': ('stages.experts', 'stages.expert_stage', 'stages.refine'),
    'copypaste': ('stages.copypaste',),
    'distillation': ('stages.distil', 'stages.student', 'models.batches'),
    'unlabelled': ('stages.unlabelled',),
    'recipes': ('evaluate.recipes',),
    'metrics': ('evaluate.metrics', 'evaluate.counting'),
    'evaluation': ('evaluate.voc', 'evaluate.score', 'evaluate.naive', 'evaluate.quality', 'evaluate.ceiling', 'evaluate.metrics'),
    'benchmarks': ('evaluate.benchmarks.base', 'evaluate.benchmarks.voc', 'evaluate.benchmarks.coco', 'evaluate.benchmarks.coca',
        'evaluate.benchmarks.cityscapes', 'evaluate.benchmarks.imagenet_s', 'evaluate.benchmarks.parts',
        'evaluate.benchmarks.saliency', 'evaluate.benchmarks.folder', 'evaluate.benchmarks.registry', 'evaluate.voc'),
    'protocol': ('evaluate.protocol',),
    'false_names': ('evaluate.false_names',),
    'estimate': ('evaluate.estimate',),
    'world': ('mini.world', 'mini.folder', 'mini.painting', 'mini.shapes'),
    'mini': ('mini.weights', 'mini.clip', 'mini.dino', 'mini.batches', 'mini.training', 'mini.bootstrapped'),
    'report': ('runs.report',),
    'pipeline': ('runs.record', 'runs.run', 'runs.checks', 'runs.detectors', 'runs.settings', 'runs.finished', 'runs.pipeline',
        'runs.scores'),
    'ablation': ('lab.lab',),
    'systems': ('lab.photos', 'systems.registry'),
    'maskclip': ('systems.towers', 'systems.dense_clip', 'systems.scores', 'systems.smoothing', 'systems.maskclip'),
    'reco': ('systems.reco',),
    'clustering': ('systems.clustering',),
    'maskcontrast': ('systems.maskcontrast',),
    'maskdistill': ('systems.attention', 'systems.rcnn', 'systems.maskdistill'),
    'table': ('systems.table', 'systems.ranking'),
    'prediction': ('app.predict', 'app.formats', 'app.prediction_explorer'),
    'convert': ('app.convert',),
}

RENAMED = {   # what has another name today: module -> {old name: name}
    'stages.diversity': {'Looks': 'ImageEmbedder'}, 'models.batches': {'Pictures': 'PhotoCache'},
    'data.samples': {'place': 'crop_window', 'cut': 'random_resized_crop'}, 'models.infer': {'give_back': 'free_memory'},
    'data.augment': {'recolour': 'with_colour_matrix'}, 'stages.outline': {'nearest': 'resized_nearest'},
    'runs.report': {'said': 'labels_text', 'spread': 'spread_out', 'write_page': 'write_report_page'},
    'systems.scores': {'agreement': 'masks_agreement'}, 'systems.clustering': {'nearest': 'enlarged_labels'},
    'systems.dense_clip': {'clip_of': 'dense_clip_of', 'fit_size': 'size_of_stride'},
    'systems.registry': {'kmeans': 'kmeans_row', 'ceiling': 'ceiling_row', 'Row': 'LabRow'},
    'evaluate.protocol': {'Entry': 'ResultEntry'}}

def lookup(old, name):
    "What `name` of the module that was called `old` is today, and where: in the module that exports it, else in the first that has it."
    modules = [import_module(f'namedmask.{new}') for new in MOVED[old]]
    for module in (*(m for m in modules if name in getattr(m, '__all__', ())), *modules):
        if hasattr(module, name): return getattr(module, name), module.__name__
    for home in (*MOVED[old], 'models.infer'):
        today = RENAMED.get(home, {}).get(name)
        if today: return getattr(import_module(f'namedmask.{home}'), today), f'namedmask.{home}.{today}'
    raise AttributeError(f"module 'namedmask.{old}' has no attribute {name!r}")

def is_submodule(package, name):
    "`from namedmask.systems import maskclip` is the module of this name, not the function that was there."
    return hasattr(sys.modules.get(f'namedmask.{package}'), '__path__') and find_spec(f'namedmask.{package}.{name}') is not None

def moved(old, name, stacklevel=3):
    "`lookup` with a warning."
    if name == '__all__': return sorted({n for new in MOVED[old] for n in getattr(import_module(f'namedmask.{new}'), '__all__', ())})
    if name.startswith('__') or is_submodule(old, name): raise AttributeError(name)
    thing, where = lookup(old, name)
    warnings.warn(f'namedmask.{old}.{name} has moved to {where}; the old path goes away with the next release', DeprecationWarning, stacklevel)
    return thing

class OldModule(ModuleType):
    def __getattr__(self, name): return moved(self.__name__.rpartition('.')[2], name)

class _Loader(Loader):
    def create_module(self, spec): return OldModule(spec.name)
    def exec_module(self, module): pass

class _Finder(MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.rpartition('.')
        if package == 'namedmask' and name in MOVED: return ModuleSpec(fullname, _Loader())

def install():
    "After all other finders, so that a module that is there comes first."
    if not any(isinstance(f, _Finder) for f in sys.meta_path): sys.meta_path.append(_Finder())
