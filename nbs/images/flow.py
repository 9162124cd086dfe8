"Draws the picture of the flow at the top of the README: one file for each box, so that each box can be a link."
from pathlib import Path
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from namedmask.data.draw import overlay
from namedmask.mini.world import make_scene

OUT, W, H, PIC = Path(__file__).parent, 332, 400, 232
INK, SOFT, LINE, WASH, MARK = '#1c2330', '#5d6778', '#c9d1dc', '#ffffff', '#0b6e99'
NAMES = ('snail', 'boat')

def font(size, bold=False):
    from matplotlib import font_manager as fm
    return ImageFont.truetype(fm.findfont(fm.FontProperties(family='DejaVu Sans', weight='bold' if bold else 'normal')), size)

def scene(i, names=None, split='single'):
    "A painted scene and its labels; of some names, each in its turn."
    chosen = names and (names if split == 'test' else (names[i % len(names)],))
    painted = make_scene(i, split, seed=9, size=160, names=chosen)
    return painted.image, painted.labels

def grid(images, cols, size, gap=6):
    "Pictures in rows."
    rows = -(-len(images)//cols)
    sheet = Image.new('RGB', (cols*size + (cols - 1)*gap, rows*size + (rows - 1)*gap), WASH)
    for k, im in enumerate(images): sheet.paste(im.convert('RGB').resize((size, size), Image.Resampling.LANCZOS), ((k % cols)*(size + gap), k//cols*(size + gap)))
    return sheet

def blank(): return Image.new('RGB', (PIC, PIC), WASH)

def photos():
    im = grid([scene(i)[0] for i in range(9)], 3, 73); return im

def teachers():
    im = blank(); d = ImageDraw.Draw(im)
    for k, (a, b) in enumerate((('photo', 'vector'), ('name', 'vector'), ('photo', 'features'))):
        y = 18 + 76*k
        for x, t in ((0, a), (136, b)):
            d.rounded_rectangle((x, y, x + 95, y + 48), 8, outline=MARK, width=3); d.text((x + 48, y + 24), t, INK, font(19), anchor='mm')
        d.line((97, y + 24, 130, y + 24), MARK, 4); d.polygon(((136, y + 24), (122, y + 16), (122, y + 32)), MARK)
    return im

def index():
    im = blank(); d = ImageDraw.Draw(im); rng = np.random.default_rng(3)
    for k in range(4):
        y = 2 + 59*k
        im.paste(scene(k)[0].resize((52, 52)), (0, y))
        for j in range(10):
            v = rng.uniform(.1, 1); c = tuple(round(245 + (m - 245)*v) for m in (11, 110, 153))
            d.rectangle((66 + 16*j, y + 10, 66 + 16*j + 13, y + 42), fill=c)
    return im

def archives():
    im = blank(); d = ImageDraw.Draw(im)
    for k, name in enumerate(NAMES):
        y = 116*k
        d.text((0, y + 2), name, INK, font(20, True))
        im.paste(grid([scene(i, names=(name,))[0] for i in range(40*k, 40*k + 3)], 3, 73), (0, y + 32))
    return im

def dimmed(im, labels):
    x = np.asarray(im, float); grey = x.mean(2, keepdims=True)*.2 + 16
    return Image.fromarray(np.where(labels[..., None] > 0, x, grey).astype(np.uint8))

def rough(labels, k):
    "A mask as saliency leaves it: blocky, with a piece missing and a piece too much."
    rng = np.random.default_rng(k)
    small = np.asarray(Image.fromarray(np.uint8(labels > 0)*255).resize((12, 12), Image.Resampling.BOX), float)
    return np.asarray(Image.fromarray(np.uint8(np.clip(small + rng.normal(0, 75, small.shape), 0, 255))).resize((160, 160), Image.Resampling.BICUBIC)) > 120

def saliency():
    s = [scene(i, names=NAMES) for i in (0, 1)]
    return grid([o for im, l in s for o in (im, dimmed(im, rough(l, 1)))], 2, 113)

def experts():
    s = [scene(i, names=NAMES) for i in (0, 1)]
    return grid([o for im, l in s for o in (dimmed(im, rough(l, 1)), dimmed(im, l))], 2, 113)

def pasted(i, j):
    (a, la), (b, lb) = scene(i, names=(NAMES[0],)), scene(j, names=(NAMES[1],))
    small, ls = b.resize((100, 100)), np.asarray(Image.fromarray(lb).resize((100, 100), Image.Resampling.NEAREST))
    x, y = np.array(a), np.array(la)
    x[55:155, 55:155][ls > 0] = np.asarray(small)[ls > 0]; y[55:155, 55:155][ls > 0] = ls[ls > 0]
    return Image.fromarray(x), y

def copypaste():
    im, labels = pasted(0, 41)
    return grid([scene(0, names=(NAMES[0],))[0], scene(41, names=(NAMES[1],))[0], im, overlay(im, labels, .75)], 2, 113)

def distillation():
    im = blank(); d = ImageDraw.Draw(im)
    y = 1.35*np.exp(-np.arange(100)/22) + .2 + np.random.default_rng(0).normal(0, .05, 100)
    pts = [(18 + 2.1*i, 200 - 120*v) for i, v in enumerate(y)]
    d.line(((16, 8), (16, 204), (230, 204)), SOFT, 3); d.line(pts, MARK, 5, joint='curve')
    d.text((70, 14), 'one student,', INK, font(21)); d.text((70, 42), 'all names', INK, font(21))
    return im

def evaluation():
    im = blank(); d = ImageDraw.Draw(im); m = np.array([[.9, .06, .04], [.2, .75, .05], [.15, .1, .75]])
    for i in range(3):
        for j in range(3):
            c = tuple(round(245 + (k - 245)*m[i, j]**.6) for k in (11, 110, 153)); x, y = 78*j, 78*i
            d.rectangle((x, y, x + 72, y + 72), fill=c); d.text((x + 36, y + 36), f'{m[i, j]:.0%}', 'white' if m[i, j] > .4 else INK, font(20), anchor='mm')
    return im

def prediction():
    s = [scene(i, NAMES, 'test') for i in (3, 4)]
    return grid([o for im, l in s for o in (im, overlay(im, l, .75))], 2, 113)

BOXES = [('names + photos', 'find and decode', photos), ('teachers', 'what is known before', teachers), ('index', 'a vector for each photo', index),
         ('retrieval', 'photos that fit a name', archives), ('saliency', 'the main object', saliency),
         ('experts', 'masks that agree', experts), ('copy-paste', 'scenes with many names', copypaste), ('distillation', 'the segmenter learns', distillation),
         ('evaluation', 'one confusion matrix', evaluation), ('prediction', 'labels for new photos', prediction)]

def box(k):
    title, note, draw = BOXES[k]
    im = Image.new('RGB', (W, H), WASH); d = ImageDraw.Draw(im)
    d.rounded_rectangle((14, 12, W - 34, H - 12), 16, outline=LINE, width=3)
    d.text((34, 42), title, INK, font(26, True), anchor='lm')
    d.text((34, 76), note, SOFT, font(18), anchor='lm')
    pic = draw(); im.paste(pic, (34 + (PIC - pic.width)//2, 104 + (PIC - pic.height)//2 + 18))
    if k < len(BOXES) - 1:
        y = H//2
        d.line((W - 34, y, W - 8, y), MARK, 6); d.polygon(((W, y), (W - 18, y - 12), (W - 18, y + 12)), MARK)
    return im

if __name__ == '__main__':
    for k in range(len(BOXES)): box(k).quantize(128, dither=Image.Dither.NONE).save(OUT/f'flow_{k+1:02}.png', optimize=True)
