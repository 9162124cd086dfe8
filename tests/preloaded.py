"What a run imports on its way: for a process that others are forked from, so that neither they nor their workers import it again, or look through it for garbage."
import gc
import forked
import cv2, safetensors.torch, segmentation_models_pytorch, sympy, timm, torch._dynamo, torchvision, tqdm.auto
import namedmask.app.predict, namedmask.evaluate.benchmarks.registry, namedmask.runs.pipeline, namedmask.runs.scores
import namedmask.stages.build, namedmask.stages.distil, namedmask.stages.index, namedmask.stages.nothing
import namedmask.stages.refine, namedmask.stages.saliency, namedmask.stages.unlabelled, namedmask.systems.table
from PIL import Image

Image.init()        # the readers of all formats
forked.begin_workers(forked.fork_exec)
gc.collect()
gc.freeze()
